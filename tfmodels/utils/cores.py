"""The number of cores that this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores that this process may run on, which `taskset` and containers limit; at least 1.

    Example:
        >>> available_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
