"""Arithmetic of score processors: masks of tokens, and thresholds found by bisection instead of a sort.

XLA sorts a vocabulary of 32000 in tens of milliseconds on a CPU, and compiles `top_k` to a sort; a step of bisection
is one masked sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

Tensor = Any
Number = Any
"""Annotation of the fields that are inputs of the compiled program: a Python number, or in a trace a scalar tensor or
one number per row, (batch, 1)."""
Tokens = Any
"""The same for token ids: a tuple of ints, or in a trace an int32 (n,) tensor, or one list per row, (batch, n), in
which -1 stands for no token."""

# Up to so many ids given as a tensor are compared one by one; more are scattered.
_FEW_TOKENS = 8


def cast(number: Number, dtype: str) -> Tensor:
    return ops.cast(number, dtype)


def row_sum(values: Tensor) -> Tensor:
    return ops.sum(values, axis=-1, keepdims=True)


def row_count(flags: Tensor) -> Tensor:
    return row_sum(ops.cast(flags, "int32"))


def ban(scores: Tensor, tokens: Tensor) -> Tensor:
    return ops.where(tokens, -np.inf, scores)


def force(scores: Tensor, tokens: Tensor, condition: Tensor) -> Tensor:
    forced = ops.where(tokens, 0.0, ops.full_like(scores, -np.inf))
    return ops.where(condition, forced, scores)


def among(token_ids: Tokens, scores: Tensor) -> Tensor:
    """bool (vocab,), or (batch, vocab) where every row has a list of its own: is a token one of these."""
    vocab_size = scores.shape[-1]
    if isinstance(token_ids, tuple):
        return ops.convert_to_tensor(np.isin(np.arange(vocab_size), token_ids))
    if token_ids.shape[-1] <= _FEW_TOKENS:
        return ops.any(ops.arange(vocab_size, dtype="int32") == ops.expand_dims(token_ids, -1), axis=-2)
    if len(token_ids.shape) == 2:
        return scatter(token_ids, ops.ones(token_ids.shape, "int32"), vocab_size) > 0
    return among(ops.expand_dims(token_ids, 0), scores)[0]


def scatter(tokens: Tensor, values: Tensor, vocab_size: int) -> Tensor:
    """(batch, vocab): sums of values (batch, n) at token ids (batch, n); ids outside the vocabulary are dropped."""
    batch = ops.shape(tokens)[0]
    inside = ops.logical_and(tokens >= 0, tokens < vocab_size)
    rows = ops.broadcast_to(ops.arange(batch, dtype="int32")[:, None], ops.shape(tokens))
    indices = ops.stack([rows, ops.where(inside, tokens, 0)], axis=-1)
    values = ops.where(inside, values, ops.zeros_like(values))
    return ops.scatter(ops.reshape(indices, (-1, 2)), ops.reshape(values, (-1,)), (batch, vocab_size))


def occurring(tokens: Tensor, counts: Tensor, vocab_size: int) -> Tensor:
    """(batch, vocab) bool: does a token occur among tokens (batch, n) where counts (batch, n) is True."""
    return scatter(tokens, ops.cast(counts, "int32"), vocab_size) > 0


def except_highest(dropped: Tensor, values: Tensor, keep: int) -> Tensor:
    """Spare the `keep` highest values, of equal ones the first; sparing one is the callers' own doing."""
    if keep == 1:
        return dropped
    if keep >= values.shape[-1]:
        return ops.zeros_like(dropped)
    highest = lowest(-values, lambda tokens: row_count(tokens) <= keep)
    return ops.logical_and(dropped, ops.logical_not(highest))


def kth_highest(values: Tensor, k: Tensor | int) -> Tensor:
    """(batch, 1): a number above the values behind the k-th highest and not above that one."""
    if isinstance(k, int) and k == 1:
        return ops.max(values, axis=-1, keepdims=True)
    behind = values.shape[-1] - ops.minimum(k, values.shape[-1])
    return _bisect_floats(values, lambda limit: row_count(values < limit) - behind, behind > 0)


def lowest(values: Tensor, fits: Callable[[Tensor], Tensor], searched: Tensor = True) -> Tensor:
    """Mark the longest run of tokens, ascending by (value, token id), for which `fits(run)` holds; never all tokens.

    Args:
        values: (batch, vocab) float32 without NaN.
        fits: takes a run, (batch, vocab) bool, and returns (batch, 1) bool; once False it stays so as runs grow.
        searched: bool scalar or (batch, 1), False where the run is empty without a search.

    Returns:
        (batch, vocab) bool.
    """
    vocab_size = values.shape[-1]
    tokens = ops.arange(vocab_size, dtype="int32")
    limit = threshold(values, lambda limit: fits(values < limit), searched)
    below, equal = values < limit, values == limit
    # Among equal values the token id decides. With one token at the limit there is nothing to search.
    first = ops.min(ops.where(equal, tokens, vocab_size - 1), axis=-1, keepdims=True)
    last = ops.max(ops.where(equal, tokens, 0), axis=-1, keepdims=True)

    def run(token: Tensor) -> Tensor:
        return ops.logical_or(below, ops.logical_and(equal, tokens < token))

    last = ops.where(searched, ops.maximum(first, last), first)
    return run(_bisect(first, last, lambda token: _sign(fits(run(token)))))


def threshold(values: Tensor, fits: Callable[[Tensor], Tensor], searched: Tensor = True) -> Tensor:
    """(batch, 1): the highest of the values for which `fits(value)` holds; it holds for the lowest.

    Where `searched` is False it is the lowest.
    """
    return _bisect_floats(values, lambda limit: _sign(fits(limit)), searched)


def _sign(fits: Tensor) -> Tensor:
    return ops.where(fits, -1, 1)


def _bisect_floats(values: Tensor, excess: Callable[[Tensor], Tensor], searched: Tensor) -> Tensor:
    """`_bisect` over the float32 numbers from the lowest to the highest value of each row.

    Where `searched` is False the lowest is taken at once.
    """
    low = _ordered(ops.min(values, axis=-1, keepdims=True))
    high = ops.where(searched, _ordered(ops.max(values, axis=-1, keepdims=True)), low)
    return _unordered(_bisect(low, high, lambda key: excess(_unordered(key))))


def _bisect(low: Tensor, high: Tensor, excess: Callable[[Tensor], Tensor]) -> Tensor:
    """Find for each row the highest integer in [low, high] whose excess is not positive.

    Args:
        low, high: (batch, 1) int32; the excess at `low` is not positive.
        excess: (batch, 1) int32 -> (batch, 1) int32, not falling. Where it is 0 the search ends at once, even if
            a higher integer has excess 0 too.

    Returns:
        (batch, 1) int32.
    """

    def step(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        # The mean rounded up, without overflow.
        middle = ops.bitwise_or(low, high) - ops.right_shift(ops.bitwise_xor(low, high), 1)
        over = excess(middle)
        low, below = ops.where(over > 0, low, middle), ops.where(over > 0, middle - 1, middle)
        return low, ops.where(over < 0, high, below)

    return ops.while_loop(lambda low, high: ops.any(low < high), step, (low, high))[0]


def _ordered(floats: Tensor) -> Tensor:
    """Map float32 to int32 such that the order stays."""
    bits = ops.view(floats, "int32")
    return ops.where(bits < 0, ops.bitwise_xor(bits, 0x7FFFFFFF), bits)


def _unordered(keys: Tensor) -> Tensor:
    return ops.view(ops.where(keys < 0, ops.bitwise_xor(keys, 0x7FFFFFFF), keys), "float32")
