"""The methods of quantisation whose checkpoints are read without making floats of them; one line per method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tfmodels.checkpoints import hub, quantized_names
from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.quantized import awq, compressed_tensors, fp8, gguf_blocks, gptq, mlx
from tfmodels.checkpoints.quantized.packed import PackedCheckpoint, PackedTensor
from tfmodels.checkpoints.reader import Checkpoint
from tfmodels.utils.json_files import read_object
from tfmodels.utils.text import quote, shorten

Find = Callable[[Mapping[str, Any], Checkpoint], tuple[dict[str, PackedTensor], set[str]]]

METHODS: dict[str, Find] = {
    "gptq": gptq.find,
    "awq": awq.find,
    "compressed-tensors": compressed_tensors.find,
    "fp8": fp8.find,
    "MLX": mlx.find,
}
_OLD_FILES = dict(zip(hub.QUANTIZATION_FILES, ("gptq", "awq"), strict=True))


def as_packed(config: Any, checkpoint: Checkpoint, *, keep_gguf: bool = False) -> PackedCheckpoint:
    """A checkpoint with its quantised layers as single tensors, where the configuration names a method that is read.

    Without such a method, or without tensors of its kind, no layer is taken for quantised.

    Args:
        keep_gguf: whether matrices of a GGUF file stay quantised where that loses nothing.

    Raises:
        CheckpointError: the settings or tensors of the method cannot be.
    """
    if keep_gguf:
        return PackedCheckpoint(checkpoint, *gguf_blocks.find(checkpoint))
    settings, method = quantized_names.settings_of(config), quantized_names.method_of(config)
    if method is None and any(name.endswith(".qweight") for name in checkpoint.names()):
        settings, method = _from_old_files(checkpoint)
    find = METHODS.get(method) if isinstance(method, str) else None
    found, used = find(settings, checkpoint) if find is not None else ({}, set())
    return PackedCheckpoint(checkpoint, found, used)


def _from_old_files(checkpoint: Checkpoint) -> tuple[dict[str, Any], str | None]:
    for name, method in _OLD_FILES.items():
        path = checkpoint.folder / name
        if path.is_file():
            try:
                settings = read_object(path)
            except (OSError, ValueError) as error:
                raise CheckpointError(shorten(error)) from error
            stated = settings.get("quant_method", method)
            if stated not in METHODS:
                raise CheckpointError(f"{path}: quant_method={quote(stated)}; {' or '.join(METHODS)} can be read.")
            return settings, stated
    return {}, None
