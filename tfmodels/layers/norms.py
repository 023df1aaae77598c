"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class RMSNorm(keras.layers.Layer):
    """Root-mean-square normalisation (Zhang and Sennrich, https://arxiv.org/abs/1910.07467).

    The mean square is taken in float32 and the result cast back before it meets the weight, whatever the dtype policy.

    Args:
        epsilon: added to the mean square.
        offset: added to the weight. With one, the product with the weight is in float32 too, as in Gemma.

    Example:
        >>> import numpy as np
        >>> norm = RMSNorm(epsilon=0.0)
        >>> np.allclose(norm(np.array([[1.0, 7.0]])), [[0.2, 1.4]])
        True
    """

    def __init__(self, epsilon: float, *, offset: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.offset = offset

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        initializer = "zeros" if self.offset else "ones"
        self.weight = self.add_weight(shape=(input_shape[-1],), initializer=initializer, name="weight")

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        if self.offset:
            return ops.cast(x * (ops.cast(self.weight, "float32") + self.offset), inputs.dtype)
        return ops.cast(x, inputs.dtype) * self.weight


def layer_norm(epsilon: float, *, dtype: Any, name: str, use_bias: bool = True) -> keras.layers.LayerNormalization:
    """Layer normalisation over the last axis (Ba et al., https://arxiv.org/abs/1607.06450), computed in float32.

    Args:
        epsilon: added to the variance.
        use_bias: whether it has a bias beside its weight.

    Example:
        >>> import numpy as np
        >>> norm = layer_norm(0.0, dtype="float32", name="norm", use_bias=False)
        >>> np.asarray(norm(np.array([[1.0, 3.0]]))).tolist(), len(norm.weights)
        ([[-1.0, 1.0]], 1)
    """
    return keras.layers.LayerNormalization(epsilon=epsilon, center=use_bias, dtype=dtype, name=name)
