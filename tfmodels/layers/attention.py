"""Scaled dot-product attention: one entry, `attend`, for every architecture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from tfmodels.kernels import blockwise_attention, cudnn_attention, decoding, flash_attention
from tfmodels.kernels.masks import AttentionMask
from tfmodels.layers import shared_keys
from tfmodels.runtime.lowering import PLAIN, Lowering
from tfmodels.utils.text import quote

# `attn_implementation` as users give it -> its name here; "auto" picks the fastest that serves the call.
IMPLEMENTATIONS = {
    "auto": "auto",
    "sdpa": "auto",
    "eager": "eager",
    "blockwise": "blockwise",
    "flash": "flash",
    "flash_attention_2": "flash",
}

# With at most this many queries per key/value head, reading the keys takes most of the product's time.
_FEW_QUERIES = 8

# With at least this many keys, blocks are faster than the plain form; on a GPU they are many small kernels.
_BLOCKWISE_FROM = {"cpu": 1024, "gpu": 8192}

_LOWEST = -3.4028235e38  # of float32: a query whose keys are all masked attends uniformly instead of giving NaN

# Products of queries and keys in float16 could pass 65504, its largest number. So the queries are first multiplied by
# this power of two, which changes no digit, and the scores are divided by it once they are float32.
_SHRINK = 2.0**-6


class AttentionPath(NamedTuple):
    """The implementation that computed an attention, and why no faster one served.

    Fields:
        name: "flash" (cuDNN's kernels), "triton" (this package's, where "flash" was asked for and cuDNN's cannot
            serve), "blockwise", "decode" (a kernel for single queries, in compiled generation) or "eager".
        reason: empty for what was asked for; else why nothing faster served.
    """

    name: str
    reason: str = ""


def resolve_implementation(name: str | None) -> str:
    """Check an `attn_implementation` and give it its name here.

    Args:
        name: None (= "auto"), "auto", "sdpa" (= "auto"), "eager" (plain products), "blockwise" (scores in blocks) or
            "flash" (= "flash_attention_2", fused kernels: cuDNN's, or Triton's for what cuDNN does not take).

    Raises:
        ValueError: unknown, or known but impossible here; the message says which and lists what can be asked for.
    """
    if name is None:
        return "auto"
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"attn_implementation={quote(name)} is unknown; use one of {', '.join(IMPLEMENTATIONS)}.")
    if IMPLEMENTATIONS[name] == "flash" and (reason := cudnn_attention.unavailable()) is not None:
        raise ValueError(f"attn_implementation={quote(name)} cannot be used: {reason}.")
    return IMPLEMENTATIONS[name]


def choose(
    implementation: str,
    query: Any,
    key: Any,
    *,
    mask: AttentionMask,
    bias: Any = None,
    head_mask: Any = None,
    drops: bool = False,
    return_weights: bool = False,
    lowering: Lowering = PLAIN,
) -> AttentionPath:
    """Pick how to compute an attention; the arguments are those of `attend`.

    Args:
        implementation: "auto", "flash", "blockwise" or "eager". A single query, as in decoding, is served by plain
            products or, where there is one, by a kernel for it.
        drops: whether weights are dropped in this call.

    Raises:
        ValueError: "flash" or "blockwise" was asked for and cannot serve the call; the message says why.
    """
    if implementation == "eager" or lowering.portable:
        return AttentionPath("eager")
    common = _needs_weights(head_mask, return_weights)
    if mask.holders is not None:
        return AttentionPath("eager", "rows read keys that other rows hold")
    if query.shape[2] == 1:
        one_mask = mask.bias is None and (mask.pairs is None or mask.pairs.shape[1] == 1)
        plain = one_mask and head_mask is None and common is None and not drops
        served = plain and decoding.serves_attention(query, key, lowering.xla_target)
        return AttentionPath("decode") if served else AttentionPath("eager", decoding.why_plain(lowering))
    flash = cudnn_attention.unavailable() or common or _not_for_flash(query, key, mask, bias, drops)
    if flash is None and implementation == "auto":
        flash = _only_when_asked(query, key, mask, bias)
    if flash is None and implementation in ("auto", "flash"):
        return AttentionPath("flash")
    blockwise = common or _not_for_blocks(query, key, mask)
    if implementation == "flash":
        triton = common or flash_attention.unavailable() or _not_for_triton(query, key, mask)
        if triton is None:
            return AttentionPath("triton")
        raise ValueError(f"attn_implementation='flash' cannot serve this call: {flash}; {triton}.")
    if implementation == "blockwise":
        if blockwise is not None:
            raise ValueError(f"attn_implementation='blockwise' cannot serve this call: {blockwise}.")
        return AttentionPath("blockwise")
    if blockwise is None and key.shape[2] >= _blockwise_from():
        return AttentionPath("blockwise", flash)
    return AttentionPath("eager", flash)


def _needs_weights(head_mask: Any, return_weights: bool) -> str | None:
    if return_weights:
        return "the weights are wanted: output_attentions=True needs the whole matrix, which fused kernels never build"
    if head_mask is not None and head_mask.shape[-2:] != (1, 1):
        return "a head mask with more than a factor per head"
    return None


def _not_for_flash(query: Any, key: Any, mask: AttentionMask, bias: Any, drops: bool) -> str | None:
    problem = cudnn_attention.unsuitable(query.shape, key.shape, keras.backend.standardize_dtype(key.dtype))
    if problem is None and drops:
        # XLA compiles the seed in and keeps counters of its own, forward and backward, which nothing can set.
        problem = "weights are dropped in training, by a seed that it cannot be given (set the attention dropout to 0)"
    if problem is None and (mask.pairs is not None or mask.bias is not None):
        problem = "flash attention takes no mask of pairs (4-D)"
    if problem is None and mask.fills and mask.keys is not None:
        problem = "flash attention gives zeros at padding (attention_mask), whose values count in this family"
    if problem is None and mask.segments is not None:
        problem = "flash attention takes no packed sequences"
    if problem is None and not mask.causal and (mask.window is not None or mask.ahead is not None):
        problem = "flash attention takes no window in a mask that is not causal"
    if problem is None and mask.window is not None and (mask.keys is not None or bias is not None):
        problem = "flash attention takes no padding (attention_mask) and no bias beside a window"
    return problem or (_not_for_flash_on_jax(query.shape[2], mask, bias) if keras.backend.backend() == "jax" else None)


def _not_for_triton(query: Any, key: Any, mask: AttentionMask) -> str | None:
    return flash_attention.unsuitable(query.shape, key.shape, keras.backend.standardize_dtype(key.dtype), mask)


def _not_for_flash_on_jax(length: int, mask: AttentionMask, bias: Any) -> str | None:
    # JAX turns a mask into a bias.
    if (length % 2) and (bias is not None or mask.keys is not None or mask.window is not None):
        return f"on JAX flash attention beside a bias, padding or a window needs an even length, not {length}"
    # Older versions of JAX silently give no gradient of a bias that differs by row.
    if bias is not None and (mask.keys is not None or bias.shape[0] != 1):
        return "on JAX flash attention takes no padding (attention_mask) beside a bias, and no bias per row"
    return None


def _only_when_asked(query: Any, key: Any, mask: AttentionMask, bias: Any) -> str | None:
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is None:
        return None
    # JAX partitions the kernel's operands and rejects some layouts; only the plain case is tested.
    if bias is None and mask.keys is None and mask.window is None and query.shape[1] == key.shape[1]:
        return None
    return (
        "under a distribution of JAX flash attention beside a bias, padding or a window, or with grouped heads, "
        "is used where it is asked for"
    )


def _not_for_blocks(query: Any, key: Any, mask: AttentionMask) -> str | None:
    if mask.fills and mask.pairs is not None:
        return "a mask of pairs (4-D) in a family whose queries attend to padding where they see nothing else"
    if not all(isinstance(size, int) for size in (*query.shape[1:], *key.shape[1:])):
        return "blockwise attention needs lengths that are known when the program is traced"
    return None


def _blockwise_from() -> int:
    return _BLOCKWISE_FROM["cpu" if cudnn_attention.unavailable() else "gpu"]


def attend(
    query: Any,
    key: Any,
    value: Any,
    *,
    mask: AttentionMask,
    scale: float,
    bias: Any = None,
    head_mask: Any = None,
    dropout: Callable[..., Any] | None = None,
    training: bool | None = None,
    implementation: str = "auto",
    return_weights: bool = False,
    lowering: Lowering = PLAIN,
    record: list[AttentionPath] | None = None,
) -> tuple[Any, Any]:
    """Attention of queries over keys and values, by plain products, in blocks, or by a fused kernel; see `choose`.

    Queries and keys are multiplied in the dtype of `query`; scores and softmax are float32. In float16 the query is
    scaled down first, so that |q.k| may pass 65504. With fewer key/value heads than query heads, each serves a group
    of neighbouring query heads (grouped-query attention) and is never repeated in memory.

    Args:
        query: (batch, heads, queries, head_dim).
        key, value: (batch, key_value_heads, keys, head_dim); heads is a multiple of key_value_heads.
        mask: which keys each query sees.
        scale: factor on the scores.
        bias: float, added to the scaled scores, broadcastable to (batch, heads, queries, keys).
        head_mask: float, multiplies the weights, broadcastable likewise.
        dropout: `keras.layers.Dropout` of the weights. In blocks and by Triton its rate and its seeds are used, not
            the layer: it drops as much, but not the same weights as in the plain form.
        implementation: "auto", "eager", "blockwise" or "flash"; see `choose`.
        return_weights: also return the weights after softmax, dropout and head mask.
        lowering: see `tfmodels.runtime.lowering.Lowering`.
        record: the path taken is appended to it.

    Returns:
        (batch, heads, queries, head_dim) in the dtype of `value`, and the weights (batch, heads, queries, keys) or
        None. A query that sees no key attends to all of them equally, or as `AttentionMask.fills` says; by "flash" it
        gets zeros, as does every query at padding there, and by "decode" some finite value.

    Raises:
        ValueError: `implementation` cannot serve this call.

    Source:
        Vaswani et al., https://arxiv.org/abs/1706.03762; Ainslie et al., https://arxiv.org/abs/2305.13245.

    Example:
        >>> import numpy as np
        >>> from tfmodels.kernels.masks import make_mask
        >>> x = np.ones((1, 2, 3, 4), "float32")
        >>> mask = make_mask(None, causal=True, query_length=3, key_length=3)
        >>> attend(x, x[:, :1], x[:, :1], mask=mask, scale=0.5)[0].shape
        TensorShape([1, 2, 3, 4])
    """
    drops = bool(training) and dropout is not None and dropout.rate > 0
    terms = {"mask": mask, "bias": bias, "head_mask": head_mask}
    path = choose(implementation, query, key, **terms, drops=drops, return_weights=return_weights, lowering=lowering)
    if record is not None:
        record.append(path)
    if path.name in ("decode", "flash", "triton"):
        # Some families widen the query for the product's sake; these kernels sum in float32 anyway.
        query = ops.cast(query, key.dtype)
    else:
        query, scale = _shrink(query, scale)
    if path.name == "decode":
        return decoding.attention(query, key, value, mask.allowed, scale=scale, bias=bias), None
    if path.name == "eager":
        target = lowering.xla_target
        output, weights = _plain(
            query, key, value, **terms, scale=scale, dropout=dropout, training=training, target=target
        )
        return output, weights if return_weights else None
    if path.name == "flash":
        output = _flash(query, key, value, mask=mask, bias=bias, scale=scale)
    else:
        dropped = blockwise_attention.Dropout(dropout.rate, dropout.seed_generator.next()) if drops else None
        compute = flash_attention.attention if path.name == "triton" else blockwise_attention.attention
        output = compute(query, key, value, scale=scale, mask=mask, bias=bias, dropout=dropped)
        output = _with_unseeing(output, value, mask)
    return output if head_mask is None else output * ops.cast(head_mask, output.dtype), None


def _shrink(query: Any, scale: float) -> tuple[Any, float]:
    """A query and a scale of the same scores, whose product with keys stays inside float16 (see `_SHRINK`)."""
    if keras.backend.standardize_dtype(query.dtype) != "float16":
        return query, scale
    shrink = min(_SHRINK, 2.0 ** math.floor(math.log2(abs(scale)))) if scale else _SHRINK
    return query * ops.cast(shrink, query.dtype), scale / shrink


def _with_unseeing(output: Any, value: Any, mask: AttentionMask) -> Any:
    """An output (batch, heads, queries, head_dim) with what queries get that see no key."""
    sees = mask.sees()
    if sees is None:
        return output
    others = mask.unseeing(value)
    heads, kv_heads = output.shape[1], value.shape[1]
    others = others if heads == kv_heads else ops.repeat(others, heads // kv_heads, axis=1)
    return ops.where(sees, output, ops.cast(others, output.dtype))


def _flash(query: Any, key: Any, value: Any, *, mask: AttentionMask, bias: Any, scale: float) -> Any:
    keys, length = mask.keys, query.shape[2]
    if bias is not None:
        bias = ops.cast(bias, "float32")
        if bias.shape[2] == 1 and mask.causal:
            # A constant per query changes nothing; this one makes the bias 0 for the query's own key, and small near
            # it, where rounding to 16 bits would matter.
            bias = bias - ops.transpose(bias, (0, 1, 3, 2))
        if keys is not None:
            bias = ops.where(ops.expand_dims(ops.expand_dims(keys, 1), 1), bias, cudnn_attention.MASKED)
            keys = None
        bias = ops.cast(ops.broadcast_to(bias, (bias.shape[0], query.shape[1], length, length)), query.dtype)
    return cudnn_attention.attention(
        query, key, value, scale=scale, causal=mask.causal, window=mask.window, bias=bias, keys=keys
    )


def _plain(
    query: Any,
    key: Any,
    value: Any,
    *,
    mask: AttentionMask,
    bias: Any,
    head_mask: Any,
    scale: float,
    dropout: Callable[..., Any] | None,
    training: bool | None,
    target: str | None,
) -> tuple[Any, Any]:
    """Output and weights."""
    batch, heads, queries, head_dim = ops.shape(query)
    key_value_heads, keys = ops.shape(key)[1:3]
    # Neighbouring query heads share a key/value head, so a group's queries line up as more queries of that head; one
    # batch axis, which is what products have in the end, lets a compiled loop keep its cache in place.
    group = heads // key_value_heads
    rows = batch * key_value_heads
    grouped = ops.reshape(query, (rows, group * queries, head_dim))
    if mask.holders is not None:
        grouped = shared_keys.for_holders(grouped, mask.holders, key_value_heads)
    key, value = ops.reshape(key, (rows, keys, head_dim)), ops.reshape(value, (rows, keys, head_dim))
    key = ops.cast(key, grouped.dtype)
    few = isinstance(queries, int) and grouped.shape[1] <= _FEW_QUERIES
    scores = decoding.scores(grouped, key, target) if few else ops.matmul(grouped, ops.transpose(key, (0, 2, 1)))
    if mask.holders is not None:
        scores = shared_keys.of_holders(scores, mask.holders, key_value_heads)
    scores = ops.cast(scores, "float32") * scale
    scores = ops.reshape(scores, (batch, heads, queries, keys))
    for term in (bias, mask.bias):
        if term is not None:
            scores = scores + ops.cast(term, "float32")
    if mask.allowed is not None:
        scores = ops.where(mask.allowed, scores, _LOWEST)
    if mask.filled is not None:
        scores = ops.where(mask.filled, 0.0, scores)
    # Over one key the weight is 1; Keras warns of a softmax that has nothing to choose from.
    weights = ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)
    weights = ops.cast(weights, value.dtype)
    if dropout is not None:
        weights = dropout(weights, training=training)
    if head_mask is not None:
        weights = weights * ops.cast(head_mask, weights.dtype)
    rows_of_weights = ops.reshape(weights, (rows, group * queries, keys))
    if mask.holders is not None:
        rows_of_weights = shared_keys.for_holders(rows_of_weights, mask.holders, key_value_heads, only_held=True)
    output = decoding.weighted(rows_of_weights, value, target) if few else ops.matmul(rows_of_weights, value)
    if mask.holders is not None:
        output = shared_keys.sum_of_holders(output, mask.holders, key_value_heads)
    output = ops.reshape(output, (batch, heads, queries, head_dim))
    return output, weights


def split_heads(x: Any, heads: int) -> Any:
    """(batch, length, heads * head_dim) to (batch, heads, length, head_dim)."""
    # One size of a reshape may be unknown to ONNX, given as -1: the batch where both are.
    batch, length, width = ops.shape(x)
    batch = batch if isinstance(batch, int) else -1
    return ops.transpose(ops.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def merge_heads(x: Any) -> Any:
    """(batch, heads, length, head_dim) to (batch, length, heads * head_dim)."""
    batch, heads, length, head_dim = ops.shape(x)
    batch = batch if isinstance(batch, int) else -1
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, length, heads * head_dim))
