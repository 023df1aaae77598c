"""Attributes of a configuration that are no fields: those that transformers' scripts read, and misspelt fields.

Scripts read those attributes, but configurations here do not hold them: they read as the defaults below unless a file
or a script sets them, and change nothing that a model computes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tfmodels.utils.text import did_you_mean, quote
from tfmodels.utils.warn import warn

_PACKAGE = __name__.partition(".")[0]
# How close a name is to a field's where it is taken for a mistake.
_CUTOFF = 0.8
# In a file, which may hold the fields of other programs.
_CUTOFF_IN_FILES = 0.88

# Sampling and searching: transformers 4 kept these in config.json; `GenerationConfig` reads them from there.
GENERATION: dict[str, Any] = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_scores": False,
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict_in_generate": False,
    "suppress_tokens": None,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
}

COMMON: dict[str, Any] = {
    **GENERATION,
    "_commit_hash": None,
    "_name_or_path": "",
    "add_cross_attention": False,
    "base_config_key": "",
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "finetuning_task": None,
    "gradient_checkpointing": False,
    "is_composition": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "keys_to_ignore_at_inference": ["past_key_values"],
    "prefix": None,
    "pruned_heads": {},
    "sep_token_id": None,
    "sub_configs": {},
    "task_specific_params": None,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tokenizer_class": None,
    "torchscript": False,
    "transformers_version": None,
    "use_bfloat16": False,
}


def told_if_near(cls: Any, name: str, given: Collection[str] | None = None) -> str:
    """A question after the field that was meant, where a configuration class does not know a name; else "".

    Classes of scripts have names of their own, so they are left alone, and so are ids of tokens, of which other
    families have many, and `max_seq_length`, which scripts keep there.

    Args:
        cls: a class of `ModelConfig`'s kind.
        name: an argument of its constructor, an attribute that is set, or a key of a file.
        given: all keys of that file: a field that is among them is not the one that was meant.
    """
    if cls.__module__.partition(".")[0] != _PACKAGE or name in (known := cls.known_names()):
        return ""
    if name.endswith(("_token_id", "_token_ids")) or name == "max_seq_length":
        return ""
    if given is None:
        near = did_you_mean(name, known, cutoff=_CUTOFF)
    else:
        near = did_you_mean(name, [field for field in known if field not in given], cutoff=_CUTOFF_IN_FILES)
    return near and f"{cls.__name__} has no field {quote(name)}{near}"


def warn_if_near(cls: Any, name: str, given: Collection[str] | None = None) -> None:
    """Warn where a name is likely a misspelt field, as `told_if_near` says; arguments as there.

    Unknown names are kept as attributes, as in transformers, so a misspelt field would change nothing unseen.
    """
    if told := told_if_near(cls, name, given):
        warn(f"{told} It is kept as an attribute, but changes nothing that a model computes.")
