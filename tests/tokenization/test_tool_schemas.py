"""Python functions as JSON schemas; the expectations are those of transformers 5.24."""

from __future__ import annotations

import enum
from typing import Any, Literal, Optional, Union

import pytest

from tfmodels.tokenization.tool_schemas import get_json_schema, tool_schemas


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


def everything(
    city: str,
    unit: Unit,
    days: Optional[int] = None,  # noqa: UP045
    places: list[dict[str, float]] = (),
    pair: tuple[int, str] = (1, "a"),
    either: Union[int, str] = 1,  # noqa: UP007
    nested: list[int] | str = "a",
    kind: Literal["a", 1, None] = "a",
    extra: Any = None,
    plain: dict = {},  # noqa: B006
) -> dict[str, bool]:
    """
    Say everything
    over two lines.

    Args:
        city (str): name of the city,
            which may go on
        unit: which unit
        days: how many
        places: where: "here: there"
        pair: two things
        either: this or that
        nested: more
        kind: which (choices: ["a ", "b"])
        extra: anything
        plain: some

    Returns:
        What was said,
        at length.

    Raises:
        ValueError: never.
    """


SCHEMA = {
    "type": "function",
    "function": {
        "name": "everything",
        "description": "Say everything\nover two lines.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name of the city, which may go on"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "description": "which unit"},
                "days": {"type": "integer", "nullable": True, "description": "how many"},
                "places": {
                    "type": "array",
                    "items": {"type": "object", "additionalProperties": {"type": "number"}},
                    "description": 'where: "here: there"',
                },
                "pair": {
                    "type": "array",
                    "prefixItems": [{"type": "integer"}, {"type": "string"}],
                    "description": "two things",
                },
                "either": {"type": ["integer", "string"], "description": "this or that"},
                "nested": {
                    "anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}],
                    "description": "more",
                },
                "kind": {"type": ["string", "integer", "null"], "enum": ["a", "b"], "description": "which"},
                "extra": {"description": "anything"},
                "plain": {"type": "object", "description": "some"},
            },
            "required": ["city", "unit"],
        },
        "return": {
            "type": "object",
            "additionalProperties": {"type": "boolean"},
            "description": "What was said,\n    at length.",
        },
    },
}


def test_everything():
    assert get_json_schema(everything) == SCHEMA
    assert list(get_json_schema(everything)["function"]["parameters"]["properties"]) == list(
        SCHEMA["function"]["parameters"]["properties"]
    )


@pytest.mark.slow
def test_as_transformers():
    utils = pytest.importorskip("transformers.utils")
    assert utils.get_json_schema(everything) == SCHEMA


def test_methods_and_functions_without_arguments():
    class Clock:
        def now(self) -> str:
            """The time."""

        def far(self, when: str) -> Clock:
            """Later.

            Args:
                when: when
            """

    assert get_json_schema(Clock().now)["function"] == {
        "name": "now",
        "description": "The time.",
        "parameters": {"type": "object", "properties": {}},
        "return": {"type": "string"},
    }
    assert tool_schemas([Clock().now, {"a": 1}])[1] == {"a": 1}
    assert tool_schemas(None) is None


def without_docstring(a: int): ...


def without_hint(a):
    """x

    Args:
        a: x
    """


def without_description(a: int):
    """x"""


def with_object(a: pytest.Item):
    """x

    Args:
        a: x
    """


def with_open_tuple(a: tuple[int, ...]):
    """x

    Args:
        a: x
    """


def with_broken_choices(a: str):
    """x

    Args:
        a: x (choices: [a, b])
    """


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (without_docstring, "without_docstring has no docstring"),
        (without_hint, "argument a of the tool without_hint has no type hint"),
        (without_description, "without_description does not describe its argument a"),
        (with_object, "has the type hint .*Item.*, which has no counterpart in a JSON schema"),
        (with_open_tuple, "has the type hint tuple"),
        (with_broken_choices, "are no JSON list"),
    ],
)
def test_functions_that_cannot_be_described(function, message):
    with pytest.raises(ValueError, match=message):
        get_json_schema(function)
