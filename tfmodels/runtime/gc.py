"""Python's search for garbage, while much is made that stays."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Inside, Python looks for no garbage cycles.

    A model or a traced program is tens of thousands of objects that all stay, enough to make Python search everything
    there is, all of TensorFlow's objects included: a third of a second for nothing, or more.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
