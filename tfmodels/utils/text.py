"""Text in messages: quoted values, lists of names, near names, sizes. Nothing here costs more than what it shows."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

LIMIT = 200
"""Characters of an outside value that a message shows at most."""

_MAX_DEPTH = 20
# Comparing a name with more names than this takes longer than a hint is worth.
_MAX_COMPARED = 5000
_SHOWN_BITS = 640
_SHOWN_ELEMENTS = 64


def quote(value: Any, limit: int = LIMIT) -> str:
    """The start of a value's `repr`: at most `limit` characters of it reach a message.

    Containers are written out only as far as they are shown, so a huge or endlessly nested value costs nothing.

    Example:
        >>> quote("abc"), quote("x" * 1000, limit=20), quote([1] * 1_000_000, limit=12)
        ("'abc'", "'xxxxxxxxxxxxxxx ...", '[1, 1, 1 ...')
    """
    shown, length = [], 0
    for piece in _pieces(value, limit, 0):
        shown.append(piece)
        length += len(piece)
        if length > limit:
            break
    return shorten("".join(shown), limit)


def holds_text(value: Any) -> bool:
    """Whether a value that should be numbers is a text, or a list, array or tensor of texts, or its spec.

    Example:
        >>> holds_text(["Once upon"]), holds_text([[1, 2]])
        (True, False)
    """
    if isinstance(value, (list, tuple)):
        return any(map(holds_text, value[:_SHOWN_ELEMENTS]))
    dtype = getattr(value, "dtype", None)
    kind = getattr(dtype, "kind", "")  # of NumPy
    if kind == "O":
        value = value.to_numpy() if hasattr(value, "to_numpy") else value  # a column of pandas
        return any(map(holds_text, value.reshape(-1)[:1]))
    return isinstance(value, (str, bytes)) or kind in ("U", "S") or getattr(dtype, "name", "") == "string"


def shorten(text: Any, limit: int = LIMIT) -> str:
    """The start of a text from outside, such as another library's error, on one line.

    Example:
        >>> shorten(ValueError("bad\\nfile")), shorten("x" * 1000, limit=8)
        ('bad file', 'xxxx ...')
    """
    text = str(text)[: 4 * limit]
    if "\n" in text:
        text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."


def _pieces(value: Any, limit: int, depth: int) -> Iterator[str]:
    """The pieces of a `repr`, made as they are asked for."""
    if isinstance(value, (str, bytes, bytearray)):
        yield repr(value[: limit + 1])
    elif isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        # Python takes quadratic time to write such a number, and refuses beyond 4300 digits.
        yield f"an integer of {value.bit_length()} bits"
    elif isinstance(value, (list, tuple, Set, dict)) and depth < _MAX_DEPTH:
        is_map = isinstance(value, Mapping)
        start, end = ("[", "]") if isinstance(value, list) else ("(", ")") if isinstance(value, tuple) else ("{", "}")
        yield start
        for index, item in enumerate(value.items() if is_map else value):
            yield ", " if index else ""
            if is_map:
                yield from _pieces(item[0], limit, depth + 1)
                yield ": "
                item = item[1]
            yield from _pieces(item, limit, depth + 1)
        yield ",)" if isinstance(value, tuple) and len(value) == 1 else end
    elif isinstance(value, (list, tuple, Set, dict)):
        yield "..."
    elif _elements(value) > _SHOWN_ELEMENTS:
        dtype = getattr(value.dtype, "name", value.dtype)
        yield f"{type(value).__name__} of shape {quote(tuple(value.shape), 80)} and dtype {dtype}"
    else:
        try:
            yield repr(value)
        except Exception as error:  # a message about a bad value must not fail because of it
            yield f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def _elements(value: Any) -> int:
    """Number of elements of an array or tensor; 0 for other values, and for symbolic tensors, whose repr is short."""
    try:
        return math.prod(value.shape) if hasattr(value, "dtype") else 0
    except Exception:  # an unknown size or rank, for which every library has an error of its own
        return 0


def some(names: Iterable[Any], limit: int = 5) -> str:
    """List a few names, sorted and quoted.

    Example:
        >>> some(["b", "a"]), some(range(9), limit=2)
        ("'a', 'b'", '0, 1 and 7 more')
    """
    names = list(names)
    try:
        names.sort()
    except TypeError:  # names of several types
        names.sort(key=lambda name: (type(name).__name__, quote(name)))
    shown = ", ".join(quote(name, LIMIT // 2) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def joined(names: Iterable[str]) -> str:
    """Names as a sentence lists them.

    Example:
        >>> joined(["a"]), joined(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def is_found(pattern: str, name: str, argument: str) -> bool:
    """Whether a regular expression that a user gives is found in a name.

    Raises:
        ValueError: it is no regular expression; the message names `argument`.

    Example:
        >>> is_found("_proj$", "layers.0.q_proj", "targets")
        True
        >>> is_found("(", "layers.0.q_proj", "targets")
        Traceback (most recent call last):
        ValueError: targets='(' is no regular expression: missing ), unterminated subpattern at position 0.
    """
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise ValueError(f"{argument}={quote(pattern)} is no regular expression: {shorten(error)}.") from None


def did_you_mean(
    name: Any, known: Iterable[str], form: str = "; did you mean {}?", limit: int = 3, cutoff: float = 0.6
) -> str:
    """A question that names what is close to `name`, to end a message with; "" where nothing is close.

    Capitals are no difference: "LAMA" is close to "llama".

    Args:
        name: what came.
        known: what would be right.
        form: the question, with {} for the names.
        limit, cutoff: as of `near_names`.

    Example:
        >>> "no setting temprature" + did_you_mean("temprature", ["temperature", "top_k"])
        'no setting temprature; did you mean temperature?'
        >>> did_you_mean("x", ["temperature"])
        ''
    """
    close = near_names(name, known, limit, cutoff)
    return form.format(" or ".join(close)) if close else ""


def near_names(name: Any, known: Iterable[str], limit: int = 3, cutoff: float = 0.6) -> list[str]:
    """The known names that are close to one that is not, the closest first; of very many names none.

    Args:
        limit: names at most.
        cutoff: how close, as `difflib` measures it: 0 is anything, 1 the name itself.
    """
    known = [one for one in known if len(one) <= LIMIT]
    if not isinstance(name, str) or len(name) > LIMIT or len(known) > _MAX_COMPARED:
        return []
    by_small: dict[str, list[str]] = {}
    for one in sorted(known):
        by_small.setdefault(one.lower(), []).append(one)
    near = difflib.get_close_matches(name.lower(), list(by_small), n=limit, cutoff=cutoff)
    return [one for small in near for one in by_small[small]][:limit]


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
