"""The engine's requests and answers."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.logits_processors import Processor
from tfmodels.generation.settings import OUTPUT_OBJECT, SETTINGS
from tfmodels.generation.structured import Grammar
from tfmodels.utils.text import quote

MOST_LOGPROBS = 20
"""Tokens at most whose log-probabilities a request may ask for."""

# Settings that change how `generate` searches, or what it returns: a row cannot have them of its own.
_REFUSED = {
    "num_beams": "use model.generate for it",
    "num_return_sequences": "add the prompt several times; what it has in common is computed once",
    "encoder_no_repeat_ngram_size": "use model.generate for it",
    "encoder_repetition_penalty": "use model.generate for it",
    "guidance_scale": "use model.generate for it",
    "prompt_lookup_num_tokens": "use model.generate for it",
    "num_assistant_tokens": "use model.generate for it",
    "assistant_confidence_threshold": "use model.generate for it",
    "penalty_alpha": "use model.generate for it",
    "prefill_chunk_size": "give prefill_chunk to the engine",
    "use_cache": "rows always keep a cache",
    "return_dict_in_generate": "ask for logprobs, or use model.generate",
    "output_scores": "ask for logprobs, or use model.generate",
    "output_logits": "ask for logprobs, or use model.generate",
    "output_attentions": "use model.generate for it",
    "output_hidden_states": "use model.generate for it",
}
# Those of them that leave the tokens as they are: a model's file may hold them.
_NEUTRAL_IN_FILES = frozenset(
    {"use_cache", "prefill_chunk_size", "return_dict_in_generate"}
    | {name for name, one in SETTINGS.items() if one.only is OUTPUT_OBJECT}
)


class EngineFull(RuntimeError):
    """The queue holds as many requests as may wait: try again later."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to continue.

    Args:
        prompt: token ids.
        config: settings of this request, complete.
        id: what the answer is called.
        grammar: what the answer must look like, or None.
        processors: the score processors that the settings ask for.
        logprobs: how many of the most probable tokens are told with each new token, or None.
        skip_special_tokens: leave special tokens out of the text.
    """

    prompt: tuple[int, ...]
    config: GenerationConfig
    id: Any
    grammar: Grammar | None = None
    processors: tuple[Processor, ...] = ()
    logprobs: int | None = None
    skip_special_tokens: bool = True


@dataclasses.dataclass(frozen=True)
class TokenLogprobs:
    """Log-probabilities at one new token, of the model's own distribution: before penalties, biases and temperature.

    Fields:
        token: the new token's id.
        logprob: its natural logarithm of the probability.
        top: pairs (token id, log-probability) of the most probable tokens, the best first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Completion:
    """The answer to a request.

    Fields:
        id: of the request.
        prompt: token ids of the prompt.
        tokens: new token ids, the one that ended the text included.
        finish_reason: "stop" (an end-of-sequence token or a stop string), "length" (`max_new_tokens` or the engine's
            capacity), "time" (`max_time`), "cancelled", or "error".
        reused: tokens of the prompt that were not run, because a row had them already.
        text: the new tokens as text, which ends before a stop string; None where the engine has no tokenizer.
        logprobs: one `TokenLogprobs` for each new token where the request asks for them, else None.
        error: what went wrong where `finish_reason` is "error", else None.
    """

    id: Any
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    finish_reason: str
    reused: int = 0
    text: str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Event:
    """News of a request.

    Fields:
        id: of the request.
        tokens: token ids since the last event.
        completion: the whole answer where this is the last event, else None.
        text: text since the last event, of whole characters and without what may become a stop string, so the pieces
            of all events joined are the completion's text; None where the engine has no tokenizer.
        logprobs: of `tokens`, as in `Completion`.
    """

    id: Any
    tokens: tuple[int, ...]
    completion: Completion | None = None
    text: str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None


def of_rows(config: GenerationConfig) -> tuple[GenerationConfig, tuple[str, ...]]:
    """A model's settings without those that rows cannot have, and the names of these."""
    names = tuple(name for name in _REFUSED if _is_refused(name, config))
    return config.update(**dict.fromkeys(names)) if names else config, names


def _is_refused(name: str, config: GenerationConfig) -> bool:
    if name == "penalty_alpha" and not config.is_contrastive:
        return False
    passes = name in _NEUTRAL_IN_FILES and config.is_from_file(name)
    return not passes and getattr(config, name) not in SETTINGS[name].neutral


def check_supported(config: GenerationConfig, jit_compile: bool, keeps_int8: bool, defaults: GenerationConfig) -> None:
    """Raise ValueError for a setting that the engine's rows cannot have of their own.

    Args:
        config: settings of a request, complete.
        jit_compile: whether the engine's programs are compiled by XLA.
        keeps_int8: whether the engine keeps keys and values in eight bits.
        defaults: settings of the model, which an engine may be told otherwise.
    """
    for name, way in _REFUSED.items():
        if _is_refused(name, config):
            value = getattr(config, name)
            raise ValueError(f"{name}={quote(value)} is not a setting of the engine's rows: {way}.")
    for name, value in (("jit_compile", jit_compile), ("disable_compile", not jit_compile)):
        if config.is_given(name) and getattr(config, name) != value and config.compiles != jit_compile:
            raise ValueError(
                f"{name}={getattr(config, name)} is not a setting of one request: give jit_compile to the engine, "
                f"which has {jit_compile}."
            )
    asked = config.cache_implementation != defaults.cache_implementation
    if asked and config.quantizes_cache != keeps_int8:
        raise ValueError(
            f"cache_implementation={quote(config.cache_implementation)} is not a setting of one request: give it to "
            f"the engine, which keeps {'integers of 8 bits' if keeps_int8 else 'floats'}."
        )
