"""MPT (MosaicML, https://www.databricks.com/blog/mpt-7b), after its definition in llm-foundry.

Pre-normalised decoder without position embeddings: attention falls off linearly with distance (ALiBi). Covers MPT-7B,
MPT-30B, their variants, and everything else whose `model_type` is "mpt".
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.cache import kv
from tfmodels.checkpoints.weight_map import WeightMap
from tfmodels.configs.base import ModelConfig
from tfmodels.configs.part import ConfigPart
from tfmodels.generation.api import GenerationMixin
from tfmodels.layers.alibi import alibi_bias, alibi_slopes
from tfmodels.layers.attention import split_heads
from tfmodels.layers.feed_forward import FeedForward
from tfmodels.layers.linear import build_all, embedding, linear
from tfmodels.layers.norms import RMSNorm, layer_norm
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

LAYER_NORMS = ("layernorm", "low_precision_layernorm")
RMS_NORMS = ("rmsnorm", "low_precision_rmsnorm", "triton_rmsnorm")
# Options of llm-foundry that change what is computed, and the values of them that are known here.
KNOWN = {
    "norm_type": LAYER_NORMS + RMS_NORMS,
    "attn_config.attn_type": ("multihead_attention", "multiquery_attention", "grouped_query_attention"),
    "attn_config.prefix_lm": (False,),
    "attn_config.attn_uses_sequence_id": (False,),
    "attn_config.qk_gn": (None, False),
    "attn_config.rope": (None, False),
    "attn_config.sliding_window_size": (None, -1),
    "attn_config.attn_logit_softcapping": (None,),
    "ffn_config.ffn_type": (None, "mptmlp"),
    "ffn_config.ffn_act_fn": (None,),
    "block_overrides": (None,),
    "final_logit_softcapping": (None,),
}


class MptAttentionConfig(ConfigPart):
    """The attention part of an `MptConfig`.

    Fields: `attn_type` "multihead_attention", "multiquery_attention", or "grouped_query_attention" with `kv_n_heads`
    key/value heads; `clip_qkv` bounds queries, keys and values; `softmax_scale` None means 1 / sqrt(head size);
    `qk_ln` normalises queries and keys; without `alibi` positions are learned (or absent, without `learned_pos_emb`).
    `attn_impl` is kept for the file's sake: `attn_implementation` chooses here.
    """

    kv_n_heads: int | None = None

    # fmt: off
    def __init__(
        self, attn_type: str = "multihead_attention", attn_pdrop: float = 0, attn_impl: str = "torch",
        clip_qkv: float | None = None, softmax_scale: float | None = None, prefix_lm: bool = False,
        qk_ln: bool = False, attn_uses_sequence_id: bool = False, alibi: bool = True, alibi_bias_max: float = 8,
        **kwargs: Any
    ) -> None: ...
    # fmt: on


class MptConfig(ModelConfig):
    """Configuration of an MPT model; the defaults are those of transformers.

    Fields: sizes and dropout shares as named; `expansion_ratio` is the feed-forward's width over `d_model`;
    `attn_config` an `MptAttentionConfig` or a dict of its fields; `learned_pos_emb` counts where ALiBi is off, and
    only then `max_seq_len` is a limit; `logit_scale` a factor on the logits or "inv_sqrt_d_model"; `no_bias` False
    gives projections and normalisations biases; `embedding_fraction` scales the embeddings' gradient. `init_device`
    and `verbose` are kept for the file's sake: they change nothing that is computed.

    transformers ignores `alibi`, `alibi_bias_max`, `attn_type`, `qk_ln`, `prefix_lm`, `attn_uses_sequence_id`,
    `learned_pos_emb`, `expansion_ratio`, `norm_type`, `no_bias`, `embedding_fraction`, `logit_scale`, `emb_pdrop` and
    `resid_pdrop`. Here they mean what llm-foundry means by them, or raise. A checkpoint that transformers made with
    other values than the defaults needs the defaults, as in `from_pretrained(folder, attn_config={"alibi": True})`.

    Raises:
        ValueError: values contradict each other, or ask for what this family does not have: nothing is ignored.

    Example:
        >>> from tfmodels import MptConfig
        >>> MptConfig(d_model=64, attn_config={"clip_qkv": 6.0}).attn_config.clip_qkv
        6.0
    """

    model_type: ClassVar[str] = "mpt"
    parts: ClassVar[dict[str, type[ConfigPart]]] = {"attn_config": MptAttentionConfig}
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "max_position_embeddings": "max_seq_len",
        "norm_eps": "layer_norm_epsilon",
    }

    attn_config: MptAttentionConfig = dataclasses.field(default_factory=MptAttentionConfig)

    # fmt: off
    def __init__(
        self, d_model: int = 2048, n_heads: int = 16, n_layers: int = 24, expansion_ratio: float = 4,
        max_seq_len: int = 2048, vocab_size: int = 50368, resid_pdrop: float = 0.0, layer_norm_epsilon: float = 1e-05,
        emb_pdrop: float = 0.0, learned_pos_emb: bool = True,
        attn_config: MptAttentionConfig | dict[str, Any] | None = None, init_device: str = "cpu",
        logit_scale: float | str | None = None, no_bias: bool = True, verbose: int = 0,
        embedding_fraction: float = 1.0, norm_type: str = "low_precision_layernorm", use_cache: bool = False,
        initializer_range: float = 0.02, **kwargs: Any
    ) -> None: ...
    # fmt: on

    @property
    def intermediate_size(self) -> int:
        """Width of the feed-forward block."""
        width = self.expansion_ratio * self.d_model
        return int(width) if isinstance(width, float) and width.is_integer() else width

    @property
    def head_dim(self) -> int:
        """Size of one head."""
        return self.d_model // self.n_heads

    @property
    def num_key_value_heads(self) -> int:
        """Number of key/value heads."""
        heads = {"multihead_attention": self.n_heads, "multiquery_attention": 1}
        return heads.get(self.attn_config.attn_type, self.attn_config.kv_n_heads)

    @property
    def logit_factor(self) -> float:
        """`logit_scale` as a number."""
        if self.logit_scale == "inv_sqrt_d_model":
            return self.d_model**-0.5
        return 1.0 if self.logit_scale is None else self.logit_scale

    def validate(self) -> None:
        self.check_positive("vocab_size", "d_model", "n_heads", "n_layers", "max_seq_len", "intermediate_size")
        self.check_divisible("d_model", by="n_heads")
        for name, known in KNOWN.items():
            self.check_known(name, known)
        attention, heads = self.attn_config, self.num_key_value_heads
        if not heads or self.n_heads % heads or attention.kv_n_heads not in (None, heads):
            raise ValueError(
                f"attn_config.kv_n_heads={quote(attention.kv_n_heads)} does not fit "
                f"attn_type={quote(attention.attn_type)} with n_heads={self.n_heads}."
            )
        if (attention.clip_qkv or 0) < 0:
            raise ValueError(f"attn_config.clip_qkv={quote(attention.clip_qkv)}; a positive number was expected.")
        if attention.qk_ln and self.norm_type in RMS_NORMS:
            raise ValueError(
                f"attn_config.qk_ln=True with norm_type={quote(self.norm_type)}: versions of llm-foundry differ in "
                f"which norm queries and keys get; norm_type is one of {LAYER_NORMS} with it."
            )
        if not 0 < self.embedding_fraction <= 1:
            raise ValueError(f"embedding_fraction={quote(self.embedding_fraction)}; above 0 and up to 1 was expected.")
        if isinstance(self.logit_factor, str):
            raise ValueError(f"logit_scale={quote(self.logit_scale)}; a number or 'inv_sqrt_d_model' was expected.")
        super().validate()


def norm(config: MptConfig, *, dtype: Any, name: str) -> keras.layers.Layer:
    """Make the normalisation of a configuration's `norm_type`."""
    if config.norm_type in RMS_NORMS:
        return RMSNorm(config.layer_norm_epsilon, dtype=dtype, name=name)
    return layer_norm(config.layer_norm_epsilon, use_bias=not config.no_bias, dtype=dtype, name=name)


