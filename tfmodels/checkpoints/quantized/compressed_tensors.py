"""compressed-tensors checkpoints, as llm-compressor writes them (https://github.com/vllm-project/compressed-tensors).

Three formats are read: pack-quantized (integers in 32-bit words along the inputs), int-quantized (int8 weights) and
float-quantized (float8_e4m3fn weights). Their scales stay as they are, and so do the weights' bits. Where a file says
that activations are rounded too, that is left out: it makes other hardware fast, and the results coarser.
"""

from __future__ import annotations

import re
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
    low_first,
    signed,
    sorted_by_group,
)
from tfmodels.checkpoints.quantized.scheme import Parts, Scheme, pack
from tfmodels.checkpoints.reader import Checkpoint
from tfmodels.utils.text import quote

FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision")
_STRATEGIES = ("tensor", "channel", "group", "block")
_PARTS = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx")
# Scales and zeros of rounded activations, which are not rounded here.
_ACTIVATIONS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
# Scales and zeros of a rounded KV cache, which the file's weights do without.
_CACHE = re.compile(r"\.[qkv]_(scale|zero_point)$")


def find(settings: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, PackedTensor], set[str]]:
    """The quantised layers of a checkpoint, and the names of their tensors.

    Args:
        settings: `quantization_config`.

    Raises:
        CheckpointError: settings or tensors that cannot be, or a format that is not read.
    """
    where = checkpoint.folder
    stated = settings.get("format")
    sparsity = settings.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format", "dense") != "dense":
        raise CheckpointError(f"{where}: compressed-tensors with sparse weights ({quote(sparsity['format'])}).")
    names = list(dict.fromkeys(layers_with(checkpoint, "weight_packed") + layers_with(checkpoint, "weight_scale")))
    if stated not in (*FORMATS, None) and names:
        raise CheckpointError(
            f"{where}: compressed-tensors in the format {quote(stated)}; {', '.join(FORMATS[:3])} can be read."
        )
    groups = settings.get("config_groups")
    if names and not (isinstance(groups, Mapping) and all(isinstance(one, Mapping) for one in groups.values())):
        raise CheckpointError(
            f"{where}: quantization_config has no config_groups; they say how weights are quantised."
        )
    found, used = {}, set()
    for name in names:
        layer = LayerTensors(checkpoint, name, "compressed-tensors")
        found[f"{name}.weight"] = _tensor(layer, _weights_of(groups, layer))
        used |= {layer.name(part) for part in (*_PARTS, *_ACTIVATIONS) if layer.has(part)}
    if settings.get("kv_cache_scheme") is not None:
        used |= {name for name in checkpoint.names() if _CACHE.search(name)}
    return found, used


def _weights_of(groups: Mapping[str, Any], layer: LayerTensors) -> Mapping[str, Any]:
    """The settings of a layer's weights: those of the group that names it, or else of the group of all layers."""
    by_class = None
    for group in groups.values():
        targets = group.get("targets")
        for target in targets if isinstance(targets, list) else ():
            if not isinstance(target, str):
                continue
            named = layer.named_by(target[3:]) if target.startswith("re:") else target == layer.layer
            if named:
                return _settings(group, layer)
            if target in ("Linear", "Embedding") and by_class is None:
                by_class = group
    if by_class is None:
        raise layer.error("no group of quantization_config has the layer among its targets")
    return _settings(by_class, layer)


def _settings(group: Mapping[str, Any], layer: LayerTensors) -> Mapping[str, Any]:
    weights = group.get("weights")
    if not isinstance(weights, Mapping):
        raise layer.error("its group in quantization_config says nothing about weights")
    return weights


