"""The number of decoding steps that one call of the device takes."""

from __future__ import annotations

from collections.abc import Sequence

from tfmodels.generation.row import Row
from tfmodels.generation.row_programs import STEPS

# Seconds at most between two events of a row where tokens are streamed, if a single one does not take longer.
_LONGEST_PAUSE = 0.15
# About what a call takes beside its steps.
_CALL_SECONDS = 0.0015


class Pace:
    """Chooses how many steps a call takes, by what a step took when last seen."""

    def __init__(self) -> None:
        self._step_seconds = 0.0

    def note(self, seconds: float, steps: int) -> None:
        """Note what a call took."""
        self._step_seconds = seconds / steps

    def steps(
        self, rows: Sequence[Row], lefts: Sequence[int], *, streaming: bool, has_prompts: bool, has_waiting: bool
    ) -> int:
        """The number of steps, from 1 to `STEPS`.

        Args:
            rows: that make tokens.
            lefts: tokens that each can make until its grammar must be asked, or until its end.
            streaming: tokens are waited for.
            has_prompts: other rows have prompts that are not run yet.
            has_waiting: requests wait for a row.
        """
        if streaming and not all(row.new for row in rows):
            return 1  # a first token is waited for
        most = STEPS // 4 if has_prompts else STEPS
        if streaming and self._step_seconds:
            most = min(most, max(1, int(_LONGEST_PAUSE / self._step_seconds)))
        if has_waiting:  # a row that ends is taken up at once
            most = min(most, min(row.left for row in rows))
        if all(row.matcher is None for row in rows):
            return most
        # More steps share the overhead of the call, which rows with a grammar spend resting where they can do fewer.
        overhead = _CALL_SECONDS / max(self._step_seconds, _CALL_SECONDS / STEPS)
        most = min(most, 2 + int(overhead))
        return max(range(1, most + 1), key=lambda n: sum(min(left, n) for left in lefts) / (n + overhead))
