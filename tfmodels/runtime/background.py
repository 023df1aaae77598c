"""A thread that compiles programs while plain graphs do their work."""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Callable
from typing import Any

import keras

THREAD_NAME = "tfmodels-compile"


class Background:
    """Does jobs one after the other in a thread of its own, which ends when there are none.

    The interpreter's exit waits for the job at work, as XLA cannot be stopped, and drops those that wait.

    Example:
        >>> done, background = [], Background()
        >>> background.submit(lambda: done.append(1))
        >>> background.join()
        >>> done
        [1]
    """

    def __init__(self) -> None:
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Do a job, which raises nothing, after those that wait."""
        with self._lock:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=False)
                self._thread.start()

    def join(self) -> None:
        """Wait until all jobs are done."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not threading.main_thread().is_alive():  # the interpreter exits
                    self._jobs.clear()
                if not self._jobs:
                    self._thread = None
                    return
                job = self._jobs.popleft()
            job()
            del job  # and what it holds


def at_work() -> bool:
    """Whether a program is being compiled in the background of this process."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


def stand_ins(arguments: Any) -> Callable[[], Any]:
    """Return a function that makes arguments for a program that is run to be compiled, on TensorFlow.

    Arrays are of zeros, variables are others of the same shape, scalars keep their values, some of which XLA compiles
    in. Nothing of `arguments` is held meanwhile.
    """
    import tensorflow as tf

    def described(x: Any) -> Any:
        if x is None or not hasattr(x, "shape") or not len(x.shape):
            return lambda zeros: x
        shape, dtype = tuple(x.shape), x.dtype
        if isinstance(x, tf.Variable):
            return lambda zeros: tf.Variable(zeros(shape, dtype), trainable=False)
        return lambda zeros: zeros(shape, dtype)

    makers = keras.tree.map_structure(described, arguments)

    def make() -> Any:
        zeros = functools.cache(tf.zeros)  # one for all layers of a cache
        return keras.tree.map_structure(lambda maker: maker(zeros), makers)

    return make
