"""Attention in blocks of queries and keys, whose scores never exist all at once.

The softmax is computed online: block after block of keys a query keeps the largest score, the sum of exponentials and
the weighted values so far, and corrects them as larger scores come. The gradients compute the scores of each block
again, and draw again, from the same seed, which of its weights were dropped. Memory grows with the length and not with
its square; blocks that the causal mask or a window hides are skipped. Plain operations only, so that it runs wherever
Keras does.

Source:
    Milakov and Gimelshein, https://arxiv.org/abs/1805.02867; Dao, https://arxiv.org/abs/2307.08691.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from tfmodels.kernels.gradients import with_gradient
from tfmodels.kernels.masks import AttentionMask

_BLOCK = 256
_LOWEST = -3.4028235e38
_UNSEEN = 3.4028235e38  # statistic of a query that sees no key: all its weights become 0


class Dropout(NamedTuple):
    """The dropout of attention weights in one call.

    Fields:
        rate: share of the weights, in [0, 1); what remains is divided by 1 - rate.
        seed: uint32 (2,), such as `keras.random.SeedGenerator.next()` gives; the same seed drops the same.
    """

    rate: float
    seed: Any


def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    scale: float,
    mask: AttentionMask,
    bias: Any = None,
    dropout: Dropout | None = None,
) -> Any:
    """Attention of queries over keys and values.

    Args:
        query: (batch, heads, queries, head_dim); only the batch may be of unknown size.
        key, value: (batch, key_value_heads, keys, head_dim); heads is a multiple of key_value_heads.
        scale: factor on the scores.
        mask: which keys each query sees; its lengths are those of `query` and `key`.
        bias: float, added to the scaled scores, broadcastable to (batch, heads, queries, keys); its gradient has its
            own shape.
        dropout: which weights are dropped after the softmax; None for none.

    Returns:
        (batch, heads, queries, head_dim) in the dtype of `value`; zeros for queries that see no key.

    Example:
        >>> import numpy as np
        >>> from tfmodels.kernels.masks import make_mask
        >>> x = np.ones((1, 2, 300, 4), "float32")
        >>> mask = make_mask(None, causal=True, query_length=300, key_length=300)
        >>> output = attention(x, x, 3 * x, scale=0.5, mask=mask)
        >>> output.shape, float(output[0, 0, 299, 0])
        (TensorShape([1, 2, 300, 4]), 3.0)
    """
    job = _Job(query.shape, key.shape, scale, mask, dropout)
    arrays = [job.rows(query, job.queries), job.rows(key, job.keys), job.rows(value, job.keys)]
    arrays[1] = ops.cast(arrays[1], arrays[0].dtype)
    terms = [ops.cast(term, "float32") for term in (bias, mask.bias) if term is not None]
    if terms:
        arrays.append(job.padded_pairs(sum(terms[1:], terms[0])))

    def compute(*arrays: Any) -> tuple[Any, Callable[..., Any]]:
        output, statistics = job.forward(*arrays)

        def gradient(upstream: Any) -> tuple[Any, ...]:
            flows = job.backward(arrays, output, statistics, upstream)
            return tuple(ops.cast(flow, array.dtype) for flow, array in zip(flows, arrays, strict=True))

        return output, gradient

    output = with_gradient(compute, *arrays)
    return ops.reshape(output, (-1, query.shape[1], job.queries.padded, query.shape[3]))[:, :, : query.shape[2]]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A length divided into blocks."""

    size: int

    @property
    def block(self) -> int:
        return min(_BLOCK, self.size)

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block)

    @property
    def padded(self) -> int:
        return self.blocks * self.block


