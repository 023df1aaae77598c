"""GPTQ: quantise the dense layers of a model so that they give the same outputs for the texts it has seen.

Source:
    Frantar et al., https://arxiv.org/abs/2210.17323; outputs of the whole model as the aim: Li et al.,
    https://arxiv.org/abs/2504.02692.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfmodels.checkpoints.quantized.scheme import Parts, Scheme, group_scales, pack
from tfmodels.layers.linear import Linear
from tfmodels.runtime.sub_layers import all_layers
from tfmodels.utils.text import quote

# Added to the diagonal of the products of inputs, as a share of its mean.
_DAMPING = 0.01
# How much fitted weights are held to what they were, as a share of the mean of that diagonal.
_HELD = 0.1
# Rows whose errors are handed on at once.
_BLOCK = 128
_BATCH = 4
# The largest share of the range that scales may leave out, and the steps in which it is looked for.
_SHRINKAGE = np.linspace(1.0, 0.7, 13, dtype=np.float32)


def calibrated(model: keras.Model, schemes: Mapping[int, Scheme], batches: Sequence[Mapping[str, Any]]) -> None:
    """Pack dense layers, block by block, so that they give with rounded inputs what they gave with whole ones.

    Two streams of hidden states run through the blocks: one of the float model, one of the model as far as it is
    packed. A layer's weights are first fitted to turn inputs of the second into its outputs of the first, and then
    rounded by GPTQ; layers with the same inputs at once, in the order of their calls. A layer's adapter takes up what
    rounding loses, as far as its rank allows, and the layers after it see what both compute.

    Args:
        model: with a `backbone` of `layers`.
        schemes: id of each layer to be packed -> its scheme, of integers without order and divisors.
        batches: inputs of the backbone, as `to_batches` makes them.
    """
    entries = [_entry_of_blocks(model.backbone, batch) for batch in batches]
    whole = [entry[0][0] for entry in entries]
    rounded = list(whole)
    kept = [np.asarray(batch["attention_mask"]).reshape(-1) > 0 for batch in batches]
    for index, block in enumerate(model.backbone.layers):
        layers = [layer for layer in all_layers(block) if isinstance(layer, Linear) and id(layer) in schemes]
        contexts = [entry[index][1] for entry in entries]
        wanted, whole = _inputs_of_layers(block, layers, whole, contexts, kept)
        for together in _with_the_same_inputs(layers, wanted):
            found, _ = _inputs_of_layers(block, together[:1], rounded, contexts, kept)
            rows, targets = found[id(together[0])], wanted[id(together[0])]
            products = np.zeros((rows[0].shape[1],) * 2, np.float64)
            crossed = np.zeros_like(products)
            for given, target in zip(rows, targets, strict=True):
                products += given.T @ given
                crossed += given.T @ target
            for layer in together:
                scheme, adapter = schemes[id(layer)], layer.adapter
                kernel = keras.ops.convert_to_numpy(keras.ops.cast(layer.kernel, "float32"))
                change = 0.0 if adapter is None else keras.ops.convert_to_numpy(adapter.change())
                aim = fitted(kernel + change, products, crossed)
                packed = layer.pack(scheme, gptq(aim - change, products, scheme))
                if adapter is not None:
                    adapter.approximate(aim - packed.dequantized(), products + _diagonal(products, _DAMPING))
        rounded = [block(hidden, context=context)[0] for hidden, context in zip(rounded, contexts, strict=True)]


def _entry_of_blocks(backbone: Any, batch: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The hidden states and the context that each block gets."""
    seen: list[tuple[Any, Any]] = []
    backbone.block_observer = lambda hidden, context: seen.append((hidden if not seen else None, context))
    try:
        backbone(**batch)
    finally:
        backbone.block_observer = None
    return seen


def _inputs_of_layers(
    block: Any, layers: Sequence[Linear], hidden: Sequence[Any], contexts: Sequence[Any], kept: Sequence[np.ndarray]
) -> tuple[dict[int, list[np.ndarray]], list[Any]]:
    """The inputs of layers for each batch, (tokens, width) without padding, by their ids; and the block's outputs."""
    found: dict[int, list[np.ndarray]] = {}
    shared: dict[int, tuple[Any, np.ndarray]] = {}  # tensor's id -> the tensor, which stays alive, and its rows
    here = [kept[0]]

    def observe(layer: Linear) -> Any:
        def observer(inputs: Any) -> None:
            if id(inputs) not in shared:
                rows = keras.ops.convert_to_numpy(keras.ops.cast(inputs, "float32")).reshape(-1, layer.width)
                shared[id(inputs)] = inputs, rows[here[0]] if len(here[0]) == len(rows) else rows
            found.setdefault(id(layer), []).append(shared[id(inputs)][1])

        return observer

    outputs = []
    try:
        for layer in layers:
            layer.observer = observe(layer)
        for states, context, mask in zip(hidden, contexts, kept, strict=True):
            here[0] = mask
            outputs.append(block(states, context=context)[0])
            shared.clear()
    finally:
        for layer in layers:
            layer.observer = None
    return found, outputs


