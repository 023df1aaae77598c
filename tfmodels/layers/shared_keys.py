"""Plain attention of rows that read keys and values which neighbouring rows hold, as a few beams do.

Each holder multiplies the queries of all rows that share its keys; each row then takes, place by place, what the
holder of that place gave. `AttentionMask.holders` says which row holds a place.
"""

from __future__ import annotations

from typing import Any

from keras import ops


def for_holders(x: Any, holders: Any, key_value_heads: int, *, only_held: bool = False) -> Any:
    """The rows that each holder of keys multiplies: the queries, or the weights, of all rows that share its keys.

    Args:
        x: (batch * key_value_heads, group, n), queries or weights of the keys.
        holders: bool (batch, sharing, keys), as of `AttentionMask`.
        key_value_heads: number of heads.
        only_held: of weights: give each holder those of the keys that it holds, and zeros.

    Returns:
        (batch * key_value_heads, sharing * group, n).
    """
    sharing, (rows, group, size) = holders.shape[1], x.shape
    x = ops.reshape(x, (-1, sharing, 1, key_value_heads, group, size))  # prompts, rows, holders, heads, group, n
    if only_held:
        held = ops.reshape(holders, (-1, sharing, sharing, 1, 1, size))
        x = ops.where(held, x, ops.zeros((), x.dtype))
    else:
        x = ops.repeat(x, sharing, axis=2)
    return ops.reshape(ops.transpose(x, (0, 2, 3, 1, 4, 5)), (rows, sharing * group, size))


def of_holders(scores: Any, holders: Any, key_value_heads: int) -> Any:
    """Each row's own scores (batch * key_value_heads, group, keys) of all holders' (..., sharing * group, keys)."""
    sharing, (rows, queries, keys) = holders.shape[1], scores.shape
    scores = ops.reshape(scores, (-1, sharing, key_value_heads, sharing, queries // sharing, keys))
    # Prompts, holders, heads, rows, group, keys.
    held = ops.reshape(
        ops.transpose(ops.reshape(holders, (-1, sharing, sharing, keys)), (0, 2, 1, 3)),
        (-1, sharing, 1, sharing, 1, keys),
    )
    found = scores[:, 0]
    for holder in range(1, sharing):
        found = ops.where(held[:, holder], scores[:, holder], found)
    return ops.reshape(ops.transpose(found, (0, 2, 1, 3, 4)), (rows, -1, keys))


def sum_of_holders(output: Any, holders: Any, key_value_heads: int) -> Any:
    """Each row's output (batch * key_value_heads, group, head_dim), the sum of what holders gave for it."""
    sharing, (rows, queries, size) = holders.shape[1], output.shape
    summed = ops.sum(ops.reshape(output, (-1, sharing, key_value_heads, sharing, queries // sharing, size)), axis=1)
    return ops.reshape(ops.transpose(summed, (0, 2, 1, 3, 4)), (rows, -1, size))
