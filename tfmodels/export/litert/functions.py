"""The signatures of a LiteRT file as traced functions of fixed shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfmodels.cache.kv import StaticCache
from tfmodels.export.cache import from_named, named, shapes_of
from tfmodels.export.models import file_inputs, forward, rank_of, transformer_of
from tfmodels.runtime.lowering import Lowering

# The operations that LiteRT has and can quantise.
LOWERING = Lowering("litert", portable=True)
# Lengths that get a signature of their own.
_BUCKETS = (16, 64, 256, 1024)


def buckets(max_length: int) -> tuple[int, ...]:
    """List the lengths that get a signature, ascending.

    Example:
        >>> buckets(300), buckets(8)
        ((16, 64, 256), (8,))
    """
    return tuple(size for size in _BUCKETS if size <= max_length) or (max_length,)


def lowering_of(kept: Any) -> Lowering:
    """The lowering of a file whose matrices `kept`, if there are any, stay as they are."""
    return dataclasses.replace(LOWERING, keeps_matrices=bool(kept))


def causal_functions(model: Any, max_length: int, lowering: Lowering = LOWERING) -> dict[str, Any]:
    """Trace `prefill_N` and `decode` of a causal language model with a cache of `max_length`; by name."""
    cache = {
        name: tf.TensorSpec((1, heads, max_length, head_dim), tf.float32, name)
        for name, (heads, head_dim) in named(shapes_of(model), "litert").items()
    }
    layers = len(cache) // 2

    def run(tokens: Any, input_pos: Any, past: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        output = model(
            input_ids=tokens,
            position_ids=tf.expand_dims(input_pos, 0),
            past_key_values=StaticCache(past, input_pos[0]),
            use_cache=True,
            output_attentions=False,
            output_hidden_states=False,
            logits_to_keep=1,
            return_dict=True,
            training=False,
            lowering=lowering,
        )
        written = named(output.past_key_values.layers, "litert")
        return output.logits, {name: tensor[:, :, :max_length] for name, tensor in written.items()}

    def prefill(tokens: Any, input_pos: Any, **cache: Any) -> dict[str, Any]:
        # Padding behind a prompt may reach beyond the cache's end, where a write would be moved to the left: it gets
        # room that is cut off again.
        spare = ((0, 0), (0, 0), (0, tokens.shape[1]), (0, 0))
        roomy = {name: tf.pad(tensor, spare) for name, tensor in cache.items()}
        return run(tokens, input_pos, from_named(roomy, layers, "litert"))[1]

    def decode(tokens: Any, input_pos: Any, **cache: Any) -> dict[str, Any]:
        logits, written = run(tokens, input_pos, from_named(cache, layers, "litert"))
        return {"logits": logits, **written}

    def traced(function: Callable, length: int) -> Any:
        tokens = tf.TensorSpec((1, length), tf.int32, "tokens")
        positions = tf.TensorSpec((length,), tf.int32, "input_pos")
        graph = tf.function(function, autograph=False)
        return graph.get_concrete_function(tokens=tokens, input_pos=positions, **cache)

    return {f"prefill_{size}": traced(prefill, size) for size in buckets(max_length)} | {"decode": traced(decode, 1)}


def forward_functions(model: Any, max_length: int, lowering: Lowering = LOWERING) -> dict[str, Any]:
    """Trace `forward_N` of a model that does not generate; by name."""
    axes = (1,) * (rank_of(model) - 1)
    pad = transformer_of(model).config.pad_token_id

    def run(input_ids: Any, **others: Any) -> dict[str, Any]:
        ids = tf.where(input_ids < 0, 0 if pad is None else pad, input_ids)
        return forward(model, input_ids=ids, **others, lowering=lowering)

    def traced(length: int) -> Any:
        specs = {name: tf.TensorSpec((*axes, length), tf.int32, name) for name in file_inputs(model)}
        return tf.function(run, autograph=False).get_concrete_function(**specs)

    return {f"forward_{size}": traced(size) for size in sorted({*buckets(max_length), max_length})}
