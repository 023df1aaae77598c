"""Products and attention of one or a few tokens as Triton kernels, for programs under XLA on a GPU.

While decoding, each kernel reads so little that a GPU is busy only if all of its processors read at the same time:
a product is cut along its sum as well, into parts that are added where they are read, and attention along its keys.
Keys that the mask hides are not read. A kernel takes what stands around it along, where that costs no second reading:
biases and activations, rotary positions and the write to the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import backend, ops

from tfmodels.kernels import triton_call
from tfmodels.runtime.buckets import power_of_two
from tfmodels.utils.text import quote

DTYPES = ("float16", "bfloat16")
MAX_ROWS = 128
MAX_MATRICES = 3
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
_MULTIPLE = 8  # elements that are read at a time
_PROGRAMS, _MOST_PARTS = 128, 8  # enough to keep a GPU's processors busy
# Where they unpack numbers besides: parts of so many terms at least, and the columns, terms and rows of a program.
_LEAST_PART, _PACKED_BLOCK, _PACKED_ROWS = 256, 128, 64
_SHARED_BYTES = 165 * 2**10  # of a processor's memory, for what its programs have under way
_CHUNK_NUMBERS = 4096  # of the keys that a program sees at a time
_NUMBERS_OF_A_WARP = 4096  # where the parts of attention are added up
_ATTENTION_PROGRAMS, _PROGRAMS_OF_ONE_HEAD = 512, 768
_MANY_PROGRAMS_FROM = 256  # rows times key/value heads from which on there are twice as many programs
_MAX_GROUP = 16
_MAX_HEAD_DIM = 256


class Packed(NamedTuple):
    """A matrix of integers, in the layout of `tfmodels.checkpoints.quantized.scheme`.

    Fields:
        weights: int8 (in, out), or uint8 (in / 2, out) of four bits.
        scales: (groups, out).
        offsets: int8 zeros or float minimums, (groups, out), or None.
        bits: 8 or 4.
        group: inputs that share a scale, 0 for all.
        kind: of the offsets: "zeros", "minimums" or "".
    """

    weights: Any
    scales: Any
    offsets: Any
    bits: int
    group: int
    kind: str


def unavailable() -> str | None:
    """The reason for which the kernels cannot run in this process, or None.

    A small product and a small attention are tried: XLA's Triton need not know the IR of the installed one.
    """
    return triton_call.tried(_trial)


def _trial() -> str:
    import tensorflow as tf

    def compute(x: Any, matrix: Any, cache: Any) -> Any:
        heads = Heads(product(x, [matrix])[:, :, :16], 16, 0)
        slots, seen = tf.zeros([1], "int32"), tf.constant([[True] * 16])
        output, key, _ = attention((heads, heads, heads), cache, cache, slots, seen, heads=1, scale=1.0)
        return output, key

    x = tf.constant([[3.0] * 16], "float16")
    matrix = tf.constant([[0.5] * 16] * 16, "float16")
    cache = tf.zeros((1, 1, 16, 16), "float16")
    output, key = (x.numpy() for x in tf.function(compute, jit_compile=True, autograph=False)(x, matrix, cache))
    good = (output == 24.0).all() and (key[0, 0, 0] == 24.0).all() and not key[0, 0, 1:].any()
    return "" if good else "a Triton kernel gave wrong numbers"


def serves_product(rows: int | None, dtype: str, *matrices: Any) -> bool:
    """Whether `product` can compute x (rows, in) @ matrices (in, out), or `table_product` with a matrix (out, in).

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


def serves_packed(rows: int | None, dtype: str, width: int, *matrices: Packed) -> bool:
    """Whether `product` can compute x (rows, width) @ packed matrices."""
    first = matrices[0]
    alike = all((m.bits, m.group, m.kind) == (first.bits, first.group, first.kind) for m in matrices)
    return (
        alike
        and dtype in DTYPES
        and len(matrices) <= MAX_MATRICES
        and rows is not None
        and rows <= MAX_ROWS
        and width % _MULTIPLE == 0
        and all(matrix.weights.shape[1] % _MULTIPLE == 0 for matrix in matrices)
        and (not first.group or (first.group >= 32 and first.group & (first.group - 1) == 0))
    )


