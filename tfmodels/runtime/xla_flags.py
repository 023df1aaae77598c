"""Settings of XLA in the environment under which its programs for a GPU compute wrong numbers."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from tfmodels.runtime.device import has_gpu
from tfmodels.utils.warn import warn

_SCHEDULING = "xla_gpu_command_buffer_scheduling_mode"
_WRONG_MODES = ("CONCURRENT",)


def unsafe_flag(environment: Mapping[str, str] = os.environ) -> str | None:
    """The flag of XLA that is known to make wrong numbers on a GPU, as it is set; None where it is not.

    Args:
        environment: its `XLA_FLAGS` holds flags, of which the last of a name counts, or names a file of them.

    Example:
        >>> unsafe_flag({"XLA_FLAGS": "--xla_gpu_command_buffer_scheduling_mode=CONCURRENT"})
        '--xla_gpu_command_buffer_scheduling_mode=CONCURRENT'
        >>> unsafe_flag({"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false"})
    """
    given = environment.get("XLA_FLAGS", "").strip()
    if given and not given.startswith("-"):
        path, given = Path(given), ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            given = path.read_text()
    try:
        flags = shlex.split(given)
    except ValueError:  # a quote that is not closed, which XLA refuses
        return None
    modes = [value for name, _, value in (flag.partition("=") for flag in flags) if name.lstrip("-") == _SCHEDULING]
    if not modes or modes[-1].upper() not in _WRONG_MODES:
        return None
    return f"--{_SCHEDULING}={modes[-1]}"


@functools.cache
def warn_where_unsafe() -> None:
    """Warn, once in a process, that XLA's programs for its GPU may compute wrong numbers; called before they are made.

    A warning and no error: most programs are right, and are faster, under the flag.
    """
    flag = unsafe_flag() if has_gpu() else None
    if flag is not None:
        warn(
            f"XLA_FLAGS holds {flag}, with which TensorFlow 2.21 computed wrong logits on a GPU (a Llama with int8 "
            f"weights). Leave it out, or compare results with those of a process without it."
        )