class MptAttention(keras.layers.Layer):
    """Self-attention from one projection to queries, keys and values."""

    def __init__(self, config: MptConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        options = {"std": config.initializer_range, "use_bias": not config.no_bias, "dtype": self.dtype_policy}
        self.keys_width = config.num_key_value_heads * config.head_dim
        self.Wqkv = linear(config.d_model + 2 * self.keys_width, name="Wqkv", **options)
        self.q_ln = self.k_ln = None
        if config.attn_config.qk_ln:
            self.q_ln, self.k_ln = (norm(config, dtype=self.dtype_policy, name=name) for name in ("q_ln", "k_ln"))
        self.out_proj = linear(config.d_model, name="out_proj", **options)
        self.dropout = keras.layers.Dropout(config.attn_config.attn_pdrop, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.d_model, self.Wqkv, self.q_ln, self.out_proj)
        build_all(self.keys_width, self.k_ln)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        config, attention = self.config, self.config.attn_config
        fused = self.Wqkv(hidden, lowering=context.lowering)
        if attention.clip_qkv:
            fused = ops.clip(fused, -attention.clip_qkv, attention.clip_qkv)
        query, key, value = ops.split(fused, (config.d_model, config.d_model + self.keys_width), axis=-1)
        if self.q_ln is not None:
            query, key = self.q_ln(query), self.k_ln(key)
        output, cache, weights = context.attend(
            split_heads(query, config.n_heads),
            split_heads(key, config.num_key_value_heads),
            split_heads(value, config.num_key_value_heads),
            scale=config.head_dim**-0.5 if attention.softmax_scale is None else attention.softmax_scale,
            dropout=self.dropout,
        )
        return in_parts(self.out_proj, output, context.lowering), cache, weights


class MptBlock(keras.layers.Layer):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: MptConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        dtype = self.dtype_policy
        self.norm_1 = norm(config, dtype=dtype, name="norm_1")
        self.attn = MptAttention(config, dtype=dtype, name="attn")
        self.dropout = keras.layers.Dropout(config.resid_pdrop, dtype=dtype, name="dropout")
        self.norm_2 = norm(config, dtype=dtype, name="norm_2")
        self.ffn = FeedForward(
            config.d_model,
            config.intermediate_size,
            "gelu",
            use_bias=not config.no_bias,
            std=config.initializer_range,
            dropout=config.resid_pdrop,
            dtype=dtype,
            name="ffn",
        )

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.d_model, self.norm_1, self.attn, self.dropout, self.norm_2, self.ffn)

    def call(self, hidden: Any, *, context: BlockContext) -> tuple[Any, kv.LayerCache, Any]:
        hidden, normed = add_and_norm(hidden, self.norm_1)
        attended, cache, weights = self.attn(normed, context=context)
        attended = dropped(self.dropout, attended, context.training)
        hidden, normed = add_and_norm(plus(hidden, attended), self.norm_2)
        ffn_output = self.ffn(normed, training=context.training, lowering=context.lowering)
        return plus(hidden, ffn_output), cache, weights


