"""GPT-Neo: what the reference cases do not reach."""

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tfmodels import GPTNeoConfig, TFGPTNeoForCausalLM, TFGPTNeoForTokenClassification, TFGPTNeoModel
from tfmodels.cache.kv import to_static
from tfmodels.checkpoints.weight_map import slots_of

TINY = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_layers": 2,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 3,
    "num_heads": 2,
    "max_position_embeddings": 12,
}
IDS = np.random.default_rng(0).integers(1, 61, (2, 9))


@pytest.fixture(scope="module")
def model():
    return TFGPTNeoForCausalLM(GPTNeoConfig(**TINY, initializer_range=0.3))


class TestConfig:
    @pytest.mark.parametrize(
        "types, layers",
        [
            ([[["global", "local"], 2]], ["global", "local", "global", "local"]),
            ([[["local"], 1], [["global"], 3]], ["local", "global", "global", "global"]),
            ([[["global", "global", "local"], 1], [["local"], 1]], ["global", "global", "local", "local"]),
        ],
    )
    def test_attention_types(self, types, layers):
        config = GPTNeoConfig(num_layers=4, attention_types=types)
        assert config.attention_layers == layers and config.to_dict()["attention_layers"] == layers
        assert GPTNeoConfig.from_dict(config.to_dict()) == config
        by_layers = GPTNeoConfig(num_layers=4, attention_layers=layers)
        assert by_layers.attention_layers == layers
        # A change of one is a change of both.
        assert config.replace(attention_layers=["local"] * 4).attention_layers == ["local"] * 4
        assert by_layers.replace(attention_types=[[["global"], 4]]).attention_layers == ["global"] * 4

    def test_names_of_other_families(self):
        config = GPTNeoConfig(num_hidden_layers=2, attention_layers=["local", "global"], num_attention_heads=8)
        assert (config.num_layers, config.num_heads, config.hidden_act) == (2, 8, "gelu_new")
        assert config.num_hidden_layers == 2 and "num_hidden_layers" not in config.to_dict()

    def test_defaults_are_those_of_the_1_3b_model(self):
        config = GPTNeoConfig()
        assert (config.vocab_size, config.hidden_size, config.num_layers, config.num_heads) == (50257, 2048, 24, 16)
        assert (config.max_position_embeddings, config.window_size, config.intermediate_size) == (2048, 256, None)
        assert config.attention_layers == ["global", "local"] * 12 and config.tie_word_embeddings
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (50256, 50256, None)

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"num_layers": 3}, r"describes 2 layers; num_layers=3 was expected"),
            ({"attention_types": [[["global", "lokal"], 1]]}, "names 'lokal'; it is one of global, local"),
            ({"attention_types": ["global", "local"]}, "a list of .kinds, times. was expected"),
            ({"attention_types": 2}, "attention_types=2"),
            ({"hidden_size": 15}, "hidden_size=15 is not divisible by num_heads=2"),
            ({"window_size": 0}, "window_size=0"),
            ({"intermediate_size": -1}, "intermediate_size=-1"),
        ],
    )
    def test_contradictions_say_what_is_wrong(self, changes, message):
        with pytest.raises(ValueError, match=message):
            GPTNeoConfig(**{**TINY, **changes})


class TestPositions:
    def test_longer_input_is_refused(self, model):
        long = np.ones((1, 13), "int32")
        with pytest.raises(ValueError, match=r"from 0 to 12; this model has positions 0 to 11 .*shorten the input"):
            model(long)
        with pytest.raises(ValueError, match="from 0 to 12"):
            tf.function(lambda ids: model(ids).logits)(long)
        with pytest.raises(ValueError, match=r"prompt of 5 plus 8 new tokens exceed max_position_embeddings=12"):
            model.generate(IDS[:, :5], max_new_tokens=8)

    def test_given_positions_count_instead_of_columns(self, model):
        restarting = np.concatenate([np.arange(9), np.arange(9)])[None]
        packed = model(np.concatenate([IDS[:1], IDS[1:]], axis=1), position_ids=restarting, use_cache=False).logits
        alone = model(IDS, use_cache=False).logits
        np.testing.assert_allclose(np.reshape(packed, alone.shape), alone, atol=1e-5)
        for bad in (12, -1):
            with pytest.raises(ValueError, match=f"positions run from .*{bad}"):
                model(IDS, position_ids=np.where(np.arange(9) == 4, bad, np.arange(9)))

    def test_the_cache_counts(self, model):
        past = model(IDS, use_cache=True).past_key_values
        model(IDS[:, :3], past_key_values=past)
        with pytest.raises(ValueError, match="from 9 to 12"):
            model(IDS[:, :4], past_key_values=past)

    @pytest.mark.slow
    def test_all_of_them_can_be_generated(self, model):
        ids = model.generate(IDS[:, :5], max_new_tokens=7, do_sample=False, eos_token_id=None)
        best = np.asarray(model(ids[:, :-1]).logits)[:, 4:].argmax(-1)
        np.testing.assert_array_equal(ids[:, 5:], best)


