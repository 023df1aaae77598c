"""BERT (Devlin et al., https://arxiv.org/abs/1810.04805).

Post-normalised encoder with learned positions and token types. Covers BERT base and large, multilingual BERT, the
sentence encoders and cross-encoders built on it such as all-MiniLM-L6-v2, bge and e5, and everything else whose
`model_type` is "bert".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.encoder import EncoderConfig
from tfmodels.models import heads
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.post_norm_encoder import (
    LAYER_NAMES,
    OLD_BUFFERS,
    SHARDING,
    TWINS,
    TYPED_INPUTS,
    PostNormEncoder,
    TransformedMaskedLMHead,
    TransformedTokens,
)

WITH_POOLER = {"add_pooling_layer": True}


class BertConfig(EncoderConfig):
    """Configuration of a BERT model, an `EncoderConfig`; the defaults are bert-base-uncased's.

    Example:
        >>> from tfmodels import BertConfig
        >>> BertConfig(num_labels=3).num_labels
        3
    """

    model_type: ClassVar[str] = "bert"

    # fmt: off
    def __init__(
        self, vocab_size: int = 30522, hidden_size: int = 768, num_hidden_layers: int = 12,
        num_attention_heads: int = 12, intermediate_size: int = 3072, hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1, attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512, type_vocab_size: int = 2, initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12, pad_token_id: int | None = 0, position_embedding_type: str = "absolute",
        use_cache: bool = True, classifier_dropout: float | None = None, **kwargs: Any
    ) -> None: ...
    # fmt: on


class BertBackbone(PostNormEncoder):
    """Token ids (or embeddings) to hidden states; arguments as in `PostNormEncoder`."""

    config_class = BertConfig
    input_names = TYPED_INPUTS

    def __init__(self, config: BertConfig, **kwargs: Any):
        super().__init__(config, padding_id=config.pad_token_id, **kwargs)


class TFBertPreTrainedModel(TFPreTrainedModel):
    """Base of the BERT models."""

    backbone_class = BertBackbone
    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": False}
    base_model_prefix = "bert"
    weight_map = WeightMap(
        prefixes=("bert",),
        pairs=(
            *LAYER_NAMES,
            ("cls.predictions.transform.dense.", "lm_head.dense."),
            ("cls.predictions.transform.LayerNorm.", "lm_head.layer_norm."),
            ("cls.predictions.decoder.", "lm_head.decoder."),
            ("cls.predictions.bias", "lm_head.bias"),
            ("cls.seq_relationship.", "seq_relationship."),
        ),
        drop=OLD_BUFFERS,
        optional=(r"^pooler\.",),
        twins=TWINS,
        tied=("lm_head.decoder.weight", "embed_tokens.weight"),
    )
    sharding = SHARDING


class TFBertModel(TFBertPreTrainedModel):
    """The bare BERT encoder: hidden states and the pooled first token, no head."""

    backbone_options: ClassVar[dict[str, Any]] = WITH_POOLER


class TFBertForPreTraining(heads.PreTrainingHead, TransformedTokens, TFBertPreTrainedModel):
    """BERT with both heads of its pretraining: masked tokens and the next sentence."""

    backbone_options: ClassVar[dict[str, Any]] = WITH_POOLER


class TFBertForMaskedLM(TransformedMaskedLMHead, TFBertPreTrainedModel):
    """BERT that fills in masked tokens."""


class TFBertForNextSentencePrediction(heads.NextSentenceHead, TFBertPreTrainedModel):
    """BERT that tells whether one text follows another."""

    backbone_options: ClassVar[dict[str, Any]] = WITH_POOLER


class TFBertForSequenceClassification(heads.PooledClassificationHead, TFBertPreTrainedModel):
    """BERT that classifies whole sequences, or scores pairs of texts as cross-encoders do."""

    backbone_options: ClassVar[dict[str, Any]] = WITH_POOLER


class TFBertForMultipleChoice(heads.MultipleChoiceHead, TFBertPreTrainedModel):
    """BERT that chooses among several texts."""

    backbone_options: ClassVar[dict[str, Any]] = WITH_POOLER


class TFBertForTokenClassification(heads.TokenClassificationHead, TFBertPreTrainedModel):
    """BERT that classifies every token."""


class TFBertForQuestionAnswering(heads.QuestionAnsweringHead, TFBertPreTrainedModel):
    """BERT that finds an answer's start and end."""
