"""`all_layers`: a layer with every layer inside it."""

from __future__ import annotations

import keras


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layer itself and every layer inside it, however deep, each once.

    Example:
        >>> inner, outer = keras.layers.Dense(1, name="inner"), keras.Sequential(name="outer")
        >>> outer.add(inner)
        >>> [layer.name for layer in all_layers(outer)]
        ['outer', 'inner']
    """
    return layer._flatten_layers()  # private: public `layers` of a model leave out nested ones
