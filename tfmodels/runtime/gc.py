"""Pauses of the garbage collector while a model is built, a program traced, or a template rendered in little time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def pause_gc() -> Iterator[None]:
    """Pause Python's garbage collector for the duration of a `with` block.

    A model or a traced program is tens of thousands of objects that all stay. Each search through them, and through
    all of TensorFlow's objects, finds nothing and costs a third of a second or more.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
