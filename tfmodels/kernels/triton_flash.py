"""Attention of training, forward and backward, whose scores stay in a program's registers, in Triton.

`flash_attention` says what goes in and comes out. Queries are rows (batch * heads) of (LENGTH, HEAD_DIM), keys and
values rows (batch * key/value heads), each of which serves GROUP neighbouring heads. Every argument in capitals is
known at compile time. All tensors are contiguous; those that a call has no use for may be any. This module needs
Triton and is imported by `triton_compiler` alone.

Source:
    Dao, https://arxiv.org/abs/2307.08691.
"""

import triton
import triton.language as tl


@triton.jit
def _hash(x):
    """`blockwise_attention._hash`: every bit of a uint32 depends on every bit of another."""
    x = x + 0x9E3779B9
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _kept(seed, row, queries, others, RATE: tl.constexpr):
    """The weights that dropout leaves: the draw of `blockwise_attention.kept`."""
    first = tl.load(seed).to(tl.uint32, bitcast=True)
    start = _hash(_hash(first) ^ tl.load(seed + 1).to(tl.uint32, bitcast=True))
    own = _hash(queries.to(tl.uint32) ^ _hash(row.to(tl.uint32) ^ start))
    other = _hash(others.to(tl.uint32) ^ _hash(start ^ 0xFFFFFFFF))
    draws = (_hash(own[:, None] ^ other[None, :]) >> 8).to(tl.float32) * (2.0**-24)
    return draws >= RATE


