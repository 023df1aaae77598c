"""The architectures with a small configuration each, and their cases.

To cover another architecture of `tfmodels.auto` add an entry to `FAMILIES`: a small configuration, cases, which name
functions of `calls`, and changes that make the configuration tiny for training cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tools.make_reference import calls
from tools.make_reference.calls import Call, Draw


def old_spelling(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as transformers 4.x wrote it."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    rotary = dict(config.get("rope_parameters") or {})
    if "local_attention" in config:  # ModernBERT
        old.pop("layer_types")
        for name, kind in (("global", "full_attention"), ("local", "sliding_attention")):
            old[f"{name}_rope_theta"] = rotary.pop(kind)["rope_theta"]
    elif "full_attention" in rotary:  # two kinds of layers
        old["rope_local_base_freq"] = rotary["sliding_attention"]["rope_theta"]
        rotary = dict(rotary["full_attention"])
    if rotary:
        old["rope_theta"] = rotary.pop("rope_theta")
        old["rope_scaling"] = None if rotary["rope_type"] == "default" else rotary
        if rotary["rope_type"] == "linear":  # the first spelling of all
            old["rope_scaling"]["type"] = rotary.pop("rope_type")
    return {**old, "torch_dtype": config.get("dtype", "float32"), "transformers_version": "4.57.6"}


def first_spelling(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as the first Llama had it: neither grouped heads nor anything about rotary positions."""
    old = old_spelling(config) | {"max_sequence_length": config["max_position_embeddings"]}
    later = ("attention_bias", "attention_dropout", "head_dim", "mlp_bias", "num_key_value_heads", "pretraining_tp")
    for name in (*later, "rope_theta", "rope_scaling"):
        old.pop(name, None)
    return old | {"transformers_version": "4.28.0"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A set of weights and what is called with it.

    Fields:
        name: folder below the architecture's.
        calls: functions of `calls`.
        config: changes to the family's small configuration.
        weights: "safetensors", "sharded", "bin" or "bin_sharded".
        dtype: of the stored weights.
        respell: changes the content of config.json to how an older version wrote it.
        notes: for meta.json.
    """

    name: str
    calls: tuple[Callable[[Draw], Iterator[Call]], ...]
    head: str = "ForCausalLM"
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = "safetensors"
    dtype: str = "float32"
    respell: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    notes: str = ""


class Family:
    """An architecture of this package: a small configuration and its cases.

    `tiny` changes the configuration for training cases, which hold every weight three times.
    """

    def __init__(self, config: dict[str, Any], *cases: Case, tiny: dict[str, Any] | None = None):
        self.config, self.cases, self.tiny = config, cases, tiny or {}


SEQUENCE, TOKEN, QA = "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"
CHOICE = "ForMultipleChoice"
PLAIN, BOTH = (calls.plain,), (calls.plain, calls.left_pad)
CLASSIFIED = (calls.sequence_classification,)

# Cases that every decoder of this calling convention has.
DECODER_CASES = (
    Case("model", (calls.backbone_inputs,), "Model"),
    Case("causal_lm", (calls.language_model,)),
    Case("generate", (calls.generation,)),
    Case("qa", (calls.question_answering,), QA),
    Case("token_cls", (calls.token_classification,), TOKEN, {"num_labels": 4}),
    Case("seqcls_single", (*CLASSIFIED, calls.single_label_extras), SEQUENCE, {"num_labels": 3}),
    Case("seqcls_multi", (calls.multi_label,), SEQUENCE, {"num_labels": 4}),
    Case("seqcls_regression", (*CLASSIFIED, calls.regression_extras), SEQUENCE, {"num_labels": 1}),
    Case("seqcls_regression_multi", CLASSIFIED, SEQUENCE, {"num_labels": 3, "problem_type": "regression"}),
    Case("seqcls_nopad", (calls.without_pad_id,), SEQUENCE, {"num_labels": 3, "pad_token_id": None}),
    Case("saved_bfloat16", (calls.stored_dtype,), dtype="bfloat16"),
    Case("saved_float16", (calls.stored_dtype,), dtype="float16"),
    Case("weights_sharded", (calls.left_pad,), weights="sharded", notes="several safetensors shards and an index"),
    Case("weights_bin", (calls.left_pad,), weights="bin", notes="pytorch_model.bin with buffers to ignore"),
    Case("weights_bin_sharded", (calls.left_pad,), weights="bin_sharded", notes="several .bin shards and an index"),
)


def rotary_cases(small: dict[str, Any]) -> Iterator[Case]:
    """Every rotary scaling, in both spellings; `small` changes the configuration to heads of 16 dimensions."""
    # Phi-3-like factors, one per pair of the 16 rotated dimensions.
    factors: dict[str, Any] = {"short_factor": [1.221, 1.181, 1.062, 1.259, 1.035, 1.05, 1.158, 1.211]}
    factors |= {"long_factor": [1.719, 1.884, 2.508, 2.614, 3.319, 3.53, 4.469, 4.996]}
    factors |= {"original_max_position_embeddings": 12}
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    yarn = {"factor": 4.0, "original_max_position_embeddings": 1024}
    beta = {**yarn, "original_max_position_embeddings": 512, "beta_fast": 16.0, "beta_slow": 0.5, "truncate": False}
    mscale = {"factor": 16.0, "original_max_position_embeddings": 128, "mscale": 0.9, "mscale_all_dim": 0.4}
    attention = {"factor": 8.0, "original_max_position_embeddings": 256, "attention_factor": 0.85}
    for name, context, parameters in (
        ("default", 64, {"rope_theta": 5000.0}),
        ("linear", 64, {"factor": 2.5}),
        ("dynamic", 12, {"factor": 2.5}),
        ("llama3", 512, llama3),
        ("longrope", 48, {"factor": 4.0, **factors}),
        ("longrope_attnfactor", 48, {"factor": 4.0, "attention_factor": 1.25, **factors}),
        ("longrope_nofactor", 36, factors),
        ("yarn", 4096, yarn),
        ("yarn_attnfactor", 2048, attention),
        ("yarn_beta", 2048, beta),
        ("yarn_mscale", 2048, mscale),
        ("yarn_noorig", 640, {"factor": 2.0}),
    ):
        kind = name.split("_")[0]
        rotary = {"rope_type": kind, "rope_theta": 10000.0, **parameters}
        config = {**small, "max_position_embeddings": context, "rope_parameters": rotary}
        longer = (calls.long_rotary,) if kind in ("dynamic", "longrope") else ()
        yield Case(f"rope_{name}", (calls.rotary, *longer), config=config)
        if name in ("linear", "llama3", "longrope", "yarn"):
            notes = "config.json in 4.x style"
            yield Case(f"rope_{name}_v4cfg", (calls.rotary,), config=config, respell=old_spelling, notes=notes)


def few_decoder_cases(special: dict[str, Any], heads: Sequence[str] = (SEQUENCE, TOKEN, QA)) -> Iterator[Case]:
    """One case of each kind, for families of shared layers; `special` changes the configuration of some."""
    for case in DECODER_CASES:
        if case.name in ("model", "generate"):
            yield dataclasses.replace(case, config={**case.config, **special})
        elif case.name in ("causal_lm", "qa", "token_cls", "seqcls_single") and case.head in (*heads, "ForCausalLM"):
            yield case


def cases_without(names: Sequence[str], *cases: Case) -> Iterator[Case]:
    """Cases for a model that knows no such inputs and settings; those that come later replace others of their name."""
    for case in {case.name: case for case in cases}.values():
        yield dataclasses.replace(case, calls=tuple(calls.without(names, make_calls) for make_calls in case.calls))


def encoder_cases(*own: Case) -> Iterator[Case]:
    """The cases of encoders of BERT's kind, and others."""
    shared = [case for case in DECODER_CASES if case.name in ("model", "token_cls", "qa")]
    shared += [Case("seqcls_single", CLASSIFIED, SEQUENCE, {"num_labels": 3}), masked_lm("masked_lm", {})]
    shared += [Case("multiple_choice", (calls.multiple_choice,), CHOICE)]
    return cases_without(("use_cache",), *shared, *own)


def masked_lm(name: str, config: dict[str, Any]) -> Case:
    return Case(name, (calls.masked_language_model,), "ForMaskedLM", config)


SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"vocab_size": 101, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SIZES, **SPECIAL, "intermediate_size": 32, "num_key_value_heads": 2, "max_position_embeddings": 48}
GPT_NEOX = {**SIZES, **SPECIAL, "num_attention_heads": 3, "intermediate_size": 28, "max_position_embeddings": 48}
GPT_NEOX["tie_word_embeddings"] = False
GPT_NEO = {**SPECIAL, "vocab_size": 101, "hidden_size": 24, "intermediate_size": 28, "num_layers": 2, "num_heads": 4}
GPT_NEO |= {"attention_types": [[["global", "local"], 1]], "window_size": 4, "max_position_embeddings": 36}
MPT = {**SPECIAL, "vocab_size": 101, "d_model": 24, "n_heads": 4, "n_layers": 2, "max_seq_len": 32}
MPNET = {**SIZES, "intermediate_size": 28, "max_position_embeddings": 40}
MPNET |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
TINY_SIZES = {"vocab_size": 37, "hidden_size": 8, "intermediate_size": 12}
TINY = {**TINY_SIZES, "num_attention_heads": 2}
# Families whose shared layers others' cases cover have the smallest configuration, and fewer cases.
FEW = {**TINY, **SPECIAL, "num_hidden_layers": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}
WINDOWS = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
GEMMA_ROTARY = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}
GEMMA_ROTARY |= {"sliding_attention": {"rope_type": "default"}}
BERT = {**TINY, "num_hidden_layers": 2, "max_position_embeddings": 16, "pad_token_id": 0}
MEAN_POOLING = {
    "classifier_pooling": "mean",
    "classifier_activation": "relu",
    "classifier_bias": True,
    "num_labels": 1,
}
UNTIED = {"tie_word_embeddings": False}
MODERN_UNTIED = {**UNTIED, "hidden_activation": "relu", "norm_bias": True, "mlp_bias": True, "attention_bias": True}
MODERN_UNTIED |= {"decoder_bias": False}
MODERN_ROTARY = {"full_attention": {"rope_type": "default", "rope_theta": 500.0}}
MODERN_ROTARY |= {"sliding_attention": {"rope_type": "default", "rope_theta": 70.0}}
TYPED_MODEL = Case("model", (calls.backbone_inputs, calls.token_types), "Model")
SMALL_ROTARY = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True}

