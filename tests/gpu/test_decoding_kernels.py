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

from tfmodels.kernels import triton_decoding
from tfmodels.kernels.masks import make_mask
from tfmodels.layers.attention import attend

pytestmark = pytest.mark.gpu

# rows, in, width of each matrix
PRODUCTS = (
    (1, 1024, 3072),
    (1, 2048, 2048, 512, 512),
    (2, 768, 768, 200),
    (4, 4096, 1024),
    (8, 1000, 2048, 2048),
    (1, 2048, 50304),
)
# batch, heads, key/value heads, numbers per head, bias
CACHES = ((1, 16, 16, 64, False), (4, 32, 8, 64, False), (2, 8, 2, 80, True), (3, 4, 4, 128, True))


def checks(settings: Settings) -> list[Check]:
    made = []
    for dtype in BOUNDS:
        for sizes, stored in itertools.product(PRODUCTS, (dtype, "int8")):
            case = "products" if stored == dtype else "products with int8"
            made.append(Check(case, dtype, str(sizes), functools.partial(product, dtype, stored, *sizes)))
        for sizes, length in itertools.product(CACHES, settings.lengths):
            measure = functools.partial(attention, dtype, length, *sizes)
            made.append(Check("attention", dtype, f"{sizes} {length}", measure))
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
    got = compiled(triton_decoding.matvec, x, *matrices)
    table = compiled(triton_decoding.table_product, x, tf.transpose(matrices[0]))
    of_table = relative_error(table, want[0])
    return Found(relative_error(tf.concat(got, 1), tf.concat(want, 1)), of_table, (BOUNDS[dtype],) * 2)


def attention(dtype: str, length: int, batch: int, heads: int, kv_heads: int, head_dim: int, biased: bool) -> Found:
    rng = np.random.default_rng(length)
    shapes = [(batch, heads, 1, head_dim), *[(batch, kv_heads, length, head_dim)] * 2]
    arrays = [tf.cast(rng.standard_normal(shape, "float32"), dtype) for shape in shapes]
    seen = rng.random((batch, length)) < 0.7
    seen[:, -1] = True
    bias = tf.constant(rng.standard_normal((1, heads, length)), "float32") if biased else None
    scale = head_dim**-0.5
    got = compiled(
        lambda *arrays: triton_decoding.attention(*arrays, tf.constant(seen), scale=scale, bias=bias), *arrays
    )
    mask = make_mask(seen, causal=False, query_length=1, key_length=length)
    plain = [tf.cast(array, "float32") for array in arrays]
    full = None if bias is None else bias[:, :, tf.newaxis]
    want, _ = attend(*plain, mask=mask, scale=scale, bias=full, implementation="eager")
    return Found(relative_error(got, want), None, (BOUNDS[dtype],))