class TestAttention:
    @pytest.mark.parametrize("cached", [False, True])
    def test_a_local_token_sees_its_window(self, cached):
        config = GPTNeoConfig(**{**TINY, "num_layers": 1, "attention_types": [[["local"], 1]]}, initializer_range=0.5)
        model = TFGPTNeoModel(config)

        def states(ids):
            past = model(ids[:, :4], use_cache=True).past_key_values if cached else None
            return np.asarray(model(ids[:, 4:] if cached else ids, past_key_values=past)[0])[:, -5:]

        other = IDS.copy()
        other[:, 3] = (other[:, 3] + 7) % 61
        changed = np.abs(states(IDS) - states(other)).max(axis=(0, 2)) > 1e-6
        assert changed.tolist() == [True, True, False, False, False]  # columns 4 to 8 look back on 3 of 3 tokens

    def test_a_local_layers_static_cache_needs_its_window(self, model):
        want = np.asarray(model(IDS).logits)
        for filled in (2, 3, 5):
            past = model(IDS[:, :filled], use_cache=True).past_key_values
            static = to_static(past, 10, model.backbone.cache_windows)
            assert [key.shape[2] for key, _ in static.layers] == [10, 3]
            step = tf.function(lambda ids, past: model(ids, past_key_values=past), jit_compile=True)
            for column in range(filled, 9):
                output = step(IDS[:, column : column + 1], static)
                static = output.past_key_values
                np.testing.assert_allclose(output.logits[:, 0], want[:, column], atol=1e-5)
            assert [key.shape[2] for key, _ in static.layers] == [10, 3]
        with pytest.raises(ValueError, match="a cache that keeps 3 positions takes one token at a time; got 2"):
            model(IDS[:, :2], past_key_values=static._replace(length=tf.constant(2)))

    @pytest.mark.slow
    def test_all_layers_local(self):
        config = GPTNeoConfig(**{**TINY, "num_layers": 3, "attention_types": [[["local"], 3]]}, initializer_range=0.3)
        model = TFGPTNeoForCausalLM(config)
        assert model.backbone.cache_windows == (None, 3, 3)
        options = {"max_new_tokens": 7, "do_sample": False, "eos_token_id": None}
        ids = model.generate(IDS[:, :5], **options)
        np.testing.assert_array_equal(ids, model.generate(IDS[:, :5], use_cache=False, **options))

    def test_a_mask_of_the_users_only_takes_away(self, model):
        np.testing.assert_allclose(
            model(IDS, attention_mask=np.ones((1, 1, 9, 9), "int32")).logits, model(IDS).logits, atol=1e-6
        )
        own = np.tri(9, dtype="float32")[None, None]
        own[..., 3:, 0] = 0
        later = model(IDS, attention_mask=np.where(own == 1, 0.0, -np.inf).astype("float32"), output_attentions=True)
        assert all(np.abs(weights[:, :, 3:, 0]).max() == 0 for weights in later.attentions)

    def test_scores_beyond_float16(self):
        plain = TFGPTNeoModel(GPTNeoConfig(**TINY))
        for block in plain.backbone.h:
            for projection in (block.attn.q_proj, block.attn.k_proj):
                projection.kernel.assign(projection.kernel * 4000)
        half = TFGPTNeoModel(plain.config, dtype="float16")
        half.set_weights(plain.get_weights())
        first = plain.backbone.h[0]
        hidden = first.ln_1(plain(IDS, output_hidden_states=True).hidden_states[0])
        query, key = (np.asarray(project(hidden))[..., :8] for project in (first.attn.q_proj, first.attn.k_proj))
        assert np.abs(query @ key.swapaxes(1, 2)).max() > 65504
        got, want = half(IDS, output_attentions=True), plain(IDS, output_attentions=True)
        assert np.isfinite(got[0]).all()
        np.testing.assert_allclose(np.asarray(got.attentions[0], "float32"), want.attentions[0], atol=0.02)


