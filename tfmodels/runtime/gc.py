"""Pauses of the garbage collector while a model is built, a program traced, or a template rendered in little time."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def pause_gc() -> Iterator[None]:
    """Pause Python's garbage collector for the duration of a `with` block.

    A model or a traced program is tens of thousands of objects that all stay. Each search through them, and through
    all of TensorFlow's objects, finds nothing and costs a third of a second or more. Where several threads pause the
    collector, it goes on after the last of them.
    """
    _pauses.begin()
    try:
        yield
    finally:
        _pauses.end()


class _Pauses:
    """The blocks of all threads that pause the collector."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._was_enabled = False

    def begin(self) -> None:
        with self._lock:
            if not self._count:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count and self._was_enabled:
                gc.enable()


_pauses = _Pauses()


@contextlib.contextmanager
def quick_collections() -> Iterator[None]:
    """Hide the objects that exist so far from the garbage collector for the duration of a `with` block.

    Keras collects garbage after every weight that it replaces. Each collection then looks at new objects alone and not
    at all of TensorFlow's. Nothing is done in a process that has frozen objects of its own.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
