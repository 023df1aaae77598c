"""The settings of a request that both completion endpoints have, and what they are for the engine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from tfmodels.serving import fields
from tfmodels.serving.errors import BadRequest
from tfmodels.utils.text import joined

MOST_CHOICES = 128
MOST_STOPS = 16
_LARGEST_SEED = 2**31 - 1

_SCHEMA = fields.inner(
    fields.Fields(
        {"name": fields.text, "schema": fields.schema},
        ignored={"description": fields.text, "strict": fields.flag},  # answers follow every schema strictly
    )
)
_FORMATS = {
    "text": {},
    "json_object": {},
    "json_schema": {"json_schema": _SCHEMA},
    "regex": {"regex": fields.text},
    "grammar": {"grammar": fields.text},
}


def check_format(value: Any, name: str) -> dict[str, Any]:
    """Check `response_format`: a type, and what belongs to it."""
    kind = fields.mapping(value, name).get("type")
    if not isinstance(kind, str) or kind not in _FORMATS:
        raise fields.wrong(name, value, f"an object whose type is one of {joined(_FORMATS)}")
    own = _FORMATS[kind]
    found = fields.inner(fields.Fields({"type": fields.text, **own}))(value, name)
    for key in own:
        if key not in found:
            raise fields.wrong(name, value, f'{{"type": "{kind}", "{key}": ...}}')
    return found


CHECKS: dict[str, fields.Check] = {
    "model": fields.text,
    "n": fields.integer(1, MOST_CHOICES),
    "stop": fields.texts(MOST_STOPS),
    "seed": fields.integer(-(2**63), 2**64 - 1),
    "temperature": fields.number(0, 2),
    "top_p": fields.number(0, 1),
    "top_k": fields.integer(-1),
    "min_p": fields.number(0, 1),
    "presence_penalty": fields.number(-2, 2),
    "frequency_penalty": fields.number(-2, 2),
    "repetition_penalty": fields.number(0.01, 10),
    "logit_bias": fields.token_numbers(-100, 100),
    "response_format": check_format,
    "stream": fields.flag,
    "stream_options": fields.inner(
        fields.Fields(
            {"include_usage": fields.flag, "continuous_usage_stats": fields.flag},
            ignored={"include_obfuscation": fields.flag},
        ),
    ),
}
"""Fields of both endpoints."""

IGNORED: dict[str, fields.Check] = {
    "metadata": fields.notes,
    "prompt_cache_key": fields.text,
    "prompt_cache_retention": fields.text,
    "safety_identifier": fields.text,
    "service_tier": fields.text,
    "store": fields.flag,
    "user": fields.text,
}
"""Fields that clients send for their own accounts or for OpenAI's."""

_PASSED = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}


def check_stream(request: Mapping[str, Any]) -> None:
    """Raise BadRequest where options of a stream are given without one."""
    if "stream_options" in request and not request.get("stream"):
        raise BadRequest("stream_options is only allowed when stream is true.", "stream_options")


def new_tokens(wanted: int | None, name: str, prompt: int, capacity: int, default: int | None = None) -> int:
    """Largest number of tokens of an answer.

    Args:
        wanted: what the request asks for, or None.
        name: the field that asks.
        prompt: tokens of the prompt.
        capacity: tokens of prompt and answer.
        default: where the request does not ask, if there is room; None for as many as there is room for.

    Raises:
        BadRequest: prompt and answer have no room.
    """
    if prompt + (wanted or 1) > capacity:
        asked = f" and {name}={wanted}" if wanted else ""
        raise BadRequest(
            f"This model's maximum context length is {capacity} tokens; the prompt has {prompt}{asked}.",
            name if wanted and prompt < capacity else None,
            "context_length_exceeded",
        )
    return wanted or min(default or capacity, capacity - prompt)


def settings_of(request: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """A request's settings as `Engine.add` takes them.

    What the request leaves open is as the model's generation_config.json says, else as OpenAI has it: temperature 1
    and all tokens.

    Args:
        request: checked fields.
        config: the model's `GenerationConfig`.
    """
    given = config.to_dict()
    temperature = request.get("temperature", given.get("temperature", 1.0))
    top_p = request.get("top_p", given.get("top_p", 1.0))
    settings: dict[str, Any] = {"do_sample": temperature > 0 and top_p > 0}
    if settings["do_sample"]:
        top_k = request.get("top_k", given.get("top_k", 0))
        settings |= {"temperature": temperature, "top_p": top_p, "top_k": max(top_k, 0)}
        settings["min_p"] = request.get("min_p", given.get("min_p")) or None
        seed = request.get("seed")
        settings["seed"] = secrets.randbelow(_LARGEST_SEED) if seed is None else seed % _LARGEST_SEED
    else:
        settings |= dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "seed"))
    for name, neutral in _PASSED.items():
        value = request.get(name, given.get(name, neutral))
        if value != neutral:
            settings[name] = value
    if request.get("logit_bias"):
        settings["logit_bias"] = request["logit_bias"]
    if request.get("stop"):
        settings["stop_strings"] = request["stop"]
    if "response_format" in request:
        settings["response_format"] = request["response_format"]
    return settings


def for_choice(settings: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The settings of one of several choices, which draw different tokens and repeat themselves with a seed."""
    seed = settings.get("seed")
    return {**settings, "seed": None if seed is None else (seed + number) % _LARGEST_SEED}
