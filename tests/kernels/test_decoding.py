"""The forms of products that compiled decoding uses equal the plain ones, and stay there."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfmodels.configs.rotary import RotaryConfig
from tfmodels.kernels import decoding
from tfmodels.layers.linear import embedding, linear, unembed
from tfmodels.layers.rotary import RotaryEmbedding, rotate
from tfmodels.runtime.lowering import PLAIN, Lowering

ON_CPU = not tf.config.get_visible_devices("GPU")


def compiled(function):
    """`function(..., lowering=...)` as generation compiles it."""
    return tf.function(functools.partial(function, lowering=decoding.for_xla()), jit_compile=True)


def operations(function, *arguments):
    return {operation.type for operation in function.get_concrete_function(*arguments).graph.get_operations()}


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(("batch", "length", "width"), [(1, 1, 6), (1, 1, 5), (2, 1, 6), (1, 3, 6)])
def test_dense(batch, length, width, use_bias):
    rng = np.random.default_rng(0)
    layer = linear(7, std=1.0, use_bias=use_bias, dtype="float32", name="dense")
    layer.build((None, None, width))
    if use_bias:
        layer.bias.assign(rng.standard_normal(7))
    x = rng.standard_normal((batch, length, width)).astype("float32")
    expected = x @ ops.convert_to_numpy(layer.kernel) + (ops.convert_to_numpy(layer.bias) if use_bias else 0)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(compiled(layer)(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [16, 12, 10, 9])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 1), (32, 1), (33, 1), (2, 2)])
def test_table(size, batch, length):
    rng = np.random.default_rng(0)
    table = embedding(size, 6, std=1.0, dtype="float32", name="table")
    table.build((None,))
    x = rng.standard_normal((batch, length, 6)).astype("float32")
    expected = x @ ops.convert_to_numpy(table.embeddings).T
    run = compiled(lambda x, lowering: unembed(x, table, lowering))
    np.testing.assert_allclose(unembed(x, table), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
@pytest.mark.parametrize("few", [1, 4, 8])
def test_the_forms_for_either_device(target, few):
    """Traced as for either device, and run on whichever there is."""
    rng = np.random.default_rng(few)
    x, kernel = rng.standard_normal((few, 1, 6)).astype("float32"), rng.standard_normal((6, 5)).astype("float32")
    query, key = (rng.standard_normal((3, n, 6)).astype("float32") for n in (few, 20))
    weights = rng.standard_normal((3, few, 20)).astype("float32")

    @tf.function(jit_compile=True)
    def run(x, query, weights):
        served = decoding.serves_dense(x, kernel, target)
        product = decoding.dense(x, kernel, target=target) if served else ops.matmul(x, kernel)
        return product, decoding.scores(query, key, target), decoding.weighted(weights, key, target)

    wants = x @ kernel, query @ key.transpose(0, 2, 1), weights @ key
    for want, got in zip(wants, run(x, query, weights), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    held_apart = "XlaOptimizationBarrier" in operations(run, x, query, weights)
    assert held_apart == (few < 8 if target == "gpu" else few > 1)


@pytest.mark.skipif(not ON_CPU, reason="these forms are for CPUs")
def test_other_graphs_keep_plain_products():
    table = embedding(16, 6, std=1.0, dtype="float32", name="table")
    table.build((None,))
    x = tf.zeros((2, 1, 6))

    def scores(x, lowering=PLAIN):
        return unembed(x, table, lowering)

    assert "XlaOptimizationBarrier" in operations(compiled(scores), x)
    assert "XlaOptimizationBarrier" not in operations(tf.function(scores), x)
    # A layer compiled by its user's own function, and a trace after generation's.
    assert "XlaOptimizationBarrier" not in operations(tf.function(scores, jit_compile=True), x)


@pytest.mark.skipif(not ON_CPU, reason="XLA's CPU compiler does so")
def test_cosines_are_computed_once_for_all_that_read_them():
    rotary = RotaryEmbedding(RotaryConfig(head_dim=8))

    @tf.function(jit_compile=True)
    def turned(x, positions):
        angles = rotary(positions, Lowering("cpu"))
        return ops.matmul(rotate(x, *angles), ops.transpose(rotate(x + 1, *angles), (0, 1, 3, 2)))

    x, positions = tf.random.stateless_normal((2, 3, 4, 8), (1, 2)), tf.reshape(tf.range(8), (2, 4))
    plain = rotary(positions)
    expected = rotate(x, *plain) @ tf.linalg.matrix_transpose(rotate(x + 1, *plain))
    np.testing.assert_allclose(turned(x, positions), expected, rtol=1e-4, atol=1e-5)
    program = turned.experimental_get_compiler_ir(x, positions)(stage="optimized_hlo")
    assert program.count(" cosine(") == 1
