"""The choice of the next token: the best one, or a draw that repeats itself for a seed."""

from __future__ import annotations

from keras import backend, ops

from tfmodels.generation.logits_processors.arithmetic import Tensor, row_count


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
        seed: scalar integer.
        step: scalar integer, number of tokens generated so far.

    Returns:
        (batch,) int32, token ids; -1 in rows of which a score is NaN.

    Example:
        >>> choose_tokens(ops.array([[0.0, 2.0, 2.0]]), do_sample=False, seed=0, step=0).numpy()
        array([1], dtype=int32)
    """
    best = ops.max(scores, axis=-1, keepdims=True)
    vocab_size = scores.shape[-1]
    if not do_sample:
        tokens = ops.arange(vocab_size, dtype="int32")
        no_number = ops.where(ops.isnan(scores), -1, vocab_size)
        return ops.min(ops.where(scores == best, tokens, no_number), axis=-1)

    relative = scores - best
    no_number = ops.any(ops.isnan(scores), axis=-1)
    if backend.backend() == "jax":
        return ops.where(no_number, -1, _categorical(relative, seed, step))
    # Two levels, blocks and tokens within the block, make the cumulative sums short.
    block = 256
    blocks = -(-vocab_size // block)
    # NaN where a row has no finite score: then all its tokens weigh the same, and the ids stay valid.
    weights = ops.cast(ops.where(ops.isnan(relative), 1.0, ops.exp(relative)) * 2.0**40, "int64")
    weights = ops.pad(weights, ((0, 0), (0, blocks * block - vocab_size)))
    weights = ops.reshape(weights, (-1, blocks, block))
    ends = ops.cumsum(ops.sum(weights, axis=-1), axis=-1)
    draws = ops.cast(_random_bits(ops.shape(scores)[0], seed, step), "float64") * 2.0**-32
    target = ops.cast(draws[:, None] * ops.cast(ends[:, -1:], "float64"), "int64")
    chosen = row_count(ends <= target)
    inside = ops.take_along_axis(weights, chosen[:, :, None], axis=1)[:, 0]
    before = ops.take_along_axis(ends, chosen, axis=1) - ops.sum(inside, axis=-1, keepdims=True)
    tokens = (chosen * block + row_count(before + ops.cumsum(inside, axis=-1) <= target))[:, 0]
    return ops.where(no_number, -1, tokens)


def _categorical(scores: Tensor, seed: Tensor, step: Tensor) -> Tensor:
    """A token of each row, drawn by JAX; a row's draw does not depend on the others."""
    import jax

    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, ops.arange(ops.shape(scores)[0]))
    scores = ops.where(ops.isnan(scores), 0.0, scores)
    return ops.cast(jax.vmap(jax.random.categorical)(keys, scores), "int32")


def _random_bits(rows: Tensor, seed: Tensor, step: Tensor) -> Tensor:
    import tensorflow as tf

    # Only the integers of stateless_uniform are the same in XLA as elsewhere; its floats are not.
    pair = ops.stack([ops.cast(seed, "int64"), ops.cast(step, "int64")])
    return tf.random.stateless_uniform((rows,), pair, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
