"""Attention against a plain NumPy definition."""

import warnings

import numpy as np
import pytest

from tfmodels.layers.attention import attend, resolve_implementation
from tfmodels.layers.masks import make_mask


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


@pytest.mark.parametrize(
    "name, message", [("flash_attention_2", "not part of this version"), ("fast", "it is unknown")]
)
def test_what_cannot_run_says_why(name, message):
    with pytest.raises(ValueError, match=message):
        resolve_implementation(name)


def test_names_of_existing_scripts():
    assert [resolve_implementation(name) for name in (None, "sdpa", "eager")] == ["auto", "auto", "eager"]
