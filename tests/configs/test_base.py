"""Configurations: the two spellings, unknown keys, labels, contradictions."""

import json
from pathlib import Path

import pytest

from tfmodels import AutoConfig, LlamaConfig
from tfmodels.auto import FAMILIES

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = REFERENCE / "llama"
REFUSED = REFERENCE / "mpt" / "ignored_options"  # what transformers ignores in it is an error here
ALL = sorted(config.parent for name in FAMILIES for config in REFERENCE.glob(f"{name}/*/config.json"))
ALL = [folder for folder in ALL if folder != REFUSED]
BOTH = [folder for folder in ALL if (folder / "config_v4.json").exists()]
# Written by one of the two versions only.
UNSHARED = ("transformers_version", "original_max_position_embeddings", "is_decoder")


def case_name(folder):
    return f"{folder.parent.name}/{folder.name}"


def comparable(config):
    return {key: value for key, value in config.to_dict().items() if key not in UNSHARED}


@pytest.mark.parametrize("folder", BOTH, ids=case_name)
def test_both_spellings_load_alike(folder):
    new = AutoConfig.from_pretrained(folder / "config.json")
    old = AutoConfig.from_pretrained(folder / "config_v4.json")
    assert comparable(new) == comparable(old)


@pytest.mark.parametrize("folder", ALL, ids=case_name)
def test_json_round_trip_is_exact(folder, tmp_path):
    config = AutoConfig.from_pretrained(folder)
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path) == config
    stored = json.loads((folder / "config.json").read_text())
    written = json.loads((tmp_path / "config.json").read_text())
    # `torch_dtype` and a rope_scaling's `type` are written by their new names, a part of a configuration without what
    # only a whole one means.
    renamed = ("torch_dtype", "rope_scaling", "attn_config")
    lost = {key: value for key, value in stored.items() if written.get(key) != value and key not in renamed}
    assert lost == {}


def test_llama_1_config_gets_the_defaults_of_its_time():
    config = LlamaConfig.from_pretrained(CASES / "llama1_cfg")
    assert (config.num_key_value_heads, config.head_dim, config.rope_theta) == (4, 6, 10000.0)
    assert config.max_sequence_length == 48  # a key nobody here knows


def test_defaults_are_llama_1_7b():
    config = LlamaConfig()
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (32000, 4096, 11008)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (32, 32, 32)
    assert (config.rms_norm_eps, config.tie_word_embeddings, config.use_cache) == (1e-6, False, True)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, None)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}


def test_rotary_values_by_every_name():
    config = LlamaConfig(rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    assert config.rope_parameters == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    assert config.rope_theta == 5e5 and config.rope_scaling == {"rope_type": "linear", "factor": 2.0}
    assert config.replace(rope_theta=7.0).rope_parameters["factor"] == 2.0
    assert config.replace(rope_scaling=None).rope_parameters == {"rope_type": "default", "rope_theta": 5e5}
    config.rope_scaling = {"rope_type": "dynamic", "factor": 4.0}
    assert config.rope_parameters == {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 5e5}


def test_labels():
    config = LlamaConfig(id2label={"0": "ham", "1": "spam", "2": "unsure"})
    assert config.num_labels == 3 and config.id2label[1] == "spam" and config.label2id["unsure"] == 2
    assert LlamaConfig(num_labels=5).id2label[4] == "LABEL_4"
    changed = config.replace(num_labels=2)
    assert changed.label2id == {"LABEL_0": 0, "LABEL_1": 1} and config.num_labels == 3


@pytest.mark.parametrize(
    "values, message",
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size=30 is not divisible by num_attention_heads=4"),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, "num_attention_heads=8 is not divisible by"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "rope_type='spiral' is unknown; it is one of default"),
        ({"rope_scaling": {"type": "linear"}}, "rope_type='linear' needs factor"),
        ({"rope_scaling": {"type": "linear", "factor": -2}}, r"'factor'\]=-2; a positive number"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "needs low_freq_factor, high_freq_factor"),
        (
            {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
            "has 1 values; half the rotated size of a head, 64, was expected",
        ),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"vocab_size": "32000"}, "vocab_size='32000'"),
        ({"num_labels": 0}, "num_labels=0"),
        ({"problem_type": "ranking"}, "problem_type='ranking' is unknown"),
        ({"head_dim": 5}, "head_dim=5 is odd"),
    ],
)
def test_contradictions_say_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig(**values)


def test_broken_files_say_where(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        LlamaConfig.from_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text('{"vocab_size": 3,\n "hidden_size" 4}')
    with pytest.raises(ValueError, match=r"config.json is not valid JSON: .* line 2"):
        LlamaConfig.from_pretrained(tmp_path)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds a JSON list"):
        LlamaConfig.from_pretrained(tmp_path)
    path.write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="model_type='bert'; LlamaConfig reads"):
        LlamaConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type='bert'.* is not an architecture of tfmodels; it has llama"):
        AutoConfig.from_pretrained(tmp_path)


def test_unknown_changes_name_close_fields():
    with pytest.raises(TypeError, match="'hiden_size': LlamaConfig has no such field; did you mean hidden_size"):
        LlamaConfig().replace(hiden_size=3)
