"""float16 attention whose products of queries and keys pass 65504, the dtype's largest number, stays finite and right.

Every query points along two equal keys, |q.k| = 9e4 with each, so that it attends to both alike and to nothing else:
its output is the mean of their values, whatever the rounding of the scores.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gpu.checks import BOUNDS, Check, Found, Settings, relative_error
from gpu.models import tensorflow_only

from tfmodels.kernels import triton_decoding
from tfmodels.kernels.masks import make_mask
from tfmodels.layers.attention import attend
from tfmodels.runtime.lowering import PLAIN, Lowering

pytestmark = [pytest.mark.gpu, tensorflow_only]

HEADS, KEYS, HEAD_DIM, PRODUCT = 4, 64, 64, 9e4


def checks(settings: Settings) -> list[Check]:
    # name -> (implementation, path that is to be taken, queries, lowering)
    ways = {
        "plain": ("eager", "eager", KEYS, PLAIN),
        "plain, single query": ("eager", "eager", 1, PLAIN),
        f"plain, single query for {settings.device}": ("eager", "eager", 1, Lowering(settings.device)),
        "blockwise": ("blockwise", "blockwise", KEYS, PLAIN),
    }
    if settings.device == "gpu":
        ways |= {
            "fused": ("flash", "flash", KEYS, PLAIN),
            "decoding kernel": ("auto", "decode", 1, Lowering("triton")),
        }
    return [
        Check(name, "float16", mode, functools.partial(error, *way, jit_compile=mode == "compiled"))
        for name, way in ways.items()
        for mode in ("compiled", "eager")
        if mode == "compiled" or not way[3].target  # what is made for XLA is compiled by it
    ]


def test_float16_range(check, holds):
    if check.case == "decoding kernel" and (reason := triton_decoding.unavailable()) is not None:
        pytest.skip(reason)
    holds(check)


def error(implementation: str, path: str, queries: int, lowering: Lowering, *, jit_compile: bool) -> Found:
    rng = np.random.default_rng(0)
    size = (PRODUCT / HEAD_DIM) ** 0.5  # 37.5, which float16 holds exactly
    directions = size * rng.choice([-1.0, 1.0], (1, HEADS, KEYS // 2, HEAD_DIM))
    key = np.concatenate([directions, directions], axis=2)
    value = rng.standard_normal(key.shape)
    query = key[:, :, :queries]
    assert (query * query).sum(-1).min() == PRODUCT
    half = KEYS // 2
    wanted = np.tile((value[:, :, :half] + value[:, :, half:]) / 2, (1, 1, 2, 1))[:, :, :queries]
    taken: list[Any] = []

    def run(*arrays: Any) -> Any:
        mask = make_mask(None, causal=False, query_length=queries, key_length=KEYS)
        if queries == 1:
            mask = make_mask(np.ones((1, KEYS), bool), causal=False, query_length=1, key_length=KEYS)
        options = {"implementation": implementation, "lowering": lowering, "record": taken}
        return attend(*arrays, mask=mask, scale=HEAD_DIM**-0.5, **options)[0]

    def both(*arrays: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            result = run(*arrays)
        return result, tape.gradient(result, arrays)

    arrays = [tf.constant(array, "float16") for array in (query, key, value)]
    if lowering.target:  # what is made for generation has no gradient
        result, flows = tf.function(run, jit_compile=True, autograph=False)(*arrays), []
    else:
        result, flows = (tf.function(both, jit_compile=True, autograph=False) if jit_compile else both)(*arrays)
    assert {one.name for one in taken} == {path}
    assert all(np.isfinite(flow.numpy()).all() for flow in flows)
    return Found(relative_error(result, wanted), None, (BOUNDS["float16"],))
