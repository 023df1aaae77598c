"""Resizing a model's vocabulary: embeddings and output layer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.checkpoints.deferred import declare_weights
from tfmodels.checkpoints.weight_map import slots_of, walk
from tfmodels.layers.tracking import unlocked, untrack
from tfmodels.utils.text import quote


def resize_token_embeddings(model: keras.Model, new_num_tokens: int) -> keras.layers.Embedding:
    """Give a model's vocabulary another size, in its embeddings and in its output layer. Compile the model after it.

    Rows that stay keep their values; new ones are drawn around the mean of the old, spread by
    `config.initializer_range`, so that they start neither likelier nor unlikelier than a known token. New entries of
    an output bias are the mean.

    Args:
        model: any model without adapters. `config.vocab_size` follows.
        new_num_tokens: the new size, such as `len(tokenizer)` after tokens were added.

    Returns:
        The embedding layer.

    Raises:
        ValueError: `new_num_tokens` is no whole number above 0, or the model has adapters or is quantised.

    Example:
        >>> from tfmodels import TFLlamaForCausalLM
        >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
        >>> model.resize_token_embeddings(520).input_dim
        520
        >>> model(input_ids=[[519]]).logits.shape
        TensorShape([1, 1, 520])
    """
    if not isinstance(new_num_tokens, int) or new_num_tokens < 1:
        raise ValueError(f"new_num_tokens={quote(new_num_tokens)}; a whole number above 0 was expected.")
    if model.lora_config is not None:
        raise ValueError(f"{model.name} has adapters: resize it before they are added.")
    if model.quantization is not None:
        raise ValueError(f"{model.name} is quantised ({model.quantization}): resize it before.")
    config = model.config.replace(vocab_size=new_num_tokens)
    with declare_weights():
        wanted = {name: slot.variable.shape for name, slot in slots_of(type(model)(config)).items()}
    layers = [layer for _, layer in walk(model)]
    for name, slot in slots_of(model).items():
        if tuple(slot.variable.shape) != tuple(wanted[name]):
            owner = next(layer for layer in layers if any(value is slot.variable for value in vars(layer).values()))
            _replace(owner, slot.variable, _resized(slot.variable, wanted[name], config.initializer_range))
    for layer in layers:
        for sizes, size in (
            ("units", getattr(layer, "kernel", None)),
            ("input_dim", getattr(layer, "embeddings", None)),
        ):
            if size is not None and hasattr(layer, sizes):
                setattr(layer, sizes, size.shape[-1 if sizes == "units" else 0])
        if getattr(layer, "config", None) is not None:
            layer.config = config
    model.forget_compiled()
    return model.get_input_embeddings()


def _resized(variable: Any, shape: tuple[int, ...], spread: float) -> np.ndarray:
    """A variable's values in another shape, which differs along one axis."""
    values = np.asarray(ops.cast(variable.value, "float32"))
    (axis,) = (axis for axis, (old, new) in enumerate(zip(values.shape, shape, strict=True)) if old != new)
    if shape[axis] < values.shape[axis]:
        return np.take(values, range(shape[axis]), axis=axis)
    added = [size - values.shape[axis] if n == axis else size for n, size in enumerate(shape)]
    noise = np.asarray(keras.random.normal(added, stddev=spread)) if len(shape) > 1 else 0.0
    fresh = np.broadcast_to(values.mean(axis=axis, keepdims=True) + noise, added)
    return np.concatenate([values, fresh], axis=axis)


def _replace(layer: keras.layers.Layer, old: Any, values: np.ndarray) -> None:
    """Put a variable of another shape in an old one's place."""
    attribute = next(name for name, value in vars(layer).items() if value is old)
    with unlocked(layer):
        untrack(layer, old)
        new = layer.add_weight(
            shape=values.shape, dtype=old.dtype, initializer="zeros", trainable=old.trainable, name=old.name
        )
        new.assign(ops.cast(values, old.dtype))
        setattr(layer, attribute, new)
