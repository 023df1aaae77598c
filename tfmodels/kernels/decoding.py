"""Products and attention of one or a few tokens, in the forms that XLA compiles to fast code.

Decoding a token reads every weight once, so its time is the time it takes to stream the weights from memory. XLA's CPU
compiler gives a product of a single row to one core and keeps the layout that a product of few rows happens to have;
two cores read twice as fast as one, and a batch of products is shared among cores. On a GPU the kernels of
`triton_decoding` serve where they can run. Where they cannot, XLA's compiler for GPUs turns a product with a
single row or column into a multiplication, whose result it writes to memory, and a sum; with eight rows it stays a
product. The forms are equal in value up to the order of summation. They pay off in programs that XLA compiles for
decoding and nowhere else: a `Lowering` with a target asks for them, and ordinary calls (target None) keep plain
products.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from keras import backend, ops

from tfmodels.kernels import triton_decoding
from tfmodels.kernels.triton_decoding import Heads, Packed
from tfmodels.runtime.lowering import PLAIN, Lowering

# On a GPU products are padded to so many rows.
_ROWS = 8
# On a CPU a table is read along its rows for up to so many rows of inputs; for more the plain form is as fast.
_TABLE_ROWS = 32


def for_xla(*, portable: bool = False, reuse: bool = True) -> Lowering:
    """The lowering of programs that XLA compiles for the device that TensorFlow prefers; plain on other backends.

    Args:
        portable: only operations that every device has, as exports need them.
        reuse: blocks that differ in their weights alone are traced once.

    Example:
        >>> for_xla(portable=True).target in ("cpu", "gpu")
        True
    """
    if backend.backend() != "tensorflow":
        return PLAIN
    import tensorflow as tf

    target = "gpu" if tf.config.get_visible_devices("GPU") else "cpu"
    if target == "gpu" and not portable and triton_decoding.unavailable() is None:
        target = "triton"
    return Lowering(target, portable=portable, reuse=reuse)


def serves_dense(x: Any, kernel: Any, target: str | None) -> bool:
    """Whether `dense` is the faster form for x (batch, length, in) @ kernel (in, out)."""
    if target is None or len(x.shape) != 3 or None in x.shape:
        return False
    rows = x.shape[0] * x.shape[1]
    return rows == 1 and kernel.shape[0] % 2 == 0 if target == "cpu" else rows <= _ROWS


def dense(x: Any, kernel: Any, bias: Any = None, *, target: str) -> Any:
    """A few rows times a matrix, where `serves_dense` says so.

    Args:
        x: (batch, length, in); on a CPU a single row with `in` even, which is summed in two halves, each by a core.
        kernel: (in, out).
        bias: (out,), added, or None.
        target: as in `Lowering`.

    Returns:
        (batch, length, out).
    """
    batch, length, width = x.shape
    units = kernel.shape[1]
    if target == "cpu":
        halves = ops.matmul(ops.reshape(x, (2, 1, width // 2)), ops.reshape(kernel, (2, width // 2, units)))
        product = ops.expand_dims(ops.sum(halves, axis=0), 0)
        return product if bias is None else product + bias
    rows = ops.reshape(x, (batch * length, width))
    product = ops.reshape(_with_more_rows(rows, kernel), (batch, length, units))
    return product if bias is None else product + bias


def serves_products(x: Any, *matrices: Any, target: str | None) -> bool:
    """Whether `products` can multiply x (batch, length, in) with matrices (in, out): in the dtype of x, int8, packed.

    Args:
        matrices: tensors, or `Packed`.
    """
    if target != "triton" or len(x.shape) != 3 or None in x.shape:
        return False
    rows, dtype = x.shape[0] * x.shape[1], backend.standardize_dtype(x.dtype)
    if isinstance(matrices[0], Packed):
        return triton_decoding.serves_packed(rows, dtype, x.shape[2], *matrices)
    return triton_decoding.serves_product(rows, dtype, *matrices)


def products(x: Any, matrices: Sequence[Any], biases: Sequence[Any] | None = None) -> list[Any]:
    """A few rows times each of several matrices, by one kernel that reads them all; for the target "triton".

    Args:
        x: (batch, length, in).
        matrices, biases: see `triton_decoding.product`.

    Returns:
        float32 (batch, length, out) for each.
    """
    parts = products_in_parts(x, matrices, biases)
    whole = parts[0] if parts.shape[0] == 1 else ops.sum(parts, axis=0)
    stored = [m.weights if isinstance(m, Packed) else m for m in matrices]
    ends = list(itertools.accumulate(matrix.shape[1] for matrix in stored))
    batch, length, _ = x.shape
    apart = [whole[:, first:end] for first, end in zip([0, *ends], ends, strict=False)]
    return [ops.reshape(one, (batch, length, one.shape[1])) for one in apart]


def products_in_parts(x: Any, matrices: Sequence[Any], biases: Sequence[Any] | None = None) -> Any:
    """`products` side by side, as the kernel leaves them: float32 (parts, batch * length, out of all)."""
    rows = ops.reshape(x, (x.shape[0] * x.shape[1], x.shape[2]))
    return triton_decoding.product(rows, matrices, biases=biases)


def activated_product(
    x: Any, matrices: Sequence[Any], biases: Sequence[Any] | None, activation: str, *, gated: bool
) -> Any:
    """The activation of a product, gated by a second one where asked; arguments as in `triton_decoding.product`.

    Args:
        x: (batch, length, in).

    Returns:
        (batch, length, out) in the dtype of x.
    """
    batch, length, width = x.shape
    rows = ops.reshape(x, (batch * length, width))
    found = triton_decoding.product(rows, matrices, biases=biases, activation=activation, gated=gated)
    return ops.reshape(found, (batch, length, found.shape[2]))


def serves_attention(query: Any, key: Any, target: str | None) -> bool:
    """Whether `attention` can serve these tensors, (batch, heads, queries, head_dim)."""
    if target != "triton" or query.shape[2] != 1 or None in query.shape:
        return False
    return triton_decoding.serves_attention(query.shape[1], key.shape[1], query.shape[3], key)


def why_plain(lowering: Lowering) -> str:
    """The reason for which a GPU program decodes without the package's kernels; empty if it has or wants none."""
    return (triton_decoding.unavailable() or "") if lowering.target == "gpu" and not lowering.portable else ""


