"""Functions that TensorFlow traces for each shape of what they are given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class ByShapes:
    """A function as a TensorFlow program for every combination of its arguments' shapes.

    Args:
        function: takes and returns nested tensors.
        jit_compile: by XLA; otherwise as a plain graph.
    """

    def __init__(self, function: Callable, jit_compile: bool):
        self.function = function
        self.jit_compile = jit_compile
        self.by_shapes: dict[Any, Callable] = {}

    def __call__(self, *arguments: Any) -> Any:
        return self._function_for(arguments)(*arguments)

    def _function_for(self, arguments: Any) -> Any:
        import tensorflow as tf

        # An object of its own for every shape: TensorFlow warns of code that is traced again and again, and tells
        # code apart by functions, but partial ones by identity.
        shapes = tuple(tuple(x.shape) for x in tf.nest.flatten(arguments) if hasattr(x, "shape"))
        if shapes not in self.by_shapes:
            self.by_shapes[shapes] = tf.function(
                functools.partial(self._run), jit_compile=self.jit_compile, autograph=False
            )
        return self.by_shapes[shapes]

    def _run(self, *arguments: Any) -> Any:
        return self.function(*arguments)
