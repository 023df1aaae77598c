"""MPNet (Song et al., https://arxiv.org/abs/2004.09297).

Post-normalised encoder with learned positions that skip padding, and a relative attention bias that all layers share.
Covers microsoft/mpnet-base, the sentence encoders built on it such as all-mpnet-base-v2, and everything else whose
`model_type` is "mpnet".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.base import ModelConfig
from tfmodels.configs.part import configuration
from tfmodels.layers.activations import gelu
from tfmodels.layers.attention import split_heads
from tfmodels.layers.classifiers import FirstTokenClassifier
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.linear import build_all, embedding, linear, unembed
from tfmodels.layers.norms import layer_norm
from tfmodels.layers.relative_bias import RelativeBias
from tfmodels.models.backbone import BlockContext, EncoderBackbone, TokenInputs, as_rows
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.heads import (
    MaskedLMHead,
    MultipleChoiceHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from tfmodels.models.sharding import Sharding
from tfmodels.runtime.lowering import PLAIN, Lowering

# The architecture counts positions from here, whatever `pad_token_id` says: this id is padding and has this position.
PADDING_ID = 1
# Distances fall into 32 buckets, whatever size the table has; a smaller table is used whole.
MAX_BUCKETS, MAX_DISTANCE = 32, 128


@configuration
class MPNetConfig(ModelConfig):
    """Configuration of an MPNet model; the defaults are mpnet-base's.

    Fields: sizes and dropout shares as named. The longest input has `max_position_embeddings - 2` tokens: positions
    start after the padding's. `relative_attention_num_buckets` is the size of the bias table, of which at most 32 rows
    are used.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import MPNetConfig
        >>> MPNetConfig(num_labels=3).num_labels
        3
    """

    model_type: ClassVar[str] = "mpnet"
    positional: ClassVar[tuple[str, ...]] = (
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings"),
        *("initializer_range", "layer_norm_eps", "relative_attention_num_buckets", "pad_token_id", "bos_token_id"),
        *("eos_token_id",),
    )

    vocab_size: int = 30527
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    relative_attention_num_buckets: int = 32
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        self.check_positive("num_attention_heads", "max_position_embeddings", "relative_attention_num_buckets")
        self.check_divisible("hidden_size", by="num_attention_heads")
        if self.relative_attention_num_buckets < 4:
            raise ValueError(
                f"relative_attention_num_buckets={self.relative_attention_num_buckets}; at least 4 are needed."
            )
        super().validate()


class MPNetAttention(keras.layers.Layer):
    """Self-attention of all tokens over all."""

    def __init__(self, config: MPNetConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads = config.num_attention_heads
        self.width = config.hidden_size
        options = {"std": config.initializer_range, "use_bias": True, "dtype": self.dtype_policy}
        self.q, self.k, self.v, self.o = (linear(self.width, name=name, **options) for name in "qkvo")
        self.dropout = keras.layers.Dropout(
            config.attention_probs_dropout_prob, dtype=self.dtype_policy, name="dropout"
        )

    def build(self, input_shape: Any = None) -> None:
        build_all(self.width, self.q, self.k, self.v, self.o)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, Any]:
        lowering = context.lowering
        query, key, value = (
            split_heads(layer(hidden, lowering=lowering), self.heads) for layer in (self.q, self.k, self.v)
        )
        scale = (self.width // self.heads) ** -0.5
        output, _, weights = context.attend(query, key, value, scale=scale, dropout=self.dropout)
        return self.o(output, lowering=lowering), weights


class MPNetBlock(keras.layers.Layer):
    """Attention and feed-forward, each added to what came in and normalised after."""

    def __init__(self, config: MPNetConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = config.hidden_size
        dtype = self.dtype_policy
        self.self_attn = MPNetAttention(config, dtype=dtype, name="self_attn")
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, dtype=dtype, name="dropout")
        self.attention_norm = layer_norm(config.layer_norm_eps, dtype=dtype, name="attention_norm")
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            use_bias=True,
            std=config.initializer_range,
            dropout=config.hidden_dropout_prob,
            dtype=dtype,
            name="feed_forward",
        )
        self.output_norm = layer_norm(config.layer_norm_eps, dtype=dtype, name="output_norm")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.width, self.self_attn, self.dropout, self.attention_norm, self.feed_forward, self.output_norm)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, None, Any]:
        options = {"training": context.training, "lowering": context.lowering}
        attended, weights = self.self_attn(hidden, context=context)
        hidden = self.attention_norm(hidden + self.dropout(attended, training=context.training))
        return self.output_norm(hidden + self.feed_forward(hidden, **options)), None, weights


class MPNetBackbone(EncoderBackbone):
    """Token ids (or embeddings) to hidden states.

    Args:
        config, attn_implementation: as in `Backbone`.
        add_pooling_layer: whether `pooler_output` is made from the first token.
    """

    config_class = MPNetConfig

    def __init__(self, config: MPNetConfig, *, add_pooling_layer: bool = True, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        width, positions = config.hidden_size, config.max_position_embeddings
        self.position_limit = positions
        options = {"std": std, "dtype": dtype, "padding_id": PADDING_ID}
        self.embed_tokens = embedding(config.vocab_size, width, name="embed_tokens", **options)
        self.embed_positions = embedding(positions, width, name="embed_positions", **options)
        self.embed_norm = layer_norm(config.layer_norm_eps, dtype=dtype, name="embed_norm")
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, dtype=dtype, name="dropout")
        self.layers = [
            MPNetBlock(config, dtype=dtype, name=f"layers_{index}") for index in range(config.num_hidden_layers)
        ]
        rows = config.relative_attention_num_buckets
        self.relative_bias = RelativeBias(
            config.num_attention_heads,
            rows,
            buckets=min(rows, MAX_BUCKETS),
            max_distance=MAX_DISTANCE,
            std=std,
            dtype=dtype,
            name="relative_bias",
        )
        self.pooler = linear(width, std=std, use_bias=True, dtype=dtype, name="pooler") if add_pooling_layer else None

    def build(self, input_shape: Any = None) -> None:
        embeddings = (self.embed_tokens, self.embed_positions, self.embed_norm, self.dropout)
        build_all(self.config.hidden_size, *embeddings, *self.layers, self.relative_bias, self.pooler)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "add_pooling_layer": self.pooler is not None}

    @property
    def longest_input(self) -> int:
        return self.position_limit - PADDING_ID - 1

    def positions(self, position_ids: Any, input_ids: Any, length: Any) -> tuple[Any, Any]:
        if position_ids is not None:
            return as_rows(position_ids), None
        if input_ids is None:
            counted = ops.expand_dims(ops.arange(1, length + 1, dtype="int32"), 0)
        else:
            tokens = ops.cast(ops.not_equal(input_ids, PADDING_ID), "int32")
            counted = ops.cumsum(tokens, axis=1) * tokens
        return counted + PADDING_ID, length + PADDING_ID + 1

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        positions = self.embed_positions(context.positions, lowering=context.lowering)
        hidden = self.embed_norm(super().embed(tokens, context) + positions)
        return self.dropout(hidden, training=context.training)

    def position_context(self, context: BlockContext) -> BlockContext:
        # Distances are counted in columns: padding and given positions do not move them.
        columns = ops.arange(context.mask.query_length, dtype="int32")
        return dataclasses.replace(context, bias=self.relative_bias(columns, lowering=context.lowering))

    def pool(self, hidden: Any, lowering: Lowering) -> Any:
        return None if self.pooler is None else ops.tanh(self.pooler(hidden[:, 0], lowering=lowering))


class MPNetLMHead(keras.layers.Layer):
    """Prepares hidden states for the comparison with the embeddings, always by exact GELU.

    With tied embeddings it also holds the output's `bias`; otherwise `decoder`, the output layer.
    """

    def __init__(self, config: MPNetConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"std": config.initializer_range, "use_bias": True, "dtype": self.dtype_policy}
        self.dense = linear(config.hidden_size, name="dense", **options)
        self.layer_norm = layer_norm(config.layer_norm_eps, dtype=self.dtype_policy, name="layer_norm")
        self.decoder = None if config.tie_word_embeddings else linear(config.vocab_size, name="decoder", **options)

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.dense, self.layer_norm, self.decoder)
        if self.decoder is None:
            self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="bias")

    def call(self, hidden: Any, lowering: Lowering = PLAIN) -> Any:
        return self.layer_norm(gelu(self.dense(hidden, lowering=lowering)))


class TFMPNetPreTrainedModel(TFPreTrainedModel):
    """Base of the MPNet models."""

    config_class = MPNetConfig
    backbone_class = MPNetBackbone
    ignored_inputs = ("token_type_ids",)
    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": False}
    base_model_prefix = "mpnet"
    weight_map = WeightMap(
        prefixes=("mpnet",),
        pairs=(
            ("embeddings.word_embeddings.", "embed_tokens."),
            ("embeddings.position_embeddings.", "embed_positions."),
            ("embeddings.LayerNorm.", "embed_norm."),
            ("encoder.relative_attention_bias.", "relative_bias.table."),
            ("encoder.layer.", "layers."),
            ("attention.attn.", "self_attn."),
            ("attention.LayerNorm.", "attention_norm."),
            ("intermediate.dense.", "feed_forward.up_proj."),
            ("output.dense.", "feed_forward.down_proj."),
            ("output.LayerNorm.", "output_norm."),
            ("pooler.dense.", "pooler."),
        ),
        drop=(r"\bembeddings\.position_ids$",),
        optional=(r"^pooler\.",),
        # One bias: files hold it under the second name, and some of transformers 5 under the one that is used.
        twins=(("lm_head.decoder.bias", "lm_head.bias"),),
        tied=("lm_head.decoder.weight", "embed_tokens.weight"),
    )
    sharding = Sharding(
        queries="self_attn/q",
        keys_and_values="self_attn/(k|v)",
        attended="self_attn/o",
        widened="feed_forward/up_proj",
        narrowed="feed_forward/down_proj",
        tokens="embed_tokens",
        scores="lm_head/decoder",
    )


class TFMPNetModel(TFMPNetPreTrainedModel):
    """The bare MPNet encoder: hidden states and the pooled first token, no head."""

    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": True}


class TFMPNetForMaskedLM(MaskedLMHead, TFMPNetPreTrainedModel):
    """MPNet that fills in masked tokens."""

    def make_head(self) -> None:
        self.lm_head = MPNetLMHead(self.config, dtype=self.dtype_policy, name="lm_head")

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.lm_head)

    def to_logits(self, hidden: Any, lowering: Lowering = PLAIN) -> Any:
        """Scores over the vocabulary, (batch, length, vocab_size), from hidden states (batch, length, hidden_size)."""
        hidden = self.lm_head(hidden, lowering=lowering)
        if self.lm_head.decoder is not None:
            return self.lm_head.decoder(hidden, lowering=lowering)
        scores = unembed(hidden, self.get_input_embeddings(), lowering)
        return scores + ops.cast(self.lm_head.bias, hidden.dtype)

    def get_output_embeddings(self) -> keras.layers.Layer:
        """The layer that gives logits: the decoder, or the input embeddings where they are tied."""
        return self.lm_head.decoder or self.get_input_embeddings()


class TFMPNetForSequenceClassification(SequenceClassificationHead, TFMPNetPreTrainedModel):
    """MPNet that classifies whole sequences."""

    def make_head(self) -> None:
        config = self.config
        self.classifier = FirstTokenClassifier(
            config.hidden_size,
            config.num_labels,
            dropout=config.hidden_dropout_prob,
            std=config.initializer_range,
            dtype=self.dtype_policy,
            name="classifier",
        )

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.classifier)

    def classify(self, hidden: Any, input_ids: Any, training: bool | None, lowering: Lowering = PLAIN) -> Any:
        return self.classifier(hidden, training=training, lowering=lowering)


class TFMPNetForMultipleChoice(MultipleChoiceHead, TFMPNetPreTrainedModel):
    """MPNet that chooses among several texts."""

    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": True}


class TFMPNetForTokenClassification(TokenClassificationHead, TFMPNetPreTrainedModel):
    """MPNet that classifies every token."""


class TFMPNetForQuestionAnswering(QuestionAnsweringHead, TFMPNetPreTrainedModel):
    """MPNet that finds an answer's start and end."""
