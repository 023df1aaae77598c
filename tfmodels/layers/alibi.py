"""Attention with linear biases: positions by how far away a key is, without position embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def alibi_slopes(heads: int, bias_max: float = 8.0) -> np.ndarray:
    """The slopes with which each head's bias falls with distance.

    For a power of two heads they are the geometric series from 2 ** (-bias_max / heads) to 2 ** -bias_max. Other
    numbers of heads take every second slope of the next power of two's series, from its second on, and then those in
    between.

    Args:
        heads: number of query heads.
        bias_max: exponent of the smallest slope.

    Returns:
        float32 (heads,).

    Source:
        Press et al., https://arxiv.org/abs/2108.12409; the order for other numbers of heads is MPT's.

    Example:
        >>> alibi_slopes(4).tolist()
        [0.25, 0.0625, 0.015625, 0.00390625]
        >>> alibi_slopes(3).tolist()
        [0.0625, 0.00390625, 0.25]
    """
    power = 1 << (heads - 1).bit_length()
    slopes = 2.0 ** (-bias_max / power * np.arange(1, power + 1))
    if power != heads:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[:heads]
    return slopes.astype("float32")


def alibi_bias(slopes: np.ndarray, key_length: Any, last: Any) -> Any:
    """The bias that ALiBi adds to scaled scores.

    It depends on the key alone. Softmax ignores a constant added to all of a query's scores, so one row serves every
    query, and padding before the first token needs no correction.

    Args:
        slopes: (heads,), from `alibi_slopes`.
        key_length: number of keys, an int or int32 scalar.
        last: index of the last query's own key, whose bias is 0; int, int32 scalar, or int32 (batch,).

    Returns:
        float32 (1 or batch, heads, 1, key_length).

    Example:
        >>> import numpy as np
        >>> np.asarray(alibi_bias(alibi_slopes(1, bias_max=1), 3, 2)).ravel().tolist()
        [-1.0, -0.5, 0.0]
    """
    if len(getattr(last, "shape", ())) == 1:
        last = ops.reshape(last, (-1, 1, 1, 1))
    distance = ops.cast(ops.arange(key_length, dtype="int32") - last, "float32")
    return ops.reshape(ops.convert_to_tensor(slopes), (1, -1, 1, 1)) * distance
