from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmodels.checkpoints import DTYPES, to_array, to_tensor
from tfmodels.checkpoints import tensor_copy as transfer

FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def all_half_values(dtype) -> np.ndarray:
    """Every value of a 16-bit type."""
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def bits(array: np.ndarray) -> np.ndarray:
    return np.array(array, order="C").view(f"u{array.itemsize}")


@pytest.fixture
def several_threads(monkeypatch):
    """As on a machine of three cores, also for small arrays."""
    monkeypatch.setattr(transfer, "_thread_count", lambda: 3)
    monkeypatch.setattr(transfer, "_WORTH_THREADS", 0)
    transfer._threads.cache_clear()
    yield
    transfer._threads().shutdown()
    transfer._threads.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_dtype_keeps_every_bit(dtype):
    array = np.random.default_rng(0).integers(0, 2, (300, 600 * DTYPES[dtype].itemsize), "uint8")
    array = (array if dtype == "bool" else array * 177).view(dtype)
    np.testing.assert_array_equal(bits(to_array(array, dtype=dtype)), bits(array))
    np.testing.assert_array_equal(bits(to_array(array, dtype=dtype, transpose=True)), bits(array.T))


@pytest.mark.parametrize("source", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("transpose", [False, True])
def test_widening_is_exact_for_every_value(source, transpose):
    array = all_half_values(source).reshape(512, 128)
    wide = to_array(array, dtype="float32", transpose=transpose)
    expected = array.T if transpose else array
    assert wide.dtype == np.float32
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(wide, expected.astype(np.float64))
    # And back: NaNs may change their payload, nothing else may.
    back = to_array(wide, dtype=np.dtype(source).name, transpose=transpose)
    numbers = ~np.isnan(array.astype("float32"))
    np.testing.assert_array_equal(bits(back)[numbers], bits(array)[numbers])
    assert np.isnan(back[~numbers]).all()


def test_bfloat16_widens_by_its_bits():
    array = all_half_values(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(to_array(array, dtype="float32").view("u4"), array.view("u2").astype("u4") << 16)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # bfloat16 has steps of 2^-7 above 1: halves go to the even neighbour.
        (1 + 2**-8, 1.0),
        (1 + 3 * 2**-8, 1 + 2**-6),
        (1 + 2**-8 + 2**-20, 1 + 2**-7),
        (-1 - 3 * 2**-8, -1 - 2**-6),
        (3.4e38, np.inf),
        (float("inf"), np.inf),
    ],
)
def test_narrowing_rounds_to_nearest_even(value, expected):
    assert float(to_array(np.float32([value]), dtype="bfloat16")[0]) == expected


