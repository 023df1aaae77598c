"""Read a checkpoint into a model: build it without weights, match the file's tensors to its variables, fill them.

Loading is strict. Every tensor of the file must belong to the model and every weight of the model must be in the file;
only the weights of a new head start at random, with a warning that names them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmodels.checkpoints import deferred, quantized_names, reader, sizes
from tfmodels.checkpoints.matching import Match, hints, match, same_values
from tfmodels.checkpoints.quantized.methods import as_packed
from tfmodels.checkpoints.quantized.packed import PackedCheckpoint
from tfmodels.checkpoints.quantized.scheme import Scheme, round_to_nearest
from tfmodels.checkpoints.weight_map import WeightSlot, head_layer, slots_of, walk
from tfmodels.dtypes import COMPUTE_DTYPES
from tfmodels.runtime.gc import pause_gc
from tfmodels.utils.warn import warn


def load_model(
    model_class: Any,
    checkpoint: reader.Checkpoint,
    config: Any,
    *,
    dtype: Any = None,
    attn_implementation: str | None = None,
    ignore_mismatched_sizes: bool = False,
    keep_gguf: bool = False,
    schemes: Callable[[Any], dict[str, Scheme]] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Build a model and fill it; arguments as in `TFPreTrainedModel.from_pretrained`.

    Args:
        keep_gguf: whether matrices of a GGUF file stay quantised where that loses nothing.
        schemes: gives the layers of a model, by their paths, whose float weights are quantised while they are read.

    Returns:
        The model, and what `output_loading_info=True` returns beside it.

    Raises:
        reader.CheckpointError: the file does not fit the model; the message says in which way.
    """
    with pause_gc():
        checkpoint = as_packed(config, checkpoint, keep_gguf=keep_gguf)
        sizes.check_sizes(config, checkpoint)
        if isinstance(dtype, str) and dtype == "auto":
            dtype = config.dtype if config.dtype in COMPUTE_DTYPES else most_common_dtype(checkpoint)
        options = {"dtype": dtype, "attn_implementation": attn_implementation}
        model, declared = _declare(model_class, config, options)
        slots = slots_of(model)
        fit = match(model, slots, checkpoint)
        left_out = ()
        if ignore_mismatched_sizes and fit.tied_twice is not None:
            left_out = _odd_head(fit, model, slots, checkpoint)
        if fit.tied_twice is not None and not left_out and not _is_table(fit, model, checkpoint):
            warn(
                f"{type(model).__name__}: the configuration says tie_word_embeddings=True, but {fit.tied_twice} "
                f"differs from the embeddings; loaded with tie_word_embeddings=False, so that neither is lost."
            )
            config = config.replace(tie_word_embeddings=False)
            model, declared = _declare(model_class, config, {**options, "name": model.name})
            slots = slots_of(model)
            fit = match(model, slots, checkpoint)
        slots = _pack_layers(model, slots, checkpoint, fit, declared)
        if schemes is not None:
            slots = _pack_floats(model, slots, fit, declared, schemes(model))
        info = _fill(model, slots, checkpoint, fit, ignore_mismatched_sizes)
        info["mismatched_keys"].extend(left_out)
        declared.initialize_rest()
    return model, info


def most_common_dtype(checkpoint: reader.Checkpoint) -> str:
    """The floating-point dtype that most bytes of a checkpoint have, of those that models compute in.

    Tensors stored as float8 count as bfloat16, which holds all their values.
    """
    found: dict[str, int] = {}
    for name in checkpoint.names():
        info = checkpoint.info(name)
        if "float" in info.dtype:
            dtype = info.dtype if info.dtype in COMPUTE_DTYPES else "bfloat16"
            found[dtype] = found.get(dtype, 0) + info.nbytes
    return max(found, key=found.get, default="float32")


def _declare(model_class: Any, config: Any, options: dict[str, Any]) -> tuple[Any, deferred.DeclaredWeights]:
    with deferred.declare_weights() as declared:
        model = model_class(config, **options)
    return model, declared


