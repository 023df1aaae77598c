"""Low-rank adapters in whole models: adding, counting and merging them, and describing them for `.keras` files."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfmodels.checkpoints.weight_map import slots_of, walk
from tfmodels.layers.linear import Linear
from tfmodels.layers.lora import LoraAdapter, LoraConfig
from tfmodels.layers.quantized import parameters_of
from tfmodels.models.quantization import mode_of
from tfmodels.runtime.sub_layers import all_layers
from tfmodels.utils.text import is_found, quote, some


@dataclasses.dataclass(frozen=True)
class LoraReport:
    """The trained part of a model with adapters.

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
        """The number of adapted layers, and the names of those trained whole, as text."""
        text = f"{len(self.layers)} adapted layers"
        return f"{text} and {', '.join(self.fully)}" if self.fully else text


def add_lora(
    model: keras.Model,
    targets: str | Sequence[str],
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    train_fully: str | Sequence[str] | None = None,
) -> LoraReport:
    """Freeze a model and put an adapter beside each dense layer whose name fits. Compile the model after it.

    Names are those of checkpoints: `model.layers.0.self_attn.q_proj`. A model may be quantised before, which leaves
    its outputs as they are (QLoRA, Dettmers et al., https://arxiv.org/abs/2305.14314), or after: adapters beside
    packed weights then begin with what rounding has lost, and train to a lower loss on four bits (see `quantize`).

    Args:
        model: any model; its outputs stay what they are until the adapters are trained.
        targets: regular expression that is searched in the names, or a list of whole names.
        rank, alpha, dropout: see `LoraConfig`.
        train_fully: layers that are trained whole beside, such as a fresh head's "^score$"; as `targets`.

    Returns:
        What will be trained; prints as a line.

    Raises:
        TypeError: `model` is no model, `targets` or `train_fully` neither a text nor a list of texts, or `alpha` or
            `dropout` no number.
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
    if not isinstance(model, keras.Model):
        raise TypeError(f"model={quote(model)}; a model was expected.")
    if getattr(model, "lora_config", None) is not None:
        raise ValueError(f"{model.name} has adapters already: {model.lora_config}.")
    for name, value in {"alpha": alpha, "dropout": dropout}.items():
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise TypeError(f"{name}={quote(value)}; a number was expected.")
    fixed = None if train_fully is None else _fixed("train_fully", train_fully)
    config = LoraConfig(_fixed("targets", targets), rank, float(alpha), float(dropout), fixed)
    chosen = _matching("targets", config.targets, linear_layers(model))
    fully = _matching("train_fully", config.train_fully, named_layers(model)) if config.train_fully else {}
    both = sorted(set(chosen) & set(fully))
    if both:
        raise ValueError(f"targets and train_fully both name {', '.join(both)}; each layer is trained in one way.")
    quantised = [name for name, layer in fully.items() if any(mode_of(inner) for inner in all_layers(layer))]
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


def lora_report(model: keras.Model) -> LoraReport:
    """Report the trained part of a model with adapters."""
    config = config_of(model)
    fully = _matching("train_fully", config.train_fully, named_layers(model)) if config.train_fully else {}
    return LoraReport(
        tuple(adapted_layers(model)),
        tuple(fully),
        parameters_of(model, model.trainable_weights),
        parameters_of(model, model.weights),
    )


def merge_lora(model: keras.Model) -> None:
    """Add the adapters' products to the kernels: the same outputs at the cost of the plain model.

    `save_pretrained` then writes the fine-tuned model.

    Raises:
        ValueError: the model has no adapters, they are merged already, or it is quantised.
    """
    if model.quantization is not None:
        raise ValueError(
            f"{model.name} is quantised ({model.quantization}): its kernels cannot take the adapters' part. "
            "Leave the adapters unmerged: they work beside the kernels, and save_adapter writes them."
        )
    _move(model, into=True)


def unmerge_lora(model: keras.Model) -> None:
    """Undo `merge_lora`, up to rounding in the kernels' dtype.

    Raises:
        ValueError: the model has no adapters, or they are not merged.
    """
    _move(model, into=False)


def _move(model: keras.Model, into: bool) -> None:
    config_of(model)
    layers = adapted_layers(model)
    if any(layer.adapter.merged == into for layer in layers.values()):
        raise ValueError(f"the adapters of {model.name} are {'merged already' if into else 'not merged'}.")
    for layer in layers.values():
        change = layer.adapter.change()
        kernel = ops.cast(layer.kernel, "float32")
        layer.kernel.assign(ops.cast(kernel + change if into else kernel - change, layer.kernel.dtype))
        layer.adapter.merged = into
    model.forget_compiled()


# Configurations, for `.keras` files and copies ------------------------------------------------------------------


def adapter_settings(model: keras.Model) -> dict[str, Any]:
    """Settings from which `restore_adapters` gives a fresh model the same adapters, as JSON values."""
    merged = any(layer.adapter.merged for layer in adapted_layers(model).values())
    return {**dataclasses.asdict(config_of(model)), "merged": merged}


def restore_adapters(model: keras.Model, settings: Mapping[str, Any]) -> None:
    """Add adapters by `adapter_settings`; their weights are loaded later, with the model's own."""
    settings = dict(settings)
    merged, bits = settings.pop("merged"), settings.pop("loftq_bits", None)
    add_lora(model, settings.pop("targets"), **settings)
    model.lora_config = dataclasses.replace(model.lora_config, loftq_bits=bits)
    for layer in adapted_layers(model).values():
        layer.adapter.merged = merged


