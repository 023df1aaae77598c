"""The kernels that decoding runs on a GPU, in Triton; `triton_decoding` says what goes in and comes out.

Every argument in capitals is known at compile time. All tensors are contiguous. This module needs Triton and is
imported by `triton_compiler` alone.

Source:
    Tillet et al., https://doi.org/10.1145/3315508.3329973;
    Dao et al., Flash-Decoding, https://crfm.stanford.edu/2023/10/12/flashdecoding.html.
"""

import triton
import triton.language as tl


@triton.jit
def _share_of_product(
    x,
    matrix,
    out,
    block,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    FIRST: tl.constexpr,
    ALL: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """SHARE terms of BLOCK_OUT columns of x (ROWS, IN) @ matrix (IN, OUT), which are `out`'s columns from FIRST on."""
    columns = block * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    part = tl.program_id(1)
    terms = part * SHARE + tl.arange(0, BLOCK_IN)
    inside = columns < OUT
    # A row by itself is multiplied without tensor cores; but turning int8 into float32 for that would take longer than
    # reading it.
    BY_ROWS: tl.constexpr = ROWS > 1 or matrix.dtype.element_ty == tl.int8
    rows = tl.arange(0, 16)  # the fewest that tensor cores multiply
    present = rows < ROWS
    products = tl.zeros((BLOCK_IN, BLOCK_OUT), tl.float32)
    sums = tl.zeros((16, BLOCK_OUT), tl.float32)
    for start in range(0, SHARE, BLOCK_IN):
        at = terms + start
        known = at < IN
        weights = tl.load(
            matrix + at[:, None] * OUT + columns[None, :],
            mask=known[:, None] & inside[None, :],
            other=0,
            eviction_policy="evict_first",
        )
        if BY_ROWS:
            several = tl.load(x + rows[:, None] * IN + at[None, :], mask=present[:, None] & known[None, :], other=0.0)
            sums = tl.dot(several, weights.to(several.dtype), sums)
        else:
            factors = tl.load(x + at, mask=known, other=0.0).to(tl.float32)
            products += weights.to(tl.float32) * factors[:, None]
    if BY_ROWS:
        tl.store(
            out + (part * ROWS + rows[:, None]) * ALL + FIRST + columns[None, :],
            sums,
            mask=present[:, None] & inside[None, :],
        )
    else:
        tl.store(out + part * ALL + FIRST + columns, tl.sum(products, axis=0), mask=inside)


@triton.jit
def matrix_product(
    x,
    matrix_1,
    matrix_2,
    matrix_3,
    out,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT_1: tl.constexpr,
    OUT_2: tl.constexpr,
    OUT_3: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """x (ROWS, IN) @ up to three matrices (IN, OUT_n), side by side: (parts, ROWS, OUT_1 + OUT_2 + OUT_3).

    A program sums SHARE terms, which are its part, for BLOCK_OUT columns. Matrices may be int8, which are not scaled
    here. Those that are not there have OUT_n = 0.
    """
    BLOCKS_1: tl.constexpr = (OUT_1 + BLOCK_OUT - 1) // BLOCK_OUT
    BLOCKS_2: tl.constexpr = (OUT_2 + BLOCK_OUT - 1) // BLOCK_OUT
    TWO: tl.constexpr = OUT_1 + OUT_2
    ALL: tl.constexpr = TWO + OUT_3
    block = tl.program_id(0)
    if OUT_2 == 0:  # noqa: SIM114 - known at compile time, and the next is not
        _share_of_product(x, matrix_1, out, block, ROWS, IN, OUT_1, 0, ALL, SHARE, BLOCK_IN, BLOCK_OUT)
    elif block < BLOCKS_1:
        _share_of_product(x, matrix_1, out, block, ROWS, IN, OUT_1, 0, ALL, SHARE, BLOCK_IN, BLOCK_OUT)
    elif OUT_3 == 0:  # noqa: SIM114
        _share_of_product(x, matrix_2, out, block - BLOCKS_1, ROWS, IN, OUT_2, OUT_1, ALL, SHARE, BLOCK_IN, BLOCK_OUT)
    elif block < BLOCKS_1 + BLOCKS_2:
        _share_of_product(x, matrix_2, out, block - BLOCKS_1, ROWS, IN, OUT_2, OUT_1, ALL, SHARE, BLOCK_IN, BLOCK_OUT)
    else:
        rest = block - BLOCKS_1 - BLOCKS_2
        _share_of_product(x, matrix_3, out, rest, ROWS, IN, OUT_3, TWO, ALL, SHARE, BLOCK_IN, BLOCK_OUT)


@triton.jit
def table_product(
    x,
    table,
    out,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """x (ROWS, IN) @ transposed table (OUT, IN), BLOCK_OUT rows of the table in a program: (ROWS, OUT).

    The table may be int8, which is not scaled here.
    """
    columns = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    inside = columns < OUT
    rows = tl.arange(0, 16)  # the fewest that tensor cores multiply
    present = rows < ROWS
    products = tl.zeros((BLOCK_OUT, BLOCK_IN), tl.float32)
    sums = tl.zeros((16, BLOCK_OUT), tl.float32)
    for start in range(0, IN, BLOCK_IN):
        at = start + tl.arange(0, BLOCK_IN)
        known = at < IN
        weights = tl.load(
            table + columns[:, None].to(tl.int64) * IN + at[None, :],
            mask=inside[:, None] & known[None, :],
            other=0,
            eviction_policy="evict_first",
        )
        if ROWS == 1:
            factors = tl.load(x + at, mask=known, other=0.0).to(tl.float32)
            products += weights.to(tl.float32) * factors[None, :]
        else:
            several = tl.load(x + rows[:, None] * IN + at[None, :], mask=present[:, None] & known[None, :], other=0.0)
            sums = tl.dot(several, tl.trans(weights.to(several.dtype)), sums)
    if ROWS == 1:
        tl.store(out + columns, tl.sum(products, axis=1), mask=inside)
    else:
        tl.store(out + rows[:, None] * OUT + columns[None, :], sums, mask=present[:, None] & inside[None, :])


@triton.jit
def attention_chunks(
    query,
    key,
    value,
    allowed,
    bias,
    partial,
    softmax,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ALLOWED_STRIDE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BIAS_STRIDE: tl.constexpr,
    SCALE: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """GROUP queries (rows, GROUP, HEAD_DIM) over CHUNK of the keys (rows, KEYS, HEAD_DIM) that they share.

    What a program sums of the values, (rows, chunks, GROUP, HEAD_DIM), is not divided by the softmax's sum yet: that
    and the largest score are in (rows, chunks, GROUP, 2).
    """
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    batch = row // KV_HEADS
    numbers = tl.arange(0, BLOCK_DIM)
    present = numbers < HEAD_DIM
    keys = chunk * CHUNK + tl.arange(0, CHUNK)
    seen = tl.load(allowed + batch * ALLOWED_STRIDE + keys, mask=keys < KEYS, other=0) != 0
    at = (row.to(tl.int64) * KEYS + keys[:, None]) * HEAD_DIM + numbers[None, :]
    both = seen[:, None] & present[None, :]
    found = tl.load(key + at, mask=both, other=0.0)
    values = tl.load(value + at, mask=both, other=0.0)
    block = row * tl.num_programs(1) + chunk
    lowest = -1.0e30
    if GROUP == 1:
        asked = tl.load(query + row * HEAD_DIM + numbers, mask=present, other=0.0).to(tl.float32) * SCALE
        scores = tl.sum(found.to(tl.float32) * asked[None, :], axis=1)
        if HAS_BIAS:
            scores += tl.load(bias + batch * BIAS_STRIDE + (row % KV_HEADS) * KEYS + keys, mask=keys < KEYS, other=0.0)
        most = tl.max(tl.where(seen, scores, lowest), axis=0)
        weights = tl.where(seen, tl.exp(scores - most), 0.0)
        mean = tl.sum(values.to(tl.float32) * weights[:, None], axis=0)
        tl.store(partial + block * HEAD_DIM + numbers, mean, mask=present)
        tl.store(softmax + block * 2, most)
        tl.store(softmax + block * 2 + 1, tl.sum(weights, axis=0))
    else:
        heads = tl.arange(0, 16)  # the fewest that tensor cores multiply
        asks = heads < GROUP
        asked = tl.load(
            query + (row * GROUP + heads[:, None]) * HEAD_DIM + numbers[None, :],
            mask=asks[:, None] & present[None, :],
            other=0.0,
        )
        scores = tl.dot(asked, tl.trans(found)) * SCALE
        if HAS_BIAS:
            head = (row % KV_HEADS) * GROUP + heads
            scores += tl.load(
                bias + batch * BIAS_STRIDE + head[:, None] * KEYS + keys[None, :],
                mask=asks[:, None] & (keys < KEYS)[None, :],
                other=0.0,
            )
        most = tl.max(tl.where(seen[None, :], scores, lowest), axis=1)
        weights = tl.where(seen[None, :], tl.exp(scores - most[:, None]), 0.0)
        means = tl.dot(weights.to(values.dtype), values)
        tl.store(
            partial + (block * GROUP + heads[:, None]) * HEAD_DIM + numbers[None, :],
            means,
            mask=asks[:, None] & present[None, :],
        )
        tl.store(softmax + (block * GROUP + heads) * 2, most, mask=asks)
        tl.store(softmax + (block * GROUP + heads) * 2 + 1, tl.sum(weights, axis=1), mask=asks)


@triton.jit
def attention_total(
    partial,
    softmax,
    out,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Combine the results of `attention_chunks` for all chunks into (rows, GROUP, HEAD_DIM)."""
    head = tl.program_id(0)  # of all rows
    row = head // GROUP
    chunks = tl.arange(0, BLOCK_CHUNKS)
    numbers = tl.arange(0, BLOCK_DIM)
    block = (row * CHUNKS + chunks) * GROUP + head % GROUP
    known = chunks < CHUNKS
    present = numbers < HEAD_DIM
    means = tl.load(
        partial + block[:, None] * HEAD_DIM + numbers[None, :], mask=known[:, None] & present[None, :], other=0.0
    )
    most = tl.load(softmax + block * 2, mask=known, other=-1.0e30)
    sums = tl.load(softmax + block * 2 + 1, mask=known, other=0.0)
    kept = tl.exp(most - tl.max(most, axis=0))
    total = tl.sum(sums * kept, axis=0)
    mean = tl.sum(means * kept[:, None], axis=0) / tl.where(total > 0, total, 1.0)
    tl.store(out + head * HEAD_DIM + numbers, mean.to(out.dtype.element_ty), mask=present)
