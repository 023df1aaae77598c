"""The inputs and the results of decoding strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Drawing(NamedTuple):
    """The settings by which tokens are drawn, as inputs of a program that can do both: draw, and take the best token.

    Fields:
        do_sample: bool scalar.
        processors: numbers of the processors of sampling (`logits_processors.WARPERS`).
    """

    do_sample: Any
    processors: Any


class SamplingInputs(NamedTuple):
    """Values that steer decoding without being compiled in.

    Fields:
        eos: int32 (n,), ids that end a row; -1 among them ends rows whose scores are no numbers.
        pad: int32 scalar, what rows hold after their end.
        seed: int32 scalar.
        processors: numbers and tokens of the score processors (`logits_processors.Inputs`).
        limit: int32 scalar, tokens to generate at most; None where the strategy need not know.
        drawing: for `Sampling(do_sample=None)`, else None.
        stop: a function of the user's, from ids (rows, length) to bool (rows,), where Python can look at values.
    """

    eos: Any
    pad: Any
    seed: Any
    processors: Any
    limit: Any = None
    drawing: Drawing | None = None
    stop: Callable[[Any], Any] | None = None


class Tokens(NamedTuple):
    """The tokens so far, as a strategy sees them.

    Fields:
        ids: int32 (rows, capacity).
        start: int32 scalar, columns before it hold no tokens.
        end: int32 scalar, column of the next token.
        step: int32 scalar, tokens generated so far.
        finished: bool (rows,).
    """

    ids: Any
    start: Any
    end: Any
    step: Any
    finished: Any


class Chosen(NamedTuple):
    """The tokens that a strategy has chosen.

    Fields:
        tokens: int32 (rows,), the next token of each row.
        finished: bool (rows,), rows that have ended with it.
        carry: the strategy's own state.
        parents: int32 (rows,), the row that each row continues; None where each continues itself.
    """

    tokens: Any
    finished: Any
    carry: Any = None
    parents: Any = None


class Strategy(Protocol):
    """A rule that chooses tokens: frozen and hashable, part of the key of the compiled programs.

    Fields:
        rows: rows of the model's batch for each prompt.
        ends_candidates: whether sequences end before they are chosen, so that what stops them must be asked then.
    """

    rows: int
    ends_candidates: bool

    def start(self, rows: int, capacity: int, room: int) -> Any:
        """The strategy's state before the first token, for so many rows, buffer columns and new tokens."""

    def scores(self, logits: Any) -> Any:
        """Scores that the processors are given, from logits, both float32 (rows, vocab_size)."""

    def choose(self, scores: Any, tokens: Tokens, carry: Any, inputs: SamplingInputs) -> Chosen:
        """Choose the next tokens from processed scores, float32 (rows, vocab_size)."""
