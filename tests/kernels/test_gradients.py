"""Functions with gradients of their own, of parts that exist under XLA only."""

from __future__ import annotations

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a function of TensorFlow's")


@pytest.fixture
def doubled():
    """Twice the sorted numbers, whose gradient is said to be ten times the upstream one."""
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    from tfmodels.kernels.gradients import under_xla

    def forward(x, keys):
        found = xla.sort(x)  # an operation that TensorFlow knows no gradient of
        return 2 * found, tf.where(keys, found, 0)

    def backward(x, keys, result, needed, upstream):
        return [10 * upstream + 0 * needed, None]

    return under_xla(forward, backward)


def gradient(function, x, *, persistent=False):
    import tensorflow as tf

    keys = tf.constant([True, False, True])
    with tf.GradientTape(persistent=persistent) as tape:
        tape.watch(x)
        result = function(x, keys)
        loss = tf.reduce_sum(result * result)
    return result, tape.gradient(loss, x)


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("graph", [None, "plain", "xla"])
def test_each_kind_of_code_and_tape(doubled, graph, persistent):
    import tensorflow as tf

    def call(x):
        return gradient(doubled, x, persistent=persistent)

    run = call if graph is None else tf.function(call, jit_compile=graph == "xla", autograph=False)
    result, flow = run(tf.constant([3.0, 1.0, 2.0]))
    np.testing.assert_array_equal(result, [2, 4, 6])
    np.testing.assert_array_equal(flow, [40, 80, 120])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_eager_code_after_a_graph(doubled, jit_compile):
    """The graph's gradient once changed the function that eager code then differentiates."""
    import tensorflow as tf

    x = tf.constant([3.0, 1.0, 2.0])
    in_graph = tf.function(lambda x: gradient(doubled, x)[1], jit_compile=jit_compile, autograph=False)
    np.testing.assert_array_equal(in_graph(x), [40, 80, 120])
    np.testing.assert_array_equal(gradient(doubled, x)[1], [40, 80, 120])


def test_a_tape_around_a_function(doubled):
    import tensorflow as tf

    x = tf.constant([3.0, 1.0, 2.0])
    inner = tf.function(lambda x: doubled(x, tf.constant([True] * 3)), autograph=False)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(inner(x))
    np.testing.assert_array_equal(tape.gradient(loss, x), [10, 10, 10])


@pytest.mark.parametrize("graph", [None, "plain", "xla"])
def test_gradients_of_gradients_that_are_in_memory(graph):
    """The barrier has no gradient of TensorFlow's."""
    import tensorflow as tf

    from tfmodels.kernels.gradients import with_whole_gradient

    def call(x):
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                total = tf.reduce_sum(with_whole_gradient(x * x) ** 2)
            flow = first.gradient(total, x)
        return flow, second.gradient(flow, x)

    run = call if graph is None else tf.function(call, jit_compile=graph == "xla", autograph=False)
    flow, curvature = run(tf.constant([1.0, 2.0]))
    np.testing.assert_allclose(flow, [4, 32], rtol=1e-6)
    np.testing.assert_allclose(curvature, [12, 48], rtol=1e-6)
