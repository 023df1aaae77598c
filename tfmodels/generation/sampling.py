"""The choice of the next token: the best one, or a draw that repeats itself for a seed."""

from __future__ import annotations

import numpy as np
from keras import backend, ops

from tfmodels.generation.logits_processors.arithmetic import Tensor, row_count

# Up to so many values are sorted as they are.
_FEW = 1024
# In place of a token: the scores hold NaN, or they ban every token.
NO_NUMBER, NONE_ALLOWED = -1, -2


def choose_tokens(scores: Tensor, *, do_sample: bool, seed: Tensor, step: Tensor) -> Tensor:
    """Choose the next token of each row.

    Sampling inverts the cumulative distribution at one random number a row, the counter-based generator Philox's for
    (seed, step, row). The random bits are the same in eager, graph and XLA mode, and a row's draw depends neither on
    the number of rows nor on the length of the buffer. Weights are integers, so no order of summing changes a draw and
    a banned token, of weight 0, is never drawn. Tokens less probable than about 1e-12 of the best are not drawn.
    JAX, which has no integers of 64 bits unless told to, draws by its own `categorical`, from other bits.

    Args:
        scores: (batch, vocab) float32, processed scores.
        do_sample: draw at random; otherwise the highest score wins, the first of equal ones.
        seed: scalar integer, or one per row, (batch,), for the draws that each would have alone.
        step: number of tokens generated so far, in the shape of `seed`.

    Returns:
        (batch,) int32, token ids; -1 in rows of which a score is NaN, -2 in those of which all are minus infinity.

    Example:
        >>> choose_tokens(ops.array([[0.0, 2.0, 2.0]]), do_sample=False, seed=0, step=0).numpy()
        array([1], dtype=int32)
    """
    best = ops.max(scores, axis=-1, keepdims=True)
    tokens = _draw(scores, best, seed, step) if do_sample else _first_highest(scores, best)
    # Under XLA the highest of nothing but NaN is minus infinity, too.
    bans_all = ops.logical_and(ops.equal(best[:, 0], -np.inf), tokens >= 0)
    return ops.where(bans_all, NONE_ALLOWED, tokens)


def _first_highest(scores: Tensor, best: Tensor) -> Tensor:
    vocab_size = scores.shape[-1]
    tokens = ops.arange(vocab_size, dtype="int32")
    no_number = ops.where(ops.isnan(scores), NO_NUMBER, vocab_size)
    return ops.min(ops.where(scores == best, tokens, no_number), axis=-1)


def _draw(scores: Tensor, best: Tensor, seed: Tensor, step: Tensor) -> Tensor:
    vocab_size = scores.shape[-1]
    relative = scores - best
    no_number = ops.any(ops.isnan(scores), axis=-1)
    if backend.backend() == "jax":
        return ops.where(no_number, NO_NUMBER, _categorical(relative, seed, step))
    # Two levels, blocks and tokens within the block, make the cumulative sums short.
    block = 256
    blocks = -(-vocab_size // block)
    # NaN where a row has no finite score: then all its tokens weigh the same, and the ids stay valid.
    weights = ops.cast(ops.where(ops.isnan(relative), 1.0, ops.exp(relative)) * 2.0**40, "int64")
    weights = ops.pad(weights, ((0, 0), (0, blocks * block - vocab_size)))
    weights = ops.reshape(weights, (-1, blocks, block))
    ends = ops.cumsum(ops.sum(weights, axis=-1), axis=-1)
    draws = ops.cast(random_bits(ops.shape(scores)[0], seed, step), "float64") * 2.0**-32
    target = ops.cast(draws[:, None] * ops.cast(ends[:, -1:], "float64"), "int64")
    chosen = row_count(ends <= target)
    inside = ops.take_along_axis(weights, chosen[:, :, None], axis=1)[:, 0]
    before = ops.take_along_axis(ends, chosen, axis=1) - ops.sum(inside, axis=-1, keepdims=True)
    tokens = (chosen * block + row_count(before + ops.cumsum(inside, axis=-1) <= target))[:, 0]
    return ops.where(no_number, NO_NUMBER, tokens)


def _categorical(scores: Tensor, seed: Tensor, step: Tensor) -> Tensor:
    """A token of each row, drawn by JAX; a row's draw does not depend on the others."""
    import jax

    if len(seed.shape) == 1:
        keys = jax.vmap(lambda seed, step: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 0))(
            seed, step
        )
    else:
        key = jax.random.fold_in(jax.random.key(seed), step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, ops.arange(ops.shape(scores)[0]))
    scores = ops.where(ops.isnan(scores), 0.0, scores)
    return ops.cast(jax.vmap(jax.random.categorical)(keys, scores), "int32")