def _with_the_same_inputs(layers: Sequence[Linear], inputs: Mapping[int, list[np.ndarray]]) -> list[list[Linear]]:
    """Layers that were called, in the order of their calls, those with the same inputs together."""
    groups: dict[int, list[Linear]] = {}
    called = {id(layer): layer for layer in layers}
    for key in inputs:
        groups.setdefault(id(inputs[key][0]), []).append(called[key])
    return list(groups.values())


def fitted(weights: np.ndarray, products: np.ndarray, crossed: np.ndarray) -> np.ndarray:
    """Weights (in, out) that turn rounded inputs into what `weights` make of whole ones, as far as these are near.

    Args:
        products: the sum of x x^T over rounded inputs x.
        crossed: the sum of x y^T over rounded inputs x and whole inputs y.
    """
    held = _diagonal(products, _HELD)
    return np.linalg.solve(products + held, (crossed + held) @ weights).astype(np.float32)


def _diagonal(products: np.ndarray, share: float) -> np.ndarray:
    """A diagonal matrix of a share of the mean of another's diagonal, above zero."""
    return max(share * float(np.diag(products).mean()), 1e-6) * np.eye(len(products))


def gptq(weights: np.ndarray, products: np.ndarray, scheme: Scheme) -> Parts:
    """Quantise a matrix row by row, each row's rounding error made good by the rows after it.

    Rows come in the order of how much they are used; their groups stay where they are, and each group's scale is the
    one of several that loses least.

    Args:
        weights: float (in, out).
        products: float (in, in), the sum of x x^T over inputs x.
        scheme: of integers, without order and divisors.

    Returns:
        The scheme's arrays.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> inputs, weights = rng.normal(size=(64, 8)) @ rng.normal(size=(8, 8)), rng.normal(size=(8, 3))
        >>> from tfmodels.checkpoints.quantized.scheme import dequantize, round_to_nearest
        >>> scheme = Scheme(bits=4)
        >>> parts = gptq(weights.astype("float32"), inputs.T @ inputs, scheme)
        >>> errors = [
        ...     np.square(inputs @ (dequantize(found, scheme, 8) - weights)).sum()
        ...     for found in (parts, round_to_nearest(weights.astype("float32"), scheme))
        ... ]
        >>> bool(errors[0] < errors[1])
        True
    """
    width = len(weights)
    use = np.diag(products).copy()
    scales, offsets = _best_scales(weights, use, scheme)
    group = np.arange(width) // (scheme.group_size or max(width, 1))
    steps = scales.astype(np.float32)[group]
    low, high = -(1 << (scheme.bits - 1)), (1 << (scheme.bits - 1)) - 1
    zeros = np.zeros_like(steps) if offsets is None else offsets.astype(np.float32)[group]
    order = np.argsort(-use, kind="stable")
    inverse = _factor(products[np.ix_(order, order)])
    left, q = np.array(weights[order], np.float32), np.empty(weights.shape, np.int8)
    for start in range(0, width, _BLOCK):
        rows = range(start, min(start + _BLOCK, width))
        errors = np.empty((len(rows), weights.shape[1]), np.float32)
        for index, row in enumerate(rows):
            place = order[row]
            if scheme.offsets == "minimums":
                rounded = np.clip(np.rint((left[row] - zeros[place]) / steps[place]) + low, low, high)
                value = (rounded - low) * steps[place] + zeros[place]
            else:
                rounded = np.clip(np.rint(left[row] / steps[place] + zeros[place]), low, high)
                value = (rounded - zeros[place]) * steps[place]
            q[place] = rounded
            errors[index] = (left[row] - value) / inverse[row, row]
            left[row + 1 : rows.stop] -= np.outer(inverse[row, row + 1 : rows.stop], errors[index])
        left[rows.stop :] -= inverse[start : rows.stop, rows.stop :].T @ errors
    parts = {"weights": pack(q, scheme), "scales": scales}
    return parts if offsets is None else {**parts, scheme.offsets: offsets}


def _factor(products: np.ndarray) -> np.ndarray:
    """The upper Cholesky factor of the inverse, float32; inputs that are never used count as independent."""
    matrix = np.array(products, np.float64)
    diagonal = np.einsum("ii->i", matrix)
    diagonal[diagonal == 0] = 1.0
    damping = _DAMPING * diagonal.mean()
    for _ in range(10):
        try:
            inverse = np.linalg.inv(np.linalg.cholesky(matrix + damping * np.eye(len(matrix))))
            return np.linalg.cholesky(inverse.T @ inverse).T.astype(np.float32)
        except np.linalg.LinAlgError:
            damping *= 10
    raise ValueError("The inputs of a layer hold numbers that are not finite: the model is damaged.")


