"""Fields of requests: what each may hold, and which are unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfmodels.serving.errors import BadRequest
from tfmodels.utils.text import did_you_mean, joined, quote

Check = Callable[[Any, str], Any]
"""Takes a value and the field's name; returns the value, and raises BadRequest for a wrong one."""


class Fields:
    """The fields of an endpoint.

    Args:
        checks: a check for each field that has an effect.
        ignored: a check for each field that clients send and that changes nothing here.
        refused: fields that would change the answer and that this server does not have, each with what to do.

    Example:
        >>> fields = Fields({"n": integer(1, 4)}, ignored={"user": text})
        >>> fields.read({"n": 2, "user": "me"}), fields.read({"n": None})
        ({'n': 2}, {})
        >>> fields.read({"n": 9})
        Traceback (most recent call last):
        tfmodels.serving.errors.BadRequest: n=9: an integer from 1 to 4 was expected.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        ignored: Mapping[str, Check] | None = None,
        refused: Mapping[str, str] | None = None,
    ):
        self.checks = dict(checks)
        self.ignored = dict(ignored or {})
        self.refused = dict(refused or {})

    def read(self, body: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """The fields of a request that are given, checked; null stands for a field that is not given.

        Args:
            body: values by field.
            where: what stands before the fields' names in messages.

        Raises:
            BadRequest: a field is unknown, not supported, or holds what it may not.
        """
        found = {}
        for name, value in body.items():
            full = where + name
            if name in self.checks:
                if value is not None:
                    found[name] = self.checks[name](value, full)
            elif name in self.refused:
                if value is not None:
                    raise BadRequest(f"{full} is not supported here: {self.refused[name]}.", full)
            elif name in self.ignored:
                if value is not None:
                    self.ignored[name](value, full)
            else:
                known = [*self.checks, *self.ignored]
                hint = did_you_mean(name, known)
                if where and not hint:  # an object has few fields, and a value in the wrong place is like none of them
                    hint = f"; {where.rstrip('.')} takes {joined(known)}"
                raise BadRequest(
                    f"Unrecognized request argument: {quote(full)}{hint}", full[:100], "unknown_parameter"
                )
        return found


def wrong(name: str, value: Any, expected: str) -> BadRequest:
    """The error for a field that holds what it may not."""
    return BadRequest(f"{name}={quote(value)}: {expected} was expected.", name)


# Kinds of values -----------------------------------------------------------------------------------------------------


def integer(low: int, high: int | None = None) -> Check:
    """An integer from `low` to `high`."""
    expected = f"an integer from {low} to {high}" if high is not None else f"an integer of at least {low}"

    def check(value: Any, name: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            raise wrong(name, value, expected)
        return value

    return check


def number(low: float, high: float) -> Check:
    """A number from `low` to `high`."""

    def check(value: Any, name: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise wrong(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    return check


def flag(value: Any, name: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return value


def text(value: Any, name: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    return value


def notes(value: Any, name: str) -> dict[str, str]:
    """Texts by name."""
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise wrong(name, value, "an object of texts")
    return value


def one_of(*choices: str) -> Check:
    """One of several words."""

    def check(value: Any, name: str) -> str:
        if value not in choices or not isinstance(value, str):
            raise wrong(name, value, " or ".join(f'"{choice}"' for choice in choices))
        return value

    return check


def mapping(value: Any, name: str) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise wrong(name, value, "an object")
    return value


def schema(value: Any, name: str) -> dict[str, Any] | bool:
    """A JSON schema."""
    if not isinstance(value, (dict, bool)):
        raise wrong(name, value, "a JSON schema")
    return value


def texts(most: int) -> Check:
    """A text, or a list of up to `most`, which may have none; none of them empty."""

    def check(value: Any, name: str) -> list[str]:
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or len(found) > most or not all(isinstance(x, str) and x for x in found):
            raise wrong(name, value, f"a text or a list of up to {most} texts, none of them empty,")
        return found

    return check


def inner(fields: Fields) -> Check:
    """An object with fields of its own, named with a dot in messages."""

    def check(value: Any, name: str) -> dict[str, Any]:
        return fields.read(mapping(value, name), f"{name}.")

    return check


def token_numbers(low: float, high: float) -> Check:
    """An object of numbers by token id."""
    fits = number(low, high)

    def check(value: Any, name: str) -> dict[int, float]:
        found = {}
        for key, one in mapping(value, name).items():
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                raise BadRequest(f"{name}={quote(value)}: {quote(key)} is no token id.", name)
            found[int(key)] = fits(one, f"{name}.{key}")
        return found

    return check
