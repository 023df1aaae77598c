"""GPT-2 (Radford et al. 2019, Language Models are Unsupervised Multitask Learners).

Pre-normalised decoder with learned positions. Covers GPT-2 small to XL, DistilGPT2, DialoGPT, the code models built on
it and everything else whose `model_type` is "gpt2".
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.cache import kv
from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.base import ModelConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.layers.attention import split_heads
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.linear import build_all, embedding, linear
from tfmodels.layers.norms import layer_norm
from tfmodels.layers.residual import add_and_norm, dropped, in_parts, plus
from tfmodels.models import heads
from tfmodels.models.backbone import BlockContext, DecoderBackbone, TokenInputs
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.models.sharding import Sharding


class GPT2Config(ModelConfig):
    """Configuration of a GPT-2 model; the defaults are GPT-2 small's.

    Fields: sizes and dropout shares as named; `n_inner` None means 4 * n_embd; `scale_attn_weights` divides scores by
    the root of a head's size, `scale_attn_by_inverse_layer_idx` by the number of the layer, from 1;
    `reorder_and_upcast_attn` computes scores in float32. The `summary` fields are those of `TFGPT2DoubleHeadsModel`.

    Raises:
        ValueError: values contradict each other; `add_cross_attention`, which is not here.

    Example:
        >>> from tfmodels import GPT2Config
        >>> GPT2Config(n_embd=64, n_head=4).hidden_size
        64
    """

    model_type: ClassVar[str] = "gpt2"
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "intermediate_size": "n_inner",
        "hidden_act": "activation_function",
        "layer_norm_eps": "layer_norm_epsilon",
    }

    # fmt: off
    def __init__(
        self, vocab_size: int = 50257, n_positions: int = 1024, n_embd: int = 768, n_layer: int = 12,
        n_head: int = 12, n_inner: int | None = None, activation_function: str = "gelu_new", resid_pdrop: float = 0.1,
        embd_pdrop: float = 0.1, attn_pdrop: float = 0.1, layer_norm_epsilon: float = 1e-05,
        initializer_range: float = 0.02, summary_type: str = "cls_index", summary_use_proj: bool = True,
        summary_activation: str | None = None, summary_proj_to_labels: bool = True,
        summary_first_dropout: float = 0.1, scale_attn_weights: bool = True, use_cache: bool = True,
        bos_token_id: int | None = 50256, eos_token_id: int | list[int] | None = 50256,
        scale_attn_by_inverse_layer_idx: bool = False, reorder_and_upcast_attn: bool = False, **kwargs: Any
    ) -> None: ...
    # fmt: on

    def validate(self) -> None:
        self.check_positive("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        self.check_positive(*["n_inner"] * (self.n_inner is not None))
        self.check_divisible("n_embd", by="n_head")
        self.check_known("add_cross_attention", (False,))
        super().validate()


class GPT2Attention(keras.layers.Layer):
    """Self-attention from one projection to queries, keys and values."""

    def __init__(self, config: GPT2Config, index: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"std": config.initializer_range, "use_bias": True, "dtype": self.dtype_policy}
        self.c_attn = linear(3 * config.n_embd, name="c_attn", transposed_in_files=False, **options)
        self.c_proj = linear(config.n_embd, name="c_proj", transposed_in_files=False, **options)
        self.dropout = keras.layers.Dropout(config.attn_pdrop, dtype=self.dtype_policy, name="dropout")
        self.output_dropout = keras.layers.Dropout(config.resid_pdrop, dtype=self.dtype_policy, name="output_dropout")
        self.scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        self.scale /= index + 1 if config.scale_attn_by_inverse_layer_idx else 1

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.n_embd, self.c_attn, self.c_proj)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        fused = ops.split(self.c_attn(hidden, lowering=context.lowering), 3, axis=-1)
        query, key, value = (split_heads(part, self.config.n_head) for part in fused)
        if self.config.reorder_and_upcast_attn:
            query = ops.cast(query, "float32")
        output, cache, weights = context.attend(query, key, value, scale=self.scale, dropout=self.dropout)
        output = in_parts(self.c_proj, output, context.lowering)
        return dropped(self.output_dropout, output, context.training), cache, weights


class GPT2Block(keras.layers.Layer):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: GPT2Config, index: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.ln_1 = layer_norm(config.layer_norm_epsilon, dtype=dtype, name="ln_1")
        self.attn = GPT2Attention(config, index, dtype=dtype, name="attn")
        self.ln_2 = layer_norm(config.layer_norm_epsilon, dtype=dtype, name="ln_2")
        self.mlp = FeedForward(
            config.n_embd,
            config.n_inner or 4 * config.n_embd,
            config.activation_function,
            True,
            config.initializer_range,
            names=("c_fc", "c_proj"),
            dropout=config.resid_pdrop,
            transposed_in_files=False,
            dtype=dtype,
            name="mlp",
        )

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.n_embd, self.ln_1, self.attn, self.ln_2, self.mlp)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        hidden, normed = add_and_norm(hidden, self.ln_1)
        attended, cache, weights = self.attn(normed, context=context)
        hidden, normed = add_and_norm(plus(hidden, attended), self.ln_2)
        mlp_output = self.mlp(normed, training=context.training, lowering=context.lowering)
        return plus(hidden, mlp_output), cache, weights


class GPT2Backbone(DecoderBackbone):
    """Token ids (or embeddings) to hidden states; `token_type_ids` are looked up among the tokens and added."""

    config_class = GPT2Config
    input_names = (*DecoderBackbone.input_names[:2], "token_type_ids", *DecoderBackbone.input_names[2:])

    def __init__(self, config: GPT2Config, **kwargs: Any):
        super().__init__(config, **kwargs)
        options = {"std": config.initializer_range, "dtype": self.dtype_policy}
        self.wte = embedding(config.vocab_size, config.n_embd, name="wte", **options)
        self.wpe = embedding(config.n_positions, config.n_embd, name="wpe", **options)
        self.dropout = keras.layers.Dropout(config.embd_pdrop, dtype=self.dtype_policy, name="dropout")
        self.h = [GPT2Block(config, n, dtype=self.dtype_policy, name=f"h_{n}") for n in range(config.n_layer)]
        self.ln_f = layer_norm(config.layer_norm_epsilon, dtype=self.dtype_policy, name="ln_f")
        self.position_limit = config.n_positions

    @property
    def embed_tokens(self) -> keras.layers.Embedding:
        return self.wte

    @property
    def layers(self) -> list[GPT2Block]:
        return self.h

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.n_embd, self.wte, self.wpe, *self.h, self.ln_f)

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        hidden = super().embed(tokens, context) + self.wpe(context.positions, lowering=context.lowering)
        if tokens.types is not None:
            hidden = hidden + self.wte(tokens.types, lowering=context.lowering)
        return self.dropout(hidden, training=context.training)

    def final_norm(self, hidden: Any) -> Any:
        return self.ln_f(hidden)


class TFGPT2PreTrainedModel(TFPreTrainedModel):
    """Base of the GPT-2 models."""

    backbone_class = GPT2Backbone
    base_model_prefix = "transformer"
    weight_map = WeightMap(
        prefixes=("transformer",), drop=(r"\.attn\.(masked_)?bias$",), tied=("lm_head.weight", "wte.weight")
    )
    sharding = Sharding(
        queries="attn/c_attn",
        attended="attn/c_proj",
        widened="mlp/c_fc",
        narrowed="mlp/c_proj",
        tokens="wte",
    )


class TFGPT2Model(TFGPT2PreTrainedModel):
    """The bare GPT-2 decoder: hidden states, no head."""


class TFGPT2LMHeadModel(GenerationMixin, heads.CausalLMHead, TFGPT2PreTrainedModel):
    """GPT-2 with a language-model head: scores of the next token, and `generate`."""


class TFGPT2DoubleHeadsModel(heads.DoubleHeads, TFGPT2PreTrainedModel):
    """GPT-2 with a language-model head and one that chooses among texts."""


class TFGPT2ForSequenceClassification(heads.SequenceClassificationHead, TFGPT2PreTrainedModel):
    """GPT-2 that classifies whole sequences."""


class TFGPT2ForTokenClassification(heads.TokenClassificationHead, TFGPT2PreTrainedModel):
    """GPT-2 that classifies every token."""


class TFGPT2ForQuestionAnswering(heads.QuestionAnsweringHead, TFGPT2PreTrainedModel):
    """GPT-2 that finds an answer's start and end."""
