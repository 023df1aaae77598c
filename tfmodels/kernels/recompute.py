"""Gradients that are computed from a function's inputs, by running it again: less memory for more time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfmodels.kernels.gradients import apart, with_gradient


def recompute(function: Callable[..., Any], *tensors: Any) -> Any:
    """Call a function whose intermediate results are not kept for gradients.

    Args:
        function: called with `tensors`, once now and once when gradients flow back; both times it must compute the
            same. Gradients reach `tensors` and nothing else that it reads. TensorFlow may keep it as long as the
            process lives where it is called in a graph: there it must hold nothing large.
        *tensors: floats.

    Returns:
        What it returns: a tensor or a tuple of them.

    Raises:
        NotImplementedError: Keras runs on a backend other than TensorFlow and JAX.

    Example:
        >>> import tensorflow as tf
        >>> x = tf.constant(3.0)
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = recompute(lambda x: x * x, x)
        >>> float(tape.gradient(y, x))
        6.0
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.executing_eagerly():
            return tf.recompute_grad(function)(*tensors)
        return with_gradient(lambda *tensors: (function(*tensors), _gradient(function, tensors)), *tensors)
    if backend == "jax":
        import jax

        return jax.checkpoint(function)(*tensors)
    raise NotImplementedError(f"gradient checkpointing runs on TensorFlow and JAX, not on {backend}.")


def product_of(function: Callable[..., Any], *tensors: Any, matrix: Any) -> Any:
    """`function(*tensors) @ matrix`, on TensorFlow; gradients call the function again instead of keeping its result.

    Args:
        function: of elementwise operations, whose second run costs less than its result takes; differentiable.
        *tensors: float (..., in), of one shape and dtype.
        matrix: float (in, out), of the same dtype.

    Returns:
        (..., out).

    Source:
        Hsu et al., Liger Kernel, https://arxiv.org/abs/2410.10989, section 3.2: SwiGLU and GeGLU.

    Example:
        >>> import tensorflow as tf
        >>> x, matrix = tf.constant([[1.0, 2.0]]), tf.constant([[3.0], [4.0]])
        >>> with tf.GradientTape() as tape:
        ...     tape.watch((x, matrix))
        ...     y = product_of(tf.square, x, matrix=matrix)
        >>> y.numpy().tolist(), [flow.numpy().tolist() for flow in tape.gradient(y, (x, matrix))]
        ([[19.0]], [[[6.0, 16.0]], [[1.0], [4.0]]])
    """
    import tensorflow as tf

    def compute(*given: Any) -> tuple[Any, Callable[..., Any]]:
        *inputs, matrix = given

        def gradient(upstream: Any) -> list[Any]:
            *again, upstream = apart(*inputs, upstream)  # XLA would take the first run's result instead
            with tf.GradientTape() as tape:
                tape.watch(again)
                inner = function(*again)
            rows, slopes = (tf.reshape(x, (-1, x.shape[-1])) for x in (inner, upstream))
            of_inner = tf.reshape(tf.matmul(slopes, matrix, transpose_b=True), tf.shape(inner))
            return [*tape.gradient(inner, again, of_inner), tf.matmul(rows, slopes, transpose_a=True)]

        return keras.ops.matmul(function(*inputs), matrix), gradient

    return with_gradient(compute, *tensors, matrix)


def _gradient(function: Callable[..., Any], tensors: tuple[Any, ...]) -> Callable[..., Any]:
    """The gradient of a function of tensors that runs the function once more."""
    import tensorflow as tf

    def gradient(*upstream: Any) -> Any:
        # A zero that compilers cannot see to be one, made of what flows back: it puts the second run off until then,
        # and keeps compilers from taking the first run's results for it.
        some = tf.reduce_max(tf.reshape(upstream[0], [-1])[:1])
        zero = tf.minimum(tf.abs(some), tf.zeros((), some.dtype))
        inputs = [tf.identity(tensor) + tf.cast(zero, tensor.dtype) for tensor in tensors]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            results = function(*inputs)
        results = results if isinstance(results, (tuple, list)) else [results]
        return tape.gradient(results, inputs, list(upstream), tf.UnconnectedGradients.ZERO)

    return gradient
