"""Configurations: the two spellings, unknown keys, labels, contradictions."""

import copy
import inspect
import json
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from tfmodels import (
    AutoConfig,
    BertConfig,
    Gemma3TextConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    MptAttentionConfig,
    MptConfig,
    Qwen2Config,
    SmolLM3Config,
)
from tfmodels.auto import FAMILIES
from tfmodels.configs.part import ConfigPart, field_types

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
    path.write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match="model_type='t5'; LlamaConfig reads"):
        LlamaConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type='t5'.* is not an architecture of tfmodels; it has llama"):
        AutoConfig.from_pretrained(tmp_path)


def test_unknown_changes_name_close_fields():
    with pytest.raises(TypeError, match="'hiden_size': LlamaConfig has no such field; did you mean hidden_size"):
        LlamaConfig().replace(hiden_size=3)


def test_names_near_a_field_bring_a_warning(tmp_path):
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, intermediate_size=8)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "rope_tehta": 50}')
    for action, name, near in (
        (lambda: AutoConfig.from_pretrained(tmp_path), "rope_tehta", "rope_theta"),
        (lambda: LlamaConfig(hiden_size=3), "hiden_size", "hidden_size"),
        (lambda: MptConfig(n_head=3), "n_head", "n_heads"),
        (lambda: BertConfig(num_lables=3), "num_lables", "num_labels"),
        (lambda: AutoConfig.for_model("llama", rms_norm_ep=1e-5), "rms_norm_ep", "rms_norm_eps"),
        (lambda: setattr(config, "pad_token_idd", 3), "pad_token_idd", "pad_token_id"),
    ):
        with pytest.warns(UserWarning, match=f"has no field '{name}'; did you mean {near}.*kept as an attr") as told:
            action()
        assert len(told) == 1 and told[0].filename == __file__
    assert config.pad_token_idd == 3 and config.pad_token_id is None

    class Mine(LlamaConfig):
        def __init__(self, hidden_sizes=(1, 2), **kwargs):
            self.hidden_sizes = list(hidden_sizes)
            super().__init__(**kwargs)

    # Keys of other configurations, beside the field that they are near to, common attributes, and names near to none.
    odd = {"hidden_size": 64, "hidden_sizes": 3, "hidden_dropout_probs": 0.1, "num_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **odd}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LlamaConfig.from_pretrained(tmp_path).replace(num_labels=3).update({"vocab_size": 10})
        BertConfig(gradient_checkpointing=True, pooler_type="first_token_transform", my_note=1, do_sample=True)
        LlamaConfig(**LlamaConfig.from_pretrained(tmp_path).to_dict())
        Mine().my_hidden_size = 4
        config.pad_token_idd = 4


def test_unknown_keys_clash_with_nothing(tmp_path):
    odd = {"validate": 1, "to_dict": 2, "rotary_dim": 3, "_extra": 4, "__class__": "x", "__dict__": {}, "finish": None}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "mine": [1], **odd}))
    config = LlamaConfig.from_pretrained(tmp_path)
    config.validate()
    assert config.rotary_dim == 128 and config.mine == [1] and isinstance(config, LlamaConfig)
    for again in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert again == config and again.mine == [1]
        again.mine, again.other = [2], 3
        assert config.mine == [1] and "other" not in config.to_dict()
    config.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {name: written[name] for name in odd} == odd
    config.later = {"a": 1}
    assert config.to_dict()["later"] == {"a": 1}
    del config.later
    assert "later" not in config.to_dict()
    for name in ("validate", "rotary_dim"):
        with pytest.raises(AttributeError, match=f"'{name}' is a method, constant or computed value of LlamaConfig"):
            setattr(config, name, 1)
    with pytest.raises(AttributeError, match="no field 'hiden_size'; did you mean hidden_size"):
        config.hiden_size  # noqa: B018


