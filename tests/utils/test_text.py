"""Messages show the start of a value and cost no more than that."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import numpy as np
import pytest

import tfmodels
from tfmodels.utils.text import did_you_mean, quote, shorten, some


def shared_tuples(depth: int) -> tuple:
    """A tuple of 2 ** depth leaves that takes the memory of `depth`."""
    value: tuple = ()
    for _ in range(depth):
        value = (value, value)
    return value


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**7,
        b"x" * 10**7,
        [1] * 10**6,
        {n: n for n in range(10**5)},
        shared_tuples(60),
        10**50_000,
        "\U000e0001" * 999,
    ]
    + [
        np.zeros((4, 10**6)),
        [np.zeros(10**6)] * 1000,
        [[[[[["deep"] * 9] * 9] * 9] * 9] * 9] * 9,
        Broken(),
        {Broken(): 1},
    ],
    ids=range(12),
)
def test_at_most_200_characters_at_no_cost(value):
    start = time.process_time()
    text = quote(value)
    assert 0 < len(text) <= 200
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -2.5, "a'b", b"a", [], [1, "x"], (), (1,), (1, 2), {}, {"a": [1]}, {1}, [None, ({"k": (2,)},)]]
    + [float("nan"), np.float32(1.5), np.arange(3)],
    ids=repr,
)
def test_short_values_are_their_repr(value):
    assert quote(value) == repr(value)


def test_a_value_that_contains_itself():
    value: list = []
    value.append(value)
    assert quote(value).startswith("[[[")


def test_texts_of_other_libraries_take_one_line():
    assert shorten("a\n  b") == "a b"
    assert len(shorten("x" * 10**6)) == 200


def test_lists_of_names_of_any_kind():
    assert some([None, "a", 1]) == "None, 1, 'a'"
    assert some(["b", "a", "c"], 2) == "'a', 'b' and 1 more"
    assert len(some(["x" * 10**6] * 9)) < 700


def test_capitals_are_no_difference_to_hints():
    assert did_you_mean("LAMA", ["Llama", "llama", "mpt"]) == "; did you mean Llama or llama?"


def test_hints_are_left_out_where_they_would_take_long():
    start = time.process_time()
    known = [f"layer.{number}.weight" for number in range(100_000)]
    assert did_you_mean("layer.5.weigth", known) == ""
    assert did_you_mean("x" * 10**6, known[:9]) == did_you_mean(None, ["none"]) == ""
    assert time.process_time() - start < 1


def whole_values(source: str) -> list[str]:
    """Expressions that a module puts into texts by `repr`, other than constants and in `__repr__` itself."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__repr__"]
    allowed = {id(node) for function in functions for node in ast.walk(function)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.conversion == ord("r")]
    values = [ast.unparse(node.value) for node in found if id(node) not in allowed]
    return [value for value in values if not value.strip("_").isupper()]


def test_no_message_of_the_package_shows_a_value_whole():
    assert whole_values('f"{value!r} and {_PREFIX!r}"') == ["value"]
    package = Path(tfmodels.__file__).parent
    found = {str(path.relative_to(package)): whole_values(path.read_text("utf-8")) for path in package.rglob("*.py")}
    assert {path: values for path, values in found.items() if values} == {}
