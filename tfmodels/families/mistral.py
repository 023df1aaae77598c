"""Mistral (Jiang et al., https://arxiv.org/abs/2310.06825).

A decoder of Llama's kind whose tokens see the last `sliding_window` tokens in every layer. Covers Mistral 7B, Nemo,
Small and everything else whose `model_type` is "mistral".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.configs.decoder import WindowedConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.models import heads
from tfmodels.models.rotary_decoder import RotaryDecoderBackbone, RotaryDecoderModel


class MistralConfig(WindowedConfig):
    """Configuration of a Mistral model: a `WindowedConfig`; the defaults are Mistral-7B's.

    Example:
        >>> from tfmodels import MistralConfig
        >>> MistralConfig(num_hidden_layers=2, sliding_window=64).windows
        (64, 64)
    """

    model_type: ClassVar[str] = "mistral"

    # fmt: off
    def __init__(
        self, vocab_size: int = 32000, hidden_size: int = 4096, intermediate_size: int = 14336,
        num_hidden_layers: int = 32, num_attention_heads: int = 32, num_key_value_heads: int | None = 8,
        head_dim: int | None = None, hidden_act: str = "silu", max_position_embeddings: int = 131072,
        initializer_range: float = 0.02, rms_norm_eps: float = 1e-06, use_cache: bool = True,
        pad_token_id: int | None = None, bos_token_id: int | None = 1, eos_token_id: int | list[int] | None = 2,
        tie_word_embeddings: bool = False, rope_theta: float | None = None, sliding_window: int | None = 4096,
        attention_dropout: float = 0.0, **kwargs: Any
    ) -> None: ...
    # fmt: on


class MistralBackbone(RotaryDecoderBackbone):
    """Token ids (or embeddings) to hidden states."""

    config_class = MistralConfig


class TFMistralPreTrainedModel(RotaryDecoderModel):
    """Base of the Mistral models."""

    backbone_class = MistralBackbone


class TFMistralModel(TFMistralPreTrainedModel):
    """The bare Mistral decoder: hidden states, no head."""


class TFMistralForCausalLM(GenerationMixin, heads.CausalLMHead, TFMistralPreTrainedModel):
    """Mistral with a language-model head: scores of the next token, and `generate`."""


class TFMistralForSequenceClassification(heads.SequenceClassificationHead, TFMistralPreTrainedModel):
    """Mistral that classifies whole sequences."""


class TFMistralForTokenClassification(heads.TokenClassificationHead, TFMistralPreTrainedModel):
    """Mistral that classifies every token."""


class TFMistralForQuestionAnswering(heads.QuestionAnsweringHead, TFMistralPreTrainedModel):
    """Mistral that finds an answer's start and end."""
