"""Pause the garbage collector while a model is built or a program traced."""

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
