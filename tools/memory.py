"""Memory of a process, as Linux counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def memory_of(field: str, process: int | str = "self") -> int:
    """A field of a process's status, in bytes: VmSize (its addresses), VmRSS (what it holds) or VmHWM (at most)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def reset_peak() -> int:
    """Let `peak_memory` count from now on, where the system allows it; the bytes that this process holds."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return memory_of("VmRSS")


def peak_memory() -> int:
    """The most bytes that this process held since `reset_peak`."""
    return memory_of("VmHWM")
