"""The caches of exports: names of their tensors, their shapes, and a cache of fixed size.

Used by SavedModel and ONNX (`past_key_values.N.key`, `present.N.key`) and by LiteRT (`kv_cache_k_N`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from tfmodels.cache import kv

# Names of a layer's key and value, by who reads them.
_NAMES = {
    "past_key_values": ("past_key_values.{}.key", "past_key_values.{}.value"),
    "present": ("present.{}.key", "present.{}.value"),
    "litert": ("kv_cache_k_{}", "kv_cache_v_{}"),
}


def cache_names(layers: int, kind: str = "past_key_values") -> list[tuple[str, str]]:
    """Names of each layer's key and value.

    Args:
        layers: how many.
        kind: "past_key_values", or "present" for the outputs of ONNX, or "litert".

    Example:
        >>> cache_names(1), cache_names(1, "litert")
        ([('past_key_values.0.key', 'past_key_values.0.value')], [('kv_cache_k_0', 'kv_cache_v_0')])
    """
    return [tuple(name.format(layer) for name in _NAMES[kind]) for layer in range(layers)]


def named(cache: Any, kind: str = "past_key_values") -> dict[str, Any]:
    """The tensors of a cache, (key, value) for each layer, by their names."""
    pairs = zip(cache_names(len(cache), kind), cache, strict=True)
    return {name: tensor for names, tensors in pairs for name, tensor in zip(names, tensors, strict=True)}


def from_named(tensors: dict[str, Any], layers: int, kind: str = "past_key_values") -> tuple[tuple[Any, Any], ...]:
    """The (key, value) pairs of a cache whose tensors have the names of `cache_names`."""
    return tuple((tensors[key], tensors[value]) for key, value in cache_names(layers, kind))


def shapes_of(model: Any) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(heads, head_dim) of each layer's key and value: one token through the model shows them, whatever the family."""
    shown = model(input_ids=np.zeros((1, 1), "int32"), use_cache=True, return_dict=True).past_key_values
    return [tuple((tensor.shape[1], tensor.shape[3]) for tensor in pair) for pair in shown]


def static_cache(model: Any, grown: Any, capacity: int, length: Any) -> kv.StaticCache:
    """A growing cache moved into one of fixed size, in a graph that knows the prompt's length when it runs.

    Args:
        model: a causal language model.
        grown: (key, value) of each layer, (batch, heads, length, head_dim).
        capacity: positions of the cache; layers with a window keep that many.
        length: int32 scalar tensor, tokens in `grown`.
    """

    def fit(tensor: Any, room: int) -> Any:
        import tensorflow as tf

        if room < capacity:
            # Slots that nothing was written to take any position: no query sees them.
            tensor = ops.take(tensor, ops.maximum(kv.slot_positions(room, length), 0), axis=2)
        else:
            tensor = tf.pad(tensor, [[0, 0], [0, 0], [0, room - length], [0, 0]])
        return tf.ensure_shape(tensor, (*tensor.shape[:2], room, tensor.shape[3]))

    windows = model.backbone.cache_windows or [None] * len(grown)
    layers = tuple(
        tuple(fit(tensor, min(capacity, window or capacity)) for tensor in pair)
        for pair, window in zip(grown, windows, strict=True)
    )
    return kv.StaticCache(layers, length)
