"""`Int8`: keys or values of a cache as integers of 8 bits, with a scale for each head and position."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import backend, ops

_LARGEST = 127.0


class Int8(NamedTuple):
    """Keys or values in eight bits: a number is the integer times its position's scale.

    Fields:
        values: int8 (batch, key_value_heads, positions, head_dim).
        scales: (batch, key_value_heads, positions, 1), in the dtype of the numbers that were rounded.

    Example:
        >>> import numpy as np
        >>> kept = rounded(np.array([[[[127.0, -10.1], [0.0, 0.0]]]], "float32"))
        >>> kept.values.numpy().tolist()
        [[[[127, -10], [0, 0]]]]
        >>> whole(kept).numpy().tolist()
        [[[[127.0, -10.0], [0.0, 0.0]]]]
    """

    values: Any
    scales: Any


def rounded(x: Any) -> Int8:
    """Numbers (batch, key_value_heads, positions, head_dim) in eight bits."""
    x = ops.convert_to_tensor(x)
    dtype, x = backend.standardize_dtype(x.dtype), ops.cast(x, "float32")
    # The scale is what is stored, rounded to its dtype, so that only the integers add an error.
    scales = ops.cast(ops.max(ops.abs(x), axis=-1, keepdims=True) / _LARGEST, dtype)
    divisors = ops.cast(scales, "float32")
    q = ops.round(x / ops.where(divisors > 0, divisors, 1.0))
    return Int8(ops.cast(ops.clip(q, -_LARGEST, _LARGEST), "int8"), scales)


def whole(x: Any) -> Any:
    """The numbers of `Int8`, in the dtype of its scales; a tensor stays what it is."""
    return ops.cast(x.values, x.scales.dtype) * x.scales if isinstance(x, Int8) else x