@triton.jit
def _tile(x, row, places, numbers, LENGTH: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Numbers of some places of a row, zeros beyond its end."""
    at = (row.to(tl.int64) * LENGTH + places[:, None]) * HEAD_DIM + numbers[None, :]
    return tl.load(x + at, mask=(places < LENGTH)[:, None] & (numbers < HEAD_DIM)[None, :], other=0.0)


@triton.jit
def _write_tile(x, found, row, places, numbers, LENGTH: tl.constexpr, HEAD_DIM: tl.constexpr):
    at = (row.to(tl.int64) * LENGTH + places[:, None]) * HEAD_DIM + numbers[None, :]
    inside = (places < LENGTH)[:, None] & (numbers < HEAD_DIM)[None, :]
    tl.store(x + at, found.to(x.dtype.element_ty), mask=inside)


@triton.jit
def _pairs(x, batch, head, queries, others, LENGTH: tl.constexpr, ROW: tl.constexpr, HEAD: tl.constexpr):
    """Numbers of pairs of queries and keys; rows of the batch are ROW tables apart, heads HEAD tables."""
    table = (batch * ROW + head * HEAD).to(tl.int64)
    at = (table * LENGTH + queries[:, None]) * LENGTH + others[None, :]
    return tl.load(x + at, mask=(queries < LENGTH)[:, None] & (others < LENGTH)[None, :], other=0)


@triton.jit
def _scores(
    query,
    key,
    batch,
    head,
    queries,
    others,
    keys,
    segments,
    pairs,
    bias,
    LENGTH: tl.constexpr,
    SCALE: tl.constexpr,
    WINDOW: tl.constexpr,
    AHEAD: tl.constexpr,
    HAS_KEYS: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HAS_PAIRS: tl.constexpr,
    PAIRS_ROW: tl.constexpr,
    PAIRS_HEAD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BIAS_ROW: tl.constexpr,
    BIAS_HEAD: tl.constexpr,
):
    """Scores of a tile of queries and one of keys, float32, and which of them count.

    WINDOW: keys up to the query that count, 0 for all. AHEAD: keys after it, negative for all. SEGMENTS: 0 for none,
    1 for one row of them, 2 for a row for each of the batch.
    """
    seen = (queries < LENGTH)[:, None] & (others < LENGTH)[None, :]
    if AHEAD >= 0:
        seen = seen & (others[None, :] <= queries[:, None] + AHEAD)
    if WINDOW > 0:
        seen = seen & (others[None, :] > queries[:, None] - WINDOW)
    if HAS_KEYS:
        counts = tl.load(keys + batch * LENGTH + others, mask=others < LENGTH, other=0) != 0
        seen = seen & counts[None, :]
    if SEGMENTS > 0:
        first = segments + (batch * LENGTH if SEGMENTS > 1 else 0)
        own = tl.load(first + queries, mask=queries < LENGTH, other=-1)
        other = tl.load(first + others, mask=others < LENGTH, other=-1)
        seen = seen & (own[:, None] == other[None, :])
    # The sums of `dot` start with what is read of pairs: `triton_attention` says why.
    scores = tl.zeros((query.shape[0], key.shape[0]), tl.float32)
    if HAS_BIAS:
        scores = _pairs(bias, batch, head, queries, others, LENGTH, BIAS_ROW, BIAS_HEAD).to(tl.float32) / SCALE
    if HAS_PAIRS:
        counts = _pairs(pairs, batch, head, queries, others, LENGTH, PAIRS_ROW, PAIRS_HEAD) != 0
        scores = tl.where(counts, scores, float("-inf"))
    scores = tl.dot(query, tl.trans(key), scores) * SCALE
    if HAS_PAIRS:
        seen = seen & (scores > float("-inf"))
    return scores, seen


@triton.jit
def _blocks_seen(
    block,
    LENGTH: tl.constexpr,
    WINDOW: tl.constexpr,
    AHEAD: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """The first block of keys that a block of queries may see, and the end."""
    first, end = 0, tl.cdiv(LENGTH, KEYS)
    if AHEAD >= 0:
        end = tl.minimum(end, (block * QUERIES + QUERIES - 1 + AHEAD) // KEYS + 1)
    if WINDOW > 0:
        first = tl.maximum(block * QUERIES - WINDOW + 1, 0) // KEYS
    return first, end


@triton.jit
def flash_forward(
    query,
    key,
    value,
    keys,
    segments,
    pairs,
    bias,
    seed,
    out,
    statistics,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    LENGTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    WINDOW: tl.constexpr,
    AHEAD: tl.constexpr,
    HAS_KEYS: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HAS_PAIRS: tl.constexpr,
    PAIRS_ROW: tl.constexpr,
    PAIRS_HEAD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BIAS_ROW: tl.constexpr,
    BIAS_HEAD: tl.constexpr,
    RATE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Attention of QUERIES queries of a row, KEYS keys at a time.

    `statistics` (batch * heads, LENGTH) get the log of each query's sum of exponentials, or, where it sees no key and
    its output is zero, a number so large that its weights are zero in the backward pass.
    """
    block = tl.program_id(0)
    row = tl.program_id(1)
    batch, head = row // HEADS, row % HEADS
    source = row // GROUP
    queries = block * QUERIES + tl.arange(0, QUERIES)
    numbers = tl.arange(0, BLOCK_DIM)
    own = _tile(query, row, queries, numbers, LENGTH, HEAD_DIM)
    most = tl.full((QUERIES,), -1.0e30, tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, BLOCK_DIM), tl.float32)
    first, end = _blocks_seen(block, LENGTH, WINDOW, AHEAD, QUERIES, KEYS)
    for other in range(first, end):
        others = other * KEYS + tl.arange(0, KEYS)
        found = _tile(key, source, others, numbers, LENGTH, HEAD_DIM)
        scores, seen = _scores(
            own, found, batch, head, queries, others, keys, segments, pairs, bias, LENGTH, SCALE, WINDOW, AHEAD,
            HAS_KEYS, SEGMENTS, HAS_PAIRS, PAIRS_ROW, PAIRS_HEAD, HAS_BIAS, BIAS_ROW, BIAS_HEAD,
        )  # fmt: skip
        higher = tl.maximum(most, tl.max(tl.where(seen, scores, -1.0e30), axis=1))
        weights = tl.where(seen, tl.exp(scores - higher[:, None]), 0.0)
        kept = tl.exp(most - higher)
        total = total * kept + tl.sum(weights, axis=1)
        if RATE > 0:
            weights = tl.where(_kept(seed, row, queries, others, RATE), weights * (1.0 / (1.0 - RATE)), 0.0)
        values = _tile(value, source, others, numbers, LENGTH, HEAD_DIM)
        sums = sums * kept[:, None] + tl.dot(weights.to(values.dtype), values)
        most = higher
    sees = total > 0
    total = tl.where(sees, total, 1.0)
    _write_tile(out, sums / total[:, None], row, queries, numbers, LENGTH, HEAD_DIM)
    found = tl.where(sees, most + tl.log(total), 1.0e30)
    tl.store(statistics + row.to(tl.int64) * LENGTH + queries, found, mask=queries < LENGTH)


