"""Cross-entropy of a projection's outputs, which never exist all at once.

The logits of a language model are the largest tensor of its training: 8192 tokens over 128256 words are 4 GB in
float32, and their gradient as much again. Here a block of tokens is projected, compared with its labels and, where
gradients will be wanted, turned into its part of the gradients at once. Memory is one block of logits and one gradient
of the matrix in float32. Plain operations only, so that it runs wherever Keras does.

Source:
    Hsu et al., Liger Kernel, https://arxiv.org/abs/2410.10989, section 3.2.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from keras import backend, ops

from tfmodels.kernels.gradients import with_gradient
from tfmodels.runtime.device import has_gpu

BLOCK = 1 << 27
"""Most logits that exist at a time: 512 MiB in float32."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """The computation of logits from hidden states.

    Fields:
        by_rows: whether the matrix is (classes, width), as an embedding table is, or (width, classes).
        factor: that the products are multiplied by.
        cap: the bound that tanh keeps them within after that, or None.
    """

    by_rows: bool
    factor: float = 1.0
    cap: float | None = None

    def logits(self, hidden: Any, matrix: Any) -> Any:
        """Float32 (tokens, classes) from (tokens, width)."""
        logits = ops.cast(ops.matmul(hidden, ops.transpose(matrix) if self.by_rows else matrix), "float32")
        logits = logits if self.factor == 1 else logits * self.factor
        return logits if self.cap is None else ops.tanh(logits / self.cap) * self.cap

    def of_products(self, logits: Any, slope: Any) -> Any:
        """The gradient of the products, from the gradient `slope` of their logits."""
        if self.cap is not None:
            slope = slope * (1 - ops.square(logits / self.cap))
        return slope if self.factor == 1 else slope * self.factor


def linear_cross_entropy(
    hidden: Any, matrix: Any, labels: Any, projection: Projection, *, ignored: int, learns: bool, block: int = BLOCK
) -> Any:
    """The sum of the cross-entropies of tokens whose logits are products with a matrix.

    Args:
        hidden: float (tokens, width).
        matrix: float (classes, width) or (width, classes), see `Projection`; multiplied in the dtype of `hidden`.
        labels: int (tokens,).
        projection: how logits follow from products.
        ignored: label of tokens that do not count.
        learns: whether the gradients are computed along with the sum, which then takes no more products than whole
            logits do; otherwise the logits are computed a second time where gradients flow back.
        block: most logits that exist at a time.

    Returns:
        float32 scalar. Gradients flow to `hidden` and `matrix`, summed in float32.

    Example:
        >>> import numpy as np
        >>> hidden, matrix = np.ones((6, 2), "float32"), np.zeros((4, 2), "float32")
        >>> labels = np.array([0, 1, 2, 3, -100, -100])
        >>> total = linear_cross_entropy(
        ...     hidden, matrix, labels, Projection(by_rows=True), ignored=-100, learns=False, block=8
        ... )
        >>> round(float(total), 4), round(4 * float(np.log(4)), 4)
        (5.5452, 5.5452)
    """
    tokens, width = hidden.shape
    classes = matrix.shape[0 if projection.by_rows else 1]
    count = -(-tokens // max(1, block // classes)) or 1  # of no tokens, one block of padding
    rows = -(-tokens // count) or 1  # blocks of one size, as even as they can be
    missing = count * rows - tokens
    hidden = ops.pad(hidden, ((0, missing), (0, 0)))
    labels = ops.pad(ops.cast(labels, "int32"), ((0, missing),), constant_values=ignored)

    def share(number: Any, hidden: Any, matrix: Any) -> tuple[Any, Any, Any, Any]:
        """A block's states, logits and labels, and the sum of its losses."""
        own = ops.slice(hidden, (number * rows, 0), (rows, width))
        asked = ops.slice(labels, (number * rows,), (rows,))
        logits = projection.logits(own, matrix)
        counts = ops.not_equal(asked, ignored)
        losses = ops.sparse_categorical_crossentropy(ops.where(counts, asked, 0), logits, from_logits=True)
        return own, logits, asked, ops.sum(ops.where(counts, losses, 0.0))

    def total_alone(hidden: Any, matrix: Any) -> Any:
        return ops.fori_loop(
            0, count, lambda number, total: total + share(number, hidden, matrix)[3], ops.zeros((), "float32")
        )

    def total_and_slopes(hidden: Any, matrix: Any) -> tuple[Any, Any, Any]:
        def turn(number: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            total, of_hidden, of_matrix = state
            own, logits, asked, loss = share(number, hidden, matrix)
            hits = ops.equal(ops.expand_dims(asked, 1), ops.arange(classes, dtype="int32"))
            slope = ops.softmax(logits) - ops.cast(hits, "float32")
            slope = projection.of_products(logits, slope)
            slope = ops.where(ops.expand_dims(ops.not_equal(asked, ignored), 1), slope, 0.0)
            slope = ops.cast(slope, hidden.dtype)
            back = ops.matmul(slope, matrix if projection.by_rows else ops.transpose(matrix))
            left, right = (slope, own) if projection.by_rows else (own, slope)
            of_hidden = ops.slice_update(of_hidden, (number * rows, 0), ops.cast(back, "float32"))
            return total + loss, of_hidden, of_matrix + _product_in_float32(ops.transpose(left), right)

        start = (ops.zeros(()), ops.zeros(hidden.shape, "float32"), ops.zeros(matrix.shape, "float32"))
        return ops.fori_loop(0, count, turn, start)

    def compute(hidden: Any, matrix: Any) -> tuple[Any, Callable[..., Any]]:
        factors = ops.cast(matrix, hidden.dtype)
        total, *slopes = total_and_slopes(hidden, factors) if learns else (total_alone(hidden, factors),)

        def gradient(upstream: Any) -> tuple[Any, Any]:
            of_hidden, of_matrix = slopes or total_and_slopes(hidden, factors)[1:]
            return ops.cast(of_hidden * upstream, hidden.dtype), ops.cast(of_matrix * upstream, matrix.dtype)

        return total, gradient

    return with_gradient(compute, hidden, matrix)


def _product_in_float32(left: Any, right: Any) -> Any:
    """The product of two matrices in float32: a sum over many tokens can leave the range of float16."""
    if backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(left, right, preferred_element_type="float32")
    if has_gpu():
        return _tensor_core_product()(left, right)
    return ops.matmul(ops.cast(left, "float32"), ops.cast(right, "float32"))


@functools.cache
def _tensor_core_product() -> Callable[[Any, Any], Any]:
    """A product of 16-bit matrices that returns float32, which TensorFlow has under XLA only."""
    import tensorflow as tf

    def product(left: Any, right: Any) -> Any:
        return tf.raw_ops.BatchMatMulV3(x=left, y=right, Tout=tf.float32)

    return tf.function(product, jit_compile=True, autograph=False)