def attention(query: Any, key: Any, value: Any, allowed: Any, *, scale: float, bias: Any = None) -> Any:
    """Attention of single queries over a cache, by one kernel; for the target "triton".

    Args:
        query, key, value: see `tfmodels.layers.attention.attend`; one query per row, with the dtype of `key`.
        allowed: bool, broadcastable to (batch, 1, 1, keys), or None.
        scale: factor on the scores.
        bias: float, broadcastable to (batch, heads, 1, keys), or None.
    """
    batch, heads, _, head_dim = query.shape
    asked = Heads(ops.reshape(query, (1, batch, heads * head_dim)), head_dim, 0)
    output, _, _ = triton_decoding.attention(
        (asked, asked, asked),  # keys and values are in the cache
        key,
        value,
        None,
        _seen(allowed, key.shape[2]),
        heads=heads,
        scale=scale,
        bias=_added(bias, heads, key.shape[2]),
    )
    return ops.reshape(output, query.shape)


def cached_attention(
    projected: tuple[Heads, Heads, Heads],
    cache: tuple[Any, Any],
    length: Any,
    allowed: Any,
    *,
    heads: int,
    scale: float,
    rotary: tuple[Any, Any] | None = None,
    bias: Any = None,
) -> tuple[Any, tuple[Any, Any]]:
    """Attention of a new token over a static cache that it is written into, by one kernel; for the target "triton".

    Args:
        projected: queries, keys and values, not turned.
        cache: (key, value) so far.
        length: positions so far, int32 scalar or (batch,).
        allowed, bias: as for `attention`.
        heads: of the queries.
        scale: factor on the scores.
        rotary: cosine and sine, (batch or 1, 1, 1, pairs), or None.

    Returns:
        (batch, 1, heads * head_dim), and the cache with the token, in the same memory.
    """
    keys = cache[0].shape[2]
    slots = ops.reshape(ops.mod(length, keys), (-1,))
    slots.set_shape((length.shape[0] if len(length.shape) else 1,))
    if rotary is not None:
        rotary = tuple(ops.reshape(ops.cast(x, "float32"), (x.shape[0], x.shape[-1])) for x in rotary)
    output, key, value = triton_decoding.attention(
        projected,
        *cache,
        slots,
        _seen(allowed, keys),
        heads=heads,
        scale=scale,
        rotary=rotary,
        bias=_added(bias, heads, keys),
    )
    return ops.expand_dims(output, 1), (key, value)


def _seen(allowed: Any, keys: int) -> Any:
    return ops.ones((1, keys), "bool") if allowed is None else ops.reshape(allowed, (allowed.shape[0], keys))


def _added(bias: Any, heads: int, keys: int) -> Any:
    if bias is None:
        return None
    bias = ops.cast(bias, "float32")
    return ops.reshape(ops.broadcast_to(bias, (bias.shape[0], heads, 1, keys)), (-1, heads, keys))


