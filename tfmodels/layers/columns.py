"""Slices of columns whose first column is known only when the program runs."""

from __future__ import annotations

from typing import Any

from keras import ops


def take_columns(x: Any, first: Any, count: Any) -> Any:
    """Return `count` columns of x from `first` on.

    A slice would do the same, but XLA compiles a program anew for every value of a slice's start that it is given.

    Args:
        x: (rows, columns), any dtype.
        first: int32 scalar; all columns from there on exist.
        count: number of columns.

    Returns:
        (rows, count).

    Example:
        >>> take_columns(ops.array([[1, 2, 3, 4]]), 1, 2).numpy().tolist()
        [[2, 3]]
    """
    return ops.take(x, first + ops.arange(count, dtype="int32"), axis=1)
