"""GPT-NeoX (Black et al., https://arxiv.org/abs/2204.06745).

Decoder with rotary positions on a part of each head, one projection for query, key and value, and attention and
feed-forward side by side. Covers Pythia, GPT-NeoX-20B, Dolly, StableLM-alpha, RedPajama-INCITE and everything else
whose `model_type` is "gpt_neox".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras

from tfmodels.cache import kv
from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.rotary import RotaryConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.linear import build_all, embedding, linear
from tfmodels.layers.norms import layer_norm
from tfmodels.layers.residual import add_and_norm, dropped, in_parts, plus
from tfmodels.layers.rotary import RotaryEmbedding
from tfmodels.models.backbone import BlockContext, DecoderBackbone, TokenInputs
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.heads import (
    CausalLMHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from tfmodels.models.sharding import Sharding


class GPTNeoXConfig(RotaryConfig):
    """Configuration of a GPT-NeoX model; the defaults are GPT-NeoX-20B's.

    Fields: sizes and dropout shares as named; with `use_parallel_residual` the feed-forward block reads what attention
    read, without it what attention gave. Rotary positions are in `rope_parameters`, see `tfmodels.layers.rotary`:
    `rotary_pct` and `rotary_emb_base` are other names of `partial_rotary_factor` and `rope_theta` there.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import GPTNeoXConfig
        >>> config = GPTNeoXConfig(rotary_pct=0.5)
        >>> config.partial_rotary_factor, config.rotary_emb_base
        (0.5, 10000.0)
    """

    model_type: ClassVar[str] = "gpt_neox"
    aliases: ClassVar[dict[str, str]] = {"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"}
    theta_names: ClassVar[tuple[str, ...]] = ("rotary_emb_base", "rope_theta")
    partial_names: ClassVar[tuple[str, ...]] = ("rotary_pct", "partial_rotary_factor")
    default_partial: ClassVar[float | None] = 0.25

    # fmt: off
    def __init__(
        self, vocab_size: int = 50432, hidden_size: int = 6144, num_hidden_layers: int = 44,
        num_attention_heads: int = 64, intermediate_size: int = 24576, hidden_act: str = "gelu",
        rotary_pct: float | None = None, rotary_emb_base: float | None = None, attention_dropout: float = 0.0,
        hidden_dropout: float = 0.0, classifier_dropout: float | None = 0.1, max_position_embeddings: int = 2048,
        initializer_range: float = 0.02, layer_norm_eps: float = 1e-05, use_cache: bool = True,
        bos_token_id: int | None = 0, eos_token_id: int | list[int] | None = 2, tie_word_embeddings: bool = False,
        use_parallel_residual: bool = True, rope_scaling: dict[str, Any] | None = None, attention_bias: bool = True,
        **kwargs: Any
    ) -> None: ...
    # fmt: on

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        self.check_positive("num_attention_heads", "max_position_embeddings")
        self.check_divisible("hidden_size", by="num_attention_heads")
        super().validate()
        rotated, head_dim = 2 * ((self.rotary_dim + 1) // 2), self.hidden_size // self.num_attention_heads
        if rotated > head_dim:
            raise ValueError(
                f"rotary_pct={self.rotary_pct} turns {rotated} dimensions, in pairs; a head has {head_dim} "
                f"(hidden_size={self.hidden_size} / num_attention_heads={self.num_attention_heads})."
            )


class GPTNeoXAttention(keras.layers.Layer):
    """Self-attention with rotary positions; one projection gives each head's query, key and value side by side."""

    def __init__(self, config: GPTNeoXConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"std": config.initializer_range, "use_bias": config.attention_bias, "dtype": self.dtype_policy}
        self.query_key_value = linear(3 * config.hidden_size, name="query_key_value", **options)
        self.dense = linear(config.hidden_size, name="dense", **options)
        self.dropout = keras.layers.Dropout(config.attention_dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.query_key_value, self.dense)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        heads = self.config.num_attention_heads
        head_dim = self.config.hidden_size // heads
        output, cache, weights = context.project_and_attend(
            hidden,
            [self.query_key_value],
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            dropout=self.dropout,
        )
        return in_parts(self.dense, output, context.lowering), cache, weights


