"""Granite 3 (https://github.com/ibm-granite/granite-3.0-language-models).

A decoder of Llama's kind with factors on embeddings, scores, what blocks add, and logits. Covers the dense Granite 3
models and everything else whose `model_type` is "granite".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.configs.decoder import DecoderConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.models import heads
from tfmodels.models.rotary_decoder import RotaryDecoderBackbone, RotaryDecoderModel


class GraniteConfig(DecoderConfig):
    """Configuration of a Granite model; the defaults are those of transformers.

    Fields: as in `DecoderConfig`; `embedding_multiplier` is a factor on the embeddings, `attention_multiplier` on
    products of queries and keys, `residual_multiplier` on what each part of a block adds; logits are divided by
    `logits_scaling`.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import GraniteConfig
        >>> GraniteConfig(logits_scaling=8.0).logit_factor
        0.125
    """

    model_type: ClassVar[str] = "granite"

    # fmt: off
    def __init__(
        self, vocab_size: int = 32000, hidden_size: int = 4096, intermediate_size: int = 11008,
        num_hidden_layers: int = 32, num_attention_heads: int = 32, num_key_value_heads: int | None = None,
        hidden_act: str = "silu", max_position_embeddings: int = 2048, initializer_range: float = 0.02,
        rms_norm_eps: float = 1e-06, use_cache: bool = True, pad_token_id: int | None = None,
        bos_token_id: int | None = 1, eos_token_id: int | list[int] | None = 2, tie_word_embeddings: bool = False,
        rope_theta: float | None = None, rope_scaling: dict[str, Any] | None = None, attention_bias: bool = False,
        attention_dropout: float = 0.0, mlp_bias: bool = False, embedding_multiplier: float = 1.0,
        logits_scaling: float = 1.0, residual_multiplier: float = 1.0, attention_multiplier: float = 1.0,
        **kwargs: Any
    ) -> None: ...
    # fmt: on

    @property
    def attention_scale(self) -> float:
        return self.attention_multiplier

    @property
    def logit_factor(self) -> float:
        """The factor on the logits, 1 / `logits_scaling`."""
        return 1 / self.logits_scaling

    def validate(self) -> None:
        super().validate()
        if not self.logits_scaling:
            raise ValueError("logits_scaling=0 in GraniteConfig; logits are divided by it: another number is needed.")


class GraniteBackbone(RotaryDecoderBackbone):
    """Token ids (or embeddings) to hidden states."""

    config_class = GraniteConfig


class TFGranitePreTrainedModel(RotaryDecoderModel):
    """Base of the Granite models."""

    backbone_class = GraniteBackbone


class TFGraniteModel(TFGranitePreTrainedModel):
    """The bare Granite decoder: hidden states, no head."""


class TFGraniteForCausalLM(GenerationMixin, heads.CausalLMHead, TFGranitePreTrainedModel):
    """Granite with a language-model head: scores of the next token, and `generate`."""
