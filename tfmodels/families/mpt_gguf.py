"""MPT models in GGUF files, see `tfmodels.checkpoints.gguf_map`."""

from __future__ import annotations

from typing import Any

from tfmodels.checkpoints.gguf_map import GGUFMap, GGUFSettings, sizes_of


def mpt_config(settings: GGUFSettings) -> dict[str, Any]:
    """The fields of a `config.json` that a file's settings stand for.

    Raises:
        CheckpointError: a setting is missing or unusable.
    """
    number = settings.number
    heads, width = number("attention.head_count"), number("embedding_length")
    kv_heads = number("attention.head_count_kv", heads)
    kinds = {heads: "multihead_attention", 1: "multiquery_attention"}
    bias_max = number("attention.max_alibi_bias", 0.0, float)
    attention = {
        "alibi": bias_max > 0,
        "alibi_bias_max": bias_max or 8.0,
        "clip_qkv": number("attention.clamp_kqv", 0.0, float) or None,
        "qk_ln": "blk.0.attn_q_norm.weight" in settings.tensors,
        "attn_type": kinds.get(kv_heads, "grouped_query_attention"),
    }
    if kv_heads not in kinds:
        attention["kv_n_heads"] = kv_heads
    return {
        "model_type": "mpt",
        "architectures": ["MptForCausalLM"],
        "vocab_size": settings.vocab_size(),
        "d_model": width,
        "n_heads": heads,
        "n_layers": number("block_count"),
        "expansion_ratio": number("feed_forward_length") / width,
        "max_seq_len": number("context_length"),
        "attn_config": attention,
        # With ALiBi there are none, whatever the configuration says.
        "learned_pos_emb": bias_max > 0 or "position_embd.weight" in settings.tensors,
        "no_bias": not any(name.endswith(".bias") for name in settings.tensors),
        "layer_norm_epsilon": settings.rounded("attention.layer_norm_epsilon"),
        "tie_word_embeddings": "output.weight" not in settings.tensors,
        **settings.special_ids(),
    }


def _settings_of(config: Any) -> dict[str, Any]:
    attention = config.attn_config
    values = {
        **sizes_of(config),
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
        "attention.max_alibi_bias": float(attention.alibi_bias_max) if attention.alibi else 0.0,
    }
    if config.num_key_value_heads != config.n_heads:
        values["attention.head_count_kv"] = config.num_key_value_heads
    if attention.clip_qkv:
        values["attention.clamp_kqv"] = float(attention.clip_qkv)
    return values


GGUF = GGUFMap(
    architecture="mpt",
    family="MPT",
    names={
        "token_embd": "transformer.wte",
        "position_embd": "transformer.wpe",
        "output_norm": "transformer.norm_f",
        "output": "lm_head",
        "attn_norm": "norm_1",
        "attn_qkv": "attn.Wqkv",
        "attn_q_norm": "attn.q_ln",
        "attn_k_norm": "attn.k_ln",
        "attn_output": "attn.out_proj",
        "ffn_norm": "norm_2",
        "ffn_up": "ffn.up_proj",
        "ffn_down": "ffn.down_proj",
    },
    blocks="transformer.blocks",
    positive=(
        *("attention.head_count", "attention.head_count_kv", "embedding_length", "block_count", "vocab_size"),
        *("feed_forward_length", "context_length"),
    ),
    config=mpt_config,
    settings_of=_settings_of,
)
