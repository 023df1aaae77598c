"""Products and attention of one or a few tokens, in the forms for which XLA makes fast code.

While decoding, each token reads every weight once, so its time is the time it takes to stream the weights from memory.
XLA's CPU compiler gives a product of a single row to one core and keeps the layout that a product of few rows happens
to have; two cores read twice as fast as one, and a batch of products is shared among cores. On a GPU kernels of our
own (`triton_decoding`) are taken where they can run. Where they cannot, XLA's compiler for GPUs turns a product with a
single row or column into a multiplication, whose result it writes to memory, and a sum; with eight rows it stays a
product. The forms here are equal in value up to the order of summation, and worth it only there: they are taken inside
`compiling()`, which generation enters when it traces for XLA, and nowhere else, so that other programs keep plain
products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from keras import backend, ops

from tfmodels.kernels import triton_call, triton_decoding

# "triton" is a GPU for which kernels of our own can be compiled.
_target: ContextVar[str | None] = ContextVar("what XLA compiles for: cpu, gpu, triton, or None outside", default=None)

# On a CPU, batches beyond it give all cores enough to do in the plain form; on a GPU products get so many rows.
_ROWS = 8


@contextlib.contextmanager
def compiling(*, portable: bool = False) -> Iterator[None]:
    """What is traced inside will be compiled by XLA for the device that TensorFlow prefers.

    Args:
        portable: only operations that any device has, as exports need.
    """
    import tensorflow as tf

    target = "gpu" if tf.config.get_visible_devices("GPU") else "cpu"
    token = _target.set("triton" if target == "gpu" and not portable and triton_call.unavailable() is None else target)
    try:
        yield
    finally:
        _target.reset(token)


def serves_dense(x: Any, kernel: Any) -> bool:
    """Whether `dense` is the faster form for x (batch, length, in) @ kernel (in, out)."""
    if _target.get() is None or len(x.shape) != 3 or None in x.shape:
        return False
    rows = x.shape[0] * x.shape[1]
    return rows == 1 and kernel.shape[0] % 2 == 0 if _target.get() == "cpu" else rows <= _ROWS


def dense(x: Any, kernel: Any, bias: Any = None) -> Any:
    """A few rows times a matrix; inside `compiling()` only.

    Args:
        x: (batch, length, in); on a CPU a single row with `in` even, which is summed in two halves, each by a core.
        kernel: (in, out).
        bias: (out,), added, or None.

    Returns:
        (batch, length, out).
    """
    batch, length, width = x.shape
    units = kernel.shape[1]
    if _target.get() == "cpu":
        halves = ops.matmul(ops.reshape(x, (2, 1, width // 2)), ops.reshape(kernel, (2, width // 2, units)))
        product = ops.expand_dims(ops.sum(halves, axis=0), 0)
        return product if bias is None else product + bias
    rows = ops.reshape(x, (batch * length, width))
    product = ops.reshape(_with_more_rows(rows, kernel), (batch, length, units))
    return product if bias is None else product + bias


def serves_products(x: Any, *kernels: Any) -> bool:
    """Whether `products` is there for x (batch, length, in) and kernels (in, out), of the dtype of x or int8."""
    if _target.get() != "triton" or len(x.shape) != 3 or None in x.shape:
        return False
    return triton_decoding.serves_products(x.shape[0] * x.shape[1], backend.standardize_dtype(x.dtype), *kernels)


def products(x: Any, *kernels: Any) -> list[Any]:
    """A few rows times each of several matrices, all read by one operation; inside `compiling()` only.

    Args:
        x: (batch, length, in).
        kernels: (in, out), see `triton_decoding.products`.

    Returns:
        float32 (batch, length, out) for each.
    """
    batch, length, width = x.shape
    found = triton_decoding.products(ops.reshape(x, (batch * length, width)), *kernels)
    return [ops.reshape(product, (batch, length, product.shape[1])) for product in found]


def serves_attention(query: Any, key: Any) -> bool:
    """Whether `attention` is there for these tensors, (batch, heads, queries, head_dim)."""
    return _target.get() == "triton" and triton_decoding.serves_attention(query, key)


def why_plain() -> str:
    """Why programs for a GPU decode without kernels of our own; empty where they have them or none is wanted."""
    return (triton_call.unavailable() or "") if _target.get() == "gpu" else ""


def attention(query: Any, key: Any, value: Any, allowed: Any, *, scale: float, bias: Any = None) -> Any:
    """Attention of single queries over a cache, as one operation; inside `compiling()` only.

    Args:
        query, key, value: see `tfmodels.layers.attention.attend`; one query per row, with the dtype of `key`.
        allowed: bool, broadcastable to (batch, 1, 1, keys), or None.
        scale: factor on the scores.
        bias: float, broadcastable to (batch, heads, 1, keys), or None.
    """
    heads, keys = query.shape[1], key.shape[2]
    allowed = ops.ones((1, keys), "bool") if allowed is None else ops.reshape(allowed, (allowed.shape[0], keys))
    if bias is not None:
        bias = ops.cast(bias, "float32")
        bias = ops.reshape(ops.broadcast_to(bias, (bias.shape[0], heads, 1, keys)), (-1, heads, keys))
    return triton_decoding.attention(query, key, value, allowed, scale=scale, bias=bias)


def scores(query: Any, key: Any) -> Any:
    """Products of a few queries with all keys.

    Args:
        query: (rows, few, head_dim).
        key: (rows, keys, head_dim).

    Returns:
        (rows, few, keys).

    Example:
        >>> import numpy as np
        >>> scores(np.ones((1, 2, 4), "float32"), np.ones((1, 3, 4), "float32")).shape
        TensorShape([1, 2, 3])
    """
    if _target.get() in ("gpu", "triton"):
        return _with_more_rows(query, ops.transpose(key, (0, 2, 1)))
    # Keys on the left are read as they lie; on the right XLA's CPU compiler transposes all of them first.
    return ops.transpose(ops.matmul(key, ops.transpose(query, (0, 2, 1))), (0, 2, 1))


def weighted(weights: Any, value: Any) -> Any:
    """Sums of values by the weights of a few queries: (rows, few, keys) @ (rows, keys, head_dim)."""
    return _with_more_rows(weights, value) if _target.get() in ("gpu", "triton") else ops.matmul(weights, value)


def _with_more_rows(x: Any, matrix: Any) -> Any:
    """x (..., few, in) @ matrix (..., in, out), as a product of eight rows; the barriers keep XLA from undoing it."""
    few = x.shape[-2]
    if few >= _ROWS:
        return ops.matmul(x, matrix)
    padded = ops.pad(x, [(0, 0)] * (len(x.shape) - 2) + [(0, _ROWS - few), (0, 0)])
    return _barrier(ops.matmul(_barrier(padded), matrix))[..., :few, :]


def serves_table(x: Any, table: Any) -> bool:
    """Whether `table_scores` is the faster form for x (batch, 1, dim) and table (size, dim)."""
    batch, length, _ = x.shape
    if length != 1 or batch is None or batch > _ROWS:
        return False
    if _target.get() == "triton":
        return triton_decoding.serves_products(batch, backend.standardize_dtype(x.dtype), table)
    return _target.get() == "cpu" and backend.standardize_dtype(table.dtype) != "int8"


def table_scores(x: Any, table: Any, scale: Any = None) -> Any:
    """A few rows times every row of a table; inside `compiling()` only.

    Args:
        x: (batch, 1, dim).
        table: (size, dim), in the dtype of x; for kernels of our own also int8.
        scale: (size,), by which scores are divided, or None.

    Returns:
        (batch, 1, size).
    """
    batch, _, dim = x.shape
    size = table.shape[0]
    if _target.get() == "triton":
        product = triton_decoding.table_product(ops.reshape(x, (batch, dim)), table)
        product = product if scale is None else product / ops.cast(scale, "float32")
        return ops.cast(ops.expand_dims(product, 1), x.dtype)
    columns = ops.transpose(ops.reshape(x, (batch, dim)))
    if batch > 1:
        # Read along its rows, as (size, batch); without the barriers XLA would turn the product around again.
        return ops.expand_dims(ops.transpose(_barrier(ops.matmul(table, _barrier(columns)))), 1)
    parts = next((n for n in (8, 4, 2) if size % n == 0), 1)
    blocks = ops.reshape(table, (parts, size // parts, dim))
    return ops.reshape(ops.matmul(blocks, ops.broadcast_to(columns, (parts, dim, 1))), (1, 1, size))


def _barrier(x: Any) -> Any:
    from tensorflow.compiler.tf2xla.python import xla

    (kept,) = xla.optimization_barrier(x)
    kept.set_shape(x.shape)
    return kept
