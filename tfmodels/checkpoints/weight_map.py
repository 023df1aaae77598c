"""The names of a family's variables in checkpoint files.

A model's layers are walked by attribute, so that the kernel of `model.layers[0].self_attn.q_proj` is
`model.layers.0.self_attn.q_proj.weight` in a file. What differs from that is data, given by the family.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import keras

# Keras's name of a variable -> the name in checkpoints. Dense kernels lie transposed there, unless a layer says not.
_VARIABLE_NAMES = {
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "weight": "weight",
    "beta": "bias",
    "bias": "bias",
}
# The parts of a LayerNorm as files of BERT's first years name them.
_OLD_NORM = re.compile(r"(?<=\bLayerNorm\.)(gamma|beta)$")

# The layers that each kind of head adds to a backbone, by the end of its class name.
HEAD_LAYERS = {
    "ForCausalLM": ("lm_head", "embed_out"),
    "LMHeadModel": ("lm_head",),
    "DoubleHeadsModel": ("lm_head", "multiple_choice_head"),
    "ForMaskedLM": ("lm_head", "head", "decoder"),
    "ForPreTraining": ("lm_head", "seq_relationship"),
    "ForNextSentencePrediction": ("seq_relationship",),
    "ForSequenceClassification": ("score", "classifier", "pre_classifier", "head"),
    "ForTokenClassification": ("score", "classifier", "head"),
    "ForMultipleChoice": ("classifier", "pre_classifier", "head"),
    "ForQuestionAnswering": ("qa_outputs", "classifier", "head"),
}
_ALL_HEAD_LAYERS = frozenset(layer for layers in HEAD_LAYERS.values() for layer in layers)


@dataclasses.dataclass(frozen=True)
class WeightSlot:
    """A variable, and whether files hold its values transposed; or packed weights, with their first variable.

    Fields:
        variable: the weight's own; of packed weights that of the integers.
        transposed: whether files hold its values transposed.
        packed: the `tfmodels.layers.quantized.PackedWeights` that hold it, or None.
        is_table: whether packed weights are a table of embeddings.
    """

    variable: Any
    transposed: bool
    packed: Any = None
    is_table: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the file, of packed weights that of the whole matrix."""
        if self.packed is not None:
            shape = self.packed.width, self.packed.units
            return shape[::-1] if self.transposed else shape
        shape = tuple(self.variable.shape)
        return shape[::-1] if self.transposed else shape


@dataclasses.dataclass(frozen=True)
class WeightMap:
    """The part of a family's naming that is its own.

    Fields:
        prefixes: names under which files hold the backbone.
        renames: (pattern, replacement) pairs from names in old files, without prefix, to today's; applied in order.
        pairs: (part of a name in files, part of a name here) that stand for each other, for reading and for writing.
        drop: patterns of names that hold no weights of ours (buffers of old checkpoints).
        optional: patterns of names here, without prefix, of weights that checkpoints may lack, or have although the
            model does not use them, as it is with heads.
        twins: pairs of names, here or in files, of one weight; where a file holds both and they differ, the first one
            counts.
        tied: (name of the output layer's weights, name of the embedding table) here, without prefix: with
            `tie_word_embeddings` the table serves as both, and files may hold it under either name.
    """

    prefixes: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    twins: tuple[tuple[str, str], ...] = ()
    tied: tuple[str, str] | None = None

    def dropped(self, name: str) -> bool:
        """Whether a tensor of a file is a leftover that nobody needs."""
        return any(re.search(pattern, name) for pattern in self.drop)

    def bare_name(self, name: str) -> str:
        """The name here, without prefix, of what a file calls `name`."""
        start = next((start for start in self.prefixes if name.startswith(start + ".")), None)
        bare = name if start is None else name[len(start) + 1 :]
        bare = _OLD_NORM.sub(lambda found: _VARIABLE_NAMES[found[0]], bare)
        for pattern, replacement in self.renames:
            bare = re.sub(pattern, replacement, bare)
        for there, here in self.pairs:
            bare = bare.replace(there, here)
        return bare

    def resolve(self, name: str, slots: dict[str, WeightSlot], prefix: str) -> str | None:
        """The slot that a name in a file belongs to, or None.

        Args:
            name: as the file has it, with or without the backbone's prefix.
            slots: the model's weights, those of the backbone under `prefix`.
        """
        bare = self.bare_name(name)
        return next((slot for slot in (f"{prefix}.{bare}", bare) if slot in slots), None)

    def stored_name(self, name: str) -> str:
        """The name in a file of a weight that is called `name` here."""
        for there, here in self.pairs:
            name = name.replace(here, there)
        return name

    def is_optional(self, bare: str) -> bool:
        """Whether checkpoints may lack a weight, or hold it for nothing, by its name here without prefix."""
        return any(re.search(pattern, bare) for pattern in self.optional)


def head_layer(bare: str) -> str | None:
    """The head's layer that a weight belongs to, by its name without prefix; None for the backbone's weights.

    Example:
        >>> head_layer("lm_head.weight"), head_layer("layers.0.mlp.up_proj.weight")
        ('lm_head', None)
    """
    layer = bare.split(".", 1)[0]
    return layer if layer in _ALL_HEAD_LAYERS else None


def walk(layer: keras.layers.Layer, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Every layer at and below `layer` with the dotted path of attributes and indices that leads to it."""
    yield path, layer
    for name, value in vars(layer).items():
        if name.startswith("_"):
            continue
        items = enumerate(value) if isinstance(value, (list, tuple)) else ((None, value),)
        for index, child in items:
            if isinstance(child, keras.layers.Layer):
                step = name if index is None else f"{name}.{index}"
                yield from walk(child, f"{path}.{step}" if path else step)


def slots_of(model: keras.layers.Layer) -> dict[str, WeightSlot]:
    """All weights of a built model by their name in a checkpoint.

    Example:
        >>> import keras
        >>> dense = keras.layers.Dense(3)
        >>> dense.build((None, 2))
        >>> {name: slot.shape for name, slot in slots_of(dense).items()}
        {'weight': (3, 2), 'bias': (3,)}
    """
    slots = {}
    for path, layer in walk(model):
        inner = {id(variable) for below, child in walk(layer) if below for variable in child.weights}
        if (packed := getattr(layer, "packed", None)) is not None:
            turned = getattr(layer, "transposed_in_files", True)
            slots[f"{path}.weight" if path else "weight"] = WeightSlot(
                packed.variable, turned, packed, isinstance(layer, keras.layers.Embedding)
            )
            inner |= {id(variable) for variable in packed.weights}
        for variable in layer.weights:
            if id(variable) in inner or variable.name.startswith("lora_"):  # adapters have files of their own
                continue
            if getattr(layer, "quantization_mode", None) and variable.name not in _VARIABLE_NAMES:  # scales
                continue
            name = _VARIABLE_NAMES[variable.name]
            transposed = variable.name == "kernel" and getattr(layer, "transposed_in_files", True)
            slots[f"{path}.{name}" if path else name] = WeightSlot(variable, transposed)
    return slots
