"""Dense layers on a few rows as one kernel: the layers that it serves, and its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import backend, ops

from tfmodels.kernels import decoding
from tfmodels.runtime.lowering import Lowering


def matrices_of(inputs: Any, layers: Sequence[Any], lowering: Lowering) -> list[Any] | None:
    """The matrices of dense layers that read the same inputs, as one kernel takes them; None where none serves them.

    Args:
        inputs: (batch, length, width).
        layers: instances of `tfmodels.layers.linear.Linear`, built.
        lowering: see `Lowering`.
    """
    if lowering.xla_target != "triton" or len({layer.compute_dtype for layer in layers}) > 1:
        return None
    if len({layer.bias is None for layer in layers}) > 1:
        return None
    found = [_matrix(layer) for layer in layers]
    if any(one is None for one in found) or len({type(one) is decoding.Packed for one in found}) > 1:
        return None
    return found if decoding.serves_products(inputs, *found, target="triton") else None


def _matrix(layer: Any) -> Any:
    """The kernel of a layer, or its packed weights; None where it computes something else beside."""
    if layer.adapter is not None or layer.observer is not None or layer.quantization_mode is not None:
        return None
    return kernel_of(layer) if layer.packed is None else layer.packed.matrix()


def kernel_of(layer: Any) -> Any:
    """The kernel of a dense layer in its compute dtype, read inside of another layer's call.

    There Keras reads variables in the other layer's dtype. None where that loses digits which this layer's call keeps.
    """
    kernel = ops.convert_to_tensor(layer.kernel)
    if backend.standardize_dtype(kernel.dtype) not in (layer.compute_dtype, layer.variable_dtype):
        return None
    return ops.cast(kernel, layer.compute_dtype)


def biases_of(layers: Sequence[Any]) -> list[Any] | None:
    """The biases of layers that all have one, or None."""
    return None if layers[0].bias is None else [ops.cast(layer.bias, layer.compute_dtype) for layer in layers]


def products(inputs: Any, layers: Sequence[Any], matrices: list[Any]) -> list[Any]:
    """The outputs of layers for which there are `matrices_of`, in the dtype of the inputs."""
    found = decoding.products(inputs, matrices, biases_of(layers))
    return [ops.cast(output, inputs.dtype) for output in found]


def activated(inputs: Any, layers: Sequence[Any], activation: str | None, lowering: Lowering) -> Any:
    """The activation of a layer's outputs, times a second layer's where there are two, by one kernel.

    Args:
        inputs, layers, lowering: as for `matrices_of`.
        activation: its name in `tfmodels.layers.activations.kernel_name`, or None.

    Returns:
        (batch, length, units), or None where there is no kernel for it.
    """
    matrices = None if activation is None else matrices_of(inputs, layers, lowering)
    # Two packed matrices are read faster when their products are cut along their sums.
    if matrices is None or len({layer.units for layer in layers}) > 1 or isinstance(matrices[0], decoding.Packed):
        return None
    return decoding.activated_product(inputs, matrices, biases_of(layers), activation, gated=len(layers) == 2)
