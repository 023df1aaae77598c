"""Settings of the engine's rows as inputs of its programs, of which there are three kinds."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmodels.generation import logits_processors as proc
from tfmodels.generation.request import Request
from tfmodels.runtime.buckets import power_of_two
from tfmodels.runtime.device import host_tensor

_FEWEST_ENDS = 4


class Kind(enum.Enum):
    """The abilities of the programs of a set of rows; each kind has those of the kinds before.

    `GREEDY` takes the best token, `SAMPLING` draws one, `EVERYTHING` has all score processors and log-probabilities.
    """

    GREEDY = 1
    SAMPLING = 2
    EVERYTHING = 3

    @property
    def processors(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Score processors with neutral numbers: those of every row, and those of rows that sample."""
        if self is Kind.EVERYTHING:
            return proc.RULES, (*proc.WARPERS, *proc.CUTOFFS)
        return (), proc.WARPERS if self is Kind.SAMPLING else ()


class Limits(NamedTuple):
    """The next tokens that the grammars of rows allow.

    Fields:
        forced: int32 (rows, steps), the tokens that come first, whatever the model says; -1 behind them.
        words: int32 (rows, ceil(vocab_size / 32)), a bit for each token that may come then, the lowest first.
    """

    forced: Any
    words: Any

    @classmethod
    def of(cls, packed: Any, steps: int) -> Limits:
        """The limits of `limits_of`, for so many steps."""
        return cls(packed[:, :steps], packed[:, steps:])

    def allowed(self, vocab_size: int) -> Any:
        """Which tokens may come behind the forced ones, bool (rows, vocab_size)."""
        bits = ops.right_shift(ops.expand_dims(self.words, 2), ops.arange(32, dtype="int32"))
        flat = ops.reshape(ops.bitwise_and(bits, 1), (self.words.shape[0], -1))
        return ops.cast(flat[:, :vocab_size], "bool")


class RowSettings(NamedTuple):
    """Settings of every row.

    Fields:
        do_sample: bool (rows,).
        seeds: int32 (rows,).
        eos: int32 (rows, n), -1 where there is none.
        processors: inputs of the kind's processors, each with an axis of rows.
        bias: float32 (rows, vocab_size), added to the model's scores; None for the kinds that have none.
    """

    do_sample: Any
    seeds: Any
    eos: Any
    processors: Any
    bias: Any = None


def kind_of(request: Request) -> Kind:
    """The simplest kind of programs that serves a request."""
    simple = {type(processor) for processor in proc.WARPERS} | {proc.Renormalize}  # which changes no choice
    if request.logprobs is not None or any(type(processor) not in simple for processor in request.processors):
        return Kind.EVERYTHING
    return Kind.SAMPLING if request.config.do_sample else Kind.GREEDY


def limits_of(found: Sequence[tuple[Sequence[int], np.ndarray] | None], steps: int, vocab_size: int) -> Any:
    """Limits of rows, from what `Matcher.upcoming` tells of each; None stands for a row without a grammar.

    Returns:
        int32 (rows, steps + words), the fields of `Limits` side by side: one array is handed over sooner than two.
    """
    packed = np.full((len(found), steps + -(-vocab_size // 32)), -1, "int32")
    for row, one in enumerate(found):
        if one is not None:
            packed[row, : len(one[0])], packed[row, steps:] = one
    return host_tensor(packed)


def row_settings(requests: Sequence[Request | None], seeds: Sequence[int], kind: Kind, vocab_size: int) -> RowSettings:
    """The settings of rows, by their requests; None stands for a row that rests."""
    ends = [() if request is None else request.config.eos_token_ids for request in requests]
    # A few more columns change nothing, and lists of similar lengths share programs.
    eos = np.full((len(requests), power_of_two(max(_FEWEST_ENDS, *(len(ids) + 1 for ids in ends)))), -1, "int32")
    for row, ids in zip(eos, ends, strict=True):
        row[: len(ids)] = ids
    rows = [() if request is None else request.processors for request in requests]
    rules, warpers = kind.processors
    bias = None
    if kind is Kind.EVERYTHING:
        bias = host_tensor(np.stack([proc.bias_of(row, vocab_size) for row in rows]))
    do_sample = [request is not None and request.config.do_sample for request in requests]
    return RowSettings(
        do_sample=host_tensor(np.asarray(do_sample)),
        seeds=host_tensor(np.asarray(seeds, "int32")),
        eos=host_tensor(eos),
        processors=keras.tree.map_structure(host_tensor, proc.stack(rows, (*rules, *warpers))),
        bias=bias,
    )
