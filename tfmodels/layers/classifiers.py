"""Classifiers on top of an encoder."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfmodels.layers.linear import build_all, linear
from tfmodels.runtime.lowering import PLAIN, Lowering


class FirstTokenClassifier(keras.layers.Layer):
    """Two dense layers, with tanh between them, on the first token's hidden state.

    Args:
        width: size of a hidden state.
        num_labels: number of classes.
        dropout: share dropped before each dense layer.
        std: standard deviation of the initial weights.

    Example:
        >>> import numpy as np
        >>> classifier = FirstTokenClassifier(4, 3, dropout=0.0, std=0.02)
        >>> classifier.build((None, None, 4))
        >>> classifier(np.ones((2, 5, 4), "float32")).shape
        TensorShape([2, 3])
    """

    def __init__(self, width: int, num_labels: int, *, dropout: float, std: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        options = {"std": std, "use_bias": True, "dtype": self.dtype_policy}
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.dense = linear(width, name="dense", **options)
        self.out_proj = linear(num_labels, name="out_proj", **options)

    def build(self, input_shape: Any = None) -> None:
        build_all(self.width, self.dropout, self.dense, self.out_proj)

    def call(self, hidden: Any, training: bool | None = None, lowering: Lowering = PLAIN) -> Any:
        first = self.dense(self.dropout(hidden[:, 0], training=training), lowering=lowering)
        return self.out_proj(self.dropout(ops.tanh(first), training=training), lowering=lowering)
