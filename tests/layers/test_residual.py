"""Sums that wait for the norm that reads them: what is computed in the end is what plain layers compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.kernels import added_norms
from tfmodels.layers.norms import RMSNorm, layer_norm
from tfmodels.layers.residual import Parts, Sum, add_and_norm, dropped, plus, whole

ROWS, LENGTH, WIDTH = 2, 1, 24


def drawn(*shape, dtype="float32"):
    return tf.cast(np.random.default_rng(len(shape)).standard_normal(shape) + 0.3, dtype)


@pytest.fixture
def launched(monkeypatch):
    """Stands for the kernel, by its description: the sum of parts, rounded, then the norms in float32."""
    calls = []

    def computed(hidden, added, norms):
        calls.append(len(added))
        for parts in added:
            hidden = hidden + tf.cast(tf.reduce_sum(parts, 0), hidden.dtype)
        found = [hidden]
        for norm in norms:
            x = tf.cast(hidden, "float32")
            x = x - tf.reduce_mean(x, -1, keepdims=True) if norm.is_centered else x
            x = x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + norm.epsilon)
            x = x * (tf.cast(norm.weight, "float32") + norm.offset)
            x = x if norm.bias is None else x + tf.cast(norm.bias, "float32")
            found.append(tf.cast(x, hidden.dtype))
        return found

    monkeypatch.setattr(added_norms, "added_norms", computed)
    return calls


def norms_of(kind, dtype):
    keras.utils.set_random_seed(0)
    if kind == "rms":
        norms = [RMSNorm(1e-3, dtype=dtype)]
    elif kind == "rms with an offset":
        norms = [RMSNorm(1e-3, offset=1.0, dtype=dtype)]
    elif kind == "layer, without bias":
        norms = [layer_norm(1e-3, dtype=dtype, name="norm", use_bias=False)]
    else:
        norms = [layer_norm(1e-3, dtype=dtype, name=f"norm_{n}") for n in range(2)]
    for norm in norms:
        norm.build((None, None, WIDTH))
        for variable in norm.weights:
            variable.assign(drawn(*variable.shape))
    return norms


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["rms", "rms with an offset", "layer, without bias", "two layer norms"])
def test_a_sum_is_normalised_as_plain_layers_do(kind, dtype, launched):
    norms = norms_of(kind, dtype)
    hidden = drawn(ROWS, LENGTH, WIDTH, dtype=norms[0].compute_dtype)
    added = [Parts(drawn(n, ROWS * LENGTH, WIDTH), LENGTH, norms[0].compute_dtype) for n in (1, 3)[: len(norms)]]
    found = add_and_norm(plus(hidden, *added), *norms)
    want = add_and_norm(plus(hidden, *map(whole, added)), *norms)
    assert launched == [len(added)]
    for got, plain in zip(found, want, strict=True):
        assert got.shape == plain.shape and got.dtype == plain.dtype
        np.testing.assert_allclose(tf.cast(got, "float32"), tf.cast(plain, "float32"), rtol=0.02, atol=0.03)


def test_other_norms_take_the_sum_as_it_is(launched):
    norm = keras.layers.UnitNormalization(dtype="bfloat16")
    hidden = drawn(ROWS, LENGTH, WIDTH, dtype="bfloat16")
    parts = Parts(drawn(2, ROWS, WIDTH), LENGTH, "bfloat16")
    total, normed = add_and_norm(plus(hidden, parts), norm)
    np.testing.assert_array_equal(tf.cast(total, "float32"), tf.cast(hidden + whole(parts), "float32"))
    np.testing.assert_array_equal(tf.cast(normed, "float32"), tf.cast(norm(total), "float32"))
    assert launched == []


def test_parts_beside_a_tensor_are_added_at_once():
    hidden, tensor = drawn(ROWS, LENGTH, WIDTH), drawn(ROWS, LENGTH, WIDTH) * 2
    parts = Parts(drawn(2, ROWS, WIDTH), LENGTH, "float32")
    np.testing.assert_allclose(plus(hidden, tensor, parts), hidden + tensor + whole(parts), rtol=1e-6)


def test_functions_of_tensorflow_take_and_return_sums():
    given = Sum(drawn(ROWS, LENGTH, WIDTH), (drawn(2, ROWS, WIDTH),))
    found = tf.function(lambda x: Sum(x.hidden * 2, x.added))(given)
    np.testing.assert_allclose(whole(found), whole(given) + given.hidden, rtol=1e-6)


def test_dropout_leaves_parts_where_it_drops_nothing():
    parts = Parts(drawn(2, ROWS, WIDTH), LENGTH, "float32")
    for rate, training in ((0.9, None), (0.9, False), (0.0, True)):
        assert dropped(keras.layers.Dropout(rate), parts, training) is parts
    got, want = np.asarray(dropped(keras.layers.Dropout(0.9, seed=1), parts, True)), np.asarray(whole(parts))
    kept = got != 0
    assert got.shape == want.shape and 0 < kept.mean() < 0.5
    np.testing.assert_allclose(got[kept], 10 * want[kept], rtol=1e-5)
    assert float(tf.reduce_min(tf.abs(dropped(keras.layers.Dropout(0.9), tf.ones((50,)), True)))) == 0.0
