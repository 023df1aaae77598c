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
    {"model_type": "gpt_neo", "num_layers": 2, "attention_types": [[["global", "local"], 1]], "hidden_size": 8},
    {"model_type": "mpt", "d_model": 8, "n_heads": 2, "attn_config": {"alibi": True, "attn_pdrop": 0.0}},
    {"model_type": "mpnet", "hidden_size": 8, "num_attention_heads": 2, "relative_attention_num_buckets": 32},
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
    from tfmodels.sentence.files import read_folder

    read_folder(folder)


KINDS = {
    "generation_config": Kind(write_generation, read_generation),
    "adapter_config": Kind(write_adapter, read_adapter),
    "sentence": Kind(write_sentence, read_sentence),
    "config": Kind(write_config, read_config, prepare_config),
}