class _Job:
    """One attention: its sizes, and how a block of scores is made.

    Tensors are (rows, group, length, head_dim) for queries and (rows, length, head_dim) for keys and values, where a
    row is a key/value head of one element of the batch and a group the query heads that share it.
    """

    def __init__(self, query: Any, key: Any, scale: float, mask: AttentionMask, dropout: Dropout | None):
        _, self.heads, queries, self.head_dim = query
        self.group = self.heads // key[1]
        self.queries, self.keys = _Axis(queries), _Axis(key[2])
        self.scale = scale
        self.mask = mask
        self.dropout = dropout
        self.limits = [
            self.padded_pairs(ops.expand_dims(ops.expand_dims(mask.keys, 1), 1)) if mask.keys is not None else None,
            self.padded_pairs(mask.pairs) if mask.pairs is not None else None,
        ]
        self.own_segment = self.key_segment = None
        if mask.segments is not None:
            segments = ops.expand_dims(ops.cast(mask.segments, "int32"), 1)
            self.own_segment = self.padded_pairs(ops.expand_dims(segments, 3))
            self.key_segment = self.padded_pairs(ops.expand_dims(segments, 2))

    # Shapes ----------------------------------------------------------------------------------------------------

    def rows(self, x: Any, axis: _Axis) -> Any:
        x = ops.pad(x, ((0, 0), (0, 0), (0, axis.padded - axis.size), (0, 0)))
        if axis is self.queries:
            return ops.reshape(x, (-1, self.group, axis.padded, self.head_dim))
        return ops.reshape(x, (-1, axis.padded, self.head_dim))

    def padded_pairs(self, x: Any) -> Any:
        """Pad a tensor that broadcasts to (batch, heads, queries, keys) to whole blocks."""
        more = [
            axis.padded - axis.size if size == axis.size and size > 1 else 0
            for axis, size in zip((self.queries, self.keys), x.shape[2:], strict=True)
        ]
        if not any(more):
            return x
        return ops.pad(x, ((0, 0), (0, 0), (0, more[0]), (0, more[1])))

    def block_of_pairs(self, x: Any, i: Any, j: Any) -> Any:
        start, size = self._place(x, i, j)
        return ops.slice(x, start, size)

    def _place(self, x: Any, i: Any, j: Any) -> tuple[list[Any], list[Any]]:
        start, size = [0, 0, 0, 0], list(ops.shape(x))
        for axis, index, dimension in ((self.queries, i, 2), (self.keys, j, 3)):
            if x.shape[dimension] > 1:
                start[dimension], size[dimension] = index * axis.block, axis.block
        return start, size

    def block_of_queries(self, x: Any, i: Any) -> Any:
        """(rows, group * block, ...) of x (rows, group, queries, ...)."""
        tail = x.shape[3:]
        start = [0, 0, i * self.queries.block, *[0] * len(tail)]
        block = ops.slice(x, start, [ops.shape(x)[0], self.group, self.queries.block, *tail])
        return ops.reshape(block, (-1, self.group * self.queries.block, *tail))

    def write_queries(self, x: Any, i: Any, block: Any) -> Any:
        tail = x.shape[3:]
        block = ops.reshape(block, (-1, self.group, self.queries.block, *tail))
        return ops.slice_update(x, [0, 0, i * self.queries.block, *[0] * len(tail)], block)

    def block_of_keys(self, x: Any, j: Any) -> Any:
        return ops.slice(x, [0, j * self.keys.block, 0], [ops.shape(x)[0], self.keys.block, self.head_dim])

    def add_to_keys(self, x: Any, j: Any, block: Any) -> Any:
        return ops.slice_update(x, [0, j * self.keys.block, 0], self.block_of_keys(x, j) + block)

    # A block of scores -----------------------------------------------------------------------------------------

    def key_blocks(self, i: Any) -> tuple[Any, Any]:
        """First key block that query block i sees, and the one after the last."""
        first, end = ops.convert_to_tensor(0, "int32"), ops.convert_to_tensor(self.keys.blocks, "int32")
        start = ops.cast(self.mask.offset, "int32") + i * self.queries.block
        if self.mask.last_ahead is not None:
            last = start + self.queries.block - 1 + self.mask.last_ahead
            end = ops.minimum(end, last // self.keys.block + 1)
        if self.mask.window is not None:
            first = ops.minimum(end, ops.maximum(0, start - self.mask.window + 1) // self.keys.block)
        return first, end

    def scores(self, query: Any, key: Any, bias: Any, i: Any, j: Any) -> tuple[Any, Any]:
        """Scores float32 (rows, group * block, block) of a block, and which of them count, bool, or None for all."""
        scores = ops.cast(ops.matmul(query, ops.transpose(key, (0, 2, 1))), "float32") * self.scale
        if bias is not None:
            scores = self._as_rows(self._as_heads(scores) + self.block_of_pairs(bias, i, j))
        queries, keys = self._columns(i, j)
        queries = queries + ops.cast(self.mask.offset, "int32")
        limits = [self.block_of_pairs(limit, i, j) for limit in self.limits if limit is not None]
        if self.keys.padded > self.keys.size:
            limits.append(_as_pairs(keys < self.keys.size))
        if self.mask.last_ahead is not None:
            limits.append(_as_pairs(keys <= queries + self.mask.last_ahead))
        if self.mask.window is not None:
            limits.append(_as_pairs(keys > queries - self.mask.window))
        if self.own_segment is not None:
            own, others = (self.block_of_pairs(x, i, j) for x in (self.own_segment, self.key_segment))
            limits.append(ops.equal(own, others))
        if not limits:
            return scores, None
        allowed = limits[0]
        for limit in limits[1:]:
            allowed = ops.logical_and(allowed, limit)
        return scores, allowed

    def _columns(self, i: Any, j: Any) -> tuple[Any, Any]:
        """Numbers of a block's queries, int32 (block, 1), and of its keys, (1, block)."""
        queries = ops.expand_dims(i * self.queries.block + ops.arange(self.queries.block, dtype="int32"), 1)
        return queries, ops.expand_dims(j * self.keys.block + ops.arange(self.keys.block, dtype="int32"), 0)

    def dropped(self, weights: Any, i: Any, j: Any) -> Any:
        """The weights of a block, or their gradients, float32, after dropout."""
        if self.dropout is None:
            return weights
        weights = self._as_heads(weights)
        rows = ops.arange(ops.shape(weights)[0] * self.heads, dtype="int32")
        keep = kept(self.dropout, ops.reshape(rows, (-1, self.heads, 1, 1)), *map(_as_pairs, self._columns(i, j)))
        return self._as_rows(ops.where(keep, weights * (1 / (1 - self.dropout.rate)), 0.0))

    def weights(self, scores: Any, allowed: Any, shift: Any) -> Any:
        """exp(scores - shift) where a score counts, else 0."""
        weights = ops.exp(scores - ops.expand_dims(shift, 2))
        if allowed is None:
            return weights
        return self._as_rows(ops.where(allowed, self._as_heads(weights), 0.0))

    def masked(self, scores: Any, allowed: Any) -> Any:
        if allowed is None:
            return scores
        return self._as_rows(ops.where(allowed, self._as_heads(scores), _LOWEST))

    def _as_heads(self, x: Any) -> Any:
        return ops.reshape(x, (-1, self.heads, self.queries.block, self.keys.block))

    def _as_rows(self, x: Any) -> Any:
        return ops.reshape(x, (-1, self.group * self.queries.block, self.keys.block))

    # The two passes --------------------------------------------------------------------------------------------

    def forward(self, query: Any, key: Any, value: Any, bias: Any = None) -> tuple[Any, Any]:
        """Output, shaped like the queries, and the log of each sum of exponentials, float32 (rows, group, queries)."""

        def block_of_output(i: Any, output: Any, statistics: Any) -> tuple[Any, ...]:
            own = self.block_of_queries(query, i)
            first, end = self.key_blocks(i)

            def more_keys(j: Any, largest: Any, total: Any, sums: Any) -> tuple[Any, ...]:
                scores, allowed = self.scores(own, self.block_of_keys(key, j), bias, i, j)
                larger = ops.maximum(largest, ops.max(self.masked(scores, allowed), axis=2))
                weights = self.weights(scores, allowed, larger)
                correction = ops.exp(largest - larger)
                kept = ops.cast(self.dropped(weights, i, j), value.dtype)
                added = ops.matmul(kept, self.block_of_keys(value, j))
                return (
                    j + 1,
                    larger,
                    total * correction + ops.sum(weights, axis=2),
                    sums * ops.expand_dims(correction, 2) + ops.cast(added, "float32"),
                )

            nothing = ops.zeros_like(ops.cast(own, "float32"))
            _, largest, total, sums = ops.while_loop(
                lambda j, *_: j < end,
                more_keys,
                (first, nothing[:, :, 0] + _LOWEST, nothing[:, :, 0], nothing),
            )
            seen = total > 0
            total = ops.where(seen, total, 1.0)
            block = ops.cast(sums / ops.expand_dims(total, 2), output.dtype)
            return (
                i + 1,
                self.write_queries(output, i, block),
                self.write_queries(statistics, i, ops.where(seen, largest + ops.log(total), _UNSEEN)),
            )

        output = ops.cast(ops.zeros_like(query), value.dtype)
        statistics = ops.cast(ops.zeros_like(query[..., 0]), "float32")
        start = ops.convert_to_tensor(0, "int32")
        _, output, statistics = ops.while_loop(
            lambda i, *_: i < self.queries.blocks, block_of_output, (start, output, statistics)
        )
        return output, statistics

    def backward(self, arrays: Any, output: Any, statistics: Any, upstream: Any) -> tuple[Any, ...]:
        """Gradients of query, key, value and bias, float32 and in their shapes."""
        query, key, value, *rest = arrays
        bias = rest[0] if rest else None
        # The gradient of a softmax subtracts this sum from every weight's gradient.
        shared = ops.sum(ops.cast(upstream, "float32") * ops.cast(output, "float32"), axis=3)

        def block_of_queries(i: Any, *flows: Any) -> tuple[Any, ...]:
            own, flow = self.block_of_queries(query, i), self.block_of_queries(upstream, i)
            taken, statistic = (ops.expand_dims(self.block_of_queries(x, i), 2) for x in (shared, statistics))
            first, end = self.key_blocks(i)

            def more_keys(j: Any, of_query: Any, of_key: Any, of_value: Any, *of_bias: Any) -> tuple[Any, ...]:
                own_key, own_value = self.block_of_keys(key, j), self.block_of_keys(value, j)
                scores, allowed = self.scores(own, own_key, bias, i, j)
                weights = self.weights(scores, allowed, statistic[:, :, 0])
                of_weights = ops.cast(ops.matmul(flow, ops.transpose(own_value, (0, 2, 1))), "float32")
                of_scores = weights * (self.dropped(of_weights, i, j) - taken)
                scaled = ops.cast(of_scores * self.scale, query.dtype)
                turned = ops.transpose(ops.cast(self.dropped(weights, i, j), flow.dtype), (0, 2, 1))
                return (
                    j + 1,
                    of_query + ops.cast(ops.matmul(scaled, own_key), "float32"),
                    self.add_to_keys(of_key, j, _float32(ops.matmul(ops.transpose(scaled, (0, 2, 1)), own))),
                    self.add_to_keys(of_value, j, _float32(ops.matmul(turned, flow))),
                    *(self._add_to_bias(x, of_scores, i, j) for x in of_bias),
                )

            of_query, *others = flows
            nothing = ops.zeros_like(ops.cast(own, "float32"))
            _, block, *others = ops.while_loop(lambda j, *_: j < end, more_keys, (first, nothing, *others))
            return (i + 1, self.write_queries(of_query, i, block), *others)

        zeros = [ops.zeros_like(_float32(array)) for array in arrays]
        start = ops.convert_to_tensor(0, "int32")
        _, *flows = ops.while_loop(lambda i, *_: i < self.queries.blocks, block_of_queries, (start, *zeros))
        return tuple(flows)

    def _add_to_bias(self, x: Any, of_scores: Any, i: Any, j: Any) -> Any:
        of_scores = self._as_heads(of_scores)
        shared = [axis for axis in range(4) if x.shape[axis] == 1]
        block = ops.sum(of_scores, axis=shared, keepdims=True) if shared else of_scores
        start, size = self._place(x, i, j)
        return ops.slice_update(x, start, ops.slice(x, start, size) + block)


def kept(dropout: Dropout, rows: Any, queries: Any, keys: Any) -> Any:
    """Draw the weights that are not dropped; the same numbers give the same draw, whatever the blocks.

    The bits come from a hash of seed and numbers: a generator with a state could not give a block again.

    Args:
        rows, queries, keys: int32, broadcastable: number of the head, all heads of the batch counted through, of the
            query and of the key.

    Returns:
        bool, in the shape that they broadcast to.

    Source:
        Wellons, "Prospecting for Hash Functions", https://nullprogram.com/blog/2018/07/31/ (lowbias32).
    """
    first, second = dropout.seed[0], dropout.seed[1]
    start = _hash(ops.bitwise_xor(_hash(first), second))
    rows, queries, keys = (ops.cast(x, "uint32") for x in (rows, queries, keys))
    queries = _hash(ops.bitwise_xor(queries, _hash(ops.bitwise_xor(rows, start))))
    # Flipped, the start is no row's: the same numbers for queries and keys would make a symmetric pattern.
    keys = _hash(ops.bitwise_xor(keys, _hash(ops.bitwise_not(start))))
    # 24 bits are exact in float32, and every device compares those.
    draws = ops.cast(ops.right_shift(_hash(ops.bitwise_xor(queries, keys)), _uint32(8)), "float32") * 2.0**-24
    return draws >= dropout.rate


def _hash(x: Any) -> Any:
    """Every bit of a uint32 depends on every bit of another."""
    x = ops.cast(x, "uint32") + _uint32(0x9E3779B9)  # zero would stay zero
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ops.bitwise_xor(x, ops.right_shift(x, _uint32(shift))) * _uint32(factor)
    return ops.bitwise_xor(x, ops.right_shift(x, _uint32(16)))


def _uint32(value: int) -> Any:
    return ops.convert_to_tensor(value, "uint32")


def _as_pairs(x: Any) -> Any:
    return ops.expand_dims(ops.expand_dims(x, 0), 0)


def _float32(x: Any) -> Any:
    return ops.cast(x, "float32")
