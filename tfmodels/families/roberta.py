"""RoBERTa (Liu et al., https://arxiv.org/abs/1907.11692).

An encoder of BERT's kind whose positions skip padding. Covers RoBERTa base and large, DistilRoBERTa, the sentence
encoders and cross-encoders built on it, and everything else whose `model_type` is "roberta".
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
    FirstTokenHead,
    PostNormEncoder,
    TransformedMaskedLMHead,
)
from tfmodels.utils.text import quote


class RobertaConfig(EncoderConfig):
    """Configuration of a RoBERTa model, an `EncoderConfig`; the defaults are those of transformers.

    Positions begin behind `pad_token_id`: the longest input has `max_position_embeddings - pad_token_id - 1` tokens.
    With `pad_token_id=None` every call must give `position_ids`.

    Example:
        >>> from tfmodels import RobertaConfig
        >>> RobertaConfig(num_labels=3).pad_token_id
        1
    """

    model_type: ClassVar[str] = "roberta"

    # fmt: off
    def __init__(
        self, vocab_size: int = 50265, hidden_size: int = 768, num_hidden_layers: int = 12,
        num_attention_heads: int = 12, intermediate_size: int = 3072, hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1, attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512, type_vocab_size: int = 2, initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12, pad_token_id: int | None = 1, bos_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = 2, position_embedding_type: str = "absolute", use_cache: bool = True,
        classifier_dropout: float | None = None, **kwargs: Any
    ) -> None: ...
    # fmt: on

    def validate(self) -> None:
        super().validate()
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.max_position_embeddings:
            raise ValueError(
                f"pad_token_id={quote(self.pad_token_id)} in RobertaConfig; positions are counted from it: a number "
                f"below max_position_embeddings={self.max_position_embeddings} was expected, or None."
            )


class RobertaBackbone(PostNormEncoder):
    """Token ids (or embeddings) to hidden states; arguments as in `PostNormEncoder`."""

    config_class = RobertaConfig
    input_names = TYPED_INPUTS

    def __init__(self, config: RobertaConfig, **kwargs: Any):
        super().__init__(config, padding_id=config.pad_token_id, skipped_id=config.pad_token_id, **kwargs)

    def positions(self, position_ids: Any, input_ids: Any, length: Any) -> tuple[Any, Any]:
        if position_ids is None and self.skipped_id is None:
            raise ValueError(
                "position_ids are missing: RoBERTa counts them from pad_token_id, which is None here. "
                "Set it before the model is made (1 in published checkpoints), or give position_ids."
            )
        return super().positions(position_ids, input_ids, length)


class TFRobertaPreTrainedModel(TFPreTrainedModel):
    """Base of the RoBERTa models."""

    backbone_class = RobertaBackbone
    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": False}
    base_model_prefix = "roberta"
    weight_map = WeightMap(
        prefixes=("roberta",),
        pairs=LAYER_NAMES,
        drop=OLD_BUFFERS,
        optional=(r"^pooler\.",),
        twins=TWINS,
        tied=("lm_head.decoder.weight", "embed_tokens.weight"),
    )
    sharding = SHARDING


class TFRobertaModel(TFRobertaPreTrainedModel):
    """The bare RoBERTa encoder: hidden states and the pooled first token, no head."""

    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": True}


class TFRobertaForMaskedLM(TransformedMaskedLMHead, TFRobertaPreTrainedModel):
    """RoBERTa that fills in masked tokens."""

    head_activation = "gelu"  # whatever the configuration says


class TFRobertaForSequenceClassification(FirstTokenHead, TFRobertaPreTrainedModel):
    """RoBERTa that classifies whole sequences, or scores pairs of texts as cross-encoders do."""


class TFRobertaForMultipleChoice(heads.MultipleChoiceHead, TFRobertaPreTrainedModel):
    """RoBERTa that chooses among several texts."""

    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": True}


class TFRobertaForTokenClassification(heads.TokenClassificationHead, TFRobertaPreTrainedModel):
    """RoBERTa that classifies every token."""


class TFRobertaForQuestionAnswering(heads.QuestionAnsweringHead, TFRobertaPreTrainedModel):
    """RoBERTa that finds an answer's start and end."""
