"""Granite models in GGUF files, see `tfmodels.checkpoints.gguf_decoder`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmodels.checkpoints.gguf_decoder import biases, decoder_map
from tfmodels.checkpoints.gguf_map import GGUFSettings

# Setting -> field of the configuration.
_FACTORS = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}


def _more(settings: GGUFSettings) -> dict[str, Any]:
    # Stored in single precision: the shortest decimal that means the same there is what was meant.
    factors = {name: settings.number(name, kind=float) for name in _FACTORS if settings.stored(name)}
    named = {_FACTORS[name]: float(str(np.float32(value))) for name, value in factors.items()}
    if "attention_multiplier" not in named:  # llama.cpp then scales as Llama does
        width, heads = settings.number("embedding_length"), settings.number("attention.head_count")
        named["attention_multiplier"] = (width // heads) ** -0.5
    return {**biases(settings), **named}


def _more_settings(config: Any) -> dict[str, Any]:
    return {name: float(getattr(config, field)) for name, field in _FACTORS.items()}


GGUF = decoder_map("granite", "Granite", _more, supported=_FACTORS, more_settings=_more_settings)
