"""DistilBERT (Sanh et al., https://arxiv.org/abs/1910.01108).

An encoder of BERT's kind without token types and pooler. Covers DistilBERT base, its multilingual and fine-tuned
variants, and everything else whose `model_type` is "distilbert".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.base import ModelConfig
from tfmodels.layers.linear import build_all
from tfmodels.models import heads
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.post_norm_encoder import OLD_BUFFERS, SHARDING, TWINS, PostNormEncoder, TransformedMaskedLMHead
from tfmodels.runtime.lowering import PLAIN, Lowering


class DistilBertConfig(ModelConfig):
    """Configuration of a DistilBERT model; the defaults are distilbert-base-uncased's.

    Fields: sizes and dropout shares as named; `sinusoidal_pos_embds` is kept for the file's sake: the positions' table
    is among the weights.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import DistilBertConfig
        >>> DistilBertConfig(dim=64, n_heads=4).hidden_size
        64
    """

    model_type: ClassVar[str] = "distilbert"
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
    layer_norm_eps: ClassVar[float] = 1e-12
    attention_output_dropout: ClassVar[float] = 0.0

    # fmt: off
    def __init__(
        self, vocab_size: int = 30522, max_position_embeddings: int = 512, sinusoidal_pos_embds: bool = False,
        n_layers: int = 6, n_heads: int = 12, dim: int = 768, hidden_dim: int = 3072, dropout: float = 0.1,
        attention_dropout: float = 0.1, activation: str = "gelu", initializer_range: float = 0.02,
        qa_dropout: float = 0.1, seq_classif_dropout: float = 0.2, pad_token_id: int | None = 0, **kwargs: Any
    ) -> None: ...
    # fmt: on

    def validate(self) -> None:
        self.check_positive("vocab_size", "max_position_embeddings", "n_layers", "n_heads", "dim", "hidden_dim")
        self.check_divisible("dim", by="n_heads")
        super().validate()


class DistilBertBackbone(PostNormEncoder):
    """Token ids (or embeddings) to hidden states; arguments as in `PostNormEncoder`."""

    config_class = DistilBertConfig

    def __init__(self, config: DistilBertConfig, **kwargs: Any):
        super().__init__(config, padding_id=config.pad_token_id, **kwargs)


class TFDistilBertPreTrainedModel(TFPreTrainedModel):
    """Base of the DistilBERT models."""

    backbone_class = DistilBertBackbone
    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": False}
    base_model_prefix = "distilbert"
    weight_map = WeightMap(
        prefixes=("distilbert",),
        pairs=(
            ("embeddings.word_embeddings.", "embed_tokens."),
            ("embeddings.position_embeddings.", "embed_positions."),
            ("embeddings.LayerNorm.", "embed_norm."),
            ("transformer.layer.", "layers."),
            ("attention.q_lin.", "self_attn.q."),
            ("attention.k_lin.", "self_attn.k."),
            ("attention.v_lin.", "self_attn.v."),
            ("attention.out_lin.", "self_attn.o."),
            ("sa_layer_norm.", "attention_norm."),
            ("ffn.lin1.", "feed_forward.up_proj."),
            ("ffn.lin2.", "feed_forward.down_proj."),
            ("output_layer_norm.", "output_norm."),
            ("vocab_transform.", "lm_head.dense."),
            ("vocab_layer_norm.", "lm_head.layer_norm."),
            ("vocab_projector.weight", "lm_head.decoder.weight"),
            ("vocab_projector.bias", "lm_head.bias"),
            ("vocab_projector.bias", "lm_head.decoder.bias"),
        ),
        drop=OLD_BUFFERS,
        twins=TWINS,
        tied=("lm_head.decoder.weight", "embed_tokens.weight"),
    )
    sharding = SHARDING


class TFDistilBertModel(TFDistilBertPreTrainedModel):
    """The bare DistilBERT encoder: hidden states, no head."""


class TFDistilBertForMaskedLM(TransformedMaskedLMHead, TFDistilBertPreTrainedModel):
    """DistilBERT that fills in masked tokens."""


class FirstTokenFeatures:
    """Layers of a head that reads the first token's hidden state through a dense layer and ReLU."""

    def make_features(self, outputs: int) -> None:
        """Make the layers, with a classifier of so many outputs."""
        share = self.config.seq_classif_dropout
        self.pre_classifier = self.make_linear(self.config.dim, use_bias=True, name="pre_classifier")
        self.classifier = self.make_linear(outputs, use_bias=True, name="classifier")
        self.dropout = keras.layers.Dropout(share, dtype=self.dtype_policy, name="dropout")

    def build_head(self) -> None:
        build_all(self.config.dim, self.pre_classifier, self.classifier, self.dropout)

    def features(self, hidden: Any, training: bool | None, lowering: Lowering) -> Any:
        """The classifier's input, (batch, dim)."""
        first = ops.relu(self.pre_classifier(hidden[:, 0], lowering=lowering))
        return self.dropout(first, training=training)


class TFDistilBertForSequenceClassification(
    FirstTokenFeatures, heads.SequenceClassificationHead, TFDistilBertPreTrainedModel
):
    """DistilBERT that classifies whole sequences."""

    def make_head(self) -> None:
        self.make_features(self.config.num_labels)

    def classify(
        self, hidden: Any, inputs: Mapping[str, Any], training: bool | None, lowering: Lowering = PLAIN
    ) -> Any:
        return self.classifier(self.features(hidden, training, lowering), lowering=lowering)


class TFDistilBertForMultipleChoice(FirstTokenFeatures, heads.MultipleChoiceHead, TFDistilBertPreTrainedModel):
    """DistilBERT that chooses among several texts."""

    def make_head(self) -> None:
        self.make_features(1)

    def choice_features(
        self, outputs: Any, inputs: Mapping[str, Any], training: bool | None, lowering: Lowering
    ) -> Any:
        return self.features(outputs.last_hidden_state, training, lowering)


class TFDistilBertForTokenClassification(heads.TokenClassificationHead, TFDistilBertPreTrainedModel):
    """DistilBERT that classifies every token."""


class TFDistilBertForQuestionAnswering(heads.QuestionAnsweringHead, TFDistilBertPreTrainedModel):
    """DistilBERT that finds an answer's start and end."""

    def make_head(self) -> None:
        super().make_head()
        self.dropout = keras.layers.Dropout(self.config.qa_dropout, dtype=self.dtype_policy, name="dropout")

    def answer_features(self, hidden: Any, training: bool | None, lowering: Lowering) -> Any:
        return self.dropout(hidden, training=training)
