"""Finds the merges of a BPE vocabulary whose file does not list them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any


def merges_of(pieces: Iterable[Any], parts: Container[Any]) -> Iterator[tuple[Any, Any]]:
    """Every way to put a piece together from two others, in the order of the pieces.

    Args:
        pieces: texts or bytes, best first.
        parts: what the two halves must be in.

    Example:
        >>> list(merges_of(["ab", "abc"], {"a", "b", "c", "ab"}))
        [('a', 'b'), ('ab', 'c')]
    """
    for piece in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in parts and right in parts:
                yield left, right
