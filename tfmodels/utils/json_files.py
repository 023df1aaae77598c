"""Read and write JSON; every JSON file of the package goes through here.

A file may come from anywhere, so what Python's parser lets through and the rest of the package would stumble over is
refused by name: nesting without end, integers of thousands of digits, NaN and infinities, half characters, one key
twice.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

from tfmodels.utils.files import read_bytes, write_text
from tfmodels.utils.text import LIMIT, quote, shorten
from tfmodels.utils.warn import warn

MAX_BYTES = 64 << 20
"""Largest JSON file read where nothing else is said; tokenizers and headers of weights have limits of their own."""
MAX_DEPTH = 100
_MAX_DIGITS = 64
_KIND_NAMES = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


def parse_value(text: bytes, what: str, *, nonfinite: bool = False) -> Any:
    """Parse JSON from untrusted bytes.

    Args:
        text: UTF-8 without a byte-order mark.
        what: what the text is, for messages ("model.safetensors: the header").
        nonfinite: let NaN and infinities through, for settings that are checked one by one.

    Raises:
        ValueError: the text is not UTF-8, not JSON, nested more than 100 deep, says one key twice, or holds a number
            or character that other programs cannot read.

    Example:
        >>> parse_value(b'{"a": [1, 2]}', "a.json")
        {'a': [1, 2]}
        >>> parse_value(b'{"a": NaN}', "a.json")
        Traceback (most recent call last):
        ValueError: a.json is not valid JSON: the number NaN is not finite.
    """
    bad = f"{what} is not valid JSON"
    for mark, name in _BYTE_ORDER_MARKS:
        if text.startswith(mark):
            raise ValueError(f"{bad}: it begins with a byte-order mark ({name}); save it as UTF-8 without one.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise _RefusedError(f"{what} has the key {quote(twice)} twice.")
        return value

    def integer(digits: str) -> int:
        if len(digits) > _MAX_DIGITS:
            raise _RefusedError(f"{bad}: it holds an integer of {len(digits)} digits; {_MAX_DIGITS} are read at most.")
        return int(digits)

    def real(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")) and not nonfinite:
            raise _RefusedError(f"{bad}: the number {shorten(digits)} is not finite.")
        return value

    def constant(name: str) -> float:
        if not nonfinite:
            raise _RefusedError(f"{bad}: the number {name} is not finite.")
        return float(name)

    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        wide = " (UTF-16 or UTF-32?)" if b"\0" in text[:4] else ""
        raise ValueError(f"{bad}: it is not UTF-8 text ({error.reason} at byte {error.start}){wide}.") from error
    try:
        value = json.loads(
            decoded, object_pairs_hook=unique, parse_int=integer, parse_float=real, parse_constant=constant
        )
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except json.JSONDecodeError as error:
        wide = " (UTF-16 or UTF-32 text?)" if "\0" in decoded[:4] else ""
        raise ValueError(f"{bad}: {error.msg} at line {error.lineno}, column {error.colno}{wide}.") from error
    except RecursionError as error:
        raise ValueError(f"{bad}: it is nested too deeply, more than {MAX_DEPTH} levels.") from error
    # Half of a character pair can be written as an escape, but not saved again.
    _check(value, bad, texts="\\ud" in decoded or "\\uD" in decoded)
    return value


class _RefusedError(ValueError):
    """Raised inside the parser, so that it is told apart from the parser's own errors."""