def _tensor(layer: LayerTensors, weights: Mapping[str, Any]) -> PackedTensor:
    bits, kind, strategy = weights.get("num_bits"), weights.get("type", "int"), weights.get("strategy") or "tensor"
    if strategy not in _STRATEGIES:
        raise layer.error(f"strategy={quote(strategy)}; {', '.join(_STRATEGIES)} can be read")
    if (kind, bits) not in (("int", 4), ("int", 8), ("float", 8)):
        raise layer.error(
            f"num_bits={quote(bits)} of type {quote(kind)}; integers of 4 and 8 bits and floats of 8 can be"
        )
    bits = int(bits)  # it may be 4.0
    units, width = _shape(layer, bits, kind)
    size = None
    if strategy == "group":
        size = check_group_size(weights.get("group_size"), width, layer)
    elif strategy == "block":
        size = _block(weights, layer)[1]
    size = None if size is not None and size >= width else size
    groups = -(-width // size) if size else 1
    layer.check("weight_scale", _scale_shapes(layer, strategy, weights, units, groups), "float")
    order = _order(layer, weights, groups, size, width)
    zeros = None
    if not _is_symmetric(layer, weights, bits, units):
        zeros = _zeros(layer, bits, units, groups, strategy, weights)
    scheme = Scheme(
        bits=bits,
        group_size=size,
        offsets="zeros" if zeros is not None and zeros.any() else None,
        ordered=order is not None,
        values="int" if kind == "int" else "float8",
        scale_dtype=layer.scale_dtype("weight_scale"),
    )

    def read() -> Parts:
        q = _integers(layer, scheme, width)
        scales = _expanded(layer.read_scales("weight_scale", scheme.scale_dtype), strategy, weights, layer, units)
        parts = {"weights": pack(q if order is None else q[order], scheme), "scales": scales}
        if scheme.offsets:
            parts["zeros"] = zeros
        return parts if order is None else {**parts, "order": order}

    return PackedTensor(scheme, (units, width), read)


def _is_symmetric(layer: LayerTensors, weights: Mapping[str, Any], bits: int, units: int) -> bool:
    symmetric = weights.get("symmetric")
    if symmetric is not None and not isinstance(symmetric, bool):
        raise layer.error(f"symmetric={quote(symmetric)}; true or false was expected")
    if symmetric is False:
        return False
    if layer.has("weight_zero_point"):  # older writers had them for symmetric weights, too
        zeros = np.asarray(layer.read("weight_zero_point"))
        if zeros.dtype == np.int32 and zeros.ndim == 2 and zeros.any():
            zeros = signed(low_first(zeros, bits, 0, units), bits)
        if zeros.any():
            raise layer.error(
                f"quantization_config says symmetric, and {layer.name('weight_zero_point')} holds numbers other than 0"
            )
    return True


def _order(
    layer: LayerTensors, weights: Mapping[str, Any], groups: int, size: int | None, width: int
) -> np.ndarray | None:
    """The inputs by their groups, or None where they are in that order."""
    if not layer.has("weight_g_idx"):
        if size is not None and weights.get("actorder") in (True, "group", "dynamic"):
            raise layer.error(
                f"actorder={quote(weights['actorder'])}, and the tensor {layer.name('weight_g_idx')} is missing"
            )
        return None
    layer.check("weight_g_idx", (width,), "int32", "int64")
    g_idx = layer.read("weight_g_idx")
    if (g_idx == -1).all():  # never set: no order
        return None
    return sorted_by_group(g_idx, groups, size, width, layer)


def _shape(layer: LayerTensors, bits: int, kind: str) -> tuple[int, int]:
    """(out, in) of the weights, once they are sure to have a tensor of that size."""
    if not layer.has("weight_packed"):
        shape = layer.shape("weight")
        layer.check("weight", shape[:2] if len(shape) == 2 else (0, 0), "int8" if kind == "int" else "float8_e4m3fn")
        return shape
    if layer.has("weight"):
        raise layer.error(f"{layer.name('weight')} and {layer.name('weight_packed')} are there; one was expected")
    if kind != "int":
        raise layer.error("its group says floats, and its weights are packed integers")
    layer.check("weight_shape", (2,), "int64", "int32")
    units, width = (int(size) for size in layer.read("weight_shape"))
    layer.check("weight_packed", (units, -(-width * bits // 32)), "int32")
    return units, width


def _integers(layer: LayerTensors, scheme: Scheme, width: int) -> np.ndarray:
    """q, or the bits of float8 numbers, (in, out)."""
    if layer.has("weight_packed"):
        return signed(low_first(layer.read("weight_packed"), scheme.bits, 1, width), scheme.bits).T
    values = np.asarray(layer.read("weight"))
    if scheme.values == "float8":
        return float8_rows(layer)
    top = 1 << (scheme.bits - 1)
    if values.size and (values.min() < -top or values.max() >= top):
        raise layer.error(
            f"{layer.name('weight')} holds numbers from {values.min()} to {values.max()}; {scheme.bits} bits hold "
            f"{-top} to {top - 1}"
        )
    return values.T


def _block(weights: Mapping[str, Any], layer: LayerTensors) -> tuple[int, int]:
    """Outputs and inputs that share a scale."""
    block = weights.get("block_structure")
    if isinstance(block, str) and re.fullmatch(r"\d{1,6}x\d{1,6}", block):
        block = [int(size) for size in block.split("x")]
    if not (isinstance(block, list) and len(block) == 2 and all(type(one) is int and one > 0 for one in block)):
        raise layer.error(f"block_structure={quote(block)}; a list of two sizes was expected")
    return block[0], check_group_size(block[1], 0, layer)


def _scale_shapes(
    layer: LayerTensors, strategy: str, weights: Mapping[str, Any], units: int, groups: int
) -> list[tuple[int, ...]]:
    """The shapes that scales may have, and zeros that are not packed."""
    if strategy == "tensor":
        return [(1,), (), (1, 1)]
    if strategy == "channel":
        return [(units, groups), (units,)]
    if strategy == "block":
        return [(-(-units // _block(weights, layer)[0]), groups)]
    return [(units, groups)]


def _expanded(
    scales: np.ndarray, strategy: str, weights: Mapping[str, Any], layer: LayerTensors, units: int
) -> np.ndarray:
    """Scales, or zeros, as (groups, out)."""
    if strategy == "tensor":
        scales = np.broadcast_to(scales.reshape(1, 1), (1, units))
    elif strategy == "block":
        scales = np.repeat(scales, _block(weights, layer)[0], axis=0)[:units].T
    else:
        scales = scales.reshape(units, -1).T
    return np.ascontiguousarray(scales)


def _zeros(
    layer: LayerTensors, bits: int, units: int, groups: int, strategy: str, weights: Mapping[str, Any]
) -> np.ndarray:
    """Zeros, int8 (groups, out): packed along the outputs as the weights are, or as they are."""
    rows = -(-units * bits // 32)
    if layer.has("weight_packed") and strategy in ("group", "channel"):
        layer.check("weight_zero_point", (rows, groups), "int32")
        zeros = signed(low_first(layer.read("weight_zero_point"), bits, 0, units), bits).T
    else:
        shapes = _scale_shapes(layer, strategy, weights, units, groups)
        layer.check("weight_zero_point", shapes, "int8", "int32", "int64")
        zeros = _expanded(np.asarray(layer.read("weight_zero_point")), strategy, weights, layer, units)
    top = 1 << (bits - 1)
    if zeros.size and (zeros.min() < -top or zeros.max() >= top):
        raise layer.error(
            f"{layer.name('weight_zero_point')} holds numbers from {zeros.min()} to {zeros.max()}; {bits} bits hold "
            f"{-top} to {top - 1}"
        )
    return np.ascontiguousarray(zeros, np.int8)
