"""Checks of single settings of `generate`: each takes (name, value) and returns the value to keep."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

from tfmodels.utils.text import quote

Check = Callable[[str, Any], Any]


def other_spellings(value: Any) -> list[Any]:
    """The value that an odd one in a file stands for: 2 for 2.0, False for "false", 1 for [1], 0.7 for "0.7".

    Example:
        >>> other_spellings("false"), other_spellings([2.0]), other_spellings(-1)
        ([False], [[2], 2.0, 2], [])
    """
    if isinstance(value, float) and value.is_integer():
        return [int(value)]
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("true", "false"):
            return [text == "true"]
        try:
            return [int(text)]
        except ValueError:
            pass
        try:
            return [float(text)]
        except ValueError:
            return []
    if isinstance(value, list):
        whole = [other_spellings(item)[0] if isinstance(item, float) and item.is_integer() else item for item in value]
        found = [whole] if any(type(a) is not type(b) for a, b in zip(whole, value, strict=True)) else []
        return found + ([value[0], *other_spellings(value[0])] if len(value) == 1 else [])
    return []


def wrong(name: str, value: Any, right: str) -> ValueError:
    """The error for a value that is not what it should be."""
    return ValueError(f"{name}={quote(value)}: it should be {right}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def integer(minimum: int | None = None) -> Check:
    """Make a check for an integer of at least `minimum`."""
    right = "an integer" + ("" if minimum is None else f" of at least {minimum}")

    def check(name: str, value: Any) -> int:
        if not _is_int(value) or (minimum is not None and value < minimum):
            raise wrong(name, value, right)
        return value

    return check


def number(right: str, inside: Callable[[float], bool]) -> Check:
    """Make a check for a number for which `inside` holds; `right` says so in words."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise wrong(name, value, right)
        try:
            as_float = float(value)
        except OverflowError:
            raise wrong(name, value, right) from None
        if not inside(as_float):
            raise wrong(name, value, right)
        return as_float

    return check


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, value, "True or False")
    return value


def early_stopping(name: str, value: Any) -> bool | str:
    if not isinstance(value, bool) and value != "never":
        raise wrong(name, value, 'True, False or "never"')
    return value


def _is_tokens(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_int(token) and token >= 0 for token in value)


def tokens(name: str, value: Any) -> list[int]:
    if not _is_tokens(value):
        raise wrong(name, value, "a list of token ids")
    return value


def token_or_tokens(name: str, value: Any) -> int | list[int]:
    if not _is_tokens(value if isinstance(value, list) else [value]) or value == []:
        raise wrong(name, value, "a token id or a list of them, each at least 0")
    return value


def bad_words(name: str, value: Any) -> list[list[int]]:
    if not isinstance(value, list) or not all(_is_tokens(word) and word for word in value):
        raise wrong(name, value, "a list of lists of token ids, none of them empty")
    return value


def sequence_bias(name: str, value: Any) -> list | dict:
    pairs = value.items() if isinstance(value, dict) else value
    try:
        right = all(_is_tokens(ids) and ids and bias < math.inf and not math.isnan(bias) for ids, bias in pairs)
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        right = "a list of [[token ids], bias] or a dict {(token ids): bias}, each bias a number below infinity"
        raise wrong(name, value, right)
    return value


def logit_bias(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, dict) or not all(_is_bias(token, bias) for token, bias in value.items()):
        raise wrong(name, value, "a dict {token id: bias} of finite numbers")
    return {int(token): float(bias) for token, bias in value.items()}


def _is_bias(token: Any, bias: Any) -> bool:
    # JSON has no integers as keys.
    is_id = _is_tokens([token]) or (isinstance(token, str) and token.isascii() and token.isdigit())
    return is_id and isinstance(bias, numbers.Real) and not isinstance(bias, bool) and math.isfinite(bias)


def schedule(name: str, value: Any) -> str:
    if value not in ("constant", "heuristic", "heuristic_transient"):
        raise wrong(name, value, '"constant", "heuristic" or "heuristic_transient"')
    return value


FLOAT_CACHES = ("static", "dynamic", "hybrid", "sliding_window")
"""transformers' names of caches that keep the numbers as they are: here they are one cache."""


def cache_implementation(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in (*FLOAT_CACHES, "quantized"):
        raise wrong(name, value, ", ".join(f'"{one}"' for one in FLOAT_CACHES) + ' or "quantized"')
    return value


def cache_config(name: str, value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or value not in ({}, {"nbits": 8}) or isinstance(value.get("nbits"), bool):
        raise wrong(name, value, '{"nbits": 8}: keys and values in 8 bits, with a scale for each head and position')
    return value


def strings(name: str, value: Any) -> list[str] | str:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise wrong(name, value, "a text or a list of texts, none of them empty")
    return value


def exponential_decay(name: str, value: Any) -> list:
    right = isinstance(value, list) and len(value) == 2 and _is_int(value[0]) and isinstance(value[1], numbers.Real)
    if not right or value[0] < 0 or not 0 < value[1] < math.inf:
        raise wrong(name, value, "[start, factor]: an integer of at least 0 and a number above 0")
    return value


positive_integer, natural = integer(1), integer(0)
token = natural
positive = number("a number above 0", lambda value: 0 < value < math.inf)
fraction = number("a number from 0 to 1", lambda value: 0 <= value <= 1)
fraction_below_one = number("a number from 0 to 1, 1 excluded", lambda value: 0 <= value < 1)
positive_fraction = number("a number above 0 and at most 1", lambda value: 0 < value <= 1)
finite = number("a finite number", math.isfinite)
temperature = number("a number above 0 (or 0 with do_sample=False)", lambda value: 0 <= value < math.inf)
