"""Qwen3 (Yang et al., https://arxiv.org/abs/2505.09388).

A decoder of Llama's kind that normalises queries and keys, with heads of a size of their own; its later layers may be
windowed. Covers Qwen3 0.6B to 32B, Qwen3-Embedding and everything else whose `model_type` is "qwen3".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.configs.decoder import QwenConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.models import heads
from tfmodels.models.rotary_decoder import RotaryDecoderBackbone, RotaryDecoderModel


class Qwen3Config(QwenConfig):
    """Configuration of a Qwen3 model; the defaults are those of transformers.

    Fields: as in `QwenConfig`; `attention_bias` gives the projections of attention biases.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import Qwen3Config
        >>> Qwen3Config(hidden_size=1024, num_attention_heads=16, num_key_value_heads=8).head_dim
        128
    """

    model_type: ClassVar[str] = "qwen3"
    normalizes_heads: ClassVar[bool] = True

    # fmt: off
    def __init__(
        self, vocab_size: int = 151936, hidden_size: int = 4096, intermediate_size: int = 22016,
        num_hidden_layers: int = 32, num_attention_heads: int = 32, num_key_value_heads: int | None = 32,
        head_dim: int | None = 128, hidden_act: str = "silu", max_position_embeddings: int = 32768,
        initializer_range: float = 0.02, rms_norm_eps: float = 1e-06, use_cache: bool = True,
        tie_word_embeddings: bool = False, rope_theta: float | None = None,
        rope_scaling: dict[str, Any] | None = None, attention_bias: bool = False, use_sliding_window: bool = False,
        sliding_window: int | None = 4096, max_window_layers: int = 28, layer_types: list[str] | None = None,
        attention_dropout: float = 0.0, **kwargs: Any
    ) -> None: ...
    # fmt: on


class Qwen3Backbone(RotaryDecoderBackbone):
    """Token ids (or embeddings) to hidden states."""

    config_class = Qwen3Config


class TFQwen3PreTrainedModel(RotaryDecoderModel):
    """Base of the Qwen3 models."""

    backbone_class = Qwen3Backbone


class TFQwen3Model(TFQwen3PreTrainedModel):
    """The bare Qwen3 decoder: hidden states, no head."""


class TFQwen3ForCausalLM(GenerationMixin, heads.CausalLMHead, TFQwen3PreTrainedModel):
    """Qwen3 with a language-model head: scores of the next token, and `generate`."""


class TFQwen3ForSequenceClassification(heads.SequenceClassificationHead, TFQwen3PreTrainedModel):
    """Qwen3 that classifies whole sequences."""


class TFQwen3ForTokenClassification(heads.TokenClassificationHead, TFQwen3PreTrainedModel):
    """Qwen3 that classifies every token."""


class TFQwen3ForQuestionAnswering(heads.QuestionAnsweringHead, TFQwen3PreTrainedModel):
    """Qwen3 that finds an answer's start and end."""

    base_model_prefix = "transformer"
