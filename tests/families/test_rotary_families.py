"""Mistral, Qwen2, Qwen3, Granite and SmolLM3: what the reference cases do not reach."""

import numpy as np
import pytest
import small_models
from safetensors.numpy import load_file

import tfmodels
from tfmodels import (
    AutoConfig,
    GraniteConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    TFQwen2ForCausalLM,
)

FULL, SLIDING = "full_attention", "sliding_attention"
IDS = np.random.default_rng(0).integers(3, 61, (2, 9))
FAMILIES = ("mistral", "qwen2", "qwen3", "granite", "smollm3")


class TestConfig:
    def test_defaults_are_those_of_transformers(self):
        mistral, qwen2, qwen3 = MistralConfig(), Qwen2Config(), Qwen3Config()
        assert (mistral.num_key_value_heads, mistral.sliding_window, mistral.head_dim) == (8, 4096, 128)
        assert (mistral.intermediate_size, mistral.max_position_embeddings) == (14336, 131072)
        assert (qwen2.vocab_size, qwen2.sliding_window, qwen2.layer_types) == (151936, None, [FULL] * 32)
        assert (qwen2.bos_token_id, qwen2.eos_token_id, qwen2.rope_theta) == (None, None, 10000.0)
        assert (qwen3.head_dim, qwen3.attention_bias, qwen3.attention_biases) == (128, False, (False, False))
        granite, smollm3 = GraniteConfig(), SmolLM3Config()
        assert (granite.attention_scale, granite.logit_factor, granite.embedding_multiplier) == (1.0, 1.0, 1.0)
        assert (smollm3.rope_theta, smollm3.tie_word_embeddings, smollm3.head_dim) == (2000000.0, True, 128)
        assert smollm3.no_rope_layers == [1, 1, 1, 0] * 9 and smollm3.pad_token_id == 128004

    @pytest.mark.parametrize("family", [Qwen2Config, Qwen3Config])
    def test_windows_of_qwen(self, family):
        sizes = {"num_hidden_layers": 3, "sliding_window": 8, "max_window_layers": 1}
        assert family(**sizes).layer_types == [FULL] * 3 and family(**sizes).sliding_window is None
        config = family(**sizes, use_sliding_window=True)
        assert config.layer_types == [FULL, SLIDING, SLIDING] and config.windows == (None, 8, 8)
        assert family.from_dict(config.to_dict()) == config
        own = family(**sizes, use_sliding_window=True, layer_types=[SLIDING, FULL, FULL])
        assert own.windows == (8, None, None)

    def test_layers_without_positions(self):
        config = SmolLM3Config(num_hidden_layers=4, use_sliding_window=True, sliding_window=8)
        assert config.rotaries == ("default",) * 3 + (None,) and config.windows == (None, None, None, 8)
        own = SmolLM3Config(num_hidden_layers=2, no_rope_layers=[0, 1, 1])
        assert own.rotaries == (None, "default") and own.layer_types == [FULL, FULL]

    @pytest.mark.parametrize(
        "family, changes, message",
        [
            (MistralConfig, {"sliding_window": 0}, "sliding_window=0"),
            (
                MistralConfig,
                {"num_key_value_heads": 3},
                "=32 is not divisible by num_key_value_heads=3",
            ),
            (Qwen2Config, {"layer_types": [FULL]}, r"layer_types=.* describes 1 layers; num_hidden_layers=32 was"),
            (Qwen2Config, {"layer_types": ["chunked"] * 32}, "a list of 'full_attention' and 'sliding_attention'"),
            (Qwen3Config, {"head_dim": 7}, "head_dim=7 is odd"),
            (Qwen2Config, {"num_hidden_layers": 1 << 40}, "num_hidden_layers=1099511627776 in Qwen2Config; at most"),
            (Qwen2Config, {"layer_types": [SLIDING] * 32}, "sliding_window=None in Qwen2Config"),
            (SmolLM3Config, {"no_rope_layers": [1, 0]}, "describes 2 layers; num_hidden_layers=36 was expected"),
            (SmolLM3Config, {"no_rope_layers": "often"}, "no_rope_layers='often'; a list of 0 and 1 was expected"),
            (SmolLM3Config, {"no_rope_layer_interval": 0}, "no_rope_layer_interval=0"),
            (GraniteConfig, {"logits_scaling": 0}, "logits_scaling=0 in GraniteConfig"),
        ],
    )
    def test_contradictions_say_what_is_wrong(self, family, changes, message):
        with pytest.raises(ValueError, match=message):
            family(**changes)

    def test_fields_by_position(self):
        config = MistralConfig(61, 16, 24, 2, 4, 2, 6)
        assert (config.vocab_size, config.num_key_value_heads, config.head_dim) == (61, 2, 6)
        assert Qwen3Config(61, 16, 24, 2, 4, 2, 6).head_dim == 6


