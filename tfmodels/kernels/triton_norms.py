"""The Triton kernel of residual additions and the norms after them; `added_norms` says what goes in.

While decoding, a launch takes as long as what it computes here. So one kernel adds the parts of products, adds that to
the hidden states, and normalises the sum. Every argument in capitals is known at compile time. All tensors are
contiguous. This module needs Triton and is imported by `triton_compiler` alone.

Source:
    Zhang and Sennrich, https://arxiv.org/abs/1910.07467; Ba et al., https://arxiv.org/abs/1607.06450.
"""

import triton
import triton.language as tl


@triton.jit
def _with_parts(total, parts, place, present, ROWS: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """`total`, of 16 bits, and the sum of PARTS numbers at `place`, ROWS * WIDTH apart, rounded as `total` is."""
    if PARTS == 0:
        return total
    else:
        added = tl.load(parts + place, mask=present, other=0.0).to(tl.float32)
        for part in tl.static_range(1, PARTS):
            added += tl.load(parts + part * ROWS * WIDTH + place, mask=present, other=0.0).to(tl.float32)
        return total + added.to(total.dtype)


@triton.jit
def added_norms(
    hidden,
    parts_1,
    parts_2,
    weight_1,
    weight_2,
    bias_1,
    bias_2,
    total,
    normed_1,
    normed_2,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS_1: tl.constexpr,
    PARTS_2: tl.constexpr,
    CENTERED: tl.constexpr,
    EPSILON: tl.constexpr,
    OFFSET: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    NORMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row of `hidden` (ROWS, WIDTH) and of parts (PARTS_n, ROWS, WIDTH): their sum, and NORMS norms of it.

    CENTERED takes the mean away first, as layer normalisation does. OFFSET is added to the weights.
    """
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    present = columns < WIDTH
    place = row * WIDTH + columns
    # All is asked for at once, before anything is computed.
    found = tl.load(hidden + place, mask=present, other=0.0)
    factor_1 = tl.load(weight_1 + columns, mask=present, other=0.0)
    factor_2 = tl.load(weight_2 + columns, mask=present & (NORMS == 2), other=0.0)
    term_1 = tl.load(bias_1 + columns, mask=present & HAS_BIAS, other=0.0)
    term_2 = tl.load(bias_2 + columns, mask=present & HAS_BIAS & (NORMS == 2), other=0.0)
    found = _with_parts(found, parts_1, place, present, ROWS, WIDTH, PARTS_1)
    found = _with_parts(found, parts_2, place, present, ROWS, WIDTH, PARTS_2)
    tl.store(total + place, found, mask=present)
    x = found.to(tl.float32)
    if CENTERED:
        x = tl.where(present, x - tl.sum(x, axis=0) / WIDTH, 0.0)
    x = x * tl.rsqrt(tl.sum(x * x, axis=0) / WIDTH + EPSILON)
    normed = x * (factor_1.to(tl.float32) + OFFSET) + term_1.to(tl.float32)
    tl.store(normed_1 + place, normed.to(found.dtype), mask=present)
    if NORMS == 2:
        normed = x * (factor_2.to(tl.float32) + OFFSET) + term_2.to(tl.float32)
        tl.store(normed_2 + place, normed.to(found.dtype), mask=present)
