"""The encoder with rotary positions that ModernBERT and the families built like it share.

Pre-normalised, with a gated feed-forward block; layers see all tokens or a window to both sides. What differs between
the families is data of their configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfmodels.layers.activations import get_activation
from tfmodels.layers.attention import split_heads
from tfmodels.layers.feed_forward import FusedGatedFeedForward
from tfmodels.layers.linear import build_all, embedding, linear, unembed
from tfmodels.layers.norms import layer_norm
from tfmodels.layers.rotary import RotaryEmbedding, rotate
from tfmodels.layers.tokens import TokenInputs
from tfmodels.models import heads
from tfmodels.models.backbone import BlockContext, EncoderBackbone, as_rows
from tfmodels.models.sharding import Sharding
from tfmodels.runtime.lowering import PLAIN, Lowering

SHARDING = Sharding(
    queries="attn/Wqkv",
    attended="attn/Wo",
    widened="mlp/Wi",
    narrowed="mlp/Wo",
    tokens="embed_tokens",
    scores="decoder",
)


def norm(config: Any, *, dtype: Any, name: str) -> keras.layers.Layer:
    """Make a normalisation."""
    return layer_norm(config.norm_eps, use_bias=config.norm_bias, dtype=dtype, name=name)


def stds(config: Any) -> tuple[float, float]:
    """Standard deviations of the initial weights of projections into and out of the parts of a block."""
    return config.initializer_range, config.initializer_range / (2 * config.num_hidden_layers) ** 0.5


class RotaryEncoderAttention(keras.layers.Layer):
    """Self-attention with rotary positions, from one projection to queries, keys and values."""

    def __init__(self, config: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"use_bias": config.attention_bias, "dtype": self.dtype_policy}
        inner, outer = stds(config)
        self.Wqkv = linear(3 * config.hidden_size, std=inner, name="Wqkv", **options)
        self.Wo = linear(config.hidden_size, std=outer, name="Wo", **options)
        share, dtype = config.attention_dropout, self.dtype_policy
        self.dropout = keras.layers.Dropout(share, dtype=dtype, name="dropout")
        self.output_dropout = keras.layers.Dropout(share, dtype=dtype, name="output_dropout")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.Wqkv, self.Wo, self.output_dropout)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, Any]:
        heads, lowering = self.config.num_attention_heads, context.lowering
        fused = ops.split(self.Wqkv(hidden, lowering=lowering), 3, axis=-1)
        query, key, value = (split_heads(part, heads) for part in fused)
        query, key = rotate(query, *context.rotary), rotate(key, *context.rotary)
        scale = (self.config.hidden_size // heads) ** -0.5
        output, _, weights = context.attend(query, key, value, scale=scale, dropout=self.dropout)
        return self.output_dropout(self.Wo(output, lowering=lowering), training=context.training), weights


class RotaryEncoderBlock(keras.layers.Layer):
    """Attention and feed-forward, each normalised before and added to what came in; the embeddings already are."""

    def __init__(self, config: Any, *, first: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.attn_norm = None if first else norm(config, dtype=dtype, name="attn_norm")
        self.attn = RotaryEncoderAttention(config, dtype=dtype, name="attn")
        self.mlp_norm = norm(config, dtype=dtype, name="mlp_norm")
        sizes = (config.hidden_size, config.intermediate_size, config.hidden_activation, config.mlp_bias)
        options = {"names": ("Wi", "Wo"), "dropout": config.mlp_dropout, "dtype": dtype, "name": "mlp"}
        self.mlp = FusedGatedFeedForward(*sizes, stds(config), **options)

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.attn_norm, self.attn, self.mlp_norm, self.mlp)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, None, Any]:
        options = {"training": context.training, "lowering": context.lowering}
        attended, weights = self.attn(hidden if self.attn_norm is None else self.attn_norm(hidden), context=context)
        hidden = hidden + attended
        return hidden + self.mlp(self.mlp_norm(hidden), **options), None, weights


class RotaryEncoder(EncoderBackbone):
    """Token ids (or embeddings) to hidden states. A family sets `config_class`."""

    def __init__(self, config: Any, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        options = {"std": std, "padding_id": config.pad_token_id, "dtype": dtype, "name": "embed_tokens"}
        self.embed_tokens = embedding(config.vocab_size, config.hidden_size, **options)
        self.embed_norm = norm(config, dtype=dtype, name="embed_norm")
        self.dropout = keras.layers.Dropout(config.embedding_dropout, dtype=dtype, name="dropout")
        self.layers = [
            RotaryEncoderBlock(config, first=index == 0, dtype=dtype, name=f"layers_{index}")
            for index in range(config.num_hidden_layers)
        ]
        self.last_norm = norm(config, dtype=dtype, name="last_norm")
        self.rotary = {kind: RotaryEmbedding(config, kind) for kind in dict.fromkeys(config.layer_types)}

    def build(self, input_shape: Any = None) -> None:
        layers = (self.embed_tokens, self.embed_norm, self.dropout, *self.layers, self.last_norm)
        build_all(self.config.hidden_size, *layers)

    def positions(self, position_ids: Any, input_ids: Any, length: Any) -> tuple[Any, Any]:
        if position_ids is not None:
            return as_rows(position_ids), None
        return ops.expand_dims(ops.arange(length, dtype="int32"), 0), length

    def position_context(self, context: BlockContext) -> BlockContext:
        rotaries = {kind: rotary(context.positions) for kind, rotary in self.rotary.items()}
        return dataclasses.replace(context, rotaries=rotaries)

    def block_context(self, context: BlockContext, index: int) -> BlockContext:
        mask, window = context.mask, self.config.windows[index]
        # A mask of four axes is used as it is; a window as long as the keys limits nothing.
        short = window is None or (isinstance(mask.key_length, int) and mask.key_length <= window + 1)
        if not short and mask.pairs is None:
            mask = mask.with_window(window + 1, ahead=window)
        return dataclasses.replace(context, mask=mask, rotary=context.rotaries[self.config.layer_types[index]])

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        return self.dropout(self.embed_norm(super().embed(tokens, context)), training=context.training)

    def final_norm(self, hidden: Any) -> Any:
        return self.last_norm(hidden)

    def pool(self, hidden: Any, lowering: Lowering) -> None:
        return None


class PredictionHead(keras.layers.Layer):
    """norm(act(dense(x))), which all heads put before their last layer."""

    def __init__(self, config: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"use_bias": config.classifier_bias, "dtype": self.dtype_policy, "name": "dense"}
        self.dense = linear(config.hidden_size, std=stds(config)[1], **options)
        self.activation = get_activation(config.classifier_activation)
        self.norm = norm(config, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.dense, self.norm)

    def call(self, hidden: Any, lowering: Lowering = PLAIN) -> Any:
        return self.norm(self.activation(self.dense(hidden, lowering=lowering)))


class OutputBias(keras.layers.Layer):
    """The bias of an output layer whose other weights are the embedding table's."""

    def __init__(self, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = size

    def build(self, input_shape: Any = None) -> None:
        self.bias = self.add_weight(shape=(self.size,), initializer="zeros", name="bias")

    def call(self, scores: Any) -> Any:
        return scores + ops.cast(self.bias, scores.dtype)


class PredictionFeatures:
    """The part of a head that makes a `PredictionHead`, `self.head`, beside the layers of the head's own."""

    def make_head(self) -> None:
        super().make_head()
        self.head = PredictionHead(self.config, dtype=self.dtype_policy, name="head")
        share = self.config.classifier_dropout
        self.dropout = keras.layers.Dropout(share, dtype=self.dtype_policy, name="dropout")

    def build_head(self) -> None:
        super().build_head()
        build_all(self.config.hidden_size, self.head, self.dropout)

    def features(self, hidden: Any, training: bool | None, lowering: Lowering) -> Any:
        """The input of the last layer."""
        return self.dropout(self.head(hidden, lowering=lowering), training=training)

    def pooled_features(
        self, hidden: Any, mask: Any, training: bool | None, lowering: Lowering, *, first_token: bool = False
    ) -> Any:
        """The input of the last layer for a whole text, (batch, hidden_size), pooled by `config.classifier_pooling`.

        Args:
            hidden: the last hidden states, (batch, length, hidden_size).
            mask: the attention mask, or None.
            first_token: whether "cls" takes the first token that the mask has, rather than the first column.
        """
        mean = self.config.classifier_pooling == "mean"
        if mask is not None and len(mask.shape) != 2 and (mean or first_token):
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}; (batch, length) was expected, to find the tokens."
            )
        if mean:
            tokens = (
                ops.ones_like(hidden[..., :1]) if mask is None else ops.expand_dims(ops.cast(mask, hidden.dtype), 2)
            )
            pooled = ops.sum(hidden * tokens, axis=1) / ops.sum(tokens, axis=1)
        elif mask is None or not first_token:
            pooled = hidden[:, 0]
        else:
            place = ops.reshape(ops.argmax(ops.cast(mask, "int32"), axis=1), (-1, 1, 1))
            pooled = ops.squeeze(ops.take_along_axis(hidden, place, axis=1), 1)
        return self.features(pooled, training, lowering)


