"""Conditions that end rows outside of the compiled programs: stop strings, the user's criteria, a deadline."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.generation.detokenizer import check_tokenizer
from tfmodels.runtime.device import out_of_turn
from tfmodels.utils.text import quote

# Tokens before those that may hold a stop string: decoders look at neighbours (leading spaces, runs of bytes).
_CONTEXT = 8


class StopStrings:
    """Tells which rows end with a token that completes one of several texts.

    Args:
        tokenizer: anything with `decode(ids)`.
        strings: a text or several.

    Raises:
        ValueError: there is no tokenizer.
        TypeError: `tokenizer` is no tokenizer.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> stop = StopStrings(tokenizer, ["cat"])
        >>> stop([tokenizer.encode("a cat"), tokenizer.encode("a cat sat")]).tolist()
        [True, False]
    """

    def __init__(self, tokenizer: Any, strings: Sequence[str] | str):
        if tokenizer is None:
            raise ValueError(
                f"stop_strings={quote(strings)} need generate(..., tokenizer=tokenizer) to read the text."
            )
        check_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        self.strings = [strings] if isinstance(strings, str) else list(strings)
        # A token has at least one byte.
        self.window = max(len(text.encode()) for text in self.strings) + _CONTEXT

    def __call__(self, rows: Any, scores: Any = None) -> np.ndarray:
        """Whether the last token of each row completes a stop string, bool (rows,), from each row's ids."""
        return np.array([self._ends(np.asarray(row).tolist()) for row in rows])

    def _ends(self, ids: Sequence[int]) -> bool:
        ids = [token for token in ids[-self.window :] if token >= 0]
        text, before = self.tokenizer.decode(ids), self.tokenizer.decode(ids[:-1])
        seen = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, before, strict=False)))
        return any(text.find(stop, max(0, seen - len(stop) + 1)) >= 0 for stop in self.strings)


class Stopping:
    """Everything that may end rows from outside, of one call of `generate`.

    Args:
        criteria: callables `(input_ids, scores)` that return a bool, or one per row.
        max_time: seconds from now, or None.
    """

    def __init__(self, criteria: Sequence[Callable[[Any, Any], Any]] = (), max_time: float | None = None):
        self.criteria = list(criteria)
        self.deadline = None if max_time is None else time.monotonic() + max_time

    def rows(self, ids: Any, scores: Any = None) -> np.ndarray:
        """Which rows of ids (rows, length) a criterion ends, bool (rows,)."""
        ended = np.zeros(len(ids), bool)
        for criterion in self.criteria:
            with out_of_turn():
                verdict = criterion(ids, scores)
            verdict = np.asarray(ops.convert_to_numpy(verdict))
            if verdict.shape not in ((), ended.shape):
                raise ValueError(
                    f"a stopping criterion returned shape {verdict.shape}; a bool or {ended.shape} was expected."
                )
            ended |= verdict.astype(bool)
        return ended

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.deadline is not None and time.monotonic() > self.deadline
