"""Decide which tensor of a file belongs to which weight of a model, and what of either is left over.

Names in files differ from ours by the family's weight map, by wrappers that training code put around the model, and by
the head that the file was saved with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfmodels.checkpoints.reader import Checkpoint, CheckpointError
from tfmodels.checkpoints.weight_map import HEAD_LAYERS, WeightMap, WeightSlot, head_layer
from tfmodels.utils.text import quote

# Parts of names that PyTorch's wrappers add, wherever they stand: torch.compile, FSDP, activation checkpointing, PEFT.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"})
_ADAPTERS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "modules_to_save")
_COMPARED_ELEMENTS = 1 << 22


@dataclasses.dataclass
class Match:
    """The tensors of a file that fit a model, and those that do not.

    Fields:
        found: weight here -> name of the tensor in the file.
        missing: weights here that the file lacks.
        unexpected: tensors in the file that fit nowhere.
        foreign: tensors in the file of a head, or optional part, that the model does not have.
        tied_twice: the output layer's tensor in a file that should be the embedding table once more, or None.
        notes: what to warn of.
    """

    found: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    foreign: list[str]
    tied_twice: str | None
    notes: list[str]


def match(model: Any, slots: dict[str, WeightSlot], checkpoint: Checkpoint) -> Match:
    """Match the tensors of a checkpoint to the weights of a model by name.

    Raises:
        CheckpointError: two tensors with different values have names that stand for one weight.
    """
    weight_map, prefix = model.weight_map, model.base_model_prefix
    stored = [name for name in checkpoint.names() if not weight_map.dropped(name)]
    plain = unwrapped(stored, weight_map, slots, prefix)
    result = Match({}, [], [], [], None, [])
    bare_names = {}
    for name in stored:
        bare = bare_names[name] = weight_map.bare_name(plain[name])
        slot = weight_map.resolve(plain[name], slots, prefix)
        if slot is None:
            kind = result.foreign if _is_excused(bare, model, slots) else result.unexpected
            kind.append(name)
        elif slot not in result.found:
            result.found[slot] = name
        elif not same_values(checkpoint, result.found[slot], name):
            raise CheckpointError(
                f"{checkpoint.files[0].parent}: tensors {quote(result.found[slot])} and {quote(name)} both stand for "
                f"{weight_map.stored_name(slot)}, and differ: remove the wrong one."
            )
    _add_other_names(model, slots, checkpoint, result, {bare: name for name, bare in bare_names.items()})
    result.missing = [name for name in slots if name not in result.found]
    return result


def _is_excused(bare: str, model: Any, slots: dict[str, WeightSlot]) -> bool:
    """Whether a tensor that fits nowhere belongs to what this model does without."""
    if model.weight_map.is_optional(bare):
        return True
    layer = head_layer(bare)
    if layer is None:
        return False
    own = {slot.split(".", 1)[0] for slot in slots} - {model.base_model_prefix}
    if model.ties_embeddings:
        own |= {name.split(".", 1)[0] for name in model.weight_map.tied or ()[:1]}
    return layer not in own or layer in _other_heads(model)


def _other_heads(model: Any) -> set[str]:
    """Head layers of the class that wrote the file, where the configuration says that it was another one."""
    own = type(model).__name__.removeprefix("TF")
    writers = model.config.architectures if isinstance(model.config.architectures, (list, tuple)) else ()
    writers = [str(name).removeprefix("TF").removeprefix("Flax") for name in writers]
    if own in writers:
        return set()
    heads = {head for head in HEAD_LAYERS if any(name.endswith(head) for name in writers)}
    return {layer for head in heads for layer in HEAD_LAYERS[head]}


def _add_other_names(
    model: Any, slots: dict[str, WeightSlot], checkpoint: Checkpoint, result: Match, names: dict[str, str]
) -> None:
    """Take into account that files hold some weights under one of two names, or under both.

    Args:
        names: name without prefix -> name in the file.
    """
    for first, second in model.weight_map.twins:
        slot = next((name for name in (first, second) if name in slots), None)
        stored = [names[name] for name in (first, second) if name in names]
        if slot is None or not stored:
            continue
        result.found[slot] = stored[0]
        for name in stored:
            _remove(result.unexpected, name)
        if len(stored) == 2 and not same_values(checkpoint, *stored):
            result.notes.append(f"{stored[1]} differs from {stored[0]}, which the model uses, and was left out")
    if not (model.config.tie_word_embeddings and model.weight_map.tied):
        return
    head, table = model.weight_map.tied
    table = f"{model.base_model_prefix}.{table}"
    if head not in names:
        return
    if table not in result.found:  # whatever head this model has, the file's stands for the table
        result.found[table] = names[head]
        _remove(result.foreign, names[head])
    elif model.ties_embeddings:
        result.tied_twice = names[head]
    else:
        return
    _remove(result.unexpected, names[head])


def _remove(names: list[str], name: str) -> None:
    if name in names:
        names.remove(name)


def unwrapped(
    names: Iterable[str], weight_map: WeightMap, slots: dict[str, WeightSlot], prefix: str
) -> dict[str, str]:
    """Names in a file -> names without what wrappers around the model have added.

    Parts of names that only wrappers use go wherever they stand. What all names begin with goes as far as that makes
    more of them known: `module.` of DataParallel, `model.` of a trainer's class, `base_model.model.` of PEFT.
    """
    plain = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names}
    shared = _shared_parts(list(plain.values()))
    best, best_count = 0, -1
    for count in range(len(shared) + 1):
        start = "".join(part + "." for part in shared[:count])
        known = sum(weight_map.resolve(name[len(start) :], slots, prefix) is not None for name in plain.values())
        if known > best_count:
            best, best_count = len(start), known
    return {name: short[best:] for name, short in plain.items()}


def _shared_parts(names: list[str]) -> list[str]:
    """The dotted parts that all names begin with."""
    shared = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def hints(names: list[str]) -> str:
    """A sentence on what to do about unexpected tensors that are known to come from elsewhere; "" for others."""
    if any(part in _ADAPTERS for name in names for part in name.split(".")):
        return (
            ". The file holds adapters: load the base model and give it the adapters with "
            "tfmodels.training.lora.load_adapter, or merge them first (merge_and_unload in PEFT)"
        )
    parts = [name.split(".", 1)[0] for name in names if "." in name]
    if len(parts) == len(names) and len(set(parts)) == 1 and len(names) > 1:
        return f". If {quote(parts[0] + '.')} was put before the model's own names, remove it from them"
    return ""


def same_values(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Whether two tensors of a checkpoint hold the same numbers; reads them piece by piece."""
    if checkpoint.info(one).shape != checkpoint.info(other).shape:
        return False
    left, right = checkpoint.read(one), checkpoint.read(other)
    if left.ndim == 0:
        left, right = left[None], right[None]
    step = max(1, _COMPARED_ELEMENTS // max(1, left[:1].size))
    for start in range(0, len(left), step):
        rows = slice(start, start + step)
        if left.dtype == right.dtype:
            # As bytes, so that the same NaN is the same.
            a, b = (np.ascontiguousarray(array[rows]).view(np.uint8) for array in (left, right))
        else:
            a, b = (array[rows].astype(np.float64) for array in (left, right))
        if not np.array_equal(a, b):
            return False
    return True
