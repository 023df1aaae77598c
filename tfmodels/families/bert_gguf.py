"""BERT encoders in GGUF files, see `tfmodels.checkpoints.gguf_map`.

Such files hold no pooler and no head of a language model.
"""

from __future__ import annotations

from typing import Any

from tfmodels.checkpoints.gguf_map import GGUFMap, GGUFSettings


def bert_config(settings: GGUFSettings) -> dict[str, Any]:
    """The fields of a `config.json` that a file's settings stand for.

    Raises:
        CheckpointError: a setting is missing or unusable.
    """
    number, metadata = settings.number, settings.metadata
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": settings.vocab_size(),
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": number("attention.head_count"),
        "max_position_embeddings": number("context_length"),
        "type_vocab_size": metadata.get("tokenizer.ggml.token_type_count", 2),
        "layer_norm_eps": settings.rounded("attention.layer_norm_epsilon"),
        "pad_token_id": settings.token_id("padding"),
    }


GGUF = GGUFMap(
    architecture="bert",
    family="BERT",
    names={
        "token_embd": "bert.embeddings.word_embeddings",
        "position_embd": "bert.embeddings.position_embeddings",
        "token_types": "bert.embeddings.token_type_embeddings",
        "token_embd_norm": "bert.embeddings.LayerNorm",
        "attn_q": "attention.self.query",
        "attn_k": "attention.self.key",
        "attn_v": "attention.self.value",
        "attn_output": "attention.output.dense",
        "attn_output_norm": "attention.output.LayerNorm",
        "ffn_up": "intermediate.dense",
        "ffn_down": "output.dense",
        "layer_output_norm": "output.LayerNorm",
    },
    blocks="bert.encoder.layer",
    positive=("attention.head_count", "embedding_length", "block_count", "vocab_size", "feed_forward_length"),
    config=bert_config,
)