# Layers and their names ----------------------------------------------------------------------------------------


def named_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
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


def linear_layers(model: keras.Model) -> dict[str, Linear]:
    """Dense layers that can take an adapter, by their names in checkpoints."""
    return {name: layer for name, layer in named_layers(model).items() if isinstance(layer, Linear)}


def adapted_layers(model: keras.Model) -> dict[str, Linear]:
    """Dense layers that have an adapter, by their names in checkpoints."""
    return {name: layer for name, layer in linear_layers(model).items() if layer.adapter is not None}


def whole_slots(model: keras.Model, names: Sequence[str]) -> dict[str, Any]:
    """Weights of the layers that are trained whole, by their names in files."""
    slots = model.stored_names(slots_of(model))
    return {name: slot for name, slot in slots.items() if name.rsplit(".", 1)[0] in names}


def _matching(
    argument: str, pattern: str | tuple[str, ...], layers: Mapping[str, keras.layers.Layer]
) -> dict[str, keras.layers.Layer]:
    if isinstance(pattern, str):
        chosen = {name: layer for name, layer in layers.items() if is_found(pattern, name, argument)}
        missing = [] if chosen else [pattern]
    else:
        chosen = {name: layers[name] for name in pattern if name in layers}
        missing = [name for name in pattern if name not in layers]
    if missing:
        raise ValueError(f"{argument}={some(missing)} fits no layer; there are {some(layers)}.")
    return chosen


def _adapt(layer: Linear, config: LoraConfig) -> None:
    # Half-precision weights would swallow an adapter's small steps; nor is it quantised with its layer.
    compute = layer.compute_dtype
    policy = keras.DTypePolicy(compute if compute == "float32" else f"mixed_{compute}")
    layer.set_adapter(LoraAdapter(layer.width, layer.units, config, dtype=policy, name="adapter"))


def config_of(model: keras.Model) -> LoraConfig:
    """The settings of a model's adapters; ValueError where it has none."""
    config = getattr(model, "lora_config", None)
    if config is None:
        raise ValueError(f"{model.name} has no adapters; add_lora or load_adapter puts them in.")
    return config


def _fixed(argument: str, names: str | Sequence[str]) -> str | tuple[str, ...]:
    """A pattern, or names that can no longer change."""
    if isinstance(names, str):
        return names
    listed = tuple(names) if isinstance(names, Iterable) and not isinstance(names, bytes) else (None,)
    if not all(isinstance(name, str) for name in listed):
        raise TypeError(
            f"{argument}={quote(names)}; a regular expression that is searched in the names of layers, or a list of "
            "whole names, was expected."
        )
    return listed
