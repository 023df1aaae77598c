"""Low-rank adapters (LoRA): fine-tune a model by small matrices beside its frozen ones.

Adapters have files of their own, in the layout of the PEFT library (`adapter_config.json`,
`adapter_model.safetensors`): adapters trained here load there, and the other way round.

    report = add_lora(model, r"\\.(q|v)_proj$", rank=8, alpha=16)
    model.compile(keras.optimizers.AdamW(1e-3))
    model.fit(data)
    save_adapter(model, "my-adapter")
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from keras import ops

from tfmodels.checkpoints import writer
from tfmodels.checkpoints.formats.safetensors import SafetensorsFile
from tfmodels.layers.lora import LoraAdapter, LoraConfig
from tfmodels.models.adapters import (
    LoraReport,
    adapted_layers,
    add_lora,
    config_of,
    linear_layers,
    lora_report,
    merge_lora,
    named_layers,
    unmerge_lora,
    whole_slots,
)
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.training.adapter_files import CONFIG_NAME, WEIGHTS_NAME, read_settings
from tfmodels.utils.files import staged
from tfmodels.utils.json_files import write_object
from tfmodels.utils.text import some
from tfmodels.utils.warn import warn

__all__ = [
    "LoraAdapter",
    "LoraConfig",
    "LoraReport",
    "add_lora",
    "load_adapter",
    "lora_report",
    "merge_lora",
    "save_adapter",
    "unmerge_lora",
]

_PREFIX = "base_model.model."


def save_adapter(model: TFPreTrainedModel, folder: str | os.PathLike) -> None:
    """Write a model's adapters, and the layers trained whole, in PEFT's layout.

    Adapters that make up for the rounding of packed weights say so in their `loftq_config`.

    Args:
        model: with adapters, merged or not.
        folder: made if needed; gets `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        ValueError: the model has no adapters.
    """
    config = config_of(model)
    arrays = {}
    for name, layer in adapted_layers(model).items():
        arrays[f"{name}.lora_A.weight"] = np.ascontiguousarray(ops.convert_to_numpy(layer.adapter.lora_a).T)
        arrays[f"{name}.lora_B.weight"] = np.ascontiguousarray(ops.convert_to_numpy(layer.adapter.lora_b).T)
    report = lora_report(model)
    for name, slot in whole_slots(model, report.fully).items():
        values = ops.convert_to_numpy(slot.variable.value)
        arrays[name] = np.ascontiguousarray(values.T if slot.transposed else values)
    tensors = [
        (_PREFIX + name, writer.TensorSpec(array.shape, array.dtype.name), lambda array=array: array)
        for name, array in sorted(arrays.items())
    ]
    values = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(report.layers),
        "modules_to_save": list(report.fully) or None,
        "loftq_config": {} if config.loftq_bits is None else {"loftq_bits": config.loftq_bits},
    }
    with staged(folder) as stage:
        writer.write_tensors(stage.folder / WEIGHTS_NAME, tensors)
        write_object(stage.folder / CONFIG_NAME, values)


def load_adapter(model: TFPreTrainedModel, folder: str | os.PathLike) -> LoraReport:
    """Add adapters from a file to a model, to use, train further or merge.

    Adapters that make up for the rounding of packed weights (`add_lora` before `quantize`, or LoftQ in PEFT) belong
    beside those: a model with float weights gets them with a warning.

    Args:
        model: of the architecture that the adapters were trained for, without adapters of its own.
        folder: written by `save_adapter` or PEFT.

    Returns:
        The adapted layers and the number of trained parameters.

    Raises:
        FileNotFoundError: no adapter there.
        ValueError: another kind of adapter, one with settings that do not exist here, or one for another architecture;
            the message names what does not fit.
    """
    folder = Path(folder)
    values = read_settings(folder)
    tensors = _read(folder)
    pairs = {name.rsplit(".lora_", 1)[0] for name in tensors if ".lora_" in name}
    whole = sorted({name.rsplit(".", 1)[0] for name in tensors if ".lora_" not in name})
    there, layers = linear_layers(model), named_layers(model)
    strange = sorted((pairs - set(there)) | (set(whole) - set(layers)))
    ranks = {name: tensors[f"{name}.lora_A.weight"].shape[0] for name in pairs if f"{name}.lora_A.weight" in tensors}
    shapes = {}
    for name in sorted(pairs & set(there)):
        shapes[f"{name}.lora_A.weight"] = (values["r"], there[name].width)
        shapes[f"{name}.lora_B.weight"] = (there[name].units, values["r"])
    shapes |= {name: slot.shape for name, slot in whole_slots(model, whole).items()}
    wrong = [
        f"{name} {None if name not in tensors else tuple(tensors[name].shape)} where {shape} was expected"
        for name, shape in shapes.items()
        if name not in tensors or tuple(tensors[name].shape) != tuple(shape)
    ]
    if not ranks or strange or wrong:
        problems = [f"layers that the model lacks: {some(strange)}"] if strange else []
        problems += [f"other shapes: {some(wrong)}"] if wrong else []
        raise ValueError(
            f"the adapter in {folder} does not fit {type(model).__name__}: {'; '.join(problems) or 'it is empty'}."
        )
    alpha = values["lora_alpha"] * (values["r"] ** 0.5 if values["use_rslora"] else 1)
    report = add_lora(
        model,
        sorted(pairs),
        rank=values["r"],
        alpha=alpha,
        dropout=values["lora_dropout"],
        train_fully=whole or None,
    )
    for name, layer in adapted_layers(model).items():
        layer.adapter.lora_a.assign(tensors[f"{name}.lora_A.weight"].astype("float32").T)
        layer.adapter.lora_b.assign(tensors[f"{name}.lora_B.weight"].astype("float32").T)
    for name, slot in whole_slots(model, whole).items():
        slot.variable.assign(tensors[name].T if slot.transposed else tensors[name])
    bits = values["loftq_bits"]
    model.lora_config = dataclasses.replace(model.lora_config, loftq_bits=bits)
    if bits is not None and model.quantization is None:
        warn(
            f"the adapter in {folder} makes up for weights rounded to {bits} bits (its loftq_config), and "
            f"{model.name} has float weights, for which it is wrong: load the packed model that was saved with it."
        )
    return report


def _read(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of an adapter file, under the names of their layers."""
    file = SafetensorsFile(folder / WEIGHTS_NAME)
    strange = [name for name in file.tensors if not name.startswith(_PREFIX)]
    if strange:
        raise ValueError(f"{folder / WEIGHTS_NAME} holds {some(strange)}; names that begin {_PREFIX!r} were expected.")
    return {name.removeprefix(_PREFIX): np.array(file.read(name)) for name in file.tensors}