# The parameters of the constructors of transformers 4.57.6, in order.
SIGNATURES = {
    LlamaConfig: """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
        hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id
        eos_token_id pretraining_tp tie_word_embeddings rope_theta rope_scaling attention_bias attention_dropout
        mlp_bias head_dim""",
    GPTNeoXConfig: """vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act
        rotary_pct rotary_emb_base attention_dropout hidden_dropout classifier_dropout max_position_embeddings
        initializer_range layer_norm_eps use_cache bos_token_id eos_token_id tie_word_embeddings use_parallel_residual
        rope_scaling attention_bias""",
    GPTNeoConfig: """vocab_size max_position_embeddings hidden_size num_layers attention_types num_heads
        intermediate_size window_size activation_function resid_dropout embed_dropout attention_dropout
        classifier_dropout layer_norm_epsilon initializer_range use_cache bos_token_id eos_token_id""",
    MptConfig: """d_model n_heads n_layers expansion_ratio max_seq_len vocab_size resid_pdrop layer_norm_epsilon
        emb_pdrop learned_pos_emb attn_config init_device logit_scale no_bias verbose embedding_fraction norm_type
        use_cache initializer_range""",
    MptAttentionConfig: """attn_type attn_pdrop attn_impl clip_qkv softmax_scale prefix_lm qk_ln attn_uses_sequence_id
        alibi alibi_bias_max""",
    MPNetConfig: """vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act
        hidden_dropout_prob attention_probs_dropout_prob max_position_embeddings initializer_range layer_norm_eps
        relative_attention_num_buckets pad_token_id bos_token_id eos_token_id""",
}


@pytest.mark.parametrize("cls", SIGNATURES)
def test_positional_arguments_are_in_the_order_of_transformers(cls):
    parameters = inspect.signature(cls).parameters
    first = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert first == SIGNATURES[cls].split()
    assert list(parameters)[-1] == "kwargs"


