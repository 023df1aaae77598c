"""Products of few rows with matrices, in Triton; `triton_decoding` says what goes in and comes out.

A kernel reads every weight once: one that is cut along its sum as well keeps all of a GPU's processors reading. Every
argument in capitals is known at compile time. All tensors are contiguous. This module needs Triton and is imported by
`triton_compiler` alone.

Source:
    Tillet et al., https://doi.org/10.1145/3315508.3329973;
    Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26 (the error function).
"""

import triton
import triton.language as tl


@triton.jit
def _erf(x):
    size = tl.abs(x)
    t = 1.0 / (1.0 + 0.3275911 * size)
    terms = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    found = 1.0 - terms * tl.exp(-size * size)
    return tl.where(x < 0, -found, found)


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "silu":
        x = x / (1.0 + tl.exp(-x))
    elif ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + _erf(x * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        x = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    elif ACTIVATION == "relu":
        x = tl.maximum(x, 0.0)
    return x


@triton.jit
def _columns(
    x,
    matrix,
    bias,
    gated_matrix,
    gated_bias,
    out,
    block,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    FIRST: tl.constexpr,
    ALL: tl.constexpr,
    SHARE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """SHARE terms of BLOCK_OUT columns of a product, which are `out`'s columns from FIRST on."""
    columns = block * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    inside = columns < OUT
    part = tl.program_id(1)
    rows = tl.arange(0, BLOCK_ROWS)[:, None]
    present = rows < ROWS
    terms = tl.arange(0, BLOCK_IN)
    total = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
    gated = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
    for start in range(0, SHARE, BLOCK_IN):
        at = part * SHARE + start + terms
        known = at < IN
        inputs = tl.load(x + rows * IN + at[None, :], mask=present & known[None, :], other=0.0)
        place = at[:, None].to(tl.int64) * OUT + columns[None, :]
        reads = known[:, None] & inside[None, :]
        weights = tl.load(matrix + place, mask=reads, other=0.0, eviction_policy="evict_first")
        total = tl.dot(inputs, weights, total)
        if GATED:
            weights = tl.load(gated_matrix + place, mask=reads, other=0.0, eviction_policy="evict_first")
            gated = tl.dot(inputs, weights, gated)
    if HAS_BIAS:
        adds = inside & (part == 0)
        total += tl.load(bias + columns, mask=adds, other=0.0).to(tl.float32)[None, :]
        if GATED:
            gated += tl.load(gated_bias + columns, mask=adds, other=0.0).to(tl.float32)[None, :]
    total = activated(total, ACTIVATION)
    if GATED:
        total *= gated
    place = (part * ROWS + rows) * ALL + FIRST + columns[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=present & inside[None, :])


@triton.jit
def product(
    x,
    matrix_1,
    matrix_2,
    matrix_3,
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
    HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """x (ROWS, IN) times up to three matrices (IN, OUT_n), side by side: (parts, ROWS, OUT_1 + OUT_2 + OUT_3).

    A program sums SHARE terms, which are its part, for BLOCK_OUT columns; the first part has the bias. Matrices are of
    the dtype of x; those that are not there have OUT_n = 0. An ACTIVATION is for one part; with GATED it is that of
    the first product and the result, (1, ROWS, OUT_1), is its product with the second.
    """
    BLOCKS_1: tl.constexpr = (OUT_1 + BLOCK_OUT - 1) // BLOCK_OUT
    BLOCKS_2: tl.constexpr = (OUT_2 + BLOCK_OUT - 1) // BLOCK_OUT
    TWO: tl.constexpr = OUT_1 + OUT_2
    ALL: tl.constexpr = OUT_1 if GATED else TWO + OUT_3
    block = tl.program_id(0)
    # fmt: off
    if OUT_2 == 0 or GATED:
        _columns(x, matrix_1, bias_1, matrix_2, bias_2, out, block, ROWS, IN, OUT_1, 0, ALL, SHARE, HAS_BIAS, ACTIVATION, GATED, BLOCK_ROWS, BLOCK_IN, BLOCK_OUT)  # noqa: E501
    elif block < BLOCKS_1:
        _columns(x, matrix_1, bias_1, matrix_1, bias_1, out, block, ROWS, IN, OUT_1, 0, ALL, SHARE, HAS_BIAS, ACTIVATION, False, BLOCK_ROWS, BLOCK_IN, BLOCK_OUT)  # noqa: E501
    elif OUT_3 == 0:  # noqa: SIM114
        _columns(x, matrix_2, bias_2, matrix_2, bias_2, out, block - BLOCKS_1, ROWS, IN, OUT_2, OUT_1, ALL, SHARE, HAS_BIAS, ACTIVATION, False, BLOCK_ROWS, BLOCK_IN, BLOCK_OUT)  # noqa: E501
    elif block < BLOCKS_1 + BLOCKS_2:
        _columns(x, matrix_2, bias_2, matrix_2, bias_2, out, block - BLOCKS_1, ROWS, IN, OUT_2, OUT_1, ALL, SHARE, HAS_BIAS, ACTIVATION, False, BLOCK_ROWS, BLOCK_IN, BLOCK_OUT)  # noqa: E501
    else:
        _columns(x, matrix_3, bias_3, matrix_3, bias_3, out, block - BLOCKS_1 - BLOCKS_2, ROWS, IN, OUT_3, TWO, ALL, SHARE, HAS_BIAS, ACTIVATION, False, BLOCK_ROWS, BLOCK_IN, BLOCK_OUT)  # noqa: E501
    # fmt: on


@triton.jit
def table_product(
    x,
    table,
    out,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """x (ROWS, IN) @ transposed table (OUT, IN), BLOCK_OUT rows of the table in a program: (ROWS, OUT).

    The table may be int8, which is not scaled here. A row by itself (BLOCK_ROWS 1) is multiplied without tensor cores.
    """
    columns = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    inside = columns < OUT
    rows = tl.arange(0, BLOCK_ROWS)
    present = rows < ROWS
    products = tl.zeros((BLOCK_OUT, BLOCK_IN), tl.float32)
    sums = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
    for start in range(0, IN, BLOCK_IN):
        at = start + tl.arange(0, BLOCK_IN)
        known = at < IN
        weights = tl.load(
            table + columns[:, None].to(tl.int64) * IN + at[None, :],
            mask=inside[:, None] & known[None, :],
            other=0,
            eviction_policy="evict_first",
        )
        if BLOCK_ROWS == 1:
            factors = tl.load(x + at, mask=known, other=0.0).to(tl.float32)
            products += weights.to(tl.float32) * factors[None, :]
        else:
            several = tl.load(x + rows[:, None] * IN + at[None, :], mask=present[:, None] & known[None, :], other=0.0)
            sums = tl.dot(several, tl.trans(weights.to(several.dtype)), sums)
    if BLOCK_ROWS == 1:
        tl.store(out + columns, tl.sum(products, axis=1).to(out.dtype.element_ty), mask=inside)
    else:
        place = rows[:, None] * OUT + columns[None, :]
        tl.store(out + place, sums.to(out.dtype.element_ty), mask=present[:, None] & inside[None, :])
