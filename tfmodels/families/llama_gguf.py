"""Llama models in GGUF files, see `tfmodels.checkpoints.gguf_decoder`."""

from __future__ import annotations

from tfmodels.checkpoints.gguf_decoder import biases, decoder_map

GGUF = decoder_map("llama", "Llama", biases)
