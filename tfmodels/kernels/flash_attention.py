"""Fused attention of training by Triton, for the calls that cuDNN's kernels do not take; in TensorFlow's XLA.

Dropout with a seed of its own, packed sequences, masks of pairs, windows to both sides or beside padding, and heads of
up to 256 numbers: scores are computed in tiles, forward and again backward, and never written to memory. What is
dropped depends on the seed and the numbers of head, query and key alone, as in `blockwise_attention`, which drops the
same weights.

Source:
    Dao, https://arxiv.org/abs/2307.08691.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from keras import ops

from tfmodels.kernels import triton_call
from tfmodels.kernels.blockwise_attention import Dropout
from tfmodels.kernels.cudnn_attention import DTYPES
from tfmodels.kernels.gradients import under_xla
from tfmodels.kernels.masks import AttentionMask
from tfmodels.kernels.triton_call import launch
from tfmodels.runtime.xla_flags import warn_where_unsafe

MAX_HEAD_DIM = 256

# The tensors that say which keys count and what is added, in the kernels' order, and after them the seed of dropout.
_TERMS = ("keys", "segments", "pairs", "bias", "seed")


class _Kind(NamedTuple):
    """The settings that are compiled into the kernels beside shapes.

    Fields:
        scale, window, ahead: as in `AttentionMask`; `ahead` is 0 in a causal mask.
        rate: of dropout.
        terms: names of the tensors that a call has, in the order of `_TERMS`.
        learned: whether gradients flow into the bias.
    """

    scale: float
    window: int | None
    ahead: int | None
    rate: float
    terms: tuple[str, ...]
    learned: bool


def unavailable() -> str | None:
    """The reason for which the kernels cannot run in this process, or None.

    A small attention is tried in float16, forward and backward, and compared with plain products in float32.
    """
    return triton_call.tried(_trial)


def _trial() -> str:
    import tensorflow as tf

    length = 80
    mask = AttentionMask(length, length, causal=True, window=50)
    arrays = [tf.random.stateless_normal((1, 2, length, 32), (seed, 7)) for seed in range(3)]
    near = mask.allowed

    def plain(query: Any, key: Any, value: Any) -> Any:
        return tf.matmul(tf.nn.softmax(tf.where(near, tf.matmul(query, key, transpose_b=True) / 8, -1e30)), value)

    def fused(*arrays: Any) -> Any:
        return attention(*(tf.cast(x, "float16") for x in arrays), scale=0.125, mask=mask)

    def both(function: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            output = function(*arrays)
            total = tf.reduce_sum(tf.cast(output, "float32") * arrays[0])
        return [tf.cast(output, "float32"), *tape.gradient(total, arrays)]

    pairs = zip(both(fused), both(plain), strict=True)
    worst = max(float(tf.norm(got - want) / tf.norm(want)) for got, want in pairs)
    return "" if worst < 0.02 else f"a Triton kernel gave wrong numbers (relative error {worst:.2g})"


def unsuitable(query: Any, key: Any, dtype: str, mask: AttentionMask) -> str | None:
    """The reason for which the kernels cannot take tensors of these shapes under a mask, or None.

    Args:
        query: shape (batch, heads, queries, head_dim), None where a size is unknown.
        key: shape (batch, key_value_heads, keys, head_dim), likewise.
        dtype: of both.
        mask: of the call.

    Example:
        >>> mask = AttentionMask(9, 9, causal=True)
        >>> unsuitable((2, 4, 9, 200), (2, 4, 9, 200), "bfloat16", mask)
        >>> unsuitable((2, 4, 9, 512), (2, 4, 9, 512), "bfloat16", mask)
        'Triton kernels serve up to 256 numbers per head, not 512'
    """
    if dtype not in DTYPES:
        return f"Triton kernels compute in {' or '.join(DTYPES)}, not in {dtype}"
    if not all(isinstance(size, int) for size in (*query, *key)):
        return "Triton kernels need shapes that are known when the program is traced (drop_remainder=True in batches)"
    if query[2] != key[2] or not (isinstance(mask.offset, int) and mask.offset == 0):
        return f"Triton kernels serve queries over their own keys alone, not {query[2]} over {key[2]}"
    if query[3] > MAX_HEAD_DIM:
        return f"Triton kernels serve up to {MAX_HEAD_DIM} numbers per head, not {query[3]}"
    if mask.fills and mask.pairs is not None:
        return "a mask of pairs (4-D) in a family whose queries attend to padding where they see nothing else"
    return None


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
    """`blockwise_attention.attention` of queries over keys of the same positions, in eager, graph and XLA code.

    Args and result are those of `blockwise_attention.attention`, in float16 or bfloat16. `mask.bias` gets no gradient.
    The parts by row and head of the gradient of `bias` take the memory of all scores, in the dtype of `query`, for a
    moment.
    """
    import tensorflow as tf

    length = query.shape[2]
    whole = [tf.cast(term, "float32") for term in (bias, mask.bias) if term is not None]
    given = {
        "keys": None if mask.keys is None else tf.cast(mask.keys, "int8"),
        "segments": None if mask.segments is None else tf.cast(mask.segments, "int32"),
        "pairs": None if mask.pairs is None else _square(tf.cast(mask.pairs, "int8"), length),
        "bias": _square(sum(whole[1:], whole[0]), length) if whole else None,
        "seed": None if dropout is None else tf.bitcast(tf.cast(dropout.seed, "uint32"), "int32"),
    }
    present = {name: tensor for name, tensor in given.items() if tensor is not None}
    rate = 0.0 if dropout is None else float(dropout.rate)
    # The kernels divide biases by the scale, and hide pairs by minus infinity before they multiply by it.
    query, scale = (-query, -scale) if scale < 0 else (query, scale or 1e-30)
    kind = _Kind(float(scale), mask.window, mask.last_ahead, rate, tuple(present), bias is not None)
    return _function(kind)(query, key, value, *present.values())


def _square(x: Any, length: int) -> Any:
    """A tensor of pairs with all queries and keys."""
    return ops.broadcast_to(x, (*x.shape[:2], length, length))


@functools.cache
def _function(kind: _Kind) -> Any:
    """The differentiable function of queries, keys, values and the terms that a call has."""

    def forward(query: Any, key: Any, value: Any, *terms: Any) -> Any:
        return _Job(kind, query, key, value, terms).forward()

    def backward(query: Any, key: Any, value: Any, *others: Any) -> list[Any]:
        *terms, output, statistics, upstream = others
        flows = _Job(kind, query, key, value, tuple(terms)).backward(output, statistics, upstream)
        return [*flows[:3], *(flows[3] if name == "bias" else None for name in kind.terms)]

    warn_where_unsafe()
    return under_xla(forward, backward)


def tiles(head_dim: int) -> tuple[int, int, int]:
    """Queries and keys of a tile, and warps: accumulators of wide heads fill the registers of more."""
    if head_dim <= 64:
        return 64, 64, 4
    return (64, 32, 4) if head_dim <= 128 else (32, 32, 4)


class _Job:
    """The launches of one attention."""

    def __init__(self, kind: _Kind, query: Any, key: Any, value: Any, terms: tuple[Any, ...]):
        self.kind, self.arrays = kind, (query, key, value)
        self.batch, self.heads, self.length, self.head_dim = query.shape
        self.key_value_heads = key.shape[1]
        self.terms = dict(zip(kind.terms, terms, strict=True))
        self.queries, self.keys, self.warps = tiles(self.head_dim)

    def forward(self) -> tuple[Any, Any]:
        """The output, and what the backward pass needs of the softmax, float32 (batch, heads, length)."""
        import tensorflow as tf

        query = self.arrays[0]
        results = [tf.TensorSpec(query.shape, query.dtype), tf.TensorSpec(query.shape[:3], tf.float32)]
        return tuple(self._launch("flash_forward", self.arrays, results, self._grid(self.queries, self.heads)))

    def backward(self, output: Any, statistics: Any, upstream: Any) -> list[Any]:
        """Gradients of query, key, value and, where it is learned, bias."""
        import tensorflow as tf

        query, key, value = self.arrays
        upstream = tf.cast(upstream, query.dtype)
        # The gradient of a softmax subtracts this sum from every weight's gradient.
        shared = tf.reduce_sum(tf.cast(upstream, "float32") * tf.cast(output, "float32"), axis=3)
        given = (*self.arrays, upstream, statistics, shared)
        (of_query,) = self._launch(
            "flash_query_gradient",
            given,
            [tf.TensorSpec(query.shape, query.dtype)],
            self._grid(self.queries, self.heads),
        )
        of_key, of_value = self._launch(
            "flash_key_gradient",
            given,
            [tf.TensorSpec(x.shape, x.dtype) for x in (key, value)],
            self._grid(self.keys, self.key_value_heads),
        )
        return [of_query, of_key, of_value, self._of_bias(given) if self.kind.learned else None]

    def _of_bias(self, given: tuple[Any, ...]) -> Any:
        import tensorflow as tf

        bias, (query, *_) = self.terms["bias"], given
        shape = (self.batch, self.heads, self.length, self.length)
        grid = (-(-self.length // self.queries), -(-self.length // self.keys), self.batch * self.heads)
        (flow,) = self._launch("flash_bias_gradient", given, [tf.TensorSpec(shape, query.dtype)], grid)
        shared = [axis for axis in (0, 1) if bias.shape[axis] == 1]
        return tf.reduce_sum(tf.cast(flow, "float32"), axis=shared, keepdims=True)

    def _grid(self, tile: int, heads: int) -> tuple[int, int]:
        return -(-self.length // tile), self.batch * heads

    def _launch(self, kernel: str, tensors: Any, results: list[Any], grid: tuple[int, ...]) -> list[Any]:
        kind, pairs, bias = self.kind, self.terms.get("pairs"), self.terms.get("bias")
        segments = self.terms.get("segments")
        return launch(
            kernel,
            # Where a call lacks a term, any tensor stands for it.
            [*tensors, *(self.terms.get(name, tensors[0]) for name in _TERMS)],
            results,
            grid=grid,
            warps=self.warps,
            stages=2,
            HEADS=self.heads,
            GROUP=self.heads // self.key_value_heads,
            LENGTH=self.length,
            HEAD_DIM=self.head_dim,
            SCALE=kind.scale,
            WINDOW=kind.window or 0,
            AHEAD=-1 if kind.ahead is None else kind.ahead,
            HAS_KEYS="keys" in self.terms,
            SEGMENTS=0 if segments is None else 1 + (segments.shape[0] > 1),
            HAS_PAIRS=pairs is not None,
            **_strides("PAIRS", pairs),
            HAS_BIAS=bias is not None,
            **_strides("BIAS", bias),
            RATE=kind.rate,
            QUERIES=self.queries,
            KEYS=self.keys,
            BLOCK_DIM=max(16, 1 << (self.head_dim - 1).bit_length()),
        )


def _strides(name: str, x: Any) -> dict[str, int]:
    """The number of tables of pairs between the rows, and between the heads, of (batch or 1, heads or 1, ...)."""
    rows, heads = (1, 1) if x is None else x.shape[:2]
    return {f"{name}_ROW": heads if rows > 1 else 0, f"{name}_HEAD": int(heads > 1)}