@triton.jit
def _score_gradients(
    own,
    found,
    values,
    upstream,
    statistics,
    shared,
    seed,
    row,
    batch,
    head,
    queries,
    others,
    keys,
    segments,
    pairs,
    bias,
    LENGTH: tl.constexpr,
    SCALE: tl.constexpr,
    WINDOW: tl.constexpr,
    AHEAD: tl.constexpr,
    HAS_KEYS: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HAS_PAIRS: tl.constexpr,
    PAIRS_ROW: tl.constexpr,
    PAIRS_HEAD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BIAS_ROW: tl.constexpr,
    BIAS_HEAD: tl.constexpr,
    RATE: tl.constexpr,
):
    """Gradients of a tile of scores, and its weights after dropout, float32."""
    at = row.to(tl.int64) * LENGTH + queries
    statistic = tl.load(statistics + at, mask=queries < LENGTH, other=1.0e30)
    taken = tl.load(shared + at, mask=queries < LENGTH, other=0.0)
    scores, seen = _scores(
        own, found, batch, head, queries, others, keys, segments, pairs, bias, LENGTH, SCALE, WINDOW, AHEAD,
        HAS_KEYS, SEGMENTS, HAS_PAIRS, PAIRS_ROW, PAIRS_HEAD, HAS_BIAS, BIAS_ROW, BIAS_HEAD,
    )  # fmt: skip
    weights = tl.where(seen, tl.exp(scores - statistic[:, None]), 0.0)
    of_weights = tl.dot(upstream, tl.trans(values))
    dropped = weights
    if RATE > 0:
        kept = _kept(seed, row, queries, others, RATE)
        of_weights = tl.where(kept, of_weights * (1.0 / (1.0 - RATE)), 0.0)
        dropped = tl.where(kept, weights * (1.0 / (1.0 - RATE)), 0.0)
    return weights * (of_weights - taken[:, None]), dropped


