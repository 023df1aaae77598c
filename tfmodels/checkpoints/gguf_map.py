"""`GGUFMap`: the part of a family's naming in GGUF files that is its own, given as data by the family."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.utils.text import quote


def short(value: Any) -> str:
    """A value as messages show it."""
    return quote(value, 60)


@dataclasses.dataclass(frozen=True)
class GGUFMap:
    """The translation of an architecture's GGUF files into a `config.json` and the names of safetensors files.

    Fields:
        architecture: `general.architecture` of its files, which also begins the names of its settings.
        family: its name in messages.
        names: the name of a layer in GGUF files -> its name in safetensors files, within its block if it has one.
        blocks: the list of blocks in safetensors files.
        rotated: projections whose rows llama.cpp reorders, by the last name of the layer -> the field of the
            configuration that holds their number of heads.
        fused: projections to queries, keys and values, which lie one after the other in GGUF files and head by head in
            safetensors files, by the last name of the layer -> the field that holds their number of heads.
        turned: the ends of names of matrices that safetensors files hold the other way round.
        shifted: the ends of names of tensors in safetensors files -> a number that llama.cpp added to their values.
        settings: tensors that hold settings rather than weights.
        positive: settings that are above 0 where they are stored.
        config: makes the dict of a `config.json` from the settings of a file.
        settings_of: makes the settings of a file, without the architecture's name before them, from a configuration;
            None where such files are only read.
        tensors_of: makes the tensors that hold settings from a configuration.

    Example:
        >>> names = {"attn_q": "self_attn.q_proj", "output": "lm_head"}
        >>> gguf_map = GGUFMap("llama", "Llama", names, config=dict)
        >>> gguf_map.stored_name("blk.3.attn_q.weight"), gguf_map.stored_name("output.weight")
        ('model.layers.3.self_attn.q_proj.weight', 'lm_head.weight')
        >>> gguf_map.stored_name("rope_freqs.weight") is None
        True
    """

    architecture: str
    family: str
    names: Mapping[str, str]
    config: Callable[[GGUFSettings], dict[str, Any]]
    blocks: str = "model.layers"
    rotated: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    turned: tuple[str, ...] = ()
    shifted: Mapping[str, float] = dataclasses.field(default_factory=dict)
    settings: Collection[str] = ()
    positive: Collection[str] = ()
    settings_of: Callable[[Any], dict[str, Any]] | None = None
    tensors_of: Callable[[Any], dict[str, np.ndarray]] = lambda config: {}

    def stored_name(self, name: str) -> str | None:
        """The name in safetensors files of a tensor of a GGUF file; None for one that they do not have."""
        match = re.fullmatch(r"(blk\.\d+\.)?(\w+)\.(weight|bias)", name)
        if not match or match[2] not in self.names:
            return None
        block = match[1].replace("blk", self.blocks) if match[1] else ""
        return f"{block}{self.names[match[2]]}.{match[3]}"

    def name_in_gguf(self, stored_name: str) -> str | None:
        """The name in GGUF files of a tensor of a safetensors file; None for one that they do not have."""
        match = re.fullmatch(rf"({re.escape(self.blocks)}\.(\d+)\.)?(.+)\.(weight|bias)", stored_name)
        layer = {there: here for here, there in self.names.items()}.get(match[3]) if match else None
        return layer and f"{f'blk.{match[2]}.' if match[1] else ''}{layer}.{match[4]}"


def sizes_of(config: Any) -> dict[str, Any]:
    """The settings that all decoders have, from a configuration; their names without the architecture's."""
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
    }


@dataclasses.dataclass(frozen=True)
class GGUFSettings:
    """The settings of a GGUF file, read and checked one by one.

    Fields:
        gguf_map: of the file's architecture.
        metadata: the file's keys and values.
        tensors: names of the file's tensors.
        read: gives the values of a tensor by its name.
        where: the file, for messages.
    """

    gguf_map: GGUFMap
    metadata: Mapping[str, Any]
    tensors: Collection[str]
    read: Callable[[str], np.ndarray]
    where: str

    def key(self, name: str) -> str:
        """The whole name of a setting: "head_count" -> "llama.head_count"."""
        return f"{self.gguf_map.architecture}.{name}"

    def stored(self, name: str, default: Any = None) -> Any:
        """A setting as it is stored, unchecked."""
        return self.metadata.get(self.key(name), default)

    def rope_scaling_type(self) -> Any:
        """The scaling of positions, unchecked; as in llama.cpp, a factor alone is a linear one, and 0 is none."""
        factor = self.stored("rope.scaling.factor", self.stored("rope.scale_linear"))
        return self.stored("rope.scaling.type", "none" if factor in (None, 0, 1) else "linear")

    def number(self, name: str, default: Any = None, kind: type = int) -> Any:
        """A setting that is an int, or for `kind=float` any number.

        Raises:
            CheckpointError: it is missing and has no default, is no such number, or is below what it can be.
        """
        value = self.stored(name, default)
        accepted = (int, float) if kind is float else kind
        if value is None or not isinstance(value, accepted) or isinstance(value, bool) or not math.isfinite(value):
            wanted = "a float" if kind is float else "an int"
            raise CheckpointError(f"{self.where}: {self.key(name)} is {short(value)}; {wanted} was expected.")
        if value < 0 or (value == 0 and name in self.gguf_map.positive):
            raise CheckpointError(f"{self.where}: {self.key(name)} is {short(value)}; a number above 0 was expected.")
        return value

    def rounded(self, name: str) -> float:
        """A number that files hold in single precision: the shortest decimal that means the same there.

        Raises:
            CheckpointError: as of `number`.
        """
        return float(str(np.float32(self.number(name, kind=float))))

    def vocab_size(self) -> int:
        """The number of tokens: the setting, or else the length of the file's list.

        Raises:
            CheckpointError: as of `number`.
        """
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        is_array = isinstance(tokens, Sequence) and not isinstance(tokens, str)
        return self.number("vocab_size", len(tokens) if is_array else None)

    def special_ids(self) -> dict[str, int | None]:
        """The special tokens of a decoder, by the fields of its configuration.

        Raises:
            CheckpointError: as of `token_id`.
        """
        names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
        return {field: self.token_id(name) for field, name in names.items()}

    def token_id(self, name: str) -> int | None:
        """A special token's id, such as "bos", or None.

        Raises:
            CheckpointError: it is no int.
        """
        index = self.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if index is not None and type(index) is not int:
            raise CheckpointError(
                f"{self.where}: tokenizer.ggml.{name}_token_id is {short(index)}; an int was expected."
            )
        return index
