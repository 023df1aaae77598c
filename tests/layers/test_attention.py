"""Attention against a plain NumPy definition."""

import warnings

import keras
import ml_dtypes  # noqa: F401  bfloat16 for NumPy
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.kernels import cudnn_attention
from tfmodels.kernels.masks import make_mask
from tfmodels.layers.attention import attend, choose, resolve_implementation
from tfmodels.runtime.lowering import EXPORT, Lowering


def plain(query, key, value, allowed, scale, bias=0.0):
    repeat = query.shape[1] // key.shape[1]
    key, value = np.repeat(key, repeat, axis=1), np.repeat(value, repeat, axis=1)
    scores = query.astype("float64") @ key.transpose(0, 1, 3, 2).astype("float64") * scale + bias
    scores = np.where(allowed, scores, -1e300)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ value, weights


@pytest.mark.parametrize("key_value_heads", [1, 2, 6])
@pytest.mark.parametrize("past", [0, 3])
def test_equals_the_definition(key_value_heads, past):
    rng = np.random.default_rng(key_value_heads)
    query = rng.normal(size=(2, 6, 4, 8)).astype("float32")
    key, value = rng.normal(size=(2, 2, key_value_heads, 4 + past, 8)).astype("float32")
    bias = rng.normal(size=(1, 6, 1, 4 + past)).astype("float32")
    padding = np.ones((2, 4 + past), int)
    padding[1, :2] = 0
    padding[1, past] = 1
    mask = make_mask(padding, causal=True, query_length=4, key_length=4 + past, offset=past)
    allowed = np.asarray(mask.allowed)
    want, want_weights = plain(query, key, value, allowed, 0.3, bias)
    seen = allowed.any(-1)[:, 0]  # rows that see nothing are of no concern
    got, weights = attend(query, key, value, mask=mask, scale=0.3, bias=bias, return_weights=True)
    for array, reference in ((got, want), (weights, want_weights)):
        array = np.asarray(array).transpose(0, 2, 1, 3)[seen]
        np.testing.assert_allclose(array, reference.transpose(0, 2, 1, 3)[seen], atol=2e-6)


@pytest.mark.parametrize("target", [None, "cpu"])
@pytest.mark.parametrize("key_value_heads", [2, 4])
def test_rows_that_share_keys_see_those_of_the_holders(key_value_heads, target):
    rng = np.random.default_rng(key_value_heads)
    prompts, sharing, keys = 2, 3, 5
    query = rng.normal(size=(prompts * sharing, 4, 1, 8)).astype("float32")
    key, value = rng.normal(size=(2, prompts * sharing, key_value_heads, keys, 8)).astype("float32")
    bias = rng.normal(size=(1, 4, 1, keys)).astype("float32")
    holder = rng.integers(0, sharing, (prompts * sharing, keys))
    mask = make_mask(rng.integers(0, 3, (prompts * sharing, keys)), causal=False, query_length=1, key_length=keys)
    places = np.arange(prompts * sharing)[:, None] // sharing * sharing + holder
    own_key, own_value = (x[places, :, np.arange(keys)].transpose(0, 2, 1, 3) for x in (key, value))
    want, want_weights = plain(query, own_key, own_value, np.asarray(mask.allowed), 0.3, bias)
    mask.holders = holder[:, None] == np.arange(sharing)[:, None]
    run = tf.function(
        lambda: attend(
            query, key, value, mask=mask, scale=0.3, bias=bias, return_weights=True, lowering=Lowering(target)
        ),
        jit_compile=target is not None,
    )
    got, weights = run()
    np.testing.assert_allclose(got, want, atol=2e-6)
    np.testing.assert_allclose(weights, want_weights, atol=2e-6)


def test_rows_that_see_nothing_stay_finite():
    x = np.ones((1, 1, 2, 4), "float32")
    mask = make_mask(np.zeros((1, 2)), causal=True, query_length=2, key_length=2)
    assert np.isfinite(np.asarray(attend(x, x, x, mask=mask, scale=1.0)[0])).all()


def test_half_precision_sums_in_float32():
    rng = np.random.default_rng(3)
    query, key, value = (rng.normal(size=(1, 1, 600, 16)).astype("float16") for _ in range(3))
    mask = make_mask(None, causal=False, query_length=600, key_length=600)
    got = np.asarray(attend(query, key, value, mask=mask, scale=0.25)[0], "float32")
    want, _ = plain(query, key, value.astype("float64"), np.ones((1, 1, 600, 600), bool), 0.25)
    assert np.abs(got - want).max() < 1e-3


