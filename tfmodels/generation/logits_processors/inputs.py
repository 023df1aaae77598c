"""The list of score processors that a `GenerationConfig` asks for, and the inputs of their compiled form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmodels.generation.config import GenerationConfig, as_tuple
from tfmodels.generation.logits_processors.context import Processor
from tfmodels.generation.logits_processors.rules import (
    BadWords,
    BeginSuppressTokens,
    Callback,
    CountPenalty,
    ExponentialDecay,
    ForcedBOS,
    ForcedEOS,
    MinLength,
    MinNewTokens,
    NoPromptNGram,
    NoRepeatNGram,
    PromptPenalty,
    RemoveInvalid,
    RepetitionPenalty,
    SequenceBias,
    SuppressTokens,
    grouped,
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


def build(
    config: GenerationConfig,
    *,
    vocab_size: int,
    max_new_tokens: int,
    eos_token_ids: Sequence[int] = (),
    callbacks: Sequence[Callable] = (),
    constraint: Callable | None = None,
    unseen: int = 0,
) -> tuple[Processor, ...]:
    """Make the processors a configuration asks for, in transformers' order.

    Args:
        config: the settings.
        vocab_size: number of scores; token ids that must exist are checked against it.
        max_new_tokens: number of tokens this call generates at most, as `config.new_tokens` gives it.
        eos_token_ids: end-of-sequence token ids, empty for none.
        callbacks: the user's functions `(input_ids, scores) -> scores`; they come before those of sampling.
        constraint: a function of the user's that only bans tokens; what is forced goes before it.
        unseen: columns of the prompt that hold no tokens, being embeddings.

    Returns:
        The processors.

    Raises:
        ValueError: for a token id outside the vocabulary, or a setting that needs an end-of-sequence token.

    Example:
        >>> config = GenerationConfig(do_sample=True, temperature=0.8, suppress_tokens=[3])
        >>> build(config, vocab_size=8, max_new_tokens=20)
        (SuppressTokens(token_ids=(3,)), Temperature(temperature=0.8), TopK(top_k=50, min_tokens_to_keep=1))
    """
    eos = tuple(eos_token_ids)
    found: list[Processor] = []
    if biases := _biases(config, vocab_size):
        found.append(SequenceBias(tuple(biases.items())))
    if config.encoder_repetition_penalty != 1.0:
        found.append(PromptPenalty(1 / config.encoder_repetition_penalty))
    if config.repetition_penalty != 1.0:
        found.append(RepetitionPenalty(config.repetition_penalty))
    if config.presence_penalty or config.frequency_penalty:
        found.append(CountPenalty(config.presence_penalty, config.frequency_penalty))
    if config.no_repeat_ngram_size:
        found.append(NoRepeatNGram(config.no_repeat_ngram_size))
    if config.encoder_no_repeat_ngram_size:
        found.append(NoPromptNGram(config.encoder_no_repeat_ngram_size))
    if config.bad_words_ids:
        # A word that is an end-of-sequence token alone would keep generation from ending.
        words = dict.fromkeys(tuple(word) for word in config.bad_words_ids)
        words = tuple(word for word in words if len(word) > 1 or word[0] not in eos)
        _check_tokens("bad_words_ids", (token for word in words for token in word), vocab_size)
        if words:
            found.append(BadWords(words))
    if config.min_new_tokens is not None:
        if config.min_new_tokens and eos:
            found.append(MinNewTokens(config.min_new_tokens, eos))
    elif config.min_length > unseen and eos:
        found.append(MinLength(config.min_length - unseen, eos))
    if constraint is not None:
        found.append(Callback(constraint))
    if config.forced_bos_token_id is not None:
        _check_tokens("forced_bos_token_id", (config.forced_bos_token_id,), vocab_size)
        found.append(ForcedBOS(config.forced_bos_token_id))
    if config.forced_eos_token_id is not None:
        forced = as_tuple(config.forced_eos_token_id)
        _check_tokens("forced_eos_token_id", forced, vocab_size)
        found.append(ForcedEOS(forced, max_new_tokens))
    if config.remove_invalid_values:
        found.append(RemoveInvalid())
    if config.exponential_decay_length_penalty:
        if not eos:
            raise ValueError("exponential_decay_length_penalty needs an eos_token_id, and there is none")
        found.append(ExponentialDecay(*config.exponential_decay_length_penalty, eos))
    if config.suppress_tokens:
        found.append(SuppressTokens(tuple(config.suppress_tokens)))
    if config.begin_suppress_tokens:
        forced_bos = config.forced_bos_token_id is not None
        found.append(BeginSuppressTokens(tuple(config.begin_suppress_tokens), forced_bos))
    found += [Callback(function) for function in callbacks]
    if config.do_sample:
        # A beam needs a continuation that goes on besides those that end.
        keep = 1 if config.num_beams == 1 else max(len(eos), 1) + 1
        if config.temperature != 1.0:
            found.append(Temperature(config.temperature))
        if config.top_k:
            found.append(TopK(config.top_k, keep))
        if config.top_p < 1.0:
            found.append(TopP(config.top_p, keep))
        if config.min_p is not None:
            found.append(MinP(config.min_p, keep))
        if config.typical_p < 1.0:
            found.append(TypicalP(config.typical_p, keep))
        if config.epsilon_cutoff:
            found.append(EpsilonCutoff(config.epsilon_cutoff, keep))
        if config.eta_cutoff:
            found.append(EtaCutoff(config.eta_cutoff, keep))
    if config.renormalize_logits:
        found.append(Renormalize())
    return tuple(found)


def _biases(config: GenerationConfig, vocab_size: int) -> dict[tuple[int, ...], float]:
    """The numbers that `sequence_bias` and `logit_bias` add to scores, by sequence."""
    bias = config.sequence_bias or ()
    biases = {tuple(tokens): float(value) for tokens, value in (bias.items() if isinstance(bias, dict) else bias)}
    _check_tokens("sequence_bias", (token for tokens in biases for token in tokens), vocab_size)
    _check_tokens("logit_bias", config.logit_bias or (), vocab_size)
    for token, value in (config.logit_bias or {}).items():
        biases[token,] = biases.get((token,), 0.0) + value
    return biases


class Inputs(NamedTuple):
    """The inputs of processors beside the scores; inputs of the compiled programs, too.

    Fields:
        numbers: float64 (m,), or (m, batch, 1) where rows have numbers of their own: temperatures, penalties, lengths.
            float32 would round `1 - top_p` differently from transformers.
        tokens: nested arrays: token ids, and sequences of them with their biases.
    """

    numbers: Any
    tokens: tuple[Any, ...] = ()


def split(processors: Sequence[Processor]) -> tuple[tuple, Inputs]:
    """Separate what shapes the compiled program from what are its inputs.

    Args:
        processors: processors of this package.

    Returns:
        A hashable key (types and static fields), and the inputs in order, as NumPy arrays.

    Example:
        >>> split((Temperature(0.7), TopK(50)))[1].numbers.tolist()
        [0.7, 50.0]
        >>> split((Temperature(0.7), SuppressTokens((5,))))[0] == split((Temperature(0.8), SuppressTokens((9,))))[0]
        True
    """
    key, numbers, tokens = [], [], []
    for processor in processors:
        static = []
        for field in dataclasses.fields(processor):
            value = getattr(processor, field.name)
            if field.type == "Number":
                numbers.append(float(value))
            elif field.type == "Tokens":
                # Filled up, so that lists of similar lengths share programs.
                tokens.append(np.asarray([*value, *[-1] * (power_of_two(len(value)) - len(value))], "int32"))
            elif field.type == "Sequences":
                tokens.append(grouped(value))
            else:
                static.append(value)
        key.append((type(processor), *static))
    return tuple(key), Inputs(np.asarray(numbers, "float64"), tuple(tokens))


def bind(processors: Sequence[Processor], inputs: Inputs) -> tuple[Processor, ...]:
    """Put tensors in the place of the inputs, inside a trace.

    Args:
        processors: processors with the key of the trace.
        inputs: tensors in the order of `split`.

    Returns:
        The processors to call in the trace.

    Example:
        >>> bind((Temperature(0.7), Renormalize()), Inputs([0.5]))
        (Temperature(temperature=0.5), Renormalize())
    """
    bound, number, token = [], 0, 0
    for processor in processors:
        values = {}
        for field in dataclasses.fields(processor):
            if field.type == "Number":
                values[field.name] = inputs.numbers[number]
                number += 1
            elif field.type in ("Tokens", "Sequences"):
                values[field.name] = inputs.tokens[token]
                token += 1
        bound.append(dataclasses.replace(processor, **values))
    return tuple(bound)


def _check_tokens(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    outside = sorted({token for token in token_ids if token >= vocab_size})
    if outside:
        raise ValueError(f"{name} has token ids {outside}: they should be below the vocabulary size, {vocab_size}")
