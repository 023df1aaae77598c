"""Read GGUF files of Llama models: weights, configuration and the tokenizer's tables, all in one file.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Weights are handed out under the names and in the
order of rows that safetensors files have; quantised ones are turned into float32 by the `gguf` library, tensor by
tensor.
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import (
    DTYPES,
    CheckpointError,
    CheckpointNotFoundError,
    MappedFile,
    TensorFile,
    TensorInfo,
)
from tfmodels.checkpoints.formats.gguf_header import Entry, gguf_library, join_tensors, open_headers, parts, short
from tfmodels.utils.text import quote, shorten

# What elements are stored as, where they are not quantised: ggml's name -> ours.
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROPE_FACTORS = "rope_freqs.weight"

# Keys below "llama." without which a model would compute something else; 0 or false turns them off.
_UNKNOWN_TO_LLAMA = (
    *("expert_count", "use_parallel_residual", "attention.sliding_window", "attention.scale", "embedding_scale"),
    *("residual_scale", "logit_scale", "attention.clamp_kqv", "attention.max_alibi_bias"),
)
_POSITIVE = (
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "embedding_length", "block_count"),
    *("vocab_size", "feed_forward_length", "context_length", "rope.freq_base"),
)
_SCALING_KEYS = ("type", "factor", "original_context_length", "finetuned")

# Llama 3's frequency scaling, of which a file holds the resulting factors only.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class GGUFFile(TensorFile):
    """A Llama model in one `.gguf` file, or in several that were split off one.

    Args:
        path: the file, or any of the several.

    Attributes:
        metadata: the file's keys and values; arrays as lists.

    Raises:
        ImportError: the `gguf` library is not installed.
        CheckpointNotFoundError: one of the several files is not there.
        CheckpointError: not GGUF, damaged, cut short, with lying sizes, of another architecture, quantised in a way
            that cannot be read, or files that do not belong together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        headers = open_headers(path)
        self._files = [header.file for header in headers]
        self.metadata = headers[0].metadata
        self._entries: dict[str, tuple[MappedFile, Entry]] = {}
        self.tensors = {}
        stored_entries = join_tensors(headers)
        values = config_values(self.metadata, stored_entries, str(path))
        self._heads = {"q_proj": values["num_attention_heads"], "k_proj": values["num_key_value_heads"]}
        for stored, (file, entry) in stored_entries.items():
            if stored == _ROPE_FACTORS:
                self._add_rope_factors(values, file, entry)
                continue
            name = torch_name(stored)
            if name is None:
                raise CheckpointError(f"{path}: tensor {quote(stored)} belongs to no Llama model that can be read.")
            heads = self._heads.get(name.split(".")[-2], 1)
            if heads > 1 and entry.shape[0] % (2 * heads):
                raise CheckpointError(f"{path}: tensor {quote(stored)} has {entry.shape[0]} rows for {heads} heads.")
            dtype = _PLAIN.get(entry.kind, "float32")
            nbytes = math.prod(entry.shape) * DTYPES[dtype].itemsize
            self.tensors[name] = TensorInfo(name, entry.shape, dtype, nbytes, file.path.name)
            self._entries[name] = file, entry
        self.config = values

    def read(self, name: str) -> np.ndarray:
        file, entry = self._entries[name]
        heads = self._heads.get(name.split(".")[-2])
        array = self._elements(file, entry)
        if heads:
            array = _unpermute(array, heads)
        array.flags.writeable = False
        return array

    def release(self) -> None:
        for file in self._files:
            file.release()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _elements(self, file: MappedFile, entry: Entry) -> np.ndarray:
        if entry.kind in _PLAIN:
            return file.array(entry.shape, DTYPES[_PLAIN[entry.kind]], entry.start)
        if 0 in entry.shape:
            return np.zeros(entry.shape, np.float32)
        library = gguf_library()
        kind = library.GGMLQuantizationType[entry.kind]
        elements, block = library.GGML_QUANT_SIZES[kind]
        rows = (*entry.shape[:-1], entry.shape[-1] // elements * block)
        try:
            values = library.quants.dequantize(file.array(rows, np.dtype(np.uint8), entry.start), kind)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{file.path} has tensors quantised as {entry.kind}, which the gguf library cannot read."
            ) from error
        except (ValueError, IndexError, TypeError) as error:
            raise CheckpointError(f"{file.path}: {entry.kind} weights cannot be read ({shorten(error)}).") from error
        return np.ascontiguousarray(values, np.float32).reshape(entry.shape)

    def _add_rope_factors(self, values: dict[str, Any], file: MappedFile, entry: Entry) -> None:
        factors = self._elements(file, entry).astype(np.float64)
        scaling = _llama3_scaling(factors, values["rope_theta"])
        if scaling is None:
            raise CheckpointError(
                f"{self.path}: {_ROPE_FACTORS} holds frequency factors other than Llama 3's, which no configuration "
                f"here describes."
            )
        if "rope_scaling" in values:
            raise CheckpointError(f"{self.path} scales positions twice: {_ROPE_FACTORS}, {values['rope_scaling']}.")
        values["rope_scaling"] = scaling