def test_positional_arguments():
    config = LlamaConfig(100, 16, 32, 2, 4, 2, "silu", 64)
    assert (config.vocab_size, config.num_key_value_heads, config.max_position_embeddings) == (100, 2, 64)
    assert GPTNeoXConfig(64, 8, 1, 2, 16, "gelu", 1.0).rotary_pct == 1.0
    with pytest.raises(TypeError, match="LlamaConfig got 'vocab_size' twice"):
        LlamaConfig(100, vocab_size=3)
    with pytest.raises(TypeError, match=r"takes 22 positional arguments .*; 23 were given"):
        LlamaConfig(*range(23))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"attention_dropout": None}, {"attention_dropout": 0.0}),
        ({"vocab_size": np.int64(64), "rms_norm_eps": np.float32(0.5)}, {"vocab_size": 64, "rms_norm_eps": 0.5}),
        ({"rms_norm_eps": "1e-05"}, {"rms_norm_eps": 1e-5}),
        ({"use_cache": "true", "mlp_bias": "False"}, {"use_cache": True, "mlp_bias": False}),
        ({"tie_word_embeddings": None, "use_cache": None}, {"tie_word_embeddings": False, "use_cache": True}),
        ({"hidden_size": 64.0, "num_attention_heads": 4}, {"hidden_size": 64, "head_dim": 16}),
        ({"rope_theta": "500000.0"}, {"rope_theta": 500000.0}),
        (
            {"rope_scaling": {"type": "linear", "factor": np.float64(2)}},
            {"rope_scaling": {"rope_type": "linear", "factor": 2}},
        ),
        ({"eos_token_id": [np.int64(1), 2.0], "bos_token_id": 1.0}, {"eos_token_id": [1, 2], "bos_token_id": 1}),
        ({"pad_token_id": [7, 8]}, {"pad_token_id": 7}),
        ({"sizes": np.arange(3), "one": np.int32(1)}, {"sizes": [0, 1, 2], "one": 1}),
        ({"id2label": ["ham", "spam"]}, {"num_labels": 2, "label2id": {"ham": 0, "spam": 1}}),
        ({"torch_dtype": "torch.float16"}, {"dtype": "float16", "torch_dtype": "float16"}),
    ],
)
def test_other_spellings_of_values_are_read(given, read):
    config = LlamaConfig(**given)
    assert {name: getattr(config, name) for name in read} == read
    json.dumps(config.to_dict())
    for name, value in read.items():
        assert type(getattr(config, name)) is type(value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rms_norm_eps": -1e-6}, "rms_norm_eps=-1e-06 in LlamaConfig; a number of at least 0 was expected"),
        ({"initializer_range": "-1"}, "initializer_range=-1.0 in LlamaConfig; a number of at least 0"),
        ({"attention_dropout": 2}, "attention_dropout=2 in LlamaConfig; a share from 0 to 1 was expected"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps='small' in LlamaConfig; a number was expected"),
        ({"rms_norm_eps": [1]}, r"rms_norm_eps=\[1\] in LlamaConfig; a number"),
        ({"attention_dropout": True}, "attention_dropout=True in LlamaConfig; a number"),
        ({"use_cache": "yes"}, "use_cache='yes' in LlamaConfig; True or False was expected"),
        ({"use_cache": 2}, "use_cache=2 in LlamaConfig; True or False"),
        ({"hidden_size": 64.5}, "hidden_size=64.5 in LlamaConfig; a positive integer"),
        ({"hidden_size": None}, "hidden_size=None in LlamaConfig; a positive integer"),
        ({"hidden_size": [64]}, r"hidden_size=\[64\] in LlamaConfig; a positive integer"),
        ({"hidden_size": {"a": 1}}, "hidden_size={'a': 1} in LlamaConfig; a positive integer"),
        ({"num_labels": 10**9}, "num_labels=1000000000; at most 1000000 classes"),
        ({"num_labels": "three"}, "num_labels='three'; a positive integer"),
        ({"id2label": 3}, "id2label=3; a dict from class numbers to names"),
        ({"id2label": {"a": "b"}}, "id2label={'a': 'b'}; the keys should be class numbers"),
        ({"label2id": [1], "id2label": {0: "a"}}, r"label2id=\[1\]; a dict from names"),
        ({"problem_type": ["a"]}, r"problem_type=\['a'\] is unknown"),
        ({"rope_scaling": [1]}, r"rope_scaling=\[1\]; a dict was expected"),
        ({"rope_parameters": "yarn"}, "rope_parameters='yarn'; a dict was expected"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, r"rope_type=\['yarn'\] is unknown"),
        ({"rope_theta": "big"}, r"'rope_theta'\]='big'; a positive number"),
        (
            {"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": "a", "high_freq_factor": 4}},
            r"'low_freq_factor'\]='a'; a positive number",
        ),
        ({"rope_scaling": {"type": "longrope", "short_factor": 1, "long_factor": [1]}}, "a list of positive numbers"),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": [1]}}, r"'beta_fast'\]=\[1\]; a positive number"),
        ({"rope_scaling": {"type": "x" * 10**6}}, "is unknown; it is one of"),
        ({"head_dim": 10**400}, "head_dim=an integer of 1329 bits in LlamaConfig; an integer of at most 64 bits"),
        ({"hidden_size": -(10**400)}, "an integer of at most 64 bits"),
        ({"num_key_value_heads": "two"}, "num_key_value_heads='two' in LlamaConfig; a positive integer"),
        ({"pretraining_tp": [1]}, r"pretraining_tp=\[1\] in LlamaConfig; a positive integer"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps=an integer of 1329 bits in LlamaConfig; a number that fits a float"),
        ({"rope_theta": 10**400}, r"'rope_theta'\]=an integer of 1329 bits; a positive number"),
        (
            {"partial_rotary_factor": 1e308},
            "=1e.308; the share of a head that is turned, up to 1",
        ),
        ({"partial_rotary_factor": "half"}, r"'partial_rotary_factor'\]='half'; a positive number"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_in_words(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        LlamaConfig(**given)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_and_epsilons_out_of_range_in_every_family(family):
    config = FAMILIES[family].load(f"{FAMILIES[family].stem}Config")
    names = [name for name in field_types(config) if re.search("drop|eps", name)]
    assert names
    for name in names:
        with pytest.raises(ValueError, match=f"^{name}=-0.5 in {config.__name__}; .* was expected"):
            config(**{name: -0.5})


def test_a_rotary_base_that_changes_nothing_is_told(tmp_path):
    """Files hold it twice, as both versions of transformers write it, and one may be edited."""
    LlamaConfig().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "rope_theta": 5e5}))
    with pytest.warns(
        UserWarning, match=r"rope_theta=500000.0 changes nothing beside rope_parameters\['rope_theta'\]="
    ):
        assert LlamaConfig.from_pretrained(tmp_path).rope_theta == 10000.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tmp_path / "config.json").write_text(json.dumps(values))
        assert LlamaConfig.from_pretrained(tmp_path, rope_theta=5e5).rope_theta == 5e5


