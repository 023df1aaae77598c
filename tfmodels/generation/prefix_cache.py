"""The tokens that each row of the engine has cached, and the choice of a row for a new prompt."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@dataclasses.dataclass
class RowContent:
    """The tokens whose keys and values a row holds.

    Fields:
        tokens: token ids.
        used: when it was used last; a higher number is later.
    """

    tokens: list[int] = dataclasses.field(default_factory=list)
    used: int = 0


class PrefixCache:
    """Finds the row that has computed the longest beginning of a prompt.

    The rows themselves are the cache: a row that rests keeps what it holds until another request needs the room, and
    the one used longest ago goes first. So its memory is bounded by the rows.

    Args:
        rows: number of rows.
        least: beginnings shorter than this are not worth a copy.

    Example:
        >>> cache = PrefixCache(2, least=2)
        >>> cache.rows[0].tokens[:] = [5, 6, 7]
        >>> cache.best([5, 6, 8])
        (0, 2)
        >>> cache.best([5, 9])
        (None, 0)
    """

    def __init__(self, rows: int, least: int = 16):
        self.rows = [RowContent() for _ in range(rows)]
        self.least = least
        self.prompts = 0
        self.hits = 0
        self.prompt_tokens = 0
        self.reused_tokens = 0
        self._clock = 0
        self._weights: np.ndarray | None = None

    def look_at(self, model: Any) -> None:
        """Forget all rows where the model's weights are others than at the last look; call it while no row works."""
        weights = model.weights
        variables = weights if keras.backend.backend() == "jax" else ()
        sample = functools.partial(_sample, weights)
        # As one program: read one by one, the weights of a small model take as long as a token.
        sampled = model.programs.run(
            ("sample", len(weights)), sample, jit_compile=False, variables=variables, steady=True
        )
        numbers = ops.convert_to_numpy(sampled)
        if self._weights is not None and not np.array_equal(numbers, self._weights):
            self.forget()
        self._weights = numbers

    def forget(self) -> None:
        """Forget what all rows hold."""
        for content in self.rows:
            content.tokens = []

    def touch(self, row: int) -> None:
        """Note that a row is used now."""
        self._clock += 1
        self.rows[row].used = self._clock

    def best(self, prompt: Sequence[int]) -> tuple[int | None, int]:
        """The row with the longest common beginning, and its length; all but the prompt's last token may count."""
        beginning = prompt[:-1]
        lengths = [common_length(content.tokens, beginning) for content in self.rows]
        row = max(range(len(lengths)), key=lambda index: (lengths[index], self.rows[index].used))
        return (row, lengths[row]) if lengths[row] >= self.least else (None, 0)

    def oldest(self, free: Sequence[int]) -> int:
        """Of some rows the one that was used longest ago."""
        return min(free, key=lambda row: self.rows[row].used)

    def count(self, prompt: Sequence[int], reused: int) -> None:
        """Count a prompt, of which so many tokens were there."""
        self.prompts += 1
        self.hits += reused > 0
        self.prompt_tokens += len(prompt)
        self.reused_tokens += reused

    def counts(self) -> dict[str, int]:
        """Prompts so far and how many found a beginning, and their tokens and how many were there."""
        return {
            "prompts": self.prompts,
            "prefix_hits": self.hits,
            "prompt_tokens": self.prompt_tokens,
            "reused_tokens": self.reused_tokens,
        }


def _sample(weights: Sequence[keras.Variable]) -> Any:
    """A number of each weight: training and loading move it, and reading all takes a token's time."""
    return ops.stack([ops.cast(ops.reshape(one, (-1,))[math.prod(one.shape) // 2], "float32") for one in weights])


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens that two sequences share at their start."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
