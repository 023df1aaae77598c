"""The residual stream of a decoder: plain additions, or on a GPU one kernel that adds and normalises.

A kernel that multiplies few rows leaves its outputs in parts, whose sum is wanted (`Parts`). `plus` keeps them beside
the hidden states (`Sum`), across the end of a block, until `add_and_norm` adds and normalises all at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from tfmodels.kernels import added_norms, decoding
from tfmodels.layers import few_rows
from tfmodels.layers.linear import Linear
from tfmodels.layers.norms import RMSNorm
from tfmodels.runtime.lowering import Lowering


@dataclasses.dataclass
class Parts:
    """The outputs of a layer as a kernel left them.

    No pytree on purpose: Keras would cast the parts at the borders of layers.

    Fields:
        tensor: float32 (parts, batch * length, width), to be summed over the first axis.
        length: of the inputs.
        dtype: of the outputs.
    """

    tensor: Any
    length: int
    dtype: str


@dataclasses.dataclass
class Sum:
    """Hidden states and what is still to be added to them; a structure to TensorFlow, a single object to Keras.

    Fields:
        hidden: (batch, length, width).
        added: one or two tensors of `Parts`.
    """

    hidden: Any
    added: tuple[Any, ...]

    def __tf_flatten__(self) -> tuple[tuple[()], tuple[Any, ...]]:
        return (), (self.hidden, *self.added)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple[()], leaves: tuple[Any, ...]) -> Sum:
        return cls(leaves[0], tuple(leaves[1:]))


def in_parts(layer: Linear, inputs: Any, lowering: Lowering) -> Any:
    """The outputs of a layer that `plus` adds to hidden states: `Parts` where a kernel leaves them, else a tensor.

    Args:
        layer: built.
        inputs: (batch, length, width).
        lowering: see `Lowering`.
    """
    matrices = few_rows.matrices_of(inputs, [layer], lowering) if type(layer) is Linear else None
    if matrices is None:
        return layer(inputs, lowering=lowering)
    parts = decoding.products_in_parts(inputs, matrices, few_rows.biases_of([layer]))
    return Parts(parts, inputs.shape[1], keras.backend.standardize_dtype(inputs.dtype))


def dropped(dropout: keras.layers.Dropout, added: Any, training: bool | None) -> Any:
    """Outputs of `in_parts` after dropout, which leaves `Parts` as they are where it drops nothing."""
    drops = training and dropout.rate > 0
    return dropout(whole(added), training=training) if drops or not isinstance(added, Parts) else added


def plus(hidden: Any, *added: Any) -> Any:
    """Hidden states plus outputs of `in_parts`, or a `Sum` where all of these are in parts.

    Args:
        hidden: (batch, length, width).
        added: one or two, `Parts` or (batch, length, width).
    """
    if all(isinstance(one, Parts) for one in added):
        return Sum(hidden, tuple(one.tensor for one in added))
    first, *rest = (whole(one) for one in added)
    return sum(rest, first) + hidden


def whole(x: Any) -> Any:
    """A tensor, `Parts` or a `Sum` as a tensor (batch, length, width)."""
    if isinstance(x, Parts):
        return _added_up(x.tensor, x.length, x.dtype)
    if isinstance(x, Sum):
        _, length, _ = x.hidden.shape
        return sum((_added_up(parts, length, x.hidden.dtype) for parts in x.added), x.hidden)
    return x


def _added_up(parts: Any, length: int, dtype: Any) -> Any:
    """The tensor of `Parts` as the outputs that it stands for, (batch, length, width)."""
    total = ops.cast(ops.sum(parts, axis=0), dtype)
    return ops.reshape(total, (total.shape[0] // length, length, total.shape[1]))


def add_and_norm(hidden: Any, *norms: keras.layers.Layer) -> tuple[Any, ...]:
    """Hidden states, summed, and each norm of them, (batch, length, width); a `Sum` and its norms take one kernel.

    Args:
        hidden: a tensor (batch, length, width) or a `Sum`.
        norms: `RMSNorm` or `keras.layers.LayerNormalization`, built.

    Example:
        >>> import numpy as np
        >>> norm = RMSNorm(epsilon=0.0)
        >>> hidden, normed = add_and_norm(np.array([[[1.0, 7.0]]]), norm)
        >>> np.allclose(normed, [[[0.2, 1.4]]])
        True
    """
    if isinstance(hidden, Sum):
        batch, length, width = hidden.hidden.shape
        kinds = [_as_kernel_takes_it(norm) for norm in norms]
        if None not in kinds and added_norms.serves_norms(width, kinds):
            rows = ops.reshape(hidden.hidden, (batch * length, width))
            found = added_norms.added_norms(rows, hidden.added, kinds)
            return tuple(ops.reshape(one, (batch, length, width)) for one in found)
    hidden = whole(hidden)
    return hidden, *(norm(hidden) for norm in norms)


def _as_kernel_takes_it(norm: keras.layers.Layer) -> added_norms.Norm | None:
    if type(norm) is RMSNorm:
        return added_norms.Norm(ops.convert_to_tensor(norm.weight), None, norm.epsilon, norm.offset)
    if type(norm) is keras.layers.LayerNormalization and norm.gamma is not None and not norm.rms_scaling:
        weights = [None if x is None else ops.convert_to_tensor(x) for x in (norm.gamma, norm.beta)]
        return added_norms.Norm(*weights, norm.epsilon, is_centered=True)
    return None
