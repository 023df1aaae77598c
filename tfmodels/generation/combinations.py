"""Checks of the arguments of one `generate` call together: wrong types, contradictions, settings without effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmodels.generation.config import GenerationConfig
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

# Settings and arguments of `generate` that count beside another argument only.
_ONLY_WITH = {
    "assistant_model": ("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
    "guidance_scale": ("negative_prompt_ids", "negative_prompt_attention_mask"),
}


def warn_of_unused(settings: Mapping[str, Any], given: Mapping[str, bool], **arguments: Any) -> None:
    """Warn of what a call names in vain.

    Args:
        settings: of this call.
        given: whether the call has each of the arguments that others need.
        **arguments: further arguments, None where they are not given.
    """
    named = {name for name, value in {**settings, **arguments}.items() if value is not None}
    for other, names in _ONLY_WITH.items():
        unused = [name for name in names if name in named]
        if unused and not given[other]:
            warn(f"{', '.join(unused)}: used with {other} only")


def check_combination(
    config: GenerationConfig, guided: bool, streamer: Any, past_key_values: Any, assisted: bool
) -> None:
    """Raise ValueError for what cannot be had together."""
    if config.num_beams > 1:
        if streamer is not None:
            raise ValueError(
                f"streamer with num_beams={config.num_beams}: the first tokens are known when the search ends; use "
                "num_beams=1 to stream."
            )
        if guided:
            raise ValueError(f"guidance_scale with num_beams={config.num_beams}: use num_beams=1.")
    if config.return_dict_in_generate and (config.num_beams > 1 or guided):
        for name in ("output_attentions", "output_hidden_states"):
            if getattr(config, name):
                raise ValueError(f"{name}=True is given for plain greedy decoding and sampling only.")
    if config.prefill_chunk_size is not None and not config.use_cache:
        raise ValueError(f"prefill_chunk_size={config.prefill_chunk_size} needs use_cache=True.")
    if config.quantizes_cache and not config.use_cache:
        raise ValueError('cache_implementation="quantized" needs use_cache=True.')
    if config.is_contrastive:
        others = {
            "guidance_scale": guided,
            "past_key_values": past_key_values is not None,
            "assistant_model": assisted,
            "prompt_lookup_num_tokens": bool(config.prompt_lookup_num_tokens),
            "prefill_chunk_size": config.prefill_chunk_size is not None,
            "use_cache=False": not config.use_cache,
        }
        found = [name for name, is_given in others.items() if is_given]
        if found:
            raise ValueError(f"penalty_alpha={config.penalty_alpha} (contrastive search) with {', '.join(found)}.")
    if past_key_values is not None and (not config.use_cache or guided or config.num_return_sequences > 1):
        raise ValueError("past_key_values need use_cache=True, one sequence per prompt and no guidance_scale.")


def check_functions(streamer: Any, **given: Any) -> None:
    """Raise TypeError for a streamer that is none, and for another argument, by name, that is no list of functions."""
    if streamer is not None and not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
        raise TypeError(f"streamer={quote(streamer)}: an object with put(ids) and end() was expected.")
    for name, functions in given.items():
        if functions is not None and not (isinstance(functions, Sequence) and all(map(callable, functions))):
            raise TypeError(f"{name}={quote(functions)}: a list of functions was expected.")
