"""Low-rank adapters (LoRA): fine-tune a model by small matrices beside its frozen ones.

Adapters are stored alone, in the layout of the PEFT library (`adapter_config.json`, `adapter_model.safetensors`), so
that what is trained here loads there and the other way round.

    report = add_lora(model, r"\\.(q|v)_proj$", rank=8, alpha=16)
    model.compile(keras.optimizers.AdamW(1e-3))
    model.fit(data)
    save_adapter(model, "my-adapter")
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.checkpoints import writer
from tfmodels.checkpoints.formats.safetensors import SafetensorsFile
from tfmodels.checkpoints.weight_map import slots_of, walk
from tfmodels.layers.linear import Linear
from tfmodels.models.base import TFPreTrainedModel
from tfmodels.utils.json_files import write_object

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Settings of PEFT that change what an adapter computes, with the values that mean they are off.
_UNSUPPORTED = {
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "alpha_pattern": (None, {}),
    "fan_in_fan_out": (None, False),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "use_qalora": (None, False),
}


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """What `add_lora` was asked for.

    Fields:
        targets: the adapted layers: a regular expression searched in their names, or the names themselves.
        rank: width of the adapters.
        alpha: the adapters' product is multiplied by alpha / rank.
        dropout: share of an adapter's inputs dropped in training.
        train_fully: the layers trained whole beside, as `targets`; None for none.
    """

    targets: str | tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    train_fully: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank={self.rank!r}; a whole number above 0 was expected.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r}; a share from 0 to below 1 was expected.")


@dataclasses.dataclass(frozen=True)
class LoraReport:
    """What is trained.

    Fields:
        layers: names of the adapted layers, as checkpoints call them.
        fully: names of the layers that are trained whole.
        trainable, total: numbers of parameters, adapters included.
    """

    layers: tuple[str, ...]
    fully: tuple[str, ...]
    trainable: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.trainable / self.total
        return f"{self.trainable:,} of {self.total:,} parameters are trained ({share:.2f} %), in {self.count_text()}"

    def count_text(self) -> str:
        """How many layers of which kind."""
        text = f"{len(self.layers)} adapted layers"
        return f"{text} and {', '.join(self.fully)}" if self.fully else text


class LoraAdapter(keras.layers.Layer):
    """Two matrices, in float32 whatever the layer beside them has, and their product's scale.

    Source:
        Hu et al., https://arxiv.org/abs/2106.09685.
    """

    def __init__(self, width: int, units: int, config: LoraConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = config.alpha / config.rank
        self.merged = False
        self.dropout = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy, name="dropout")
        spread = keras.initializers.RandomUniform(-(width**-0.5), width**-0.5)
        self.lora_a = self.add_weight(shape=(width, config.rank), initializer=spread, name="lora_a")
        self.lora_b = self.add_weight(shape=(config.rank, units), initializer="zeros", name="lora_b")
        self.dropout.build((None, width))
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.matmul(ops.matmul(self.dropout(inputs), self.lora_a), self.lora_b) * self.scale

    def change(self) -> Any:
        """What it adds to the kernel, float32 (width, units)."""
        return ops.matmul(ops.cast(self.lora_a, "float32"), ops.cast(self.lora_b, "float32")) * self.scale


class LoraLinear(Linear):
    """A dense layer with an adapter beside its kernel. Layers become it where they stand, under their old names."""

    adapter: LoraAdapter

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self._adapted(inputs, super().call(inputs, training=training))

    def quantized_call(self, inputs: Any, training: bool | None = None) -> Any:
        return self._adapted(inputs, super().quantized_call(inputs, training=training))

    def _adapted(self, inputs: Any, outputs: Any) -> Any:
        return outputs if self.adapter.merged else outputs + ops.cast(self.adapter(inputs), outputs.dtype)


def add_lora(
    model: TFPreTrainedModel,
    targets: str | Sequence[str],
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    train_fully: str | Sequence[str] | None = None,
) -> LoraReport:
    """Freeze a model and put an adapter beside each dense layer whose name fits. Compile the model after it.

    Names are those of checkpoints: `model.layers.0.self_attn.q_proj`. A model that shall be quantised is quantised
    before (Dettmers et al., https://arxiv.org/abs/2305.14314).

    Args:
        model: any model; its outputs stay what they are until the adapters are trained.
        targets: regular expression that is searched in the names, or a list of whole names.
        rank, alpha, dropout: see `LoraConfig`.
        train_fully: layers that are trained whole beside, such as a fresh head's "^score$"; as `targets`.

    Returns:
        What will be trained; prints as a line.

    Raises:
        ValueError: nothing fits, a setting is out of range, a layer to be trained whole is quantised, or the model has
            adapters already.

    Source:
        Hu et al., https://arxiv.org/abs/2106.09685.

    Example:
        >>> from tfmodels import TFLlamaForCausalLM
        >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
        >>> print(add_lora(model, r"\\.(q|v)_proj$", rank=4))
        4,480 of 264,512 parameters are trained (1.69 %), in 10 adapted layers
    """
    if getattr(model, "lora_config", None) is not None:
        raise ValueError(f"{model.name} has adapters already: {model.lora_config}.")
    config = LoraConfig(_frozen(targets), rank, float(alpha), float(dropout), _frozen(train_fully))
    linear_layers = _linear_layers(model)
    chosen = _matching("targets", config.targets, linear_layers)
    fully = _matching("train_fully", config.train_fully, _named_layers(model)) if config.train_fully else {}
    both = sorted(set(chosen) & set(fully))
    if both:
        raise ValueError(f"targets and train_fully both name {', '.join(both)}; each layer is trained in one way.")
    quantised = [name for name, layer in fully.items() if any(x.quantization_mode for x in layer._flatten_layers())]
    if quantised:
        raise ValueError(
            f"train_fully names {', '.join(quantised)}, quantised, which cannot learn; `quantize(filters=...)` leaves "
            "layers as they are."
        )
    for variable in model.weights:
        variable.trainable = False
    for layer in chosen.values():
        _adapt(layer, config)
    for layer in fully.values():
        for variable in layer.weights:
            variable.trainable = True
    model.lora_config = config
    model.forget_compiled()
    return lora_report(model)


def lora_report(model: TFPreTrainedModel) -> LoraReport:
    """What of a model is trained; see `LoraReport`."""
    config = _config_of(model)
    fully = _matching("train_fully", config.train_fully, _named_layers(model)) if config.train_fully else {}
    return LoraReport(
        tuple(_adapters(model)),
        tuple(fully),
        sum(int(np.prod(variable.shape)) for variable in model.trainable_weights),
        sum(int(np.prod(variable.shape)) for variable in model.weights),
    )


def merge_lora(model: TFPreTrainedModel) -> None:
    """Add the adapters' products to the kernels: the same outputs at the cost of the plain model.

    What `save_pretrained` writes is then the fine-tuned model.

    Raises:
        ValueError: the model has no adapters, they are merged already, or it is quantised.
    """
    if model.quantization is not None:
        raise ValueError(
            f"{model.name} is quantised ({model.quantization}): its kernels cannot take the adapters' part."
        )
    _move(model, into=True)


def unmerge_lora(model: TFPreTrainedModel) -> None:
    """Undo `merge_lora`, up to rounding in the kernels' dtype.

    Raises:
        ValueError: the model has no adapters, or they are not merged.
    """
    _move(model, into=False)


def _move(model: TFPreTrainedModel, into: bool) -> None:
    _config_of(model)
    layers = _adapters(model)
    if any(layer.adapter.merged == into for layer in layers.values()):
        raise ValueError(f"the adapters of {model.name} are {'merged already' if into else 'not merged'}.")
    for layer in layers.values():
        change = layer.adapter.change()
        kernel = ops.cast(layer.kernel, "float32")
        layer.kernel.assign(ops.cast(kernel + change if into else kernel - change, layer.kernel.dtype))
        layer.adapter.merged = into
    model.forget_compiled()


# Files -----------------------------------------------------------------------------------------------------------


def save_adapter(model: TFPreTrainedModel, folder: str | os.PathLike) -> None:
    """Write a model's adapters, and the layers trained whole, as PEFT lays them out.

    Args:
        model: with adapters, merged or not.
        folder: made if needed; gets `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        ValueError: the model has no adapters.
    """
    config, folder = _config_of(model), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, layer in _adapters(model).items():
        arrays[f"{name}.lora_A.weight"] = np.ascontiguousarray(ops.convert_to_numpy(layer.adapter.lora_a).T)
        arrays[f"{name}.lora_B.weight"] = np.ascontiguousarray(ops.convert_to_numpy(layer.adapter.lora_b).T)
    report = lora_report(model)
    for name, slot in _whole_slots(model, report.fully).items():
        values = ops.convert_to_numpy(slot.variable.value)
        arrays[name] = np.ascontiguousarray(values.T if slot.transposed else values)
    tensors = [
        (_PREFIX + name, writer.TensorSpec(array.shape, array.dtype.name), lambda array=array: array)
        for name, array in sorted(arrays.items())
    ]
    with tempfile.TemporaryDirectory(dir=folder) as work:
        (written,) = writer.write_checkpoint(work, tensors)
        os.replace(written, folder / WEIGHTS_NAME)
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
    }
    write_object(folder / CONFIG_NAME, values)


def load_adapter(model: TFPreTrainedModel, folder: str | os.PathLike) -> LoraReport:
    """Put adapters from a file beside a model's layers; they can be trained on, merged, or just used.

    Args:
        model: of the architecture that the adapters were trained for, without adapters of its own.
        folder: what `save_adapter` or PEFT wrote.

    Returns:
        What was adapted.

    Raises:
        FileNotFoundError: no adapter there.
        ValueError: another kind of adapter, one with settings that do not exist here, or one for another architecture;
            the message names what does not fit.
    """
    folder = Path(folder)
    if not (folder / CONFIG_NAME).is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG_NAME}: it is no adapter.")
    values = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    _check_settings(values, folder)
    tensors = _read(folder)
    pairs = {name.rsplit(".lora_", 1)[0] for name in tensors if ".lora_" in name}
    whole = sorted({name.rsplit(".", 1)[0] for name in tensors if ".lora_" not in name})
    there, layers = _linear_layers(model), _named_layers(model)
    strange = sorted((pairs - set(there)) | (set(whole) - set(layers)))
    ranks = {name: tensors[f"{name}.lora_A.weight"].shape[0] for name in pairs if f"{name}.lora_A.weight" in tensors}
    shapes = {}
    for name in sorted(pairs & set(there)):
        width, units = there[name].kernel.shape
        shapes[f"{name}.lora_A.weight"] = (values["r"], width)
        shapes[f"{name}.lora_B.weight"] = (units, values["r"])
    shapes |= {name: slot.shape for name, slot in _whole_slots(model, whole).items()}
    wrong = [
        f"{name} {None if name not in tensors else tuple(tensors[name].shape)} where {shape} was expected"
        for name, shape in shapes.items()
        if name not in tensors or tuple(tensors[name].shape) != tuple(shape)
    ]
    if not ranks or strange or wrong:
        problems = [f"layers that the model lacks: {_few(strange)}"] if strange else []
        problems += [f"other shapes: {_few(wrong)}"] if wrong else []
        raise ValueError(
            f"the adapter in {folder} does not fit {type(model).__name__}: {'; '.join(problems) or 'it is empty'}."
        )
    alpha = values["lora_alpha"] * (values["r"] ** 0.5 if values.get("use_rslora") else 1)
    report = add_lora(
        model,
        sorted(pairs),
        rank=values["r"],
        alpha=alpha,
        dropout=values.get("lora_dropout") or 0.0,
        train_fully=whole or None,
    )
    for name, layer in _adapters(model).items():
        layer.adapter.lora_a.assign(tensors[f"{name}.lora_A.weight"].astype("float32").T)
        layer.adapter.lora_b.assign(tensors[f"{name}.lora_B.weight"].astype("float32").T)
    for name, slot in _whole_slots(model, whole).items():
        slot.variable.assign(tensors[name].T if slot.transposed else tensors[name])
    return report


def _check_settings(values: Mapping[str, Any], folder: Path) -> None:
    if values.get("peft_type") != "LORA":
        raise ValueError(f"{folder / CONFIG_NAME} has peft_type={values.get('peft_type')!r}; only LORA is read.")
    for name, off in _UNSUPPORTED.items():
        if values.get(name) not in off:
            raise ValueError(f"{folder / CONFIG_NAME} has {name}={values[name]!r}, which does not exist here.")
    if values.get("rank_pattern"):
        raise ValueError(f"{folder / CONFIG_NAME} has a rank_pattern; one rank for all layers was expected.")
    for name in ("r", "lora_alpha"):
        if not isinstance(values.get(name), (int, float)):
            raise ValueError(f"{folder / CONFIG_NAME} has {name}={values.get(name)!r}; a number was expected.")


def _read(folder: Path) -> dict[str, np.ndarray]:
    """An adapter's tensors under the names of the layers they belong to."""
    file = SafetensorsFile(folder / WEIGHTS_NAME)
    strange = [name for name in file.tensors if not name.startswith(_PREFIX)]
    if strange:
        raise ValueError(f"{folder / WEIGHTS_NAME} holds {_few(strange)}; names that begin {_PREFIX!r} were expected.")
    return {name.removeprefix(_PREFIX): np.array(file.read(name)) for name in file.tensors}


# As part of a model's configuration, for `.keras` files and copies --------------------------------------------------


def adapter_settings(model: TFPreTrainedModel) -> dict[str, Any]:
    """What `restore_adapters` needs to put the same adapters beside a fresh model, as JSON has it."""
    merged = any(layer.adapter.merged for layer in _adapters(model).values())
    return {**dataclasses.asdict(_config_of(model)), "merged": merged}


def restore_adapters(model: TFPreTrainedModel, settings: Mapping[str, Any]) -> None:
    """Add adapters as `adapter_settings` told them; their weights come later, with the model's own."""
    settings = dict(settings)
    merged = settings.pop("merged")
    add_lora(model, settings.pop("targets"), **settings)
    for layer in _adapters(model).values():
        layer.adapter.merged = merged


# Layers and their names ------------------------------------------------------------------------------------------


def _named_layers(model: TFPreTrainedModel) -> dict[str, keras.layers.Layer]:
    """Layers that hold weights of their own, by the names that checkpoints give them."""
    layers = dict(walk(model))
    stored = {id(slot.variable): name for name, slot in model.stored_names(slots_of(model)).items()}
    named = {}
    for layer in layers.values():
        names = [stored[id(variable)] for variable in layer.weights if id(variable) in stored]
        own = {name.rsplit(".", 1)[0] for name in names}
        if len(own) == 1:
            named[own.pop()] = layer  # the innermost, which comes last
    return named


def _linear_layers(model: TFPreTrainedModel) -> dict[str, Linear]:
    return {name: layer for name, layer in _named_layers(model).items() if isinstance(layer, Linear)}


def _adapters(model: TFPreTrainedModel) -> dict[str, LoraLinear]:
    return {name: layer for name, layer in _named_layers(model).items() if isinstance(layer, LoraLinear)}


def _whole_slots(model: TFPreTrainedModel, names: Sequence[str]) -> dict[str, Any]:
    """The weights of layers that are trained whole, by their names in files."""
    slots = model.stored_names(slots_of(model))
    return {name: slot for name, slot in slots.items() if name.rsplit(".", 1)[0] in names}


def _matching(
    argument: str, pattern: str | tuple[str, ...], layers: Mapping[str, keras.layers.Layer]
) -> dict[str, keras.layers.Layer]:
    if isinstance(pattern, str):
        chosen = {name: layer for name, layer in layers.items() if re.search(pattern, name)}
        missing = [] if chosen else [pattern]
    else:
        chosen = {name: layers[name] for name in pattern if name in layers}
        missing = [name for name in pattern if name not in layers]
    if missing:
        raise ValueError(f"{argument}={_few(missing)!r} fits no layer; there are {_few(sorted(layers), 40)}.")
    return chosen


def _adapt(layer: Linear, config: LoraConfig) -> None:
    width, units = layer.kernel.shape
    # Half-precision weights would swallow an adapter's small steps; nor is it quantised with its layer.
    compute = layer.compute_dtype
    policy = keras.DTypePolicy(compute if compute == "float32" else f"mixed_{compute}")
    layer.__class__ = LoraLinear
    # A built layer takes no more layers, unless it is asked like this; Keras does the same for its own adapters.
    layer._tracker.unlock()
    layer.adapter = LoraAdapter(width, units, config, dtype=policy, name="adapter")
    layer._tracker.lock()


def _config_of(model: TFPreTrainedModel) -> LoraConfig:
    config = getattr(model, "lora_config", None)
    if config is None:
        raise ValueError(f"{model.name} has no adapters; add_lora or load_adapter puts them in.")
    return config


def _frozen(names: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    return names if names is None or isinstance(names, str) else tuple(names)


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
