"""Keras's weight quantization, for whole models."""

from __future__ import annotations

import json
import warnings
from typing import Any

import keras

from tfmodels.checkpoints.weight_map import walk
from tfmodels.runtime.fork import check_not_forked
from tfmodels.runtime.gc import quick_collections
from tfmodels.runtime.sub_layers import all_layers


class QuantizedModel(keras.Model):
    """A model whose weights `quantize` turns into int8 or int4."""

    def quantize(self, *arguments: Any, **options: Any) -> None:
        """Quantise the weights in place, for inference, as Keras does; `save_pretrained` does not write such weights.

        Args:
            *arguments, **options: as in `keras.Model.quantize`: "int8" or "int4", or a `config`.
                `config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)` quantises weights and not
                activations, which is closer to the unquantised model and suits decoding on a GPU.

        Raises:
            ValueError: the model has adapters (quantise it before `add_lora`), or computes in float16.
            RuntimeError: this process was forked from one that has made or used a model.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> model.quantize("int8")
            >>> model.quantization, model.get_input_embeddings().embeddings.dtype
            ('int8', 'int8')
        """
        check_not_forked()
        if self.lora_config is not None:
            raise ValueError(
                f"{self.name} has adapters: quantise it before add_lora, which then leaves them as they are."
            )
        with warnings.catch_warnings(), quick_collections():
            # Keras warns of every norm and dropout, which have nothing to quantise.
            warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
            super().quantize(*arguments, **options)
        self.forget_compiled()

    @property
    def quantization(self) -> str | None:
        """Modes that weights are quantised by, separated by commas: "int8", "int4"; None where none is."""
        modes = {getattr(layer, "quantization_mode", None) for layer in all_layers(self)} - {None}
        return ", ".join(sorted(modes)) or None


def quantized_parts(model: keras.Model) -> list[dict[str, Any]]:
    """The quantised layers of a model by mode: arguments of `quantize_part`, as JSON values."""
    parts: dict[str, dict[str, Any]] = {}
    for path, layer in walk(model):
        if mode := getattr(layer, "quantization_mode", None):
            part = {"mode": mode, "config": keras.saving.serialize_keras_object(layer.quantization_config)}
            parts.setdefault(json.dumps(part, sort_keys=True), {**part, "layers": []})["layers"].append(path)
    return list(parts.values())


def quantize_part(model: keras.Model, mode: str, config: Any, layers: list[str]) -> None:
    """Quantise the layers at some paths of a model, as one entry of `quantized_parts` says."""
    chosen = {id(layer) for path, layer in walk(model) if path in layers}
    config = keras.saving.deserialize_keras_object(config)
    model.quantize(mode, config=config, filters=lambda layer: id(layer) in chosen)
