"""GPT-NeoX: what the reference cases do not reach."""

import json

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tfmodels import (
    AutoConfig,
    GPTNeoXConfig,
    TFAutoModelForCausalLM,
    TFGPTNeoXForCausalLM,
    TFGPTNeoXForQuestionAnswering,
    TFGPTNeoXForTokenClassification,
    TFGPTNeoXModel,
)

TINY = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
IDS = np.random.default_rng(0).integers(1, 61, (2, 7))


def values(output):
    return [np.asarray(x) for x in tf.nest.flatten(output)]


class TestConfig:
    def test_rotary_values_by_every_name(self):
        old = GPTNeoXConfig(rotary_pct=1.0, rotary_emb_base=5000, rope_scaling={"type": "linear", "factor": 2.0})
        inner = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000, "partial_rotary_factor": 1.0}
        assert old == GPTNeoXConfig(rope_parameters=inner) and old.rope_parameters == inner
        assert (old.rotary_pct, old.rotary_emb_base, old.rope_theta, old.partial_rotary_factor) == (
            1.0,
            5000,
            5000,
            1.0,
        )
        changed = old.replace(rotary_pct=0.5)
        assert changed.rope_parameters == {**inner, "partial_rotary_factor": 0.5}
        changed.rotary_emb_base = 7
        assert changed.rope_theta == 7
        written = old.to_dict()  # both versions' spellings
        assert (written["rotary_pct"], written["rotary_emb_base"], written["rope_parameters"]) == (1.0, 5000, inner)
        assert written["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}

    def test_defaults_are_those_of_the_20b_model(self):
        config = GPTNeoXConfig()
        assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (50432, 6144, 24576)
        assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_act) == (44, 64, "gelu")
        assert (config.rotary_pct, config.rotary_emb_base, config.rotary_dim) == (0.25, 10000, 24)
        assert (config.bos_token_id, config.eos_token_id, config.tie_word_embeddings) == (0, 2, False)
        assert config.use_parallel_residual and config.attention_bias and config.classifier_dropout == 0.1

    @pytest.mark.parametrize(
        "stored",
        [
            # The keys that each of these checkpoints was published with, sizes made small.
            pytest.param({"hidden_act": "gelu_fast", "attention_probs_dropout_prob": 0, "rotary_pct": 0.25}, id="20b"),
            pytest.param(
                {"use_parallel_residual": False, "rotary_pct": 1.0, "rotary_emb_base": 10000}, id="redpajama"
            ),
            pytest.param({"custom_pipelines": {"text-generation": {"impl": "x"}}, "rotary_pct": 0.25}, id="dolly"),
            pytest.param(
                {"rotary_emb_base": 10000, "rotary_pct": 0.25, "bos_token_id": 0, "eos_token_id": 0}, id="stablelm"
            ),
        ],
    )
    def test_published_configs_load(self, stored, tmp_path):
        stored = {**TINY, **stored, "model_type": "gpt_neox", "torch_dtype": "float16"}
        (tmp_path / "config.json").write_text(json.dumps(stored))
        config = AutoConfig.from_pretrained(tmp_path)
        assert config.dtype == "float16"
        del stored["torch_dtype"]
        assert {key: value for key, value in config.to_dict().items() if key in stored} == stored
        model = TFAutoModelForCausalLM.from_config(config)
        assert np.isfinite(model(IDS).logits).all()

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"hidden_size": 15}, "hidden_size=15 is not divisible by num_attention_heads=2"),
            ({"head_dim": ["x"]}, r"head_dim=\['x'\] in GPTNeoXConfig; a positive integer was expected"),
            ({"rotary_pct": 1.5}, "rotary_pct=1.5 turns 12 dimensions, in pairs; a head has 8"),
            ({"num_attention_heads": 0}, "num_attention_heads=0"),
            ({"rotary_pct": -1}, "'partial_rotary_factor'.=-1; a positive number"),
        ],
    )
    def test_contradictions_say_what_is_wrong(self, changes, message):
        with pytest.raises(ValueError, match=message):
            GPTNeoXConfig(**{**TINY, **changes})


