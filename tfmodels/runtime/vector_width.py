"""The width of the vectors that XLA's programs for a CPU compute with.

XLA takes vectors of 256 bits unless a flag asks for wider ones, since early processors with 512 bits lowered their
clock for them. Later ones do not, and decode faster with them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import MutableMapping
from pathlib import Path

_VARIABLE = "XLA_FLAGS"
_FLAG = "xla_cpu_prefer_vector_width"
# Processors with these instructions (Intel's from Ice Lake, AMD's from Zen 4 on) keep their clock.
_INSTRUCTIONS = "avx512_vbmi2"


def widen(environment: MutableMapping[str, str] = os.environ, processor: str | Path = "/proc/cpuinfo") -> bool:
    """Ask XLA, before it compiles a first program, for vectors of 512 bits where the processor is fast with them.

    Nothing changes where `XLA_FLAGS` names a width already, or a file of flags.

    Args:
        environment: of the process.
        processor: Linux's file of what the processor can do; where there is none, nothing changes.

    Returns:
        Whether the flag was added.

    Example:
        >>> widen({"XLA_FLAGS": "--xla_cpu_prefer_vector_width=128"})
        False
    """
    given = environment.get(_VARIABLE, "").strip()
    if _FLAG in given or (given and not given.startswith("-")):
        return False
    with contextlib.suppress(OSError):
        if _INSTRUCTIONS in Path(processor).read_text(errors="replace").split():
            environment[_VARIABLE] = f"{given} --{_FLAG}=512".strip()
            return True
    return False
