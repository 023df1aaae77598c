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


def bucket_prompt(length: int) -> int:
    """Return the smallest of 32, 64, 96, 128, 192, ... that is not below `length`.

    Example:
        >>> [bucket_prompt(n) for n in (1, 32, 33, 65)]
        [32, 32, 64, 96]
    """
    return bucket_length(max(length, 64 if length > 32 else 32))


def bucket_capacity(length: int, context: int) -> int:
    """Return the room for `length` tokens in a cache: 256, 512, 768, 1024, 1536, ...

    Few sizes serve texts of every length, as each is a program. A model's context limits what may be too much.

    Args:
        length: tokens that need room.
        context: longest text of the model.

    Example:
        >>> [bucket_capacity(n, 2048) for n in (40, 257, 700)], bucket_capacity(40, context=64)
        ([256, 512, 768], 64)
    """
    coarse = bucket_length(max(length, 512 if length > 256 else 256))
    return min(coarse, bucket_length(max(length, context)))


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
