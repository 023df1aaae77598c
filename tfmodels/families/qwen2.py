"""Qwen2 (Yang et al., https://arxiv.org/abs/2407.10671) and Qwen2.5 (https://arxiv.org/abs/2412.15115).

A decoder of Llama's kind with biases on queries, keys and values, whose later layers may be windowed. Covers Qwen1.5,
Qwen2, Qwen2.5, QwQ and everything else whose `model_type` is "qwen2".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.configs.decoder import QwenConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.models import heads
from tfmodels.models.rotary_decoder import RotaryDecoderBackbone, RotaryDecoderModel


class Qwen2Config(QwenConfig):
    """Configuration of a Qwen2 model; the defaults are those of transformers.

    Fields: as in `QwenConfig`.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import Qwen2Config
        >>> Qwen2Config(num_hidden_layers=2).layer_types
        ['full_attention', 'full_attention']
    """

    model_type: ClassVar[str] = "qwen2"
    attention_biases: ClassVar[tuple[bool, bool]] = (True, False)

    # fmt: off
    def __init__(
        self, vocab_size: int = 151936, hidden_size: int = 4096, intermediate_size: int = 22016,
        num_hidden_layers: int = 32, num_attention_heads: int = 32, num_key_value_heads: int | None = 32,
        hidden_act: str = "silu", max_position_embeddings: int = 32768, initializer_range: float = 0.02,
        rms_norm_eps: float = 1e-06, use_cache: bool = True, tie_word_embeddings: bool = False,
        rope_theta: float | None = None, rope_scaling: dict[str, Any] | None = None, use_sliding_window: bool = False,
        sliding_window: int | None = 4096, max_window_layers: int = 28, layer_types: list[str] | None = None,
        attention_dropout: float = 0.0, **kwargs: Any
    ) -> None: ...
    # fmt: on


class Qwen2Backbone(RotaryDecoderBackbone):
    """Token ids (or embeddings) to hidden states."""

    config_class = Qwen2Config


class TFQwen2PreTrainedModel(RotaryDecoderModel):
    """Base of the Qwen2 models."""

    backbone_class = Qwen2Backbone


class TFQwen2Model(TFQwen2PreTrainedModel):
    """The bare Qwen2 decoder: hidden states, no head."""


class TFQwen2ForCausalLM(GenerationMixin, heads.CausalLMHead, TFQwen2PreTrainedModel):
    """Qwen2 with a language-model head: scores of the next token, and `generate`."""


class TFQwen2ForSequenceClassification(heads.SequenceClassificationHead, TFQwen2PreTrainedModel):
    """Qwen2 that classifies whole sequences."""


class TFQwen2ForTokenClassification(heads.TokenClassificationHead, TFQwen2PreTrainedModel):
    """Qwen2 that classifies every token."""


class TFQwen2ForQuestionAnswering(heads.QuestionAnsweringHead, TFQwen2PreTrainedModel):
    """Qwen2 that finds an answer's start and end."""

    base_model_prefix = "transformer"
