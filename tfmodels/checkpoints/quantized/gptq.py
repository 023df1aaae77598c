"""GPTQ checkpoints, as GPTQModel and AutoGPTQ write them (Frantar et al., https://arxiv.org/abs/2210.17323).

`qweight` holds rows of q packed along the inputs, `qzeros` zeros packed along the outputs, less one in files of the
first version; `g_idx` the group of each input.
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
    sorted_by_group,
)
from tfmodels.checkpoints.quantized.scheme import Parts, Scheme, pack
from tfmodels.checkpoints.reader import Checkpoint
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

_BITS = (2, 4, 8)
_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_FORMATS = ("gptq", "gptq_v2")


def find(settings: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, PackedTensor], set[str]]:
    """The quantised layers of a checkpoint, and the names of their tensors.

    Args:
        settings: `quantization_config`.

    Raises:
        CheckpointError: settings or tensors that cannot be.
    """
    where = checkpoint.folder
    bits = settings.get("bits")
    if bits not in _BITS:
        raise CheckpointError(
            f"{where}: GPTQ with bits={quote(bits)}; 2, 4 and 8 can be read. Quantise the original checkpoint anew."
        )
    version = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if version not in _FORMATS:
        raise CheckpointError(
            f"{where}: GPTQ in the format {quote(version)}; {' and '.join(_FORMATS)} can be read. Convert it with "
            "GPTQModel."
        )
    if settings.get("pack_dtype", "int32") not in ("int32", None):
        raise CheckpointError(f"{where}: GPTQ packed in {quote(settings['pack_dtype'])}; int32 can be read.")
    if version == "gptq" and settings.get("sym") is False:
        warn(
            f"{where}: asymmetric GPTQ of the first format, some of whose writers lost zeros below 1: if the model "
            "writes nonsense, the file is damaged."
        )
    names = layers_with(checkpoint, "qweight")
    found, used = {}, set()
    for name in names:
        layer = LayerTensors(checkpoint, name, "GPTQ")
        own = {**settings, **_dynamic(settings, layer)}
        found[f"{name}.weight"] = _tensor(layer, own, version)
        used |= {layer.name(part) for part in _PARTS if layer.has(part)}
    return found, used


def _dynamic(settings: Mapping[str, Any], layer: LayerTensors) -> Mapping[str, Any]:
    """The settings of one layer that differ from those of all; GPTQModel's `dynamic`."""
    rules = settings.get("dynamic") or {}
    if not isinstance(rules, Mapping):
        raise layer.error(f"dynamic={quote(rules)}; settings by patterns of names were expected")
    for pattern, changes in rules.items():
        positive = str(pattern).removeprefix("+:")
        if not positive.startswith("-:") and isinstance(changes, Mapping) and layer.named_by(positive):
            return changes
    return {}


def _tensor(layer: LayerTensors, settings: Mapping[str, Any], version: str) -> PackedTensor:
    bits, group_size = settings.get("bits"), settings.get("group_size", -1)
    if bits not in _BITS:
        raise layer.error(f"bits={quote(bits)}; 2, 4 and 8 can be read")
    bits = int(bits)  # it may be 4.0
    shape = layer.matrix("qweight")
    per_word = 32 // bits
    width, units = shape[0] * per_word, shape[1]
    if layer.has("g_idx"):
        # The words of the last row may hold inputs that are not there.
        (stated,) = layer.shape("g_idx") if len(layer.shape("g_idx")) == 1 else (-1,)
        if not width - per_word < stated <= width:
            raise layer.error(
                f"{layer.name('g_idx')} has the shape {layer.shape('g_idx')}; {shape[0]} words of {per_word} inputs "
                "were expected"
            )
        width = stated
    size = check_group_size(group_size, width, layer)
    size = None if size is not None and size >= width else size
    groups = -(-width // size) if size else 1
    if settings.get("desc_act") and not settings.get("static_groups") and groups > 1 and not layer.has("g_idx"):
        raise layer.error(f"desc_act=True, and the tensor {layer.name('g_idx')} is missing")
    layer.check("qweight", shape, "int32", "uint32")
    layer.check("scales", (groups, units), "float")
    layer.check("qzeros", (groups, -(-units // per_word)), "int32", "uint32")
    zeros = _zeros(layer, bits, units, version)
    g_idx = layer.read("g_idx") if layer.has("g_idx") else np.arange(width) // (size or max(width, 1))
    order = sorted_by_group(g_idx, groups, size, width, layer)
    stored = 4 if bits == 2 else bits
    scheme = Scheme(
        bits=stored,
        group_size=size,
        offsets="zeros" if zeros.any() else None,
        ordered=order is not None,
        scale_dtype=layer.scale_dtype("scales"),
    )

    def read() -> Parts:
        q = low_first(np.asarray(layer.read("qweight")), bits, 0, width)
        q = signed(q, bits)
        parts = {
            "weights": pack(q if order is None else q[order], scheme),
            "scales": layer.read_scales("scales", scheme.scale_dtype),
        }
        if scheme.offsets:
            parts["zeros"] = zeros
        return parts if order is None else {**parts, "order": order}

    return PackedTensor(scheme, (units, width), read)


def _zeros(layer: LayerTensors, bits: int, units: int, version: str) -> np.ndarray:
    """Zeros as signed numbers like q, int8 (groups, out)."""
    words = np.ascontiguousarray(layer.read("qzeros")).view(np.uint32)
    if version == "gptq":
        # As one sum over the word, which undoes the subtraction with its carries that wrote the file.
        words = words + np.uint32(sum(1 << shift for shift in range(0, 32, bits)))
    return np.ascontiguousarray(signed(low_first(words, bits, 1, units), bits))
