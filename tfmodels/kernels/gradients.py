"""Functions with a gradient of their own.

`tf.custom_gradient` registers every gradient that it traces under a new name for as long as the process lives, and
with it the graph and the weights that the graph reads: a dropped model would stay in memory. Here one gradient is
registered. It finds the function's own by a number in the operation's name, and only the graph keeps that alive.
"""

from __future__ import annotations

import functools
import itertools
import re
import weakref
from collections.abc import Callable
from typing import Any

from keras import backend, ops

_OPERATION = "tfmodels_gradient_"
_COLLECTION = "tfmodels_gradients"


class _Gradient:
    """A gradient function that can be referred to weakly."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function


_numbers = itertools.count()
_alive: weakref.WeakValueDictionary[int, _Gradient] = weakref.WeakValueDictionary()


def with_gradient(function: Callable[..., Any], *tensors: Any) -> Any:
    """Call a function that brings its own gradient.

    Args:
        function: called with `tensors`; returns its result, a tensor or a tuple of them, and the gradient: a function
            of one upstream tensor per result that returns one tensor (or None) for each of `tensors`. Nothing flows
            into other tensors or variables that it reads.
        *tensors: floats.

    Returns:
        The function's result.

    Example:
        >>> import tensorflow as tf
        >>> x = tf.constant(3.0)
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = with_gradient(lambda x: (x * x, lambda upstream: (10.0 * upstream,)), x)
        >>> float(y), float(tape.gradient(y, x))
        (9.0, 10.0)
    """
    if backend.backend() != "tensorflow":
        return ops.custom_gradient(function)(*tensors)
    import tensorflow as tf

    if tf.executing_eagerly():  # nothing is registered there
        return tf.custom_gradient(function)(*tensors)
    return _in_a_graph(function, [tf.convert_to_tensor(tensor) for tensor in tensors])


def _in_a_graph(function: Callable[..., Any], tensors: list[Any]) -> Any:
    import tensorflow as tf
    from tensorflow.python.eager import record  # tapes have no public door for an operation of one's own

    result, gradient = function(*tensors)
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    number, count = next(_numbers), len(results)
    held = _Gradient(lambda *upstream: [*[None] * count, *gradient(*upstream[:count])])
    _alive[number] = held
    graph = tf.compat.v1.get_default_graph()
    graph.add_to_collection(_COLLECTION, held)
    _register()
    # Results and inputs pass through one operation; its gradient goes from the results straight to the inputs.
    given = [*results, *tensors]
    with graph.gradient_override_map({"IdentityN": _NAME}):
        passed = tf.identity_n(given, name=f"{_OPERATION}{number}")
    record.record_operation("tfmodels_gradient", passed, given, held.function)
    return type(result)(passed[:count]) if isinstance(result, (tuple, list)) else passed[0]


_NAME = "TfmodelsGradient"


@functools.cache
def _register() -> None:
    import tensorflow as tf

    @tf.RegisterGradient(_NAME)
    def _(operation: Any, *upstream: Any) -> Any:
        if operation is None:
            # `tf.saved_model.save` traces the gradient apart from any operation; what is loaded later has the
            # gradient that TensorFlow knows of the function's own operations.
            return list(upstream)
        number = int(re.search(rf"{_OPERATION}(\d+)", operation.name).group(1))
        held = _alive.get(number)
        if held is None:
            raise LookupError(f"the gradient of {operation.name} is gone: the graph that it was traced in is no more.")
        return held.function(*upstream)