def scores(query: Any, key: Any, target: str | None = None) -> Any:
    """Products of a few queries with all keys.

    Args:
        query: (rows, few, head_dim).
        key: (rows, keys, head_dim).
        target: as in `Lowering`.

    Returns:
        (rows, few, keys).

    Example:
        >>> import numpy as np
        >>> scores(np.ones((1, 2, 4), "float32"), np.ones((1, 3, 4), "float32")).shape
        TensorShape([1, 2, 3])
    """
    if target in ("gpu", "triton"):
        return _with_more_rows(query, ops.transpose(key, (0, 2, 1)))
    # Keys on the left are read as they lie; on the right XLA's CPU compiler transposes all of them first.
    product = ops.matmul(key, ops.transpose(query, (0, 2, 1)))
    if target == "cpu" and query.shape[1] > 1:
        (product,) = barrier(product)  # without it XLA would turn the product around again
    return ops.transpose(product, (0, 2, 1))


def weighted(weights: Any, value: Any, target: str | None = None) -> Any:
    """Sums of values by the weights of a few queries: (rows, few, keys) @ (rows, keys, head_dim)."""
    return _with_more_rows(weights, value) if target in ("gpu", "triton") else ops.matmul(weights, value)


def _with_more_rows(x: Any, matrix: Any) -> Any:
    """x (..., few, in) @ matrix (..., in, out), as a product of eight rows; the barriers keep XLA from undoing it."""
    few = x.shape[-2]
    if few >= _ROWS:
        return ops.matmul(x, matrix)
    padded = ops.pad(x, [(0, 0)] * (len(x.shape) - 2) + [(0, _ROWS - few), (0, 0)])
    (padded,) = barrier(padded)
    (product,) = barrier(ops.matmul(padded, matrix))
    return product[..., :few, :]


def serves_table(x: Any, table: Any, target: str | None) -> bool:
    """Whether `table_scores` is the faster form for x (batch, length, dim) and table (size, dim)."""
    batch, length, _ = x.shape
    if batch is None or length is None:
        return False
    if target == "triton":
        return length == 1 and triton_decoding.serves_product(batch, backend.standardize_dtype(x.dtype), table)
    return target == "cpu" and batch * length <= _TABLE_ROWS and backend.standardize_dtype(table.dtype) != "int8"


def table_scores(x: Any, table: Any, scale: Any = None, *, target: str) -> Any:
    """A few rows times every row of a table, where `serves_table` says so.

    Args:
        x: (batch, length, dim).
        table: (size, dim), in the dtype of x; for the target "triton" also int8.
        scale: (size,), by which scores are divided, or None.
        target: as in `Lowering`.

    Returns:
        (batch, length, size).
    """
    batch, length, dim = x.shape
    rows, size = batch * length, table.shape[0]
    if target == "triton":
        inputs = ops.reshape(x, (rows, dim))
        if scale is None:  # XLA's own operations read the scores twice: half as many bytes
            product = triton_decoding.table_product(inputs, table, backend.standardize_dtype(x.dtype))
        else:
            product = triton_decoding.table_product(inputs, table) / ops.cast(scale, "float32")
        return ops.cast(ops.reshape(product, (batch, length, size)), x.dtype)
    columns = ops.transpose(ops.reshape(x, (rows, dim)))
    if rows > 1:
        # Read along its rows, as (size, rows); without the barriers XLA would turn the product around again. Columns
        # are multiplied 4, 8 or 16 at a time: 5 by themselves take longer than 8.
        whole = next((n for n in (4, 8, 16) if n >= rows), rows)
        (columns,) = barrier(ops.pad(columns, ((0, 0), (0, whole - rows))))
        (product,) = barrier(ops.matmul(table, columns))
        return ops.reshape(ops.transpose(product[:, :rows]), (batch, length, size))
    parts = next((n for n in (8, 4, 2) if size % n == 0), 1)
    blocks = ops.reshape(table, (parts, size // parts, dim))
    return ops.reshape(ops.matmul(blocks, ops.broadcast_to(columns, (parts, dim, 1))), (1, 1, size))


def barrier(*tensors: Any) -> list[Any]:
    """The same tensors, behind which XLA moves no operation to the other side."""
    from tensorflow.compiler.tf2xla.python import xla

    kept = xla.optimization_barrier(*tensors)
    for after, before in zip(kept, tensors, strict=True):
        after.set_shape(before.shape)
    return list(kept)


def computed_once(x: Any) -> Any:
    """The same numbers, which a program for a CPU computes before the operations that read them.

    XLA's CPU compiler takes sines and cosines for cheap, and computes them anew for each head of each layer. It
    computes quotients once; this one's divisor is 1 wherever `x` is a number.

    Example:
        >>> computed_once(ops.array([0.5, -2.0])).numpy().tolist()
        [0.5, -2.0]
    """
    return x / ops.cast(ops.equal(x, x), x.dtype)
