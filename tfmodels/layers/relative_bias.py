"""Relative attention bias: a learned score for each head and each range of distances between query and key."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.layers.linear import embedding
from tfmodels.runtime.lowering import PLAIN, Lowering


def distance_buckets(buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of every distance from 0 to `max_distance`, which stands for all beyond it.

    The lower half of the buckets holds one distance each, the upper half ranges that grow logarithmically. A distance
    on the border of two ranges belongs to the upper one, whatever rounding makes of its logarithm.

    Args:
        buckets: number of buckets for one direction, at least 2.
        max_distance: distance from which on all share the last bucket.

    Returns:
        int32 (max_distance + 1,).

    Source:
        Raffel et al., https://arxiv.org/abs/1910.10683.

    Example:
        >>> distance_buckets(4, max_distance=8).tolist()
        [0, 1, 2, 2, 3, 3, 3, 3, 3]
    """
    exact = buckets // 2
    distance = np.arange(max_distance + 1)
    growth = np.log(np.maximum(distance, exact) / exact) / math.log(max_distance / exact)
    ranges = exact + np.floor(growth * (buckets - exact) + 1e-9).astype(int)
    return np.where(distance < exact, distance, np.minimum(ranges, buckets - 1)).astype("int32")


class RelativeBias(keras.layers.Layer):
    """Bias of every pair of positions; half of the buckets serves keys before the query, half those after it.

    Args:
        heads: number of heads.
        rows: number of rows of the table.
        buckets: number of them in use, an even number from 4 to `rows`.
        max_distance: see `distance_buckets`.
        std: standard deviation of the initial weights.

    Example:
        >>> import numpy as np
        >>> bias = RelativeBias(heads=2, rows=8, buckets=8, max_distance=16, std=1.0)
        >>> bias(np.arange(3)).shape
        TensorShape([1, 2, 3, 3])
    """

    def __init__(self, heads: int, rows: int, buckets: int, max_distance: int, std: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_distance = max_distance
        self.half = buckets // 2
        self.distance_buckets = distance_buckets(self.half, max_distance)
        self.table = embedding(rows, heads, std=std, dtype=self.dtype_policy, name="table")

    def build(self, input_shape: Any = None) -> None:
        self.table.build(None)

    def call(self, columns: Any, lowering: Lowering = PLAIN) -> Any:
        """Bias (1, heads, length, length) of positions 0, 1, ... given as int (length,)."""
        forward = ops.expand_dims(columns, 0) - ops.expand_dims(columns, 1)
        buckets = ops.take(
            ops.convert_to_tensor(self.distance_buckets), ops.minimum(ops.abs(forward), self.max_distance), axis=0
        )
        buckets = ops.where(forward > 0, buckets + self.half, buckets)
        return ops.expand_dims(ops.transpose(self.table(buckets, lowering=lowering), (2, 0, 1)), 0)
