"""Score processors that follow from the tokens so far, from the length, or from lists of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from tfmodels.generation.logits_processors.arithmetic import (
    Number,
    Tensor,
    Tokens,
    among,
    ban,
    cast,
    force,
    occurring,
    scatter,
)
from tfmodels.generation.logits_processors.context import Context, last_tokens
from tfmodels.runtime.buckets import power_of_two

# What the tokens so far say


@dataclass(frozen=True)
class RepetitionPenalty:
    """Divide positive scores of tokens that have occurred by `penalty`, multiply negative ones.

    The padding before the first attended token of a prompt does not count as occurring. See "CTRL: A Conditional
    Transformer Language Model for Controllable Generation", https://arxiv.org/abs/1909.05858.
    """

    penalty: Number

    def end(self, context: Context) -> Tensor:
        """The column after the last token that counts."""
        return context.end

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        columns = ops.arange(context.ids.shape[1], dtype="int32")
        counts = columns < self.end(context)
        if context.attended is not None:
            in_prompt = ops.logical_and(columns >= context.start, columns < context.prompt_end)
            attended = ops.cast(ops.logical_and(context.attended, in_prompt), "int32")
            # A row without attended tokens gives column 0: all its tokens count.
            first = ops.argmax(attended, axis=-1, keepdims=True)
            counts = ops.logical_and(counts, columns >= ops.maximum(first, context.start))
        occurred = occurring(context.ids, counts, scores.shape[-1])
        penalty = cast(self.penalty, scores.dtype)
        return ops.where(occurred, ops.where(scores < 0, scores * penalty, scores / penalty), scores)


@dataclass(frozen=True)
class PromptPenalty(RepetitionPenalty):
    """Do so with the tokens of the prompt; a penalty below 1 makes them more likely."""

    def end(self, context: Context) -> Tensor:
        return context.prompt_end


@dataclass(frozen=True)
class CountPenalty:
    """Lower the scores of generated tokens: by `presence`, and by `frequency` for each time they were generated.

    Tokens of the prompt do not count. Negative numbers raise the scores. See "Frequency and presence penalties" of
    OpenAI's API, https://platform.openai.com/docs/advanced-usage.
    """

    presence: Number
    frequency: Number

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        columns = ops.arange(context.ids.shape[1], dtype="int32")
        is_new = ops.logical_and(columns >= context.prompt_end, columns < context.end)
        is_new = ops.cast(ops.broadcast_to(is_new, context.ids.shape), scores.dtype)
        counts = scatter(context.ids, is_new, scores.shape[-1])
        presence, frequency = cast(self.presence, scores.dtype), cast(self.frequency, scores.dtype)
        return scores - ops.where(counts > 0, presence, 0.0) - frequency * counts


@dataclass(frozen=True)
class NoRepeatNGram:
    """Ban the tokens that would complete an n-gram that has occurred; a size of 0 bans none."""

    ngram_size: Number

    def end(self, context: Context) -> Tensor:
        """The column after the last token that counts."""
        return context.end

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        batch, columns = context.ids.shape
        size = cast(self.ngram_size, "int32")
        # Column c ends an n-gram that counts when the tokens before it equal the last tokens.
        column = ops.arange(columns, dtype="int32")
        matches = ops.logical_and(column >= context.start + size - 1, column < self.end(context))
        matches = ops.broadcast_to(ops.logical_and(matches, size > 0), (batch, columns))
        padded = ops.pad(context.ids, ((0, 0), (columns, 0)), constant_values=-1)

        def compared(distance: Tensor, matches: Tensor) -> tuple[Tensor, Tensor]:
            """Compare the tokens that stand `distance` before each column with the one that does so before the end."""
            last = last_tokens(context._replace(end=context.end - distance + 1), 1)
            earlier = ops.slice(padded, (0, columns - distance), (batch, columns))
            equal = ops.logical_or(earlier == last, distance >= size)
            return distance + 1, ops.logical_and(matches, equal)

        longest = ops.minimum(ops.max(size), columns)
        start = (ops.convert_to_tensor(1, "int32"), matches)
        _, matches = ops.while_loop(lambda distance, matches: distance < longest, compared, start)
        return ban(scores, occurring(context.ids, matches, scores.shape[-1]))


@dataclass(frozen=True)
class NoPromptNGram(NoRepeatNGram):
    """Ban the tokens that would complete an n-gram of the prompt."""

    def end(self, context: Context) -> Tensor:
        return context.prompt_end


ANY = -3
"""In a prefix: any token matches, or none."""


class Group(NamedTuple):
    """Sequences of one length, as inputs of a compiled program; with a first axis more, each row's own.

    Fields:
        prefixes: int32 (n, length - 1), all tokens but the last; -2, which no token is, fills rows up.
        completing: int32 (n,), the last tokens; -1 fills up.
        biases: float32 (n,), what is added to the scores of the last tokens.
    """

    prefixes: Tensor
    completing: Tensor
    biases: Tensor


Sequences = Any
"""Annotation of token sequences, with biases or without, that are inputs; in a trace a tuple of `Group`."""


def grouped(sequences: Sequences) -> tuple[Group, ...]:
    """Sort sequences into groups of one length, each filled up to a power of two.

    Args:
        sequences: pairs (token ids, bias); token ids alone, to be banned; or groups, which stay what they are.
    """
    if all(isinstance(sequence, Group) for sequence in sequences):
        return sequences
    by_length: dict[int, list[tuple[tuple[int, ...], float]]] = {}
    for sequence in sequences:
        tokens, bias = sequence if isinstance(sequence[0], tuple) else (sequence, -np.inf)
        by_length.setdefault(len(tokens), []).append((tokens, bias))
    groups = []
    for length, pairs in sorted(by_length.items()):
        size = power_of_two(len(pairs))
        group = Group(np.full((size, length - 1), -2, "int32"), np.full(size, -1, "int32"), np.zeros(size, "float32"))
        for index, (tokens, bias) in enumerate(pairs):
            group.prefixes[index], group.completing[index], group.biases[index] = tokens[:-1], tokens[-1], bias
        groups.append(group)
    return tuple(groups)


@dataclass(frozen=True)
class SequenceBias:
    """Add a bias to the score of the last token of each given sequence where the tokens before it have just occurred.

    Args:
        sequences: pairs (token ids, bias), each sequence once.
    """

    sequences: Sequences

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        total = ops.zeros_like(scores)
        # Sequences of one length are compared with the last tokens all at once, so thousands of them stay cheap.
        for prefixes, completing, biases in grouped(self.sequences):
            prefix_length = prefixes.shape[-1]
            if prefix_length >= context.ids.shape[1] and not context.is_per_row:
                continue
            matches = context.is_per_row or context.length >= prefix_length
            if prefix_length:
                equal = last_tokens(context, prefix_length)[:, None] == prefixes
                equal = ops.logical_or(equal, prefixes == ANY)
                matches = ops.logical_and(ops.all(equal, axis=-1), matches)
            shape = (ops.shape(scores)[0], completing.shape[-1])
            values = ops.where(ops.broadcast_to(matches, shape), biases, 0.0)
            total = total + scatter(ops.broadcast_to(completing, shape), values, scores.shape[-1])
        return scores + total


@dataclass(frozen=True)
class BadWords:
    """Ban the last token of each given sequence where the tokens before it have just occurred.

    Args:
        words: sequences of token ids.
    """

    words: Sequences

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        return SequenceBias(grouped(self.words))(context, scores)


# Lengths and single tokens


@dataclass(frozen=True)
class MinLength:
    """Ban the end-of-sequence tokens while there are fewer than `min_length` tokens, prompt included."""

    min_length: Number
    eos_token_ids: Tokens

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        early = context.length < cast(self.min_length, "int32")
        return ban(scores, ops.logical_and(early, among(self.eos_token_ids, scores)))


@dataclass(frozen=True)
class MinNewTokens:
    """Ban the end-of-sequence tokens while fewer than `min_new_tokens` tokens are generated."""

    min_new_tokens: Number
    eos_token_ids: Tokens

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        early = context.new_tokens < cast(self.min_new_tokens, "int32")
        return ban(scores, ops.logical_and(early, among(self.eos_token_ids, scores)))


@dataclass(frozen=True)
class ForcedBOS:
    """Force a token after the first one; -1 forces none."""

    token_id: Number

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        token = cast(self.token_id, "int32")
        chosen = ops.arange(scores.shape[-1], dtype="int32") == token
        return force(scores, chosen, ops.logical_and(context.length == 1, token >= 0))


@dataclass(frozen=True)
class ForcedEOS:
    """Force one of some tokens as the last of `max_new_tokens`: they get score 0 and all others are banned."""

    token_ids: Tokens
    max_new_tokens: Number

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        last = context.new_tokens + 1 == cast(self.max_new_tokens, "int32")
        return force(scores, among(self.token_ids, scores), last)


@dataclass(frozen=True)
class RemoveInvalid:
    """Replace NaN by 0 and infinities by the largest finite numbers, where `on` is not 0."""

    on: Number = 1.0

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        largest = float(np.finfo(np.float32).max)
        cleaned = ops.clip(ops.where(ops.isnan(scores), 0.0, scores), -largest, largest)
        return ops.where(cast(self.on, scores.dtype) > 0, cleaned, scores)


@dataclass(frozen=True)
class ExponentialDecay:
    """Raise the scores of the end-of-sequence tokens exponentially once more than `start` tokens are generated."""

    start: Number
    factor: Number
    eos_token_ids: Tokens

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        past = ops.maximum(context.new_tokens - cast(self.start, "int32"), 0)
        # factor ** 0 - 1 is 0: up to `start` nothing is added. float64, so that long outputs stay exact.
        growth = ops.power(cast(self.factor, "float64"), ops.cast(past, "float64")) - 1.0
        raised = ops.logical_and(among(self.eos_token_ids, scores), ops.isfinite(scores))
        return ops.where(raised, scores + ops.abs(scores) * ops.cast(growth, scores.dtype), scores)


@dataclass(frozen=True)
class SuppressTokens:
    """Ban some tokens."""

    token_ids: Tokens

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        return ban(scores, among(self.token_ids, scores))


@dataclass(frozen=True)
class BeginSuppressTokens:
    """Ban some tokens as the first generated one, or the second after a forced first one."""

    token_ids: Tokens
    bos_is_forced: Number = 0

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        of_one = ops.cast(context.prompt_end - context.start <= 1, "int32")
        first = of_one * cast(self.bos_is_forced, "int32")
        return ban(scores, ops.logical_and(context.new_tokens == first, among(self.token_ids, scores)))


@dataclass(frozen=True)
class Callback:
    """A function of the user's, `(input_ids so far, scores) -> scores`; it runs where Python can look at values."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        so_far = context.ids[: scores.shape[0], int(context.start) : int(context.end)]
        found = ops.convert_to_tensor(self.function(so_far, scores))
        if tuple(found.shape) != tuple(scores.shape):
            raise ValueError(
                f"a logits_processor returned shape {tuple(found.shape)}: {tuple(scores.shape)} was expected."
            )
        return ops.cast(found, "float32")
