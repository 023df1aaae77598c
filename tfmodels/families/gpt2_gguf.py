"""GPT-2 models in GGUF files, see `tfmodels.checkpoints.gguf_map`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmodels.checkpoints.gguf_map import GGUFMap, GGUFSettings


def gpt2_config(settings: GGUFSettings) -> dict[str, Any]:
    """The fields of a `config.json` that a file's settings stand for.

    Raises:
        CheckpointError: a setting is missing or unusable.
    """
    number = settings.number
    tokens = settings.metadata.get("tokenizer.ggml.tokens")
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": number("vocab_size", len(tokens) if isinstance(tokens, list) else None),
        "n_positions": number("context_length"),
        "n_embd": number("embedding_length"),
        "n_layer": number("block_count"),
        "n_head": number("attention.head_count"),
        "n_inner": number("feed_forward_length"),
        # Stored in single precision: the shortest decimal that means the same there is what was meant.
        "layer_norm_epsilon": float(str(np.float32(number("attention.layer_norm_epsilon", kind=float)))),
        "bos_token_id": settings.token_id("bos"),
        "eos_token_id": settings.token_id("eos"),
        "pad_token_id": settings.token_id("padding"),
    }


def _settings_of(config: Any) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.n_positions,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
    }


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
