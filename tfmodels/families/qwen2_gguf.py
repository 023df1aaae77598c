"""Qwen2 models in GGUF files, see `tfmodels.checkpoints.gguf_decoder`."""

from __future__ import annotations

from tfmodels.checkpoints.gguf_decoder import decoder_map

GGUF = decoder_map("qwen2", "Qwen2", rotated={})