def _pack_layers(
    model: Any,
    slots: dict[str, WeightSlot],
    checkpoint: PackedCheckpoint,
    fit: Match,
    declared: deferred.DeclaredWeights,
) -> dict[str, WeightSlot]:
    """Give the layers whose weights a file holds quantised variables for them; returns all slots of the model.

    Raises:
        CheckpointError: a weight that cannot be quantised.
    """
    layers = dict(walk(model))
    packed = {name: tensor for name, source in fit.found.items() if (tensor := checkpoint.packed(source)) is not None}
    for name, tensor in packed.items():
        layer, shape = layers[name.rpartition(".")[0]], slots[name].shape
        if not hasattr(layer, "pack") or not name.endswith(".weight"):
            raise reader.CheckpointError(
                f"{checkpoint.folder}: {name} is quantised; only dense layers and tables can be."
            )
        if not getattr(layer, "transposed_in_files", True):
            shape = shape[::-1]
        if shape != tensor.shape:
            raise reader.CheckpointError(
                f"{checkpoint.folder} does not fit {type(model).__name__}: of another shape: {name} {tensor.shape} in "
                f"the file, {shape} here."
            )
        try:
            _pack(layer, tensor.scheme, slots[name], declared)
        except ValueError as error:
            raise reader.CheckpointError(f"{checkpoint.folder}: {name}: {error}") from error
    return slots_of(model) if packed else slots


def _pack_floats(
    model: Any,
    slots: dict[str, WeightSlot],
    fit: Match,
    declared: deferred.DeclaredWeights,
    schemes: dict[str, Scheme],
) -> dict[str, WeightSlot]:
    """Give layers whose weights a file holds as floats variables for quantised ones; returns all slots."""
    layers = dict(walk(model))
    for path, scheme in schemes.items():
        name = f"{path}.weight"
        if name in fit.found and slots[name].packed is None:
            _pack(layers[path], scheme, slots[name], declared)
    return slots_of(model)


def _pack(layer: Any, scheme: Scheme, slot: WeightSlot, declared: deferred.DeclaredWeights) -> None:
    with deferred.declare_weights() as more:
        layer.pack(scheme)
    declared.drop(slot.variable)
    declared.variables += more.variables


def _is_table(fit: Match, model: Any, checkpoint: PackedCheckpoint) -> bool:
    """Whether the output layer's tensor in the file repeats the embedding table."""
    table = fit.found[f"{model.base_model_prefix}.{model.weight_map.tied[1]}"]
    return same_values(checkpoint, table, fit.tied_twice)


def _odd_head(fit: Match, model: Any, slots: dict[str, WeightSlot], checkpoint: reader.Checkpoint) -> tuple[Any, ...]:
    """The file's own output layer with its shape there and here, where it is left out because the two differ."""
    there = tuple(checkpoint.info(fit.tied_twice).shape)
    here = slots[f"{model.base_model_prefix}.{model.weight_map.tied[1]}"].shape
    if there == here:
        return ()
    fit.notes.append(
        f"{fit.tied_twice} {there} in the file does not fit and was left out; the embeddings {here} give the logits"
    )
    return ((fit.tied_twice, there, here),)


