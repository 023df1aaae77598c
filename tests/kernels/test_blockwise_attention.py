"""Attention in blocks against the plain form: outputs and all gradients, eager and compiled."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.kernels import blockwise_attention
from tfmodels.kernels.masks import make_mask, segments_of
from tfmodels.layers.attention import attend

# More than a block, no multiple of one, and shorter than one.
SHAPES = {
    "causal": {"heads": (4, 2), "lengths": (300, 300), "causal": True},
    "window": {"heads": (4, 4), "lengths": (600, 600), "causal": True, "window": 70},
    "both_sides": {"heads": (4, 2), "lengths": (600, 600), "causal": False, "window": 41, "ahead": 300},
    "full": {"heads": (2, 2), "lengths": (270, 300), "causal": False},
    "continued": {"heads": (4, 1), "lengths": (30, 330), "causal": True, "offset": 300},
    "short": {"heads": (4, 2), "lengths": (7, 7), "causal": True},
}
BIASES = {
    "none": None,
    "keys": lambda heads, queries, keys: (1, heads, 1, keys),
    "pairs": lambda heads, queries, keys: (1, heads, queries, keys),
    "rows": lambda heads, queries, keys: (2, 1, queries, keys),
}


def both(rng, heads, lengths, mask, bias_shape, compiled, **parts):
    """[output, gradients ...] of the plain form and in blocks, zero where a query sees nothing."""
    query = tf.constant(rng.normal(size=(2, heads[0], lengths[0], 8)), "float32")
    key, value = tf.constant(rng.normal(size=(2, 2, heads[1], lengths[1], 8)), "float32")
    arrays = [query, key, value]
    if bias_shape is not None:
        arrays.append(tf.constant(rng.normal(size=bias_shape), "float32"))
    sees = tf.cast(tf.reduce_any(tf.broadcast_to(mask.allowed, (2, 1, *lengths)), -1, keepdims=True), "float32")
    upstream = tf.constant(rng.normal(size=query.shape), "float32") * sees

    def run(implementation):
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            bias = arrays[3] if bias_shape is not None else None
            output, _ = attend(*arrays[:3], mask=mask, scale=0.3, bias=bias, implementation=implementation)
        return [output * sees, *tape.gradient(output, arrays, upstream)]

    _ = mask.allowed
    blocks = tf.function(run, jit_compile=compiled == "xla") if compiled != "eager" else run
    return run("eager"), blocks("blockwise")


@pytest.mark.quick(4)
@pytest.mark.parametrize("compiled", ["eager", "graph", "xla"])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_form(shape, compiled):
    rng = np.random.default_rng(len(shape))
    parts = dict(SHAPES[shape])
    heads, lengths = parts.pop("heads"), parts.pop("lengths")
    window, ahead = parts.pop("window", None), parts.pop("ahead", None)
    padding = np.ones((2, lengths[1]), bool)
    padding[1, :3] = False
    mask = make_mask(tf.constant(padding), query_length=lengths[0], key_length=lengths[1], **parts)
    mask = mask.with_window(window, ahead) if window else mask
    for want, got in zip(*both(rng, heads, lengths, mask, None, compiled), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.quick(3)
@pytest.mark.parametrize("compiled", ["eager", "xla"])
@pytest.mark.parametrize(
    "parts",
    [
        {"causal": True},
        {"causal": False},
        {"causal": True, "window": 70},
        {"causal": True, "fills": True},
        {"causal": True, "window": 70, "fills": True},
        {"causal": True, "window": 70, "fills": True, "offset": 300},
        {"causal": False, "window": 70, "ahead": 20},
        {"causal": False, "pairs": True},
    ],
    ids=str,
)
def test_queries_that_see_no_key_get_what_the_plain_form_gives(parts, compiled):
    """Rows padded left, right, within and whole; outputs and gradients at every query, the unseeing ones included."""
    rng, parts = np.random.default_rng(5), dict(parts)
    window, ahead, fills, pairs = (parts.pop(name, None) for name in ("window", "ahead", "fills", "pairs"))
    keys, offset = 400, parts.get("offset", 0)
    padding = np.ones((4, keys), bool)
    padding[0, :350] = padding[1, 100:] = padding[2, 20:390] = padding[3] = False
    if pairs:
        padding = np.broadcast_to(padding[:, None, None], (4, 1, keys, keys))
    query = tf.constant(rng.normal(size=(4, 4, keys - offset, 8)), "float32")
    arrays = [query, *tf.constant(rng.normal(size=(2, 4, 2, keys, 8)), "float32")]
    upstream = tf.constant(rng.normal(size=query.shape), "float32")

    def run(implementation):
        mask = make_mask(padding, query_length=keys - offset, key_length=keys, **parts)
        mask = dataclasses.replace(mask, fills=bool(fills))
        mask = mask.with_window(window, ahead) if window else mask
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            output, _ = attend(*arrays, mask=mask, scale=0.3, implementation=implementation)
        return [output, *tape.gradient(output, arrays, upstream)]

    blocks = tf.function(run, jit_compile=True) if compiled == "xla" else run
    for want, got in zip(run("eager"), blocks("blockwise"), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("bias", [name for name in BIASES if name != "none"])
def test_bias_and_its_gradient(bias):
    shape = BIASES[bias](4, 300, 300)
    mask = make_mask(None, causal=True, query_length=300, key_length=300)
    for want, got in zip(*both(np.random.default_rng(1), (4, 2), (300, 300), mask, shape, "eager"), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_packed_sequences_and_masks_of_pairs():
    rng = np.random.default_rng(2)
    positions = np.concatenate([np.arange(100), np.arange(200)])[None]
    packed = make_mask(None, causal=True, query_length=300, key_length=300, packed_positions=positions)
    assert np.asarray(segments_of(positions)).max() == 1
    pairs = make_mask(
        np.tril(rng.random((2, 1, 300, 300)) < 0.9) | np.eye(300, dtype=bool),
        causal=True,
        query_length=300,
        key_length=300,
    )
    added = make_mask(
        np.where(rng.random((1, 4, 300, 300)) < 0.5, rng.normal(size=(1, 4, 300, 300)), -1e9).astype("float32"),
        causal=False,
        query_length=300,
        key_length=300,
    )
    for mask in (packed, pairs):
        for want, got in zip(*both(rng, (4, 2), (300, 300), mask, None, "eager"), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)
    x = rng.normal(size=(2, 4, 300, 8)).astype("float32")
    want, _ = attend(x, x, x, mask=added, scale=0.3, implementation="eager")
    got, _ = attend(x, x, x, mask=added, scale=0.3, implementation="blockwise")
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_batch_of_unknown_size():
    x = np.random.default_rng(3).normal(size=(3, 2, 300, 8)).astype("float32")
    mask = make_mask(None, causal=True, query_length=300, key_length=300)

    @tf.function(input_signature=[tf.TensorSpec((None, 2, 300, 8))])
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output, _ = attend(x, x, x, mask=mask, scale=0.3, implementation="blockwise")
        return output, tape.gradient(output, x)

    _ = mask.allowed
    with tf.GradientTape() as tape:
        y = tf.constant(x)
        tape.watch(y)
        want, _ = attend(y, y, y, mask=mask, scale=0.3, implementation="eager")
    got, gradient = run(x)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(want, y), atol=1e-5)


def test_queries_that_see_nothing_get_zeros():
    x = np.ones((1, 1, 300, 4), "float32")
    mask = make_mask(np.zeros((1, 300)), causal=True, query_length=300, key_length=300)
    assert not np.asarray(blockwise_attention.attention(x, x, x, scale=1.0, mask=mask)).any()


def whole_mask(dropout, batch, heads, queries, keys):
    """What `kept` says of every weight, (batch, heads, queries, keys)."""
    rows = tf.reshape(tf.range(batch * heads), (batch, heads, 1, 1))
    return blockwise_attention.kept(
        dropout, rows, tf.range(queries)[None, None, :, None], tf.range(keys)[None, None, None]
    )


@pytest.mark.parametrize("compiled", ["eager", "graph", "xla"])
def test_dropout_equals_the_plain_form_with_the_same_weights_dropped(compiled):
    rng = np.random.default_rng(4)
    shapes = [(2, 4, 300, 8), (2, 2, 300, 8), (2, 2, 300, 8), (1, 4, 300, 300)]
    arrays = [tf.constant(rng.normal(size=shape), "float32") for shape in shapes]
    upstream = tf.constant(rng.normal(size=shapes[0]), "float32")
    dropout = blockwise_attention.Dropout(0.3, tf.constant([7, 1], "uint32"))
    mask = make_mask(None, causal=True, query_length=300, key_length=300)
    keep = tf.cast(whole_mask(dropout, 2, 4, 300, 300), "float32") / 0.7

    def in_blocks(arrays):
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            output = blockwise_attention.attention(*arrays[:3], scale=0.3, mask=mask, bias=arrays[3], dropout=dropout)
        return [output, *tape.gradient(output, arrays, upstream)]

    with tf.GradientTape() as tape:
        tape.watch(arrays)
        want, _ = attend(*arrays[:3], mask=mask, scale=0.3, bias=arrays[3], head_mask=keep, implementation="eager")
    wants = [want, *tape.gradient(want, arrays, upstream)]
    run = tf.function(in_blocks, jit_compile=compiled == "xla") if compiled != "eager" else in_blocks
    for got, want in zip(run(arrays), wants, strict=True):
        np.testing.assert_allclose(got, want, atol=3e-5)


def test_what_is_dropped_is_drawn_evenly_and_by_the_seed():
    rate, size = 0.1, 2 * 4 * 200 * 200

    def draws(*seed):
        return whole_mask(blockwise_attention.Dropout(rate, tf.constant(seed, "uint32")), 2, 4, 200, 200).numpy()

    def related(one, other):
        """Standard deviations between two draws' covariance and 0."""
        return abs(np.mean((one - 0.9) * (other - 0.9))) / (rate * (1 - rate)) * one.size**0.5

    one = draws(3, 0).astype("float64")
    np.testing.assert_array_equal(one, draws(3, 0))
    assert abs(one.mean() - 0.9) < 4 * (rate * (1 - rate) / size) ** 0.5
    upper = np.triu(np.ones((200, 200), bool), 1)
    for other in (draws(3, 1), draws(4, 0)):
        assert related(one, other) < 4
    for axis in range(4):
        first, second = np.split(one, 2, axis)
        assert related(first, second) < 4
        assert related(np.delete(one, 0, axis), np.delete(one, -1, axis)) < 4
    assert related(one[..., upper], np.swapaxes(one, 2, 3)[..., upper]) < 4