@given(
    rows=st.integers(0, 700),
    columns=st.integers(0, 1100),
    source=st.sampled_from(FLOATS),
    target=st.sampled_from(FLOATS),
    transpose=st.booleans(),
)
def test_any_shape_and_pair_of_dtypes(rows, columns, source, target, transpose):
    # Small integers are exact in all of these types.
    array = (np.arange(rows * columns).reshape(rows, columns) % 15 - 7).astype(source)
    result = to_array(array, dtype=target, transpose=transpose)
    assert result.dtype.name == target
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert result.ctypes.data % 64 == 0
    np.testing.assert_array_equal(result.astype("f8"), (array.T if transpose else array).astype("f8"))


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 255, 257, 769, 2000])
@pytest.mark.parametrize("transpose", [False, True])
def test_threads_share_the_rows(rows, transpose):
    array = np.random.default_rng(1).standard_normal((rows, 515)).astype("float32")
    result = to_array(array, dtype="float64", transpose=transpose)
    np.testing.assert_array_equal(result, array.T if transpose else array)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_threads_start_anew_in_a_forked_process():
    program = """
import os
import numpy as np
from tfmodels.checkpoints import to_array
from tfmodels.checkpoints import tensor_copy as transfer
transfer._thread_count = lambda: 2
array = np.ones((1000, 1000), "float32")
to_array(array, dtype="float32", transpose=True)
child = os.fork()
if child == 0:
    os._exit(0 if to_array(array, dtype="float64", transpose=True).sum() == array.size else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False).returncode == 0


def test_sources_that_are_strided_unaligned_or_read_only():
    base = np.random.default_rng(2).standard_normal((50, 90)).astype("float32")
    unaligned = np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:].view("float32").reshape(50, 90)
    assert not unaligned.flags.aligned
    for array in (base.T, base[::2, 1::3], np.broadcast_to(base[0], (4, 90)), unaligned):
        for dtype in ("float32", "bfloat16"):
            np.testing.assert_array_equal(to_array(array, dtype=dtype), array.astype(dtype))
            np.testing.assert_array_equal(to_array(array, dtype=dtype, transpose=True), array.T.astype(dtype))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_other_ranks(shape):
    array = np.arange(np.prod(shape), dtype="float16").reshape(shape)
    np.testing.assert_array_equal(to_array(array, dtype="float32"), array.astype("float32"))
    if len(shape) != 2:
        with pytest.raises(ValueError, match=r"only a matrix can be transposed"):
            to_array(array, dtype="float32", transpose=True)


def test_unknown_dtype():
    with pytest.raises(ValueError, match=r"dtype is 'float31'; one of float64, float32"):
        to_array(np.zeros(2), dtype="float31")
    with pytest.raises(ValueError, match=r"dtype is 'float31'; one of float64, float32"):
        to_tensor(np.zeros(2, "float16"), dtype="float31")


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if not dtype.startswith("float8")])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (300, 7)])
def test_tensors_have_the_values_and_the_dtype(dtype, shape):
    array = np.random.default_rng(3).integers(0, 2, shape).astype(dtype)
    tensor = to_tensor(array, dtype=dtype)
    assert (tensor.shape, tensor.dtype.name) == (shape, dtype)
    np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_transposed_tensors_equal_tensorflow(dtype):
    import tensorflow as tf

    array = np.random.default_rng(4).standard_normal((700, 300)).astype("float32")
    expected = tf.cast(tf.transpose(tf.constant(array)), dtype)
    tensor = to_tensor(array, dtype=dtype, transpose=True)
    assert tensor.dtype == expected.dtype
    np.testing.assert_array_equal(tensor.numpy(), expected.numpy())


@pytest.mark.parametrize("target", ["float64", "float32", "bfloat16", "int32"])
def test_half_precision_converts_as_in_arrays(target):
    array = all_half_values(np.float16).reshape(256, 256)
    array = np.where(np.isfinite(array), array, np.float16(0)) if target == "int32" else array
    found = to_tensor(array, dtype=target, transpose=True)
    assert found.dtype.name == target
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found.numpy().astype("f8"), to_array(array.T, dtype=target).astype("f8"))


def test_narrowing_to_half_precision():
    values = np.float32([1 + 2**-11, 1 + 3 * 2**-11, 65504, 2**-24, 2**-26, -0.0, np.inf, np.nan, 1e30])
    expected = [1, 1 + 2**-9, 65504, 2**-24, 0, -0.0, np.inf, np.nan, np.inf]
    for array in (values, np.tile(values, (3, 1)).T):
        found = to_tensor(array, dtype="float16", transpose=array.ndim == 2).numpy()
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))
        np.testing.assert_array_equal(np.signbit(found), np.signbit(np.broadcast_to(expected, found.shape)))


def test_float8_goes_into_a_wider_tensor():
    array = np.arange(256, dtype="uint8").view(ml_dtypes.float8_e4m3fn)
    tensor = to_tensor(array, dtype="bfloat16")
    assert tensor.dtype.name == "bfloat16"
    np.testing.assert_array_equal(tensor.numpy().astype("float32"), array.astype("float32"))
    with pytest.raises(ValueError, match=r"'float8_e4m3fn'.*convert it"):
        to_tensor(array, dtype="float8_e4m3fn")


def test_variables_take_the_memory_over_and_may_change_it():
    import tensorflow as tf

    array = np.ones((64, 32), "float32")
    tensor = to_tensor(array, dtype="bfloat16", transpose=True)
    variable = tf.Variable(tensor)
    variable.assign_add(tf.ones_like(variable))
    assert (tensor.numpy() == 1).all()  # the variable copied before it wrote, since the tensor is still there
    del tensor
    variable.assign_add(tf.ones_like(variable))
    assert (variable.numpy() == 3).all()
    assert (array == 1).all()
