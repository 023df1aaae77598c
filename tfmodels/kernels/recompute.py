"""Gradients that are computed from a function's inputs, by running it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfmodels.kernels.gradients import with_gradient


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