class MptBackbone(DecoderBackbone):
    """Token ids (or embeddings) to hidden states.

    With ALiBi, `position_ids` only tell packed sequences apart: distances are counted in columns. Learned positions,
    where none are given, skip padding, as in llm-foundry. A 4-D float mask is added to the scores, as in all families
    here (transformers takes every nonzero entry of one for masked).
    """

    config_class = MptConfig

    def __init__(self, config: MptConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        options = {"std": config.initializer_range, "dtype": self.dtype_policy}
        self.embed_tokens = embedding(config.vocab_size, config.d_model, name="embed_tokens", **options)
        self.slopes = self.embed_positions = None
        if config.attn_config.alibi:
            self.slopes = alibi_slopes(config.n_heads, config.attn_config.alibi_bias_max)
        elif config.learned_pos_emb:
            self.position_limit, self.positions_skip_padding = config.max_seq_len, True
            self.embed_positions = embedding(config.max_seq_len, config.d_model, name="embed_positions", **options)
        self.uses_positions = self.embed_positions is not None
        self.dropout = keras.layers.Dropout(config.emb_pdrop, dtype=self.dtype_policy, name="dropout")
        self.layers = [
            MptBlock(config, dtype=self.dtype_policy, name=f"layers_{index}") for index in range(config.n_layers)
        ]
        self.norm = norm(config, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.d_model, self.embed_tokens, self.embed_positions, self.dropout, *self.layers, self.norm)

    def position_context(self, context: BlockContext) -> BlockContext:
        if self.slopes is None:
            return context
        mask = context.mask
        bias = alibi_bias(self.slopes, mask.key_length, last=mask.offset + mask.query_length - 1)
        return dataclasses.replace(context, bias=bias)

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        hidden, fraction = super().embed(tokens, context), self.config.embedding_fraction
        if self.embed_positions is not None:
            hidden = hidden + self.embed_positions(context.positions, lowering=context.lowering)
        if fraction != 1:
            hidden = hidden * fraction + ops.stop_gradient(hidden) * (1 - fraction)
        return self.dropout(hidden, training=context.training)

    def final_norm(self, hidden: Any) -> Any:
        return self.norm(hidden)


class TFMptPreTrainedModel(TFPreTrainedModel):
    """Base of the MPT models."""

    backbone_class = MptBackbone
    base_model_prefix = "transformer"
    weight_map = WeightMap(
        # Training checkpoints of llm-foundry wrap the model once more.
        prefixes=("model.transformer", "transformer", "model"),
        # Before it was called MPT.
        renames=((r"\bln_(1|2|f)\.", r"norm_\1."), (r"\bmlp\.mlp_(up|down)\.", r"ffn.\1_proj.")),
        pairs=(
            ("wte.", "embed_tokens."),
            ("wpe.", "embed_positions."),
            ("blocks.", "layers."),
            ("norm_f.", "norm."),
        ),
        tied=("lm_head.weight", "embed_tokens.weight"),
    )
    sharding = Sharding(
        queries="attn/Wqkv",
        attended="attn/out_proj",
        widened="ffn/up_proj",
        narrowed="ffn/down_proj",
        tokens="embed_tokens",
    )


class TFMptModel(TFMptPreTrainedModel):
    """The bare MPT decoder: hidden states, no head."""


class TFMptForCausalLM(GenerationMixin, CausalLMHead, TFMptPreTrainedModel):
    """MPT with a language-model head: scores of the next token, and `generate`.

    `generate` keeps a cache only if asked to (`use_cache=True` there or in the configuration): MPT's default is False.
    """


class TFMptForSequenceClassification(SequenceClassificationHead, TFMptPreTrainedModel):
    """MPT that classifies whole sequences."""


class TFMptForTokenClassification(TokenClassificationHead, TFMptPreTrainedModel):
    """MPT that classifies every token."""


class TFMptForQuestionAnswering(QuestionAnsweringHead, TFMptPreTrainedModel):
    """MPT that finds an answer's start and end."""
