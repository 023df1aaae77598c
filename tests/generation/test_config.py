"""The settings of `generate`: what is refused, what is kept, and who wins."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmodels import Engine, TFLlamaForCausalLM
from tfmodels.generation import GenerationConfig
from tfmodels.generation.settings import FIELDS, SETTINGS, UNSUPPORTED, WITHOUT_EFFECT


def test_defaults_are_those_users_know():
    config = GenerationConfig()
    assert (config.max_length, config.temperature, config.top_k, config.top_p) == (20, 1.0, 50, 1.0)
    assert (config.num_beams, config.num_return_sequences, config.do_sample) == (1, 1, False)
    assert (config.repetition_penalty, config.no_repeat_ngram_size, config.use_cache) == (1.0, 0, True)
    assert config.max_new_tokens is config.eos_token_id is config.bad_words_ids is None
    assert config.to_dict() == {}


def test_needs_no_tensorflow():
    code = "import sys, tfmodels.generation.config; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("max_length", 0, "at least 1"),
        ("max_new_tokens", 0, "at least 1"),
        ("max_new_tokens", -3, "at least 1"),
        ("max_new_tokens", 2.5, "an integer"),
        ("max_new_tokens", True, "an integer"),
        ("min_length", -1, "at least 0"),
        ("min_new_tokens", -1, "at least 0"),
        ("do_sample", 1, "True or False"),
        ("num_beams", 0, "at least 1"),
        ("num_return_sequences", 0, "at least 1"),
        ("early_stopping", "later", '"never"'),
        ("temperature", -0.5, "above 0"),
        ("temperature", float("nan"), "above 0"),
        ("temperature", float("inf"), "above 0"),
        ("temperature", "hot", "above 0"),
        ("top_k", -1, "at least 0"),
        ("top_k", 3.0, "an integer"),
        ("top_p", 1.1, "from 0 to 1"),
        ("top_p", -0.1, "from 0 to 1"),
        ("min_p", 2, "from 0 to 1"),
        ("typical_p", 0, "above 0 and at most 1"),
        ("epsilon_cutoff", 1.0, "1 excluded"),
        ("eta_cutoff", -0.1, "1 excluded"),
        ("repetition_penalty", 0.0, "above 0"),
        ("no_repeat_ngram_size", -2, "at least 0"),
        ("bad_words_ids", [3, 4], "list of lists"),
        ("bad_words_ids", [[3], []], "none of them empty"),
        ("bad_words_ids", [[-3]], "list of lists"),
        ("sequence_bias", [[[3], "much"]], "bias"),
        ("sequence_bias", {3: 1.0}, "bias"),
        ("sequence_bias", [[[], 1.0]], "bias"),
        ("sequence_bias", [[[3], math.inf]], "below infinity"),
        ("sequence_bias", [[[3], math.nan]], "below infinity"),
        ("suppress_tokens", 3, "a list of token ids"),
        ("begin_suppress_tokens", ["a"], "a list of token ids"),
        ("forced_bos_token_id", [1], "an integer"),
        ("forced_eos_token_id", [], "a token id"),
        ("eos_token_id", -1, "a token id"),
        ("eos_token_id", "</s>", "a token id"),
        ("pad_token_id", -1, "at least 0"),
        ("exponential_decay_length_penalty", [2], "[start, factor]"),
        ("exponential_decay_length_penalty", [2, -1.0], "[start, factor]"),
        ("use_cache", "yes", "True or False"),
        ("seed", 0.5, "an integer"),
    ],
)
def test_wrong_values_are_named(name, value, right):
    for change in (lambda: GenerationConfig(**{name: value}), lambda: setattr(GenerationConfig(), name, value)):
        with pytest.raises(ValueError, match=name) as error:
            change()
        assert right in str(error.value)
        assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_sample": True, "temperature": 0.0}, "temperature=0 with do_sample=True.*do_sample=False"),
        ({"num_return_sequences": 2}, "num_return_sequences=2 with greedy decoding.*do_sample=True"),
        ({"num_return_sequences": 4, "num_beams": 3}, "num_return_sequences=4 is above num_beams=3"),
        ({"max_length": 5, "min_length": 6}, "min_length=6 is above max_length=5"),
        ({"max_new_tokens": 5, "min_new_tokens": 6}, "min_new_tokens=6 is above max_new_tokens=5"),
        ({"forced_eos_token_id": 2, "suppress_tokens": [1, 2]}, "forced_eos_token_id=2 is also in suppress_tokens"),
    ],
)
def test_contradictions_are_refused_everywhere(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        GenerationConfig(**settings)
    with pytest.raises(ValueError, match=message):
        GenerationConfig().update(**settings)
    # Attributes change one by one, so the contradiction shows when the whole is used.
    config = GenerationConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_lengths_that_do_not_meet_are_no_contradiction():
    config = GenerationConfig(min_length=30)
    assert (config.min_length, config.max_length) == (30, 20)
    assert GenerationConfig(max_new_tokens=2, min_length=30).min_length == 30


def test_unknown_settings_name_close_ones():
    for change in (GenerationConfig, GenerationConfig().update):
        with pytest.raises(TypeError, match=r"unknown generation setting max_new_token; did you mean max_new_tokens"):
            change(max_new_token=3)
        with pytest.raises(TypeError, match=r"unknown generation setting qqq$"):
            change(qqq=3)
        with pytest.raises(TypeError, match="top_h is not supported"):
            change(top_h=0.5)
    with pytest.raises(AttributeError, match="did you mean temperature"):
        GenerationConfig().temprature = 0.5


def test_none_means_not_given():
    assert GenerationConfig(temperature=None, top_k=None).to_dict() == {}
    config = GenerationConfig(eos_token_id=2, repetition_penalty=1.5)
    config.repetition_penalty = None
    assert config.repetition_penalty == 1.0
    assert config.update(eos_token_id=None).eos_token_id is None
    assert GenerationConfig.from_dict({"top_k": None, "max_length": None}).top_k == 50


def test_top_k_none_as_an_argument_turns_it_off():
    assert GenerationConfig(do_sample=True, top_k=7).update(top_k=None).top_k == 0


def test_update_changes_a_copy_only():
    config = GenerationConfig(max_new_tokens=4, bad_words_ids=[[1, 2]])
    changed = config.update(do_sample=True, top_p=0.5)
    assert changed == GenerationConfig(max_new_tokens=4, bad_words_ids=[[1, 2]], do_sample=True, top_p=0.5)
    assert config == GenerationConfig(max_new_tokens=4, bad_words_ids=[[1, 2]])
    assert config != changed


def test_with_defaults_prefers_what_is_given():
    base = GenerationConfig(do_sample=True, temperature=0.5, eos_token_id=7, max_new_tokens=9)
    merged = GenerationConfig(temperature=1.0, max_new_tokens=3).with_defaults(base)
    assert merged == GenerationConfig(do_sample=True, temperature=1.0, eos_token_id=7, max_new_tokens=3)
    assert merged.is_given("temperature")
    assert not merged.is_given("top_k")


def test_given_twice_warns_and_new_tokens_win():
    with pytest.warns(UserWarning, match=r"both max_new_tokens=5 and max_length=30 .*max_new_tokens is used"):
        config = GenerationConfig(max_new_tokens=5, max_length=30)
    assert config.new_tokens(10) == 5
    with pytest.warns(UserWarning, match="both min_new_tokens=2 and min_length=3"):
        GenerationConfig(min_new_tokens=2, min_length=3)
    # The model's own max_length gives way to an argument in silence; an argument that loses is told.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert GenerationConfig(max_length=30).update(max_new_tokens=5).new_tokens(10) == 5
    for change in (
        lambda: GenerationConfig(max_new_tokens=5).update(max_length=30),
        lambda: GenerationConfig(max_length=30).with_defaults(GenerationConfig(max_new_tokens=5)),
    ):
        with pytest.warns(UserWarning, match="max_new_tokens is used") as caught:
            change()
        assert [warning.filename for warning in caught] == [__file__]


def test_copies():
    config = GenerationConfig.from_dict({"top_k": 3, "eos_token_id": [1, 2], "mine": {"a": 1}})
    for again in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert again == config
        assert again is not config


def test_sampling_settings_without_sampling_warn():
    with pytest.warns(UserWarning, match=r"temperature, top_p: used with do_sample=True only"):
        GenerationConfig(temperature=0.0, top_p=0.9)
    with pytest.warns(UserWarning, match="length_penalty: used with num_beams above 1 only"):
        GenerationConfig(length_penalty=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GenerationConfig(temperature=0.5, top_p=0.9, do_sample=True)
        GenerationConfig(temperature=1.0, top_k=50)
        GenerationConfig.from_dict({"temperature": 0.6, "top_p": 0.9}).update(max_new_tokens=3)


def test_new_tokens():
    assert GenerationConfig().new_tokens(100) == 20
    assert GenerationConfig().new_tokens(100, context_length=110) == 10
    assert GenerationConfig(max_length=20).new_tokens(15) == 5
    assert GenerationConfig(max_length=128).new_tokens(100, context_length=110) == 28
    assert GenerationConfig(max_new_tokens=30).new_tokens(100, context_length=110) == 30
    with pytest.raises(ValueError, match=r"prompt of 20 tokens leaves no room .* max_length=20"):
        GenerationConfig(max_length=20).new_tokens(20)
    with pytest.raises(ValueError, match=r"prompt of 110 tokens leaves no room .* context of 110 tokens"):
        GenerationConfig().new_tokens(110, context_length=110)


def test_arrays_become_plain_values():
    config = GenerationConfig(
        eos_token_id=np.array([2, 3]), pad_token_id=np.int64(0), top_p=np.float32(0.5), do_sample=np.bool_(True)
    )
    assert config.to_dict() == {"eos_token_id": [2, 3], "pad_token_id": 0, "top_p": 0.5, "do_sample": True}
    assert config.eos_token_ids == (2, 3)
    assert GenerationConfig(eos_token_id=5).eos_token_ids == (5,)
    assert GenerationConfig().eos_token_ids == ()
    json.dumps(config.to_dict())


def test_keys_of_files_that_are_called_like_methods_are_kept_beside_them(tmp_path):
    stored = {"validate": 1, "update": 2, "to_dict": 3, "eos_token_ids": 4, "eos_token_id": 7, "my_note": "kept"}
    (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert config.to_dict() == stored and config.my_note == "kept" and config.eos_token_ids == (7,)
    config.update(max_new_tokens=3).save_pretrained(tmp_path)
    again = GenerationConfig.from_pretrained(tmp_path)
    assert again.to_dict() == {**stored, "max_new_tokens": 3}
    assert copy.deepcopy(again) == pickle.loads(pickle.dumps(again)) == again


def test_files_keep_unknown_keys(tmp_path):
    content = {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": [2, 9],
        "pad_token_id": 0,
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "num_beams": 4,
        "early_stopping": "never",
        "length_penalty": 0.8,
        "num_beam_groups": 1,
        "top_h": None,
        "cache_implementation": "static",
        "transformers_version": "5.23.0",
        "somebody_elses": {"a": [1, 2]},
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = GenerationConfig.from_pretrained(tmp_path)
    assert config.somebody_elses == {"a": [1, 2]}
    assert config.update(somebody_elses=3).somebody_elses == 3
    config.to_json_file(tmp_path / "settings.json", use_diff=False)
    assert json.loads((tmp_path / "settings.json").read_text()) == content
    config.update(temperature=0.7).save_pretrained(tmp_path / "new" / "folder")
    assert json.loads((tmp_path / "new" / "folder" / "generation_config.json").read_text()) == {
        **content,
        "temperature": 0.7,
    }


def test_files_that_ask_for_the_unsupported_warn():
    with pytest.warns(UserWarning, match=r"have no effect here: token_healing=True, top_h=0.4$"):
        config = GenerationConfig.from_dict({"token_healing": True, "top_h": 0.4, "dola_layers": None})
    assert config.to_dict() == {"token_healing": True, "top_h": 0.4, "dola_layers": None}


def test_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        GenerationConfig.from_pretrained(tmp_path / "nowhere")
    path = tmp_path / "generation_config.json"
    for text, message in [
        ('{"top_k": ', "is not valid JSON"),
        ("[1]", "holds a JSON list; an object was expected"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            GenerationConfig.from_pretrained(tmp_path)
        assert str(path) in str(error.value)


ODD = [
    ({"temperature": 0.0, "do_sample": True}, {}, "temperature=0 with do_sample=True"),
    ({"top_k": -1}, {}, "top_k=-1: it should be an integer of at least 0 .left out"),
    ({"top_p": 1.5}, {}, "top_p=1.5: it should be a number from 0 to 1"),
    ({"max_length": -1}, {}, "max_length=-1"),
    ({"bos_token_id": [1, 2]}, {}, r"bos_token_id=\[1, 2\]"),
    ({"bos_token_id": [1]}, {"bos_token_id": 1}, r"bos_token_id=\[1\] is read as 1"),
    ({"suppress_tokens": [-1]}, {}, r"suppress_tokens=\[-1\]: it should be a list of token ids"),
    ({"eos_token_id": 2.0}, {"eos_token_id": 2}, "eos_token_id=2.0 is read as 2"),
    ({"eos_token_id": [2.0, 3]}, {"eos_token_id": [2, 3]}, "is read as"),
    ({"do_sample": "false"}, {"do_sample": False}, "do_sample='false' is read as False"),
    ({"use_cache": "yes"}, {}, "use_cache='yes': it should be True or False"),
    ({"temperature": "0.7"}, {"temperature": 0.7}, "temperature='0.7' is read as 0.7"),
    ({"temperature": float("nan")}, {}, "temperature=nan"),
    ({"temperature": {"a": 1}}, {}, "temperature="),
    ({"repetition_penalty": float("inf")}, {}, "repetition_penalty=inf"),
    ({"num_return_sequences": 3}, {}, "num_return_sequences=3 with greedy decoding"),
    ({"num_beams": 2, "num_return_sequences": 3}, {"num_beams": 2}, "num_return_sequences=3 is above num_beams=2"),
    ({"min_length": 9, "max_length": 5}, {"max_length": 5}, "min_length=9 is above max_length=5"),
    ({"num_beams": 4}, {"num_beams": 4}, None),
]


@pytest.mark.parametrize(("stored", "kept", "message"), ODD)
def test_odd_values_in_files_are_left_out_and_told(tmp_path, stored, kept, message):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, **stored}))
    for read in (
        lambda: GenerationConfig.from_pretrained(tmp_path),
        lambda: GenerationConfig.from_model_config({"eos_token_id": 7, **stored}),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            config = read()
        assert config.to_dict() == {"eos_token_id": 7, **kept}
        if message is None:
            assert caught == []
        else:
            assert re.search(message, str(caught[0].message)) and len(caught) == 1
            assert len(str(caught[0].message)) < 400
    # Arguments are checked as strictly as ever.
    if not kept:
        with pytest.raises(ValueError, match="it should be|with do_sample=True|with greedy decoding"):
            GenerationConfig(eos_token_id=7).update(**stored)


def test_two_files_that_contradict_each_other_load():
    stored, defaults = (
        GenerationConfig.from_dict({"max_length": 5}),
        GenerationConfig.from_model_config({"min_length": 9}),
    )
    with pytest.warns(UserWarning, match=r"min_length=9 is above max_length=5.*left out: min_length"):
        merged = stored.with_defaults(defaults)
    assert merged.to_dict() == {"max_length": 5}
    with pytest.raises(ValueError, match="min_length=9 is above"):
        GenerationConfig(max_length=5).with_defaults(defaults)


IGNORED = [
    ({"early_stopping": True}, "early_stopping: used with num_beams above 1 only"),
    ({"length_penalty": 0.5, "early_stopping": "never"}, "early_stopping, length_penalty: used with num_beams"),
    ({"temperature": 0.5}, "temperature: used with do_sample=True only"),
    ({"min_p": 0.1, "top_k": 3}, "top_k, min_p: used with do_sample=True only"),
    ({"output_scores": True}, "output_scores: used with return_dict_in_generate=True only"),
    ({"output_logits": True}, "output_logits: used with return_dict_in_generate=True only"),
    ({"min_new_tokens": 3}, "min_new_tokens: used with an eos_token_id only"),
    ({"min_length": 3}, "min_length: used with an eos_token_id only"),
]


@pytest.mark.parametrize(("given", "message"), IGNORED)
def test_every_setting_without_effect_warns_when_it_is_given(given, message):
    with pytest.warns(UserWarning, match=f"^{message}"):
        GenerationConfig().update(**given)
    # The same by attribute, where it counts as soon as something is generated ...
    config = GenerationConfig()
    for name, value in given.items():
        setattr(config, name, value)
    with pytest.warns(UserWarning, match=f"^{message}"):
        config.update(max_new_tokens=3)
    # ... and a file's author need not be told.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GenerationConfig.from_dict(given).update(max_new_tokens=3)


def test_neutral_values_pass_whatever_setting_they_belong_to():
    neutral = {name: value for name, values in UNSUPPORTED.items() for value in values}
    neutral |= {
        name: one.default for name, one in SETTINGS.items() if one.default is not None and name != "max_length"
    }
    neutral |= {"cache_implementation": "static", "disable_compile": True, "transformers_version": "4.57"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = GenerationConfig(**neutral)
        GenerationConfig().update(**neutral)
    assert config.num_beam_groups == 1 and GenerationConfig().guidance_scale is None
    for name in UNSUPPORTED:
        with pytest.raises(TypeError, match=f"{name} is not supported: leave it out"):
            GenerationConfig().update(**{name: "asked for"})


def test_what_would_not_be_done_is_refused():
    for settings in (
        {"low_memory": True},
        {"assistant_early_exit": 4},
    ):
        with pytest.raises(TypeError, match=f"{next(iter(settings))} is not supported"):
            GenerationConfig(**settings)
    assert GenerationConfig(disable_compile=True).compiles is False
    assert GenerationConfig(jit_compile=True).compiles and not GenerationConfig(jit_compile=False).compiles


def test_the_settings_of_transformers_are_all_known():
    for_version_4_57 = """
        _commit_hash _from_model_config assistant_confidence_threshold assistant_early_exit assistant_lookbehind
        cache_config cache_implementation compile_config constraints decoder_start_token_id disable_compile
        diversity_penalty dola_layers encoder_no_repeat_ngram_size encoder_repetition_penalty force_words_ids
        guidance_scale is_assistant low_memory max_matching_ngram_size max_time num_assistant_tokens
        num_assistant_tokens_schedule num_beam_groups output_attentions output_hidden_states penalty_alpha
        prefill_chunk_size prompt_lookup_num_tokens return_legacy_cache stop_strings target_lookbehind token_healing
        transformers_version watermarking_config
    """
    assert set(for_version_4_57.split()) <= UNSUPPORTED.keys() | WITHOUT_EFFECT | FIELDS
    transformers = pytest.importorskip("transformers")
    assert set(vars(transformers.GenerationConfig())) <= UNSUPPORTED.keys() | WITHOUT_EFFECT | FIELDS


def test_what_scripts_do_with_a_configuration():
    config, unused = GenerationConfig.from_dict(
        {"top_k": 5}, return_unused_kwargs=True, top_p=0.9, foo=1, do_sample=True
    )
    assert config == GenerationConfig(top_k=5, top_p=0.9, do_sample=True) and unused == {"foo": 1}
    assert json.loads(GenerationConfig(do_sample=False, max_new_tokens=4).to_json_string()) == {"max_new_tokens": 4}
    assert GenerationConfig(eos_token_id=[5, 6]).fill_token_id == 5


def test_other_file_names_and_the_hub_arguments(tmp_path):
    GenerationConfig(max_new_tokens=4).save_pretrained(save_directory=tmp_path, config_file_name="mine.json")
    again = GenerationConfig.from_pretrained(tmp_path, "mine.json", trust_remote_code=True, revision="main")
    assert again == GenerationConfig(max_new_tokens=4)
    assert (
        GenerationConfig.from_pretrained(tmp_path, config_file_name="mine.json", max_new_tokens=5).max_new_tokens == 5
    )
    with pytest.raises(TypeError, match="save_pretrained got an unknown argument 'repo'"):
        again.save_pretrained(tmp_path, repo="x")


def test_sequence_bias_as_a_dict_is_written_as_a_list(tmp_path):
    GenerationConfig(sequence_bias={(5,): 3.0, (7, 7): -2.5}).save_pretrained(tmp_path)
    again = GenerationConfig.from_pretrained(tmp_path)
    assert again.sequence_bias == [[[5], 3.0], [[7, 7], -2.5]]


def test_a_bias_of_minus_infinity_is_kept_in_files(tmp_path):
    GenerationConfig(sequence_bias={(5,): -math.inf}).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).sequence_bias == [[[5], -math.inf]]


def test_from_model_config():
    content = {
        "model_type": "llama",
        "hidden_size": 8,
        "bos_token_id": 0,
        "eos_token_id": [1, 4],
        "pad_token_id": -1,
        "use_cache": False,
        "max_length": None,
        "seed": "from training",
    }

    class Config:
        def to_dict(self):
            return content

    for source in (content, Config()):
        config = GenerationConfig.from_model_config(source)
        assert config.to_dict() == {"bos_token_id": 0, "eos_token_id": [1, 4], "use_cache": False}


VALUES = {
    "max_new_tokens": st.integers(1, 10**6),
    "min_length": st.integers(0, 100),
    "temperature": st.floats(0.01, 100),
    "top_k": st.integers(0, 1000),
    "top_p": st.floats(0, 1),
    "eos_token_id": st.integers(0, 99) | st.lists(st.integers(0, 99), min_size=1),
    "bad_words_ids": st.lists(st.lists(st.integers(0, 99), min_size=1)),
    "sequence_bias": st.lists(st.tuples(st.lists(st.integers(0, 99), min_size=1), st.floats(-9, 9)).map(list)),
    "exponential_decay_length_penalty": st.tuples(st.integers(0, 9), st.floats(0.1, 9)),
    "num_beams": st.integers(1, 9),
}


@given(st.fixed_dictionaries({"do_sample": st.just(True)}, optional=VALUES))
def test_json_round_trip(settings):
    config = GenerationConfig(**settings)
    assert GenerationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert all(getattr(config, name) is not None for name in settings)


def test_transformers_reads_what_is_written(tmp_path):
    transformers = pytest.importorskip("transformers")
    settings = {
        "max_new_tokens": 12,
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "bad_words_ids": [[1], [2, 3]],
        "sequence_bias": [[[5], 3.0]],
        "eos_token_id": [2, 9],
        "pad_token_id": 0,
    }
    GenerationConfig(**settings, seed=3, jit_compile=False).save_pretrained(tmp_path)
    peer = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert {name: getattr(peer, name) for name in settings} == settings
    # And back, with every key it writes.
    peer.save_pretrained(tmp_path / "peer")
    ours = GenerationConfig.from_pretrained(tmp_path / "peer")
    assert {name: getattr(ours, name) for name in settings} == settings


def test_every_setting_is_documented_and_checked():
    for name in FIELDS:
        assert name in GenerationConfig.__doc__, name
        with pytest.raises(ValueError, match=name):
            setattr(GenerationConfig(), name, object())


@pytest.mark.parametrize("value", [20, {"max_new_tokens": 20}, "sampling"])
def test_what_is_no_configuration_is_named(stories260k, value):
    model = TFLlamaForCausalLM.from_pretrained(stories260k)
    for call in (model.generate, Engine(model, rows=1, capacity=16).add):
        with pytest.raises(
            TypeError, match="^generation_config=.*: a GenerationConfig was expected; settings are given"
        ):
            call([1, 403], value)
