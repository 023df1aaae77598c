"""The Triton kernels for decoding, products and attention of single tokens, against plain float32."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gpu.checks import BOUNDS, Check, Found, Settings, relative_error

from tfmodels.checkpoints.quantized.scheme import Scheme, dequantize, round_to_nearest
from tfmodels.kernels import added_norms, decoding, triton_decoding
from tfmodels.kernels.masks import make_mask
from tfmodels.layers.attention import attend
from tfmodels.layers.rotary import rotate

pytestmark = pytest.mark.gpu

# rows, in, width of each matrix
PRODUCTS = (
    (1, 1024, 3072),
    (1, 2048, 2048, 512, 512),
    (2, 768, 768, 200),
    (4, 4096, 1024),
    (8, 1000, 2048, 2048),
    (1, 2048, 50304),
    (17, 2048, 2048, 512, 512),
    (64, 1024, 4096),
    (128, 4096, 1024),
)
# rows, in, out, bits, inputs to a scale, offsets
PACKED = (
    (1, 2048, 2048, 8, None, None),
    (1, 2048, 2048, 4, 32, None),
    (3, 1000, 512, 4, None, None),
    (4, 4096, 1024, 4, 128, "zeros"),
    (7, 2048, 1024, 4, 64, "minimums"),
    (8, 2048, 1024, 8, 64, "zeros"),
    (1, 8192, 2048, 4, 128, None),
    (32, 2048, 4096, 4, 128, "zeros"),
    (64, 4096, 1000, 4, 32, "minimums"),
    (64, 2048, 1024, 8, None, None),
    (100, 1024, 2048, 4, 64, "zeros"),
)
# rows, in, out, activation, gated
ACTIVATED = ((1, 1024, 4096, "gelu", False), (4, 2048, 8192, "silu", True), (64, 2048, 8192, "gelu_tanh", True))
# rows, width, parts of what is added, norms, whether they are layer norms
NORMS = ((1, 2048, (4,), 1, False), (3, 1000, (1,), 1, False), (128, 4096, (2,), 1, True), (4, 1024, (8, 3), 2, True))
# batch, heads, key/value heads, numbers per head, bias
CACHES = (
    (1, 16, 16, 64, False),
    (4, 32, 8, 64, False),
    (2, 8, 2, 80, True),
    (3, 4, 4, 128, True),
    (40, 32, 8, 64, False),
    (64, 16, 16, 64, False),
    (128, 32, 8, 64, False),
)


def checks(settings: Settings) -> list[Check]:
    made = []
    for dtype in BOUNDS:
        for sizes, stored in itertools.product(PRODUCTS, (dtype, "int8")):
            case = "products" if stored == dtype else "products with int8"
            made.append(Check(case, dtype, str(sizes), functools.partial(product, dtype, stored, *sizes)))
        made += [Check("packed", dtype, str(sizes), functools.partial(packed, dtype, *sizes)) for sizes in PACKED]
        made += [
            Check("activated", dtype, str(sizes), functools.partial(activated, dtype, *sizes)) for sizes in ACTIVATED
        ]
        made += [Check("sum and norms", dtype, str(sizes), functools.partial(norms, dtype, *sizes)) for sizes in NORMS]
        for sizes, length in itertools.product(CACHES, settings.lengths):
            if sizes[0] * sizes[2] * length > 2**21:
                continue
            measure = functools.partial(attention, dtype, length, *sizes)
            made.append(Check("attention", dtype, f"{sizes} {length}", measure))
            if not sizes[-1] and sizes[3] == 64:
                measure = functools.partial(cached, dtype, length, *sizes[:-1])
                made.append(Check("attention in place", dtype, f"{sizes} {length}", measure))
    return made


def test_decoding_kernels(check, holds):
    if (reason := triton_decoding.unavailable()) is not None:
        pytest.skip(reason)
    holds(check)


def compiled(function: Callable[..., Any], *arrays: Any) -> Any:
    return tf.function(function, jit_compile=True, autograph=False)(*arrays)


def product(dtype: str, stored: str, rows: int, width: int, *outs: int) -> Found:
    rng = np.random.default_rng(rows)
    x = tf.cast(rng.standard_normal((rows, width), "float32"), dtype)
    spread = width**-0.5 if stored != "int8" else 40.0
    matrices = [tf.cast(rng.standard_normal((width, out), "float32") * spread, stored) for out in outs]
    want = [tf.matmul(tf.cast(x, "float32"), tf.cast(matrix, "float32")) for matrix in matrices]
    got = compiled(lambda x, *matrices: tf.reduce_sum(triton_decoding.product(x, matrices), 0), x, *matrices)
    table = compiled(triton_decoding.table_product, x, tf.transpose(matrices[0]))
    of_table = relative_error(table, want[0])
    rounded = compiled(lambda x, table: triton_decoding.table_product(x, table, dtype), x, tf.transpose(matrices[0]))
    is_rounded = bool(tf.reduce_all(rounded == tf.cast(table, dtype)))
    return Found(relative_error(got, tf.concat(want, 1)), of_table if is_rounded else np.inf, (BOUNDS[dtype],) * 2)


def packed(
    dtype: str, rows: int, width: int, out: int, bits: int, group_size: int | None, offsets: str | None
) -> Found:
    rng = np.random.default_rng(rows)
    scheme = Scheme(bits=bits, group_size=group_size, offsets=offsets)
    parts = round_to_nearest(rng.standard_normal((width, out)).astype("float32") * width**-0.5, scheme)
    x = tf.cast(rng.standard_normal((rows, width), "float32"), dtype)
    want = tf.cast(x, "float32") @ dequantize(parts, scheme, width)
    matrix = triton_decoding.Packed(
        tf.constant(parts["weights"]),
        tf.constant(parts["scales"]),
        tf.constant(parts[offsets]) if offsets else None,
        bits,
        group_size or 0,
        offsets or "",
    )
    assert triton_decoding.serves_packed(rows, dtype, width, matrix)
    got = compiled(lambda x: tf.reduce_sum(triton_decoding.product(x, [matrix]), 0), x)
    return Found(relative_error(got, want), None, (BOUNDS[dtype],))


def activated(dtype: str, rows: int, width: int, out: int, activation: str, gated: bool) -> Found:
    rng = np.random.default_rng(rows)

    def draw(*shape: int, spread: float = 1.0) -> Any:
        return tf.cast(rng.standard_normal(shape).astype("float32") * spread, dtype)

    x, matrices = draw(rows, width), [draw(width, out, spread=width**-0.5) for _ in range(1 + gated)]
    biases = [draw(out) for _ in matrices]
    plain = [
        tf.cast(x, "float32") @ tf.cast(matrix, "float32") + tf.cast(bias, "float32")
        for matrix, bias in zip(matrices, biases, strict=True)
    ]
    act = {"silu": tf.nn.silu, "gelu": tf.nn.gelu, "gelu_tanh": lambda y: tf.nn.gelu(y, approximate=True)}[activation]
    want = act(plain[0]) * plain[1] if gated else act(plain[0])

    def product(x: Any) -> Any:
        return triton_decoding.product(x, matrices, biases=biases, activation=activation, gated=gated)[0]

    return Found(relative_error(compiled(product, x), want), None, (BOUNDS[dtype],))


def norms(dtype: str, rows: int, width: int, parts: tuple[int, ...], count: int, centered: bool) -> Found:
    """The sum's error, and the largest of a norm of it."""
    rng = np.random.default_rng(rows)
    hidden = tf.cast(rng.standard_normal((rows, width), "float32") + 0.5, dtype)
    added = [tf.constant(rng.standard_normal((n, rows, width), "float32")) for n in parts]
    weights, biases = (tf.cast(rng.standard_normal((count, width), "float32"), dtype) for _ in range(2))
    given = [
        added_norms.Norm(weights[n], biases[n] if centered else None, 1e-5, is_centered=centered) for n in range(count)
    ]
    assert added_norms.serves_norms(width, given)
    total, *normed = compiled(lambda hidden: added_norms.added_norms(hidden, added, given), hidden)
    want = tf.cast(hidden, "float32") + sum(tf.reduce_sum(one, 0) for one in added)
    x = want - tf.reduce_mean(want, 1, keepdims=True) if centered else want
    x = x * tf.math.rsqrt(tf.reduce_mean(x * x, 1, keepdims=True) + 1e-5)
    weights, biases = tf.cast(weights, "float32"), tf.cast(biases, "float32") * float(centered)
    wants = [x * weights[n] + biases[n] for n in range(count)]
    of_norms = max(relative_error(*pair) for pair in zip(normed, wants, strict=True))
    return Found(relative_error(total, want), of_norms, (BOUNDS[dtype],) * 2)


