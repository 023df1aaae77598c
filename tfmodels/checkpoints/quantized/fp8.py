"""FP8 checkpoints that name no other method: float8_e4m3fn weights with a scale for each block, output or tensor.

Blocks lie in `weight_scale_inv`, as DeepSeek and transformers write them, other scales in `weight_scale`. Either is
multiplied with, whatever the name says. Rounded activations (`input_scale`) are left as they are.
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
    float8_rows,
    layers_with,
)
from tfmodels.checkpoints.quantized.scheme import Parts, Scheme, pack
from tfmodels.checkpoints.reader import Checkpoint
from tfmodels.utils.text import quote

_PARTS = ("weight", "weight_scale", "weight_scale_inv", "input_scale", "activation_scale")


def find(settings: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, PackedTensor], set[str]]:
    """The quantised layers of a checkpoint, and the names of their tensors.

    Args:
        settings: `quantization_config`.

    Raises:
        CheckpointError: settings or tensors that cannot be.
    """
    block = settings.get("weight_block_size")
    if block is not None and not (
        isinstance(block, list) and len(block) == 2 and all(type(size) is int and size > 0 for size in block)
    ):
        raise CheckpointError(
            f"{checkpoint.folder}: FP8 with weight_block_size={quote(block)}; a list of two sizes was expected."
        )
    found, used = {}, set()
    for scales in ("weight_scale", "weight_scale_inv"):  # one thing under two names
        for name in layers_with(checkpoint, scales):
            layer = LayerTensors(checkpoint, name, "FP8")
            found[f"{name}.weight"] = _tensor(layer, scales, block)
            used |= {layer.name(part) for part in _PARTS if layer.has(part)}
    return found, used


def _tensor(layer: LayerTensors, scales: str, block: list[int] | None) -> PackedTensor:
    shape = units, width = layer.matrix("weight")
    layer.check("weight", shape, "float8_e4m3fn")
    size, rows = None, 1
    if block is not None:
        rows, size = block[0], check_group_size(block[1], width, layer)
        layer.check(scales, (-(-units // rows), -(-width // size)), "float")
        size = size if size < width else None
    else:
        layer.check(scales, [(units, 1), (units,), (1,), (1, 1), ()], "float")
    scheme = Scheme(group_size=size, values="float8", scale_dtype=layer.scale_dtype(scales))

    def read() -> Parts:
        values = layer.read_scales(scales, scheme.scale_dtype)
        if block is not None:
            values = np.repeat(values, rows, axis=0)[:units]
        else:
            values = np.broadcast_to(values.reshape(-1, 1), (units, 1))
        return {"weights": pack(float8_rows(layer), scheme), "scales": np.ascontiguousarray(values.T)}

    return PackedTensor(scheme, shape, read)
