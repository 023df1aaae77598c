"""Llama (Touvron et al., https://arxiv.org/abs/2302.13971; Llama 3, https://arxiv.org/abs/2407.21783).

Pre-normalised decoder with rotary positions, grouped-query attention and a gated feed-forward block. Covers Llama 1 to
3, Code Llama, Vicuna, TinyLlama, SmolLM and everything else whose `model_type` is "llama".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras

from tfmodels.cache import kv
from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.part import configuration
from tfmodels.configs.rotary import RotaryConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.layers.attention import split_heads
from tfmodels.layers.feed_forward import GatedFeedForward
from tfmodels.layers.linear import build_all, embedding, linear, project
from tfmodels.layers.norms import RMSNorm
from tfmodels.layers.rotary import RotaryEmbedding, rotate
from tfmodels.models.backbone import BlockContext, DecoderBackbone
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.heads import (
    CausalLMHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from tfmodels.models.sharding import Sharding


@configuration
class LlamaConfig(RotaryConfig):
    """Configuration of a Llama model; the defaults are Llama-1-7B's.

    Fields: sizes as named; `num_key_value_heads` None means one per query head; `head_dim` None means
    `hidden_size / num_attention_heads`; rotary scaling in `rope_parameters`, see `tfmodels.layers.rotary`.
    `pretraining_tp` is kept for the file's sake: it only splits sums, never changes them.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import LlamaConfig
        >>> LlamaConfig(num_attention_heads=8, num_key_value_heads=2, hidden_size=64).head_dim
        8
    """

    model_type: ClassVar[str] = "llama"
    positional: ClassVar[tuple[str, ...]] = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
        *("use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp", "tie_word_embeddings"),
        *("rope_theta", "rope_scaling", "attention_bias", "attention_dropout", "mlp_bias", "head_dim"),
    )

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pretraining_tp: int = 1
    attention_bias: bool = False
    attention_dropout: float = 0.0
    mlp_bias: bool = False

    def finish(self) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.check_positive("hidden_size", "num_attention_heads")
            self.check_divisible("hidden_size", by="num_attention_heads")
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().finish()

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim")
        self.check_positive("num_attention_heads", "num_key_value_heads", "max_position_embeddings")
        self.check_divisible("hidden_size", by="num_attention_heads")
        self.check_divisible("num_attention_heads", by="num_key_value_heads")
        if self.rotary_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd; rotary positions turn pairs of dimensions.")
        super().validate()


class LlamaAttention(keras.layers.Layer):
    """Self-attention with rotary positions; fewer key/value heads than query heads share them in groups."""

    def __init__(self, config: LlamaConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"std": config.initializer_range, "use_bias": config.attention_bias, "dtype": self.dtype_policy}
        self.q_proj = linear(config.num_attention_heads * config.head_dim, name="q_proj", **options)
        self.k_proj = linear(config.num_key_value_heads * config.head_dim, name="k_proj", **options)
        self.v_proj = linear(config.num_key_value_heads * config.head_dim, name="v_proj", **options)
        self.o_proj = linear(config.hidden_size, name="o_proj", **options)
        self.dropout = keras.layers.Dropout(config.attention_dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.q_proj, self.k_proj, self.v_proj)
        build_all(self.q_proj.units, self.o_proj)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        lowering = context.lowering
        query, key, value = project(hidden, self.q_proj, self.k_proj, self.v_proj, lowering=lowering)
        query = rotate(split_heads(query, self.config.num_attention_heads), *context.rotary)
        key = rotate(split_heads(key, self.config.num_key_value_heads), *context.rotary)
        value = split_heads(value, self.config.num_key_value_heads)
        scale = self.config.head_dim**-0.5
        output, cache, weights = context.attend(query, key, value, scale=scale, dropout=self.dropout)
        return self.o_proj(output, lowering=lowering), cache, weights


class LlamaBlock(keras.layers.Layer):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: LlamaConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.input_layernorm = RMSNorm(config.rms_norm_eps, dtype=dtype, name="input_layernorm")
        self.self_attn = LlamaAttention(config, dtype=dtype, name="self_attn")
        self.post_attention_layernorm = RMSNorm(config.rms_norm_eps, dtype=dtype, name="post_attention_layernorm")
        self.mlp = GatedFeedForward(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            config.mlp_bias,
            config.initializer_range,
            dtype=dtype,
            name="mlp",
        )

    def build(self, input_shape: Any = None) -> None:
        build_all(
            self.config.hidden_size, self.input_layernorm, self.self_attn, self.post_attention_layernorm, self.mlp
        )

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        attended, cache, weights = self.self_attn(self.input_layernorm(hidden), context=context)
        hidden = hidden + attended
        mlp_output = self.mlp(self.post_attention_layernorm(hidden), lowering=context.lowering)
        return hidden + mlp_output, cache, weights


class LlamaBackbone(DecoderBackbone):
    """Token ids (or embeddings) to hidden states."""

    config_class = LlamaConfig

    def __init__(self, config: LlamaConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.embed_tokens = embedding(
            config.vocab_size,
            config.hidden_size,
            std=config.initializer_range,
            dtype=dtype,
            name="embed_tokens",
            padding_id=config.pad_token_id,
        )
        self.layers = [
            LlamaBlock(config, dtype=dtype, name=f"layers_{index}") for index in range(config.num_hidden_layers)
        ]
        self.norm = RMSNorm(config.rms_norm_eps, dtype=dtype, name="norm")
        self.rotary = RotaryEmbedding(config)

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.embed_tokens, *self.layers, self.norm)

    def position_context(self, context: BlockContext) -> BlockContext:
        return dataclasses.replace(context, rotary=self.rotary(context.positions))

    def final_norm(self, hidden: Any) -> Any:
        return self.norm(hidden)


class TFLlamaPreTrainedModel(TFPreTrainedModel):
    """Base of the Llama models."""

    config_class = LlamaConfig
    backbone_class = LlamaBackbone
    base_model_prefix = "model"
    weight_map = WeightMap(
        prefixes=("model", "transformer"),
        drop=(r"\brotary_emb\.",),
        tied=("lm_head.weight", "embed_tokens.weight"),
    )
    sharding = Sharding(
        queries="self_attn/q_proj",
        keys_and_values="self_attn/(k_proj|v_proj)",
        attended="self_attn/o_proj",
        widened="mlp/(gate_proj|up_proj)",
        narrowed="mlp/down_proj",
        tokens="embed_tokens",
    )


class TFLlamaModel(TFLlamaPreTrainedModel):
    """The bare Llama decoder: hidden states, no head."""


class TFLlamaForCausalLM(GenerationMixin, CausalLMHead, TFLlamaPreTrainedModel):
    """Llama with a language-model head: scores of the next token, and `generate`."""


class TFLlamaForSequenceClassification(SequenceClassificationHead, TFLlamaPreTrainedModel):
    """Llama that classifies whole sequences."""


class TFLlamaForTokenClassification(TokenClassificationHead, TFLlamaPreTrainedModel):
    """Llama that classifies every token."""

    classifier_name = "score"


class TFLlamaForQuestionAnswering(QuestionAnsweringHead, TFLlamaPreTrainedModel):
    """Llama that finds an answer's start and end."""

    base_model_prefix = "transformer"
