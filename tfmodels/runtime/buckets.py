"""Bucket sizes of prompts and batches, so that few programs serve inputs of every size."""

from __future__ import annotations


def bucket_length(length: int) -> int:
    """Return the smallest of 16, 24, 32, 48, 64, 96, ... that is not below `length`.

    Example:
        >>> [bucket_length(n) for n in (1, 16, 17, 33, 100)]
        [16, 16, 24, 48, 128]
    """
    size = 16
    while size < length:
        if size + size // 2 >= length:
            return size + size // 2
        size *= 2
    return size


def bucket_batch(rows: int) -> int:
    """Return the smallest of 1, 2, 4, 8, 16, 24, 32, ... that is not below `rows`.

    Example:
        >>> [bucket_batch(n) for n in (1, 3, 8, 9, 17)]
        [1, 4, 8, 16, 24]
    """
    return next((size for size in (1, 2, 4, 8) if size >= rows), -(-rows // 8) * 8)


def power_of_two(count: int) -> int:
    """Return the smallest power of two that is not below `count`.

    Example:
        >>> [power_of_two(n) for n in (0, 1, 3, 8)]
        [1, 1, 4, 8]
    """
    return 1 << max(count - 1, 0).bit_length()
