"""Write a model's weights and configuration as a folder that `from_pretrained` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from keras import ops

from tfmodels.checkpoints import quantized_names, writer
from tfmodels.checkpoints.files import DTYPES
from tfmodels.checkpoints.quantized import writing
from tfmodels.checkpoints.tensor_copy import to_array
from tfmodels.checkpoints.weight_map import WeightSlot, head_layer, slots_of
from tfmodels.dtypes import dtype_name
from tfmodels.utils.files import Staged


def save_model(model: Any, stage: Staged, *, max_shard_size: str | int) -> None:
    """Write weights as safetensors and `config.json` into a staged folder; see `TFPreTrainedModel.save_pretrained`."""
    stored = model.stored_names(slots_of(model))
    dtypes = [dtype_name(slot.variable.dtype) for slot in stored.values() if slot.packed is None]
    writer.write_checkpoint(stage, _tensors(stored), max_shard_size=max_shard_size)
    architecture = type(model).__name__.removeprefix("TF")
    config = model.config.replace(architectures=[architecture], dtype=dtypes[0] if dtypes else model.compute_dtype)
    for name in quantized_names.SETTINGS:
        if hasattr(config, name):
            delattr(config, name)
    if any(slot.packed is not None and not slot.is_table for slot in stored.values()):
        config = type(config).from_dict({**config.to_dict(), "quantization_config": _quantization(model, stored)})
    config.save_pretrained(stage.folder)


def check_writable(model: Any) -> None:
    """Make sure that a model's packed weights have a place in files.

    Raises:
        ValueError: they have not; the message names a layer and what is in the way.
    """
    for name, slot in model.stored_names(slots_of(model)).items():
        held = slot.packed is not None and not slot.is_table
        problem = writing.unwritable(slot.packed.scheme) if held else None
        if problem is not None:
            raise ValueError(
                f"{name} cannot be written as compressed-tensors: its scheme ({slot.packed.scheme}) has {problem}. "
                "Keep the file that it was read from, or save the model as .keras."
            )


def _tensors(stored: Mapping[str, WeightSlot]) -> Iterator[tuple[str, writer.TensorSpec, Callable[[], np.ndarray]]]:
    for name, slot in stored.items():
        if (packed := slot.packed) is not None and slot.is_table:
            # Other libraries have no place for quantised tables: as floats, the numbers that the model computes with.
            dtype = packed.variable_dtype
            yield name, writer.TensorSpec(slot.shape, dtype), _table_of(packed, dtype)
        elif packed is not None:
            layer = name.removesuffix(".weight")
            yield from writing.tensors(layer, packed.scheme, packed.width, packed.units, packed.arrays)
        else:
            yield name, writer.TensorSpec(slot.shape, dtype_name(slot.variable.dtype)), values_of(slot)


def _table_of(packed: Any, dtype: str) -> Callable[[], np.ndarray]:
    return lambda: packed.dequantized().T.astype(DTYPES[dtype])


def _quantization(model: Any, stored: Mapping[str, WeightSlot]) -> dict[str, Any]:
    """The `quantization_config` of a model with packed weights."""
    layers = {name.removesuffix(".weight"): slot for name, slot in stored.items() if name.endswith(".weight")}
    packed = {name: slot.packed.scheme for name, slot in layers.items() if slot.packed and not slot.is_table}
    plain = [name for name, slot in layers.items() if slot.packed is None and slot.transposed]
    if model.ties_embeddings and model.config.tie_word_embeddings and model.weight_map.tied:
        plain.append(model.weight_map.tied[0].removesuffix(".weight"))  # a dense layer of its own in other libraries
    # Heads have one name in files and another in models of other libraries.
    others = {name: bare for name in layers if head_layer(bare := model.weight_map.bare_name(f"{name}.")[:-1])}
    return writing.settings(packed, plain, others)


def values_of(slot: WeightSlot) -> Callable[[], np.ndarray]:
    """Return a function that gives a slot's values in the file's order of axes."""

    def values() -> np.ndarray:
        array = ops.convert_to_numpy(slot.variable.value)
        return to_array(array, dtype=array.dtype.name, transpose=True) if slot.transposed else array

    return values
