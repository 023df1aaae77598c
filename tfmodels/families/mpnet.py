"""MPNet (Song et al., https://arxiv.org/abs/2004.09297).

Post-normalised encoder with learned positions that skip padding, and a relative attention bias that all layers share.
Covers microsoft/mpnet-base, the sentence encoders built on it such as all-mpnet-base-v2, and everything else whose
`model_type` is "mpnet".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from keras import ops

from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.base import ModelConfig
from tfmodels.layers.linear import build_all
from tfmodels.layers.relative_bias import RelativeBias
from tfmodels.models.backbone import BlockContext
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.heads import (
    MultipleChoiceHead,
    QuestionAnsweringHead,
    TokenClassificationHead,
)
from tfmodels.models.post_norm_encoder import (
    OLD_BUFFERS,
    SHARDING,
    TWINS,
    FirstTokenHead,
    PostNormEncoder,
    TransformedMaskedLMHead,
)

# The architecture counts positions from here, whatever `pad_token_id` says: this id is padding and has this position.
PADDING_ID = 1
# Distances fall into 32 buckets, whatever size the table has; a smaller table is used whole.
MAX_BUCKETS, MAX_DISTANCE = 32, 128


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

    # fmt: off
    def __init__(
        self, vocab_size: int = 30527, hidden_size: int = 768, num_hidden_layers: int = 12,
        num_attention_heads: int = 12, intermediate_size: int = 3072, hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1, attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512, initializer_range: float = 0.02, layer_norm_eps: float = 1e-12,
        relative_attention_num_buckets: int = 32, pad_token_id: int | None = 1, bos_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = 2, **kwargs: Any
    ) -> None: ...
    # fmt: on

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        self.check_positive("num_attention_heads", "max_position_embeddings", "relative_attention_num_buckets")
        self.check_divisible("hidden_size", by="num_attention_heads")
        if self.relative_attention_num_buckets < 4:
            raise ValueError(
                f"relative_attention_num_buckets={self.relative_attention_num_buckets}; at least 4 are needed."
            )
        super().validate()


class MPNetBackbone(PostNormEncoder):
    """Token ids (or embeddings) to hidden states; arguments as in `PostNormEncoder`."""

    config_class = MPNetConfig

    def __init__(self, config: MPNetConfig, **kwargs: Any):
        super().__init__(config, padding_id=PADDING_ID, skipped_id=PADDING_ID, **kwargs)
        rows = config.relative_attention_num_buckets
        self.relative_bias = RelativeBias(
            config.num_attention_heads,
            rows,
            buckets=min(rows, MAX_BUCKETS),
            max_distance=MAX_DISTANCE,
            std=config.initializer_range,
            dtype=self.dtype_policy,
            name="relative_bias",
        )

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        build_all(self.config.hidden_size, self.relative_bias)

    def position_context(self, context: BlockContext) -> BlockContext:
        # Distances are counted in columns: padding and given positions do not move them.
        columns = ops.arange(context.mask.query_length, dtype="int32")
        return dataclasses.replace(context, bias=self.relative_bias(columns, lowering=context.lowering))


class TFMPNetPreTrainedModel(TFPreTrainedModel):
    """Base of the MPNet models."""

    backbone_class = MPNetBackbone
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
        drop=OLD_BUFFERS,
        optional=(r"^pooler\.",),
        twins=TWINS,
        tied=("lm_head.decoder.weight", "embed_tokens.weight"),
    )
    sharding = SHARDING


class TFMPNetModel(TFMPNetPreTrainedModel):
    """The bare MPNet encoder: hidden states and the pooled first token, no head."""

    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": True}


class TFMPNetForMaskedLM(TransformedMaskedLMHead, TFMPNetPreTrainedModel):
    """MPNet that fills in masked tokens."""

    head_activation = "gelu"  # whatever the configuration says


class TFMPNetForSequenceClassification(FirstTokenHead, TFMPNetPreTrainedModel):
    """MPNet that classifies whole sequences."""


class TFMPNetForMultipleChoice(MultipleChoiceHead, TFMPNetPreTrainedModel):
    """MPNet that chooses among several texts."""

    backbone_options: ClassVar[dict[str, Any]] = {"add_pooling_layer": True}


class TFMPNetForTokenClassification(TokenClassificationHead, TFMPNetPreTrainedModel):
    """MPNet that classifies every token."""


class TFMPNetForQuestionAnswering(QuestionAnsweringHead, TFMPNetPreTrainedModel):
    """MPNet that finds an answer's start and end."""
