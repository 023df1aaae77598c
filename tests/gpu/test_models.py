"""Logits and gradients of whole models that XLA compiles, attention as "auto" picks it, against plain float32.

At most three times what plain attention in the same dtype loses.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
from gpu.checks import Check, Found, Settings, relative_error
from gpu.models import FAMILIES, copy_weights, model_class, tensorflow_only
from gpu.test_attention import padding_of

pytestmark = [pytest.mark.gpu, tensorflow_only]

SHAPE = (4, 256)


def checks(settings: Settings) -> list[Check]:
    # float16 with and without padding: bfloat16 takes the same path as float16 does.
    kinds = [("float16", "whole"), ("float16", "padded"), ("bfloat16", "padded")]
    return [
        Check(family, *kind, functools.partial(errors, family, settings.layers, *kind))
        for family in FAMILIES
        for kind in kinds
    ]


def test_models(check, holds):
    holds(check)


def errors(family: str, layers: int, dtype: str, padding: str) -> Found:
    ids = np.random.default_rng(0).integers(3, 500, SHAPE)
    mask = np.ones_like(ids) if padding == "whole" else padding_of("right", *SHAPE).astype("int64")
    inputs = {"input_ids": ids, "labels": np.where(mask == 1, ids, -100)}
    inputs |= {"attention_mask": mask} if padding == "padded" else {}
    keras.utils.set_random_seed(1)
    cls, config = model_class(family, layers)
    exact = cls(config, dtype="float32", attn_implementation="eager")
    models = {name: cls(config, dtype=dtype, attn_implementation=name) for name in ("eager", "auto")}
    for model in models.values():
        copy_weights(exact, model)
    got = computed(models["auto"], inputs, mask, jit_compile=True)
    report = models["auto"].attention_report().replace("\n", "; ")
    want, plain = (computed(model, inputs, mask, jit_compile=False) for model in (exact, models["eager"]))
    output, gradients = (relative_error(*pair) for pair in zip(got, want, strict=True))
    allowed = tuple(3 * relative_error(*pair) + 1e-3 for pair in zip(plain, want, strict=True))
    return Found(output, gradients, allowed, report)


def computed(model: Any, inputs: dict[str, np.ndarray], mask: np.ndarray, *, jit_compile: bool) -> tuple[Any, Any]:
    """The logits of tokens, and the gradients of all weights as one vector."""
    import tensorflow as tf

    weights = model.trainable_variables

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run() -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            output = model(**inputs)
        flows = tape.gradient(output.loss, [weight.value for weight in weights])
        flat = [
            tf.zeros([int(np.prod(weight.shape))])
            if flow is None
            else tf.reshape(tf.cast(tf.convert_to_tensor(flow), "float32"), [-1])
            for weight, flow in zip(weights, flows, strict=True)
        ]
        return tf.cast(output.logits, "float32") * mask[:, :, None].astype("float32"), tf.concat(flat, 0)

    return run()
