"""Score processors of rows that differ in their settings: one list of them serves every row.

A row that does not use a processor gets its neutral numbers, so the list, and with it the program, is always the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfmodels.generation.logits_processors.context import Processor
from tfmodels.generation.logits_processors.inputs import Inputs
from tfmodels.generation.logits_processors.rules import (
    ANY,
    BadWords,
    BeginSuppressTokens,
    CountPenalty,
    ExponentialDecay,
    ForcedBOS,
    ForcedEOS,
    Group,
    MinLength,
    MinNewTokens,
    NoRepeatNGram,
    RemoveInvalid,
    RepetitionPenalty,
    SequenceBias,
    SuppressTokens,
)
from tfmodels.generation.logits_processors.warpers import (
    EpsilonCutoff,
    EtaCutoff,
    MinP,
    Renormalize,
    Temperature,
    TopK,
    TopP,
    TypicalP,
)
from tfmodels.runtime.buckets import power_of_two

_ALL = 2**31 - 1
_FEWEST_SEQUENCES, _SHORTEST_PREFIX, _FEWEST_TOKENS = 8, 4, 8

WARPERS: tuple[Processor, ...] = (Temperature(1.0), TopK(_ALL), TopP(1.0), MinP(0.0))
"""The processors of rows that sample and ask for nothing unusual, with neutral numbers."""

RULES: tuple[Processor, ...] = (
    SequenceBias(()),
    RepetitionPenalty(1.0),
    CountPenalty(0.0, 0.0),
    NoRepeatNGram(0),
    MinNewTokens(0, ()),
    MinLength(0, ()),
    ForcedBOS(-1),
    ForcedEOS((), 0),
    RemoveInvalid(0.0),
    ExponentialDecay(0, 1.0, ()),
    BeginSuppressTokens((), 0),
)
"""The processors that come before those of sampling, with neutral numbers."""

CUTOFFS: tuple[Processor, ...] = (TypicalP(1.0), EpsilonCutoff(0.0), EtaCutoff(0.0))
"""The processors that come after `WARPERS`, with neutral numbers."""


def parted(processors: Iterable[Processor]) -> tuple[tuple[Processor, ...], tuple[Processor, ...]] | None:
    """Separate processors into those that come first and those of `WARPERS`; None where others follow these.

    Example:
        >>> parted([SuppressTokens((1,)), Temperature(0.7)])
        ((SuppressTokens(token_ids=(1,)),), (Temperature(temperature=0.7),))
    """
    rules: list[Processor] = []
    warpers: list[Processor] = []
    kinds = tuple(type(processor) for processor in WARPERS)
    for processor in processors:
        if isinstance(processor, kinds):
            warpers.append(processor)
        elif warpers or isinstance(processor, (TypicalP, EpsilonCutoff, EtaCutoff, Renormalize)):
            return None
        else:
            rules.append(processor)
    return tuple(rules), tuple(warpers)


def bias_of(processors: Iterable[Processor], vocab_size: int) -> np.ndarray:
    """The numbers that processors add to single tokens' scores whatever came before, float32 (vocab_size,).

    Example:
        >>> bias_of([SuppressTokens((1,)), SequenceBias((((2,), 0.5), ((2, 0), 1.0)))], 4)
        array([ 0. , -inf,  0.5,  0. ], dtype=float32)
    """
    bias = np.zeros(vocab_size, "float32")
    for tokens, value in _sequences(processors):
        if len(tokens) == 1:
            bias[tokens] += value
    for processor in processors:
        if isinstance(processor, SuppressTokens):
            bias[[token for token in processor.token_ids if token < vocab_size]] = -np.inf
    return bias


def _sequences(processors: Iterable[Processor]) -> Iterable[tuple[tuple[int, ...], float]]:
    for processor in processors:
        if isinstance(processor, SequenceBias):
            yield from processor.sequences
        elif isinstance(processor, BadWords):
            yield from ((word, -np.inf) for word in processor.words)


def stack(rows: Sequence[Sequence[Processor]], template: Sequence[Processor]) -> Inputs:
    """The inputs of a list of processors that serves every row.

    Args:
        rows: the processors of each row, as `build` makes them; what `bias_of` gives is left out.
        template: processors with neutral numbers, to which the inputs can be bound.

    Returns:
        The inputs: numbers (m, rows, 1), and lists of tokens with a first axis of rows.

    Example:
        >>> stack([[Temperature(0.7)], [MinP(0.1)]], (Temperature(1.0), MinP(0.0))).numbers[..., 0].tolist()
        [[0.7, 1.0], [0.0, 0.1]]
    """
    own = [{type(processor): processor for processor in row} for row in rows]
    lists = [_tokens(processor, field) for row in rows for processor, field in _fields(row, "Tokens")]
    width = power_of_two(max([_FEWEST_TOKENS, *map(len, lists)]))
    numbers, tokens = [], []
    for neutral in template:
        of_rows = [row.get(type(neutral), neutral) for row in own]
        for field in dataclasses.fields(neutral):
            values = [getattr(processor, field.name) for processor in of_rows]
            if field.type == "Number":
                numbers.append([[float(value)] for value in values])
            elif field.type == "Tokens":
                filled = np.full((len(rows), width), -1, "int32")
                for row, value in zip(filled, values, strict=True):
                    row[: len(value)] = value
                tokens.append(filled)
            elif field.type == "Sequences":
                tokens.append((_group(rows),))
    return Inputs(np.asarray(numbers, "float64").reshape(-1, len(rows), 1), tuple(tokens))


def _fields(processors: Iterable[Processor], kind: str) -> Iterable[tuple[Processor, str]]:
    for processor in processors:
        for field in dataclasses.fields(processor):
            if field.type == kind and not isinstance(processor, SuppressTokens):
                yield processor, field.name


def _tokens(processor: Any, field: str) -> Sequence[int]:
    return getattr(processor, field)


def _group(rows: Sequence[Sequence[Processor]]) -> Group:
    """The sequences of all rows that have more than one token, filled up on the left to one length."""
    found = [[pair for pair in _sequences(row) if len(pair[0]) > 1] for row in rows]
    count = power_of_two(max([_FEWEST_SEQUENCES, *map(len, found)]))
    length = power_of_two(max([_SHORTEST_PREFIX, *(len(tokens) - 1 for row in found for tokens, _ in row)]))
    group = Group(
        prefixes=np.full((len(rows), count, length), ANY, "int32"),
        completing=np.full((len(rows), count), -1, "int32"),
        biases=np.zeros((len(rows), count), "float32"),
    )
    for index, pairs in enumerate(found):
        for place, (tokens, bias) in enumerate(pairs):
            group.prefixes[index, place, length - len(tokens) + 1 :] = tokens[:-1]
            group.completing[index, place], group.biases[index, place] = tokens[-1], bias
    return group
