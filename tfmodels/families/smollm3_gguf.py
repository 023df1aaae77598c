"""SmolLM3 models in GGUF files, see `tfmodels.checkpoints.gguf_decoder`.

The files do not say which layers have no rotary positions: it is every fourth, as by default.
"""

from __future__ import annotations

from tfmodels.checkpoints.gguf_decoder import biases, decoder_map

GGUF = decoder_map("smollm3", "SmolLM3", biases)
