"""MLX checkpoints, as mlx-lm writes them (https://github.com/ml-explore/mlx-lm): a weight is scale * q + bias.

`weight` holds q packed along the inputs, `scales` and `biases` a number for each output and group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.quantized.packed import (
    LayerTensors,
    PackedTensor,
    check_group_size,
    layers_with,
    low_first,
    signed,
)
from tfmodels.checkpoints.quantized.scheme import Parts, Scheme, pack
from tfmodels.checkpoints.reader import Checkpoint
from tfmodels.utils.text import quote

# Bits in files -> the bits that they take here.
_BITS = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 8: 8}
_PARTS = ("weight", "scales", "biases")


def find(settings: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, PackedTensor], set[str]]:
    """The quantised layers and tables of a checkpoint, and the names of their tensors.

    Args:
        settings: `quantization` of the configuration, with an entry for each layer that differs.

    Raises:
        CheckpointError: settings or tensors that cannot be.
    """
    found, used = {}, set()
    for name in layers_with(checkpoint, "scales"):
        layer = LayerTensors(checkpoint, name, "MLX")
        own = settings.get(name)
        if own is False:
            raise layer.error("it has scales, and the configuration says that it is not quantised")
        own = {**settings, **(own if isinstance(own, Mapping) else {})}
        mode = own.get("mode", "affine")
        if mode != "affine":
            raise CheckpointError(f"{checkpoint.folder}: MLX with mode={quote(mode)}; affine can be read.")
        found[f"{name}.weight"] = _tensor(layer, own.get("bits"), own.get("group_size"))
        used |= {layer.name(part) for part in _PARTS}
    return found, used


def _tensor(layer: LayerTensors, bits: Any, group_size: Any) -> PackedTensor:
    if type(bits) is not int or bits not in _BITS:
        raise layer.error(f"bits={quote(bits)}; {', '.join(map(str, _BITS))} can be read")
    shape = layer.shape("weight")
    if len(shape) != 2:
        raise layer.error(f"{layer.name('weight')} has the shape {shape}; a matrix was expected")
    units, width = shape[0], shape[1] * 32 // bits
    size = check_group_size(group_size, width, layer, whole=True)
    if size is None:
        raise layer.error(f"group_size={quote(group_size)}; an even number was expected")
    layer.check("weight", shape, "uint32")
    layer.check("scales", (units, width // size), "float")
    layer.check("biases", (units, width // size), "float")
    stored = _BITS[bits]
    scheme = Scheme(bits=stored, group_size=size, offsets="minimums", scale_dtype=layer.scale_dtype("scales"))

    def read() -> Parts:
        q = low_first(layer.read("weight"), bits, 1, width).T
        return {
            "weights": pack(signed(np.ascontiguousarray(q), stored), scheme),
            "scales": np.ascontiguousarray(layer.read_scales("scales", scheme.scale_dtype).T),
            "minimums": np.ascontiguousarray(layer.read_scales("biases", scheme.scale_dtype).T),
        }

    return PackedTensor(scheme, (units, width), read)
