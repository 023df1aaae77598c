"""Fused attention in every mode, outputs and gradients, against plain float32 attention."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from gpu.checks import BOUNDS, Check, Found, Settings, relative_error
from keras import ops

from tfmodels.kernels.masks import make_mask
from tfmodels.layers.alibi import alibi_bias, alibi_slopes
from tfmodels.layers.attention import attend

pytestmark = pytest.mark.gpu

LARGE = 4096  # from this length on plain float32 scores take gigabytes

# name -> batch, heads, key/value heads, numbers per head, and what is special.
MODES: dict[str, dict[str, Any]] = {
    "full": {"batch": 2},
    "causal": {"batch": 2, "causal": True},
    "causal, 16 heads over 4": {"batch": 1, "heads": 16, "kv_heads": 4, "causal": True},
    "causal, window 256": {"batch": 1, "causal": True, "window": 256},
    "causal, window 33": {"batch": 1, "causal": True, "window": 33},
    "bias": {"batch": 2, "bias": "learned"},
    "bias per row": {"batch": 2, "bias": "rows"},
    "bias + causal (ALiBi)": {"batch": 1, "causal": True, "bias": "alibi"},
    "bias + left padding": {"batch": 2, "bias": "learned", "padding": "left"},
    "causal, left padding": {"batch": 3, "causal": True, "padding": "left"},
    "causal, right padding": {"batch": 8, "causal": True, "padding": "right"},
    "full, holes": {"batch": 4, "padding": "holes"},
    "causal, 80 per head": {"batch": 1, "head_dim": 80, "causal": True},
    "causal, 36 per head": {"batch": 1, "head_dim": 36, "causal": True},
    "causal, 128 per head": {"batch": 1, "head_dim": 128, "causal": True},
    "scale 1": {"batch": 1, "causal": True, "scale": 1.0, "spread": 0.3},
}

# Triton's kernels compute these, which cuDNN's do not take; on TensorFlow alone.
TRITON_MODES: dict[str, dict[str, Any]] = {
    "dropout": {"batch": 2, "causal": True, "rate": 0.1},
    "dropout, 16 heads over 4, left padding": {"batch": 2, "heads": 16, "kv_heads": 4, "padding": "left"}
    | {"causal": True, "rate": 0.1},
    "dropout, bias": {"batch": 2, "bias": "learned", "rate": 0.3},
    "packed": {"batch": 2, "causal": True, "packed": True},
    "packed, dropout, 80 per head": {"batch": 2, "causal": True, "packed": True, "rate": 0.1, "head_dim": 80},
    "pairs": {"batch": 2, "pairs": True},
    "window 33, left padding": {"batch": 2, "causal": True, "window": 33, "padding": "left"},
    "window to both sides": {"batch": 2, "window": 65, "ahead": 64, "padding": "right"},
    "dropout, 128 per head": {"batch": 1, "causal": True, "rate": 0.1, "head_dim": 128},
    "causal, 256 per head": {"batch": 1, "causal": True, "head_dim": 256, "heads": 4},
}


def checks(settings: Settings) -> list[Check]:
    made = []
    implementation = "flash" if settings.device == "gpu" else "blockwise"
    for mode, options in (MODES if keras.backend.backend() == "jax" else MODES | TRITON_MODES).items():
        for dtype in BOUNDS:
            for length in settings.lengths if dtype == "float16" else settings.lengths[2::3] or settings.lengths:
                large = {"batch": 1 if options.get("padding") is None else 2} if length >= LARGE else {}
                given = {**options, **large, "implementation": implementation}
                measure = functools.partial(errors, dtype, length, **given)
                made.append(Check(mode, dtype, str(length), measure, large=length >= LARGE))
    return made


def test_attention(check, holds):
    holds(check)


class FixedDropout:
    """Stands for a `keras.layers.Dropout`, whose seed is the same at each call."""

    def __init__(self, rate: float):
        self.rate, self.seed_generator = rate, self

    def next(self) -> Any:
        return ops.convert_to_tensor([5, 7], "uint32")


def padding_of(kind: str | None, batch: int, length: int) -> np.ndarray | None:
    """A mask (batch, length) whose rows, but for the first, are padded on a side or have holes."""
    if kind is None:
        return None
    rng = np.random.default_rng(batch)
    mask = np.ones((batch, length), bool)
    for row in range(1, batch):
        count = int(rng.integers(1, max(2, length // 2)))
        if kind == "left":
            mask[row, :count] = False
        elif kind == "right":
            mask[row, length - count :] = False
        else:
            mask[row, rng.choice(length, count, replace=False)] = False
    return mask


def errors(
    dtype: str,
    length: int,
    *,
    implementation: str,
    batch: int,
    heads: int = 8,
    kv_heads: int | None = None,
    head_dim: int = 64,
    causal: bool = False,
    window: int | None = None,
    bias: str | None = None,
    padding: str | None = None,
    scale: float | None = None,
    spread: float = 1.0,
    ahead: int | None = None,
    packed: bool = False,
    pairs: bool = False,
    rate: float = 0.0,
) -> Found:
    """Relative errors of the output and of the worst gradient among query, key, value and bias."""
    rng = np.random.default_rng(length)
    kv_heads = kv_heads or heads
    shapes = [(batch, heads, length, head_dim), *[(batch, kv_heads, length, head_dim)] * 2]
    arrays = [ops.cast(rng.standard_normal(shape, "float32") * spread, dtype) for shape in shapes]
    upstream = ops.cast(rng.standard_normal(shapes[0], "float32"), dtype)
    if bias in ("learned", "rows"):
        rows = 1 if bias == "learned" else batch
        arrays.append(ops.cast(rng.standard_normal((rows, heads, length, length), "float32"), dtype))
    fixed = alibi_bias(alibi_slopes(heads, 8), length, last=length - 1) if bias == "alibi" else None
    keys = padding_of(padding, batch, length)
    seen = np.ones((1, 1, 1, 1), "float32") if keys is None else keys.astype("float32")[:, None, :, None]
    upstream = upstream * ops.cast(seen, dtype)
    scale = scale or head_dim**-0.5

    given = rng.random((batch, 1, length, length)) < 0.5 if pairs else keys
    positions = np.concatenate([np.arange(length // 3), np.arange(length - length // 3)])[None] if packed else None
    options = {"causal": causal, "query_length": length, "key_length": length, "packed_positions": positions}
    drops = {"dropout": FixedDropout(rate), "training": True} if rate else {}
    paths: list[Any] = []

    def run(arrays: list[Any], implementation: str) -> list[Any]:
        def output(*arrays: Any) -> Any:
            mask = make_mask(given, **options)  # keeps what it computes
            mask = mask.with_window(window, ahead) if window else mask
            how = {"scale": scale, "implementation": implementation, "record": paths, **drops}
            return attend(*arrays[:3], mask=mask, bias=arrays[3] if len(arrays) > 3 else fixed, **how)[0]

        result, flows = with_gradients(output, arrays, upstream)
        return [ops.cast(result, "float32") * seen, *flows]

    got = run(arrays, implementation)
    # In blocks the same weights are dropped.
    want = run([ops.cast(array, "float32") for array in arrays], "blockwise" if rate else "eager")
    output, *gradients = (relative_error(*pair) for pair in zip(got, want, strict=True))
    return Found(output, max(gradients), (BOUNDS[dtype],) * 2, paths[0].name)


def with_gradients(function: Callable[..., Any], arrays: list[Any], upstream: Any) -> tuple[Any, list[Any]]:
    """The result of a function of arrays, and how `upstream` flows back to each."""
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit  # one by one, each operation would be compiled by itself
        def both(arrays: list[Any], upstream: Any) -> tuple[Any, list[Any]]:
            result, back = jax.vjp(function, *arrays)
            return result, list(back(ops.cast(upstream, result.dtype)))

        return both(arrays, upstream)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(arrays)
        result = function(*arrays)
    return result, tape.gradient(result, arrays, ops.cast(upstream, result.dtype))
