"""Packed weights as the slot of a dense layer or an embedding table.

`Linear` and `Embedding` (`tfmodels.layers.linear`) hold either their float variable or a `PackedWeights` in its place.
Packed weights do not learn; an adapter beside them does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfmodels.checkpoints.quantized import scheme as packing
from tfmodels.checkpoints.quantized.scheme import Scheme
from tfmodels.kernels import decoding, quantized
from tfmodels.layers.tracking import unlocked, untrack
from tfmodels.runtime.lowering import PLAIN, Lowering
from tfmodels.runtime.sub_layers import all_layers

__all__ = ["PackedWeights", "Scheme", "put_packed"]


class PackedWeights(keras.layers.Layer):
    """The variables of a quantised matrix (width, units); for a table of embeddings width is the size of a row.

    Attributes:
        scheme: how the weights are quantised.
        width, units: axes of the matrix.

    Example:
        >>> packed = PackedWeights(Scheme(bits=4, group_size=32), 64, 10, name="packed")
        >>> {variable.name: tuple(variable.shape) for variable in packed.weights}
        {'weights': (32, 10), 'scales': (2, 10)}
    """

    def __init__(self, scheme: Scheme, width: int, units: int, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.scheme, self.width, self.units = scheme, width, units
        # The values are the file's, whatever the model computes in: no variable is cast on the way.
        self.parts = {
            name: self.add_weight(
                shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False, name=name
            )
            for name, (shape, dtype) in scheme.parts(width, units).items()
        }
        self.built = True

    @property
    def variable(self) -> keras.Variable:
        """The variable of the integers, which stands for the whole where one is asked for."""
        return self.parts["weights"]

    def product(self, inputs: Any, lowering: Lowering = PLAIN) -> Any:
        """inputs (..., width) times the matrix: (..., units) in the dtype of the inputs."""
        matrix = self.matrix() if lowering.xla_target == "triton" else None
        if matrix is not None and decoding.serves_products(inputs, matrix, target="triton"):
            return keras.ops.cast(decoding.products(inputs, [matrix])[0], inputs.dtype)
        if quantized.serves_few_rows(inputs, lowering.xla_target):
            return quantized.few_rows(inputs, [self._values()], self.scheme)[0]
        return quantized.product(inputs, self._values(), self.scheme)

    def matrix(self) -> decoding.Packed | None:
        """The weights as the kernels for a GPU take them; None where these do not serve the scheme."""
        scheme = self.scheme
        if scheme.ordered or scheme.divided or scheme.values != "int":
            return None
        values = self._values()
        offsets = values[scheme.offsets] if scheme.offsets else None
        group, kind = scheme.group_size or 0, scheme.offsets or ""
        return decoding.Packed(values["weights"], values["scales"], offsets, scheme.bits, group, kind)

    def rows(self, ids: Any, dtype: str) -> Any:
        """Rows of a table by their number: (..., width)."""
        return quantized.columns(self._values(), self.scheme, self.width, ids, dtype)

    def arrays(self) -> dict[str, np.ndarray]:
        """The variables' values."""
        return {name: keras.ops.convert_to_numpy(variable.value) for name, variable in self.parts.items()}

    def dequantized(self) -> np.ndarray:
        """The float32 matrix (width, units) that the layer multiplies with."""
        return packing.dequantize(self.arrays(), self.scheme, self.width)

    def _values(self) -> dict[str, Any]:
        return {name: keras.ops.convert_to_tensor(variable) for name, variable in self.parts.items()}


def parameters_of(model: keras.layers.Layer, weights: Iterable[keras.Variable]) -> int:
    """The number of a model's parameters that some of its weights are; packed ones are those of their whole matrix."""
    packed = {
        id(variable): layer.width * layer.units if variable is layer.variable else 0
        for layer in all_layers(model)
        if isinstance(layer, PackedWeights)
        for variable in layer.parts.values()
    }
    return sum(packed.get(id(weight), math.prod(weight.shape)) for weight in weights)


def products_together(inputs: Any, matrices: Sequence[PackedWeights | None], lowering: Lowering) -> list[Any] | None:
    """A few inputs (..., width) times each of several matrices, by loops that they share.

    Args:
        inputs: (..., width).
        matrices: packed weights; None for a matrix that is not packed.
        lowering: see `Lowering`.

    Returns:
        (..., units) for each, in the dtype of the inputs; None where there are no such loops for these matrices.
    """
    if len({None if each is None else each.scheme for each in matrices}) > 1 or matrices[0] is None:
        return None
    scheme = matrices[0].scheme
    if scheme.ordered or scheme.divided or not quantized.serves_few_rows(inputs, lowering.xla_target):
        return None
    return quantized.few_rows(inputs, [each._values() for each in matrices], scheme)


def put_packed(
    layer: keras.layers.Layer, variable: keras.Variable, scheme: Scheme, values: Mapping[str, np.ndarray] | None = None
) -> PackedWeights:
    """Put packed weights into a built layer's slot `_packed`, in the place of its float variable.

    Args:
        layer: has the slot.
        variable: the kernel (width, units), or the table (units, width), which the layer forgets.
        scheme: of the packed weights.
        values: by name, as `Scheme.parts` says; without them the variables start as zeros, or empty where weights are
            only declared.
    """
    is_table = isinstance(layer, keras.layers.Embedding)
    width, units = variable.shape[::-1] if is_table else variable.shape
    packed = PackedWeights(scheme, width, units, dtype=layer.dtype_policy, name="packed")
    if values is not None:
        for name, held in packed.parts.items():
            held.assign(values[name])
    with unlocked(layer):
        untrack(layer, variable)
        layer._packed = packed
    return packed