@pytest.fixture(scope="module")
def models():
    made = {name: small_models.make(name, "ForCausalLM") for name in FAMILIES}
    rng = np.random.default_rng(1)
    for model in made.values():
        for weight in model.weights:
            weight.assign(weight * 15 if len(weight.shape) == 2 else weight + rng.normal(0, 0.2, weight.shape))
    return made


@pytest.mark.parametrize("name", FAMILIES)
def test_files_and_caches(models, name, tmp_path):
    model = models[name]
    want = np.asarray(model(IDS, use_cache=False).logits)
    model.save_pretrained(tmp_path)
    again = tfmodels.TFAutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is type(model) and AutoConfig.from_pretrained(tmp_path).windows == model.config.windows
    np.testing.assert_array_equal(again(IDS, use_cache=False).logits, want)
    past, pieces = None, []
    for start, end in ((0, 5), (5, 6), (6, 9)):
        output = model(IDS[:, start:end], past_key_values=past, use_cache=True)
        past = output.past_key_values
        pieces.append(output.logits)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), want, atol=2e-5)


@pytest.mark.parametrize("name", ["mistral", "qwen3", "smollm3"])
def test_a_window_limits_what_a_token_sees(models, name):
    """Of one windowed block, output 8 depends on the tokens 6 to 8 of a window of 3."""
    config = small_models.config_of(name, num_hidden_layers=1)
    if name != "mistral":
        config = config.replace(layer_types=[SLIDING], sliding_window=3)
    model = small_models.class_of(name, "Model")(config)
    outputs = [np.asarray(model(IDS).last_hidden_state)[:, 8]]
    for column in (5, 6):
        changed = IDS.copy()
        changed[:, column] = (changed[:, column] + 7) % 50 + 3
        outputs.append(np.asarray(model(changed).last_hidden_state)[:, 8])
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-6)
    assert np.abs(outputs[2] - outputs[0]).max() > 1e-4


def test_generation_beyond_a_window(models):
    """With its cache, as without, where the prompt is longer than the window."""
    model = models["mistral"]
    ids = np.asarray(model.generate(IDS, max_new_tokens=4, do_sample=False, eos_token_id=None, jit_compile=False))
    for length in range(9, 13):
        logits = np.asarray(model(ids[:, :length]).logits)[:, -1]
        np.testing.assert_array_equal(logits.argmax(-1), ids[:, length])


def test_biases_of_qwen2_are_where_the_files_have_them(models, tmp_path):
    models["qwen2"].save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    attention = {name.split("self_attn.")[1] for name in names if "layers.0.self_attn." in name and "bias" in name}
    assert attention == {"q_proj.bias", "k_proj.bias", "v_proj.bias"}
    assert not any("mlp" in name and "bias" in name for name in names)
    assert TFQwen2ForCausalLM.from_pretrained(tmp_path).config.attention_biases == (True, False)


def test_logits_within_a_bound():
    bounded = small_models.make("gemma3_text", "ForCausalLM", final_logit_softcapping=0.01)
    plain = small_models.make("gemma3_text", "ForCausalLM")
    plain.set_weights(bounded.get_weights())
    np.testing.assert_allclose(bounded(IDS).logits, 0.01 * np.tanh(plain(IDS).logits / 0.01), atol=1e-7)


@pytest.mark.parametrize("name", ["mistral", "smollm3"])
def test_a_mask_of_pairs_is_used_as_it_is(models, name):
    """As in transformers, where a mask of four axes replaces the window too."""
    pairs = np.tril(np.ones((2, 1, 9, 9), bool))
    unlimited = small_models.make(name, "ForCausalLM", sliding_window=64)
    unlimited.set_weights(models[name].get_weights())
    want = np.asarray(unlimited(IDS).logits)
    np.testing.assert_allclose(models[name](IDS, attention_mask=pairs).logits, want, atol=1e-5)
    assert np.abs(np.asarray(models[name](IDS).logits) - want).max() > 1e-3
