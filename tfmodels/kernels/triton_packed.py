"""Products of few rows with packed matrices, in Triton; `triton_decoding` says what goes in and comes out.

A kernel unpacks weights in registers, as the first operand of a product: (columns, terms) times (terms, rows). There a
Hopper GPU's tensor cores take them from registers and the inputs from shared memory. Bytes are read in pairs, as the
16-bit words that these units exchange, so a program sums even and odd columns apart. Every argument in capitals is
known at compile time. All tensors are contiguous. No loop carries loaded numbers into its next turn: TensorFlow 2.21's
XLA does not end compiling one that does. This module needs Triton and is imported by `triton_compiler` alone.

Source:
    Kim et al., https://doi.org/10.48550/arXiv.2211.10017 (integers as the last bits of floats).
"""

import triton
import triton.language as tl

# Words of two rows are unpacked at once, in instructions for two numbers. A number n from 0 to 15 that is put into the
# last bits of a power of two is 128 + n in bfloat16 and 1024 + n in float16; 128 + 8 or 1024 + 8 is then taken away.
_FOUR_BITS = """{
    .reg .b32 moved, one, bias;
    mov.b32 one, %(one)s;
    mov.b32 bias, %(bias)s;
    lop3.b32 $0, $4, 0x000F000F, %(power)s, 0xEA;
    shr.u32 moved, $4, 4;
    lop3.b32 $1, moved, 0x000F000F, %(power)s, 0xEA;
    shr.u32 moved, $4, 8;
    lop3.b32 $2, moved, 0x000F000F, %(power)s, 0xEA;
    shr.u32 moved, $4, 12;
    lop3.b32 $3, moved, 0x000F000F, %(power)s, 0xEA;
    fma.rn.%(type)s $0, $0, one, bias;
    fma.rn.%(type)s $1, $1, one, bias;
    fma.rn.%(type)s $2, $2, one, bias;
    fma.rn.%(type)s $3, $3, one, bias;
}"""
_FOUR_BITS_BFLOAT16 = tl.constexpr(
    _FOUR_BITS % {"type": "bf16x2", "one": "0x3F803F80", "power": "0x43004300", "bias": "0xC308C308"}
)
_FOUR_BITS_FLOAT16 = tl.constexpr(
    _FOUR_BITS % {"type": "f16x2", "one": "0x3C003C00", "power": "0x64006400", "bias": "0xE408E408"}
)
# Eight bits, less their sign, fit into the last bits of float16; those of bfloat16 hold seven, so that the number is
# made of its halves: 16 * (128 + high) - 2304 + (128 + low) is what the byte is with its sign.
_EIGHT_BITS_FLOAT16 = tl.constexpr("""{
    .reg .b32 biased, one, bias;
    mov.b32 one, 0x3C003C00;
    mov.b32 bias, 0xE480E480;
    xor.b32 biased, $2, 0x80808080;
    lop3.b32 $0, biased, 0x00FF00FF, 0x64006400, 0xEA;
    shr.u32 biased, biased, 8;
    lop3.b32 $1, biased, 0x00FF00FF, 0x64006400, 0xEA;
    fma.rn.f16x2 $0, $0, one, bias;
    fma.rn.f16x2 $1, $1, one, bias;
}""")
_EIGHT_BITS_BFLOAT16 = tl.constexpr("""{
    .reg .b32 biased, low, high, one, sixteen, bias;
    mov.b32 one, 0x3F803F80;
    mov.b32 sixteen, 0x41804180;
    mov.b32 bias, 0xC510C510;
    xor.b32 biased, $2, 0x80808080;
    lop3.b32 low, biased, 0x000F000F, 0x43004300, 0xEA;
    shr.u32 biased, biased, 4;
    lop3.b32 high, biased, 0x000F000F, 0x43004300, 0xEA;
    fma.rn.bf16x2 high, high, sixteen, bias;
    fma.rn.bf16x2 $0, low, one, high;
    shr.u32 biased, biased, 4;
    lop3.b32 low, biased, 0x000F000F, 0x43004300, 0xEA;
    shr.u32 biased, biased, 4;
    lop3.b32 high, biased, 0x000F000F, 0x43004300, 0xEA;
    fma.rn.bf16x2 high, high, sixteen, bias;
    fma.rn.bf16x2 $1, low, one, high;
}""")


@triton.jit
def _four_bits(words, like, ASM: tl.constexpr):
    """The four numbers of each word, less 8, in the dtype of `like`: low and high of its first byte, of its second."""
    if ASM:
        if like.dtype == tl.bfloat16:
            kinds: tl.constexpr = (tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16)
            return tl.inline_asm_elementwise(_FOUR_BITS_BFLOAT16, "=r,=r,=r,=r,r", [words], kinds, True, 2)
        else:
            return tl.inline_asm_elementwise(_FOUR_BITS_FLOAT16, "=r,=r,=r,=r,r", [words], (tl.float16,) * 4, True, 2)
    else:
        wide = words.to(tl.int32)
        return (
            ((wide & 15) - 8).to(like.dtype),
            (((wide >> 4) & 15) - 8).to(like.dtype),
            (((wide >> 8) & 15) - 8).to(like.dtype),
            (((wide >> 12) & 15) - 8).to(like.dtype),
        )


