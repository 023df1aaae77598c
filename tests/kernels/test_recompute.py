"""Products whose gradients run the function before them again."""

from __future__ import annotations

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's gradients")


def gated(gate, up):
    return keras.ops.silu(gate) * up


def given(dtype="float32"):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    return [tf.cast(rng.standard_normal(shape), dtype) for shape in ((2, 3, 5), (2, 3, 5), (5, 4))]


def flows(product, arrays, *, second=False):
    """The product, and the gradients of the sum of its squares, or of the gradients' own squares."""
    import tensorflow as tf

    with tf.GradientTape() as outer:
        outer.watch(arrays)
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            output = product(*arrays)
            total = tf.reduce_sum(output * output)
        first = tape.gradient(total, arrays)
        again = sum(tf.reduce_sum(flow * flow) for flow in first)
    return [output, *(outer.gradient(again, arrays) if second else first)]


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("graph", [None, "plain", "xla"])
def test_the_gradients_of_the_plain_product(graph, second):
    import tensorflow as tf

    from tfmodels.kernels.recompute import product_of

    def again(gate, up, matrix):
        return product_of(gated, gate, up, matrix=matrix)

    def run(product):
        def call(*arrays):
            return flows(product, list(arrays), second=second)

        return call if graph is None else tf.function(call, jit_compile=graph == "xla", autograph=False)

    got, want = run(again)(*given()), run(lambda gate, up, matrix: tf.matmul(gated(gate, up), matrix))(*given())
    for mine, plain in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_in_the_dtype_of_the_inputs(dtype):
    from tfmodels.kernels.recompute import product_of

    arrays = given(dtype)
    found = flows(lambda gate, up, matrix: product_of(gated, gate, up, matrix=matrix), arrays)
    assert [x.dtype.name for x in found] == [dtype] * 4
    assert [x.shape for x in found[1:]] == [x.shape for x in arrays]


def test_the_function_runs_again_for_gradients():
    import tensorflow as tf

    from tfmodels.kernels.recompute import product_of

    seen = []

    def squared(x):
        seen.append(x)
        return x * x

    x, _, matrix = given()

    @tf.function(autograph=False)
    def run(x, matrix):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(product_of(squared, x, matrix=matrix))
        before = len(seen)
        return tape.gradient(total, x), before

    flow, before = run(x, matrix)
    assert (int(before), len(seen)) == (1, 2)
    np.testing.assert_allclose(flow, 2 * x * tf.reduce_sum(matrix, axis=1), rtol=1e-5)
