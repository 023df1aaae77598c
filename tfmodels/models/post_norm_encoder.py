"""The encoder that BERT and the families built like it share.

Post-normalised, with learned positions and full attention. What differs between the families is data: fields of their
configurations, and what their backbones set before they make their layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfmodels.layers.activations import get_activation
from tfmodels.layers.attention import split_heads
from tfmodels.layers.classifiers import FirstTokenClassifier
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.linear import build_all, embedding, linear, unembed
from tfmodels.layers.norms import layer_norm
from tfmodels.layers.residual import whole
from tfmodels.models import heads
from tfmodels.models.backbone import BlockContext, EncoderBackbone, TokenInputs, as_rows
from tfmodels.models.calling import value_range
from tfmodels.models.sharding import Sharding
from tfmodels.runtime.lowering import PLAIN, Lowering

# Parts of names in the files of BERT and others -> parts of names here; and what they were called before.
LAYER_NAMES = (
    ("embeddings.word_embeddings.", "embed_tokens."),
    ("embeddings.position_embeddings.", "embed_positions."),
    ("embeddings.token_type_embeddings.", "embed_types."),
    ("embeddings.LayerNorm.", "embed_norm."),
    ("encoder.layer.", "layers."),
    ("attention.self.query.", "self_attn.q."),
    ("attention.self.key.", "self_attn.k."),
    ("attention.self.value.", "self_attn.v."),
    ("attention.output.dense.", "self_attn.o."),
    ("attention.output.LayerNorm.", "attention_norm."),
    ("intermediate.dense.", "feed_forward.up_proj."),
    ("output.dense.", "feed_forward.down_proj."),
    ("output.LayerNorm.", "output_norm."),
    ("pooler.dense.", "pooler."),
)
# One bias of the masked language model's head: files hold it under one name, the other, or both.
TWINS = (("lm_head.decoder.bias", "lm_head.bias"),)
# Buffers that files of old versions of PyTorch hold.
OLD_BUFFERS = (r"\bembeddings\.(position|token_type)_ids$",)
SHARDING = Sharding(
    queries="self_attn/q",
    keys_and_values="self_attn/(k|v)",
    attended="self_attn/o",
    widened="feed_forward/up_proj",
    narrowed="feed_forward/down_proj",
    tokens="embed_tokens",
    scores="lm_head/decoder",
)
# The inputs of families with token types, in the order of the former TensorFlow models.
TYPED_INPUTS = (*EncoderBackbone.input_names[:2], "token_type_ids", *EncoderBackbone.input_names[2:])


class EncoderAttention(keras.layers.Layer):
    """Self-attention of all tokens over all."""

    def __init__(self, config: Any, **kwargs: Any):
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


class EncoderBlock(keras.layers.Layer):
    """Attention and feed-forward, each added to what came in and normalised after."""

    def __init__(self, config: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = config.hidden_size
        dtype = self.dtype_policy
        self.self_attn = EncoderAttention(config, dtype=dtype, name="self_attn")
        share = getattr(config, "attention_output_dropout", config.hidden_dropout_prob)
        self.dropout = keras.layers.Dropout(share, dtype=dtype, name="dropout")
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
        return self.output_norm(hidden + whole(self.feed_forward(hidden, **options))), None, weights


class PostNormEncoder(EncoderBackbone):
    """Token ids (or embeddings) to hidden states.

    Args:
        config, attn_implementation: as in `Backbone`.
        add_pooling_layer: whether `pooler_output` is made from the first token.
        padding_id: the row of the token table that does not learn.
        skipped_id: the id whose tokens positions pass over: positions are counted from the one behind it, and it is
            the position of those tokens. None counts columns, from 0.
    """

    def __init__(
        self,
        config: Any,
        *,
        add_pooling_layer: bool = True,
        padding_id: int | None,
        skipped_id: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(config, **kwargs)
        dtype, std = self.dtype_policy, config.initializer_range
        width, positions = config.hidden_size, config.max_position_embeddings
        self.position_limit, self.skipped_id = positions, skipped_id
        options = {"std": std, "dtype": dtype}
        self.embed_tokens = embedding(config.vocab_size, width, name="embed_tokens", padding_id=padding_id, **options)
        self.embed_positions = embedding(positions, width, name="embed_positions", padding_id=skipped_id, **options)
        types = getattr(config, "type_vocab_size", None)
        self.embed_types = embedding(types, width, name="embed_types", **options) if types else None
        self.embed_norm = layer_norm(config.layer_norm_eps, dtype=dtype, name="embed_norm")
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, dtype=dtype, name="dropout")
        self.layers = [
            EncoderBlock(config, dtype=dtype, name=f"layers_{index}") for index in range(config.num_hidden_layers)
        ]
        self.pooler = linear(width, std=std, use_bias=True, dtype=dtype, name="pooler") if add_pooling_layer else None

    def build(self, input_shape: Any = None) -> None:
        embeddings = (self.embed_tokens, self.embed_positions, self.embed_types, self.embed_norm, self.dropout)
        build_all(self.config.hidden_size, *embeddings, *self.layers, self.pooler)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "add_pooling_layer": self.pooler is not None}

    @property
    def longest_input(self) -> int:
        return self.position_limit - (0 if self.skipped_id is None else self.skipped_id + 1)

    def positions(self, position_ids: Any, input_ids: Any, length: Any) -> tuple[Any, Any]:
        if position_ids is not None:
            return as_rows(position_ids), None
        start = 0 if self.skipped_id is None else self.skipped_id + 1
        if input_ids is None or self.skipped_id is None:
            return ops.expand_dims(ops.arange(start, length + start, dtype="int32"), 0), length + start
        tokens = ops.cast(ops.not_equal(input_ids, self.skipped_id), "int32")
        return ops.cumsum(tokens, axis=1) * tokens + self.skipped_id, length + start

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        hidden = super().embed(tokens, context)
        if self.embed_types is not None:
            hidden = hidden + self._types(tokens, context.lowering)
        hidden = self.embed_norm(hidden + self.embed_positions(context.positions, lowering=context.lowering))
        return self.dropout(hidden, training=context.training)

    def _types(self, tokens: TokenInputs, lowering: Lowering) -> Any:
        """Embeddings of the token types, (batch or 1, length or 1, hidden_size); type 0 where none are given."""
        if tokens.types is None:
            return self.embed_types(ops.zeros((1, 1), dtype="int32"), lowering=lowering)
        first, last = value_range(tokens.types) or (0, 0)
        if first < 0 or last >= self.embed_types.input_dim:
            raise ValueError(
                f"token_type_ids run from {first} to {last}; this model has types 0 to "
                f"{self.embed_types.input_dim - 1} (type_vocab_size={self.embed_types.input_dim})."
            )
        return self.embed_types(tokens.types, lowering=lowering)

    def pool(self, hidden: Any, lowering: Lowering) -> Any:
        return None if self.pooler is None else ops.tanh(self.pooler(hidden[:, 0], lowering=lowering))


class MaskedTokenLayer(keras.layers.Layer):
    """Prepares hidden states for the comparison with the embeddings.

    With tied embeddings it also holds the output's `bias`; otherwise `decoder`, the output layer.

    Args:
        config: of the model.
        activation: name of the activation behind the dense layer.
    """

    def __init__(self, config: Any, activation: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"std": config.initializer_range, "use_bias": True, "dtype": self.dtype_policy}
        self.dense = linear(config.hidden_size, name="dense", **options)
        self.activation = get_activation(activation)
        self.layer_norm = layer_norm(config.layer_norm_eps, dtype=self.dtype_policy, name="layer_norm")
        self.decoder = None if config.tie_word_embeddings else linear(config.vocab_size, name="decoder", **options)

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.dense, self.layer_norm, self.decoder)
        if self.decoder is None:
            self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="bias")

    def call(self, hidden: Any, lowering: Lowering = PLAIN) -> Any:
        return self.layer_norm(self.activation(self.dense(hidden, lowering=lowering)))


class TransformedTokens:
    """`make_head` and what follows of heads that score tokens by a `MaskedTokenLayer`, `self.lm_head`."""

    # The activation; None takes the configuration's.
    head_activation: str | None = None

    def make_head(self) -> None:
        activation = self.head_activation or self.config.hidden_act
        self.lm_head = MaskedTokenLayer(self.config, activation, dtype=self.dtype_policy, name="lm_head")

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


class FirstTokenHead(heads.SequenceClassificationHead):
    """Classification or regression of whole sequences by two dense layers on the first token's hidden state."""

    def make_head(self) -> None:
        config = self.config
        self.classifier = FirstTokenClassifier(
            config.hidden_size,
            config.num_labels,
            dropout=heads.classifier_dropout(config),
            std=config.initializer_range,
            dtype=self.dtype_policy,
            name="classifier",
        )

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.classifier)

    def classify(
        self, hidden: Any, inputs: Mapping[str, Any], training: bool | None, lowering: Lowering = PLAIN
    ) -> Any:
        return self.classifier(hidden, training=training, lowering=lowering)


class TransformedMaskedLMHead(TransformedTokens, heads.MaskedLMHead):
    """A masked-language-model head with a `MaskedTokenLayer`."""