@triton.jit
def _eight_bits(words, like, ASM: tl.constexpr):
    """The two numbers of each word, with their signs, in the dtype of `like`."""
    if ASM:
        if like.dtype == tl.bfloat16:
            return tl.inline_asm_elementwise(_EIGHT_BITS_BFLOAT16, "=r,=r,r", [words], (tl.bfloat16,) * 2, True, 2)
        else:
            return tl.inline_asm_elementwise(_EIGHT_BITS_FLOAT16, "=r,=r,r", [words], (tl.float16,) * 2, True, 2)
    else:
        wide = words.to(tl.int32)
        return ((wide << 24) >> 24).to(like.dtype), (wide >> 8).to(like.dtype)


@triton.jit
def _scales_of(scales, first, pairs, inside, IN: tl.constexpr, OUT: tl.constexpr, GROUP: tl.constexpr):
    """Scales of the terms from `first` on, which share them, for even and for odd columns, (columns, 1) each."""
    place = scales + (first // GROUP) * OUT + 2 * pairs
    reads = inside & (first < IN)
    even = tl.load(place, mask=reads, other=0.0).to(tl.float32)
    return even[:, None], tl.load(place + 1, mask=reads, other=0.0).to(tl.float32)[:, None]


@triton.jit
def _with_offsets(found, scale, offsets, place, inside, inputs, BITS: tl.constexpr, OFFSETS: tl.constexpr):
    """Sums of one group of terms, scaled and with its offsets: `inputs` are the sums of the inputs, (1, rows)."""
    if OFFSETS == "zeros":
        found -= tl.load(offsets + place, mask=inside, other=0).to(tl.float32)[:, None] * inputs
    if OFFSETS == "minimums":
        found += (128.0 if BITS == 8 else 8.0) * inputs
    found *= scale
    if OFFSETS == "minimums":
        found += tl.load(offsets + place, mask=inside, other=0.0).to(tl.float32)[:, None] * inputs
    return found


@triton.jit
def _columns(
    x,
    matrix,
    scales,
    offsets,
    bias,
    out,
    block,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    FIRST: tl.constexpr,
    ALL: tl.constexpr,
    SHARE: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    OFFSETS: tl.constexpr,
    SCALED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    ASM: tl.constexpr,
):
    """SHARE terms of BLOCK_OUT columns of a product, which are `out`'s columns from FIRST on."""
    STEP: tl.constexpr = 8 // BITS  # rows of the matrix in a stored one
    EACH: tl.constexpr = GROUP if GROUP > 0 and GROUP < BLOCK_IN else BLOCK_IN  # terms of one scale
    GROUPS: tl.constexpr = BLOCK_IN // EACH
    pairs = block * (BLOCK_OUT // 2) + tl.arange(0, BLOCK_OUT // 2)
    inside = pairs < OUT // 2
    begin = tl.program_id(1) * SHARE
    rows = tl.program_id(2) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    present = rows < ROWS
    words = matrix.to(tl.pointer_type(tl.int16)) + pairs[:, None]
    even = tl.zeros((BLOCK_OUT // 2, BLOCK_ROWS), tl.float32)
    odd = tl.zeros((BLOCK_OUT // 2, BLOCK_ROWS), tl.float32)
    for start in range(0, SHARE, BLOCK_IN):
        for own in tl.static_range(0, GROUPS):
            first = begin + start + own * EACH
            even_scale, odd_scale = pairs, pairs
            if GROUP != 0:  # asked for before the terms are multiplied
                even_scale, odd_scale = _scales_of(scales, first, pairs, inside, IN, OUT, GROUP)
            at = first // STEP + tl.arange(0, EACH // STEP)
            known = at < (IN + STEP - 1) // STEP
            if BITS == 4:  # two inputs, those of the low and of the high half of a byte, are a word
                place = x.to(tl.pointer_type(tl.int32)) + rows * (IN // 2) + at[:, None]
                both = tl.load(place, mask=known[:, None] & present, other=0)
                one = both.to(tl.int16).to(x.dtype.element_ty, bitcast=True)
                two = (both >> 16).to(tl.int16).to(x.dtype.element_ty, bitcast=True)
            else:
                one = tl.load(x + rows * IN + at[:, None], mask=known[:, None] & present, other=0.0)
                two = one
            found = tl.load(
                words + at[None, :].to(tl.int64) * (OUT // 2),
                mask=inside[:, None] & known[None, :],
                other=0,
                eviction_policy="evict_first",
            )
            if BITS == 4:
                even_low, even_high, odd_low, odd_high = _four_bits(found, one, ASM)
                own_even = tl.dot(even_high, two, tl.dot(even_low, one))
                own_odd = tl.dot(odd_high, two, tl.dot(odd_low, one))
            else:
                evens, odds = _eight_bits(found, one, ASM)
                own_even, own_odd = tl.dot(evens, one), tl.dot(odds, one)
            if GROUP != 0:
                inputs = rows.to(tl.float32)
                if OFFSETS != "":
                    inputs = tl.sum(one.to(tl.float32), axis=0)[None, :]
                    if STEP == 2:
                        inputs += tl.sum(two.to(tl.float32), axis=0)[None, :]
                group = (first // GROUP) * OUT + 2 * pairs
                reads = inside & (first < IN)
                own_even = _with_offsets(own_even, even_scale, offsets, group, reads, inputs, BITS, OFFSETS)
                own_odd = _with_offsets(own_odd, odd_scale, offsets, group + 1, reads, inputs, BITS, OFFSETS)
            even += own_even
            odd += own_odd
    # A warp writes columns side by side: where it wrote rows, the stores took as long as all the rest.
    total = tl.interleave(tl.trans(even), tl.trans(odd))
    columns = block * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    known = columns < OUT
    part = tl.program_id(1)
    if SCALED and GROUP == 0:
        total *= tl.load(scales + columns, mask=known, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        total += tl.load(bias + columns, mask=known & (part == 0), other=0.0).to(tl.float32)[None, :]
    rows = tl.program_id(2) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    place = (part * ROWS + rows) * ALL + FIRST + columns[None, :]
    tl.store(out + place, total, mask=(rows < ROWS) & known[None, :])


@triton.jit
def packed_product(
    x,
    matrix_1,
    matrix_2,
    matrix_3,
    scales_1,
    scales_2,
    scales_3,
    offsets_1,
    offsets_2,
    offsets_3,
    bias_1,
    bias_2,
    bias_3,
    out,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT_1: tl.constexpr,
    OUT_2: tl.constexpr,
    OUT_3: tl.constexpr,
    SHARE: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    OFFSETS: tl.constexpr,
    SCALED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    ASM: tl.constexpr,
):
    """x (ROWS, IN) times up to three matrices (IN, OUT_n), side by side: (parts, ROWS, OUT_1 + OUT_2 + OUT_3).

    A program sums SHARE terms, which are its part, for BLOCK_OUT columns of BLOCK_ROWS rows; the first part has the
    bias. Matrices are int8, or of four bits: rows 2i in the low and 2i + 1 in the high halves of row i. Where SCALED
    they have a scale for each column, with GROUP one for so many terms of a column; GROUP divides BLOCK_IN or is a
    multiple of it. OFFSETS are "zeros", "minimums" or "", see `tfmodels.checkpoints.quantized.scheme`. Matrices that
    are not there have OUT_n = 0. ASM unpacks by PTX; without it the same is computed by Triton, whose interpreter
    knows no PTX.
    """
    BLOCKS_1: tl.constexpr = (OUT_1 + BLOCK_OUT - 1) // BLOCK_OUT
    BLOCKS_2: tl.constexpr = (OUT_2 + BLOCK_OUT - 1) // BLOCK_OUT
    TWO: tl.constexpr = OUT_1 + OUT_2
    ALL: tl.constexpr = TWO + OUT_3
    block = tl.program_id(0)
    # fmt: off
    if OUT_2 == 0 or block < BLOCKS_1:
        _columns(x, matrix_1, scales_1, offsets_1, bias_1, out, block, ROWS, IN, OUT_1, 0, ALL, SHARE, BITS, GROUP, OFFSETS, SCALED, HAS_BIAS, BLOCK_ROWS, BLOCK_IN, BLOCK_OUT, ASM)  # noqa: E501
    elif OUT_3 == 0 or block < BLOCKS_1 + BLOCKS_2:
        _columns(x, matrix_2, scales_2, offsets_2, bias_2, out, block - BLOCKS_1, ROWS, IN, OUT_2, OUT_1, ALL, SHARE, BITS, GROUP, OFFSETS, SCALED, HAS_BIAS, BLOCK_ROWS, BLOCK_IN, BLOCK_OUT, ASM)  # noqa: E501
    else:
        _columns(x, matrix_3, scales_3, offsets_3, bias_3, out, block - BLOCKS_1 - BLOCKS_2, ROWS, IN, OUT_3, TWO, ALL, SHARE, BITS, GROUP, OFFSETS, SCALED, HAS_BIAS, BLOCK_ROWS, BLOCK_IN, BLOCK_OUT, ASM)  # noqa: E501
    # fmt: on
