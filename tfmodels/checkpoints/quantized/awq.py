"""AWQ checkpoints of the GEMM version, as AutoAWQ writes them (Lin et al., https://arxiv.org/abs/2306.00978).

`qweight` and `qzeros` are packed along the outputs, eight to a word in an order of their own. Where a layer follows an
activation, the file may divide that activation's results by numbers of their own (`act.scales`).
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

# The place in a word of each of its eight outputs.
_PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])
_PARTS = ("qweight", "qzeros", "scales")
_DIVISORS = ".act.scales"
# The layers that read what an activation gives, by what families call them.
_AFTER_ACTIVATION = ("down_proj", "dense_4h_to_h", "c_proj", "fc_out")


def find(settings: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, PackedTensor], set[str]]:
    """The quantised layers of a checkpoint, and the names of their tensors.

    Args:
        settings: `quantization_config`.

    Raises:
        CheckpointError: settings or tensors that cannot be, or another version than GEMM.
    """
    where = checkpoint.folder
    bits = settings.get("bits", settings.get("w_bit"))
    if bits != 4:
        raise CheckpointError(f"{where}: AWQ with bits={quote(bits)}; 4 can be read.")
    # AutoAWQ says "version", GPTQModel "checkpoint_format" or "format".
    stated = (settings.get(name) for name in ("version", "checkpoint_format", "format"))
    version = str(next((one for one in stated if one is not None), "gemm")).lower()
    if version != "gemm":
        raise CheckpointError(
            f"{where}: AWQ of the version {quote(version)}; gemm can be read. Quantise the original checkpoint with "
            "version='GEMM' in AutoAWQ."
        )
    group_size = settings.get("group_size", settings.get("q_group_size"))
    divisors, used = _divisors(checkpoint)
    found = {}
    for name in layers_with(checkpoint, "qweight"):
        layer = LayerTensors(checkpoint, name, "AWQ")
        found[f"{name}.weight"] = _tensor(layer, group_size, divisors.pop(name, None))
        used |= {layer.name(part) for part in _PARTS if layer.has(part)}
    if divisors:
        layer_name, source = next(iter(divisors.items()))
        raise CheckpointError(
            f"{where}: {source} divides the inputs of {layer_name}, whose weights are not quantised; such files "
            "cannot be read."
        )
    return found, used


def _divisors(checkpoint: Checkpoint) -> tuple[dict[str, str], set[str]]:
    """The layers whose inputs are divided -> the tensors of divisors; and those tensors."""
    sources = [name for name in checkpoint.names() if name.endswith(_DIVISORS)]
    layers = {name.rsplit(".", 1)[0] for name in checkpoint.names()}
    found = {}
    for source in sources:
        parent = source.removesuffix(_DIVISORS)
        readers = [f"{parent}.{child}" for child in _AFTER_ACTIVATION if f"{parent}.{child}" in layers]
        if len(readers) != 1:
            raise CheckpointError(
                f"{checkpoint.folder}: {source} divides what an activation gives; no layer of {parent} that reads it "
                f"is known (one of {', '.join(_AFTER_ACTIVATION)} was expected)."
            )
        found[readers[0]] = source
    return found, set(sources)


def _tensor(layer: LayerTensors, group_size: Any, divisors: str | None) -> PackedTensor:
    shape = layer.matrix("qweight")
    width, units = shape[0], shape[1] * 8
    size = check_group_size(group_size, width, layer, whole=True)
    groups = width // size if size else 1
    layer.check("qweight", shape, "int32", "uint32")
    layer.check("scales", (groups, units), "float")
    if layer.has("qzeros"):
        layer.check("qzeros", (groups, shape[1]), "int32", "uint32")
        zeros = _in_order(layer.read("qzeros"))
    else:
        raise layer.error(f"the tensor {layer.name('qzeros')} is missing")
    if divisors is not None:
        info = layer.checkpoint.info(divisors)
        if tuple(info.shape) != (width,) or "float" not in info.dtype:
            raise layer.error(f"{divisors} is {info.dtype} {tuple(info.shape)}; floats ({width},) were expected")
    scheme = Scheme(
        bits=4,
        group_size=size,
        offsets="zeros" if zeros.any() else None,
        divided=divisors is not None,
        scale_dtype=layer.scale_dtype("scales"),
    )

    def read() -> Parts:
        parts = {
            "weights": pack(_in_order(layer.read("qweight")), scheme),
            "scales": layer.read_scales("scales", scheme.scale_dtype),
        }
        if scheme.offsets:
            parts["zeros"] = zeros
        if divisors is not None:
            values = np.asarray(layer.checkpoint.read(divisors)).astype(np.float32)
            if not (np.isfinite(values) & (values != 0)).all():
                raise layer.error(f"{divisors} holds zeros or numbers that are not finite")
            parts["divisors"] = values
        return parts

    return PackedTensor(scheme, (units, width), read)


def _in_order(words: np.ndarray) -> np.ndarray:
    """Signed numbers (rows, out) of packed words (rows, out / 8)."""
    numbers = low_first(np.asarray(words), 4, 1, words.shape[1] * 8)
    numbers = numbers.reshape(len(numbers), -1, 8)[:, :, _PLACES]
    return np.ascontiguousarray(signed(np.ascontiguousarray(numbers), 4).reshape(len(numbers), -1))
