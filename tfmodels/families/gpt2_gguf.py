"""GPT-2 models in GGUF files, see `tfmodels.checkpoints.gguf_map`."""

from __future__ import annotations

from typing import Any

from tfmodels.checkpoints.gguf_map import GGUFMap, GGUFSettings, sizes_of


def gpt2_config(settings: GGUFSettings) -> dict[str, Any]:
    """The fields of a `config.json` that a file's settings stand for.

    Raises:
        CheckpointError: a setting is missing or unusable.
    """
    number = settings.number
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": settings.vocab_size(),
        "n_positions": number("context_length"),
        "n_embd": number("embedding_length"),
        "n_layer": number("block_count"),
        "n_head": number("attention.head_count"),
        "n_inner": number("feed_forward_length"),
        "layer_norm_epsilon": settings.rounded("attention.layer_norm_epsilon"),
        **settings.special_ids(),
    }


def _settings_of(config: Any) -> dict[str, Any]:
    return {**sizes_of(config), "attention.layer_norm_epsilon": float(config.layer_norm_epsilon)}


GGUF = GGUFMap(
    architecture="gpt2",
    family="GPT-2",
    names={
        "token_embd": "transformer.wte",
        "position_embd": "transformer.wpe",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
        "attn_norm": "ln_1",
        "attn_qkv": "attn.c_attn",
        "attn_output": "attn.c_proj",
        "ffn_norm": "ln_2",
        "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    },
    blocks="transformer.h",
    turned=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
    positive=(
        *("attention.head_count", "embedding_length", "block_count", "vocab_size", "feed_forward_length"),
        "context_length",
    ),
    config=gpt2_config,
    settings_of=_settings_of,
)
