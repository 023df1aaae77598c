"""From an array on a mapped file to the memory of a variable: transposed and converted on the way, copied once.

Checkpoints of this field keep a dense kernel as (out, in), Keras as (in, out), so nearly every byte of a model is
transposed while it loads. A plain `np.ascontiguousarray(x.T)` walks memory so badly that this takes ten times as long
as reading the file. Here tiles are packed into a small buffer first, converted on the way, and transposed from there,
on all cores at once (NumPy lets other threads run while it copies). The buffer's rows are padded: with a power of two
from row to row, the elements of a column would fall into the same few cache lines."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from tfmodels.checkpoints.files import DTYPES
from tfmodels.utils.cores import available_cores
from tfmodels.utils.text import quote

if TYPE_CHECKING:
    import tensorflow as tf

# TensorFlow aborts the process on a tensor that does not start at a multiple of this.
_ALIGNMENT = 64
_TILE_ROWS, _TILE_COLUMNS = 256, 512  # a tile of 4-byte elements takes 0.5 MB, within one core's second-level cache
_MAX_THREADS = 8
_WORTH_THREADS = 1 << 18  # elements; below this, starting threads takes longer than the copy


def to_array(array: np.ndarray, *, dtype: str, transpose: bool = False) -> np.ndarray:
    """Copy an array into fresh memory, converted and transposed.

    Args:
        array: any array, such as `Checkpoint.read` returns; it need not be contiguous or aligned.
        dtype: element type of the result, a key of `checkpoints.DTYPES`. Narrower floats round to nearest, ties to
        even.
        transpose: swap the axes of a matrix: (out, in) -> (in, out).

    Returns:
        A contiguous, writable array of its own, aligned to 64 bytes.

    Raises:
        ValueError: an unknown dtype, or `transpose` for an array that is no matrix.

    >>> to_array(np.array([[1, 2, 3], [4, 5, 6]], "float16"), dtype="float32", transpose=True)
    array([[1., 4.],
           [2., 5.],
           [3., 6.]], dtype=float32)
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {quote(dtype)}; one of {', '.join(DTYPES)} was expected.")
    if transpose and array.ndim != 2:
        raise ValueError(f"transpose is True for an array of shape {array.shape}; only a matrix can be transposed.")
    result = _aligned(array.shape[::-1] if transpose else array.shape, DTYPES[dtype])
    if array.dtype == result.dtype:
        # As plain integers: copying them needs no arithmetic on types that are not NumPy's own.
        bits = np.dtype(f"u{result.itemsize}")
        source, target = array.view(bits), result.view(bits)
    else:
        source, target = array, result

    def fill(start: int, stop: int) -> None:
        if transpose:
            _transpose_rows(source, target, start, stop)
        else:
            _copy(target[start:stop], source[start:stop])

    if array.ndim == 0:
        _copy(target, source)
    else:
        _in_threads(fill, len(source), source.size)
    return result


def to_tensor(array: np.ndarray, *, dtype: str, transpose: bool = False) -> tf.Tensor:
    """Copy an array into a TensorFlow tensor, converted and transposed.

    The elements are copied once: the tensor takes over the memory that `to_array` filled, and a variable initialised
    with the tensor takes it over in turn. (`tf.constant` copies twice and keeps the second copy until its next call.)
    Only conversions from or to float16 make one copy more.

    Args:
        array: any array, such as `Checkpoint.read` returns.
        dtype: element type of the tensor, a key of `checkpoints.DTYPES` other than float8.
        transpose: swap the axes of a matrix: (out, in) -> (in, out).

    Returns:
        A tensor in the memory of the host.

    Raises:
        ValueError: an unknown dtype, or `transpose` for an array that is no matrix.

    >>> tensor = to_tensor(np.array([[1, 2, 3], [4, 5, 6]], "float32"), dtype="bfloat16", transpose=True)
    >>> tensor.shape, tensor.dtype.name
    (TensorShape([3, 2]), 'bfloat16')
    """
    import tensorflow as tf

    if dtype.startswith("float8"):
        raise ValueError(f"dtype is {quote(dtype)}, which a tensor cannot be made of; convert it, as to 'bfloat16'.")
    if array.dtype.name != dtype and "float16" in (array.dtype.name, dtype) and dtype in DTYPES:
        # NumPy converts half precision number by number; TensorFlow is twice as fast, a copy more included.
        return tf.cast(to_tensor(array, dtype=array.dtype.name, transpose=transpose), dtype)
    result = to_array(array, dtype=dtype, transpose=transpose)
    if result.dtype.isbuiltin != 1:  # DLPack knows no ml_dtypes; TensorFlow reinterprets 16-bit integers for free
        return tf.bitcast(_adopt(result.view(np.uint16)), dtype)
    return _adopt(result)


def _adopt(array: np.ndarray) -> tf.Tensor:
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Fresh memory from NumPy, which asks the system for huge pages.

    Decoding streams all weights for every token, and does so faster from huge pages. The first write to them is
    cheaper too, except on virtual machines that have returned their free memory to the host.
    """
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    return np.ndarray(shape, dtype, memory, -memory.ctypes.data % _ALIGNMENT)


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    # Set here, as it holds for one thread. NaNs are no fault of the copy; an overflow to infinity still warns.
    with np.errstate(invalid="ignore"):
        np.copyto(target, source, casting="unsafe")


def _transpose_rows(source: np.ndarray, target: np.ndarray, start: int, stop: int) -> None:
    """Write rows [start, stop) of `source` into the same columns of `target`."""
    padding = _ALIGNMENT // target.itemsize
    buffer = np.empty((_TILE_ROWS, _TILE_COLUMNS + padding), target.dtype)
    for row in range(start, stop, _TILE_ROWS):
        for column in range(0, source.shape[1], _TILE_COLUMNS):
            rows, columns = slice(row, min(row + _TILE_ROWS, stop)), slice(column, column + _TILE_COLUMNS)
            tile = source[rows, columns]
            packed = buffer[: tile.shape[0], : tile.shape[1]]
            _copy(packed, tile)
            target[columns, rows] = packed.T


def _in_threads(fill: Callable[[int, int], None], rows: int, elements: int) -> None:
    threads = min(_thread_count(), rows)
    if threads < 2 or elements < _WORTH_THREADS:
        fill(0, rows)
        return
    # Whole tiles for each thread, where there are enough of them.
    share = -(-rows // threads)
    share = -(-share // _TILE_ROWS) * _TILE_ROWS if rows > threads * _TILE_ROWS else share
    starts = range(0, rows, share)
    list(_threads().map(lambda start: fill(start, min(start + share, rows)), starts))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_thread_count(), thread_name_prefix="tfmodels-transfer")


# A forked process inherits the pool's object but none of its threads, and would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)


def _thread_count() -> int:
    return min(available_cores(), _MAX_THREADS)
