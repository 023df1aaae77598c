"""Every form of a product with packed weights gives what the dequantised weights give."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tfmodels.checkpoints.quantized.scheme import Scheme, dequantize, round_to_nearest
from tfmodels.kernels import quantized

SCHEMES = [
    Scheme(bits=8),
    Scheme(bits=8, group_size=16, offsets="minimums"),
    Scheme(bits=8, offsets="zeros", scale_dtype="bfloat16"),
    Scheme(bits=4),
    Scheme(bits=4, group_size=6),
    Scheme(bits=4, group_size=32, offsets="zeros"),
    Scheme(bits=4, group_size=32, offsets="minimums", scale_dtype="float16"),
]


@pytest.mark.parametrize("width", [50, pytest.param(256, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_products(scheme, width):
    rng = np.random.default_rng(0)
    parts = round_to_nearest(rng.normal(size=(width, 10)).astype(np.float32), scheme)
    whole = dequantize(parts, scheme, width)
    x = rng.normal(size=(1, 2, width)).astype(np.float32)
    np.testing.assert_array_equal(quantized.dequantize(parts, scheme, width), whole)
    np.testing.assert_allclose(quantized.product(x, parts, scheme), x @ whole, rtol=1e-4, atol=1e-4)
    compiled = tf.function(
        lambda x, parts: quantized.few_rows(x, [parts], scheme)[0], jit_compile=True, autograph=False
    )
    tensors = {name: tf.constant(part) for name, part in parts.items()}
    np.testing.assert_allclose(compiled(x, tensors), x @ whole, rtol=1e-4, atol=1e-4)
    ids = np.array([[3, 0, 9]])
    np.testing.assert_array_equal(quantized.columns(tensors, scheme, width, ids, "float32"), whole.T[ids])


@pytest.mark.parametrize("scheme", [Scheme(bits=8), Scheme(bits=4, group_size=32)], ids=str)
def test_few_rows_of_many_inputs(scheme):
    """With many inputs tiles are as large as they get."""
    rng = np.random.default_rng(0)
    parts = round_to_nearest(rng.normal(size=(1024, 24)).astype(np.float32), scheme)
    x = rng.normal(size=(1, 1, 1024)).astype(np.float32)
    compiled = tf.function(
        lambda x, parts: quantized.few_rows(x, [parts], scheme)[0], jit_compile=True, autograph=False
    )
    found = compiled(x, {name: tf.constant(part) for name, part in parts.items()})
    np.testing.assert_allclose(found, x @ dequantize(parts, scheme, 1024), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("units", [(384, 128, 128), (10, 14)], ids=["blocks", "too short"])
@pytest.mark.parametrize("scheme", [Scheme(bits=8), Scheme(bits=4, group_size=32, offsets="minimums")], ids=str)
def test_few_rows_of_several_matrices(scheme, units):
    """Each matrix gives what it gives alone, whether or not they share their loops."""
    rng = np.random.default_rng(0)
    matrices = [round_to_nearest(rng.normal(size=(64, size)).astype(np.float32), scheme) for size in units]
    x = rng.normal(size=(2, 1, 64)).astype(np.float32)
    tensors = [{name: tf.constant(part) for name, part in parts.items()} for parts in matrices]
    compiled = tf.function(lambda x: quantized.few_rows(x, tensors, scheme), jit_compile=True, autograph=False)
    for found, parts in zip(compiled(x), matrices, strict=True):
        np.testing.assert_allclose(found, x @ dequantize(parts, scheme, 64), rtol=1e-4, atol=1e-4)


def test_layers_are_unpacked_one_by_one():
    """XLA's order of operations: a product of one layer comes before the unpacking of the next."""
    scheme = Scheme(bits=4, group_size=32)
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    parts = round_to_nearest(weights, scheme)
    layers = [{name: tf.Variable(part) for name, part in parts.items()} for _ in range(3)]

    @tf.function(jit_compile=True, autograph=False)
    def loss_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for layer in layers:
                y = quantized.product(y, layer, scheme)
            loss = tf.reduce_sum(y * y)
        return loss, tape.gradient(loss, x)

    text = loss_and_gradient.experimental_get_compiler_ir(tf.ones((16, 64)))(stage="optimized_hlo")
    program = text[text.index("\nENTRY") :]
    steps = re.findall(r" = f32\[(64,64|16,64)\]\S* (fusion|dot)\(", program)
    order = "".join("p" if kind == "dot" else "u" if shape == "64,64" else "" for shape, kind in steps)
    assert order == "up" * 6


def test_no_rows_in_a_graph():
    parts = round_to_nearest(np.ones((4, 3), np.float32), Scheme(bits=8))
    graph = tf.function(lambda x: quantized.product(x, parts, Scheme(bits=8)), autograph=False)
    assert graph(tf.ones((0, 2, 4))).shape == (0, 2, 3)


def test_divided_and_ordered_inputs():
    rng = np.random.default_rng(0)
    scheme = Scheme(bits=4, group_size=8, ordered=True, divided=True)
    parts = round_to_nearest(rng.normal(size=(32, 6)).astype(np.float32), Scheme(bits=4, group_size=8))
    parts |= {"order": rng.permutation(32).astype(np.int32), "divisors": rng.uniform(1, 2, 32).astype(np.float32)}
    x = rng.normal(size=(1, 1, 32)).astype(np.float32)
    wanted = x @ dequantize(parts, scheme, 32)
    compiled = tf.function(lambda x: quantized.few_rows(x, [parts], scheme)[0], jit_compile=True, autograph=False)
    for found in (quantized.product(x, parts, scheme), compiled(x)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_float8_under_xla():
    """All finite numbers; subnormal ones are lost where a processor takes its own for zero."""
    import ml_dtypes

    bits = np.array([number for number in range(256) if number & 127 != 127], np.uint8)[:, None]
    scheme = Scheme(values="float8")
    parts = {"weights": tf.constant(bits), "scales": tf.ones((1, 1))}
    found = tf.function(lambda parts: quantized.dequantize(parts, scheme, 254), jit_compile=True)(parts)
    np.testing.assert_array_equal(found, bits.view(ml_dtypes.float8_e4m3fn).astype(np.float32))
