"""Every pooling mode against arithmetic over each row's tokens alone, whatever side the padding is on."""

import numpy as np
import pytest
import tensorflow as tf

from tfmodels.sentence.pooling import POOLING_MODES, Pooling

HIDDEN = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]])
BY_HAND = {
    "cls": lambda x: x[0],
    "max": lambda x: x.max(0),
    "mean": lambda x: x.mean(0),
    "mean_sqrt_len_tokens": lambda x: x.sum(0) / len(x) ** 0.5,
    "weightedmean": lambda x: np.average(x, axis=0, weights=np.arange(1, len(x) + 1)),
    "lasttoken": lambda x: x[-1],
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_one_mode(mode, compiled):
    pool = Pooling((mode,))
    call = tf.function(pool, jit_compile=True) if compiled else pool
    want = [BY_HAND[mode](row[mask == 1]) for row, mask in zip(HIDDEN, MASK, strict=True)]
    np.testing.assert_allclose(call(HIDDEN, MASK), want, rtol=1e-5, atol=1e-6)


def test_several_modes_side_by_side():
    got = Pooling(("lasttoken", "mean"))(HIDDEN, MASK)
    np.testing.assert_array_equal(got[:, :3], Pooling(("lasttoken",))(HIDDEN, MASK))
    np.testing.assert_array_equal(got[:, 3:], Pooling(("mean",))(HIDDEN, MASK))


def test_half_precision_is_pooled_in_float32():
    long = np.full((1, 4096, 1), 100.1, "float16")
    got = Pooling(("mean",), dtype="float16")(long, np.ones((1, 4096)))
    assert got.dtype == "float32" and float(got[0, 0]) == pytest.approx(float(long[0, 0, 0]), rel=1e-6)


def test_a_row_without_tokens_is_nothing():
    for mode in ("mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"):
        np.testing.assert_array_equal(Pooling((mode,))(HIDDEN[:1], np.zeros((1, 6))), np.zeros((1, 3)))


@pytest.mark.parametrize("modes", [(), ("median",), ("mean", "first")])
def test_unknown_modes(modes):
    with pytest.raises(ValueError, match=r"one or more of cls, max, mean"):
        Pooling(modes)