def _best_scales(weights: np.ndarray, use: np.ndarray, scheme: Scheme) -> tuple[np.ndarray, np.ndarray | None]:
    """The scales and offsets that lose least of the rows that are used, of several smaller and smaller ranges."""
    width, units = weights.shape
    groups, padded = scheme.groups(width), scheme.padded(width)
    group = np.arange(padded) // (scheme.group_size or max(padded, 1))
    rows = np.pad(np.asarray(weights, np.float32), [(0, padded - width), (0, 0)])
    worth = np.pad(use / max(use.mean(), 1e-30), (0, padded - width)).astype(np.float32)[:, None]
    low, high = -(1 << (scheme.bits - 1)), (1 << (scheme.bits - 1)) - 1
    best: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None
    # A negative scale gives the larger side of the integers to positive weights.
    for share in [*_SHRINKAGE, *(-_SHRINKAGE if scheme.offsets is None else ())]:
        scales, offsets = group_scales(weights * abs(share), scheme)
        scales = -scales if share < 0 else scales
        steps = scales.astype(np.float32)[group]
        zeros = 0.0 if offsets is None else offsets.astype(np.float32)[group]
        if scheme.offsets == "minimums":
            values = (np.clip(np.rint((rows - zeros) / steps) + low, low, high) - low) * steps + zeros
        else:
            values = (np.clip(np.rint(rows / steps + zeros), low, high) - zeros) * steps
        lost = (worth * np.square(values - rows)).reshape(groups, -1, units).sum(axis=1)
        if best is None:
            best = lost, scales, offsets
            continue
        better = lost < best[0]
        offsets = None if offsets is None else np.where(better, offsets, best[2])
        best = np.minimum(lost, best[0]), np.where(better, scales, best[1]), offsets
    return best[1], best[2]


def to_batches(calibration: Any, tokenizer: Any, max_length: int) -> list[dict[str, np.ndarray]]:
    """Batches of ids and masks from what a caller gives for calibration.

    Args:
        calibration: texts (with a tokenizer), rows of ids of any length, or dicts of `input_ids` (and
            `attention_mask`), such as a dataset yields; the first of (features, labels) counts.
        tokenizer: of the model, for texts.
        max_length: tokens of a row that are used.

    Raises:
        ValueError: there is nothing, or what there is are no such rows; texts without a tokenizer.
        TypeError: a tokenizer that is none, such as its name.

    Example:
        >>> to_batches([[5, 6, 7], [8]], None, 2)[0]["input_ids"].tolist()
        [[5, 6], [8, 0]]
    """
    if tokenizer is not None and not callable(tokenizer):
        raise TypeError(f"tokenizer={quote(tokenizer)}; a tokenizer was expected: AutoTokenizer.from_pretrained(...).")
    rows: list[np.ndarray] = []
    given = [calibration] if isinstance(calibration, (str, Mapping)) else calibration
    if not isinstance(given, Iterable):
        raise ValueError(f"calibration={quote(calibration)}; texts, rows of ids or a dataset were expected.")
    for item in given:
        rows += _rows(
            item[0] if isinstance(item, tuple) and item and isinstance(item[0], Mapping) else item, tokenizer
        )
    rows = [row[:max_length] for row in rows if len(row)]
    if not rows:
        raise ValueError("calibration holds no tokens; texts, rows of ids or a dataset were expected.")
    batches = []
    rows.sort(key=len, reverse=True)
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        ids = np.zeros((len(some), len(some[0])), np.int32)
        mask = np.zeros_like(ids)
        for index, row in enumerate(some):
            ids[index, : len(row)], mask[index, : len(row)] = row, 1
        batches.append({"input_ids": ids, "attention_mask": mask})
    return batches


def _rows(item: Any, tokenizer: Any) -> list[np.ndarray]:
    """Rows of ids in one item of `calibration`."""
    if isinstance(item, str):
        if tokenizer is None:
            raise ValueError("calibration holds texts: pass the model's tokenizer as tokenizer=, too.")
        return [np.asarray(tokenizer(item)["input_ids"], np.int64).reshape(-1)]
    mask = None
    if isinstance(item, Mapping):
        if "input_ids" not in item:
            raise ValueError(f"calibration holds a dict of {quote(list(item))}; one with input_ids was expected.")
        mask, item = item.get("attention_mask"), item["input_ids"]
    try:
        ids = np.asarray(item)
    except ValueError:  # rows of several lengths
        ids = None
    if ids is None or ids.ndim not in (1, 2) or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"calibration holds {quote(item)}; a text, token ids or a dict of input_ids was expected.")
    masks = np.ones_like(ids) if mask is None else np.asarray(mask)
    return [row[kept > 0] for row, kept in zip(np.atleast_2d(ids), np.atleast_2d(masks), strict=True)]