class RotaryEncoderMaskedLM(PredictionFeatures, heads.MaskedLMHead):
    """A masked-language-model head: `PredictionHead`, then the embedding table or a layer of its own, `decoder`."""

    def make_head(self) -> None:
        super().make_head()
        config, dtype = self.config, self.dtype_policy
        if not config.tie_word_embeddings:
            options = {"use_bias": config.decoder_bias, "dtype": dtype, "name": "decoder"}
            self.decoder = linear(config.vocab_size, std=stds(config)[1], **options)
        else:
            size = config.vocab_size
            self.decoder = OutputBias(size, dtype=dtype, name="decoder") if config.decoder_bias else None

    def build_head(self) -> None:
        super().build_head()
        build_all(self.config.hidden_size, self.decoder)

    def to_logits(self, hidden: Any, lowering: Lowering = PLAIN) -> Any:
        """Scores over the vocabulary, (batch, length, vocab_size), from hidden states (batch, length, hidden_size)."""
        hidden = self.head(hidden, lowering=lowering)
        if not self.config.tie_word_embeddings:
            return self.decoder(hidden, lowering=lowering)
        scores = unembed(hidden, self.get_input_embeddings(), lowering)
        return scores if self.decoder is None else self.decoder(scores)

    def get_output_embeddings(self) -> keras.layers.Layer:
        """The layer that gives logits: the decoder, or the input embeddings where they are tied."""
        return self.get_input_embeddings() if self.config.tie_word_embeddings else self.decoder


