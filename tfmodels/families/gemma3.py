"""The text model of Gemma 3 (Gemma Team, https://arxiv.org/abs/2503.19786).

A decoder of Llama's kind that normalises before and after each part of a block, and queries and keys; five layers that
see a window alternate with one that sees all, each kind with rotary positions of its own. Covers Gemma 3 270M and 1B
and everything else whose `model_type` is "gemma3_text".
"""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.cache import kv
from tfmodels.configs.decoder import LayerTypesConfig
from tfmodels.configs.layer_types import FULL, SLIDING, split_rotary_kinds
from tfmodels.generation.api import GenerationMixin
from tfmodels.layers.linear import build_all
from tfmodels.layers.residual import whole
from tfmodels.models import heads
from tfmodels.models.backbone import BlockContext
from tfmodels.models.rotary_decoder import RotaryBlock, RotaryDecoderBackbone, RotaryDecoderModel
from tfmodels.utils.text import quote


class Gemma3TextConfig(LayerTypesConfig):
    """Configuration of a Gemma 3 text model; the defaults are those of transformers.

    Fields: as in `LayerTypesConfig`; without `layer_types` every sixth layer sees all tokens. Scores are divided by
    the root of `query_pre_attn_scalar`; `final_logit_softcapping` bounds the logits. `rope_parameters` are those of
    the layers that see all, `rope_local_base_freq` is the base of the windowed ones; files of transformers 5, which
    hold both in `rope_parameters`, are read and written.

    Raises:
        ValueError: values contradict each other, or ask for what this family does not have: attention in both
            directions, bounded scores.

    Example:
        >>> from tfmodels import Gemma3TextConfig
        >>> Gemma3TextConfig(num_hidden_layers=7, sliding_window=512).windows
        (512, 512, 512, 512, 512, None, 512)
    """

    model_type: ClassVar[str] = "gemma3_text"
    default_theta: ClassVar[float] = 1000000.0
    normalizes_heads: ClassVar[bool] = True
    norm_offset: ClassVar[float] = 1.0
    aliases: ClassVar[dict[str, str]] = {"hidden_activation": "hidden_act"}

    # fmt: off
    def __init__(
        self, vocab_size: int = 262208, hidden_size: int = 2304, intermediate_size: int = 9216,
        num_hidden_layers: int = 26, num_attention_heads: int = 8, num_key_value_heads: int | None = 4,
        head_dim: int | None = 256, hidden_act: str = "gelu_pytorch_tanh", max_position_embeddings: int = 131072,
        initializer_range: float = 0.02, rms_norm_eps: float = 1e-06, use_cache: bool = True,
        pad_token_id: int | None = 0, eos_token_id: int | list[int] | None = 1, bos_token_id: int | None = 2,
        tie_word_embeddings: bool = True, rope_theta: float | None = None, attention_bias: bool = False,
        attention_dropout: float = 0.0, query_pre_attn_scalar: float = 256, sliding_window: int | None = 4096,
        layer_types: list[str] | None = None, final_logit_softcapping: float | None = None,
        attn_logit_softcapping: float | None = None, rope_scaling: dict[str, Any] | None = None,
        rope_local_base_freq: float = 10000.0, use_bidirectional_attention: bool = False, **kwargs: Any
    ) -> None: ...
    # fmt: on

    @classmethod
    def normalize(cls, values: dict[str, Any]) -> dict[str, Any]:
        return super().normalize(split_rotary_kinds(values, "rope_local_base_freq", cls.__name__))

    @property
    def table_scale(self) -> float:
        """The factor on rows of the embedding table."""
        return self.hidden_size**0.5

    @property
    def attention_scale(self) -> float:
        return self.query_pre_attn_scalar**-0.5

    @property
    def logit_cap(self) -> float | None:
        """The bound of the logits, `final_logit_softcapping`."""
        return self.final_logit_softcapping

    @property
    def rotaries(self) -> tuple[str | None, ...]:
        return tuple(self.layer_types)

    @property
    def rotary_parameters(self) -> dict[str, dict[str, Any]]:
        local = {"rope_type": "default", "rope_theta": self.rope_local_base_freq}
        return {FULL: self.rope_parameters, SLIDING: local}

    def usual_layer_type(self, index: int) -> str:
        every = self._extra.get("sliding_window_pattern", 6)
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(
                f"sliding_window_pattern={quote(every)} in {type(self).__name__}; a positive integer was expected."
            )
        return SLIDING if (index + 1) % every else FULL

    def validate(self) -> None:
        self.check_known("use_bidirectional_attention", (False,))
        self.check_known("attn_logit_softcapping", (None,))
        for name in ("query_pre_attn_scalar", "rope_local_base_freq", "final_logit_softcapping"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={quote(value)} in {type(self).__name__}; a number above 0 was expected.")
        super().validate()

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        values["hidden_activation"] = values.pop("hidden_act")
        return {**values, "rope_parameters": self.rotary_parameters}


class Gemma3Block(RotaryBlock):
    """Attention and feed-forward, each normalised before and after, and added to what came in."""

    def __init__(self, config: Gemma3TextConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.pre_feedforward_layernorm = self.make_norm("pre_feedforward_layernorm")
        self.post_feedforward_layernorm = self.make_norm("post_feedforward_layernorm")

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        build_all(self.config.hidden_size, self.pre_feedforward_layernorm, self.post_feedforward_layernorm)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        attended, cache, weights = self.self_attn(self.input_layernorm(hidden), context=context)
        hidden = hidden + self.post_attention_layernorm(whole(attended))
        mlp_output = self.mlp(self.pre_feedforward_layernorm(hidden), lowering=context.lowering)
        return hidden + self.post_feedforward_layernorm(whole(mlp_output)), cache, weights


class Gemma3TextBackbone(RotaryDecoderBackbone):
    """Token ids (or embeddings, which are taken as they are) to hidden states."""

    config_class = Gemma3TextConfig
    block_class = Gemma3Block


class TFGemma3PreTrainedModel(RotaryDecoderModel):
    """Base of the Gemma 3 text models."""

    backbone_class = Gemma3TextBackbone


class TFGemma3TextModel(TFGemma3PreTrainedModel):
    """The bare Gemma 3 decoder: hidden states, no head."""


class TFGemma3ForCausalLM(GenerationMixin, heads.CausalLMHead, TFGemma3PreTrainedModel):
    """Gemma 3 with a language-model head: scores of the next token, and `generate`."""


class TFGemma3TextForSequenceClassification(heads.SequenceClassificationHead, TFGemma3PreTrainedModel):
    """Gemma 3 that classifies whole sequences."""
