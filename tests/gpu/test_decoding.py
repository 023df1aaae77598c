"""Logits of every token that whole models decode, against one plain float32 pass over the same tokens.

The batch is padded on the left; models with int8 weights too. At most three times what a plain pass in the same dtype
loses.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
from gpu.checks import BOUNDS, Check, Found, Settings, relative_error
from gpu.models import FAMILIES, copy_weights, model_class, tensorflow_only
from keras import ops

pytestmark = [pytest.mark.gpu, tensorflow_only]

NEW = 12


def checks(settings: Settings) -> list[Check]:
    decoders = [family for family in FAMILIES if family != "mpnet"]
    kinds = [(dtype, "left-padded") for dtype in BOUNDS] + [("bfloat16", "left-padded, int8")]
    return [
        Check(family, *kind, functools.partial(errors, family, settings.layers, *kind))
        for kind in kinds
        for family in decoders
    ]


def test_decoding(check, holds):
    holds(check)


def errors(family: str, layers: int, dtype: str, kind: str) -> Found:
    rng = np.random.default_rng(0)
    prompt = rng.integers(3, 500, (3, 20))
    mask = np.ones_like(prompt)
    mask[1, :7] = 0
    keras.utils.set_random_seed(1)
    cls, config = model_class(family, layers)

    def made(like: Any = None, **options: Any) -> Any:
        model = cls(config, **options)
        if "int8" in kind:
            model.quantize("int8", config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
        if like is not None:
            copy_weights(like, model)
        return model

    exact = made(dtype="float32", attn_implementation="eager")
    model = made(exact, dtype=dtype)
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "use_cache": True}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    output = model.generate(prompt, attention_mask=mask, **settings)
    got = np.stack([np.asarray(step, "float32") for step in output.logits], axis=1)
    ids = np.asarray(output.sequences)[:, :-1]
    whole = np.concatenate([mask, np.ones((len(mask), NEW - 1), mask.dtype)], axis=1)

    def at_once(model: Any) -> np.ndarray:
        positions = np.maximum(np.cumsum(whole, axis=1) - 1, 0)
        inputs = {"input_ids": ids, "attention_mask": whole, "position_ids": positions, "use_cache": False}
        return np.asarray(ops.cast(model(**inputs).logits, "float32"))[:, -NEW:]

    want = at_once(exact)
    plain = at_once(made(exact, dtype=dtype, attn_implementation="eager"))
    allowed = 3 * relative_error(plain, want) + 1e-3
    return Found(relative_error(got, want), None, (allowed,), model.attention_report().replace("\n", "; "))
