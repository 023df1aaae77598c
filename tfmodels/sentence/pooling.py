"""Pooling: the vectors of a text's tokens become one vector of the text."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfmodels.utils.text import quote

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


class Pooling(keras.layers.Layer):
    """Pooled hidden states, in float32; several modes are put side by side in the order given.

    Args:
        modes: "cls" (the first token), "max", "mean", "mean_sqrt_len_tokens" (the sum over the square root of the
            number of tokens), "weightedmean" (weights 1, 2, 3, ...) and "lasttoken"; padding never counts.

    Raises:
        ValueError: no mode, or an unknown one.

    Source:
        Reimers and Gurevych, https://arxiv.org/abs/1908.10084; the weighted mean, Muennighoff,
        https://arxiv.org/abs/2202.08904.

    Example:
        >>> import numpy as np
        >>> hidden = np.array([[[1.0], [2.0], [6.0], [100.0]]], "float32")
        >>> np.asarray(Pooling(("mean", "max"))(hidden, np.array([[1, 1, 1, 0]]))).tolist()
        [[3.0, 6.0]]
    """

    def __init__(self, modes: tuple[str, ...], **kwargs: Any):
        super().__init__(**kwargs)
        unknown = [mode for mode in modes if mode not in POOLING_MODES]
        if unknown or not modes:
            raise ValueError(f"pooling modes {quote(modes)}; one or more of {', '.join(POOLING_MODES)} were expected.")
        self.modes = tuple(modes)

    def build(self, *shapes: Any) -> None:
        self.built = True

    def call(self, hidden: Any, mask: Any) -> Any:
        """Pool.

        Args:
            hidden: (batch, length, width).
            mask: (batch, length), nonzero for tokens.

        Returns:
            float32 (batch, modes * width).
        """
        hidden = ops.cast(hidden, "float32")
        tokens = ops.cast(ops.not_equal(mask, 0), "float32")
        return ops.concatenate([getattr(self, f"_{mode}")(hidden, tokens) for mode in self.modes], axis=-1)

    def _cls(self, hidden: Any, tokens: Any) -> Any:
        return _at(hidden, ops.argmax(tokens, axis=1))

    def _max(self, hidden: Any, tokens: Any) -> Any:
        return ops.max(ops.where(ops.expand_dims(tokens, 2) > 0, hidden, -float("inf")), axis=1)

    def _mean(self, hidden: Any, tokens: Any) -> Any:
        return _sum(hidden, tokens) / _at_least_one(tokens)

    def _mean_sqrt_len_tokens(self, hidden: Any, tokens: Any) -> Any:
        return _sum(hidden, tokens) / ops.sqrt(_at_least_one(tokens))

    def _weightedmean(self, hidden: Any, tokens: Any) -> Any:
        columns = ops.expand_dims(ops.arange(ops.shape(tokens)[1], dtype="int32"), 0)
        first = ops.expand_dims(ops.cast(ops.argmax(tokens, axis=1), "int32"), 1)
        return self._mean(hidden, tokens * ops.cast(columns - first + 1, "float32"))

    def _lasttoken(self, hidden: Any, tokens: Any) -> Any:
        columns = ops.expand_dims(ops.arange(ops.shape(tokens)[1], dtype="int32"), 0)
        last = ops.max(columns * ops.cast(tokens, "int32"), axis=1)
        return _at(hidden * ops.expand_dims(tokens, 2), last)


def _sum(hidden: Any, weights: Any) -> Any:
    return ops.einsum("btd,bt->bd", hidden, weights)


def _at_least_one(weights: Any) -> Any:
    """Sum of the weights, (batch, 1); a row of padding alone has nothing to divide."""
    return ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1.0)


def _at(hidden: Any, columns: Any) -> Any:
    return ops.squeeze(ops.take_along_axis(hidden, ops.reshape(columns, (-1, 1, 1)), axis=1), 1)
