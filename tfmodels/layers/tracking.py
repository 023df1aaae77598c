"""Private APIs of Keras and TensorFlow by which they track the parts of a layer; there are no public ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


@contextlib.contextmanager
def unlocked(layer: keras.layers.Layer) -> Iterator[None]:
    """Inside, a built layer takes further variables and layers. Keras does the same for its own adapters.

    Example:
        >>> dense = keras.layers.Dense(1)
        >>> dense.build((None, 2))
        >>> with unlocked(dense):
        ...     dense.extra = dense.add_weight(shape=(3,), name="extra")
        >>> len(dense.weights)
        3
    """
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def untrack(layer: keras.layers.Layer, variable: keras.Variable) -> None:
    """Make a layer forget one of its variables; inside of `unlocked`.

    Example:
        >>> dense = keras.layers.Dense(1)
        >>> dense.build((None, 2))
        >>> with unlocked(dense):
        ...     untrack(dense, dense.bias)
        >>> [variable.name for variable in dense.weights]
        ['kernel']
    """
    layer._untrack_variable(variable)


class ListsTracked(keras.layers.Layer):
    """A layer whose lists of layers enter `tf.train.Checkpoint` too.

    Keras finds sub-layers in lists by itself, for `.keras` files and `save_weights`. TensorFlow only sees those that
    are attributes, and would leave the others out of a checkpoint without a word.
    """

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        children = super()._trackable_children(save_type, **kwargs)
        return {**children, **self._listed()} if save_type == "checkpoint" else children

    def _lookup_dependency(self, name: str, *args: Any, **kwargs: Any) -> Any:
        found = super()._lookup_dependency(name, *args, **kwargs)
        return self._listed().get(name) if found is None else found

    def _listed(self) -> dict[str, keras.layers.Layer]:
        """Layers in lists among the attributes, as "layers-0" and so on."""
        return {
            f"{name}-{index}": child
            for name, value in vars(self).items()
            if not name.startswith("_") and isinstance(value, (list, tuple))
            for index, child in enumerate(value)
            if isinstance(child, keras.layers.Layer)
        }
