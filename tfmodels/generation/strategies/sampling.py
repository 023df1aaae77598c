"""Greedy decoding and multinomial sampling: one token a step, each row for itself."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from tfmodels.generation.sampling import choose_tokens


class Strategy(Protocol):
    """What `tfmodels.generation.step.Decoder` asks of a strategy, which is frozen and hashable."""

    def scores(self, logits: Any) -> Any:
        """Scores that the processors are given, from logits, both float32 (rows, vocab_size)."""

    def choose(self, scores: Any, *, seed: Any, step: Any) -> Any:
        """The next token of each row, int32 (rows,), from processed scores (rows, vocab_size)."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Take the best token, or draw one.

    Args:
        do_sample: draw from the distribution that the scores give.
    """

    do_sample: bool

    def scores(self, logits: Any) -> Any:
        return logits

    def choose(self, scores: Any, *, seed: Any, step: Any) -> Any:
        return choose_tokens(scores, do_sample=self.do_sample, seed=seed, step=step)
