"""Write a model's weights and configuration as a folder that `from_pretrained` reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from tfmodels.checkpoints import writer
from tfmodels.checkpoints.tensor_copy import to_array
from tfmodels.checkpoints.weight_map import WeightSlot, slots_of
from tfmodels.dtypes import dtype_name
from tfmodels.utils.files import Staged


def save_model(model: Any, stage: Staged, *, max_shard_size: str | int) -> None:
    """Write weights as safetensors and `config.json` into a staged folder; see `TFPreTrainedModel.save_pretrained`."""
    slots = slots_of(model)
    dtype = dtype_name(next(iter(slots.values())).variable.dtype)
    tensors = (
        (name, writer.TensorSpec(slot.shape, dtype_name(slot.variable.dtype)), values_of(slot))
        for name, slot in model.stored_names(slots).items()
    )
    writer.write_checkpoint(stage, tensors, max_shard_size=max_shard_size)
    architecture = type(model).__name__.removeprefix("TF")
    model.config.replace(architectures=[architecture], dtype=dtype).save_pretrained(stage.folder)


def values_of(slot: WeightSlot) -> Callable[[], np.ndarray]:
    """Return a function that gives a slot's values in the file's order of axes."""

    def values() -> np.ndarray:
        array = ops.convert_to_numpy(slot.variable.value)
        return to_array(array, dtype=array.dtype.name, transpose=True) if slot.transposed else array

    return values