def test_parts_and_layer_lists_of_the_wrong_kind_are_refused_in_words():
    with pytest.raises(ValueError, match=r"attn_config=\[1\] in MptConfig; a dict of settings"):
        MptConfig(attn_config=[1])
    with pytest.raises(ValueError, match="a list of .kinds, times. was expected"):
        GPTNeoConfig(attention_types=[[["global"], 10**9]], num_layers=10**9)
    config = MptConfig()
    config.attn_config = {"clip_qkv": 6.0}
    assert config.attn_config.clip_qkv == 6.0


@pytest.mark.parametrize("value", ["</s>", [], {"a": 1}, 1.5, True])
def test_token_ids_that_are_none_never_stop_a_model_from_loading(value):
    with pytest.warns(UserWarning, match="eos_token_id=.* is left out: it should be a token id"):
        assert LlamaConfig(eos_token_id=value).eos_token_id is None


def test_what_scripts_read(tmp_path):
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, vocab_size=100)
    assert config.use_return_dict is True and config.is_encoder_decoder is False and config.is_decoder is False
    assert (config.max_length, config.num_beams, config.top_k, config.temperature) == (20, 1, 50, 1.0)
    assert config.pruned_heads == {} and config.name_or_path == "" and config.get_text_config() is config
    assert config.keys_to_ignore_at_inference == ["past_key_values"] and config.attribute_map == {}
    assert MptConfig().attribute_map["hidden_size"] == "d_model"
    config.pruned_heads[0] = [1]
    assert LlamaConfig().pruned_heads == {}
    difference = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100, "model_type": "llama"}
    assert config.to_diff_dict() == {**difference, "head_dim": 16, "num_key_value_heads": 4}
    assert json.loads(config.to_json_string()) == config.to_diff_dict()
    assert json.loads(config.to_json_string(use_diff=False)) == json.loads(json.dumps(config.to_dict()))
    config.to_json_file(tmp_path / "a.json")
    assert LlamaConfig.from_json_file(tmp_path / "a.json") == config
    config.update({"num_labels": 3, "rope_theta": 7.0, "note": "x"})
    assert (config.num_labels, config.rope_theta, config.note) == (3, 7.0, "x")
    with pytest.raises(ValueError, match="num_attention_heads=5 is not divisible"):
        config.update({"vocab_size": 7, "num_attention_heads": 5})
    assert config.vocab_size == 100
    config.update_from_string("vocab_size=128,use_cache=false,hidden_act=gelu")
    assert (config.vocab_size, config.use_cache, config.hidden_act) == (128, False, "gelu")
    with pytest.raises(ValueError, match="'nonsense=1' is not of the form"):
        config.update_from_string("nonsense=1")