def _check(value: Any, bad: str, texts: bool) -> None:
    """Walk a parsed value level by level, without recursion."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"{bad}: it is nested too deeply, more than {MAX_DEPTH} levels.")
        if texts:
            for item in level:
                for text in item if isinstance(item, dict) else (item,):
                    if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                        raise ValueError(f"{bad}: the text {text[: LIMIT // 8]!a} holds half of a character.")
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
            if texts or isinstance(child, (dict, list))
        ]
        depth += 1


def parse_object(text: bytes, what: str, *, nonfinite: bool = False) -> dict[str, Any]:
    """Parse a JSON object; arguments and errors as in `parse_value`."""
    value = parse_value(text, what, nonfinite=nonfinite)
    if not isinstance(value, dict):
        kind = "null" if value is None else f"a JSON {type(value).__name__}"
        raise ValueError(f"{what} holds {kind}; an object was expected.")
    return value


def read_value(path: str | os.PathLike[str], *, limit: int = MAX_BYTES, nonfinite: bool = False) -> Any:
    """Read JSON from a file.

    Args:
        path: the file.
        limit: bytes that it may have.
        nonfinite: as in `parse_value`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as in `parse_value`, or the file is no regular one, or too large; the message names it.
    """
    return parse_value(read_bytes(path, limit), str(path), nonfinite=nonfinite)


def read_object(path: str | os.PathLike[str], *, limit: int = MAX_BYTES, nonfinite: bool = False) -> dict[str, Any]:
    """Read a JSON object from a file; arguments and errors as in `read_value`."""
    return parse_object(read_bytes(path, limit), str(path), nonfinite=nonfinite)


def check_kinds(values: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]], what: str) -> None:
    """Check the types of values that a file holds; absent keys and null pass, and so does an int for a float.

    Args:
        values: the file's content.
        kinds: the type, or types, that each key may have.
        what: the file, for messages.

    Raises:
        ValueError: a value is of another kind; the message names it.

    Example:
        >>> check_kinds({"layers": "2"}, {"layers": int}, "config.json")
        Traceback (most recent call last):
        ValueError: config.json: layers is '2'; an integer was expected.
    """
    for key, wanted in kinds.items():
        value, wanted = values.get(key), wanted if isinstance(wanted, tuple) else (wanted,)
        fits = isinstance(value, wanted) or (float in wanted and type(value) is int)
        if value is not None and (not fits or (isinstance(value, bool) and bool not in wanted)):
            expected = " or ".join(_KIND_NAMES.get(kind, kind.__name__) for kind in wanted)
            raise ValueError(f"{what}: {key} is {quote(value)}; {expected} was expected.")


def is_finite(value: Any) -> bool:
    """Whether a parsed value holds neither NaN nor infinities.

    Example:
        >>> is_finite({"a": [1, 2.5]}), is_finite({"a": [float("nan")]})
        (True, False)
    """
    level = [value]
    for _ in range(MAX_DEPTH):  # a value made in Python may contain itself
        if any(isinstance(item, float) and not math.isfinite(item) for item in level):
            return False
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return True


def without_nonfinite(
    values: Mapping[str, Any], fields: Collection[str], checked: Collection[str], owner: str
) -> dict[str, Any]:
    """The values of a file without those that are NaN or infinite and no field, such as old settings of generation.

    Args:
        values: by name.
        fields: names that must be finite.
        checked: names that pass whatever they are, as they are looked at later.
        owner: the class's name, for messages.

    Raises:
        ValueError: a field is NaN or infinite.
    """
    wrong = [name for name, value in values.items() if name not in checked and not is_finite(value)]
    for name in wrong:
        if name in fields:
            raise ValueError(f"{name}={quote(values[name])} in {owner}; a finite number was expected.")
    if wrong:
        told = ", ".join(f"{name}={quote(values[name])}" for name in wrong)
        warn(f"{owner} leaves out {told}: the values are not finite.")
    return {name: value for name, value in values.items() if name not in wrong}


def to_text(value: Any, what: str, *, sort_keys: bool = False, default: Any = None) -> str:
    """The text of a JSON file, as `parse_value` reads it again.

    Raises:
        ValueError: a number that is NaN or infinite, or a value that contains itself.
        TypeError: a value that JSON cannot hold.
    """
    try:
        text = json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False, default=default)
    except ValueError as error:
        raise ValueError(f"{what} cannot be written as JSON: {shorten(error)}.") from error
    return text + "\n"


def write_object(path: str | os.PathLike[str], value: Any, *, sort_keys: bool = False) -> None:
    """Write JSON so that the file is either the old one or the whole new one; errors as in `to_text`."""
    write_text(path, to_text(value, str(path), sort_keys=sort_keys))