def _fill(
    model: Any, slots: dict[str, WeightSlot], checkpoint: PackedCheckpoint, fit: Match, ignore_mismatched_sizes: bool
) -> dict[str, Any]:
    """Fill a model's variables once all that is wrong has been said; returns the loading info."""
    weight_map, start = model.weight_map, model.base_model_prefix + "."
    folder, owner = checkpoint.files[0].parent, type(model).__name__
    stored = {name: stored_name for stored_name, name in _stored_names(model, slots).items()}
    fit.unexpected = [name for name in fit.unexpected if not checkpoint.is_empty_bias(name)]
    _check_quantization(model, checkpoint, fit)
    new = {
        name
        for name in slots
        if not name.startswith(start)
        or weight_map.is_optional(name.removeprefix(start))
        or head_layer(name.removeprefix(start))
    }
    problems = []
    lost = [weight_map.stored_name(name) for name in fit.missing if name not in new]
    if lost:
        problems.append(f"missing from the file: {listed(lost)}")
    if fit.unexpected:
        problems.append(f"in the file but not in the model: {listed(fit.unexpected)}{hints(fit.unexpected)}")
    mismatched = {
        name: (tuple(checkpoint.info(source).shape), slots[name].shape)
        for name, source in fit.found.items()
        if checkpoint.packed(source) is None and tuple(checkpoint.info(source).shape) != slots[name].shape
    }
    if mismatched and not ignore_mismatched_sizes:
        shapes = [f"{fit.found[name]} {there} in the file, {here} here" for name, (there, here) in mismatched.items()]
        hint = " (for a head of another size pass ignore_mismatched_sizes=True)" if new & set(mismatched) else ""
        problems.append(f"of another shape: {listed(shapes)}{hint}")
    if problems:
        told = " ".join([f"{folder} does not fit {owner}: {'; '.join(problems)}.", *model.config.misspelt()])
        raise reader.CheckpointError(told)
    fresh = [name for name in fit.missing if name in new] + list(mismatched)
    sizes.check_new_weights(slots, fresh, checkpoint)
    for name, source in fit.found.items():
        if name in mismatched:
            continue
        if (tensor := checkpoint.packed(source)) is not None:
            deferred.fill_packed(slots[name], tensor.read())
        elif (packed := slots[name].packed) is not None:
            weights = np.asarray(checkpoint.read(source)).astype(np.float32)
            weights = weights.T if slots[name].transposed else weights
            deferred.fill_packed(slots[name], round_to_nearest(weights, packed.scheme))
        else:
            deferred.fill(slots[name], checkpoint.read(source))
    for note in fit.notes:
        warn(f"{owner}: {note}.")
    left_out = [name for name in fit.foreign if head_layer(weight_map.bare_name(name)) in _own_layers(slots, start)]
    if left_out:
        warn(f"{owner}: the tensors {listed(left_out)} belong to the head of another class and were left out.")
    if fresh:
        warn(
            f"{owner}: the weights {listed(fresh)} did not come from the checkpoint and start at random; "
            "train them before use."
        )
    return {
        "missing_keys": [stored[name] for name in fit.missing],
        "unexpected_keys": fit.foreign,
        "mismatched_keys": [(stored[name], *shapes) for name, shapes in mismatched.items()],
        "error_msgs": [],
    }


def _stored_names(model: Any, slots: dict[str, WeightSlot]) -> dict[str, str]:
    """Names that files give the weights of a model -> their names here."""
    by_slot = {id(slot): name for name, slot in slots.items()}
    return {stored: by_slot[id(slot)] for stored, slot in model.stored_names(slots).items()}


def _own_layers(slots: dict[str, WeightSlot], start: str) -> set[str]:
    return {name.split(".", 1)[0] for name in slots if not name.startswith(start)}


def _check_quantization(model: Any, checkpoint: PackedCheckpoint, fit: Match) -> None:
    """Refuse weights that stand for others than they say: integers, and floats that need a scale.

    Raises:
        reader.CheckpointError: the message names the tensors and the method.
    """
    sources = fit.found.values()
    infos = {source: checkpoint.info(source).dtype for source in sources if checkpoint.packed(source) is None}
    wrong = [source for source, dtype in infos.items() if "float" not in dtype]
    method, guessed = quantized_names.method_of(model.config), quantized_names.method_in(fit.unexpected)
    if method is not None:
        wrong += [source for source, dtype in infos.items() if dtype.startswith("float8")]
    packed = len(infos) < len(sources)
    if wrong or (not packed and (guessed is not None or (method is not None and fit.unexpected))):
        shown = [f"{source} ({infos[source]})" for source in wrong] or fit.unexpected
        raise reader.CheckpointError(
            f"{checkpoint.files[0].parent} holds quantised weights, by {method or guessed or 'an unknown method'}: "
            f"{listed(shown)}. {type(model).__name__} reads floating-point weights: load the checkpoint that this one "
            f'was made from, and quantise it here with model.quantize("int8") or model.quantize("int4").'
        )
    if method is not None and not packed:
        warn(
            f"{type(model).__name__}: the configuration names the quantisation {method}, but the file holds plain "
            f"floating-point weights; its quantization_config was dropped."
        )
        for name in ("quantization_config", "quantization", "compression_config"):
            if hasattr(model.config, name):
                delattr(model.config, name)


def listed(names: list[str], most: int = 8) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
