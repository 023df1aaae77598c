"""The decoder that Llama and the families built like it share.

Pre-normalised, with rotary positions, grouped-query attention and a gated feed-forward block. What differs between the
families is data of their configurations (`tfmodels.configs.decoder`); one whose blocks compute something else sets
`block_class`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras

from tfmodels.cache import kv
from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.decoder import DecoderConfig
from tfmodels.layers.attention import split_heads
from tfmodels.layers.feed_forward import GatedFeedForward
from tfmodels.layers.linear import build_all, embedding, linear, project
from tfmodels.layers.norms import RMSNorm
from tfmodels.layers.residual import add_and_norm, in_parts, plus, whole
from tfmodels.layers.rotary import RotaryEmbedding, rotate
from tfmodels.layers.tokens import TokenInputs
from tfmodels.models.backbone import BlockContext, DecoderBackbone
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.sharding import Sharding


class MakesNorms:
    """A part of the decoder that makes its normalisations by `make_norm`, which a family may override."""

    def make_norm(self, name: str) -> keras.layers.Layer:
        """A normalisation, not built yet."""
        config = self.config
        return RMSNorm(config.rms_norm_eps, offset=config.norm_offset, dtype=self.dtype_policy, name=name)


class RotaryAttention(MakesNorms, keras.layers.Layer):
    """Self-attention with rotary positions; fewer key/value heads than query heads share them in groups."""

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        options = {"std": config.initializer_range, "dtype": dtype}
        inner, outer = config.attention_biases
        self.q_proj = linear(config.num_attention_heads * config.head_dim, use_bias=inner, name="q_proj", **options)
        self.k_proj = linear(config.num_key_value_heads * config.head_dim, use_bias=inner, name="k_proj", **options)
        self.v_proj = linear(config.num_key_value_heads * config.head_dim, use_bias=inner, name="v_proj", **options)
        self.o_proj = linear(config.hidden_size, use_bias=outer, name="o_proj", **options)
        self.q_norm = self.k_norm = None
        if config.normalizes_heads:
            self.q_norm, self.k_norm = self.make_norm("q_norm"), self.make_norm("k_norm")
        self.dropout = keras.layers.Dropout(config.attention_dropout, dtype=dtype, name="dropout")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.q_proj, self.k_proj, self.v_proj)
        build_all(self.q_proj.units, self.o_proj)
        build_all(self.config.head_dim, self.q_norm, self.k_norm)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        config, lowering = self.config, context.lowering
        projections = self.q_proj, self.k_proj, self.v_proj
        options = {"scale": config.attention_scale, "dropout": self.dropout}
        if self.q_norm is None:
            heads = {"heads": config.num_attention_heads, "kv_heads": config.num_key_value_heads}
            output, cache, weights = context.project_and_attend(
                hidden, projections, **heads, head_dim=config.head_dim, **options
            )
            return in_parts(self.o_proj, output, lowering), cache, weights
        query, key, value = project(hidden, *projections, lowering=lowering)
        query = self.q_norm(split_heads(query, config.num_attention_heads))
        key = self.k_norm(split_heads(key, config.num_key_value_heads))
        value = split_heads(value, config.num_key_value_heads)
        if context.rotary is not None:
            query, key = rotate(query, *context.rotary), rotate(key, *context.rotary)
        output, cache, weights = context.attend(query, key, value, **options)
        return in_parts(self.o_proj, output, lowering), cache, weights


class RotaryBlock(MakesNorms, keras.layers.Layer):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.input_layernorm = self.make_norm("input_layernorm")
        self.self_attn = RotaryAttention(config, dtype=dtype, name="self_attn")
        self.post_attention_layernorm = self.make_norm("post_attention_layernorm")
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
        hidden, normed = add_and_norm(hidden, self.input_layernorm)
        attended, cache, weights = self.self_attn(normed, context=context)
        hidden, normed = add_and_norm(plus(hidden, self.scaled(attended)), self.post_attention_layernorm)
        return plus(hidden, self.scaled(self.mlp(normed, lowering=context.lowering))), cache, weights

    def scaled(self, added: Any) -> Any:
        """The sum that a part of the block adds, times the configuration's factor."""
        factor = self.config.residual_multiplier
        return added if factor == 1 else whole(added) * factor


class RotaryDecoderBackbone(MakesNorms, DecoderBackbone):
    """Token ids (or embeddings) to hidden states.

    A family sets `config_class`, and `block_class` where its blocks differ in more than data.
    """

    block_class: ClassVar[type[keras.layers.Layer]] = RotaryBlock

    def __init__(self, config: DecoderConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.embed_tokens = embedding(
            config.vocab_size,
            config.hidden_size,
            std=config.initializer_range,
            dtype=dtype,
            name="embed_tokens",
            padding_id=config.pad_token_id,
            scale=config.table_scale,
        )
        self.layers = [
            self.block_class(config, dtype=dtype, name=f"layers_{index}") for index in range(config.num_hidden_layers)
        ]
        self.norm = self.make_norm("norm")
        kinds = dict.fromkeys(kind for kind in config.rotaries if kind is not None)
        self.rotary = {kind: RotaryEmbedding(config, kind) for kind in kinds}
        if any(config.windows):
            self.cache_windows = (None, *config.windows[1:])

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.embed_tokens, *self.layers, self.norm)

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        hidden, factor = super().embed(tokens, context), self.config.embedding_multiplier
        return hidden if factor == 1 else hidden * factor

    def position_context(self, context: BlockContext) -> BlockContext:
        rotaries = {kind: rotary(context.positions, context.lowering) for kind, rotary in self.rotary.items()}
        return dataclasses.replace(context, rotaries=rotaries)

    def block_context(self, context: BlockContext, index: int) -> BlockContext:
        mask, window, kind = context.mask, self.config.windows[index], self.config.rotaries[index]
        # A mask of four axes, which is not causal, is used as it is; a window as long as the keys limits nothing.
        if window is not None and mask.causal and not (isinstance(mask.key_length, int) and mask.key_length <= window):
            mask = mask.with_window(window)
        return dataclasses.replace(context, mask=mask, rotary=context.rotaries.get(kind))

    def final_norm(self, hidden: Any) -> Any:
        return self.norm(hidden)


class RotaryDecoderModel(TFPreTrainedModel):
    """Base of the families' models: the names of weights in files, and how the layers split over devices."""

    base_model_prefix = "model"
    token_classifier_name = "score"
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
