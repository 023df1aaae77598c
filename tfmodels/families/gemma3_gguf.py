"""Gemma 3 text models in GGUF files, see `tfmodels.checkpoints.gguf_decoder`.

The files do not say which layers are windowed: all but every sixth, as by default.
"""

from __future__ import annotations

from typing import Any

from tfmodels.checkpoints.gguf_decoder import HEAD_NORMS, NAMES, decoder_map
from tfmodels.checkpoints.gguf_map import GGUFSettings

# Scores of the largest model, which has so many layers, are not scaled by the size of a head.
_LAYERS_OF_27B = 62


def _more(settings: GGUFSettings) -> dict[str, Any]:
    number = settings.number
    width, heads = number("embedding_length"), number("attention.head_count")
    return {
        "sliding_window": number("attention.sliding_window"),
        "rope_local_base_freq": number("rope.freq_base_swa", 10000.0, float),
        "rope_theta": number("rope.freq_base", 1000000.0, float),
        "query_pre_attn_scalar": width // heads
        if number("block_count") == _LAYERS_OF_27B
        else number("attention.key_length", width // heads),
        "final_logit_softcapping": number("final_logit_softcapping", 0.0, float) or None,
    }


def _more_settings(config: Any) -> dict[str, Any]:
    values = {
        "attention.sliding_window": config.sliding_window,
        "rope.freq_base_swa": float(config.rope_local_base_freq),
    }
    capping = config.final_logit_softcapping
    return values if capping is None else {**values, "final_logit_softcapping": float(capping)}


GGUF = decoder_map(
    "gemma3",
    "Gemma3Text",
    _more,
    names={
        **NAMES,
        **HEAD_NORMS,
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    rotated={},
    supported=("attention.sliding_window",),
    model_type="gemma3_text",
    class_name="Gemma3ForCausalLM",
    shifted={"norm.weight": 1.0},
    more_settings=_more_settings,
)
