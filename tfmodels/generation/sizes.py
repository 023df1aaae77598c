"""The sizes of the engine's programs: fewer rows than all for few requests, and fewer columns for short texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tfmodels.runtime.buckets import power_of_two

# A shorter part than the whole room is worth a program of its own where it is an eighth, and no shorter than this.
_PART, _FEWEST_COLUMNS, _ALIGNED = 8, 256, 16
# Counts of rows between one and all are worth it from here on.
_FEW_ROWS = 4


class Size(NamedTuple):
    """The part of the cache that a program reads: the first `columns` slots of any `rows` rows."""

    rows: int
    columns: int


def decode_sizes(rows: int, room: int) -> tuple[Size, ...]:
    """The sizes of programs that decode, for a cache of so many rows and slots; the smaller ones first.

    Example:
        >>> decode_sizes(16, 272)
        (Size(rows=1, columns=272), Size(rows=4, columns=272), Size(rows=16, columns=272))
        >>> decode_sizes(2, 4096)[0], len(decode_sizes(2, 4096))
        (Size(rows=1, columns=512), 4)
    """
    middle = power_of_two(math.ceil(math.sqrt(rows)))
    counts = sorted({1, rows, *([middle] if rows > _FEW_ROWS and 2 * middle <= rows else [])})
    # A row costs its products beside its attention.
    sizes = [Size(count, columns) for count in counts for columns in column_counts(room)]
    return tuple(sorted(sizes, key=lambda size: size.rows * (room + size.columns)))


def column_counts(room: int) -> tuple[int, ...]:
    """The numbers of slots of a row that programs read: a part of long rows, or all.

    Example:
        >>> column_counts(272), column_counts(4112)
        ((272,), (528, 4112))
    """
    part = _ALIGNED * -(-room // (_PART * _ALIGNED))
    return (part, room) if part >= _FEWEST_COLUMNS else (room,)


def fitting(sizes: Sequence[Size], rows: int, columns: int) -> list[Size]:
    """The sizes that have so many rows and columns, the best fit first."""
    return [size for size in sizes if size.rows >= rows and size.columns >= columns]