FAMILIES: dict[str, Family] = {
    "llama": Family(
        LLAMA,
        *DECODER_CASES,
        *rotary_cases(SMALL_ROTARY),
        Case("gqa", BOTH),
        Case("mha", BOTH, config={"num_key_value_heads": 4}),
        Case("llama1_cfg", BOTH, config={"num_key_value_heads": 4}, respell=first_spelling),
        Case("mha_kv_none", BOTH, config={"num_key_value_heads": None, "tie_word_embeddings": True}),
        Case("mqa", BOTH, config={"num_key_value_heads": 1}),
        Case("head_dim", BOTH, config={"head_dim": 12}),
        Case("attention_bias", BOTH, config={"attention_bias": True}),
        Case("mlp_bias", BOTH, config={"mlp_bias": True}),
        Case("pretraining_tp", PLAIN, config={"pretraining_tp": 2}),
        Case("tied_eps", BOTH, config={"tie_word_embeddings": True, "rms_norm_eps": 0.01}),
        *(Case(f"act_{name}", PLAIN, config={"hidden_act": name}) for name in ("gelu", "relu")),
        tiny={**TINY, "num_key_value_heads": 1},
    ),
    "mistral": Family(
        FEW,
        *few_decoder_cases({"sliding_window": 4}),
        Case("window_1", BOTH, config={"sliding_window": 1}),
        Case("no_window_tied", BOTH, config={"sliding_window": None, "head_dim": 6, "tie_word_embeddings": True}),
    ),
    "qwen2": Family(
        FEW,
        *few_decoder_cases(WINDOWS),
        Case("layer_types", BOTH, config={**WINDOWS, "layer_types": ["sliding_attention", "full_attention"]}),
        Case("tied", BOTH, config={"tie_word_embeddings": True}),
    ),
    "qwen3": Family(
        {**FEW, "head_dim": 6},
        *few_decoder_cases(WINDOWS),
        Case("attention_bias", BOTH, config={"attention_bias": True, "tie_word_embeddings": True}),
    ),
    "granite": Family(
        {**FEW, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4},
        *few_decoder_cases({"attention_multiplier": 0.3}, heads=()),
        Case("biases", BOTH, config={"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ),
    "smollm3": Family(
        {**FEW, "no_rope_layer_interval": 2},
        *few_decoder_cases({"use_sliding_window": True, "sliding_window": 4}),
        Case("no_rope_layers", BOTH, config={"no_rope_layers": [0, 1], "tie_word_embeddings": False}),
    ),
    "gemma3_text": Family(
        {**FEW, "head_dim": 6, "query_pre_attn_scalar": 5, "sliding_window": 4}
        | {"layer_types": ["sliding_attention", "full_attention"]},
        *few_decoder_cases({"final_logit_softcapping": 2.0}, heads=(SEQUENCE,)),
        Case("softcapping", BOTH, config={"final_logit_softcapping": 1.5, "attention_bias": True}),
        Case("untied_linear", BOTH, config={**UNTIED, "rope_parameters": GEMMA_ROTARY}),
    ),
    "gpt2": Family(
        {**SPECIAL, "vocab_size": 37, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 32},
        *few_decoder_cases({}),
        Case("scales", BOTH, config={"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
        Case("unscaled_untied", BOTH, config={"scale_attn_weights": False, "tie_word_embeddings": False}),
        Case("double_heads", (calls.double_heads,), "DoubleHeadsModel", {"summary_activation": "tanh"}),
        Case("n_inner", BOTH, config={"n_inner": 12, "activation_function": "relu"}),
    ),
    "gpt_neox": Family(
        GPT_NEOX,
        *DECODER_CASES,
        *rotary_cases({"num_attention_heads": 2, "hidden_size": 32, "rotary_pct": 1.0}),
        Case("sequential", BOTH, config={"use_parallel_residual": False, "tie_word_embeddings": True}),
        Case("rotary_full", BOTH, config={"rotary_pct": 1.0}),
        Case("rotary_pct_odd", BOTH, config={"num_attention_heads": 2}),
        Case("no_attention_bias", BOTH, config={"attention_bias": False}),
        Case("tied_eps", BOTH, config={"tie_word_embeddings": True, "layer_norm_eps": 0.01}),
        *(Case(f"act_{name}", PLAIN, config={"hidden_act": name}) for name in ("gelu_fast", "gelu_new", "relu")),
        tiny={**TINY, "rotary_pct": 0.5},
    ),
    "gpt_neo": Family(
        GPT_NEO,
        *DECODER_CASES,
        Case("all_local", BOTH, config={"attention_types": [[["local"], 2]]}),
        Case("all_global", BOTH, config={"attention_types": [[["global"], 2]]}),
        Case("pattern", BOTH, config={"attention_types": [[["local"], 1], [["global"], 2]], "num_layers": 3}),
        Case("window_1", BOTH, config={"attention_types": [[["local"], 2]], "window_size": 1}),
        Case("window_big", BOTH, config={"window_size": 256}),
        Case("inter_none", BOTH, config={"intermediate_size": None}),
        Case("untied_eps", BOTH, config={"tie_word_embeddings": False, "layer_norm_epsilon": 0.01}),
        *(Case(f"act_{name}", BOTH, config={"activation_function": name}) for name in ("gelu", "relu")),
        tiny={**TINY_SIZES, "num_heads": 2, "max_position_embeddings": 16},
    ),
    "mpt": Family(
        MPT,
        *cases_without(("position_ids",), *DECODER_CASES),
        Case("clip_qkv", BOTH, config={"attn_config": {"clip_qkv": 0.8}}),
        Case("softmax_scale", BOTH, config={"attn_config": {"softmax_scale": 0.11}}),
        Case("heads_3", BOTH, config={"n_heads": 3}),
        Case("heads_not_pow2", BOTH, config={"n_heads": 6}),
        Case("untied_eps", BOTH, config={"tie_word_embeddings": False, "layer_norm_epsilon": 0.01}),
        tiny={"vocab_size": TINY["vocab_size"], "d_model": TINY["hidden_size"], "n_heads": 2},
    ),
    "bert": Family(
        BERT,
        *encoder_cases(
            TYPED_MODEL,
            Case("multiple_choice", (calls.multiple_choice, calls.typed_choices), CHOICE),
            Case("seqcls_regression", CLASSIFIED, SEQUENCE, {"num_labels": 1}),
            masked_lm("masked_lm_untied", {**UNTIED, "hidden_act": "relu", "type_vocab_size": 3}),
            Case("pretraining", (calls.pretraining,), "ForPreTraining"),
            Case("next_sentence", (calls.next_sentence,), "ForNextSentencePrediction"),
        ),
    ),
    "distilbert": Family(
        {"vocab_size": 37, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 16},
        *encoder_cases(masked_lm("masked_lm_untied", {**UNTIED, "activation": "relu"})),
    ),
    "roberta": Family(
        {**BERT, "pad_token_id": 1, "bos_token_id": 0},
        *encoder_cases(
            TYPED_MODEL,
            masked_lm("masked_lm", {"hidden_act": "relu"}),
        ),
    ),
    "modernbert": Family(
        {**TINY, **SPECIAL, "num_hidden_layers": 3, "local_attention": 4, "global_attn_every_n_layers": 2}
        | {"cls_token_id": 1, "sep_token_id": 2, "max_position_embeddings": 32},
        *encoder_cases(
            Case("seqcls_mean", CLASSIFIED, SEQUENCE, MEAN_POOLING),
            masked_lm("masked_lm_untied", MODERN_UNTIED),
            Case("rotary_bases", PLAIN, "Model", {"rope_parameters": MODERN_ROTARY}),
        ),
        # Windows in which every query sees a token: torch adds its mask to the scores, so that a query which sees none
        # has a gradient that its output, a mean whatever the scores, does not have.
        tiny={"num_hidden_layers": 2, "local_attention": 8},
    ),
    "mpnet": Family(
        MPNET,
        *encoder_cases(
            Case("seqcls_regression", CLASSIFIED, SEQUENCE, {"num_labels": 1}),
            *(Case(f"act_{name}", PLAIN, "Model", {"hidden_act": name}) for name in ("gelu_new", "relu")),
            Case("model_buckets", PLAIN, "Model", {"relative_attention_num_buckets": 48}),
        ),
        tiny={**TINY, "max_position_embeddings": 16},
    ),
}
