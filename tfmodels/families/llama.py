"""Llama (Touvron et al., https://arxiv.org/abs/2302.13971; Llama 3, https://arxiv.org/abs/2407.21783).

Pre-normalised decoder with rotary positions, grouped-query attention and a gated feed-forward block. Covers Llama 1 to
3, Code Llama, Vicuna, TinyLlama, SmolLM and everything else whose `model_type` is "llama".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.configs.decoder import DecoderConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.models import heads
from tfmodels.models.rotary_decoder import RotaryAttention, RotaryBlock, RotaryDecoderBackbone, RotaryDecoderModel


class LlamaConfig(DecoderConfig):
    """Configuration of a Llama model; the defaults are Llama-1-7B's.

    Fields: sizes as named; `num_key_value_heads` None means one per query head; `head_dim` None means
    `hidden_size / num_attention_heads`; rotary scaling in `rope_parameters`, see `tfmodels.layers.rotary`.
    `pretraining_tp` is kept for the file's sake: it only splits sums, never changes them.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import LlamaConfig
        >>> LlamaConfig(num_attention_heads=8, num_key_value_heads=2, hidden_size=64).head_dim
        8
    """

    model_type: ClassVar[str] = "llama"

    # fmt: off
    def __init__(
        self, vocab_size: int = 32000, hidden_size: int = 4096, intermediate_size: int = 11008,
        num_hidden_layers: int = 32, num_attention_heads: int = 32, num_key_value_heads: int | None = None,
        hidden_act: str = "silu", max_position_embeddings: int = 2048, initializer_range: float = 0.02,
        rms_norm_eps: float = 1e-06, use_cache: bool = True, pad_token_id: int | None = None,
        bos_token_id: int | None = 1, eos_token_id: int | list[int] | None = 2, pretraining_tp: int = 1,
        tie_word_embeddings: bool = False, rope_theta: float | None = None,
        rope_scaling: dict[str, Any] | None = None, attention_bias: bool = False, attention_dropout: float = 0.0,
        mlp_bias: bool = False, head_dim: int | None = None, **kwargs: Any
    ) -> None: ...
    # fmt: on


# What code outside may build from.
LlamaAttention, LlamaBlock = RotaryAttention, RotaryBlock


class LlamaBackbone(RotaryDecoderBackbone):
    """Token ids (or embeddings) to hidden states."""

    config_class = LlamaConfig


class TFLlamaPreTrainedModel(RotaryDecoderModel):
    """Base of the Llama models."""

    backbone_class = LlamaBackbone


class TFLlamaModel(TFLlamaPreTrainedModel):
    """The bare Llama decoder: hidden states, no head."""


class TFLlamaForCausalLM(GenerationMixin, heads.CausalLMHead, TFLlamaPreTrainedModel):
    """Llama with a language-model head: scores of the next token, and `generate`."""


class TFLlamaForSequenceClassification(heads.SequenceClassificationHead, TFLlamaPreTrainedModel):
    """Llama that classifies whole sequences."""


class TFLlamaForTokenClassification(heads.TokenClassificationHead, TFLlamaPreTrainedModel):
    """Llama that classifies every token."""


class TFLlamaForQuestionAnswering(heads.QuestionAnsweringHead, TFLlamaPreTrainedModel):
    """Llama that finds an answer's start and end."""

    base_model_prefix = "transformer"