def cached(dtype: str, length: int, batch: int, heads: int, kv_heads: int, head_dim: int) -> Found:
    """A token at each row's own place, turned and written into the cache."""
    rng = np.random.default_rng(length)
    widths = [count * head_dim for count in (heads, kv_heads, kv_heads)]
    parts = tf.constant(rng.standard_normal((2, batch, sum(widths))).astype("float32"))
    places = (0, widths[0], widths[0] + widths[1])
    projected = tuple(triton_decoding.Heads(parts, head_dim, place) for place in places)
    cache = [tf.cast(rng.standard_normal((batch, kv_heads, length, head_dim), "float32"), dtype) for _ in range(2)]
    slots = rng.integers(0, length, batch).astype("int32")
    seen = rng.random((batch, length)) < 0.7
    seen[np.arange(batch), slots] = True
    angles = rng.random((batch, head_dim // 2)).astype("float32") * 6
    cos, sin = tf.cos(angles), tf.sin(angles)

    def run(key: Any, value: Any) -> Any:
        options = {"heads": heads, "scale": head_dim**-0.5, "rotary": (cos, sin)}
        return triton_decoding.attention(projected, key, value, tf.constant(slots), tf.constant(seen), **options)

    got = compiled(run, *cache)
    whole = tf.reduce_sum(parts, 0)
    own = [
        tf.reshape(whole[:, first : first + width], (batch, -1, 1, head_dim))
        for first, width in zip(places, widths, strict=True)
    ]
    turns = [angle[:, tf.newaxis, tf.newaxis] for angle in (cos, sin)]
    query, key = (rotate(x, *turns) for x in own[:2])
    here = tf.constant(np.arange(length) == slots[:, np.newaxis])[:, tf.newaxis, :, tf.newaxis]
    new = [
        tf.where(here, tf.cast(tf.cast(x, dtype), "float32"), tf.cast(old, "float32"))
        for x, old in zip((key, own[2]), cache, strict=True)
    ]
    mask = make_mask(seen, causal=False, query_length=1, key_length=length)
    want, _ = attend(query, *new, mask=mask, scale=head_dim**-0.5, implementation="eager")
    of_cache = max(relative_error(x, y) for x, y in zip(got[1:], new, strict=True))
    return Found(relative_error(tf.reshape(got[0], want.shape), want), of_cache, (BOUNDS[dtype],) * 2)


def attention(dtype: str, length: int, batch: int, heads: int, kv_heads: int, head_dim: int, biased: bool) -> Found:
    rng = np.random.default_rng(length)
    shapes = [(batch, heads, 1, head_dim), *[(batch, kv_heads, length, head_dim)] * 2]
    arrays = [tf.cast(rng.standard_normal(shape, "float32"), dtype) for shape in shapes]
    seen = rng.random((batch, length)) < 0.7
    seen[:, -1] = True
    bias = tf.constant(rng.standard_normal((1, heads, length)), "float32") if biased else None
    scale = head_dim**-0.5
    added = None if bias is None else bias[:, :, tf.newaxis]

    def run(query: Any, key: Any, value: Any) -> Any:
        return decoding.attention(query, key, value, tf.constant(seen)[:, None, None], scale=scale, bias=added)

    got = compiled(run, *arrays)
    mask = make_mask(seen, causal=False, query_length=1, key_length=length)
    plain = [tf.cast(array, "float32") for array in arrays]
    want, _ = attend(*plain, mask=mask, scale=scale, bias=added, implementation="eager")
    return Found(relative_error(got, want), None, (BOUNDS[dtype],))
