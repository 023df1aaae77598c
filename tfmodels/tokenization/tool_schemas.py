"""Describes Python functions as JSON schemas, the form in which chat templates take tools."""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from tfmodels.utils.text import quote

_BASIC = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
    list: "array",
    tuple: "array",
    dict: "object",
}
_SCALARS = (int, float, str, bool, type(None))
_SECTION = re.compile(r"\s*\b(Args:|Returns:|Raises:)")
_ARGUMENT = re.compile(r"([ \t]*)(\w+)(?:[ \t]*\([^()]*\))?:\s*(.*)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def tool_schemas(tools: Any) -> list[dict[str, Any]] | None:
    """The tools of a chat as JSON schemas; functions are described by `get_json_schema`.

    Raises:
        ValueError: a tool is neither a dict nor a function, or a function cannot be described.
    """
    if tools is None:
        return None
    if isinstance(tools, (str, Mapping)) or not hasattr(tools, "__iter__"):
        raise ValueError(f"tools must be a list of functions or of JSON schemas, got {quote(tools)}.")
    schemas = []
    for tool in tools:
        if isinstance(tool, Mapping):
            schemas.append(dict(tool))
        elif inspect.isfunction(tool) or inspect.ismethod(tool):
            schemas.append(get_json_schema(tool))
        else:
            raise ValueError(f"A tool must be a JSON schema (a dict) or a Python function, got {quote(tool)}.")
    return schemas


def get_json_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a function by its type hints and its docstring.

    Args:
        function: has a type hint and a line below "Args:" in its docstring for every argument. A line may end in
            `(choices: ["a", "b"])`, a JSON list of what is allowed.

    Returns:
        {"type": "function", "function": {"name", "description", "parameters"}}, "return" included where both the hint
        and the docstring can say it.

    Raises:
        ValueError: no docstring, an argument without hint or description, or a hint without counterpart in JSON.

    Example:
        >>> def multiply(x: float, y: float = 1.0):
        ...     '''Multiply two numbers.
        ...
        ...     Args:
        ...         x: the first number
        ...         y: the second number
        ...     '''
        >>> schema = get_json_schema(multiply)["function"]
        >>> schema["description"], schema["parameters"]["properties"]["x"], schema["parameters"]["required"]
        ('Multiply two numbers.', {'type': 'number', 'description': 'the first number'}, ['x'])
    """
    name = getattr(function, "__name__", "operation")
    text = (inspect.getdoc(function) or "").strip()
    if not text:
        raise ValueError(f"The tool {name} has no docstring; a chat template is told what a tool does from it.")
    description, arguments, returns = _docstring(text)
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    properties: dict[str, Any] = {}
    required = []
    for index, (argument, parameter) in enumerate(parameters.items()):
        unhinted = parameter.annotation is inspect.Parameter.empty
        if index == 0 and argument in ("self", "cls") and unhinted:
            continue
        if unhinted:
            raise ValueError(f"The argument {argument} of the tool {name} has no type hint.")
        if argument not in arguments:
            raise ValueError(f"The docstring of the tool {name} does not describe its argument {argument}.")
        schema = _schema(hints[argument], f"The argument {argument} of the tool {name}")
        said = arguments[argument]
        if choices := _CHOICES.search(said):
            try:
                values = json.loads(choices.group(1))
            except ValueError as error:
                raise ValueError(
                    f"The choices of the argument {argument} of the tool {name} are no JSON list: {error}."
                ) from error
            schema["enum"] = [value.strip() if isinstance(value, str) else value for value in values]
            said = said[: choices.start()].strip()
        schema["description"] = said
        properties[argument] = schema
        if parameter.default is inspect.Parameter.empty:
            required.append(argument)
    found: dict[str, Any] = {"name": name, "description": description}
    found["parameters"] = {"type": "object", "properties": properties}
    if required:
        found["parameters"]["required"] = required
    if "return" in hints:
        try:
            found["return"] = _schema(hints["return"], "")
        except ValueError:
            pass  # no model writes the return value, so that one without counterpart in JSON is left out
        else:
            found["return"] |= {} if returns is None else {"description": returns}
    return {"type": "function", "function": found}


def _schema(hint: Any, what: str) -> dict[str, Any]:
    """The JSON schema of a type hint."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return _one_of([member.value for member in hint], what)
        if hint is Any:
            return {}
        if isinstance(hint, type) and hint in _BASIC:
            return {"type": _BASIC[hint]}
    elif origin in (typing.Union, types.UnionType):
        kinds = [_schema(kind, what) for kind in inner if kind is not type(None)]
        if len(kinds) == 1:
            schema = kinds[0]
        elif all(set(kind) == {"type"} and isinstance(kind["type"], str) for kind in kinds):
            names = sorted({kind["type"] for kind in kinds})
            schema = {"type": names[0] if len(names) == 1 else names}
        else:
            schema = {"anyOf": kinds}
        return {**schema, "nullable": True} if type(None) in inner else schema
    elif origin is typing.Literal:
        return _one_of(list(inner), what)
    elif origin is list:
        return {"type": "array", "items": _schema(inner[0], what)}
    elif origin is tuple and len(inner) > 1 and ... not in inner:
        return {"type": "array", "prefixItems": [_schema(kind, what) for kind in inner]}
    elif origin is dict:
        return {"type": "object", "additionalProperties": _schema(inner[1], what)}
    raise ValueError(
        f"{what} has the type hint {quote(hint)}, which has no counterpart in a JSON schema; int, float, str, bool, "
        "None, Any, Literal, enumerations, and list, dict, tuple of a fixed length and unions of them have one. The "
        "schema can also be written by hand and given instead of the function."
    )


def _one_of(values: list[Any], what: str) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise ValueError(f"{what} allows {quote(values)}; numbers, strings, booleans and None can be written in JSON.")
    kinds = list(dict.fromkeys(_BASIC[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _docstring(text: str) -> tuple[str | None, dict[str, str], str | None]:
    """Description, arguments and return value of a docstring in Google's style."""
    first = _SECTION.search(text)
    description = text[: first.start()].strip() if first else text
    arguments: dict[str, str] = {}
    block = re.search(r"\n\s*Args:\n(.*?)\s*(?:Returns:|Raises:|\Z)", text, re.DOTALL)
    name, base = None, ""
    for line in block.group(1).split("\n") if block else ():
        found = _ARGUMENT.fullmatch(line)
        if found and (name is None or not found.group(1).startswith(base + " ")):
            base, name, arguments[found.group(2)] = found.group(1), found.group(2), found.group(3).strip()
        elif name is not None and line.strip():
            arguments[name] = f"{arguments[name]} {line.strip()}".strip()
    returns = re.search(r"\n\s*Returns:\n\s*(.*?)\s*(?:Raises:|\Z)", text, re.DOTALL)
    return description, arguments, returns and returns.group(1)
