"""GPT-NeoX models in GGUF files, see `tfmodels.checkpoints.gguf_map`.

Such files hold the rows of the fused projection by queries, keys and values, safetensors files head by head.
"""

from __future__ import annotations

from typing import Any

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.gguf_map import GGUFMap, GGUFSettings, short, sizes_of

# Without it llama.cpp turns positions as fast as this, whatever the configuration said.
_ROPE_BASE = 10000.0


def gpt_neox_config(settings: GGUFSettings) -> dict[str, Any]:
    """The fields of a `config.json` that a file's settings stand for.

    Raises:
        CheckpointError: a setting is missing or unusable, or scales positions.
    """
    number, where = settings.number, settings.where
    heads, width = number("attention.head_count"), number("embedding_length")
    head_dim = width // heads
    rotated = number("rope.dimension_count", head_dim)
    scaling = settings.rope_scaling_type()
    if scaling != "none":
        raise CheckpointError(f"{where}: {settings.key('rope.scaling.type')} is {short(scaling)}; none was expected.")
    if number("attention.head_count_kv", heads) != heads or rotated > head_dim:
        raise CheckpointError(
            f"{where} has {short(settings.stored('attention.head_count_kv', heads))} heads of keys for {heads} of "
            f"queries, and turns {rotated} of {head_dim} numbers of a head; GPT-NeoX has as many, and turns no more."
        )
    return {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "vocab_size": settings.vocab_size(),
        "hidden_size": width,
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "max_position_embeddings": number("context_length"),
        "rotary_pct": rotated / head_dim,
        "rotary_emb_base": number("rope.freq_base", _ROPE_BASE, float),
        "use_parallel_residual": bool(settings.stored("use_parallel_residual", True)),
        "attention_bias": "blk.0.attn_qkv.bias" in settings.tensors,
        "layer_norm_eps": settings.rounded("attention.layer_norm_epsilon"),
        "tie_word_embeddings": "output.weight" not in settings.tensors,
        **settings.special_ids(),
    }


def _settings_of(config: Any) -> dict[str, Any]:
    return {
        **sizes_of(config),
        "attention.layer_norm_epsilon": float(config.layer_norm_eps),
        "rope.dimension_count": config.rotary_dim,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "use_parallel_residual": bool(config.use_parallel_residual),
    }


GGUF = GGUFMap(
    architecture="gptneox",
    family="GPT-NeoX",
    names={
        "token_embd": "gpt_neox.embed_in",
        "output_norm": "gpt_neox.final_layer_norm",
        "output": "embed_out",
        "attn_norm": "input_layernorm",
        "attn_qkv": "attention.query_key_value",
        "attn_output": "attention.dense",
        "ffn_norm": "post_attention_layernorm",
        "ffn_up": "mlp.dense_h_to_4h",
        "ffn_down": "mlp.dense_4h_to_h",
    },
    blocks="gpt_neox.layers",
    fused={"query_key_value": "num_attention_heads"},
    positive=(
        *("attention.head_count", "embedding_length", "block_count", "vocab_size", "feed_forward_length"),
        *("context_length", "rope.dimension_count", "rope.freq_base"),
    ),
    config=gpt_neox_config,
    settings_of=_settings_of,
)
