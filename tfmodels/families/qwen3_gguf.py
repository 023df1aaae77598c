"""Qwen3 models in GGUF files, see `tfmodels.checkpoints.gguf_decoder`."""

from __future__ import annotations

from tfmodels.checkpoints.gguf_decoder import HEAD_NORMS, NAMES, biases, decoder_map

GGUF = decoder_map(
    "qwen3",
    "Qwen3",
    lambda settings: {"attention_bias": biases(settings)["attention_bias"]},
    names={**NAMES, **HEAD_NORMS},
    rotated={},
)
