"""Blocks that differ in nothing but their weights, traced once.

Tracing a block takes Python half as long as XLA takes to compile it, and a model's blocks are mostly the same. Inside
`sharing()` the first of them becomes a function of its weights, which the others call with theirs; XLA sees the same
operations as without.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras


@dataclasses.dataclass
class Traced:
    """A block as a function of its weights.

    Fields:
        block: what was traced.
        shared: fields of its context that are the same objects for other blocks.
        sizes: shapes and dtypes of what the function takes.
        function: of hidden states, the other fields of the context and the weights, to what the block returns.
        record: how it computes attention.
    """

    block: keras.layers.Layer
    shared: dict[str, Any]
    sizes: Any
    function: Any
    record: list[Any]


_program: ContextVar[list[Traced] | None] = ContextVar("functions of the program that is traced", default=None)

# What layers hold beside their settings: values of these kinds, and under these names (Keras wraps the two methods).
_NO_SETTINGS = (keras.layers.Layer, keras.Variable, keras.layers.InputSpec, keras.random.SeedGenerator)
_NO_SETTINGS_NAMED = ("name", "build", "quantize")


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """A program is traced inside, on TensorFlow, which computes no gradients."""
    token = _program.set([])
    try:
        yield
    finally:
        _program.reset(token)


def call_block(block: keras.layers.Layer, hidden: Any, *, context: Any) -> Any:
    """Call a block, inside `sharing()` as a function of its weights; see `tfmodels.models.backbone.Backbone`."""
    program = _program.get()
    if program is None or context.training or context.return_weights or not _has_one_dtype(block):
        return block(hidden, context=context)
    import tensorflow as tf

    if tf.executing_eagerly():
        return block(hidden, context=context)
    _ = context.mask.allowed  # made here, where every function can see it
    own = {"past": context.past, "head_mask": context.head_mask}
    shared = {field.name: getattr(context, field.name) for field in dataclasses.fields(context)}
    shared = {name: value for name, value in shared.items() if name not in (*own, "record")}
    given = (hidden, own, [variable.value for variable in block.variables])
    sizes = [None if x is None else (x.shape, x.dtype) for x in tf.nest.flatten(given)]
    for traced in program:
        if traced.sizes == sizes and _same_objects(traced.shared, shared) and _alike(traced.block, block):
            break
    else:
        traced = Traced(block, shared, sizes, *_function(block, context))
        program.append(traced)
    result = traced.function(*given)
    context.record.extend(traced.record)
    return result


def _function(block: keras.layers.Layer, context: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    record: list[Any] = []

    @tf.function(autograph=False)
    def function(hidden: Any, own: dict[str, Any], weights: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(block.variables, weights, strict=True))):
            return block(hidden, context=dataclasses.replace(context, **own, record=record))

    return function, record


def _has_one_dtype(block: keras.layers.Layer) -> bool:
    """Whether weights are cast to the same dtype in all of a block, in which they may be read outside, too."""
    return len({layer.compute_dtype for layer in block._flatten_layers()}) == 1


def _same_objects(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] is other[name] for name in one)


def _alike(one: keras.layers.Layer, other: keras.layers.Layer) -> bool:
    """Whether two blocks compute the same with the same weights, as far as one can see."""
    ones, others = one._flatten_layers(), other._flatten_layers()
    return len(ones) == len(others) and all(
        type(a) is type(b) and a.quantization_mode == b.quantization_mode and _same_settings(a, b)
        for a, b in zip(ones, others, strict=True)
    )


def _same_settings(one: keras.layers.Layer, other: keras.layers.Layer) -> bool:
    first, second = _settings(one), _settings(other)
    return first.keys() == second.keys() and all(_same(first[name], second[name]) for name in first)


def _settings(layer: keras.layers.Layer) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(layer).items()
        if not (name.startswith("_") or name in _NO_SETTINGS_NAMED or isinstance(value, _NO_SETTINGS))
    }


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is type(other) and hasattr(one, "get_config"):
        return one.get_config() == other.get_config()
    return type(one) is type(other) and bool(one == other)
