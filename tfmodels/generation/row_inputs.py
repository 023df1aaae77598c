"""The inputs of the engine's programs, made from the rows that they serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmodels.generation.row import Row
from tfmodels.generation.row_settings import Kind, row_settings
from tfmodels.generation.row_text import Text, start_text
from tfmodels.runtime.compile import Held


class RowInputs:
    """Makes the inputs of programs, and keeps those that stay the same while the rows do.

    Args:
        room: slots of each row.
        vocab_size: of the model.
    """

    def __init__(self, room: int, vocab_size: int):
        self.room = room
        self.vocab_size = vocab_size
        # Settings as they were last, and the rows that they belong to.
        self._last: tuple[Any, ...] = ([], None, None)

    def settings(self, rows: Sequence[Row | None], kind: Kind) -> Held:
        """The `RowSettings` of rows; None stands for one that rests."""
        if self._last[:2] != (rows, kind):
            requests = [None if row is None else row.request for row in rows]
            seeds = [0 if row is None else row.seed for row in rows]
            self._last = (list(rows), kind, Held(row_settings(requests, seeds, kind, self.vocab_size)))
        return self._last[2]

    def counts(self, rows: Sequence[Row | None], lengths: Sequence[int], lefts: Sequence[int]) -> np.ndarray:
        """The state of rows as `Slots.decode` takes it.

        Args:
            rows: None stands for one that rests.
            lengths: of what each has cached.
            lefts: tokens that each makes at most.
        """
        counts = [
            (0, length, 0, 0) if row is None else (row.last, length, len(row.new), min(row.left, left))
            for row, length, left in zip(rows, lengths, lefts, strict=True)
        ]
        return np.array(counts, "int32").T

    def text(self, rows: Sequence[Row | None], steps: int) -> Text:
        """The tokens of rows so far, for programs of `Kind.EVERYTHING`."""
        ids = np.zeros((len(rows), self.room), "int32")
        for of_row, row in zip(ids, rows, strict=True):
            tokens = () if row is None else (*row.request.prompt, *row.new)
            of_row[: len(tokens)] = tokens
        prompt_lengths = [0 if row is None else len(row.request.prompt) for row in rows]
        return start_text(ids, np.asarray(prompt_lengths, "int32"), steps, self.vocab_size)
