"""Tool calling: the tools that the model is told of, and the calls that its text contains."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmodels.serving import fields
from tfmodels.serving.errors import BadRequest
from tfmodels.utils.text import quote, some

MOST_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
# Names under which models write the arguments of a call; the second is Llama 3's.
_ARGUMENTS = ("arguments", "parameters")


def _check_name(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise fields.wrong(name, value, "a name of up to 64 letters, digits, dots, hyphens or underscores")
    return value


_FUNCTION = fields.inner(
    fields.Fields(
        {"name": _check_name, "description": fields.text, "parameters": fields.mapping, "return": fields.mapping},
        ignored={"strict": fields.flag},  # where a call is forced, its arguments follow the schema strictly
    )
)
_TOOL = fields.inner(fields.Fields({"type": fields.text, "function": _FUNCTION}))


def check_tools(value: Any, name: str) -> list[dict[str, Any]]:
    """Check `tools`: functions with a name and a JSON schema of their parameters."""
    if not isinstance(value, list) or len(value) > MOST_TOOLS:
        raise BadRequest(f"{name}={quote(value)}: a list of up to {MOST_TOOLS} tools was expected.", name)
    for index, tool in enumerate(value):
        where = f"{name}[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or tool.get("function") is None:
            raise fields.wrong(where, tool, '{"type": "function", "function": {"name": ...}}')
        if "name" not in _TOOL(tool, where)["function"]:
            raise BadRequest(f"{where}.function.name is missing.", f"{where}.function.name")
    return value


def check_choice(value: Any, name: str) -> str:
    """Check `tool_choice` and return "none", "auto", "required", or "function:NAME"."""
    if value in ("none", "auto", "required") and isinstance(value, str):
        return value
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return f"function:{function['name']}"
    raise BadRequest(
        f'{name}={quote(value)}: "none", "auto", "required" or {{"type": "function", "function": {{"name": ...}}}} '
        "was expected.",
        name,
    )


class Choice(NamedTuple):
    """The tools of a request, and the choice among them.

    Fields:
        told: the tools that the template is given; None where there are none.
        reads: whether calls are looked for in what the model writes.
        response_format: what it must write where it has to call one; None where it may do as it likes.
    """

    told: list[dict[str, Any]] | None
    reads: bool
    response_format: dict[str, Any] | None


def choose(tools: list[dict[str, Any]] | None, choice: str | None) -> Choice:
    """Settle `tools` and `tool_choice`.

    Raises:
        BadRequest: a tool is to be chosen and there is none of that name.
    """
    if not tools:
        if choice not in (None, "none", "auto"):
            raise BadRequest("tool_choice is only allowed when tools are given.", "tool_choice")
        return Choice(None, False, None)
    if choice == "none":
        return Choice(None, False, None)
    if choice in (None, "auto"):
        return Choice(tools, True, None)
    names = [tool["function"]["name"] for tool in tools]
    if choice != "required":
        wanted = choice.partition(":")[2]
        if wanted not in names:
            raise BadRequest(f"tool_choice names {quote(wanted)}; the tools are {some(names)}.", "tool_choice")
        names = [wanted]
    calls = [_schema(tool["function"], place) for place, tool in enumerate(tools) if tool["function"]["name"] in names]
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return Choice(tools, True, {"type": "json_schema", "json_schema": {"name": "tool_call", "schema": schema}})


def _schema(function: dict[str, Any], place: int) -> dict[str, Any]:
    parameters = function.get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}
    # A reference, such as "#/$defs/Place", is looked up from the nearest schema with an id, else from the whole.
    parameters = {"$id": f"tool:{place}", **parameters}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


class Call(NamedTuple):
    """A call that a model makes: the tool's name, and the arguments as JSON."""

    name: str
    arguments: str

    def content(self) -> dict[str, Any]:
        """The call as clients get it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


class CallReader:
    """Finds calls in a text that comes piece by piece.

    Models write `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, or nothing but such an object, as Llama 3
    does (with "parameters"). Text that is no call of a known tool stays text.

    Args:
        names: of the tools.

    Example:
        >>> reader = CallReader(["now"])
        >>> reader.add("It is <tool_"), reader.add('call>{"name": "now", "arguments": {}}</tool_call>'), reader.end()
        (['It is '], [Call(name='now', arguments='{}')], [])
    """

    def __init__(self, names: Sequence[str]):
        self._names = set(names)
        self._held = ""
        self._begun = False  # whether text that is no space has gone out
        self._called = False  # whether the last that went out is a call

    def add(self, piece: str) -> list[str | Call]:
        """Take a further piece; returns the texts and calls that are certain with it."""
        self._held += piece
        found: list[str | Call] = []
        while True:
            start = self._held.find(_OPEN)
            if start < 0:
                break
            end = self._held.find(_CLOSE, start)
            if end < 0:
                found += self._text(self._held[:start])
                self._held = self._held[start:]
                return found
            found += self._text(self._held[:start])
            whole = self._held[start : end + len(_CLOSE)]
            calls = self._calls(whole[len(_OPEN) : -len(_CLOSE)])
            found += calls or self._text(whole)
            self._held = self._held[end + len(_CLOSE) :]
            self._called = bool(calls)
        if not self._begun and self._held.lstrip()[:1] in ("", "{", "["):
            return found  # an object may be a call; the end tells
        keep = next((size for size in range(len(_OPEN) - 1, 0, -1) if self._held.endswith(_OPEN[:size])), 0)
        cut = len(self._held) - keep
        found += self._text(self._held[:cut])
        self._held = self._held[cut:]
        return found

    def end(self) -> list[str | Call]:
        """End the text; returns the texts and calls that were held back."""
        held, self._held = self._held, ""
        inside = held.removeprefix(_OPEN) if held.startswith(_OPEN) else None if self._begun else held
        return (self._calls(inside) if inside is not None else []) or self._text(held)

    def _text(self, text: str) -> list[str | Call]:
        if self._called:
            text = text.lstrip()
        if not text or (not self._begun and not text.strip()):
            return []
        self._begun, self._called = True, False
        return [text]

    def _calls(self, text: str) -> list[str | Call]:
        """The calls that a text consists of; none where it is something else."""
        found: list[str | Call] = []
        decoder, text = json.JSONDecoder(), text.strip()
        while text:
            try:
                value, end = decoder.raw_decode(text)
                # Python reads infinities and halves of characters, which no answer can hold.
                json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
            except (ValueError, RecursionError):
                return []
            for one in value if isinstance(value, list) else [value]:
                name = one.get("name") if isinstance(one, dict) else None
                arguments = next((one[key] for key in _ARGUMENTS if key in one), {}) if name else None
                if not isinstance(name, str) or name not in self._names or not isinstance(arguments, (dict, str)):
                    return []
                arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
                found.append(Call(name, arguments))
            text = text[end:].lstrip().removeprefix(";").lstrip()
        return found
