"""Attention of a token over a cache, in Triton: rotary positions and the write to the cache are a part of it.

`triton_decoding` says what goes in and comes out. Every argument in capitals is known at compile time. All tensors are
contiguous. This module needs Triton and is imported by `triton_compiler` alone.

TensorFlow 2.21's XLA does not end compiling some loops: those that carry loaded numbers into their next turn, and
those that add a loaded tile to the result of a `dot`. A tile that `dot` starts its sums with is fine.

Source:
    Dao et al., Flash-Decoding, https://crfm.stanford.edu/2023/10/12/flashdecoding.html.
"""

import triton
import triton.language as tl


@triton.jit
def _whole(heads, at, present, PARTS: tl.constexpr, PART: tl.constexpr):
    """Numbers at `at`, float32: the sum of those in PARTS parts, PART apart."""
    found = tl.load(heads + at, mask=present, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        found += tl.load(heads + part * PART + at, mask=present, other=0.0).to(tl.float32)
    return found


@triton.jit
def _turned(heads, at, present, cos, sin, numbers, PAIRS: tl.constexpr, PARTS: tl.constexpr, PART: tl.constexpr):
    """Numbers of heads at `at` + numbers, float32, of which pairs (i, i + PAIRS) are turned by an angle each."""
    found = _whole(heads, at + numbers, present, PARTS, PART)
    if PAIRS > 0:
        is_first = numbers < PAIRS
        partner = tl.where(is_first, numbers + PAIRS, numbers - PAIRS)
        pair = tl.where(is_first, numbers, partner)
        turns = (numbers < 2 * PAIRS) & present
        other = _whole(heads, at + partner, turns, PARTS, PART)
        c = tl.load(cos + pair, mask=turns, other=1.0).to(tl.float32)
        s = tl.load(sin + pair, mask=turns, other=0.0).to(tl.float32)
        found = found * c + tl.where(is_first, -other, other) * s
    return found


@triton.jit
def attention(
    query,
    key,
    value,
    cos,
    sin,
    slots,
    begins,
    ends,
    allowed,
    bias,
    key_cache,
    value_cache,
    new_key_cache,
    new_value_cache,
    partial,
    softmax,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    QUERY_ROW: tl.constexpr,
    QUERY_HEAD: tl.constexpr,
    QUERY_FIRST: tl.constexpr,
    KEY_ROW: tl.constexpr,
    KEY_HEAD: tl.constexpr,
    KEY_FIRST: tl.constexpr,
    VALUE_ROW: tl.constexpr,
    VALUE_HEAD: tl.constexpr,
    VALUE_FIRST: tl.constexpr,
    PARTS: tl.constexpr,
    PART: tl.constexpr,
    PAIRS: tl.constexpr,
    ANGLES_STRIDE: tl.constexpr,
    SLOTS_STRIDE: tl.constexpr,
    ALLOWED_STRIDE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BIAS_STRIDE: tl.constexpr,
    SCALE: tl.constexpr,
    SPLITS: tl.constexpr,
    SHARE: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """GROUP queries over SHARE of the keys (batch * KV_HEADS, KEYS, HEAD_DIM) that all of them read, CHUNK at a time.

    Number d of head h of row r of the queries is at r * QUERY_ROW + h * QUERY_HEAD + QUERY_FIRST + d, and so on: it is
    a sum of PARTS numbers, PART apart. The program that has the row's slot among its keys writes the new key, turned,
    and the new value there: `new_key_cache` and `new_value_cache` are the memory of `key_cache` and `value_cache`.
    Of the chunks, only those are read that hold keys of the row's span: `begins` has its first allowed key, `ends` the
    one behind its last.

    What a program sums of the values, (batch * KV_HEADS, SPLITS, GROUP, HEAD_DIM), is not divided by the softmax's
    sum yet: that and the largest score, in powers of two, are in (batch * KV_HEADS, SPLITS, GROUP, 2). A program with
    all keys (SPLITS 1) divides them and leaves `softmax` as it is.
    """
    POWERS: tl.constexpr = 1.4426950408889634  # 1 / ln 2: the softmax takes powers of two
    row = tl.program_id(0)
    split = tl.program_id(1)
    batch = row // KV_HEADS
    head = row % KV_HEADS
    numbers = tl.arange(0, BLOCK_DIM)
    present = numbers < HEAD_DIM
    here = row.to(tl.int64) * KEYS * HEAD_DIM
    first = split * SHARE
    slot = tl.load(slots + batch * SLOTS_STRIDE)
    own = batch if ALLOWED_STRIDE > 0 else 0
    begin = tl.load(begins + own)
    end = tl.minimum(tl.load(ends + own), first + SHARE)
    allowed += batch * ALLOWED_STRIDE
    cos += batch * ANGLES_STRIDE
    sin += batch * ANGLES_STRIDE
    cached = key_cache.dtype.element_ty
    # Keys are the rows of the products, heads the columns, of which tensor cores take as few as eight; one head by
    # itself is multiplied without them.
    heads = tl.arange(0, BLOCK_HEADS)
    asks = (heads < GROUP)[None, :] & present[:, None]
    place = batch * QUERY_ROW + (head * GROUP + heads)[None, :] * QUERY_HEAD + QUERY_FIRST
    queries = _turned(query, place, asks, cos, sin, numbers[:, None], PAIRS, PARTS, PART).to(cached)
    bias_at = batch * BIAS_STRIDE + (head * GROUP + heads) * KEYS
    highest = tl.full((BLOCK_HEADS,), -1.0e30, tl.float32)
    denominators = tl.zeros((BLOCK_HEADS,), tl.float32)
    accumulated = tl.zeros((BLOCK_DIM, BLOCK_HEADS), tl.float32)
    skipped = tl.maximum(begin - first, 0) // CHUNK * CHUNK
    for start in range(first + skipped, end, CHUNK):
        keys = start + tl.arange(0, CHUNK)
        seen = (tl.load(allowed + keys, mask=keys < end, other=0) != 0) & (keys != slot)
        at = here + keys[:, None] * HEAD_DIM + numbers[None, :]
        loaded_keys = tl.load(key_cache + at, mask=(keys < end)[:, None] & present[None, :], other=0.0)
        values = tl.load(value_cache + at, mask=seen[:, None] & present[None, :], other=0.0)
        scores = tl.zeros((CHUNK, BLOCK_HEADS), tl.float32)
        if HAS_BIAS:
            reads = (keys < end)[:, None] & (heads < GROUP)[None, :]
            scores = tl.load(bias + bias_at[None, :] + keys[:, None], mask=reads, other=0.0) / SCALE
        if BLOCK_HEADS == 1:
            scores += tl.sum(loaded_keys.to(tl.float32) * tl.trans(queries).to(tl.float32), axis=1)[:, None]
        else:
            scores = tl.dot(loaded_keys, queries, scores)
        scores *= SCALE * POWERS
        scores = tl.where(seen[:, None], scores, -1.0e30)
        new_highest = tl.maximum(highest, tl.max(scores, axis=0))
        weights = tl.where(seen[:, None], tl.exp2(scores - new_highest[None, :]), 0.0)
        rescale = tl.exp2(highest - new_highest)
        denominators = denominators * rescale + tl.sum(weights, axis=0)
        accumulated *= rescale[None, :]
        if BLOCK_HEADS == 1:
            accumulated += tl.sum(values.to(tl.float32) * weights, axis=0)[:, None]
        else:
            accumulated = tl.dot(tl.trans(values), weights.to(cached), accumulated)
        highest = new_highest
    if (slot >= first) & (slot < first + SHARE) & (slot < KEYS):
        key_at = batch * KEY_ROW + head * KEY_HEAD + KEY_FIRST
        new_key = _turned(key, key_at, present, cos, sin, numbers, PAIRS, PARTS, PART).to(cached)
        value_at = batch * VALUE_ROW + head * VALUE_HEAD + VALUE_FIRST + numbers
        new_value = _whole(value, value_at, present, PARTS, PART).to(cached)
        tl.store(new_key_cache + here + slot * HEAD_DIM + numbers, new_key, mask=present)
        tl.store(new_value_cache + here + slot * HEAD_DIM + numbers, new_value, mask=present)
        if tl.load(allowed + slot) != 0:
            score = tl.sum(queries.to(tl.float32) * new_key[:, None].to(tl.float32), axis=0) * (SCALE * POWERS)
            if HAS_BIAS:
                score += tl.load(bias + bias_at + slot, mask=heads < GROUP, other=0.0) * POWERS
            new_highest = tl.maximum(highest, score)
            weight = tl.exp2(score - new_highest)
            rescale = tl.exp2(highest - new_highest)
            denominators = denominators * rescale + weight
            accumulated = accumulated * rescale[None, :] + new_value[:, None].to(tl.float32) * weight[None, :]
            highest = new_highest
    block = (row * SPLITS + split) * GROUP + heads
    place = block[None, :] * HEAD_DIM + numbers[:, None]
    if SPLITS == 1:
        accumulated = accumulated / tl.where(denominators > 0, denominators, 1.0)[None, :]
        tl.store(partial + place, accumulated.to(partial.dtype.element_ty), mask=asks)
    else:
        tl.store(partial + place, accumulated, mask=asks)
        tl.store(softmax + block * 2, highest, mask=heads < GROUP)
        tl.store(softmax + block * 2 + 1, denominators, mask=heads < GROUP)


@triton.jit
def attention_total(
    partial,
    softmax,
    out,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Combine the results of `attention` for all shares of the keys into (batch * KV_HEADS, GROUP, HEAD_DIM)."""
    head = tl.program_id(0)  # of all rows
    row = head // GROUP
    splits = tl.arange(0, BLOCK_SPLITS)
    numbers = tl.arange(0, BLOCK_DIM)
    block = (row * SPLITS + splits) * GROUP + head % GROUP
    known = splits < SPLITS
    present = numbers < HEAD_DIM
    accumulated = tl.load(
        partial + block[:, None] * HEAD_DIM + numbers[None, :], mask=known[:, None] & present[None, :], other=0.0
    )
    highest = tl.load(softmax + block * 2, mask=known, other=-1.0e30)
    denominators = tl.load(softmax + block * 2 + 1, mask=known, other=0.0)
    rescale = tl.exp2(highest - tl.max(highest, axis=0))
    total = tl.sum(denominators * rescale, axis=0)
    output = tl.sum(accumulated * rescale[:, None], axis=0) / tl.where(total > 0, total, 1.0)
    tl.store(out + head * HEAD_DIM + numbers, output.to(out.dtype.element_ty), mask=present)