def test_one_key_gets_all_the_weight_without_a_warning():
    x = np.full((1, 2, 1, 4), 3.0, "float32")
    mask = make_mask(None, causal=True, query_length=1, key_length=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output, weights = attend(x, x, 2 * x, mask=mask, scale=1.0, return_weights=True)
    assert (np.asarray(output) == 6.0).all() and (np.asarray(weights) == 1.0).all()


def test_unknown_name():
    with pytest.raises(ValueError, match="'fast' is unknown; use one of auto, sdpa, eager"):
        resolve_implementation("fast")


def test_names_of_existing_scripts():
    assert [resolve_implementation(name) for name in (None, "sdpa", "eager")] == ["auto", "auto", "eager"]


@pytest.mark.skipif(cudnn_attention.unavailable() is None, reason="has a GPU")
@pytest.mark.parametrize("name", ["flash", "flash_attention_2"])
def test_flash_says_that_it_needs_a_gpu(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be used: flash attention needs a GPU"):
        resolve_implementation(name)


def chosen(implementation, *, dtype="bfloat16", length=64, heads=(4, 2), mask=None, **options):
    query = np.zeros((2, heads[0], length, 16), dtype)
    key = np.zeros((2, heads[1], length, 16), dtype)
    mask = mask or make_mask(None, causal=True, query_length=length, key_length=length)
    return choose(implementation, query, key, mask=mask, **options)


def test_auto_takes_blocks_from_a_length_on():
    assert chosen("auto", length=64).name == "eager"
    assert chosen("auto", length=1024).name == "blockwise"
    assert chosen("auto", length=1024, return_weights=True).name == "eager"
    assert chosen("auto", length=1024, drops=True).name == "blockwise"
    assert chosen("eager", length=1024) == ("eager", "")
    assert chosen("auto", length=1024, lowering=EXPORT).name == "eager"


def test_forced_blocks_run_or_say_why():
    assert chosen("blockwise").name == "blockwise"
    assert chosen("blockwise", length=1).name == "eager"  # decoding
    with pytest.raises(ValueError, match="'blockwise' cannot serve this call: the weights are wanted"):
        chosen("blockwise", return_weights=True)
    assert chosen("blockwise", drops=True).name == "blockwise"


class TestFlash:
    """The choice as it is made where there is a GPU."""

    @pytest.fixture(autouse=True)
    def gpu(self, monkeypatch):
        monkeypatch.setattr(cudnn_attention, "unavailable", lambda: None)

    def test_serves_half_precision(self):
        assert chosen("auto") == chosen("flash") == ("flash", "")
        padded = make_mask(np.ones((2, 64)), causal=False, query_length=64, key_length=64)
        assert chosen("auto", mask=padded) == ("flash", "")
        assert chosen("auto", mask=padded, bias=np.zeros((1, 4, 1, 64))) == ("flash", "")

    def test_on_jax_it_serves_less(self, monkeypatch):
        monkeypatch.setattr(cudnn_attention.keras.backend, "backend", lambda: "jax")
        assert chosen("auto") == chosen("flash") == ("flash", "")
        reason = "on JAX flash attention takes no padding (attention_mask) beside a bias, and no bias per row"
        assert chosen("auto", bias=np.zeros((2, 4, 64, 64))) == ("eager", reason)
        with pytest.raises(
            ValueError, match="'flash' cannot serve this call: on JAX flash attention takes no padding"
        ):
            chosen("flash", bias=np.zeros((2, 4, 64, 64)))

    def test_under_a_distribution_of_jax_it_serves_unasked_what_was_seen_to_work(self, monkeypatch):
        monkeypatch.setattr(cudnn_attention.keras.backend, "backend", lambda: "jax")
        monkeypatch.setattr(keras.distribution, "distribution", lambda: "of several devices")
        same = {"heads": (4, 4)}
        assert chosen("auto", **same) == ("flash", "")
        padded = make_mask(np.ones((2, 64)), causal=True, query_length=64, key_length=64)
        window = make_mask(None, causal=True, query_length=64, key_length=64).with_window(8)
        bias = np.zeros((1, 4, 64, 64))
        for options in ({"mask": padded, **same}, {"mask": window, **same}, {"bias": bias, **same}, {"heads": (4, 2)}):
            assert chosen("flash", **options) == ("flash", "")
            assert chosen("auto", **options).reason.endswith("is used where it is asked for")

    @pytest.mark.parametrize(
        "options, reason",
        [
            ({"dtype": "float32"}, "float16 or bfloat16, not in float32"),
            ({"mask": make_mask(np.ones((1, 1, 64, 64)), causal=True, query_length=64, key_length=64)}, "of pairs"),
            (
                {
                    "mask": make_mask(
                        None, causal=True, query_length=64, key_length=64, packed_positions=np.zeros((1, 64))
                    )
                },
                "packed sequences",
            ),
            (
                {"mask": make_mask(np.ones((2, 64)), causal=True, query_length=64, key_length=64).with_window(8)},
                "padding",
            ),
            (
                {"mask": make_mask(None, causal=False, query_length=64, key_length=64).with_window(9, ahead=8)},
                "not causal",
            ),
            ({"return_weights": True}, "weights are wanted"),
            ({"drops": True}, "dropped in training"),
            ({"head_mask": np.ones((1, 4, 64, 64))}, "head mask"),
        ],
    )
    def test_falls_back_or_says_why(self, options, reason):
        choice = chosen("auto", **options)
        assert choice.name == "eager" and reason in choice.reason
        with pytest.raises(ValueError, match="'flash' cannot serve this call"):
            chosen("flash", **options)


@pytest.mark.parametrize("scale", [0.125, 1.0])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 40)])
@pytest.mark.parametrize("target", [None, "cpu", "gpu"])
@pytest.mark.parametrize("implementation", ["eager", "blockwise"])
def test_products_beyond_float16_stay_finite(implementation, target, queries, keys, scale):
    """|q.k| of a token with itself is 9e4; float16 ends at 65504."""
    rng = np.random.default_rng(0)
    key = 37.5 * rng.choice([-1.0, 1.0], size=(1, 2, keys, 64))
    query, value = key[:, :, -queries:], rng.normal(size=key.shape)
    mask = make_mask(None, causal=True, query_length=queries, key_length=keys, offset=keys - queries)
    want, _ = plain(query, key, value, np.asarray(mask.allowed), scale)
    arrays = [tf.cast(x, "float16") for x in (query, key, value)]
    options = {"scale": scale, "implementation": implementation, "lowering": Lowering(target)}

    def run(*arrays):
        mask = make_mask(None, causal=True, query_length=queries, key_length=keys, offset=keys - queries)
        return attend(*arrays, mask=mask, **options)[0]

    got = tf.function(run, jit_compile=True)(*arrays) if target else run(*arrays)
    np.testing.assert_allclose(np.asarray(got, "float32"), want, atol=2e-3)