def random_bits(rows: Tensor, seed: Tensor, step: Tensor) -> Tensor:
    """uint32 (rows,), random bits that are the same eager, in a graph and under XLA; on TensorFlow only."""
    import tensorflow as tf

    if len(ops.shape(seed)) == 1:
        return tf.concat([random_bits(1, seed[row], step[row]) for row in range(rows)], axis=0)
    # Only the integers of stateless_uniform are the same in XLA as elsewhere; its floats are not.
    pair = ops.stack([ops.cast(seed, "int64"), ops.cast(step, "int64")])
    return tf.random.stateless_uniform((rows,), pair, minval=None, maxval=None, dtype=tf.uint32, alg="philox")


def gumbel_noise(shape: tuple[int, int], seed: Tensor, step: Tensor) -> Tensor:
    """Noise that turns the highest sums into draws without replacement; a row's does not depend on the others.

    Args:
        shape: (rows, scores).
        seed, step: as in `choose_tokens`.

    Returns:
        float32 (rows, scores).

    Example:
        >>> gumbel_noise((2, 3), seed=0, step=0).shape
        TensorShape([2, 3])
    """
    rows, count = shape
    if backend.backend() == "jax":
        import jax

        key = jax.random.fold_in(jax.random.key(seed), step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, ops.arange(rows))
        return jax.vmap(lambda key: jax.random.gumbel(key, (count,)))(keys)
    bits = ops.reshape(random_bits(rows * count, seed, step), shape)
    uniform = (ops.cast(ops.right_shift(bits, 8), "float32") + 0.5) * 2.0**-24
    return -ops.log(-ops.log(uniform))


def highest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest values of each row and their places, the highest first; of equal ones the first.

    A sort of a vocabulary is slow where XLA compiles it: only the `count` blocks with the highest maxima are sorted,
    which hold the highest values.

    Args:
        values: float32 (batch, n) without NaN.
        count: how many, at most n.

    Returns:
        float32 and int32 (batch, count).

    Example:
        >>> scores, places = highest(ops.array([[1.0, 4.0, 4.0, 2.0]]), 3)
        >>> scores.numpy().tolist(), places.numpy().tolist()
        ([[4.0, 4.0, 2.0]], [[1, 2, 3]])
    """
    batch, size = values.shape
    block = 1 << max(0, (size.bit_length() - 1) // 2)
    blocks = -(-size // block)
    if size <= _FEW or count >= blocks:
        return _sorted(values, count)
    grid = ops.pad(values, ((0, 0), (0, blocks * block - size)), constant_values=-np.inf)
    grid = ops.reshape(grid, (batch, blocks, block))
    _, chosen = _sorted(ops.max(grid, axis=2), count)
    chosen = ops.sort(chosen, axis=1)  # so that of equal values the first comes first
    inside = ops.reshape(ops.take_along_axis(grid, ops.expand_dims(chosen, 2), axis=1), (batch, count * block))
    scores, places = _sorted(inside, count)
    return scores, ops.take_along_axis(chosen, places // block, axis=1) * block + places % block


def _sorted(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    scores, places = ops.top_k(values, count)
    return scores, ops.cast(places, "int32")
