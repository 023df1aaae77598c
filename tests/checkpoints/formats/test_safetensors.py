from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.formats.safetensors import SafetensorsFile

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def compose(header: dict | str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    text = text.encode() if isinstance(text, str) else text
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def open_bytes(folder: Path, content: bytes) -> SafetensorsFile:
    path = folder / "model.safetensors"
    path.unlink(missing_ok=True)  # what is mapped must not be cut short
    path.write_bytes(content)
    return SafetensorsFile(path)


@pytest.mark.parametrize(
    "dtype",
    [
        *("float64", "float32", "float16", "int64", "int32", "int16", "int8"),
        *("uint64", "uint32", "uint16", "uint8", "bool"),
    ],
)
def test_equals_the_reference_writer(tmp_path, dtype):
    rng = np.random.default_rng(0)
    tensors = {
        "matrix": rng.integers(0, 2**8, (5, 3)).astype(dtype),
        "vector": rng.integers(0, 2, 7).astype(dtype),
        "scalar": np.array(1, dtype),
        "empty": np.zeros((0, 4), dtype),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "np"})
    file = SafetensorsFile(tmp_path / "model.safetensors")
    assert file.tensors.keys() == tensors.keys()
    for name, expected in tensors.items():
        array = file.read(name)
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("code", "bits", "dtype", "values"),
    [
        # By hand: sign, exponent and fraction of 1, -2, 0.15625 and infinity.
        ("BF16", [0x3F80, 0xC000, 0x3E20, 0x7F80], ml_dtypes.bfloat16, [1, -2, 0.15625, np.inf]),
        ("F16", [0x3C00, 0xC000, 0x3100, 0x7C00], np.float16, [1, -2, 0.15625, np.inf]),
        ("F8_E4M3", [0x38, 0xC0, 0x22, 0x7E], ml_dtypes.float8_e4m3fn, [1, -2, 0.15625, 448]),
        ("F8_E5M2", [0x3C, 0xC0, 0x31, 0x7C], ml_dtypes.float8_e5m2, [1, -2, 0.15625, np.inf]),
    ],
)
def test_small_floats(tmp_path, code, bits, dtype, values):
    width = np.dtype(dtype).itemsize
    data = np.array(bits, f"<u{width}").tobytes()
    header = {"x": {"dtype": code, "shape": [4], "data_offsets": [0, 4 * width]}}
    file = open_bytes(tmp_path, compose(header, data))
    assert file.read("x").dtype == dtype
    np.testing.assert_array_equal(file.read("x").astype(np.float64), values)


def test_order_is_that_of_the_file_and_data_may_be_unaligned(tmp_path):
    header = {
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]},
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    }
    file = open_bytes(tmp_path, compose(header, b"\x07" + np.float32(1.5).tobytes()))
    assert list(file.tensors) == ["a", "b"]
    assert file.read("a").tolist() == [7]
    assert file.read("b").tolist() == [1.5]


ONE = {"x": F32}
EIGHT = bytes(8)


