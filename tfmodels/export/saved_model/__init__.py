"""SavedModel: what TensorFlow Serving, KServe, Vertex AI and TensorFlow's C API load.

Signatures of every model, all with free batch and length and named inputs and outputs:

- `serving_default`: int32 `input_ids` and `attention_mask` to the head's outputs, which are float32.
- `serving_int64`: the same for int64 inputs, as many clients send them.
- `serving_token_types`: with `token_type_ids`, for families in which they mean something.
- `serving_lengths`: `input_ids` and each row's length instead of the mask, for servers that batch, see
  `tfmodels.export.saved_model.lengths`.

Causal language models also have

- `prefill`: a prompt to the next token's scores and the cache, one tensor `past_key_values.N.key` or `.value` per
  layer, (batch, key_value_heads, length, head_dim).
- `decode`: further tokens with the cache so far to scores and the longer cache.
- `generate`: greedy continuation; `generate_sample`: a drawn one, greedy for temperature 0. The whole loop runs
  inside, compiled by XLA when it is first called, once for each of a few batch sizes and never for a new prompt,
  length or temperature. Inputs beside the prompt have defaults (`SignatureDef.defaults`); a server too old for those
  needs all of them.
- `generate_lengths`: the greedy continuation for servers that batch, with each row's length.

With `signatures="text"` there are signatures that take strings, see `tfmodels.export.saved_model.text`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmodels.export.artifact import ExportOptions, Signature
from tfmodels.export.models import (
    causal,
    check_last_token,
    max_length_of,
    rank_of,
    tokenizer_of,
    transformer_of,
    with_dtype,
)
from tfmodels.export.quiet import without_warnings
from tfmodels.export.saved_model import lengths, serving_files, text
from tfmodels.export.saved_model.functions import cache_signatures, defaults_of, forward_signatures
from tfmodels.export.saved_model.generate import generate_signatures
from tfmodels.export.saved_model.gradients import forget_gradients
from tfmodels.export.saved_model.runner import PROPERTIES_FILE, SavedModelRunner, open, signatures_of
from tfmodels.utils.text import quote

__all__ = ["SavedModelRunner", "check", "open", "signatures_of", "write"]

TOKENIZER_FOLDER = "assets.extra/tokenizer"
WITHOUT_GRADIENTS = tf.saved_model.SaveOptions(experimental_custom_gradients=False)


def check(model: Any, options: ExportOptions) -> None:
    """Raise ValueError where a model or an option cannot be exported so."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"a SavedModel needs Keras on TensorFlow; it runs on {keras.backend.backend()}.")
    tokenizer = tokenizer_of(model, options.tokenizer)
    if options.signatures == "text":
        text.check(model, tokenizer)
    if not causal(model):
        for name in ("jit_compile", "batch_sizes"):
            if getattr(options, name) is not None:
                raise ValueError(f"{name}={quote(getattr(options, name))} is of use for causal language models only.")
        if options.max_length is not None and options.signatures != "text":
            raise ValueError(
                f"max_length={options.max_length}: a SavedModel's length is free; it limits texts "
                f'(signatures="text") and what a causal language model generates.'
            )
    max_length_of(model, options.max_length)
    check_last_token(model)


def write(model: Any, target: Path, options: ExportOptions) -> list[Signature]:
    """Write the folder of one version."""
    model = with_dtype(model, options.dtype)
    tokenizer = tokenizer_of(model, options.tokenizer)
    limit = max_length_of(model, options.max_length)
    functions = forward_signatures(model)
    if causal(model):
        options.step("tracing prefill and decode")
        functions |= cache_signatures(model)
        options.step("tracing generate")
        functions |= generate_signatures(
            model, functions["prefill"], limit, batch_sizes_of(options), options.jit_compile is not False
        )
    functions |= lengths.signatures(model, functions)
    module = tf.Module()
    if options.signatures == "text":
        options.step("tracing the text signatures")
        functions |= text.signatures(model, functions, tokenizer, module, limit)
    module.weights = _variables(functions.values())
    options.step("writing the SavedModel")
    # Defaults are saved of functions only, and only those are traced a second time.
    signatures = {
        name: function if defaults_of(function) else function.get_concrete_function()
        for name, function in functions.items()
    }
    with without_warnings():
        tf.saved_model.save(module, str(target), signatures=signatures, options=WITHOUT_GRADIENTS)
    forget_gradients(target)
    found = signatures_of(target)
    serving_files.write(
        target,
        options.path.parent.name,
        example_requests(model, functions, options),
        found,
        tokenizer=TOKENIZER_FOLDER if tokenizer is not None else None,
    )
    properties = {"capacity": limit if causal(model) else None, "quantization": transformer_of(model).quantization}
    (target / PROPERTIES_FILE).write_text(json.dumps(properties), "utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(target / TOKENIZER_FOLDER)
    return found


def example_requests(model: Any, functions: dict[str, Any], options: ExportOptions) -> dict[str, list[dict[str, Any]]]:
    """Make inputs for warming up and for showing, by signature: every signature but the two of the cache."""
    ids = np.arange(5, 9, dtype="int32") % transformer_of(model).config.vocab_size
    shape = (1, 2, 4) if rank_of(model) == 3 else (1, 4)
    tokens = {"input_ids": np.broadcast_to(ids, shape), "attention_mask": np.ones(shape, "int32")}
    requests = {}
    if "generate" in functions:
        for name in ("generate", "generate_sample"):
            settings = {**defaults_of(functions[name]), "max_new_tokens": np.int32(2)}
            requests[name] = [
                {**{key: np.repeat(value, rows, axis=0) for key, value in tokens.items()}, **settings}
                for rows in batch_sizes_of(options)
            ]
    requests |= text.example_requests(functions)
    requests["serving_default"] = [tokens]
    requests["serving_int64"] = [{key: value.astype("int64") for key, value in tokens.items()}]
    rows = {"input_ids": tokens["input_ids"], "lengths": np.full(shape[:-1], shape[-1], "int32")}
    requests["serving_lengths"] = [rows]
    if "generate_lengths" in functions:
        requests["generate_lengths"] = [{**rows, "max_new_tokens": np.array([2], "int32")}]
    if "serving_token_types" in functions:
        requests["serving_token_types"] = [{**tokens, "token_type_ids": np.zeros_like(tokens["input_ids"])}]
    return requests


def batch_sizes_of(options: ExportOptions) -> list[int]:
    """Rows that `generate` decodes at a time, ascending."""
    return sorted(set(options.batch_sizes or (1, 8)))


def _variables(functions: Any) -> list[tf.Variable]:
    """The variables that any of the functions reads, each once."""
    found: dict[int, tf.Variable] = {}
    for function in functions:
        for variable in function.get_concrete_function().graph.variables:
            found.setdefault(id(variable), variable)
    return list(found.values())
