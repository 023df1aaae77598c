"""MPT beyond the reference: what llm-foundry defines and transformers leaves out, against arithmetic in NumPy."""

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tfmodels import MptAttentionConfig, MptConfig, TFMptForCausalLM, TFMptModel

REFERENCE = Path(__file__).parents[1] / "reference" / "mpt"
SIZES = {"vocab_size": 53, "d_model": 16, "n_heads": 4, "n_layers": 2, "max_seq_len": 12, "pad_token_id": 0}
IDS = np.random.default_rng(0).integers(1, 53, (2, 9))
LEFT = np.array([[1] * 9, [0] * 4 + [1] * 5])


def model_of(model_class=TFMptForCausalLM, **options):
    keras.utils.set_random_seed(0)
    model = model_class(MptConfig(**SIZES, **options))
    rng = np.random.default_rng(1)
    for weight in model.weights:  # at the usual initial values hardly anything matters
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight + rng.normal(0, 0.3, weight.shape))
    return model


def logits_by_hand(config, weights, ids, mask):
    """llm-foundry's MPT in NumPy, from the tensors of a file."""
    attention = config.attn_config
    length, heads = ids.shape[1], config.n_heads
    kv_heads = {"multihead_attention": heads, "multiquery_attention": 1}.get(attention.attn_type, attention.kv_n_heads)
    size = config.d_model // heads

    def norm(x, name):
        if config.norm_type == "rmsnorm":
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_epsilon) * weights[f"{name}.weight"]
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_epsilon)
        return x * weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    def split(x, count):
        return x.reshape(*x.shape[:2], count, size).transpose(0, 2, 1, 3)

    x = weights["transformer.wte.weight"][ids]
    if not attention.alibi and config.learned_pos_emb:
        x = x + weights["transformer.wpe.weight"][np.maximum(np.arange(length) - np.cumsum(mask == 0, axis=1), 0)]
    allowed = np.tril(np.ones((length, length), bool))[None, None] & (mask[:, None, None] == 1)
    for layer in range(config.n_layers):
        block = f"transformer.blocks.{layer}"
        qkv = linear(norm(x, f"{block}.norm_1"), f"{block}.attn.Wqkv")
        if attention.clip_qkv:
            qkv = np.clip(qkv, -attention.clip_qkv, attention.clip_qkv)
        q, k, v = np.split(qkv, [heads * size, (heads + kv_heads) * size], axis=-1)
        if attention.qk_ln:
            q, k = norm(q, f"{block}.attn.q_ln"), norm(k, f"{block}.attn.k_ln")
        k, v = (np.repeat(split(part, kv_heads), heads // kv_heads, axis=1) for part in (k, v))
        scores = split(q, heads) @ k.transpose(0, 1, 3, 2) * (attention.softmax_scale or 1 / math.sqrt(size))
        if attention.alibi:
            slopes = [2 ** -(attention.alibi_bias_max * (head + 1) / heads) for head in range(heads)]
            scores = scores + np.array(slopes)[:, None, None] * (np.arange(length) - length + 1)
        scores = np.where(allowed, scores, -1e30)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = x + linear(mixed, f"{block}.attn.out_proj")
        wide = linear(norm(x, f"{block}.norm_2"), f"{block}.ffn.up_proj")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = x + linear(wide, f"{block}.ffn.down_proj")
    scale = {None: 1.0, "inv_sqrt_d_model": config.d_model**-0.5}.get(config.logit_scale, config.logit_scale)
    return norm(x, "transformer.norm_f") @ weights["transformer.wte.weight"].T * scale


OPTIONS = {
    "defaults": {},
    "learned_positions": {"attn_config": {"alibi": False}},
    "no_positions": {"attn_config": {"alibi": False}, "learned_pos_emb": False},
    "alibi_bias_max": {"attn_config": {"alibi_bias_max": 3}},
    "qk_ln": {"attn_config": {"qk_ln": True}},
    "qk_ln_with_biases": {"attn_config": {"qk_ln": True}, "no_bias": False},
    "no_bias": {"no_bias": False},
    "expansion_ratio": {"expansion_ratio": 1.5},
    "norm_type": {"norm_type": "rmsnorm"},
    "logit_scale": {"logit_scale": 0.3},
    "logit_scale_by_name": {"logit_scale": "inv_sqrt_d_model"},
    "multiquery": {"attn_config": {"attn_type": "multiquery_attention"}},
    "grouped": {"attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 2}},
    "grouped_qk_ln": {"attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "qk_ln": True}},
    "clip_and_scale": {"attn_config": {"clip_qkv": 0.4, "softmax_scale": 0.9}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_mean_what_llm_foundry_means(options, tmp_path):
    model = model_of(**options)
    model.save_pretrained(tmp_path)
    weights = {name: array.astype("float64") for name, array in load_file(tmp_path / "model.safetensors").items()}
    assert ("transformer.wpe.weight" in weights) == (options == OPTIONS["learned_positions"])
    again = TFMptForCausalLM.from_pretrained(tmp_path)
    for mask in (np.ones_like(LEFT), LEFT):
        want = logits_by_hand(model.config, weights, IDS, mask)
        for one in (model, again):
            got = np.asarray(one(IDS, mask).logits)
            np.testing.assert_allclose(got[mask == 1], want[mask == 1], atol=2e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn_config": {"prefix_lm": True}}, r"attn_config\.prefix_lm=True"),
        ({"attn_config": {"attn_uses_sequence_id": True}}, r"attn_config\.attn_uses_sequence_id=True"),
        ({"attn_config": {"attn_type": "linear"}}, r"attn_config\.attn_type='linear'.*'multiquery_attention'"),
        ({"attn_config": {"attn_type": {"a": 1}}}, r"attn_config\.attn_type=\{'a': 1\}.*'multiquery_attention'"),
        ({"attn_config": {"rope": True}}, r"attn_config\.rope=True"),
        ({"attn_config": {"sliding_window_size": 64}}, r"attn_config\.sliding_window_size=64"),
        ({"ffn_config": {"ffn_type": "mptglu"}}, r"ffn_config\.ffn_type='mptglu'.*'mptmlp'"),
        ({"norm_type": "batchnorm"}, "norm_type='batchnorm'"),
        ({"norm_type": "rmsnorm", "attn_config": {"qk_ln": True}}, "qk_ln=True with norm_type='rmsnorm'"),
        ({"attn_config": {"attn_type": "grouped_query_attention"}}, "kv_n_heads=None"),
        ({"attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 3}}, "kv_n_heads=3"),
        ({"attn_config": {"kv_n_heads": 2}}, "kv_n_heads=2 does not fit"),
        ({"logit_scale": "large"}, "logit_scale='large'"),
        ({"embedding_fraction": 0}, "embedding_fraction=0"),
        ({"expansion_ratio": 1.01}, "intermediate_size"),
        ({"n_heads": 5}, "d_model=16 is not divisible by n_heads=5"),
        ({"attn_config": {"clip_qkv": -1.0}}, r"attn_config.clip_qkv=-1.0; a positive number was expected"),
    ],
    ids=str,
)
def test_what_this_family_lacks_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MptConfig(**{**SIZES, **options})


def test_what_transformers_ignored_must_be_said():
    """The reference's folder of ignored options is refused as it stands; with them off it gives the same result."""
    folder = REFERENCE / "ignored_options"
    with pytest.raises(ValueError, match=r"prefix_lm=True .*not supported"):
        TFMptForCausalLM.from_pretrained(folder)
    options = {"prefix_lm": False, "attn_uses_sequence_id": False, "attn_type": "multihead_attention"}
    with pytest.raises(ValueError, match=r"missing from the file: transformer\.blocks\.0"):
        TFMptForCausalLM.from_pretrained(folder, attn_config=options, norm_type="layernorm")
    options |= {"alibi": True, "alibi_bias_max": 8, "qk_ln": False}
    model = TFMptForCausalLM.from_pretrained(
        folder, attn_config=options, norm_type="layernorm", no_bias=True, expansion_ratio=4, logit_scale=None
    )
    arrays = np.load(folder / "io.npz")
    got = model(arrays["plain.in.input_ids"]).logits
    np.testing.assert_allclose(got, arrays["plain.out.logits"], atol=2e-5)


class TestLengths:
    def test_alibi_has_no_longest_input(self):
        model = model_of()
        ids = np.random.default_rng(2).integers(1, 53, (1, 40))
        whole = np.asarray(model(ids).logits)
        start = model(ids[:, :30], use_cache=True)
        rest = model(ids[:, 30:], past_key_values=start.past_key_values, use_cache=True).logits
        np.testing.assert_allclose(np.concatenate([start.logits, rest], axis=1), whole, atol=2e-5)
        assert not np.allclose(whole[:, -1], np.asarray(model(ids[:, 28:]).logits)[:, -1], atol=1e-3)

    def test_learned_positions_end(self):
        model = model_of(attn_config={"alibi": False})
        assert model(IDS[:1, :9]).logits.shape == (1, 9, 53)
        for call in (model, tf.function(lambda ids: model(ids))):
            with pytest.raises(ValueError, match="positions 0 to 11"):
                call(np.ones((1, 13), int))
        with pytest.raises(ValueError, match="max_position_embeddings=12"):
            model.generate(IDS[:1], max_new_tokens=4)

    @pytest.mark.parametrize("options", [{}, {"attn_config": {"alibi": False}}], ids=["alibi", "learned"])
    def test_left_padding_moves_nothing(self, options):
        model = model_of(**options)
        alone = np.asarray(model(IDS[1:, 4:]).logits)
        np.testing.assert_allclose(np.asarray(model(IDS, LEFT).logits)[1:, 4:], alone, atol=2e-5)

    def test_learned_positions_go_on_behind_padding(self):
        model = model_of(attn_config={"alibi": False})
        whole = np.asarray(model(IDS, LEFT).logits)
        start = model(IDS[:, :6], LEFT[:, :6], use_cache=True)
        rest = model(IDS[:, 6:], LEFT, past_key_values=start.past_key_values, use_cache=True).logits
        np.testing.assert_allclose(rest, whole[:, 6:], atol=2e-5)


@pytest.mark.slow
def test_generate_keeps_no_cache_unless_asked():
    model = model_of()
    assert not model.generation_config.use_cache and model(IDS).past_key_values is None
    settings = {"max_new_tokens": 3, "do_sample": False}
    without = model.generate(IDS, **settings)
    compiled = model.programs.compilations
    np.testing.assert_array_equal(model.generate(IDS, use_cache=True, **settings), without)
    assert model.programs.compilations == 2 * compiled


@pytest.mark.parametrize("rename", [lambda n: f"model.{n}", lambda n: n.removeprefix("transformer."), None])
def test_names_of_llm_foundry(rename, tmp_path):
    """Training checkpoints wrap the model once more; the family's first members had other names for some layers."""
    model = model_of()
    model.save_pretrained(tmp_path)
    old = {
        "norm_1": "ln_1",
        "norm_2": "ln_2",
        "norm_f": "ln_f",
        "ffn.up_proj": "mlp.mlp_up",
        "ffn.down_proj": "mlp.mlp_down",
    }

    def as_first(name):
        for new, first in old.items():
            name = name.replace(new, first)
        return name

    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {(rename or as_first)(name): array for name, array in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "model.safetensors")
    again = TFMptForCausalLM.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("options", [{"emb_pdrop": 0.5}, {"resid_pdrop": 0.5}, {"attn_config": {"attn_pdrop": 0.5}}])
def test_dropout(options):
    model = model_of(TFMptModel, **options)
    plain = np.asarray(model(IDS).last_hidden_state)
    np.testing.assert_array_equal(model(IDS, training=False).last_hidden_state, plain)
    assert not np.allclose(model(IDS, training=True).last_hidden_state, plain, atol=1e-2)


def test_embedding_fraction_shrinks_the_gradient():
    gradients = []
    for fraction in (1.0, 0.25):
        model = model_of(TFMptModel, embedding_fraction=fraction)
        with tf.GradientTape() as tape:
            output = tf.reduce_sum(model(IDS).last_hidden_state ** 2 * np.arange(16))
        gradients.append(tf.convert_to_tensor(tape.gradient(output, model.get_input_embeddings().embeddings.value)))
    np.testing.assert_allclose(gradients[1], 0.25 * gradients[0], rtol=1e-3, atol=1e-4)


class TestConfig:
    def test_attention_part(self, tmp_path):
        config = MptConfig(**SIZES, attn_config=MptAttentionConfig(clip_qkv=3.0, note="kept"))
        config.save_pretrained(tmp_path)
        stored = json.loads((tmp_path / "config.json").read_text())
        assert stored["attn_config"]["clip_qkv"] == 3.0 and stored["attn_config"]["note"] == "kept"
        again = MptConfig.from_pretrained(tmp_path)
        assert again == config and isinstance(again.attn_config, MptAttentionConfig)
        changed = again.replace(attn_config={"softmax_scale": 0.5})
        assert (changed.attn_config.softmax_scale, changed.attn_config.clip_qkv) == (0.5, 3.0)
        assert again.attn_config.softmax_scale is None and again != changed

    def test_names_of_all_families(self):
        config = MptConfig(**SIZES, expansion_ratio=3)
        assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 2, 4)
        assert (config.max_position_embeddings, config.intermediate_size, config.num_key_value_heads) == (12, 48, 4)