@triton.jit
def flash_query_gradient(
    query,
    key,
    value,
    upstream,
    statistics,
    shared,
    keys,
    segments,
    pairs,
    bias,
    seed,
    out,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    LENGTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    WINDOW: tl.constexpr,
    AHEAD: tl.constexpr,
    HAS_KEYS: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HAS_PAIRS: tl.constexpr,
    PAIRS_ROW: tl.constexpr,
    PAIRS_HEAD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BIAS_ROW: tl.constexpr,
    BIAS_HEAD: tl.constexpr,
    RATE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Gradients of QUERIES queries of a row; `shared` (batch * heads, LENGTH) is the sum of output times upstream."""
    block = tl.program_id(0)
    row = tl.program_id(1)
    batch, head = row // HEADS, row % HEADS
    source = row // GROUP
    queries = block * QUERIES + tl.arange(0, QUERIES)
    numbers = tl.arange(0, BLOCK_DIM)
    own = _tile(query, row, queries, numbers, LENGTH, HEAD_DIM)
    flow = _tile(upstream, row, queries, numbers, LENGTH, HEAD_DIM)
    sums = tl.zeros((QUERIES, BLOCK_DIM), tl.float32)
    first, end = _blocks_seen(block, LENGTH, WINDOW, AHEAD, QUERIES, KEYS)
    for other in range(first, end):
        others = other * KEYS + tl.arange(0, KEYS)
        found = _tile(key, source, others, numbers, LENGTH, HEAD_DIM)
        values = _tile(value, source, others, numbers, LENGTH, HEAD_DIM)
        of_scores, _ = _score_gradients(
            own, found, values, flow, statistics, shared, seed, row, batch, head, queries, others, keys, segments,
            pairs, bias, LENGTH, SCALE, WINDOW, AHEAD, HAS_KEYS, SEGMENTS, HAS_PAIRS, PAIRS_ROW, PAIRS_HEAD,
            HAS_BIAS, BIAS_ROW, BIAS_HEAD, RATE,
        )  # fmt: skip
        sums += tl.dot((of_scores * SCALE).to(found.dtype), found)
    _write_tile(out, sums, row, queries, numbers, LENGTH, HEAD_DIM)


@triton.jit
def flash_key_gradient(
    query,
    key,
    value,
    upstream,
    statistics,
    shared,
    keys,
    segments,
    pairs,
    bias,
    seed,
    of_key,
    of_value,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    LENGTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    WINDOW: tl.constexpr,
    AHEAD: tl.constexpr,
    HAS_KEYS: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HAS_PAIRS: tl.constexpr,
    PAIRS_ROW: tl.constexpr,
    PAIRS_HEAD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BIAS_ROW: tl.constexpr,
    BIAS_HEAD: tl.constexpr,
    RATE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Gradients of KEYS keys and values of a key/value head, from the queries of its GROUP heads."""
    block = tl.program_id(0)
    source = tl.program_id(1)
    others = block * KEYS + tl.arange(0, KEYS)
    numbers = tl.arange(0, BLOCK_DIM)
    found = _tile(key, source, others, numbers, LENGTH, HEAD_DIM)
    values = _tile(value, source, others, numbers, LENGTH, HEAD_DIM)
    key_sums = tl.zeros((KEYS, BLOCK_DIM), tl.float32)
    value_sums = tl.zeros((KEYS, BLOCK_DIM), tl.float32)
    first, end = 0, tl.cdiv(LENGTH, QUERIES)
    if AHEAD >= 0:
        first = tl.maximum(block * KEYS - AHEAD, 0) // QUERIES
    if WINDOW > 0:
        end = tl.minimum(end, (block * KEYS + KEYS - 1 + WINDOW - 1) // QUERIES + 1)
    for index in range(GROUP):
        row = source * GROUP + index
        batch, head = row // HEADS, row % HEADS
        for part in range(first, end):
            queries = part * QUERIES + tl.arange(0, QUERIES)
            own = _tile(query, row, queries, numbers, LENGTH, HEAD_DIM)
            flow = _tile(upstream, row, queries, numbers, LENGTH, HEAD_DIM)
            of_scores, dropped = _score_gradients(
                own, found, values, flow, statistics, shared, seed, row, batch, head, queries, others, keys, segments,
                pairs, bias, LENGTH, SCALE, WINDOW, AHEAD, HAS_KEYS, SEGMENTS, HAS_PAIRS, PAIRS_ROW, PAIRS_HEAD,
                HAS_BIAS, BIAS_ROW, BIAS_HEAD, RATE,
            )  # fmt: skip
            value_sums += tl.dot(tl.trans(dropped.to(flow.dtype)), flow)
            key_sums += tl.dot(tl.trans((of_scores * SCALE).to(own.dtype)), own)
    _write_tile(of_key, key_sums, source, others, numbers, LENGTH, HEAD_DIM)
    _write_tile(of_value, value_sums, source, others, numbers, LENGTH, HEAD_DIM)


@triton.jit
def flash_bias_gradient(
    query,
    key,
    value,
    upstream,
    statistics,
    shared,
    keys,
    segments,
    pairs,
    bias,
    seed,
    out,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    LENGTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    WINDOW: tl.constexpr,
    AHEAD: tl.constexpr,
    HAS_KEYS: tl.constexpr,
    SEGMENTS: tl.constexpr,
    HAS_PAIRS: tl.constexpr,
    PAIRS_ROW: tl.constexpr,
    PAIRS_HEAD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BIAS_ROW: tl.constexpr,
    BIAS_HEAD: tl.constexpr,
    RATE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Gradients of the scores of a tile: `out` (batch * heads, LENGTH, LENGTH) holds those of each row and head."""
    row = tl.program_id(2)
    queries = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    others = tl.program_id(1) * KEYS + tl.arange(0, KEYS)
    numbers = tl.arange(0, BLOCK_DIM)
    source = row // GROUP
    of_scores, _ = _score_gradients(
        _tile(query, row, queries, numbers, LENGTH, HEAD_DIM), _tile(key, source, others, numbers, LENGTH, HEAD_DIM),
        _tile(value, source, others, numbers, LENGTH, HEAD_DIM),
        _tile(upstream, row, queries, numbers, LENGTH, HEAD_DIM), statistics, shared, seed, row, row // HEADS,
        row % HEADS, queries, others, keys, segments, pairs, bias, LENGTH, SCALE, WINDOW, AHEAD, HAS_KEYS, SEGMENTS,
        HAS_PAIRS, PAIRS_ROW, PAIRS_HEAD, HAS_BIAS, BIAS_ROW, BIAS_HEAD, RATE,
    )  # fmt: skip
    at = (row.to(tl.int64) * LENGTH + queries[:, None]) * LENGTH + others[None, :]
    tl.store(
        out + at, of_scores.to(out.dtype.element_ty), mask=(queries < LENGTH)[:, None] & (others < LENGTH)[None, :]
    )