def entry(**changes) -> dict:
    return {"x": {**F32, **changes}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x01", "cut short"),
        (compose(ONE, EIGHT)[:20], "cut short: its header"),
        (compose(ONE, EIGHT)[:-1], "cut short: its tensors take 8 bytes"),
        (compose(ONE, EIGHT) + b"x", "1 bytes behind its last tensor"),
        (compose(ONE, EIGHT, length=2**63), "limit"),
        (compose(ONE, EIGHT, length=99_999_999), "cut short: its header should be 99999999"),
        (compose(ONE, EIGHT, length=5), "not valid JSON"),
        (compose("", EIGHT), "not valid JSON"),
        (compose(b"\xff\xfe{}", b""), "not valid JSON"),
        (compose("[1]"), "holds a JSON list"),
        (compose("[" * 200_000), "not valid JSON"),
        (compose('{"x": ' + json.dumps(F32) + ', "x": ' + json.dumps(F32) + "}", EIGHT), "key 'x' twice"),
        (compose({"__metadata__": {"a": 1}}), "__metadata__"),
        (compose({"x": 3}, EIGHT), "must be described by"),
        (compose({"x": {"dtype": "F32", "shape": [2]}}, EIGHT), "must be described by"),
        (compose(entry(dtype="F4"), EIGHT), "element type 'F4'"),
        (compose(entry(dtype=["F32"]), EIGHT), "element type"),
        (compose(entry(shape=2), EIGHT), "no list of sizes"),
        (compose(entry(shape=[-2]), EIGHT), "no list of sizes"),
        (compose(entry(shape=[True]), EIGHT), "no list of sizes"),
        (compose(entry(shape=[2.0]), EIGHT), "no list of sizes"),
        (compose(entry(shape=[3]), EIGHT), r"takes 12 bytes.*span 8"),
        (compose(entry(shape=[2**62, 4]), EIGHT), "no tensor can have"),
        (compose(entry(shape=[0, 2**62], data_offsets=[0, 0])), "no tensor can have"),
        (compose(entry(shape=[1] * 40 + [2]), EIGHT), "no tensor can have"),
        (compose(entry(dtype="F64"), EIGHT), r"takes 16 bytes.*span 8"),
        (compose(entry(data_offsets=[8, 0]), EIGHT), "span -8"),
        (compose(entry(data_offsets=[0]), EIGHT), "no pair of positions"),
        (compose(entry(data_offsets=[-8, 0]), EIGHT), "no pair of positions"),
        (compose(entry(data_offsets=[0, 8, 16]), EIGHT), "no pair of positions"),
        (compose(entry(data_offsets=[10**30, 10**30 + 8]), EIGHT), "leaves unused bytes after the header"),
        (compose({"x": F32, "y": F32}, EIGHT), "'y'.*overlaps tensor 'x'"),
        (compose({"x": F32, "y": {**F32, "data_offsets": [4, 12]}}, bytes(12)), "overlaps"),
        (
            compose({"x": F32, "y": {**F32, "data_offsets": [16, 24]}}, bytes(24)),
            "leaves unused bytes after tensor 'x'",
        ),
        (compose({"x": F32, "y": {**F32, "data_offsets": [8, 16]}}, bytes(12)), "tensor 'y' is not whole"),
    ],
)
def test_malformed(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        open_bytes(tmp_path, content)
    assert "model.safetensors" in str(caught.value)


VALID = compose(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]},
    },
    bytes(range(40)),
)
DATA_START = len(VALID) - 40


def check_consistent(file: SafetensorsFile) -> None:
    for name, info in file.tensors.items():
        array = file.read(name)
        assert (array.shape, array.dtype.name, array.nbytes) == (info.shape, info.dtype, info.nbytes)
        array.tobytes()


@settings(max_examples=200)
@given(flips=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_read_consistently_or_raise(tmp_path_factory, flips):
    damaged = bytearray(VALID)
    for position, bits in flips:
        damaged[position] ^= bits
    try:
        file = open_bytes(tmp_path_factory.mktemp("flip"), bytes(damaged))
    except CheckpointError:
        return
    check_consistent(file)
    # All 40 bytes still belong to tensors, in their order.
    read = b"".join(file.read(name).tobytes() for name in file.tensors)
    assert read == bytes(damaged[DATA_START:])


@given(length=st.integers(0, len(VALID) - 1))
def test_truncated_files_raise(tmp_path_factory, length):
    with pytest.raises(CheckpointError):
        open_bytes(tmp_path_factory.mktemp("cut"), VALID[:length])


@given(content=st.binary(max_size=200))
def test_noise_raises_or_is_consistent(tmp_path_factory, content):
    for damaged in (content, len(content).to_bytes(8, "little") + content):
        try:
            file = open_bytes(tmp_path_factory.mktemp("noise"), damaged)
        except CheckpointError:
            continue
        check_consistent(file)
