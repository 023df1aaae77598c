"""Every JSON file of the package is read by one parser, which names the file and what is wrong with it."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmodels.utils.json_files import parse_object, parse_value, read_object, to_text, write_object

BAD = {
    "byte-order mark .UTF-8": b"\xef\xbb\xbf{}",
    "byte-order mark .UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-16 or UTF-32": '{"a": 1}'.encode("utf-16-le"),
    "not UTF-8 text": '{"a": "ä"}'.encode("latin-1"),
    "nested too deeply, more than 100": b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
    "nested too deeply": b"[" * 200_000,
    "nested too deeply, more": b'{"a":' * 200_000,
    "integer of 5000 digits": b'{"a": ' + b"7" * 5000 + b"}",
    "number 1e999 is not finite": b'{"a": 1e999}',
    "number NaN is not finite": b'{"a": NaN}',
    "number -Infinity is not finite": b'{"a": [-Infinity]}',
    "Extra data at line 1, column 4": b"{} {}",
    "key 'a' twice": b'{"a": 1, "b": 2, "a": 1}',
    "half of a character": rb'{"a": ["\ud83d"]}',
    "holds half of a character": rb'{"\uDE00": 1}',
    "Expecting value": b"",
    "Unterminated string": b'{"a": "',
    "Invalid control character": b'{"a": "\n"}',
    "holds a JSON list": b"[]",
    "holds null; an object": b"null",
}


@pytest.mark.parametrize("message", BAD)
def test_refused_by_name(message):
    with pytest.raises(ValueError, match=rf"^some/config\.json .*{message}"):
        parse_object(BAD[message], "some/config.json")


@pytest.mark.parametrize(
    "content",
    ["1e308", "-0.0", '"\\ud83d\\ude00"', "123456789012345678901234567890", "[" * 100 + "]" * 100, '{"": {"": ""}}'],
)
def test_read_as_python_reads_it(content):
    assert parse_value(content.encode(), "x") == json.loads(content)


def test_numbers_that_are_checked_later():
    value = parse_object(b'{"a": NaN, "b": -Infinity, "c": 1e999}', "x", nonfinite=True)
    assert str(value) == "{'a': nan, 'b': -inf, 'c': inf}"


@given(data=st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ud8e1.-nNIt ', max_size=40).map(str.encode))
def test_noise_reads_or_raises_value_error(data):
    try:
        value = parse_value(data, "noise")
    except ValueError as error:
        problem = str(error)
        assert problem.startswith("noise ")
    else:
        assert parse_value(to_text(value, "again").encode(), "again") == value


def test_a_hundred_thousand_keys_twice_take_no_time():
    content = "{" + ",".join(f'"{number}":0' for number in range(100_000)) + ',"7":0}'
    with pytest.raises(ValueError, match="key '7' twice"):
        parse_object(content.encode(), "x")


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"[" + b" " * 1000 + b"]")
    for path, message in ((tmp_path / "pipe", "is a pipe"), (tmp_path, "is a folder"), ("/dev/zero", "is a device")):
        with pytest.raises(ValueError, match=message):
            read_object(path)
    with pytest.raises(ValueError, match="has 1002 bytes; such a file is read up to 100"):
        read_object(tmp_path / "large", limit=100)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none")


def test_what_cannot_be_read_back_is_not_written(tmp_path):
    path = tmp_path / "a.json"
    write_object(path, {"a": 1})
    cycle: list = []
    cycle.append(cycle)
    for value, error in (
        (float("nan"), ValueError),
        (cycle, ValueError),
        ("\ud83d", ValueError),
        (object(), TypeError),
    ):
        with pytest.raises(error):
            write_object(path, {"a": value})
        assert read_object(path) == {"a": 1}
    assert [child.name for child in tmp_path.iterdir()] == ["a.json"]