def test_what_scripts_pass(tmp_path):
    config = LlamaConfig(hidden_size=64, num_attention_heads=4)
    config.save_pretrained(save_directory=tmp_path, safe_serialization=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = AutoConfig.from_pretrained(
            pretrained_model_name_or_path=str(tmp_path), trust_remote_code=True, device_map="auto", use_auth_token=None
        )
    assert again == config and again.name_or_path == str(tmp_path)
    for read in (LlamaConfig.from_pretrained, AutoConfig.from_pretrained):
        changed, unused = read(
            tmp_path, return_unused_kwargs=True, vocab_size=7, foo=1, is_decoder=True, _from_auto=True
        )
        assert (changed.vocab_size, changed.is_decoder, unused) == (7, True, {"foo": 1})
        with pytest.raises(TypeError, match="unknown argument 'foo'"):
            read(tmp_path, foo=1)
        with pytest.raises(TypeError, match="'safe_serialization': .* it is an argument of save_pretrained"):
            read(tmp_path, safe_serialization=True)
        with pytest.raises(TypeError, match="'attn_implementation': .* it is for models, give it to their from_pre"):
            read(tmp_path, attn_implementation="eager")
    values, unused = LlamaConfig.get_config_dict(tmp_path, revision="main", foo=1)
    assert values["hidden_size"] == 64 and unused == {"foo": 1}
    assert LlamaConfig.from_pretrained(folder=tmp_path) == config


def test_a_function_in_a_configuration_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="hidden_act=.* cannot be written to config.json"):
        LlamaConfig(hidden_act=abs).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_numbers_that_are_not_finite(tmp_path):
    """As in transformers, what is no field, such as a setting of generation, stops no model from loading."""
    text = LlamaConfig().to_json_string(use_diff=False).rstrip("\n}")
    (tmp_path / "config.json").write_text(text + ', "temperature": NaN, "repetition_penalty": Infinity, "x": [1e999]}')
    with pytest.warns(UserWarning, match=r"LlamaConfig leaves out temperature=nan, repetition_penalty=inf, x=\[inf\]"):
        config = AutoConfig.from_pretrained(tmp_path)
    assert config == LlamaConfig() and "temperature" not in config.to_dict()
    config.save_pretrained(tmp_path / "again")
    (tmp_path / "config.json").write_text(text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": NaN') + "}")
    with pytest.raises(ValueError, match="rms_norm_eps=nan in LlamaConfig; a finite number was expected"):
        AutoConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"eos_token_id": 2', '"eos_token_id": Infinity') + "}")
    with pytest.warns(UserWarning, match="eos_token_id=inf in LlamaConfig is left out"):
        assert AutoConfig.from_pretrained(tmp_path).eos_token_id is None


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (
            Qwen2Config,
            {"max_window_layers": "x", "use_sliding_window": True},
            "max_window_layers='x'",
        ),
        (
            Gemma3TextConfig,
            {"sliding_window_pattern": 0},
            "pattern=0 in .*; a positive integer was expected",
        ),
        (Gemma3TextConfig, {"sliding_window_pattern": "6"}, "sliding_window_pattern='6' in"),
        (
            Gemma3TextConfig,
            {"rope_parameters": {"sliding_attention": 5}},
            r"rope_parameters\['sliding_attention'\]=5 in Gemma3TextConfig; a dict was expected",
        ),
        (
            ModernBertConfig,
            {"rope_parameters": {"full_attention": "x", "sliding_attention": {}}},
            r"rope_parameters\['full_attention'\]='x' in ModernBertConfig; a dict was expected",
        ),
        (Gemma3TextConfig, {"query_pre_attn_scalar": 10**400}, "a number that fits a float was expected"),
        (
            SmolLM3Config,
            {"no_rope_layer_interval": 1.5},
            "interval=1.5 in SmolLM3Config; a positive integer",
        ),
    ],
)
def test_values_of_the_wrong_kind_in_families_whose_layers_differ(config, given, message):
    with pytest.raises(ValueError, match=message):
        config(**{"num_hidden_layers": 2, **given})


NULLS = [
    (Qwen2Config, {"max_window_layers": None, "use_sliding_window": True}, "max_window_layers=None in Qwen2Config"),
    (SmolLM3Config, {"num_hidden_layers": None, "no_rope_layers": [1, 0]}, "num_hidden_layers=None in SmolLM3Config"),
]


@pytest.mark.parametrize(("config", "given", "message"), NULLS)
def test_null_where_layers_are_counted(config, given, message):
    with pytest.raises(ValueError, match=message):
        config(**{"num_hidden_layers": 2, **given})
    assert Qwen2Config(num_hidden_layers=2, max_window_layers=None).windows == (None, None)


