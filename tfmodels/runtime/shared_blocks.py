"""Trace blocks that differ only in their weights once for all of them.

Tracing a block takes Python half as long as XLA takes to compile it, and a model's blocks are mostly the same. In
programs whose `Lowering` says `reuse` the first of them becomes a function of its weights, which the others call with
theirs; XLA sees the same operations as without.

Training traces each block: the gradient of a function takes constants of the forward pass, such as the axes of a
transposition, as inputs. TensorFlow 2.21 concludes that all inputs of the forward pass are constants, and compiles the
weights into the program.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from tfmodels.runtime.sub_layers import all_layers


@dataclasses.dataclass
class TracedBlock:
    """A block as a function of its weights.

    Fields:
        block: the block that was traced.
        shared: fields of its context that are the same objects for other blocks.
        sizes: shapes and dtypes of the function's arguments.
        function: of hidden states, the other fields of the context and the weights, to the results of the block.
        record: how it computes attention.
    """

    block: keras.layers.Layer
    shared: dict[str, Any]
    sizes: Any
    function: Any
    record: list[Any]


# Attributes of these types and names are no settings of a layer; Keras wraps `build` and `quantize` per instance.
_NO_SETTINGS = (keras.layers.Layer, keras.Variable, keras.layers.InputSpec, keras.random.SeedGenerator)
_NO_SETTINGS_NAMED = ("name", "build", "quantize")


def call_block(
    block: keras.layers.Layer, hidden: Any, *, context: Any, traced: list[TracedBlock]
) -> tuple[Any, Any, Any]:
    """Call a block, where `context.lowering` says `reuse` as a function of its weights.

    Args:
        block, hidden, context: as in `tfmodels.models.backbone.Backbone`.
        traced: the functions of this pass so far; a new one is appended.
    """
    if not context.lowering.reuse or context.training or context.return_weights or not _has_one_dtype(block):
        return block(hidden=hidden, context=context)
    if keras.backend.backend() != "tensorflow":
        return block(hidden=hidden, context=context)
    import tensorflow as tf

    if tf.executing_eagerly():
        return block(hidden=hidden, context=context)
    context.mask.make_whole()  # here, where every function can see the tensors
    own = {"past": context.past, "head_mask": context.head_mask}
    shared = {field.name: getattr(context, field.name) for field in dataclasses.fields(context)}
    shared = {name: value for name, value in shared.items() if name not in (*own, "record")}
    # Under a strategy a weight is several variables, of which the one of this replica is read here.
    given = (hidden, own, [tf.convert_to_tensor(variable.value) for variable in block.variables])
    sizes = [None if x is None else (x.shape, x.dtype) for x in tf.nest.flatten(given)]
    fits = (
        known
        for known in traced
        if known.sizes == sizes and _same_objects(known.shared, shared) and _alike(known.block, block)
    )
    known = next(fits, None)
    if known is None:
        known = TracedBlock(block, shared, sizes, *_function(block, context))
        traced.append(known)
    result = known.function(*given)
    context.record.extend(known.record)
    return result


def _function(block: keras.layers.Layer, context: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    record: list[Any] = []

    @tf.function(autograph=False)
    def function(hidden: Any, own: dict[str, Any], weights: list[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(block.variables, weights, strict=True))):
            return block(hidden=hidden, context=dataclasses.replace(context, **own, record=record))

    return function, record


def _has_one_dtype(block: keras.layers.Layer) -> bool:
    """Whether all layers of a block cast weights to the same dtype, so that they may be read outside of it, too."""
    return len({layer.compute_dtype for layer in all_layers(block)}) == 1


def _same_objects(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] is other[name] for name in one)


def _alike(one: keras.layers.Layer, other: keras.layers.Layer) -> bool:
    """Whether two blocks compute the same with the same weights, judged by their layers' types and attributes."""
    ones, others = all_layers(one), all_layers(other)
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
    if one is other or (isinstance(one, _NO_SETTINGS) and isinstance(other, _NO_SETTINGS)):
        return True  # layers inside a list are compared as layers
    if type(one) is not type(other):
        return False
    if hasattr(one, "get_config"):
        return one.get_config() == other.get_config()
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # values that cannot be compared: trace once more
        return False
