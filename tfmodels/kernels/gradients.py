"""Functions with a gradient of their own.

`tf.custom_gradient` registers every gradient that it traces under a new name for as long as the process lives, and
with it the graph and the weights that the graph reads: a dropped model would stay in memory. The gradients registered
here refer weakly to the function's own, which only the graph keeps alive.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any

from keras import backend, ops

from tfmodels.kernels.decoding import barrier

# Attribute of graphs that keeps their gradients alive. TensorFlow writes collections into meta graphs, and would warn.
_HELD = "_tfmodels_gradients"


class _Gradient:
    """A gradient function that can be referred to weakly."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function


_numbers = itertools.count()


def with_gradient(function: Callable[..., Any], *tensors: Any) -> Any:
    """Call a function that brings its own gradient.

    Args:
        function: called with `tensors`; returns its result, a tensor or a tuple of them, and the gradient: a function
            of one upstream tensor per result that returns one tensor (or None) for each of `tensors`. Nothing flows
            into other tensors or variables that it reads.
        *tensors: floats, or others, whose gradient is None.

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


def under_xla(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """A differentiable function whose two parts exist under XLA only: eager and graph code compiles them.

    Tapes see neither part. TensorFlow would ask for gradients of XLA's own operations: under a persistent tape, and in
    eager code after a graph has asked for the gradient of the same part.

    Args:
        forward: takes tensors; returns the result, a tensor or a tuple of them, and the tensor or tuple of tensors
            that `backward` needs beside.
        backward: called with the tensors, what `forward` returned, and an upstream gradient for each result; returns a
            gradient, or None, for each tensor.

    Returns:
        The function of tensors, on TensorFlow.
    """
    import tensorflow as tf
    from tensorflow.python.eager import record

    compiled, compiled_backward = (tf.function(x, jit_compile=True, autograph=False) for x in (forward, backward))

    def compute(*tensors: Any) -> Any:
        with record.stop_recording():
            result, needed = compiled(*tensors)
        return result, lambda *upstream: compiled_backward(*tensors, result, needed, *upstream)

    return lambda *tensors: with_gradient(compute, *tensors)


def with_whole_gradient(x: Any) -> Any:
    """The same numbers, whose gradient is in memory before anything reads it.

    A dense layer's gradients read that of its outputs three times. XLA computes it once more within the bias's, which
    is a sum: for GPT-NeoX's queries, keys and values, turned back and side by side, that took 143 us a layer on an
    H200, and less than 26 from memory.

    Args:
        x: float, on TensorFlow.

    Example:
        >>> import tensorflow as tf
        >>> x = tf.constant([1.0, 2.0])
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     total = tf.reduce_sum(3.0 * with_whole_gradient(x))
        >>> tape.gradient(total, x).numpy().tolist()
        [3.0, 3.0]
    """
    return with_gradient(lambda x: (x, apart), x)


def apart(*tensors: Any) -> tuple[Any, ...]:
    """The same tensors, on TensorFlow, behind a barrier that XLA moves no operation across; gradients pass it."""
    return _barrier()(*tensors)


@functools.cache
def _barrier() -> Callable[..., Any]:
    def backward(*given: Any) -> list[Any]:
        return list(given[len(given) // 2 + 1 :])  # behind the tensors, the results in one tuple, and an empty one

    return under_xla(lambda *tensors: (tuple(barrier(*tensors)), ()), backward)


def _in_a_graph(function: Callable[..., Any], tensors: list[Any]) -> Any:
    import tensorflow as tf
    from tensorflow.python.eager import record  # tapes have no public door for an operation of one's own

    result, gradient = function(*tensors)
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    count = len(results)
    own = _Gradient(lambda *upstream: [*[None] * count, *gradient(*upstream[:count])])
    graph = tf.compat.v1.get_default_graph()
    setattr(graph, _HELD, [*getattr(graph, _HELD, ()), own])
    # Results and inputs pass through one operation; its gradient goes from the results straight to the inputs.
    given = [*results, *tensors]
    with graph.gradient_override_map({"IdentityN": _register(own)}):
        passed = tf.identity_n(given)
    record.record_operation("tfmodels_gradient", passed, given, own.function)
    return type(result)(passed[:count]) if isinstance(result, (tuple, list)) else passed[0]


def _register(own: _Gradient) -> str:
    """Register a gradient that calls another one as long as that is alive; returns its name."""
    import tensorflow as tf

    name, found = f"TfmodelsGradient-{next(_numbers)}", weakref.ref(own)

    @tf.RegisterGradient(name)
    def _(operation: Any, *upstream: Any) -> Any:
        alive = found()
        if alive is None:
            raise LookupError(f"the graph in which {name} was traced is gone, and the gradient with it.")
        return alive.function(*upstream)

    return name
