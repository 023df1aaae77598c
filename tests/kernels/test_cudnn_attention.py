"""The fused kernels' configuration, and everything around the calls, with plain products in the calls' place.

What the kernels themselves compute is checked on a GPU by tests/gpu.
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.kernels import cudnn_attention
from tfmodels.kernels.cudnn_attention import Kind, attention, backend_config, call_target, unsuitable
from tfmodels.kernels.masks import make_mask
from tfmodels.layers.alibi import alibi_bias, alibi_slopes
from tfmodels.layers.attention import attend


def stand_in(kind, operands, results, *, backward):
    """What the custom calls compute, from (batch, length, heads, head_dim) to (batch, heads, length, head_dim)."""

    def plain(query, key, value, *bias):
        query, key, value = (tf.transpose(tf.cast(x, "float32"), (0, 2, 1, 3)) for x in (query, key, value))
        repeat = query.shape[1] // key.shape[1]
        key, value = tf.repeat(key, repeat, axis=1), tf.repeat(value, repeat, axis=1)
        scores = tf.matmul(query, key, transpose_b=True) * kind.scale
        scores = scores + tf.cast(bias[0], "float32") if bias else scores
        own, other = tf.range(query.shape[2])[:, None], tf.range(query.shape[2])[None]
        allowed = tf.ones_like(own == other)
        if kind.causal:
            allowed &= other <= own
        if kind.window:
            allowed &= other > own - kind.window
        if kind.padded:
            assert operands[-1].dtype == tf.int32
            allowed &= (other < operands[-1][:, None, None])[:, None]
        output = tf.matmul(tf.nn.softmax(tf.where(allowed, scores, -1e30)), value)
        if kind.padded:  # garbage, which must not come out
            inside = tf.range(query.shape[2])[None] < operands[-2][:, None]
            output = tf.where(inside[:, None, :, None], output, float("nan"))
        return tf.cast(output, results[0].dtype)

    if not backward:
        output = plain(*operands[: 4 if kind.bias else 3])
        return [output, tf.zeros(results[1].shape)]
    query, key, value, _, upstream, *rest = operands
    arrays = [query, key, value, *rest[: 1 if kind.bias else 0]]
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        output = plain(*arrays)
    if kind.padded:
        upstream = tf.where(tf.math.is_nan(tf.transpose(output, (0, 2, 1, 3))), tf.zeros((), upstream.dtype), upstream)
    flows = tape.gradient(output, arrays, tf.transpose(upstream, (0, 2, 1, 3)))
    return [*(tf.transpose(flow, (0, 2, 1, 3)) for flow in flows[:3]), *flows[3:]]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(cudnn_attention, "unavailable", lambda: None)
    monkeypatch.setattr(cudnn_attention, "_call", stand_in)
    cudnn_attention._function.cache_clear()
    yield
    cudnn_attention._function.cache_clear()


CASES = {
    "causal": {"causal": True},
    "grouped": {"causal": True, "heads": (8, 2)},
    "window": {"causal": True, "window": 5},
    "left padding": {"causal": True, "padding": [[1] * 12, [0] * 3 + [1] * 9]},
    "right padding": {"padding": [[1] * 12, [1] * 10 + [0] * 2]},
    "holes": {"causal": True, "padding": [[0, 1, 1, 0] * 3, [1] * 12]},
    "head_dim 12": {"causal": True, "head_dim": 12},
    "ALiBi": {"causal": True, "bias": "alibi"},
    "learned bias, padding": {"bias": "learned", "padding": [[1] * 12, [1] * 9 + [0] * 3]},
}


@pytest.mark.quick(9)
@pytest.mark.parametrize("compiled", ["eager", "graph", "xla"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_form(gpu, case, compiled):
    options = dict(CASES[case])
    heads, head_dim, length = options.get("heads", (4, 4)), options.get("head_dim", 16), 12
    rng = np.random.default_rng(len(case))
    shapes = [(2, heads[0], length, head_dim), *[(2, heads[1], length, head_dim)] * 2]
    arrays = [tf.constant(rng.normal(size=shape), "bfloat16") for shape in shapes]
    if options.get("bias") == "learned":
        arrays.append(tf.constant(rng.normal(size=(1, heads[0], length, length)), "bfloat16"))
    fixed = alibi_bias(alibi_slopes(heads[0], 8), length, last=length - 1) if options.get("bias") == "alibi" else None
    keys = np.array(options["padding"]) if "padding" in options else np.ones((2, length), int)
    counts = tf.constant(keys[:, None, :, None], "float32")
    upstream = tf.constant(rng.normal(size=shapes[0]), "float32") * counts

    def run(arrays, implementation):
        mask = make_mask(
            keys if "padding" in options else None,
            causal=options.get("causal", False),
            query_length=length,
            key_length=length,
        )
        mask = mask.with_window(options["window"]) if "window" in options else mask
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            bias = arrays[3] if len(arrays) > 3 else fixed
            output, _ = attend(*arrays[:3], mask=mask, scale=0.3, bias=bias, implementation=implementation)
            output = tf.cast(output, "float32") * counts
        return [output, *tape.gradient(output, arrays, upstream)]

    flash = tf.function(run, jit_compile=compiled == "xla") if compiled != "eager" else run
    wants = run([tf.cast(x, "float32") for x in arrays], "eager")
    for want, got in zip(wants, flash(arrays, "flash"), strict=True):
        got, want = np.asarray(tf.cast(got, "float32")), np.asarray(want)
        assert np.linalg.norm(got - want) <= 0.02 * np.linalg.norm(want)


KERAS_CASES = [name for name in CASES if name != "learned bias, padding"]


@pytest.mark.parametrize("case", KERAS_CASES)
def test_what_keras_is_asked_for_on_jax(case, monkeypatch):
    """Its plain form, here in the place of the fused one, gives what the plain form of this package does."""
    asked = []

    def stand_in(*arrays, flash_attention, **options):
        asked.append(flash_attention)
        assert options["bias"] is None or options["bias"].shape[2:] == (12, 12)
        assert options["mask"] is None or options["mask"].shape[2:] == (12, 12)
        return plain(*arrays, **options)

    plain = keras.ops.dot_product_attention
    monkeypatch.setattr(cudnn_attention.ops, "dot_product_attention", stand_in)
    monkeypatch.setattr(cudnn_attention, "unavailable", lambda: None)
    monkeypatch.setattr(cudnn_attention.keras.backend, "backend", lambda: "jax")
    options = CASES[case]
    heads, head_dim = options.get("heads", (4, 4)), options.get("head_dim", 16)
    rng = np.random.default_rng(3)
    query = tf.constant(rng.normal(size=(2, heads[0], 12, head_dim)), "float16")
    key, value = (tf.constant(rng.normal(size=(2, heads[1], 12, head_dim)), "float16") for _ in range(2))
    keys = np.array(options["padding"]) if "padding" in options else np.ones((2, 12), int)
    mask = make_mask(
        keys if "padding" in options else None, causal=options.get("causal", False), query_length=12, key_length=12
    )
    mask = mask.with_window(options["window"]) if "window" in options else mask
    bias = alibi_bias(alibi_slopes(heads[0], 8), 12, last=11) if options.get("bias") == "alibi" else None
    got, _ = attend(query, key, value, mask=mask, scale=0.3, bias=bias, implementation="flash")
    want, _ = attend(query, key, value, mask=mask, scale=0.3, bias=bias, implementation="eager")
    assert asked == [True]
    seen = keys[:, None, :, None]
    assert np.linalg.norm((got - want) * seen) <= 2e-3 * np.linalg.norm(want * seen)
    assert not np.any(got * (1 - seen))


def test_configuration_of_a_call():
    kind = Kind(0.125, causal=True, window=7, padded=True)
    config = json.loads(backend_config(kind, (2, 9, 8, 64), (2, 9, 4, 64), "float16", backward=True))
    found = config["cudnn_fmha_backend_config"]
    assert found["fmha_scale"] == 0.125 and found["sliding_window_length"] == 7
    assert found["mask_type"] == "PADDING_CAUSAL" and found["dropout_rate"] == 0.0
    assert found["intermediate_tensor_shape"]["element_type"] == "F16"
    assert found["intermediate_tensor_shape"]["dimensions"] == ["2", "8", "9", "9"]
    assert {name for name in found if name.endswith("dimension_numbers")} == {
        f"bmm{product}_grad_gemm{operand}_dot_dimension_numbers" for product in (1, 2) for operand in (1, 2)
    }
    # d_output (batch, length, heads, head_dim) times the values likewise gives scores.
    assert found["bmm2_grad_gemm2_dot_dimension_numbers"] == {
        "lhs_contracting_dimensions": ["3"],
        "rhs_contracting_dimensions": ["3"],
        "lhs_batch_dimensions": ["0", "2"],
        "rhs_batch_dimensions": ["0", "2"],
    }


@pytest.mark.parametrize(
    "kind, mask, target",
    [
        (Kind(1.0), "NO_MASK", "__cudnn$fmhaSoftmax"),
        (Kind(1.0, causal=True), "CAUSAL", "__cudnn$fmhaSoftmax"),
        (Kind(1.0, padded=True), "PADDING", "__cudnn$fmhaSoftmax"),
        (Kind(1.0, causal=True, bias=True), "CAUSAL", "__cudnn$fmhaScaleBiasSoftmax"),
    ],
)
def test_names_that_xla_knows(kind, mask, target):
    assert kind.mask_type == mask
    assert call_target(kind, backward=False) == target
    assert call_target(kind, backward=True) == target + "Backward"


def test_what_cannot_be_served():
    good = (2, 4, 16, 64)
    assert unsuitable(good, good, "float16") is None
    assert "not in float32" in unsuitable(good, good, "float32")
    assert "drop_remainder" in unsuitable((None, 4, 16, 64), good, "float16")
    assert "not 16 and 20" in unsuitable(good, (2, 4, 20, 64), "float16")
    assert "up to 128" in unsuitable((2, 4, 16, 160), (2, 4, 16, 160), "float16")
    x = tf.zeros((2, 4, 16, 64), "float16")
    with pytest.raises(ValueError, match="a window needs causal=True"):
        attention(x, x, x, scale=1.0, window=4)
    with pytest.raises(ValueError, match="keys cannot be combined"):
        attention(x, x, x, scale=1.0, keys=tf.ones((2, 16), "bool"), bias=tf.zeros((1, 4, 16, 16), "float16"))


@pytest.mark.skipif(cudnn_attention.unavailable() is None, reason="has a GPU")
def test_without_a_gpu_it_says_so():
    x = tf.zeros((2, 4, 16, 64), "float16")
    with pytest.raises(RuntimeError, match="needs a GPU"):
        attention(x, x, x, scale=1.0)
