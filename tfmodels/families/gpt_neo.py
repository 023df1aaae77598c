"""GPT-Neo (Black et al., https://doi.org/10.5281/zenodo.5297715).

Pre-normalised decoder with learned positions, in which layers that see everything alternate with layers that see the
last `window_size` tokens. Covers GPT-Neo 125M to 2.7B and everything else whose `model_type` is "gpt_neo".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.cache import kv
from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.base import MAX_LAYERS, ModelConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.layers.attention import split_heads
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.linear import build_all, embedding, linear, project
from tfmodels.layers.norms import layer_norm
from tfmodels.layers.residual import add_and_norm, dropped, in_parts, plus
from tfmodels.models.backbone import BlockContext, DecoderBackbone, TokenInputs
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.heads import (
    CausalLMHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from tfmodels.models.sharding import Sharding
from tfmodels.utils.text import quote

ATTENTION_KINDS = ("global", "local")


class GPTNeoConfig(ModelConfig):
    """Configuration of a GPT-Neo model; the defaults are GPT-Neo-1.3B's.

    Fields: sizes and dropout shares as named; `intermediate_size` None means 4 * hidden_size; `attention_types` is a
    list of `[kinds, times]`: the kinds ("global" or "local") of neighbouring layers and how often they repeat.
    `attention_layers`, one kind per layer, follows from it and may be given in its place.

    Raises:
        ValueError: values contradict each other.

    Example:
        >>> from tfmodels import GPTNeoConfig
        >>> GPTNeoConfig(num_layers=4, attention_types=[[["global", "local"], 2]]).attention_layers
        ['global', 'local', 'global', 'local']
    """

    model_type: ClassVar[str] = "gpt_neo"
    aliases: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_act": "activation_function",
        "layer_norm_eps": "layer_norm_epsilon",
    }
    other_names: ClassVar[tuple[str, ...]] = ("attention_layers",)

    attention_types: list = dataclasses.field(default_factory=lambda: [[["global", "local"], 12]])

    # fmt: off
    def __init__(
        self, vocab_size: int = 50257, max_position_embeddings: int = 2048, hidden_size: int = 2048,
        num_layers: int = 24, attention_types: list | None = None, num_heads: int = 16,
        intermediate_size: int | None = None, window_size: int = 256, activation_function: str = "gelu_new",
        resid_dropout: float = 0.0, embed_dropout: float = 0.0, attention_dropout: float = 0.0,
        classifier_dropout: float | None = 0.1, layer_norm_epsilon: float = 1e-05, initializer_range: float = 0.02,
        use_cache: bool = True, bos_token_id: int | None = 50256, eos_token_id: int | list[int] | None = 50256,
        **kwargs: Any
    ) -> None: ...
    # fmt: on

    @classmethod
    def normalize(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = super().normalize(values)
        layers = values.pop("attention_layers", None)
        if values.get("attention_types") is None:
            values.pop("attention_types", None)
            if layers is not None:
                values["attention_types"] = [[layers, 1]]
        return values

    @property
    def attention_layers(self) -> list[str]:
        """The kind of attention of each layer."""
        try:
            if sum(times * len(kinds) for kinds, times in self.attention_types) > MAX_LAYERS:
                raise ValueError("too many layers")
            return [kind for kinds, times in self.attention_types for _ in range(times) for kind in kinds]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"attention_types={quote(self.attention_types)}; a list of [kinds, times] was expected, such as "
                f"[[['global', 'local'], 12]]."
            ) from error

    def validate(self) -> None:
        self.check_positive("vocab_size", "hidden_size", "num_layers", "num_heads", "window_size")
        self.check_positive("max_position_embeddings", *["intermediate_size"] * (self.intermediate_size is not None))
        self.check_divisible("hidden_size", by="num_heads")
        unknown = [kind for kind in self.attention_layers if kind not in ATTENTION_KINDS]
        if unknown:
            raise ValueError(f"attention_types names {quote(unknown[0])}; it is one of {', '.join(ATTENTION_KINDS)}.")
        if len(self.attention_layers) != self.num_layers:
            raise ValueError(
                f"attention_types={quote(self.attention_types)} describes {len(self.attention_layers)} layers; "
                f"num_layers={self.num_layers} was expected."
            )
        super().validate()

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "attention_layers": self.attention_layers}


class GPTNeoAttention(keras.layers.Layer):
    """Self-attention with unscaled scores, their product in float32."""

    def __init__(self, config: GPTNeoConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"std": config.initializer_range, "dtype": self.dtype_policy}
        self.q_proj = linear(config.hidden_size, use_bias=False, name="q_proj", **options)
        self.k_proj = linear(config.hidden_size, use_bias=False, name="k_proj", **options)
        self.v_proj = linear(config.hidden_size, use_bias=False, name="v_proj", **options)
        self.out_proj = linear(config.hidden_size, use_bias=True, name="out_proj", **options)
        self.dropout = keras.layers.Dropout(config.attention_dropout, dtype=self.dtype_policy, name="dropout")
        self.output_dropout = keras.layers.Dropout(
            config.resid_dropout, dtype=self.dtype_policy, name="output_dropout"
        )

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.q_proj, self.k_proj, self.v_proj, self.out_proj)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        layers = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (
            split_heads(output, self.config.num_heads)
            for output in project(hidden, *layers, lowering=context.lowering)
        )
        query = ops.cast(query, "float32")  # as the reference does: unscaled scores are large
        output, cache, weights = context.attend(query, key, value, scale=1.0, dropout=self.dropout)
        output = in_parts(self.out_proj, output, context.lowering)
        return dropped(self.output_dropout, output, context.training), cache, weights


class GPTNeoBlock(keras.layers.Layer):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: GPTNeoConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.ln_1 = layer_norm(config.layer_norm_epsilon, dtype=dtype, name="ln_1")
        self.attn = GPTNeoAttention(config, dtype=dtype, name="attn")
        self.ln_2 = layer_norm(config.layer_norm_epsilon, dtype=dtype, name="ln_2")
        self.mlp = FeedForward(
            config.hidden_size,
            config.intermediate_size or 4 * config.hidden_size,
            config.activation_function,
            True,
            config.initializer_range,
            names=("c_fc", "c_proj"),
            dropout=config.resid_dropout,
            dtype=dtype,
            name="mlp",
        )

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.ln_1, self.attn, self.ln_2, self.mlp)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        hidden, normed = add_and_norm(hidden, self.ln_1)
        attended, cache, weights = self.attn(normed, context=context)
        hidden, normed = add_and_norm(plus(hidden, attended), self.ln_2)
        mlp_output = self.mlp(normed, training=context.training, lowering=context.lowering)
        return plus(hidden, mlp_output), cache, weights


class GPTNeoBackbone(DecoderBackbone):
    """Token ids (or embeddings) to hidden states; `token_type_ids` are looked up among the tokens and added."""

    config_class = GPTNeoConfig
    input_names = (*DecoderBackbone.input_names[:2], "token_type_ids", *DecoderBackbone.input_names[2:])

    def __init__(self, config: GPTNeoConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        options = {"std": config.initializer_range, "dtype": self.dtype_policy}
        self.wte = embedding(config.vocab_size, config.hidden_size, name="wte", **options)
        self.wpe = embedding(config.max_position_embeddings, config.hidden_size, name="wpe", **options)
        self.dropout = keras.layers.Dropout(config.embed_dropout, dtype=self.dtype_policy, name="dropout")
        self.h = [
            GPTNeoBlock(config, dtype=self.dtype_policy, name=f"h_{index}") for index in range(config.num_layers)
        ]
        self.ln_f = layer_norm(config.layer_norm_epsilon, dtype=self.dtype_policy, name="ln_f")
        self.position_limit = config.max_position_embeddings

    @property
    def embed_tokens(self) -> keras.layers.Embedding:
        return self.wte

    @property
    def layers(self) -> list[GPTNeoBlock]:
        return self.h

    @property
    def cache_windows(self) -> tuple[int | None, ...]:
        local = [kind == "local" and index > 0 for index, kind in enumerate(self.config.attention_layers)]
        return tuple(self.config.window_size if short else None for short in local)

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.wte, self.wpe, *self.h, self.ln_f)

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        hidden = super().embed(tokens, context) + self.wpe(context.positions, lowering=context.lowering)
        if tokens.types is not None:
            hidden = hidden + self.wte(tokens.types, lowering=context.lowering)
        return self.dropout(hidden, training=context.training)

    def position_context(self, context: BlockContext) -> BlockContext:
        # A 4-D mask of the user's replaces the causal mask elsewhere; here it can only take away. A query that decodes
        # from a static cache sees itself.
        mask = dataclasses.replace(context.mask, causal=True, fills=context.cache_length is None)
        return dataclasses.replace(context, mask=mask)

    def block_context(self, context: BlockContext, index: int) -> BlockContext:
        if self.config.attention_layers[index] == "global":
            return context
        return dataclasses.replace(context, mask=context.mask.with_window(self.config.window_size))

    def final_norm(self, hidden: Any) -> Any:
        return self.ln_f(hidden)


class TFGPTNeoPreTrainedModel(TFPreTrainedModel):
    """Base of the GPT-Neo models."""

    backbone_class = GPTNeoBackbone
    base_model_prefix = "transformer"
    weight_map = WeightMap(
        prefixes=("transformer",),
        pairs=(("attn.attention.", "attn."),),
        drop=(r"\.attention\.(masked_)?bias$",),
        tied=("lm_head.weight", "wte.weight"),
    )
    sharding = Sharding(
        queries="attn/q_proj",
        keys_and_values="attn/(k_proj|v_proj)",
        attended="attn/out_proj",
        widened="mlp/c_fc",
        narrowed="mlp/c_proj",
        tokens="wte",
    )


class TFGPTNeoModel(TFGPTNeoPreTrainedModel):
    """The bare GPT-Neo decoder: hidden states, no head."""


class TFGPTNeoForCausalLM(GenerationMixin, CausalLMHead, TFGPTNeoPreTrainedModel):
    """GPT-Neo with a language-model head: scores of the next token, and `generate`."""


class TFGPTNeoForSequenceClassification(SequenceClassificationHead, TFGPTNeoPreTrainedModel):
    """GPT-Neo that classifies whole sequences."""


class TFGPTNeoForTokenClassification(TokenClassificationHead, TFGPTNeoPreTrainedModel):
    """GPT-Neo that classifies every token."""


class TFGPTNeoForQuestionAnswering(QuestionAnsweringHead, TFGPTNeoPreTrainedModel):
    """GPT-Neo that finds an answer's start and end."""
