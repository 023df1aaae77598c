"""Read a checkpoint into a model: build it without weights, match the file's tensors to its variables, fill them.

Loading is strict. Every tensor of the file must belong to the model and every weight of the model must be in the file;
only the weights of a new head start at random, with a warning that names them.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

from tfmodels.checkpoints import deferred, reader
from tfmodels.checkpoints.weight_map import slots_of
from tfmodels.runtime.gc import pause_gc


def load_model(
    model_class: Any,
    folder: str | os.PathLike,
    config: Any,
    *,
    dtype: Any,
    attn_implementation: str | None,
    ignore_mismatched_sizes: bool,
    gguf_file: str | None = None,
) -> Any:
    """Build a model and fill it from a folder; arguments as in `TFPreTrainedModel.from_pretrained`.

    Returns:
        The model.
    """
    with pause_gc(), reader.open_checkpoint(folder, gguf_file) as checkpoint:
        if isinstance(dtype, str) and dtype == "auto":
            dtype = config.dtype or most_common_dtype(checkpoint)
        with deferred.declare_weights() as declared:
            model = model_class(config, dtype=dtype, attn_implementation=attn_implementation)
        load_weights(model, checkpoint, ignore_mismatched_sizes=ignore_mismatched_sizes)
        declared.initialize_rest()
    return model


def most_common_dtype(checkpoint: reader.Checkpoint) -> str:
    """The floating-point dtype that most bytes of a checkpoint have."""
    sizes: dict[str, int] = {}
    for name in checkpoint.names():
        info = checkpoint.info(name)
        if "float" in info.dtype:
            sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
    return max(sizes, key=sizes.get, default="float32")


def load_weights(model: Any, checkpoint: reader.Checkpoint, *, ignore_mismatched_sizes: bool = False) -> None:
    """Fill a model's variables from a checkpoint, strictly.

    Raises:
        reader.CheckpointError: tensors are missing, unexpected or wrongly shaped; the message lists them.
    """
    slots, weight_map, prefix = slots_of(model), model.weight_map, model.base_model_prefix
    found: dict[str, str] = {}
    unexpected = []
    for name in checkpoint.names():
        if weight_map.dropped(name):
            continue
        slot_name = weight_map.resolve(name, slots, prefix)
        if slot_name is not None:
            found[slot_name] = name
        elif not weight_map.may_differ(weight_map.bare_name(name)):
            unexpected.append(name)
    for slot_name, name in weight_map.substitutes:
        if slot_name in slots and name in checkpoint.names():
            found.setdefault(slot_name, name)
    missing = [name for name in slots if name not in found]
    start = prefix + "."
    is_head = {n for n in slots if not n.startswith(start) or weight_map.may_differ(n.removeprefix(start))}
    problems = []
    lost = [weight_map.stored_name(name) for name in missing if name not in is_head]
    if lost:
        problems.append(f"missing from the file: {_listed(lost)}")
    if unexpected:
        problems.append(f"in the file but not in the model: {_listed(unexpected)}")
    mismatched = [n for n, source in found.items() if tuple(checkpoint.info(source).shape) != slots[n].shape]
    if mismatched and not ignore_mismatched_sizes:
        shapes = [
            f"{n} {tuple(checkpoint.info(found[n]).shape)} in the file, {slots[n].shape} here" for n in mismatched
        ]
        hint = " (for a head of another size pass ignore_mismatched_sizes=True)" if is_head & set(mismatched) else ""
        problems.append(f"of another shape: {_listed(shapes)}{hint}")
    if problems:
        raise reader.CheckpointError(
            f"{checkpoint.files[0].parent} does not fit {type(model).__name__}: {'; '.join(problems)}."
        )
    fresh = [name for name in missing if name in is_head] + mismatched
    for slot_name, source in found.items():
        if slot_name not in mismatched:
            deferred.fill(slots[slot_name], checkpoint.read(source))
    if fresh:
        warnings.warn(
            f"{type(model).__name__}: {_listed(fresh)} did not come from the checkpoint and start at random; train "
            f"them before use.",
            stacklevel=3,
        )


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
