"""ModernBERT (Warner et al., https://arxiv.org/abs/2412.13663).

Pre-normalised encoder with rotary positions and a gated feed-forward block. Every third layer sees all tokens, the
others a window to both sides, each kind with a rotary base of its own. Covers ModernBERT base and large, the sentence
encoders and rerankers built on it, and everything else whose `model_type` is "modernbert".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.layer_types import FULL, SLIDING, check_layer_types, split_rotary_kinds
from tfmodels.configs.rotary import RotaryConfig
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.rotary_encoder import (
    SHARDING,
    RotaryEncoder,
    RotaryEncoderAnswers,
    RotaryEncoderChoice,
    RotaryEncoderClassifier,
    RotaryEncoderMaskedLM,
    RotaryEncoderTokens,
)
from tfmodels.utils.text import quote


class ModernBertConfig(RotaryConfig):
    """Configuration of a ModernBERT model; the defaults are ModernBERT-base's.

    Fields: sizes, dropout shares and biases as named. `layer_types` is "full_attention" or "sliding_attention" for
    each layer; None makes every `global_attn_every_n_layers`-th layer, from the first on, see all tokens. The others
    see `local_attention // 2` tokens to either side. `rope_parameters` are those of the layers that see all,
    `local_rope_theta` is the base of the others, and None the same one; the spellings of transformers 4 and 5 are both
    read and written.
    `classifier_pooling` "cls" classifies texts by their first token, "mean" by the mean of all. The fields
    `initializer_cutoff_factor`, `deterministic_flash_attn`, `reference_compile`, `repad_logits_with_grad` and
    `sparse_pred_ignore_index` are kept for the file's sake.

    Raises:
        ValueError: values contradict each other, or ask for what is not here: sparse prediction, scaled positions in
            windowed layers.

    Example:
        >>> from tfmodels import ModernBertConfig
        >>> config = ModernBertConfig(num_hidden_layers=4)
        >>> config.windows, config.rope_theta
        ((None, 64, 64, None), 160000.0)
    """

    model_type: ClassVar[str] = "modernbert"
    default_theta: ClassVar[float] = 160000.0
    theta_names: ClassVar[tuple[str, ...]] = ("global_rope_theta", "rope_theta")
    other_names: ClassVar[tuple[str, ...]] = (*RotaryConfig.other_names, "global_rope_theta")

    layer_types: list[str] | None = None

    # fmt: off
    def __init__(
        self, vocab_size: int = 50368, hidden_size: int = 768, intermediate_size: int = 1152,
        num_hidden_layers: int = 22, num_attention_heads: int = 12, hidden_activation: str = "gelu",
        max_position_embeddings: int = 8192, initializer_range: float = 0.02,
        initializer_cutoff_factor: float | None = 2.0, norm_eps: float = 1e-05, norm_bias: bool = False,
        pad_token_id: int | None = 50283, eos_token_id: int | list[int] | None = 50282,
        bos_token_id: int | None = 50281, cls_token_id: int | None = 50281, sep_token_id: int | None = 50282,
        global_rope_theta: float | None = None, attention_bias: bool = False, attention_dropout: float = 0.0,
        global_attn_every_n_layers: int = 3, local_attention: int = 128, local_rope_theta: float | None = 10000.0,
        embedding_dropout: float = 0.0, mlp_bias: bool = False, mlp_dropout: float = 0.0, decoder_bias: bool = True,
        classifier_pooling: str = "cls", classifier_dropout: float = 0.0, classifier_bias: bool = False,
        classifier_activation: str = "gelu", deterministic_flash_attn: bool = False, sparse_prediction: bool = False,
        sparse_pred_ignore_index: int = -100, reference_compile: bool | None = None,
        repad_logits_with_grad: bool = False, **kwargs: Any
    ) -> None: ...
    # fmt: on

    @classmethod
    def normalize(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("rope_scaling") is not None:
            raise ValueError(
                f"rope_scaling={quote(values['rope_scaling'])} in {cls.__name__} does not say which layers it scales; "
                f"rope_parameters={{{FULL!r}: {{...}}}} was expected."
            )
        return super().normalize(split_rotary_kinds(values, "local_rope_theta", cls.__name__))

    @classmethod
    def merge(cls, values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        merged = super().merge(values, overrides)
        if "layer_types" not in overrides and {"global_attn_every_n_layers", "num_hidden_layers"} & set(overrides):
            merged["layer_types"] = None
        return merged

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer the number of tokens that a token sees to either side; None for all."""
        return tuple(self.local_attention // 2 if kind == SLIDING else None for kind in self.layer_types)

    @property
    def rotary_parameters(self) -> dict[str, dict[str, Any]]:
        local = {"rope_type": "default", "rope_theta": self.local_rope_theta}
        return {FULL: self.rope_parameters, SLIDING: local}

    @property
    def global_rope_theta(self) -> float:
        """Base of the rotary frequencies of layers that see all."""
        return self.rope_theta

    def finish(self) -> None:
        super().finish()
        if self.local_rope_theta is None:
            self.local_rope_theta = self.rope_theta
        if self.layer_types is None:
            self.check_positive("num_hidden_layers", "global_attn_every_n_layers")
            self.check_layers()
            every = self.global_attn_every_n_layers
            self.layer_types = [SLIDING if index % every else FULL for index in range(self.num_hidden_layers)]

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        self.check_positive("num_attention_heads", "local_attention", "max_position_embeddings")
        self.check_divisible("hidden_size", by="num_attention_heads")
        self.check_known("classifier_pooling", ("cls", "mean"))
        self.check_known("sparse_prediction", (False,))
        check_layer_types(self)
        if not self.local_rope_theta > 0:
            raise ValueError(f"local_rope_theta={quote(self.local_rope_theta)}; a number above 0 was expected.")
        super().validate()

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        values.pop("rope_scaling")
        return {**values, "rope_parameters": self.rotary_parameters}


class ModernBertBackbone(RotaryEncoder):
    """Token ids (or embeddings) to hidden states."""

    config_class = ModernBertConfig


class TFModernBertPreTrainedModel(TFPreTrainedModel):
    """Base of the ModernBERT models."""

    backbone_class = ModernBertBackbone
    base_model_prefix = "model"
    weight_map = WeightMap(
        prefixes=("model",),
        pairs=(
            ("embeddings.tok_embeddings.", "embed_tokens."),
            ("embeddings.norm.", "embed_norm."),
            ("final_norm.", "last_norm."),
        ),
        drop=(r"\brotary_emb\.",),
        tied=("decoder.weight", "embed_tokens.weight"),
    )
    sharding = SHARDING


class TFModernBertModel(TFModernBertPreTrainedModel):
    """The bare ModernBERT encoder: hidden states, no head."""


class TFModernBertForMaskedLM(RotaryEncoderMaskedLM, TFModernBertPreTrainedModel):
    """ModernBERT that fills in masked tokens."""


class TFModernBertForSequenceClassification(RotaryEncoderClassifier, TFModernBertPreTrainedModel):
    """ModernBERT that classifies whole sequences, or scores pairs of texts as cross-encoders do."""


class TFModernBertForMultipleChoice(RotaryEncoderChoice, TFModernBertPreTrainedModel):
    """ModernBERT that chooses among several texts."""


class TFModernBertForTokenClassification(RotaryEncoderTokens, TFModernBertPreTrainedModel):
    """ModernBERT that classifies every token."""


class TFModernBertForQuestionAnswering(RotaryEncoderAnswers, TFModernBertPreTrainedModel):
    """ModernBERT that finds an answer's start and end."""
