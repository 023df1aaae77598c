"""Arithmetic with packed weights, in the layout of `tfmodels.checkpoints.quantized.scheme`.

A product unpacks one matrix to floats, multiplies and drops them; its gradient unpacks once more, so that training
keeps no float weights either. In programs that XLA compiles for a CPU, the product of a few rows never writes the
floats: it is a sum over rows of integers, which are unpacked in registers (`few_rows`). That reads a quarter or an
eighth of the bytes, and decoding takes as long as reading takes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import backend, ops

from tfmodels.checkpoints.quantized.scheme import Scheme
from tfmodels.kernels.decoding import barrier
from tfmodels.kernels.gradients import with_gradient

Tensors = Mapping[str, Any]

# float8_e4m3fn has an exponent bias of 7, float32 of 127: the first's fields moved to the second's places are numbers
# too small by this factor. Subnormal ones are multiples of the other number: processors take float32's own for zero.
_FLOAT8_FACTOR, _FLOAT8_STEP = 2.0**120, 2.0**-9

# Inputs of a tile in `few_rows`: twice as many need more registers than there are, half as many make twice the sums.
_TILE = 16
# Tiles that XLA adds up in a loop of its own; with fewer it would multiply in that loop, number by number.
_TILES = 32
# Rows of x for which `few_rows` is faster: it reads the weights once for each.
_FEW = 4
# Outputs that several matrices are cut into for a loop that they share: shorter runs of columns make it slower.
_BLOCK = 128


def dequantize(parts: Tensors, scheme: Scheme, width: int, dtype: str = "float32") -> Any:
    """The matrix (width, out) of stored arrays, in the scheme's order of inputs and without its divisors.

    Args:
        parts: tensors named as in `Scheme.parts`.
        scheme: theirs.
        width: number of inputs.
        dtype: of the result; the arithmetic is float32.

    Example:
        >>> import numpy as np
        >>> from tfmodels.checkpoints.quantized.scheme import round_to_nearest
        >>> scheme = Scheme(bits=4, group_size=2)
        >>> parts = round_to_nearest(np.array([[7.0], [1.0], [-14.0]], "float32"), scheme)
        >>> np.asarray(dequantize(parts, scheme, 3))[:, 0].tolist()
        [7.0, 1.0, -14.0]
    """
    q = _unpack(ops.convert_to_tensor(parts["weights"]), scheme)
    rows, units = q.shape
    groups = scheme.groups(width)
    weights = ops.reshape(_scaled(ops.reshape(q, (groups, rows // groups, units)), parts, scheme), (rows, units))
    weights = ops.cast(weights, dtype)
    return weights if rows == width else weights[:width]


def _scaled(q: Any, parts: Tensors, scheme: Scheme) -> Any:
    """Numbers (groups, rows, out) with what their groups say: scales, zeros, minimums."""

    def part(name: str) -> Any:
        return ops.expand_dims(ops.cast(parts[name], "float32"), 1)

    if scheme.offsets == "zeros":
        q = q - part("zeros")
    elif scheme.offsets == "minimums":
        q = q + float(1 << (scheme.bits - 1))
    q = q * part("scales")
    return q + part("minimums") if scheme.offsets == "minimums" else q


def _unpack(weights: Any, scheme: Scheme) -> Any:
    """Stored integers as float32, in rows: values of q, or of float8 numbers."""
    if scheme.values == "float8":
        return _from_float8(weights)
    if scheme.bits == 8:
        return ops.cast(weights, "float32")
    halves = [ops.bitwise_and(weights, 15), ops.right_shift(weights, 4)]
    both = ops.stack([ops.cast(half, "float32") for half in halves], axis=1)
    return ops.reshape(both, (2 * weights.shape[0], weights.shape[1])) - 8.0


def _from_float8(bits: Any) -> Any:
    bits = ops.cast(bits, "int32")
    fields = ops.bitwise_and(bits, 127)
    normal = _as_float(ops.left_shift(fields, 20)) * _FLOAT8_FACTOR
    magnitude = ops.where(ops.less(fields, 8), ops.cast(fields, "float32") * _FLOAT8_STEP, normal)
    return ops.where(ops.greater(bits, 127), -magnitude, magnitude)


def _as_float(bits: Any) -> Any:
    """The float32 numbers whose bits these int32 numbers are."""
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.bitcast(bits, tf.float32)
    import jax

    return jax.lax.bitcast_convert_type(bits, "float32")


def ordered(x: Any, parts: Tensors, scheme: Scheme) -> Any:
    """Inputs (..., width) as the stored matrix takes them: divided, and in its order."""
    if scheme.divided:
        x = x / ops.cast(parts["divisors"], x.dtype)
    return ops.take(x, parts["order"], axis=-1) if scheme.ordered else x


def product(x: Any, parts: Tensors, scheme: Scheme) -> Any:
    """x (..., width) times a packed matrix (width, out), in the dtype of x.

    Nothing but x gets a gradient.

    Example:
        >>> import numpy as np
        >>> from tfmodels.checkpoints.quantized.scheme import round_to_nearest
        >>> parts = round_to_nearest(np.array([[127.0], [-3.0]], "float32"), Scheme(bits=8))
        >>> product(np.array([[2.0, 1.0]], "float32"), parts, Scheme(bits=8)).numpy().tolist()
        [[251.0]]
    """
    parts = {name: ops.convert_to_tensor(part) for name, part in parts.items()}
    x = ordered(x, parts, scheme)
    width, dtype = x.shape[-1], backend.standardize_dtype(x.dtype)

    def unpacked(first: Any) -> Any:
        return dequantize({**parts, "weights": _once_known(first, parts["weights"])}, scheme, width, dtype)

    def multiply(x: Any) -> tuple[Any, Callable[..., Any]]:
        def gradient(upstream: Any) -> tuple[Any]:
            return (ops.matmul(upstream, ops.transpose(unpacked(upstream))),)

        return ops.matmul(x, unpacked(x)), gradient

    return with_gradient(multiply, ops.convert_to_tensor(x))


def _once_known(x: Any, integers: Any) -> Any:
    """The same integers, made to depend on x.

    Without that, XLA for a CPU unpacks the weights of all layers before the first product: it holds the floats of the
    whole model at once, and a product finds its own in no cache.
    """
    first = ops.cast(ops.sum(ops.reshape(x, (-1,))[:1]), "float32")
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.executing_eagerly():
            return integers
        bits = tf.bitcast(first, tf.int32)
    else:
        import jax

        bits = jax.lax.bitcast_convert_type(first, "int32")
    zero = ops.equal(ops.bitwise_or(bits, 1), 0)  # always false, which XLA does not find out
    return ops.bitwise_xor(integers, ops.cast(zero, integers.dtype))


def serves_few_rows(x: Any, target: str | None) -> bool:
    """Whether `few_rows` is the faster form for x (..., width)."""
    if target != "cpu" or None in x.shape:
        return False
    return math.prod(x.shape[:-1]) <= _FEW


def few_rows(x: Any, matrices: Sequence[Tensors], scheme: Scheme) -> list[Any]:
    """`product` of a few rows with each of several matrices, in programs that XLA compiles for a CPU.

    The arithmetic is float32; there is no gradient.

    XLA makes two loops of a row: one multiplies and adds the rows of a tile, for all outputs next to each other, by
    vector instructions and on all cores; the other adds up the tiles. Matrices share both loops where their outputs
    are blocks of one size, so that the cores start and wait for each other once.

    Args:
        x: (..., width).
        matrices: the parts of each; of a scheme with an order or divisors only one.
        scheme: of all.

    Returns:
        (..., out) for each, in the dtype of x.
    """
    x = ordered(x, matrices[0], scheme)
    width, dtype = x.shape[-1], x.dtype
    # Tied to the inputs, or XLA would unpack the weights before the loop of decoding and keep the result.
    x, *tied = barrier(ops.cast(x, "float32"), *(part for parts in matrices for part in parts.values()))
    values = iter(tied)
    matrices = [{name: next(values) for name in parts} for parts in matrices]
    rows = ops.reshape(x, (-1, width))
    padding = scheme.padded(width) - width
    rows = ops.pad(rows, [(0, 0), (0, padding)]) if padding else rows
    outputs = [_one_row(rows[index], matrices, scheme, width) for index in range(rows.shape[0])]
    return [ops.cast(ops.reshape(ops.stack(each), (*x.shape[:-1], -1)), dtype) for each in zip(*outputs, strict=True)]


def _one_row(x: Any, matrices: Sequence[Tensors], scheme: Scheme, width: int) -> list[Any]:
    tiles = [_by_tile(x, parts, scheme, width) for parts in matrices]
    units = [each.shape[1] for each in tiles]
    block = math.gcd(*units)
    # A sum last, even of nothing: XLA leaves a loop that ends in one apart from the loop that adds up its results.
    if len(tiles) == 1 or block < _BLOCK:
        outputs = [ops.sum(each, axis=0) for each in tiles]
    else:
        blocks = [ops.reshape(each, (each.shape[0], -1, block)) for each in tiles]
        together = ops.reshape(ops.sum(ops.concatenate(blocks, axis=1), axis=0), (-1,))
        outputs = ops.split(together, list(itertools.accumulate(units))[:-1])
    if scheme.group_size is None and scheme.offsets is None:  # tiles are not scaled
        scales = [ops.cast(parts["scales"][0], "float32") for parts in matrices]
        outputs = [output * scale for output, scale in zip(outputs, scales, strict=True)]
    return outputs


def _by_tile(x: Any, parts: Tensors, scheme: Scheme, width: int) -> Any:
    """The share that each tile of inputs has in a product: (tiles, units)."""
    weights = parts["weights"]
    units, padded, groups = weights.shape[1], x.shape[0], scheme.groups(width)
    step = 8 // scheme.bits
    tile = math.gcd(padded // groups, _TILE)
    while padded // tile < _TILES and tile % (2 * step) == 0:
        tile //= 2
    tiles = padded // tile
    tiled = ops.reshape(weights, (tiles, tile // step, units))
    inputs = ops.reshape(x, (tiles, tile))

    def by_tile(name: str) -> Any:
        part = ops.cast(parts[name], "float32")
        if scheme.group_size is None:
            return part
        spread = ops.broadcast_to(ops.expand_dims(part, 1), (groups, tiles // groups, units))
        return ops.reshape(spread, (tiles, units))

    terms = [term for index in range(tile // step) for term in _terms(tiled[:, index], inputs, index, scheme)]
    # Two sums, of every other term: an addition waits for the one before it in its own sum alone.
    total = sum(terms[2::2], terms[0])
    if len(terms) > 1:
        total = total + sum(terms[3::2], terms[1])
    sums = ops.matmul(inputs, ops.ones((tile, 1)))  # a product is one loop, a sum two
    scales = by_tile("scales")
    bias = 8.0 if scheme.bits == 4 else 0.0
    if scheme.offsets == "minimums":
        lowest = float(1 << (scheme.bits - 1)) - bias
        minimums = by_tile("minimums")
        # Not for a lowest number of 0, which XLA would multiply with.
        minimums = minimums + lowest * scales if lowest else minimums
        return total * scales + minimums * sums
    if scheme.offsets == "zeros":
        return total * scales - (by_tile("zeros") + bias) * scales * sums
    if scheme.group_size is None:
        return total - bias * sums
    return total * scales - bias * scales * sums


def _terms(row: Any, inputs: Any, index: int, scheme: Scheme) -> list[Any]:
    """The terms that one stored row of each tile adds to the product; four-bit numbers count as q + 8.

    Args:
        row: (tiles, units), the one at `index` in each tile.
        inputs: (tiles, inputs of a tile).
    """
    if scheme.bits == 8:
        return [inputs[:, index : index + 1] * _unpack(row, scheme)]
    # A byte is low + 16 * high. Without a shift, a * low + b * high = (a - b / 16) * low + b / 16 * byte.
    first, second = inputs[:, 2 * index : 2 * index + 1], inputs[:, 2 * index + 1 : 2 * index + 2] / 16.0
    low = ops.cast(ops.bitwise_and(row, 15), "float32")
    return [(first - second) * low, second * ops.cast(row, "float32")]


def columns(parts: Tensors, scheme: Scheme, width: int, ids: Any, dtype: str) -> Any:
    """Columns of a packed matrix (width, out), as rows: the lookup in a packed table of embeddings.

    Args:
        parts, scheme, width: as in `dequantize`; no order and no divisors.
        ids: integers of any shape, from 0 to out - 1.
        dtype: of the result.

    Returns:
        (..., width).

    Example:
        >>> import numpy as np
        >>> from tfmodels.checkpoints.quantized.scheme import round_to_nearest
        >>> parts = round_to_nearest(np.array([[7.0, 14.0], [1.0, -2.0]], "float32"), Scheme(bits=4))
        >>> columns(parts, Scheme(bits=4), 2, np.array([[1], [0]]), "float32").numpy().tolist()
        [[[14.0, -2.0]], [[7.0, 1.0]]]
    """
    flat = ops.reshape(ids, (-1,))
    chosen = {name: ops.take(part, flat, axis=1) for name, part in parts.items()}
    rows = ops.cast(_columns_of(chosen, scheme, width), dtype)
    return ops.reshape(rows, (*ops.shape(ids), width))


def _columns_of(parts: Tensors, scheme: Scheme, width: int) -> Any:
    q = _unpack(parts["weights"], scheme)
    rows, groups = q.shape[0], scheme.groups(width)
    q = ops.reshape(q, (groups, rows // groups, -1))
    return ops.transpose(ops.reshape(_scaled(q, parts, scheme), (rows, -1))[:width])
