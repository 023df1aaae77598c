"""ALiBi against the reference's table, and what makes it independent of queries and padding."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfmodels.kernels.masks import make_mask
from tfmodels.layers.alibi import alibi_bias, alibi_slopes
from tfmodels.layers.attention import attend

TABLE = np.load(Path(__file__).parents[1] / "reference" / "mpt" / "alibi_table" / "io.npz")


@pytest.mark.parametrize("name", TABLE.files)
def test_equals_the_reference(name):
    heads, bias_max = (int(part[1:]) for part in name.split(".")[1:])
    bias = np.asarray(alibi_bias(alibi_slopes(heads, bias_max), key_length=6, last=5))
    np.testing.assert_allclose(bias[0], TABLE[name], rtol=1e-6)


def test_is_the_distance_to_each_query():
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 2, 3, 7, 4)).astype("float32")
    mask = make_mask(None, causal=True, query_length=7, key_length=7)
    distance = np.arange(7)[None, :] - np.arange(7)[:, None]
    each = alibi_slopes(3)[None, :, None, None] * distance.astype("float32")
    want, _ = attend(query, key, value, mask=mask, scale=0.5, bias=each)
    got, _ = attend(query, key, value, mask=mask, scale=0.5, bias=alibi_bias(alibi_slopes(3), 7, last=6))
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_lengths_may_be_known_later():
    @tf.function(jit_compile=True)
    def bias(last):
        return alibi_bias(alibi_slopes(6), 9, last)

    want = alibi_slopes(6)[None, :, None, None] * (np.arange(9) - 4)
    np.testing.assert_allclose(bias(tf.constant(4)), want, rtol=1e-6)
