"""SmolLM3 (https://huggingface.co/blog/smollm3).

A decoder of Llama's kind in which every fourth layer has no rotary positions (Yang et al.,
https://arxiv.org/abs/2501.18795). Covers SmolLM3-3B and everything else whose `model_type` is "smollm3".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.configs.decoder import FULL, SLIDING, LayerTypesConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.models import heads
from tfmodels.models.rotary_decoder import RotaryDecoderBackbone, RotaryDecoderModel
from tfmodels.utils.text import quote


class SmolLM3Config(LayerTypesConfig):
    """Configuration of a SmolLM3 model; the defaults are SmolLM3-3B's.

    Fields: as in `LayerTypesConfig`; `no_rope_layers` has, against its name, 1 for each layer with rotary positions
    and 0 for each without; None means that every `no_rope_layer_interval`-th layer has none. Layers without see
    `sliding_window` tokens where `use_sliding_window` is set and `layer_types` does not say otherwise.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import SmolLM3Config
        >>> SmolLM3Config(num_hidden_layers=4).rotaries
        ('default', 'default', 'default', None)
    """

    model_type: ClassVar[str] = "smollm3"
    default_theta: ClassVar[float] = 2000000.0

    tie_word_embeddings: bool = True

    # fmt: off
    def __init__(
        self, vocab_size: int = 128256, hidden_size: int = 2048, intermediate_size: int = 11008,
        num_hidden_layers: int = 36, num_attention_heads: int = 16, num_key_value_heads: int | None = 4,
        hidden_act: str = "silu", max_position_embeddings: int = 32768, initializer_range: float = 0.02,
        rms_norm_eps: float = 1e-06, use_cache: bool = True, pad_token_id: int | None = 128004,
        bos_token_id: int | None = 128000, eos_token_id: int | list[int] | None = 128001,
        rope_theta: float | None = None, rope_scaling: dict[str, Any] | None = None, use_sliding_window: bool = False,
        sliding_window: int | None = None, no_rope_layers: list[int] | None = None, no_rope_layer_interval: int = 4,
        layer_types: list[str] | None = None, attention_bias: bool = False, attention_dropout: float = 0.0,
        mlp_bias: bool = False, **kwargs: Any
    ) -> None: ...
    # fmt: on

    @property
    def rotaries(self) -> tuple[str | None, ...]:
        return tuple("default" if turned else None for turned in self.no_rope_layers[: self.num_hidden_layers])

    def usual_layer_type(self, index: int) -> str:
        slides = self.use_sliding_window and self.sliding_window is not None
        return SLIDING if slides and not self.no_rope_layers[index] else FULL

    def finish(self) -> None:
        if self.no_rope_layers is None:
            self.check_positive("num_hidden_layers", "no_rope_layer_interval")
            self.check_layers()
            numbers = range(1, self.num_hidden_layers + 1)
            self.no_rope_layers = [int(number % self.no_rope_layer_interval != 0) for number in numbers]
        self.check_rope_layers()
        super().finish()

    def validate(self) -> None:
        self.check_rope_layers()
        super().validate()

    def check_rope_layers(self) -> None:
        """Raise ValueError unless `no_rope_layers` says 0 or 1 for every layer."""
        layers = self.no_rope_layers
        if not isinstance(layers, list) or any(one not in (0, 1) for one in layers):
            raise ValueError(f"no_rope_layers={quote(layers)}; a list of 0 and 1 was expected.")
        self.check_positive("num_hidden_layers")
        if len(layers) < self.num_hidden_layers:
            raise ValueError(
                f"no_rope_layers={quote(layers)} describes {len(layers)} layers; "
                f"num_hidden_layers={self.num_hidden_layers} was expected."
            )


class SmolLM3Backbone(RotaryDecoderBackbone):
    """Token ids (or embeddings) to hidden states."""

    config_class = SmolLM3Config


class TFSmolLM3PreTrainedModel(RotaryDecoderModel):
    """Base of the SmolLM3 models."""

    backbone_class = SmolLM3Backbone


class TFSmolLM3Model(TFSmolLM3PreTrainedModel):
    """The bare SmolLM3 decoder: hidden states, no head."""


class TFSmolLM3ForCausalLM(GenerationMixin, heads.CausalLMHead, TFSmolLM3PreTrainedModel):
    """SmolLM3 with a language-model head: scores of the next token, and `generate`."""


class TFSmolLM3ForSequenceClassification(heads.SequenceClassificationHead, TFSmolLM3PreTrainedModel):
    """SmolLM3 that classifies whole sequences."""


class TFSmolLM3ForTokenClassification(heads.TokenClassificationHead, TFSmolLM3PreTrainedModel):
    """SmolLM3 that classifies every token."""


class TFSmolLM3ForQuestionAnswering(heads.QuestionAnsweringHead, TFSmolLM3PreTrainedModel):
    """SmolLM3 that finds an answer's start and end."""

    base_model_prefix = "transformer"