def read_header(path: Path) -> GGUFFile:
    """A file's header, read once while the file does not change: configuration and tokenizer come from it too.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointError: as for `GGUFFile`.
    """
    try:
        status = [(one.stat().st_mtime_ns, one.stat().st_size) for one in {path, *filter(Path.exists, parts(path))}]
    except OSError as error:
        raise CheckpointNotFoundError(f"There is no GGUF file {path}.") from error
    return _read_header(path, tuple(sorted(status)))


@functools.lru_cache(maxsize=2)
def _read_header(path: Path, status: tuple[tuple[int, int], ...]) -> GGUFFile:
    return GGUFFile(path)


def torch_name(name: str) -> str | None:
    """The name in safetensors files of a tensor of a GGUF file, or None for one that they do not have.

    Example:
        >>> torch_name("blk.3.attn_q.weight")
        'model.layers.3.self_attn.q_proj.weight'
    """
    match = re.fullmatch(r"(blk\.\d+\.)?(\w+)\.(weight|bias)", name)
    if not match or match[2] not in _NAMES:
        return None
    block = match[1].replace("blk", "model.layers") if match[1] else ""
    return f"{block}{_NAMES[match[2]]}.{match[3]}"


def config_values(metadata: dict[str, Any], tensors: Any, where: str) -> dict[str, Any]:
    """The fields of a `config.json` that a file's metadata stand for.

    Args:
        metadata: keys and values.
        tensors: names of the tensors in the file.
        where: the file, for messages.

    Raises:
        CheckpointError: another architecture, or a key that is missing or unusable.
    """
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise CheckpointError(f"{where} holds a {quote(architecture)} model; only 'llama' can be read from GGUF.")

    def get(key: str, default: Any = None, kind: type = int) -> Any:
        value = metadata.get(f"llama.{key}", default)
        accepted = (int, float) if kind is float else kind
        if value is None or not isinstance(value, accepted) or isinstance(value, bool) or not math.isfinite(value):
            raise CheckpointError(f"{where}: llama.{key} is {short(value)}; a {kind.__name__} was expected.")
        if value < 0 or (value == 0 and key in _POSITIVE):
            raise CheckpointError(f"{where}: llama.{key} is {short(value)}; a number above 0 was expected.")
        return value

    scaling = [key.removeprefix("llama.") for key in metadata if key.startswith("llama.rope.scaling.")]
    refused = [key for key in _UNKNOWN_TO_LLAMA if metadata.get(f"llama.{key}")]
    refused += [key for key in scaling if key.removeprefix("rope.scaling.") not in _SCALING_KEYS]
    if refused:
        values = ", ".join(f"llama.{key} = {short(metadata[f'llama.{key}'])}" for key in refused)
        raise CheckpointError(f"{where} asks for what no Llama model here does: {values}.")
    heads, width = get("attention.head_count"), get("embedding_length")
    head_dim = get("attention.key_length", width // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if get(key, head_dim) != head_dim:
            raise CheckpointError(f"{where}: llama.{key} is {get(key)}; only the head size, {head_dim}, can be used.")
    tokens = metadata.get("tokenizer.ggml.tokens")
    values = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": get("vocab_size", len(tokens) if isinstance(tokens, list) else None),
        "hidden_size": width,
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": get("context_length"),
        # Stored in single precision: the shortest decimal that means the same there is what was meant.
        "rms_norm_eps": float(str(np.float32(get("attention.layer_norm_rms_epsilon", kind=float)))),
        "rope_theta": get("rope.freq_base", 10000.0, float),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in tensors,
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        values[f"{name}_token_id"] = index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None and type(index) is not int:
            raise CheckpointError(f"{where}: tokenizer.ggml.{key}_token_id is {short(index)}; an int was expected.")
    kind = metadata.get("llama.rope.scaling.type", "linear" if "llama.rope.scale_linear" in metadata else "none")
    if kind == "linear":
        factor = get("rope.scaling.factor", metadata.get("llama.rope.scale_linear"), float)
        values["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        values["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": get("rope.scaling.factor", kind=float),
            "original_max_position_embeddings": get("rope.scaling.original_context_length"),
        }
    elif kind != "none":
        raise CheckpointError(
            f"{where}: llama.rope.scaling.type {quote(kind)} cannot be read; none, linear and yarn can."
        )
    return values


def _llama3_scaling(factors: np.ndarray, theta: float) -> dict[str, Any] | None:
    """The `rope_scaling` of Llama 3 that gives these divisors of the frequencies, or None."""
    if factors.ndim != 1 or not np.all(np.isfinite(factors)) or not np.all(factors > 0):
        return None
    wavelengths = 2 * math.pi * theta ** (np.arange(len(factors)) / max(len(factors), 1))
    original, low, high = (
        _LLAMA3[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    factor = float(factors.max(initial=1.0))
    smooth = np.clip((original / wavelengths - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if not np.allclose(factors, expected, rtol=1e-4):
        return None
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _unpermute(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection in the order of safetensors files.

    llama.cpp turns neighbouring dimensions of a head together, and stores the rows so that they are neighbours;
    elsewhere the first half of a head turns with the second.
    """
    pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)
