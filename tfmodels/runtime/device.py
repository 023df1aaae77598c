"""Devices of this process: its GPU, whether that runs the fused kernels, and whether it is what a script asks for."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import numpy as np
from keras import backend, ops

from tfmodels.utils.text import quote

_MIN_CAPABILITY = (8, 0)
_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Turn:
    """A lock that a thread may take several times, and leave for a while."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner, self._depth = 0, 0  # written by the thread that holds the lock

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner, self._depth = threading.get_ident(), self._depth + 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        self._lock.release()

    @contextlib.contextmanager
    def left(self) -> Iterator[None]:
        depth = self._depth if self._owner == threading.get_ident() else 0
        for _ in range(depth):
            self.__exit__()
        try:
            yield
        finally:
            for _ in range(depth):
                self.__enter__()


_turn = _Turn()


def has_gpu() -> bool:
    """Whether TensorFlow is the backend and sees a GPU."""
    if backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def on_gpu() -> bool:
    """Whether this process computes on a GPU, on either backend that can."""
    if backend.backend() != "jax":
        return has_gpu()
    import jax

    return jax.devices()[0].platform == "gpu"


def in_turn(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let calls from several threads take turns where there is a GPU.

    TensorFlow 2.21 mixes up operations on small integers that several threads run eagerly on one GPU: a sum gets the
    operand of another thread's. Such operations prepare the inputs of programs.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _turn if has_gpu() else contextlib.nullcontext():
            return function(*args, **kwargs)

    # TensorFlow's AutoGraph follows this attribute to the function, and then calls it without a method's object.
    del call.__wrapped__
    call.__signature__ = inspect.signature(function)
    return call


def out_of_turn() -> contextlib.AbstractContextManager[None]:
    """Let other threads go on while code of the user's, which may wait for them, runs inside of a turn."""
    return _turn.left()


def host_tensor(value: Any, dtype: str | None = None) -> Any:
    """A small input of a program, as a tensor in the host's memory.

    A tensor made on a GPU is copied there at once, for which the caller waits; a program copies its inputs while it
    starts.

    Args:
        value: array-like.
        dtype: name of the dtype; by default the value's own.

    Example:
        >>> host_tensor([1, 2], "int32").shape
        TensorShape([2])
    """
    if backend.backend() != "tensorflow":
        return ops.convert_to_tensor(value, dtype)
    import tensorflow as tf

    with tf.device("CPU:0"):
        if isinstance(value, np.ndarray):  # the shortest way, as every call of the engine takes it several times
            return tf.constant(value if dtype is None else value.astype(dtype, copy=False))
        return ops.convert_to_tensor(value, dtype)


@functools.cache
def missing() -> str | None:
    """The fused kernels' unmet need in this process, to follow the word "needs"; None where they can run."""
    import tensorflow as tf

    devices = tf.config.get_visible_devices("GPU")
    if not devices:
        return "a GPU, and TensorFlow sees none"
    if not tf.test.is_built_with_cuda():
        return "a TensorFlow built with CUDA"
    for device in devices:
        capability = tf.config.experimental.get_device_details(device).get("compute_capability", (0, 0))
        if capability < _MIN_CAPABILITY:
            return f"compute capability 8.0; {device.name} has {'.'.join(map(str, capability))}"
    return None


def check_device_map(device_map: Any) -> None:
    """Make sure that a model lies where the `device_map` of a script for transformers wants it.

    TensorFlow places weights on the first GPU that it sees, or else on the CPU. Which device that is can be chosen
    before a model is made, but not by this argument.

    Args:
        device_map: None, or "auto", "balanced", "balanced_low_0" or "sequential", which leave the choice; "cpu",
            "cuda", "cuda:0" or 0, or a dict whose values are one of these.

    Raises:
        ValueError: it names another device than the one that TensorFlow takes, or the backend is another one; the
            message says how to choose.

    Example:
        >>> check_device_map("auto")
        >>> check_device_map({"": "cuda:1"})
        Traceback (most recent call last):
        ...
        ValueError: device_map={'': 'cuda:1'} names a device that TensorFlow would not take: it places a model on ...
    """
    places = set(map(str, device_map.values() if isinstance(device_map, dict) else (device_map,)))
    if not places or places <= {"None", "auto", "balanced", "balanced_low_0", "sequential"}:
        return
    if backend.backend() != "tensorflow":
        raise ValueError(f"device_map={quote(device_map)}: on {backend.backend()} choose devices by its own means.")
    taken = {"cuda", "cuda:0", "gpu", "gpu:0", "0"} if has_gpu() else {"cpu", "cpu:0"}
    if not {place.lower() for place in places} <= taken:
        raise ValueError(
            f"device_map={quote(device_map)} names a device that TensorFlow would not take: it places a model on "
            f"{'the first GPU' if 'gpu' in taken else 'the CPU, as it sees no GPU'}. Choose devices with "
            f"CUDA_VISIBLE_DEVICES (empty for the CPU) or `with tf.device(...)`, or leave device_map out."
        )
