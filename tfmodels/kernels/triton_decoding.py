"""Products and attention of one or a few tokens as Triton kernels, for programs under XLA on a GPU.

While decoding, each kernel reads so little that a GPU is busy only if all of its processors read at the same time: a
product is cut along its sum as well, into parts that XLA adds where it reads them, and attention along its keys. Keys
that the mask hides are not read.
"""

from __future__ import annotations

import functools
from typing import Any

from keras import backend, ops

from tfmodels.kernels import triton_call

DTYPES = ("float16", "bfloat16")
MAX_ROWS = 8
MAX_MATRICES = 3
_MULTIPLE = 8  # elements that are read at a time
_PROGRAMS = 256  # enough to keep a GPU's processors busy
_BLOCK = {2: (128, 64), 1: (128, 128)}  # by bytes of an element: terms and columns that a program reads at a time
_TABLE_BLOCK = {2: (256, 16), 1: (256, 32)}
_CHUNK = 128  # keys that a program sees
_MAX_GROUP = 16
_MAX_HEAD_DIM = 256


@functools.cache
def unavailable() -> str | None:
    """The reason for which the kernels cannot run in this process, or None.

    A small product is tried: XLA's Triton need not know the IR of the installed one.
    """
    if (reason := triton_call.missing()) is not None:
        return reason
    import tensorflow as tf

    with tf.init_scope():  # this may be asked while a program is traced
        x = tf.constant([[3.0] * 16], "float16")
        matrix = tf.constant([[0.5] * 16] * 16, "float16")
        try:
            result = tf.function(matvec, jit_compile=True, autograph=False)(x, matrix)[0].numpy()
        except Exception as error:  # Triton's and XLA's errors are of many classes
            return f"a Triton kernel could not be compiled: {type(error).__name__}: {str(error)[:300]}"
    return None if (result == 24.0).all() else "a Triton kernel gave wrong numbers"


def serves_matvec(rows: int | None, dtype: str, *matrices: Any) -> bool:
    """Whether `matvec` can compute x (rows, in) @ matrices (in, out), or `table_product` with a matrix (out, in).

    Args:
        rows, dtype: of x.
        matrices: tensors, of which shapes and dtypes are looked at.
    """
    dtypes = {backend.standardize_dtype(matrix.dtype) for matrix in matrices}
    return (
        dtype in DTYPES
        and dtypes in ({dtype}, {"int8"})
        and len(matrices) <= MAX_MATRICES
        and rows is not None
        and rows <= MAX_ROWS
        and all(size is not None and size % _MULTIPLE == 0 for matrix in matrices for size in matrix.shape)
    )


def matvec(x: Any, *matrices: Any) -> list[Any]:
    """A few rows times each of several matrices, summed in float32, by one kernel.

    Args:
        x: (rows, in), at most `MAX_ROWS` rows.
        matrices: up to `MAX_MATRICES`, (in, out), multiples of 8, all in the dtype of `x` or all int8.

    Returns:
        float32 (rows, out) for each.
    """
    rows, width = x.shape
    block_in, block_out = _BLOCK[_bytes(matrices[0])]
    outs = [matrix.shape[1] for matrix in matrices]
    columns = sum(-(-out // block_out) for out in outs)
    parts = 1
    while columns * parts < _PROGRAMS and width >= 2 * parts * block_in:
        parts *= 2
    missing = MAX_MATRICES - len(matrices)
    widths = {f"OUT_{index}": out for index, out in enumerate([*outs, *[0] * missing], start=1)}
    (result,) = _launch(
        "matrix_product",
        [x, *matrices, *matrices[:1] * missing],
        [((parts, rows, sum(outs)), "float32")],
        grid=(columns, parts),
        ROWS=rows,
        IN=width,
        **widths,
        SHARE=-(-width // (parts * block_in)) * block_in,
        BLOCK_IN=block_in,
        BLOCK_OUT=block_out,
    )
    result = ops.sum(result, axis=0) if parts > 1 else result[0]
    return [result[:, sum(outs[:index]) : sum(outs[: index + 1])] for index in range(len(outs))]


def table_product(x: Any, table: Any) -> Any:
    """A few rows times every row of a table: (rows, in) and (out, in) to float32 (rows, out).

    Args:
        x, table: as for `matvec`.
    """
    (rows, width), out = x.shape, table.shape[0]
    block_in, block_out = _TABLE_BLOCK[_bytes(table)]
    (result,) = _launch(
        "table_product",
        [x, table],
        [((rows, out), "float32")],
        grid=(-(-out // block_out),),
        ROWS=rows,
        IN=width,
        OUT=out,
        BLOCK_IN=block_in,
        BLOCK_OUT=block_out,
    )
    return result


def _bytes(matrix: Any) -> int:
    return 1 if backend.standardize_dtype(matrix.dtype) == "int8" else 2


def serves_attention(query: Any, key: Any) -> bool:
    """Whether `attention` can serve tensors of these shapes and of the dtype of `key`."""
    if not all(isinstance(size, int) for size in (*query.shape, *key.shape)) or query.shape[2] != 1:
        return False
    return (
        backend.standardize_dtype(key.dtype) in DTYPES
        and query.shape[3] % _MULTIPLE == 0
        and query.shape[3] <= _MAX_HEAD_DIM
        and query.shape[1] // key.shape[1] <= _MAX_GROUP
    )


def attention(query: Any, key: Any, value: Any, allowed: Any, *, scale: float, bias: Any = None) -> Any:
    """Attention of one query per head over a cache.

    Args:
        query: (batch, heads, 1, head_dim).
        key, value: (batch, key_value_heads, keys, head_dim) in the dtype of `query`; heads is a multiple.
        allowed: bool (batch or 1, keys), False for keys that are not seen.
        scale: factor on the scores.
        bias: float32 (batch or 1, heads, keys), added to the scaled scores, or None.

    Returns:
        (batch, heads, 1, head_dim) in the dtype of `query`; zeros for a query that sees no key.
    """
    batch, heads, _, head_dim = query.shape
    kv_heads, keys = key.shape[1:3]
    group, rows, chunks = heads // kv_heads, batch * kv_heads, -(-keys // _CHUNK)
    block_dim = _power_of_two(max(head_dim, 16))
    partial, softmax = _launch(
        "attention_chunks",
        [query, key, value, allowed, query if bias is None else bias],  # without a bias nothing is read there
        [((rows, chunks, group, head_dim), "float32"), ((rows, chunks, group, 2), "float32")],
        grid=(rows, chunks),
        GROUP=group,
        KV_HEADS=kv_heads,
        KEYS=keys,
        HEAD_DIM=head_dim,
        ALLOWED_STRIDE=keys if allowed.shape[0] > 1 else 0,
        HAS_BIAS=bias is not None,
        BIAS_STRIDE=heads * keys if bias is not None and bias.shape[0] > 1 else 0,
        SCALE=float(scale),
        CHUNK=_CHUNK,
        BLOCK_DIM=block_dim,
    )
    (output,) = _launch(
        "attention_total",
        [partial, softmax],
        [(query.shape, query.dtype)],
        grid=(rows * group,),
        GROUP=group,
        HEAD_DIM=head_dim,
        CHUNKS=chunks,
        BLOCK_CHUNKS=_power_of_two(chunks),
        BLOCK_DIM=block_dim,
    )
    return output


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _launch(kernel: str, operands: list[Any], results: list[tuple[Any, Any]], **options: Any) -> list[Any]:
    import tensorflow as tf

    return triton_call.launch(kernel, operands, [tf.TensorSpec(shape, dtype) for shape, dtype in results], **options)