ODD = (None, "x", "1", 0, -1, 1.5, True, [], [1], [[]], {}, {"a": 1}, 10**400, float("nan"), float("inf"), 1e308)


@pytest.mark.filterwarnings("ignore:.*is left out")
@pytest.mark.parametrize("family", FAMILIES)
def test_any_field_of_any_kind_is_taken_or_refused_in_words(family):
    config = FAMILIES[family].load(f"{FAMILIES[family].stem}Config")
    refused = 0
    for name in field_types(config):
        for value in ODD:
            try:
                config(**{name: value})
            except ValueError:
                refused += 1
    assert refused > 100


def test_token_ids_beyond_every_vocabulary_are_left_out():
    with pytest.warns(
        UserWarning, match="bos_token_id=an integer of 1329 bits in LlamaConfig is left out: it should be a token id"
    ):
        assert LlamaConfig(bos_token_id=10**400).bos_token_id is None


class TestDeclarations:
    def test_a_constructor_with_a_body_is_one(self):
        class Doubled(LlamaConfig):
            def __init__(self, mine=2, **kwargs):
                super().__init__(**kwargs)
                self.mine = 2 * mine

        config = Doubled(mine=3, hidden_size=64, num_attention_heads=4)
        assert (config.mine, config.hidden_size) == (6, 64)

    def test_what_is_named_alone_has_no_place(self):
        class Named(ConfigPart):
            def __init__(self, first: int = 1, *, second: int = 2, **kwargs): ...

        assert Named(5, second=6).to_dict() == {"first": 5, "second": 6}
        with pytest.raises(TypeError, match="takes 1 positional arguments"):
            Named(5, 6)

    def test_fields_of_a_script_are_declared_by_annotation(self, tmp_path):
        class Mine(LlamaConfig):
            extra_size: int = 5
            share: float | None = None
            kinds: list = ["a"]  # noqa: RUF012
            hidden_size = 64

        config = Mine(61, extra_size=7.0, share="0.5")
        assert (config.extra_size, config.share, config.hidden_size) == (7, 0.5, 64)
        assert (Mine().extra_size, Mine(hidden_size=128).hidden_size, LlamaConfig().hidden_size) == (5, 128, 4096)
        config.kinds.append("b")
        assert Mine().kinds == ["a"] and inspect.signature(Mine).parameters["extra_size"].default == 5
        config.save_pretrained(tmp_path)
        again = Mine.from_pretrained(tmp_path, extra_size=9)
        assert (again.extra_size, again.kinds) == (9, ["a", "b"])
        with pytest.raises(ValueError, match="extra_size='x' in Mine; a positive integer was expected"):
            Mine(extra_size="x")

    def test_values_are_set_before_the_constructor_of_the_base(self, tmp_path):
        class Mine(LlamaConfig):
            kind: str = "plain"

            def __init__(self, depth=2, kind="basic", **kwargs):
                self.depth = depth
                self.kind = kind
                super().__init__(**kwargs)

        config = Mine(depth=3, hidden_size=64)
        assert (config.depth, config.kind, config.hidden_size) == (3, "basic", 64)
        config.save_pretrained(tmp_path)
        assert Mine.from_pretrained(tmp_path) == config

    def test_a_field_has_a_default(self):
        with pytest.raises(TypeError, match="Sizes declares width without a default"):

            class Sizes(ConfigPart):
                def __init__(self, width: int, **kwargs): ...

        with pytest.raises(TypeError, match="Lengths declares width without a default"):

            class Lengths(ConfigPart):
                width: int


def test_num_labels_and_names_that_are_given_must_agree(tmp_path):
    LlamaConfig(num_labels=5).save_pretrained(tmp_path)
    names = {0: "ham", 1: "spam"}
    assert AutoConfig.from_pretrained(tmp_path, num_labels=2, id2label=names).id2label == names
    for load in (AutoConfig.from_pretrained, LlamaConfig.from_pretrained):
        with pytest.raises(ValueError, match=r"num_labels=3 and id2label=\{.*spam.*contradict each other"):
            load(tmp_path, num_labels=3, id2label=names)