def test_token_types_are_looked_up_among_the_tokens(model):
    assert model.input_names[:4] == ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    types = np.random.default_rng(1).integers(0, 2, IDS.shape)
    embeds = model.get_input_embeddings()(IDS) + model.get_input_embeddings()(types)
    want = model(inputs_embeds=embeds).logits
    for got in (model(IDS, token_type_ids=types), model([IDS, np.ones_like(IDS), types])):
        np.testing.assert_allclose(got.logits, want, atol=1e-5)
    assert np.abs(np.asarray(want) - np.asarray(model(IDS).logits)).max() > 0.01


def test_buffers_of_old_files_are_dropped_and_names_kept(model, tmp_path):
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert {"transformer.h.1.attn.attention.q_proj.weight", "transformer.h.0.mlp.c_fc.bias"} <= set(tensors)
    assert not any(name.startswith("lm_head") for name in tensors)
    tensors |= {
        "transformer.h.0.attn.attention.bias": np.ones((1, 1, 12, 12), "uint8"),
        "transformer.h.1.attn.attention.masked_bias": np.array(-1e9, "float32"),
        "lm_head.weight": tensors["transformer.wte.weight"].copy(),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(TFGPTNeoForCausalLM.from_pretrained(tmp_path)(IDS).logits, model(IDS).logits)


class TestDropout:
    @pytest.fixture
    def run(self, run_dropouts):
        config = GPTNeoConfig(**TINY, classifier_dropout=0.0)
        return lambda config=config, **shares: run_dropouts(TFGPTNeoForTokenClassification, config, IDS, **shares)

    def test_embeddings(self, run):
        _, _, dropped = run(embed_dropout=1.0)
        assert not np.any(dropped.hidden_states[0]) and np.any(dropped.hidden_states[1])

    def test_residuals(self, run):
        _, plain, dropped = run(resid_dropout=1.0)
        np.testing.assert_array_equal(dropped.hidden_states[0], plain.hidden_states[0])
        np.testing.assert_array_equal(dropped.hidden_states[1], plain.hidden_states[0])

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


@pytest.mark.parametrize("attn_implementation", ["eager", "blockwise"])
def test_a_window_of_padding_gets_the_values_of_the_reference(attn_implementation):
    """Made by transformers 4.57.6 and 5.24.0 alike, from the weights below: rows padded right, left and within."""
    sizes = {"vocab_size": 61, "hidden_size": 16, "num_heads": 4, "num_layers": 4, "intermediate_size": 24}
    types = {"attention_types": [[["global", "local"], 2]], "window_size": 3, "max_position_embeddings": 32}
    model = TFGPTNeoModel(GPTNeoConfig(**sizes, **types), attn_implementation=attn_implementation)
    for name, slot in model.stored_names(slots_of(model)).items():
        k = np.arange(np.prod(slot.shape))
        values = 0.6 * np.sin(1.0 + len(name) + 0.7 * k + 0.013 * k * k).reshape(slot.shape)
        slot.variable.assign(values.T if slot.transposed else values)
    mask = np.ones((3, 12), int)
    mask[0, 5:] = mask[1, :6] = mask[2, 3:8] = 0
    ids = np.stack([np.arange(12), np.arange(12, 24), np.arange(12)])
    want = [
        [1.8726, 2.1067, 1.8609, 2.2595, 1.9996, 1.7917, 1.8322, 2.1044, 1.9344, 2.1129, 1.9975, 1.8435],
        [1.8667, 1.9605, 1.7916, 2.0901, 1.9748, 1.7392, 1.1176, 1.6559, 1.773, 1.501, 1.8924, 1.685],
        [1.8726, 2.1067, 1.8609, 2.1617, 2.1716, 1.8654, 1.8718, 2.2097, 1.9381, 2.0915, 2.107, 1.7993],
    ]
    for run in (model, tf.function(model, jit_compile=True)):
        hidden = np.asarray(run(ids, attention_mask=mask)[0])
        np.testing.assert_allclose((hidden * np.where(np.arange(16) % 2, -1, 1)).sum(-1), want, atol=2e-4)
    if attn_implementation == "blockwise":
        with pytest.raises(ValueError, match="'blockwise' cannot serve this call: a mask of pairs"):
            model(ids, attention_mask=np.ones((3, 1, 12, 12), "int32"))
