"""Quantised weights of whole models: packed ones of this package, and Keras's own."""

from __future__ import annotations

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras

from tfmodels.checkpoints import quantized_names
from tfmodels.checkpoints.quantized.scheme import Scheme, round_to_nearest
from tfmodels.checkpoints.weight_map import slots_of, walk
from tfmodels.layers.linear import HasPacked, Linear
from tfmodels.models.calibration import calibrated, to_batches
from tfmodels.models.quantization_requests import Request
from tfmodels.runtime.fork import check_not_forked
from tfmodels.runtime.gc import quick_collections
from tfmodels.runtime.sub_layers import all_layers
from tfmodels.utils.text import did_you_mean, is_found, quote, some
from tfmodels.utils.warn import warn

# Modes of packed weights -> the group size that is usual for each.
MODES: dict[str, int | str] = {"int8": "channel", "int4": 32}
# What `keras.Model.quantize` takes; it names an unknown argument and nothing near it.
_OF_KERAS = frozenset({"mode", "config", "filters", "type_check"})
_USUAL = {"int8": keras.quantizers.Int8QuantizationConfig, "int4": keras.quantizers.Int4QuantizationConfig}


class QuantizedModel(keras.Model):
    """A model whose weights `quantize` turns into int8 or int4."""

    if not TYPE_CHECKING:  # type checkers would take a model for what `__new__` returns, as it is in Keras: anything

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            model = super().__new__(cls, *args, **kwargs)
            of_keras = model.quantize  # makes a configuration of the mode, before `quantize` below sees either

            @functools.wraps(of_keras)
            def quantize(*arguments: Any, **options: Any) -> None:
                _check_mode(arguments, options)
                of_keras(*arguments, **options)

            model.quantize = quantize
            return model

    def quantize(
        self,
        *arguments: Any,
        group_size: int | str | None = None,
        symmetric: bool | None = None,
        calibration: Any = None,
        tokenizer: Any = None,
        max_length: int | None = None,
        embeddings: str | None = None,
        **options: Any,
    ) -> None:
        """Quantise the weights in place.

        With a `group_size`, `symmetric` or `calibration` the dense layers of the blocks get packed weights of this
        package: `save_pretrained` writes them, adapters train beside them. Without any of these, Keras quantises the
        model, for inference, and `save_pretrained` refuses it.

        Where `add_lora` has put adapters beside dense layers before, these take up what packing the weights loses, as
        far as their rank allows (LoftQ; with `calibration` CLoQ): training begins nearer to the float model, and the
        adapters suit these packed weights alone.

        Args:
            *arguments, **options: "int8" or "int4"; `filters`, a regular expression searched in the names that
                checkpoints give the layers, a list of those, or a function of a layer, for those that are quantised.
                For Keras as in `keras.Model.quantize`:
                `config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)` quantises weights and not
                activations, which is closer to the unquantised model and suits decoding on a GPU.
            group_size: neighbouring inputs that share a scale, an even number such as 32, 64 or 128; "channel": all
                inputs of an output share one. Default with the others: 32 for int4, "channel" for int8. A layer
                with fewer inputs is filled up to it, with a warning.
            symmetric: whether numbers lie around 0, or anywhere, with a zero point for each scale. Default: True.
            calibration: texts, rows of token ids, or a dataset with `input_ids`, some thousand tokens of the kind that
                the model will see: rounding errors are made good on them, by GPTQ. None: weights are rounded to the
                nearest.
            tokenizer: makes ids of texts in `calibration`.
            max_length: tokens of each text or row in `calibration` that are used. Default: 512.
            embeddings: "int8" or "int4": the token embeddings and the output layer over the vocabulary are rounded,
                too. None leaves them, as most files do.

        Raises:
            ValueError: the model is quantised already; its adapters are merged; it has adapters, and Keras is to
                quantise it; packed weights would replace layers that `add_lora` trains whole; it computes in
                float16 (Keras); an argument is out of range; no layer fits `filters`; `tokenizer` or `max_length`
                without `calibration`.
            RuntimeError: this process was forked from one that has made or used a model.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> model.quantize("int4", group_size=32)
            >>> model.quantization
            'int4'
            >>> model.backbone.layers[0].mlp.up_proj.packed.scheme.group_size
            32
        """
        check_not_forked()
        if self.packed_quantization is not None:
            raise ValueError(f"{self.name} is quantised already ({self.packed_quantization}).")
        given = {
            "group_size": group_size,
            "symmetric": symmetric,
            "calibration": calibration,
            "embeddings": embeddings,
        }
        if unknown := sorted(options.keys() - _OF_KERAS):
            near = did_you_mean(unknown[0], (*given, *_OF_KERAS, "tokenizer", "max_length"))
            raise TypeError(f"quantize got an unknown argument {quote(unknown[0])}{near}" + ("" if near else "."))
        for name, value in {"tokenizer": tokenizer, "max_length": max_length}.items():
            if value is not None and calibration is None:
                raise ValueError(f"quantize uses {name}= to read texts of calibration=, which were not given.")
        if any(value is not None for value in given.values()):
            settings = {"tokenizer": tokenizer, "max_length": 512 if max_length is None else max_length, **given}
            _pack_model(self, _only_mode(arguments, options), options.pop("filters", None), **settings)
        elif self.lora_config is not None:
            raise ValueError(
                f"{self.name} has adapters, and Keras's own quantisation must come before add_lora. Packed weights "
                "may come after it: give group_size=, and the adapters take up what rounding loses."
            )
        else:
            with warnings.catch_warnings(), quick_collections():
                # Keras warns of every norm and dropout, which have nothing to quantise.
                warnings.filterwarnings("ignore", message=".*does not have a `quantize` method")
                super().quantize(*arguments, **options)
        self.forget_compiled()

    def _check_quantize_args(self, mode: Any, compute_dtype: Any) -> None:
        # Keras refuses int8 beside float16, which only its own layers cannot do: they say so themselves.
        super()._check_quantize_args(mode, None)

    @property
    def packed_quantization(self) -> str | None:
        """The same as `quantization`, for packed weights alone."""
        packed = (getattr(layer, "packed", None) for layer in all_layers(self))
        return ", ".join(sorted({one.scheme.mode for one in packed if one is not None})) or None

    @property
    def keras_quantization(self) -> str | None:
        """The same as `quantization`, for weights that Keras has quantised alone."""
        modes = {getattr(layer, "quantization_mode", None) for layer in all_layers(self)} - {None}
        return ", ".join(sorted(modes)) or None

    @property
    def quantization(self) -> str | None:
        """Modes that weights are quantised by, separated by commas: "int8", "int4"; None where none is."""
        modes = {mode_of(layer) for layer in all_layers(self)} - {None}
        return ", ".join(sorted(modes)) or None


