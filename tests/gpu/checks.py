"""Checks of a device's numbers against plain float32, and a table of the worst of them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import pytest
from keras import ops

BOUNDS = {"float16": 2e-3, "bfloat16": 1.5e-2}
_MEMORY = filelock.FileLock(Path(tempfile.gettempdir(), "tfmodels_gpu_tests.lock"))  # of processes side by side


class Settings(NamedTuple):
    """The options of the tests.

    Fields:
        device: "gpu" or "cpu".
        lengths: of the kernels' inputs.
        layers: of whole models.
    """

    device: str
    lengths: list[int]
    layers: int


class Found(NamedTuple):
    """The errors that a check found.

    Fields:
        output, gradients: relative errors, None where there is none.
        allowed: a bound for each error that there is.
        note: how attention was computed, or where the worst error is.
    """

    output: float
    gradients: float | None
    allowed: tuple[float, ...]
    note: str = ""

    @property
    def parts(self) -> list[float]:
        """Each error over its bound."""
        errors = [error for error in (self.output, self.gradients) if error is not None]
        return [error / bound for error, bound in zip(errors, self.allowed, strict=True)]

    @property
    def good(self) -> bool:
        return all(part <= 1 for part in self.parts)


class Check(NamedTuple):
    """A comparison with plain float32.

    Fields:
        case, dtype: of the inputs; the table has a line for each pair.
        detail: sizes of the inputs, or how they are padded.
        measure: runs the comparison.
        large: whether it takes gigabytes.
    """

    case: str
    dtype: str
    detail: str
    measure: Callable[[], Found]
    large: bool = False

    def __str__(self) -> str:
        return f"{self.case}-{self.dtype}-{self.detail}".replace(" ", "_")


def relative_error(got: Any, want: Any) -> float:
    """The difference over the wanted values in the Euclidean norm; infinity where a number is not finite."""
    got, want = (np.asarray(ops.convert_to_numpy(ops.cast(x, "float32"))).ravel() for x in (got, want))
    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    return error if np.isfinite(error) else float("inf")


def run(check: Check, seconds_left: float) -> Found:
    """Run a check; of those that need much memory, one at a time on this machine.

    Raises what the check raised, and skips the test where no time is left.
    """
    with _MEMORY if check.large else contextlib.nullcontext():
        if seconds_left <= 0:
            pytest.skip("no time is left (--budget)")
        return check.measure()


def summary(rows: list[dict[str, Any]]) -> str:
    """Markdown: the worst error of every test, case and dtype, from what the tests recorded."""
    lines = ["| test | case | dtype | checks | output | gradients | worst / allowed | |", "|" + "---|" * 8]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["test"], row["case"], row["dtype"]), []).append(row)
    for place, own in groups.items():
        worst = {
            name: max((row[name] for row in own if row.get(name) is not None), default=None)
            for name in ("output", "gradients", "part")
        }
        bad = [row["detail"] for row in own if not row["good"]]
        cells = [*place, str(len(own)), *("-" if e is None else f"{e:.1e}" for e in list(worst.values())[:2])]
        cells += ["-" if worst["part"] is None else f"{worst['part']:.2f}"]
        lines.append("| " + " | ".join([*cells, "FAILED: " + ", ".join(bad) if bad else "ok"]) + " |")
    return "\n".join(lines)
