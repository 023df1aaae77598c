"""The signatures of a SavedModel as graph functions: the forward pass, prefill and decode."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfmodels.export.cache import cache_names, from_named, named
from tfmodels.export.models import forward, rank_of
from tfmodels.kernels.masks import positions_from_mask
from tfmodels.runtime.lowering import EXPORT


def input_specs(model: Any, dtype: tf.DType, *names: str) -> dict[str, tf.TensorSpec]:
    """Specify int inputs (batch, length), or (batch, choices, length) for multiple choice, all free."""
    return {name: tf.TensorSpec([None] * rank_of(model), dtype, name=name) for name in names}


def forward_signatures(model: Any) -> dict[str, Any]:
    """Make `serving_default` and its variants."""
    names = ("input_ids", "attention_mask")
    default = graph_function(
        lambda **inputs: forward(model, **inputs, lowering=EXPORT), input_specs(model, tf.int32, *names)
    )

    def from_int64(**inputs: Any) -> dict[str, Any]:
        return default(**{name: tf.cast(value, tf.int32) for name, value in inputs.items()})

    functions = {
        "serving_default": default,
        "serving_int64": graph_function(from_int64, input_specs(model, tf.int64, *names)),
    }
    if "token_type_ids" in model.input_names and "token_type_ids" not in model.unused_inputs:
        specs = input_specs(model, tf.int32, *names, "token_type_ids")
        functions["serving_token_types"] = graph_function(
            lambda **inputs: forward(model, **inputs, lowering=EXPORT), specs
        )
    return functions


def graph_function(
    function: Callable[..., dict[str, Any]], specs: dict[str, tf.TensorSpec], defaults: dict[str, Any] | None = None
) -> Any:
    """Make a `tf.function` of fixed specifications.

    Args:
        function: called with arguments by the names of `specs`; returns tensors by name.
        specs: of the arguments.
        defaults: values of the last arguments, which then need not be given, by name.
    """
    constants = {name: tf.constant(value, specs[name].dtype) for name, value in (defaults or {}).items()}
    if constants:
        # Saving traces a function with defaults a second time; this way it finds all of it made.
        function = graph_function(function, specs).get_concrete_function()

    def call(*arguments: Any) -> dict[str, Any]:
        return function(**dict(zip(specs, arguments, strict=True)))

    # Parameters are Python names; signatures take the names of the specs, which may hold dots.
    call.__signature__ = inspect.Signature(
        inspect.Parameter(
            name.replace(".", "_"),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=constants.get(name, inspect.Parameter.empty),
        )
        for name in specs
    )
    return tf.function(call, input_signature=list(specs.values()), autograph=False)


def defaults_of(function: Any) -> dict[str, np.ndarray]:
    """Read the defaults of a `graph_function`, by name."""
    parameters = inspect.signature(function.python_function).parameters.values()
    return {p.name: p.default.numpy() for p in parameters if p.default is not p.empty}


def run_with_cache(model: Any, ids: Any, mask: Any, past: Any = None) -> tuple[Any, Any]:
    """Run tokens after those of a growing cache, positions counted over the mask.

    Args:
        ids: int (batch, new).
        mask: (batch, past + new), nonzero for tokens.
        past: (key, value) pairs, or None.

    Returns:
        Scores of the next token, float32 (batch, vocab_size), and the longer cache.
    """
    positions = positions_from_mask(mask)
    if past is not None:
        positions = positions[:, -tf.shape(ids)[1] :]
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=past,
        use_cache=True,
        output_attentions=False,
        output_hidden_states=False,
        logits_to_keep=1,
        return_dict=True,
        training=False,
        lowering=EXPORT,
    )
    return tf.cast(output.logits[:, -1], tf.float32), output.past_key_values


def cache_signatures(model: Any) -> dict[str, Any]:
    """Make `prefill` and `decode`."""

    def outputs(logits: Any, cache: Any) -> dict[str, Any]:
        return {"logits": logits} | named(cache)

    def prefill(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        return outputs(*run_with_cache(model, input_ids, attention_mask))

    layers = len(model.backbone.layers)

    def decode(input_ids: Any, attention_mask: Any, **cache: Any) -> dict[str, Any]:
        return outputs(*run_with_cache(model, input_ids, attention_mask, from_named(cache, layers)))

    specs = input_specs(model, tf.int32, "input_ids", "attention_mask")
    functions = {"prefill": graph_function(prefill, specs)}
    made = functions["prefill"].get_concrete_function().structured_outputs
    caches = {
        name: tf.TensorSpec((None, made[name].shape[1], None, made[name].shape[3]), made[name].dtype, name=name)
        for pair in cache_names(layers)
        for name in pair
    }
    functions["decode"] = graph_function(decode, {**specs, **caches})
    return functions