class RotaryEncoderClassifier(PredictionFeatures, heads.PooledClassificationHead):
    """Classification or regression of whole sequences by `classifier_pooling`."""

    def classify(
        self, hidden: Any, inputs: Mapping[str, Any], training: bool | None, lowering: Lowering = PLAIN
    ) -> Any:
        features = self.pooled_features(hidden, inputs["attention_mask"], training, lowering)
        return self.classifier(features, lowering=lowering)


class RotaryEncoderChoice(PredictionFeatures, heads.MultipleChoiceHead):
    """Choice among several texts by `classifier_pooling`."""

    def choice_features(
        self, outputs: Any, inputs: Mapping[str, Any], training: bool | None, lowering: Lowering
    ) -> Any:
        mask = inputs["attention_mask"]
        return self.pooled_features(outputs.last_hidden_state, mask, training, lowering, first_token=True)


class RotaryEncoderTokens(PredictionFeatures, heads.TokenClassificationHead):
    """Classification of every token."""

    def token_features(self, hidden: Any, training: bool | None, lowering: Lowering) -> Any:
        return self.features(hidden, training, lowering)


class RotaryEncoderAnswers(PredictionFeatures, heads.QuestionAnsweringHead):
    """Start and end of an answer."""

    classifier_name = "classifier"

    def answer_features(self, hidden: Any, training: bool | None, lowering: Lowering) -> Any:
        return self.features(hidden, training, lowering)
