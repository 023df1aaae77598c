"""Configurations of models, of generation, of adapters and of sentence encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfmodels.auto import FAMILIES, AutoConfig
from tfmodels.generation.config import GenerationConfig
from tfmodels.sentence.config import read_folder
from tfmodels.training.adapter_files import read_settings
from tools.fuzz.damage import Random, damage_json
from tools.fuzz.kind import Kind

# Values of fields whose default is None or another kind, and of names that only files have; each where it may stand.
FIELDS: dict[str, Any] = {
    "torch_dtype": "float16",
    "architectures": ["LlamaForCausalLM"],
    "eos_token_id": [1, 2],
    "head_dim": 4,
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "rope_theta": 1e4,
    "id2label": {"0": "a", "1": "b"},
    "label2id": {"a": 0, "b": 1},
    "sliding_window": 4,
    "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 8},
}
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
DENSE = {"in_features": 8, "out_features": 4, "bias": True}
DENSE |= {"activation_function": "torch.nn.modules.activation.Tanh"}
SENTENCE: dict[str, Any] = {
    "modules.json": MODULES,
    "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
    "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": None},
    "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "include_prompt": True},
    "2_Dense/config.json": DENSE,
}


def write_config(rng: Random, folder: Path) -> None:
    """The configuration of a family, with all its fields, and some that files may hold beside them."""
    name = rng.choice(list(FAMILIES))
    family = FAMILIES[name]
    config = family.load(f"{family.stem}Config")().to_dict() | {"model_type": name}
    config |= {field: FIELDS[field] for field in rng.sample(list(FIELDS), 3)}
    (folder / "config.json").write_bytes(damage_json(rng, config))


def read_config(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    repr(config)
    type(config).from_dict(config.to_dict())


def prepare_config() -> None:
    for family in FAMILIES.values():
        family.load(f"{family.stem}Config")


def write_generation(rng: Random, folder: Path) -> None:
    (folder / "generation_config.json").write_bytes(damage_json(rng, GENERATION))


def read_generation(folder: Path) -> None:
    repr(GenerationConfig.from_pretrained(folder))


def write_adapter(rng: Random, folder: Path) -> None:
    (folder / "adapter_config.json").write_bytes(damage_json(rng, ADAPTER))


def read_adapter(folder: Path) -> None:
    read_settings(folder)


def write_sentence(rng: Random, folder: Path) -> None:
    damaged = rng.choice(list(SENTENCE))
    for name, value in SENTENCE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(damage_json(rng, value) if name == damaged else json.dumps(value).encode())


def read_sentence(folder: Path) -> None:
    read_folder(folder)


KINDS = {
    "generation_config": Kind(write_generation, read_generation),
    "adapter_config": Kind(write_adapter, read_adapter),
    "sentence": Kind(write_sentence, read_sentence),
    "config": Kind(write_config, read_config, prepare_config),
}
