"""The engine's requests and answers."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.structured import Grammar
from tfmodels.utils.text import quote

# Settings that rows of the engine have of their own; others that change the result are refused.
SUPPORTED = frozenset(
    {
        "max_length",
        "max_new_tokens",
        "do_sample",
        "seed",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "eos_token_id",
        "bos_token_id",
        "pad_token_id",
        "stop_strings",
        "max_time",
        "jit_compile",
        "use_cache",
    }
)


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to continue.

    Args:
        prompt: token ids.
        config: settings of this request, complete.
        id: what the answer is called.
        grammar: what the answer must look like, or None.
    """

    prompt: tuple[int, ...]
    config: GenerationConfig
    id: Any
    grammar: Grammar | None = None


@dataclasses.dataclass(frozen=True)
class Completion:
    """The answer to a request.

    Fields:
        id: of the request.
        prompt: token ids of the prompt.
        tokens: new token ids, the one that ended the text included.
        finish_reason: "stop" (an end-of-sequence token or a stop string), "length" (`max_new_tokens` or the engine's
            capacity), "time" (`max_time`), "cancelled", or "error" (the model's scores were NaN).
        reused: tokens of the prompt that were not run, because a row had them already.
    """

    id: Any
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    finish_reason: str
    reused: int = 0


@dataclasses.dataclass(frozen=True)
class Event:
    """News of a request.

    Fields:
        id: of the request.
        tokens: token ids since the last event.
        completion: the whole answer where this is the last event, else None.
    """

    id: Any
    tokens: tuple[int, ...]
    completion: Completion | None = None


def check_supported(config: GenerationConfig) -> None:
    """Raise ValueError for a setting that changes the result and that the engine does not have."""
    neutral = GenerationConfig()
    for name in config.to_dict():
        value = getattr(config, name)
        if hasattr(type(config), name) and name not in SUPPORTED and value != getattr(neutral, name):
            raise ValueError(
                f"{name}={quote(value)} is not a setting of the engine's rows: use model.generate for it."
            )