def _given(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `keras.Model.quantize` by name."""
    return {**dict(zip(("mode", "config", "filters"), arguments, strict=False)), **options}


def _check_mode(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Refuse a mode that there is not, and those of Keras that these layers do not have: it would quantise nothing.

    Raises:
        ValueError: the mode is not in `MODES`.
    """
    given = _given(arguments, options)
    config = given.get("config")
    if config is not None and not isinstance(config, str) and not hasattr(config, "mode"):
        return  # Keras says what is wrong with it
    mode = config if isinstance(config, str) else getattr(config, "mode", given.get("mode"))
    if not isinstance(mode, str) or mode not in MODES:
        hint = "; calibration= rounds as GPTQ does" if mode in ("gptq", "awq") else ""
        raise ValueError(f"mode={quote(mode)}; {' or '.join(map(repr, MODES))} was expected{hint}.")


def _only_mode(arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The mode among arguments that are meant for packed weights.

    Raises:
        ValueError: an argument that packed weights do not take.
    """
    given = _given(arguments, options)
    mode = given.get("mode")
    # Keras makes a configuration of every mode; one of the user's own is another.
    config = given.pop("config", None)
    usual = config is None or (mode in MODES and config.get_config() == _USUAL[mode]().get_config())
    strange = sorted(name for name, value in given.items() if name not in ("mode", "filters") and value is not None)
    strange += [] if usual else ["config"]
    if strange:
        raise ValueError(
            f"quantize takes {', '.join(strange)} for Keras's quantisation alone, without group_size, symmetric, "
            f"calibration and embeddings."
        )
    return mode


def scheme_of(mode: Any, group_size: Any = None, symmetric: Any = None, *, argument: str = "mode") -> Scheme:
    """The scheme that arguments of `QuantizedModel.quantize` stand for.

    Args:
        mode, group_size, symmetric: as there.
        argument: the name of `mode` in messages.

    Raises:
        ValueError: they stand for none.

    Example:
        >>> str(scheme_of("int4", 64)), str(scheme_of("int8"))
        ('int4, groups of 64', 'int8, one scale per output')
    """
    if mode not in MODES:
        raise ValueError(f"{argument}={quote(mode)}; {' or '.join(map(repr, MODES))} was expected.")
    if group_size is None:
        group_size = MODES[mode]
    if group_size in ("channel", -1):
        group_size = None
    elif type(group_size) is not int or group_size < 2 or group_size % 2:
        raise ValueError(f"group_size={quote(group_size)}; an even number such as 32, or 'channel', was expected.")
    if symmetric not in (None, True, False):
        raise ValueError(f"symmetric={quote(symmetric)}; True or False was expected.")
    return Scheme(bits=int(mode[3:]), group_size=group_size, offsets="zeros" if symmetric is False else None)


def _pack_model(
    model: Any,
    mode: Any,
    filters: Any,
    *,
    group_size: Any,
    symmetric: Any,
    calibration: Any,
    tokenizer: Any,
    max_length: int,
    embeddings: str | None,
) -> None:
    """Give a model packed weights; arguments as in `QuantizedModel.quantize`."""
    scheme = scheme_of(mode, group_size, symmetric)
    outer = None if embeddings is None else scheme_of(embeddings, "channel", argument="embeddings")
    if model.keras_quantization is not None:
        raise ValueError(f"{model.name} is quantised already ({model.keras_quantization}).")
    inner, vocabulary = packable(model)
    inner = {name: layer for name, layer in inner.items() if _chosen(name, layer, filters)}
    if not inner:
        raise ValueError(f"filters={quote(filters)} fits no dense layer of {model.name}'s blocks.")
    _check_adapters(model, {**inner, **(vocabulary if outer is not None else {})})
    _warn_of_wide_groups(inner, scheme)
    if calibration is not None:
        batches = to_batches(calibration, tokenizer, max_length)
        calibrated(model, {id(layer): scheme for layer in inner.values()}, batches)
    for layer in inner.values():
        if layer.packed is None:
            round_layer(layer, scheme)
    for layer in vocabulary.values() if outer is not None else ():
        round_layer(layer, outer)
    if any(layer.adapter is not None for layer in inner.values()):
        model.lora_config = dataclasses.replace(model.lora_config, loftq_bits=scheme.bits)


def _warn_of_wide_groups(layers: Mapping[str, Any], scheme: Scheme) -> None:
    """Warn of layers, by their names, that have fewer inputs than a group."""
    narrow = {name: layer.width for name, layer in layers.items() if layer.width < (scheme.group_size or 0)}
    if narrow:
        width = min(narrow.values())
        warn(
            f"group_size={scheme.group_size} is more than the {width} inputs of "
            f"{some(name for name, other in narrow.items() if other == width)}: they are filled up to "
            f"{scheme.group_size}, which takes memory. {width} or less, or 'channel', was expected."
        )


def _check_adapters(model: Any, layers: Mapping[str, Any]) -> None:
    """Refuse to pack layers whose weights hold their adapter, or learn themselves.

    Raises:
        ValueError: adapters are merged, or `add_lora` was given one of the layers as `train_fully`.
    """
    if model.lora_config is None:
        return
    if any(
        layer.adapter is not None and layer.adapter.merged for layer in all_layers(model) if isinstance(layer, Linear)
    ):
        raise ValueError(
            f"the adapters of {model.name} are merged: unmerge_lora(model) takes them out of its weights."
        )
    learning = [name for name, layer in layers.items() if getattr(layer, layer.whole_name).trainable]
    if learning:
        raise ValueError(
            f"{', '.join(learning)} is trained whole (train_fully), which packed weights cannot be; "
            "`quantize(filters=...)` leaves layers as they are."
        )


def check_request(wanted: Request, config: Any, gguf_file: str | None) -> Callable[[Any], dict[str, Scheme]] | None:
    """Return the part of a request that `load_model` does: a function from a model to its layers' schemes, or None.

    Raises:
        ValueError: the checkpoint is quantised by another method, is no GGUF file, or is not quantised and should be.
    """
    method = quantized_names.method_of(config)
    if wanted.keep_gguf and gguf_file is None:
        raise ValueError("quantization_config names gguf: name the file, too, as gguf_file=.")
    if method is not None and wanted.method != method and (wanted.mode is not None or wanted.method is not None):
        raise ValueError(
            f"quantization_config asks for {wanted.method or wanted.mode}, and the checkpoint is quantised already, "
            f"by {method}: load it without quantization_config."
        )
    if wanted.method is not None and wanted.mode is None and not wanted.keep_gguf and method is None:
        raise ValueError(
            f"quantization_config names {wanted.method}, and the checkpoint is not quantised: 'int4' or 'int8' "
            f"quantises it here."
        )
    if wanted.mode is None or method is not None or wanted.calibration is not None:
        return None
    scheme = scheme_of(wanted.mode, wanted.group_size, wanted.symmetric)

    def schemes_of(model: Any) -> dict[str, Scheme]:
        chosen = {name: layer for name, layer in packable(model)[0].items() if wanted.chooses(name)}
        _warn_of_wide_groups(chosen, scheme)
        paths = {id(layer): path for path, layer in walk(model)}
        return {paths[id(layer)]: scheme for layer in chosen.values()}

    return schemes_of


def finish_request(model: Any, wanted: Request) -> None:
    """Do the rest of a request, once the weights are there: with texts to calibrate on, all of it."""
    if wanted.mode is not None and wanted.calibration is not None and model.quantization is None:
        inner, _ = packable(model)
        chosen = {id(layer) for name, layer in inner.items() if wanted.chooses(name)}
        model.quantize(
            wanted.mode,
            group_size=wanted.group_size,
            symmetric=wanted.symmetric,
            calibration=wanted.calibration,
            tokenizer=wanted.tokenizer,
            filters=lambda layer: id(layer) in chosen,
        )


def packable(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The layers of a model that packed weights are for, by their names in files.

    Returns:
        The dense layers of its blocks, and those of its vocabulary: the token embeddings and the output layer.
    """
    blocks = {id(layer) for block in model.backbone.layers for layer in all_layers(block) if isinstance(layer, Linear)}
    ends = {id(model.get_input_embeddings())}
    if getattr(model, "get_output_embeddings", None) is not None and model.get_output_embeddings() is not None:
        ends.add(id(model.get_output_embeddings()))
    names = {
        id(slot.variable): name.removesuffix(".weight") for name, slot in model.stored_names(slots_of(model)).items()
    }
    inner, vocabulary = {}, {}
    for layer in all_layers(model):
        chosen = inner if id(layer) in blocks else vocabulary if id(layer) in ends else None
        if chosen is not None and isinstance(layer, HasPacked):
            variable = layer.packed.variable if layer.packed is not None else getattr(layer, layer.whole_name)
            chosen[names[id(variable)]] = layer
    return inner, vocabulary


def round_layer(layer: Any, scheme: Scheme) -> None:
    """Pack a layer's weights, each rounded to the nearest number of its group; an adapter takes up what that loses."""
    values = keras.ops.convert_to_numpy(keras.ops.cast(getattr(layer, layer.whole_name), "float32"))
    values = values.T if isinstance(layer, keras.layers.Embedding) else values
    packed = layer.pack(scheme, round_to_nearest(values, scheme))
    if (adapter := getattr(layer, "adapter", None)) is not None:
        change = keras.ops.convert_to_numpy(adapter.change())
        adapter.approximate(values + change - packed.dequantized())


def _chosen(name: str, layer: keras.layers.Layer, filters: Any) -> bool:
    if filters is None:
        return True
    if callable(filters):
        return bool(filters(layer))
    patterns = [filters] if isinstance(filters, str) else filters
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(one, str) for one in patterns):
        raise ValueError(f"filters={quote(filters)}; a regular expression, a list of them or a function was expected.")
    return any(is_found(pattern, name, "filters") for pattern in patterns)


def mode_of(layer: keras.layers.Layer) -> str | None:
    """The mode that a layer's weights are quantised by, in either way; None for float weights."""
    packed = getattr(layer, "packed", None)
    return packed.scheme.mode if packed is not None else getattr(layer, "quantization_mode", None)


def quantized_parts(model: keras.Model) -> list[dict[str, Any]]:
    """The quantised layers of a model, alike ones together: arguments of `quantize_part`, as JSON values."""
    parts: dict[str, dict[str, Any]] = {}
    for path, layer in walk(model):
        if (packed := getattr(layer, "packed", None)) is not None:
            part = {"scheme": packed.scheme.to_dict()}
        elif mode := getattr(layer, "quantization_mode", None):
            part = {"mode": mode, "config": keras.saving.serialize_keras_object(layer.quantization_config)}
        else:
            continue
        parts.setdefault(json.dumps(part, sort_keys=True), {**part, "layers": []})["layers"].append(path)
    return list(parts.values())


def quantize_part(
    model: keras.Model,
    layers: list[str],
    *,
    scheme: dict[str, Any] | None = None,
    mode: str | None = None,
    config: Any = None,
) -> None:
    """Quantise the layers at some paths of a model, as one entry of `quantized_parts` says.

    With a scheme they get packed weights, whose values are loaded afterwards.
    """
    if scheme is not None:
        for path, layer in walk(model):
            if path in layers:
                layer.pack(Scheme(**scheme))
        return
    chosen = {id(layer) for path, layer in walk(model) if path in layers}
    config = keras.saving.deserialize_keras_object(config)
    model.quantize(mode, config=config, filters=lambda layer: id(layer) in chosen)
