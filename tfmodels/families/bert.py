"""BERT (Devlin et al., https://arxiv.org/abs/1810.04805).

Post-normalised encoder with learned positions and token types. Covers BERT base and large, multilingual BERT, the
sentence encoders and cross-encoders built on it such as all-MiniLM-L6-v2, bge and e5, and everything else whose
`model_type` is "bert".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.base import ModelConfig
from tfmodels.configs.part import configuration
from tfmodels.models import heads
from tfmodels.models.backbone import EncoderBackbone
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.post_norm_encoder import PostNormEncoder, TransformedMaskedLMHead, TransformedTokens
from tfmodels.models.sharding import Sharding

WITH_POOLER = {"add_pooling_layer": True}


@configuration
class BertConfig(ModelConfig):
    """Configuration of a BERT model; the defaults are bert-base-uncased's.

    Fields: sizes and dropout shares as named; `type_vocab_size` is the number of token types; `classifier_dropout`
    None means `hidden_dropout_prob`. `position_embedding_type` and `use_cache` are kept for the file's sake.

    Raises:
        ValueError: values contradict each other, or ask for what this family does not have: decoding, relative
            positions.

    Example:
        >>> from tfmodels import BertConfig
        >>> BertConfig(num_labels=3).num_labels
        3
    """

    model_type: ClassVar[str] = "bert"
    positional: ClassVar[tuple[str, ...]] = (
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings"),
        *("type_vocab_size", "initializer_range", "layer_norm_eps", "pad_token_id", "position_embedding_type"),
        *("use_cache", "classifier_dropout"),
    )

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    use_cache: bool = True
    classifier_dropout: float | None = None

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        self.check_positive("num_attention_heads", "max_position_embeddings", "type_vocab_size")
        self.check_divisible("hidden_size", by="num_attention_heads")
        self.check_known("position_embedding_type", ("absolute",))
        self.check_known("is_decoder", (False,))
        self.check_known("add_cross_attention", (False,))
        super().validate()


class BertBackbone(PostNormEncoder):
    """Token ids (or embeddings) to hidden states; arguments as in `PostNormEncoder`."""

    config_class = BertConfig
    input_names = (*EncoderBackbone.input_names[:2], "token_type_ids", *EncoderBackbone.input_names[2:])

    def __init__(self, config: BertConfig, **kwargs: Any):
        super().__init__(config, padding_id=config.pad_token_id, **kwargs)


class TFBertPreTrainedModel(TFPreTrainedModel):
    """Base of the BERT models."""

    config_class = BertConfig
    backbone_class = BertBackbone
    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": False}
    base_model_prefix = "bert"
    weight_map = WeightMap(
        prefixes=("bert",),
        # Before they were called so.
        renames=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
        pairs=(
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
            ("cls.predictions.transform.dense.", "lm_head.dense."),
            ("cls.predictions.transform.LayerNorm.", "lm_head.layer_norm."),
            ("cls.predictions.decoder.", "lm_head.decoder."),
            ("cls.predictions.bias", "lm_head.bias"),
            ("cls.seq_relationship.", "seq_relationship."),
        ),
        drop=(r"\bembeddings\.position_ids$",),
        optional=(r"^pooler\.",),
        # One bias: files hold it under one name, the other, or both.
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
