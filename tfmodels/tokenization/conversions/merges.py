"""Finds the merges of a BPE vocabulary whose file does not list them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any

from tfmodels.utils.text import quote

# The longest pieces of real vocabularies are runs of some 130 spaces or dashes.
_MAX_LENGTH = 1000
_FREE_MERGES, _MERGES_PER_PIECE = 20_000, 16


def merges_of(pieces: Iterable[Any], parts: Container[Any]) -> Iterator[tuple[Any, Any]]:
    """Every way to put a piece together from two others, in the order of the pieces.

    Args:
        pieces: texts or bytes, best first.
        parts: what the two halves must be in.

    Raises:
        ValueError: there are far more ways than a vocabulary of its size has (a real one has two or three a piece),
            as where every piece is the start of the next: memory would grow with the square of the file.

    Example:
        >>> list(merges_of(["ab", "abc"], {"a", "b", "c", "ab"}))
        [('a', 'b'), ('ab', 'c')]
    """
    found = 0
    for count, piece in enumerate(pieces, 1):
        if len(piece) > _MAX_LENGTH:
            raise ValueError(f"a piece of {len(piece)} characters ({quote(piece, 40)}) is too long to be merged")
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in parts and right in parts:
                found += 1
                if found > _FREE_MERGES + _MERGES_PER_PIECE * count:
                    raise ValueError(
                        f"there are more than {found - 1} ways to put {count} pieces together from others"
                    )
                yield left, right