def product(
    x: Any,
    matrices: Sequence[Any],
    *,
    biases: Sequence[Any] | None = None,
    activation: str = "",
    gated: bool = False,
) -> Any:
    """A few rows times each of several matrices, summed in float32, by one kernel.

    Args:
        x: (rows, in), at most `MAX_ROWS` rows.
        matrices: up to `MAX_MATRICES`, (in, out), multiples of 8, all in the dtype of `x` or all int8, which are not
            scaled; or all `Packed`, alike.
        biases: (out,) for each, added; or None.
        activation: of the products with matrices in the dtype of `x`, one of `ACTIVATIONS`, or "" for none.
        gated: return the activation of the first of two products times the second.

    Returns:
        (parts, rows, out of all), whose sum over the parts is wanted: float32, or of the dtype of `x` where there
        is one part because of an activation or a gate.

    Raises:
        ValueError: an activation or a gate is asked for with packed matrices.
    """
    bits = _bits(matrices)
    if bits < 16:
        if activation or gated:
            raise ValueError(
                f"activation={quote(activation)}, gated={gated}: products of packed matrices have neither."
            )
        return _packed_product(x, matrices, biases, bits)
    rows, width = x.shape
    outs = [matrix.shape[1] for matrix in matrices]
    whole = bool(activation) or gated
    block_in, block_out = (128, 64) if rows <= 32 else (64, 64)
    if whole and outs[0] < _PROGRAMS * block_out:
        block_out //= 2
    block_rows = max(16, power_of_two(rows))
    columns, parts = _blocks(outs, block_out, gated), 1
    while not whole and columns * parts < _PROGRAMS and parts < _MOST_PARTS and width >= 2 * parts * block_in:
        parts *= 2
    stages = _SHARED_BYTES // (2 * block_in * (block_rows + block_out * (1 + gated)))
    stages = min(stages, 4 if gated or block_in == 128 or columns * parts > _PROGRAMS else 6)
    if not whole and rows <= 64 and _PROGRAMS < columns * parts < 2 * _PROGRAMS:
        # Some processors would have two programs and others one; of more and smaller ones all have about as many.
        block_in, block_out, stages = 64, 32, 5 if rows <= 32 else 3
        columns = _blocks(outs, block_out, gated)
    share = -(-width // (parts * block_in)) * block_in
    (result,) = _launch(
        "product",
        [x, *_filled(matrices), *_filled(biases or [x])],
        [((parts, rows, outs[0] if gated else sum(outs)), x.dtype if whole else "float32")],
        grid=(columns, parts),
        warps=4,
        stages=max(2, min(stages, share // block_in)),
        ROWS=rows,
        IN=width,
        **_widths(outs),
        SHARE=share,
        HAS_BIAS=biases is not None,
        ACTIVATION=activation,
        GATED=gated,
        BLOCK_ROWS=block_rows,
        BLOCK_IN=block_in,
        BLOCK_OUT=block_out,
    )
    return result


def _blocks(outs: Sequence[int], block_out: int, gated: bool) -> int:
    """Blocks of columns of matrices side by side; of two where one gates the other, each block has a part of both."""
    return sum(-(-out // block_out) for out in (outs[:1] if gated else outs))


def _bits(matrices: Sequence[Any]) -> int:
    first = matrices[0]
    if isinstance(first, Packed):
        return first.bits
    return 8 if backend.standardize_dtype(first.dtype) == "int8" else 16


def _filled(tensors: Sequence[Any]) -> list[Any]:
    """Up to `MAX_MATRICES` operands, and the first in the place of those that are not there: it is not read."""
    return [*tensors, *[tensors[0]] * (MAX_MATRICES - len(tensors))]


def _widths(outs: Sequence[int]) -> dict[str, int]:
    return {f"OUT_{index}": out for index, out in enumerate([*outs, *[0] * (MAX_MATRICES - len(outs))], start=1)}


def _packed_product(x: Any, matrices: Sequence[Any], biases: Sequence[Any] | None, bits: int) -> Any:
    """`product` for packed matrices, or for unscaled ones of int8."""
    rows, width = x.shape
    scaled = isinstance(matrices[0], Packed)
    if not scaled:
        matrices = [Packed(matrix, x, None, 8, 0, "") for matrix in matrices]
    first = matrices[0]
    outs = [matrix.weights.shape[1] for matrix in matrices]
    block_rows = min(max(8, power_of_two(rows)), _PACKED_ROWS)
    columns, parts = sum(-(-out // _PACKED_BLOCK) for out in outs), 1
    programs = 2 * _PROGRAMS if rows <= 16 else 3 * _PROGRAMS // 2  # parts of many rows take long to add up
    while columns * parts < programs and width >= 2 * parts * _LEAST_PART and parts < 2 * _MOST_PARTS:
        parts *= 2
    operands = [x, *_filled([matrix.weights for matrix in matrices]), *_filled([matrix.scales for matrix in matrices])]
    operands += _filled([x if matrix.offsets is None else matrix.offsets for matrix in matrices])
    (result,) = _launch(
        "packed_product",
        [*operands, *_filled(biases or [x])],
        [((parts, rows, sum(outs)), "float32")],
        grid=(columns, parts, -(-rows // block_rows)),
        warps=4,
        stages=3,
        ROWS=rows,
        IN=width,
        **_widths(outs),
        SHARE=-(-width // (parts * _PACKED_BLOCK)) * _PACKED_BLOCK,
        BITS=bits,
        GROUP=first.group,
        OFFSETS=first.kind,
        SCALED=scaled,
        HAS_BIAS=biases is not None,
        BLOCK_ROWS=block_rows,
        BLOCK_IN=_PACKED_BLOCK,
        BLOCK_OUT=_PACKED_BLOCK,
        ASM=True,
    )
    return result


def table_product(x: Any, table: Any, dtype: str = "float32") -> Any:
    """A few rows times every row of a table: (rows, in) and (out, in) to (rows, out), summed in float32.

    Args:
        x, table: as for `product`.
        dtype: of the result.
    """
    (rows, width), out = x.shape, table.shape[0]
    is_small = backend.standardize_dtype(table.dtype) == "int8"
    if rows == 1:
        block_rows, block_in, block_out, stages = 1, 512 if not is_small else 256, 32 if is_small else 16, 3
    elif rows <= 16:
        block_rows, (block_in, block_out), stages = 16, (256, 32) if is_small else (128, 64), 3
    else:
        block_rows, block_in, block_out, stages = power_of_two(rows), 128 if rows <= 32 else 64, 128, 3
    (result,) = _launch(
        "table_product",
        [x, table],
        [((rows, out), dtype)],
        grid=(-(-out // block_out),),
        warps=4 if rows <= 64 else 8,
        stages=stages,
        ROWS=rows,
        IN=width,
        OUT=out,
        BLOCK_ROWS=block_rows,
        BLOCK_IN=block_in,
        BLOCK_OUT=block_out,
    )
    return result


class Heads(NamedTuple):
    """Queries, keys or values where a product left them.

    Fields:
        parts: (parts, batch, width): numbers, or what they are a sum of.
        stride, first: number d of head h is at column first + h * stride + d.
    """

    parts: Any
    stride: int
    first: int


def serves_attention(heads: int, kv_heads: int, head_dim: int, cache: Any) -> bool:
    """Whether `attention` can serve one query per head over a cache (batch, key_value_heads, keys, head_dim)."""
    return (
        all(isinstance(size, int) for size in cache.shape)
        and backend.standardize_dtype(cache.dtype) in DTYPES
        and head_dim % _MULTIPLE == 0
        and head_dim <= _MAX_HEAD_DIM
        and heads % kv_heads == 0
        and heads // kv_heads <= _MAX_GROUP
    )


def attention(
    projected: tuple[Heads, Heads, Heads],
    key: Any,
    value: Any,
    slots: Any | None,
    allowed: Any,
    *,
    heads: int,
    scale: float,
    rotary: tuple[Any, Any] | None = None,
    bias: Any = None,
) -> tuple[Any, Any, Any]:
    """Attention of one query per head over a cache, into which the new keys and values are written in place.

    Args:
        projected: queries, keys and values of the new token.
        key, value: (batch, key_value_heads, keys, head_dim), so far.
        slots: int32 (batch or 1,), the place of the new token; None where the cache holds it already, of which
            nothing is returned then.
        allowed: bool (batch or 1, keys), False for keys that are not seen.
        heads: of queries, a multiple of key_value_heads.
        scale: factor on the scores.
        rotary: float32 cosine and sine of the new token's positions, (batch or 1, pairs), by which queries and keys
            are turned; or None.
        bias: float32 (batch or 1, heads, keys), added to the scaled scores, or None.

    Returns:
        (batch, heads * head_dim) in the dtype of `key`, zeros for a query that sees no key; and the cache with the new
        token, in the memory of the old one.
    """
    batch, kv_heads, keys, head_dim = key.shape
    parts = projected[0].parts
    pairs = 0 if rotary is None else rotary[0].shape[-1]
    writes = slots is not None
    slots = slots if writes else ops.full((1,), keys, "int32")
    cos, sin = (slots, slots) if rotary is None else rotary
    group, rows = heads // kv_heads, batch * kv_heads
    block_dim = power_of_two(max(head_dim, 16))
    chunk = max(16, _CHUNK_NUMBERS // block_dim)
    # One head of up to 128 numbers does without tensor cores; for more numbers XLA does not end compiling that.
    by_sums = group == 1 and block_dim <= 128
    programs = _PROGRAMS_OF_ONE_HEAD if by_sums else _ATTENTION_PROGRAMS
    programs = programs if rows < _MANY_PROGRAMS_FROM else 2 * _ATTENTION_PROGRAMS
    splits = max(1, min(programs // rows, 2 * -(-keys // chunk)))
    if keys <= splits * chunk // 2:
        chunk = max(16, chunk // 2)
    share = -(-keys // (splits * chunk)) * chunk
    splits = -(-keys // share)
    places: dict[str, int] = {}
    for name, own in zip(("QUERY", "KEY", "VALUE"), projected, strict=True):
        places |= {f"{name}_ROW": own.parts.shape[2], f"{name}_HEAD": own.stride, f"{name}_FIRST": own.first}
    new_key, new_value, partial, softmax = _launch(
        "attention",
        [
            *(own.parts for own in projected),
            *(cos, sin, slots, *_span(allowed), allowed),
            slots if bias is None else bias,  # without a bias nothing is read there
            *(key, value),
        ],
        [
            *((cache.shape if writes else (1,), cache.dtype) for cache in (key, value)),
            ((rows, splits, group, head_dim), "float32" if splits > 1 else key.dtype),
            ((rows, splits, group, 2), "float32"),
        ],
        in_place={10: 0, 11: 1} if writes else None,
        grid=(rows, splits),
        warps=2,
        # With tensor cores many small programs wait for memory better than fewer that load a chunk ahead.
        stages=2 if by_sums else 1,
        GROUP=group,
        KV_HEADS=kv_heads,
        KEYS=keys,
        HEAD_DIM=head_dim,
        **places,
        PARTS=parts.shape[0],
        PART=batch * parts.shape[2],
        PAIRS=pairs,
        ANGLES_STRIDE=pairs if pairs and cos.shape[0] > 1 else 0,
        SLOTS_STRIDE=1 if slots.shape[0] > 1 else 0,
        ALLOWED_STRIDE=keys if allowed.shape[0] > 1 else 0,
        HAS_BIAS=bias is not None,
        BIAS_STRIDE=heads * keys if bias is not None and bias.shape[0] > 1 else 0,
        SCALE=float(scale) or 1e-30,  # biases are divided by it
        SPLITS=splits,
        SHARE=share,
        CHUNK=chunk,
        BLOCK_HEADS=1 if by_sums else 8 if group <= 8 else 16,
        BLOCK_DIM=block_dim,
    )
    if splits == 1:
        return ops.reshape(partial, (batch, heads * head_dim)), new_key, new_value
    (output,) = _launch(
        "attention_total",
        [partial, softmax],
        [((batch, heads * head_dim), key.dtype)],
        grid=(rows * group,),
        warps=max(1, min(4, power_of_two(splits) * block_dim // _NUMBERS_OF_A_WARP)),
        GROUP=group,
        HEAD_DIM=head_dim,
        SPLITS=splits,
        BLOCK_SPLITS=power_of_two(splits),
        BLOCK_DIM=block_dim,
    )
    return output, new_key, new_value


def _span(allowed: Any) -> tuple[Any, Any]:
    """Of each row the first allowed key, and the one behind the last: int32 (batch or 1,); keys and 0 without any."""
    # Two results: XLA gives a stack of two reductions to one thread for each of its numbers.
    keys = allowed.shape[1]
    places = ops.arange(keys, dtype="int32")
    return ops.min(ops.where(allowed, places, keys), axis=1), ops.max(ops.where(allowed, places + 1, 0), axis=1)


def _launch(kernel: str, operands: list[Any], results: list[tuple[Any, Any]], **options: Any) -> list[Any]:
    import tensorflow as tf

    return triton_call.launch(kernel, operands, [tf.TensorSpec(shape, dtype) for shape, dtype in results], **options)
