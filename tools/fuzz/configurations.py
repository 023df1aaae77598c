"""Configurations of models, of generation, of adapters and of sentence encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.fuzz.damage import Random, damage_json
from tools.fuzz.kind import Kind

CONFIGS: tuple[dict[str, Any], ...] = (
    {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 9,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "torch_dtype": "float16",
        "rope_theta": 1e4,
        "id2label": {"0": "a", "1": "b"},
        "label2id": {"a": 0, "b": 1},
        "eos_token_id": [1, 2],
        "use_cache": True,
    },
    {"model_type": "gpt_neox", "hidden_size": 8, "num_attention_heads": 2, "rotary_pct": 0.25, "vocab_size": 9},
    {
        "model_type": "gpt_neo",
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
        "hidden_size": 8,
        "num_heads": 2,
    },
    {"model_type": "mpt", "d_model": 8, "n_heads": 2, "attn_config": {"alibi": True, "attn_pdrop": 0.0}},
    {"model_type": "mpnet", "hidden_size": 8, "num_attention_heads": 2, "relative_attention_num_buckets": 32},
    {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "position_embedding_type": "absolute"},
    {"model_type": "roberta", "hidden_size": 8, "num_attention_heads": 2, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    {
        "model_type": "distilbert",
        "dim": 8,
        "n_heads": 2,
        "n_layers": 1,
        "sinusoidal_pos_embds": False,
        "activation": "gelu",
    },
    {
        "model_type": "modernbert",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "global_attn_every_n_layers": 3,
        "local_attention": 8,
        "layer_types": ["full_attention", "sliding_attention"],
        "num_hidden_layers": 2,
        "classifier_pooling": "mean",
        "global_rope_theta": 160000.0,
    },
    {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "n_inner": None, "activation_function": "gelu_new"},
    {
        "model_type": "mistral",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "sliding_window": 4,
        "head_dim": None,
    },
    {
        "model_type": "qwen2",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
        "num_hidden_layers": 2,
    },
    {
        "model_type": "qwen3",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "attention_bias": False,
    },
    {
        "model_type": "smollm3",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 4,
        "no_rope_layers": [1, 1, 1, 0],
        "no_rope_layer_interval": 4,
    },
    {
        "model_type": "granite",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "embedding_multiplier": 12.0,
        "logits_scaling": 8.0,
        "attention_multiplier": 0.1,
        "residual_multiplier": 0.2,
    },
    {
        "model_type": "gemma3_text",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "sliding_window": 4,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 4,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "final_logit_softcapping": None,
    },
)
GENERATION = {
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 5,
    "top_p": 0.9,
    "eos_token_id": [1, 2],
    "max_length": 20,
    "bad_words_ids": [[1, 2]],
    "suppress_tokens": [3],
    "sequence_bias": [[[1], 2.0]],
    "num_beams": 1,
    "transformers_version": "4.57.0",
    "early_stopping": "never",
    "forced_eos_token_id": 2,
    "_from_model_config": True,
}
ADAPTER = {
    "peft_type": "LORA",
    "task_type": None,
    "r": 4,
    "lora_alpha": 8.0,
    "lora_dropout": 0.1,
    "bias": "none",
    "target_modules": ["q_proj"],
    "modules_to_save": None,
    "use_rslora": True,
    "rank_pattern": {},
}
MODULES = [
    {"idx": n, "name": f"{n}", "path": path, "type": f"sentence_transformers.models.{kind}"}
    for n, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")))
]
SENTENCE: dict[str, Any] = {
    "modules.json": MODULES,
    "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
    "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": None},
    "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "include_prompt": True},
    "2_Dense/config.json": {
        "in_features": 8,
        "out_features": 4,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    },
}


def write_config(rng: Random, folder: Path) -> None:
    (folder / "config.json").write_bytes(damage_json(rng, rng.choice(CONFIGS)))


def read_config(folder: Path) -> None:
    from tfmodels import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    repr(config)
    type(config).from_dict(config.to_dict())


def prepare_config() -> None:
    from tfmodels.auto import FAMILIES

    for family in FAMILIES.values():
        family.load(f"{family.stem}Config")


def write_generation(rng: Random, folder: Path) -> None:
    (folder / "generation_config.json").write_bytes(damage_json(rng, GENERATION))


def read_generation(folder: Path) -> None:
    from tfmodels.generation.config import GenerationConfig

    repr(GenerationConfig.from_pretrained(folder))


def write_adapter(rng: Random, folder: Path) -> None:
    (folder / "adapter_config.json").write_bytes(damage_json(rng, ADAPTER))


def read_adapter(folder: Path) -> None:
    from tfmodels.training.adapter_files import read_settings

    read_settings(folder)


def write_sentence(rng: Random, folder: Path) -> None:
    damaged = rng.choice(list(SENTENCE))
    for name, value in SENTENCE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(damage_json(rng, value) if name == damaged else json.dumps(value).encode())


def read_sentence(folder: Path) -> None:
    from tfmodels.sentence.config import read_folder

    read_folder(folder)


KINDS = {
    "generation_config": Kind(write_generation, read_generation),
    "adapter_config": Kind(write_adapter, read_adapter),
    "sentence": Kind(write_sentence, read_sentence),
    "config": Kind(write_config, read_config, prepare_config),
}