@pytest.mark.slow
def test_attend_drops_in_blocks_by_the_layers_seeds():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1, 2, 300, 8)).astype("float32")
    mask = make_mask(None, causal=False, query_length=300, key_length=300)

    def run(layer, training=True):
        output, _ = attend(x, x, x, mask=mask, scale=0.3, dropout=layer, training=training, implementation="blockwise")
        return np.asarray(output)

    one, other = (keras.layers.Dropout(0.2, seed=11) for _ in range(2))
    first, second = run(one), run(one)
    np.testing.assert_array_equal(run(other), first)
    assert np.abs(first - second).max() > 0.01
    whole = run(one, training=False)
    np.testing.assert_array_equal(whole, run(None))
    # Right on average: the error falls with the square root of the number of draws.
    mean = np.mean([run(one) for _ in range(64)], axis=0)
    assert np.abs(mean - whole).mean() < np.abs(first - whole).mean() / 6


@pytest.mark.quick(1)
@pytest.mark.parametrize("rate", [0.1, 0.0])
def test_memory_grows_with_the_length_alone(rate):
    """The compiled program holds no buffer near the size of all scores."""
    length, heads = 4096, 4
    x = tf.zeros((1, heads, length, 16))

    @tf.function(jit_compile=True)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            mask = make_mask(None, causal=True, query_length=length, key_length=length)
            dropout = blockwise_attention.Dropout(rate, tf.constant([1, 2], "uint32")) if rate else None
            output = blockwise_attention.attention(x, x, x, scale=1.0, mask=mask, dropout=dropout)
        return tape.gradient(output, x)

    program = run.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    assert f"{length},{length}" not in program