class TestFiles:
    @pytest.mark.parametrize("stored_name", ["embed_out.weight", "lm_head.weight"])
    def test_the_head_by_either_name(self, stored_name, tmp_path):
        model = TFGPTNeoXForCausalLM(GPTNeoXConfig(**TINY))
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        assert "embed_out.weight" in tensors and "lm_head.weight" not in tensors
        tensors[stored_name] = tensors.pop("embed_out.weight")
        save_file(tensors, tmp_path / "model.safetensors")
        again = TFGPTNeoXForCausalLM.from_pretrained(tmp_path)
        np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)

    def test_a_tied_head_is_not_written_and_not_missed(self, tmp_path):
        model = TFGPTNeoXForCausalLM(GPTNeoXConfig(**TINY, tie_word_embeddings=True))
        model.save_pretrained(tmp_path)
        assert not any("lm_head" in name or "embed_out" in name for name in load_file(tmp_path / "model.safetensors"))
        again = TFGPTNeoXForCausalLM.from_pretrained(tmp_path)
        np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)

    def test_buffers_of_old_files_are_dropped(self, tmp_path):
        TFGPTNeoXModel(GPTNeoXConfig(**TINY)).save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        tensors |= {
            "gpt_neox.layers.0.attention.bias": np.ones((1, 1, 32, 32), bool),
            "layers.1.attention.masked_bias": np.array(-1e9, "float32"),
            "layers.1.attention.rotary_emb.inv_freq": np.ones(2, "float32"),
        }
        save_file(tensors, tmp_path / "model.safetensors")
        TFGPTNeoXModel.from_pretrained(tmp_path)


class TestTokenTypes:
    @pytest.mark.parametrize("model_class", [TFGPTNeoXForTokenClassification, TFGPTNeoXForQuestionAnswering])
    def test_accepted_third_and_ignored(self, model_class):
        model = model_class(GPTNeoXConfig(**TINY))
        assert model.input_names[:4] == ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        want, mask, types = values(model(IDS)), np.ones_like(IDS), np.ones_like(IDS)
        for output in (
            model(IDS, token_type_ids=types),
            model([IDS, mask, types]),
            model({"input_ids": IDS, "token_type_ids": types}),
        ):
            for got, expected in zip(values(output), want, strict=True):
                np.testing.assert_allclose(got, expected, atol=1e-6)

    @pytest.mark.parametrize("model_class", [TFGPTNeoXModel, TFGPTNeoXForCausalLM])
    def test_ignored_with_a_warning_elsewhere(self, model_class):
        model = model_class(GPTNeoXConfig(**TINY))
        with pytest.warns(UserWarning, match="has no use for token_type_ids"):
            output = model(IDS, token_type_ids=IDS)
        np.testing.assert_array_equal(output[0], model(IDS)[0])


class TestDropout:
    @pytest.fixture
    def run(self, run_dropouts):
        config = GPTNeoXConfig(**TINY, classifier_dropout=0.0)
        return lambda config=config, **shares: run_dropouts(TFGPTNeoXForTokenClassification, config, IDS, **shares)

    @pytest.mark.parametrize("parallel", [True, False])
    def test_hidden(self, run, parallel):  # embeddings, and what attention and feed-forward add
        _, _, dropped = run(
            GPTNeoXConfig(**TINY, classifier_dropout=0.0, use_parallel_residual=parallel), hidden_dropout=1.0
        )
        assert not any(np.any(hidden) for hidden in dropped.hidden_states[:2])

    def test_attention(self, run):
        _, plain, dropped = run(attention_dropout=1.0)
        assert not any(np.any(weights) for weights in dropped.attentions)
        assert np.any(dropped.hidden_states[1] != plain.hidden_states[1])

    def test_classifier(self, run):
        model, plain, dropped = run(classifier_dropout=1.0)
        np.testing.assert_array_equal(dropped.hidden_states[-1], plain.hidden_states[-1])
        np.testing.assert_array_equal(dropped.logits, np.broadcast_to(model.classifier.bias, plain.logits.shape))

    def test_none(self, run):
        _, plain, dropped = run()
        np.testing.assert_array_equal(dropped.logits, plain.logits)
