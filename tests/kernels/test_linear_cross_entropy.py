"""`linear_cross_entropy` against the cross-entropy of whole logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfmodels import LlamaConfig, TFLlamaForCausalLM
from tfmodels.kernels.linear_cross_entropy import BLOCK, Projection, linear_cross_entropy
from tfmodels.models.heads import language_modeling

TOKENS, WIDTH, CLASSES = 37, 8, 11


def loss_and_gradients(function, *tensors, jit_compile):
    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = function(*tensors)
        return loss, *tape.gradient(loss, tensors)

    run = run if jit_compile is None else tf.function(run, jit_compile=jit_compile)
    return [result.numpy() for result in run(*tensors)]


@pytest.mark.parametrize("jit_compile", [None, False, True])
@pytest.mark.parametrize(("learns", "by_rows", "factor", "cap"), [(True, True, 0.5, 3.0), (False, False, 1.0, None)])
def test_sum_and_gradients_are_those_of_whole_logits(learns, by_rows, factor, cap, jit_compile):
    rng = np.random.default_rng(0)
    hidden = tf.constant(rng.normal(size=(TOKENS, WIDTH)), "float32")
    matrix = tf.constant(rng.normal(size=(CLASSES, WIDTH) if by_rows else (WIDTH, CLASSES)), "float32")
    labels = rng.integers(0, CLASSES, TOKENS)
    labels[::5] = -100

    def whole(hidden, matrix):
        logits = factor * tf.matmul(hidden, matrix, transpose_b=by_rows)
        logits = logits if cap is None else cap * tf.tanh(logits / cap)
        rows = np.flatnonzero(labels != -100)
        return 0.3 * tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels[rows], tf.gather(logits, rows))
        )

    def in_blocks(hidden, matrix):
        projection = Projection(by_rows, factor, cap)
        options = {"ignored": -100, "learns": learns, "block": 5 * CLASSES}
        return 0.3 * linear_cross_entropy(hidden, matrix, labels, projection, **options)

    expected = loss_and_gradients(whole, hidden, matrix, jit_compile=None)
    for one, other in zip(
        loss_and_gradients(in_blocks, hidden, matrix, jit_compile=jit_compile), expected, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)


def test_tokens_of_16_bits_have_gradients_summed_in_32():
    hidden, matrix = np.ones((4096, 1), "float16"), np.zeros((2, 1), "float32")
    labels = np.zeros(4096, "int32")

    def in_blocks(hidden, matrix):
        options = {"ignored": -100, "learns": True, "block": 16}
        return linear_cross_entropy(hidden, matrix, labels, Projection(by_rows=True), **options)

    _, _, of_matrix = loss_and_gradients(in_blocks, tf.constant(hidden), tf.constant(matrix), jit_compile=True)
    # float16 has no number between 2048 and 2050, and sums of it would stay short of this.
    assert of_matrix.ravel().tolist() == [-2048, 2048]


@pytest.mark.parametrize(("tokens", "block"), [(0, BLOCK), (0, 1), (1, 1), (7, 1 << 40)])
@pytest.mark.parametrize("learns", [False, True])
def test_any_number_of_tokens_in_blocks_of_any_size(tokens, block, learns):
    """Of no tokens the sum is 0, as the sum of an empty tensor is; its mean is that of nothing, NaN."""
    hidden, matrix = tf.ones((tokens, 3)), tf.zeros((4, 3))

    def in_blocks(hidden, matrix):
        options = {"ignored": -100, "learns": learns, "block": block}
        return linear_cross_entropy(hidden, matrix, np.zeros(tokens, "int32"), Projection(by_rows=True), **options)

    loss, of_hidden, of_matrix = loss_and_gradients(in_blocks, hidden, matrix, jit_compile=None)
    np.testing.assert_allclose(loss, tokens * np.log(4), rtol=1e-6)
    assert of_hidden.shape == (tokens, 3)
    np.testing.assert_allclose(of_matrix, np.outer([-0.75 * tokens] + [0.25 * tokens] * 3, np.ones(3)), rtol=1e-6)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("tied", "training"), [(True, True), (False, False)])
def test_a_compiled_step_makes_no_whole_logits(tied, training):
    vocabulary, length = 1 << 17, 520
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = TFLlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=tied, **sizes))
    rng = np.random.default_rng(0)
    ids = tf.constant(rng.integers(0, vocabulary, (2, length)), "int32")
    labels = tf.where(ids % 7 == 0, -100, ids)
    assert 2 * length * vocabulary > BLOCK
    weights = [variable.value for variable in model.trainable_variables]

    def step(ids, labels):
        with tf.GradientTape() as tape:
            loss = model(input_ids=ids, labels=labels, use_cache=False, training=training).loss
        return loss, tape.gradient(loss, weights)

    program = tf.function(step, jit_compile=True)
    text = program.experimental_get_compiler_ir(ids, labels)(stage="optimized_hlo")
    whole = [f"[{2 * length},{vocabulary}]", f"[2,{length},{vocabulary}]", f"[2,{length - 1},{vocabulary}]"]
    assert "while" in text and not any(shape in text for shape in whole)
    loss, gradients = program(ids, labels)
    expected_loss, expected = step(ids, labels)  # eagerly: of the logits
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(one, ops.convert_to_tensor(other), rtol=1e-4, atol=1e-8)


def test_a_head_in_float32_over_a_backbone_in_bfloat16_keeps_its_digits(monkeypatch):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=50, initializer_range=0.5, **sizes)
    model = TFLlamaForCausalLM(config, dtype="mixed_bfloat16")
    model.lm_head.dtype_policy = keras.dtype_policies.get("float32")
    ids = tf.constant(np.random.default_rng(0).integers(0, 50, (2, 9)), "int32")
    loss = tf.function(lambda ids: model(input_ids=ids, labels=ids, use_cache=False).loss, autograph=False)
    whole = loss(ids)
    monkeypatch.setattr(language_modeling, "BLOCK", 1)
    loss = tf.function(loss.python_function, autograph=False)
    np.testing.assert_allclose(loss(ids), whole, rtol=1e-6)
