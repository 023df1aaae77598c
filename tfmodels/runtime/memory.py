"""Give free memory of the process back to the system."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any


def trim_heap() -> None:
    """Give free memory back to the system, where the C library is glibc; elsewhere nothing is done.

    Compilers take hundreds of megabytes for a while, in small parts, and loading takes some. glibc keeps them, as what
    lies above is in use.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