class GPTNeoXBlock(keras.layers.Layer):
    """Attention and feed-forward, each normalised before; side by side or one after the other."""

    def __init__(self, config: GPTNeoXConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.input_layernorm = layer_norm(config.layer_norm_eps, dtype=dtype, name="input_layernorm")
        self.attention = GPTNeoXAttention(config, dtype=dtype, name="attention")
        self.dropout = keras.layers.Dropout(config.hidden_dropout, dtype=dtype, name="dropout")
        self.post_attention_layernorm = layer_norm(config.layer_norm_eps, dtype=dtype, name="post_attention_layernorm")
        self.mlp = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            True,
            config.initializer_range,
            names=("dense_h_to_4h", "dense_4h_to_h"),
            dropout=config.hidden_dropout,
            dtype=dtype,
            name="mlp",
        )

    def build(self, input_shape: Any = None) -> None:
        build_all(
            self.config.hidden_size, self.input_layernorm, self.attention, self.post_attention_layernorm, self.mlp
        )

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        options = {"training": context.training, "lowering": context.lowering}
        if self.config.use_parallel_residual:
            hidden, normed, other = add_and_norm(hidden, self.input_layernorm, self.post_attention_layernorm)
            mlp_output = self.mlp(other, **options)
            attended, cache, weights = self.attention(normed, context=context)
            return plus(hidden, mlp_output, dropped(self.dropout, attended, context.training)), cache, weights
        hidden, normed = add_and_norm(hidden, self.input_layernorm)
        attended, cache, weights = self.attention(normed, context=context)
        hidden = plus(hidden, dropped(self.dropout, attended, context.training))
        hidden, normed = add_and_norm(hidden, self.post_attention_layernorm)
        return plus(hidden, self.mlp(normed, **options)), cache, weights


class GPTNeoXBackbone(DecoderBackbone):
    """Token ids (or embeddings) to hidden states."""

    config_class = GPTNeoXConfig

    def __init__(self, config: GPTNeoXConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.embed_in = embedding(
            config.vocab_size, config.hidden_size, std=config.initializer_range, dtype=dtype, name="embed_in"
        )
        self.dropout = keras.layers.Dropout(config.hidden_dropout, dtype=dtype, name="dropout")
        self.layers = [
            GPTNeoXBlock(config, dtype=dtype, name=f"layers_{index}") for index in range(config.num_hidden_layers)
        ]
        self.final_layer_norm = layer_norm(config.layer_norm_eps, dtype=dtype, name="final_layer_norm")
        self.rotary = RotaryEmbedding(config)

    @property
    def embed_tokens(self) -> keras.layers.Embedding:
        return self.embed_in

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.embed_in, *self.layers, self.final_layer_norm)

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        return self.dropout(super().embed(tokens, context), training=context.training)

    def position_context(self, context: BlockContext) -> BlockContext:
        return dataclasses.replace(context, rotary=self.rotary(context.positions, context.lowering))

    def final_norm(self, hidden: Any) -> Any:
        return self.final_layer_norm(hidden)


class TFGPTNeoXPreTrainedModel(TFPreTrainedModel):
    """Base of the GPT-NeoX models."""

    backbone_class = GPTNeoXBackbone
    base_model_prefix = "gpt_neox"
    weight_map = WeightMap(
        prefixes=("gpt_neox",),
        pairs=(("embed_out.", "lm_head."),),
        drop=(r"\.attention\.(masked_)?bias$", r"\brotary_emb\."),
        tied=("lm_head.weight", "embed_in.weight"),
    )
    sharding = Sharding(
        queries="attention/query_key_value",
        attended="attention/dense",
        widened="mlp/dense_h_to_4h",
        narrowed="mlp/dense_4h_to_h",
        tokens="embed_in",
    )


class TFGPTNeoXModel(TFGPTNeoXPreTrainedModel):
    """The bare GPT-NeoX decoder: hidden states, no head."""


class TFGPTNeoXForCausalLM(GenerationMixin, CausalLMHead, TFGPTNeoXPreTrainedModel):
    """GPT-NeoX with a language-model head: scores of the next token, and `generate`."""


class TFGPTNeoXForSequenceClassification(SequenceClassificationHead, TFGPTNeoXPreTrainedModel):
    """GPT-NeoX that classifies whole sequences."""


class TFGPTNeoXForTokenClassification(TokenClassificationHead, TFGPTNeoXPreTrainedModel):
    """GPT-NeoX that classifies every token."""

    unused_inputs = ("token_type_ids",)


class TFGPTNeoXForQuestionAnswering(QuestionAnsweringHead, TFGPTNeoXPreTrainedModel):
    """GPT-NeoX that finds an answer's start and end."""

    unused_inputs = ("token_type_ids",)
