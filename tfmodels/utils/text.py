"""Text in messages: quoted values, lists of names, near names, sizes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def quote(value: Any, limit: int = 200) -> str:
    """The `repr` of a value, cut in the middle of nowhere: at most `limit` characters of it reach a message.

    Text and bytes are cut before `repr` sees them, so that a huge value costs nothing.

    Example:
        >>> quote("abc"), quote("x" * 1000, limit=20)
        ("'abc'", "'xxxxxxxxxxxxxxx ...")
    """
    if isinstance(value, (str, bytes, bytearray)):
        value = value[: limit + 1]
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def some(names: Iterable[Any], limit: int = 5) -> str:
    """List a few names, sorted and quoted.

    Example:
        >>> some(["b", "a"]), some(range(9), limit=2)
        ("'a', 'b'", '0, 1 and 7 more')
    """
    names = sorted(names)
    shown = ", ".join(quote(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def did_you_mean(name: Any, known: Iterable[str], form: str = "; did you mean {}?", limit: int = 3) -> str:
    """A question that names what is close to `name`, to end a message with; "" where nothing is close.

    Args:
        name: what came.
        known: what would be right.
        form: the question, with {} for the names.
        limit: names at most.

    Example:
        >>> "no setting temprature" + did_you_mean("temprature", ["temperature", "top_k"])
        'no setting temprature; did you mean temperature?'
        >>> did_you_mean("x", ["temperature"])
        ''
    """
    close = difflib.get_close_matches(str(name)[:200], sorted(known), n=limit)
    return form.format(" or ".join(close)) if close else ""


def human_bytes(size: float) -> str:
    """A size in bytes, for people.

    Example:
        >>> human_bytes(512), human_bytes(1044992), human_bytes(13.5e9)
        ('512 B', '1.04 MB', '13.50 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{size:.2f} {unit}"
