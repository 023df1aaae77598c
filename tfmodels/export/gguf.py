"""GGUF: a model and its tokenizer in one file, for llama.cpp and what is built on it.

Matrices become Q8_0 (quantize="int8" or "q8_0"), Q4_0 ("int4" or "q4_0"), Q4_1 ("q4_1"), or floats of a dtype; with
4 bits the embeddings and the output layer become Q8_0, whose errors count most. Matrices that packed weights hold in
groups of 32 already go into the file as they are, so that a calibrated model keeps what calibration found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.auto import FAMILIES, Family, TFAutoModelForCausalLM, family_of
from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.formats.gguf_header import Header, MappedFile
from tfmodels.checkpoints.formats.gguf_writer import FILE_TYPES, GGUFTensor, stored_rows, write_gguf
from tfmodels.checkpoints.gguf_map import GGUFMap, GGUFSettings
from tfmodels.checkpoints.quantized import gguf_blocks
from tfmodels.checkpoints.save import values_of
from tfmodels.checkpoints.weight_map import WeightSlot, slots_of
from tfmodels.export.artifact import ExportOptions, Runner, Signature, Tolerance
from tfmodels.export.models import causal, forward, tokenizer_of
from tfmodels.tokenization.conversions.gguf_writing import tokenizer_settings
from tfmodels.utils.text import quote

_KINDS = {"int8": "Q8_0", "q8_0": "Q8_0", "int4": "Q4_0", "q4_0": "Q4_0", "q4_1": "Q4_1"}
_PLAIN = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_BLOCK = 32
# Fields of configurations that do not change what is computed, by their names or the ends of these.
_FREE = frozenset(
    {"architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_range", "verbose"}
    | {"bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "num_labels", "problem_type"}
    | {"pretraining_tp", "init_device", "attn_impl", "quantization_config", "quantization", "compression_config"}
    | {"embedding_fraction", "n_inner", "n_ctx", "tokenizer_class", "_name_or_path"}
)
# Those that count where layers are windowed alone.
_OF_WINDOWS = ("sliding_window", "max_window_layers", "use_sliding_window")
_FREE_ENDS = ("dropout", "pdrop", "_name_or_path")


def check(model: Any, options: ExportOptions) -> None:
    """Raise where the export cannot work, before anything expensive happens.

    Raises:
        ValueError: llama.cpp has no such model, or its files have no place for a setting; the tokenizer is missing or
            of a kind that GGUF files do not hold; the model has adapters that are not merged.
    """
    if not causal(model):
        raise ValueError(f"format='gguf' takes causal language models; {type(model).__name__} is none.")
    if (mode := model.keras_quantization) is not None:
        raise ValueError(
            f"the model was quantised by Keras ({mode}), whose scales GGUF files have no place for: load it without "
            f'quantize(), and export it with quantize="int8" or "int4".'
        )
    if model.adapters_apart:
        way = "call merge_lora(model)" if model.quantization is None else "quantised ones cannot take them in"
        raise ValueError(f"the model has adapters, which a GGUF file holds only in its weights: {way}.")
    gguf_map = _map_of(model)
    names = {stored: _name(gguf_map, stored) for stored in model.stored_names(slots_of(model))}
    _check_config(gguf_map, model.config, set(names.values()))
    _tokenizer_settings(model, options)


def write(model: Any, target: Path, options: ExportOptions) -> list[Signature]:
    """Write the file."""
    gguf_map = _map_of(model)
    tensors, kinds = [], []
    for name, values in gguf_map.tensors_of(model.config).items():
        tensors.append(GGUFTensor(name, values.shape, "F32", lambda values=values: values))
    for stored, slot in model.stored_names(slots_of(model)).items():
        tensor = _tensor(model, gguf_map, stored, slot, options)
        tensors.append(tensor)
        kinds.append((tensor.kind, np.prod(tensor.shape)))
    of_most = max(FILE_TYPES, key=lambda kind: sum(size for one, size in kinds if one == kind))
    metadata = {
        "general.name": type(model).__name__,
        "general.file_type": FILE_TYPES[of_most],
        "general.quantization_version": 2,
        **_settings(gguf_map, model.config),
        **_tokenizer_settings(model, options),
    }
    write_gguf(target, gguf_map.architecture, metadata, tensors)
    return [
        Signature(
            "model",
            {"input_ids": ("int32", (None, None))},
            {"logits": ("float32", (None, None, model.config.vocab_size))},
        )
    ]


def _map_of(model: Any) -> GGUFMap:
    """The names of a model's architecture in GGUF files.

    Raises:
        ValueError: no such files are written.
    """

    def writable(family: Family) -> GGUFMap | None:
        found = family.gguf_map()
        return None if found is None or found.settings_of is None else found

    if (found := writable(family_of(model.config))) is None:
        able = ", ".join(family.stem for family in FAMILIES.values() if writable(family) is not None)
        raise ValueError(f"format='gguf' is written for {able}; {type(model).__name__} is none of these.")
    return found


def _settings(gguf_map: GGUFMap, config: Any) -> dict[str, Any]:
    """The settings of a file by their whole names."""
    return {f"{gguf_map.architecture}.{key}": value for key, value in gguf_map.settings_of(config).items()}


def _name(gguf_map: GGUFMap, stored: str) -> str:
    name = gguf_map.name_in_gguf(stored)
    if name is None:
        raise ValueError(f"{stored} has no place in GGUF files of {gguf_map.family} models.")
    return name


def _check_config(gguf_map: GGUFMap, config: Any, names: set[str]) -> None:
    """Make sure that the settings written stand for the same configuration, by reading them.

    Raises:
        ValueError: a setting has no place in the file; the message names it.
    """
    tensors = gguf_map.tensors_of(config)
    stored = names | set(tensors)
    settings = GGUFSettings(gguf_map, _settings(gguf_map, config), stored, tensors.__getitem__, "the file")
    try:
        again = type(config).from_dict(gguf_map.config(settings)).to_dict()
    except CheckpointError as error:
        raise ValueError(f"{gguf_map.family} with this configuration has no place in a GGUF file: {error}") from error
    own = config.to_dict()
    free = _FREE if "sliding_attention" in (own.get("layer_types") or ()) else _FREE.union(_OF_WINDOWS)
    for name, value in again.items():
        if name not in free and not name.endswith(_FREE_ENDS) and not _same(own.get(name), value):
            raise ValueError(
                f"{name}={quote(own.get(name))} of the configuration has no place in a GGUF file of a "
                f"{gguf_map.family} model, whose readers take {quote(value)}."
            )


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a configuration are equal, numbers in single precision."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = {name for name in (*one, *other) if name not in _FREE and not name.endswith(_FREE_ENDS)}
        return all(_same(one.get(name), other.get(name)) for name in names)
    if isinstance(one, float) or isinstance(other, float):
        return one is not None and other is not None and np.float32(one) == np.float32(other)
    return one == other


def _tokenizer_settings(model: Any, options: ExportOptions) -> dict[str, Any]:
    tokenizer = tokenizer_of(model, options.tokenizer)
    if tokenizer is None:
        raise ValueError(
            "format='gguf' writes the tokenizer into the file: pass tokenizer=, an object or where to find one."
        )
    return tokenizer_settings(tokenizer, model.config.vocab_size)


def _tensor(model: Any, gguf_map: GGUFMap, stored: str, slot: WeightSlot, options: ExportOptions) -> GGUFTensor:
    """One weight of the model, of the type that the options ask for."""
    name, reorder = _name(gguf_map, stored), stored_rows(gguf_map, stored, model.config)
    if (packed := slot.packed) is not None:
        shape, scheme = (packed.units, packed.width), packed.scheme
        kind = gguf_blocks.kind_of(scheme) if packed.width % _BLOCK == 0 else None
        wanted = None if options.dtype is None else _PLAIN[options.dtype]
        if kind is not None and wanted is None and _KINDS.get(options.quantize, kind) == kind:
            read = lambda: reorder(gguf_blocks.encode(packed.arrays(), scheme, packed.width))
            return GGUFTensor(name, shape, kind, read, blocks=True)
        own = "int8" if scheme.bits == 8 else "int4"
        return GGUFTensor(name, shape, _kind(name, shape, own, options), lambda: reorder(packed.dequantized().T))
    turned = stored.endswith(gguf_map.turned)
    added = sum(number for end, number in gguf_map.shifted.items() if stored.endswith(end))
    values = values_of(slot)
    shape = slot.shape[::-1] if turned else slot.shape

    def read() -> np.ndarray:
        array = np.asarray(values()).astype(np.float32)
        return reorder(array.T if turned else array) + np.float32(added)

    return GGUFTensor(name, shape, _kind(name, shape, None, options, str(slot.variable.dtype)), read)


def _kind(name: str, shape: tuple[int, ...], own: str | None, options: ExportOptions, dtype: str = "float32") -> str:
    """The type of a tensor in the file: vectors and learned positions are float32, as llama.cpp takes them."""
    if len(shape) != 2 or name.startswith("position_embd"):
        return "F32"
    quantize = options.quantize or (own if options.dtype is None else None)
    if quantize is None:
        return _PLAIN[options.dtype or dtype]
    if shape[1] % _BLOCK:
        return "F16"
    kind = _KINDS[quantize]
    return "Q8_0" if name in ("token_embd.weight", "output.weight") else kind


class GGUFRunner(Runner):
    """A GGUF file, read into a model of this package with the file's rounded weights as floats.

    Args:
        path: the file.
    """

    generates = True
    exact_ids = False

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
        self._model = TFAutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
        file = MappedFile(path)
        kinds = {entry.kind for entry in Header(file).entries.values()}
        file.close()
        # Errors of rounding add up from layer to layer; these bounds catch weights in wrong places.
        self.tolerance = Tolerance(0.0, 1e-5 if kinds <= {"F32"} else 0.05 if kinds <= {"F32", "F16", "BF16"} else 0.5)
        self.exact_ids = kinds <= {"F32"}

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        if signature not in (None, "model"):
            raise ValueError(f"signature={quote(signature)}; a GGUF file has one, 'model'.")
        return {name: np.asarray(value) for name, value in forward(self._model, **inputs).items()}

    def generate(self, ids: np.ndarray, max_new_tokens: int) -> np.ndarray:
        return np.asarray(self._model.generate(np.asarray(ids), max_new_tokens=max_new_tokens, do_sample=False))


def open(path: str | os.PathLike) -> GGUFRunner:
    """Open a file that this module wrote, or another GGUF file."""
    return GGUFRunner(path)
