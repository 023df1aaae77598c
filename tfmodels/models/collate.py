"""Rows of a dataset stacked into arrays, and whole datasets of the `datasets` library as `tf.data`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmodels.models.fit_data import accepted, split_labels
from tfmodels.utils.text import quote

# Columns that collators read and models do not take.
_FOR_COLLATORS = ("special_tokens_mask", "word_ids")


def stack(features: Sequence[Any], return_tensors: str = "np") -> dict[str, Any]:
    """Stack rows of equal shape; `label` and `label_ids` become `labels`; texts and None are left out.

    Args:
        features: a dict per row (or an object with attributes), all with the keys of the first.
        return_tensors: "np" or "tf".

    Returns:
        Arrays by name: integers as int64, floats as float32.

    Raises:
        ValueError: rows of a column differ in shape; no rows; another `return_tensors`.

    Example:
        >>> batch = stack([{"input_ids": [5, 6], "label": 1}, {"input_ids": [7, 8], "label": 0}])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[5, 6], [7, 8]], [1, 0])
    """
    if not features:
        raise ValueError("features is empty; a list of rows was expected.")
    rows = [row if isinstance(row, Mapping) else vars(row) for row in features]
    first, batch = rows[0], {}
    of_labels = next((name for name in ("label", "label_ids", "labels") if first.get(name) is not None), None)
    for name, value in first.items():
        if value is None or isinstance(value, (str, bytes)):
            continue
        if name in ("label", "label_ids", "labels") and name != of_labels:
            continue
        batch["labels" if name == of_labels else name] = _stacked(name, [row[name] for row in rows])
    return as_tensors(batch, return_tensors)


def _stacked(name: str, values: list[Any]) -> np.ndarray:
    try:
        return _typed(np.stack([np.asarray(value) for value in values]))
    except ValueError:
        shapes = sorted({np.shape(value) for value in values if not _is_uneven(value)})
        raise ValueError(
            f"{quote(name)}: the rows of a batch have the shapes {quote(shapes)}; one shape was expected. Pad "
            "them, for "
            f"example with DataCollatorWithPadding(tokenizer)."
        ) from None


def _is_uneven(value: Any) -> bool:
    try:
        np.shape(value)
    except ValueError:
        return True
    return False


def _typed(array: np.ndarray) -> np.ndarray:
    kind = {"i": "int64", "u": "int64", "f": "float32"}.get(array.dtype.kind)
    return array if kind is None else array.astype(kind)


def as_tensors(batch: Mapping[str, Any], return_tensors: str) -> dict[str, Any]:
    """Arrays as NumPy or TensorFlow holds them; ValueError for anything but "np" and "tf"."""
    if return_tensors not in ("np", "tf"):
        raise ValueError(f'return_tensors={quote(return_tensors)}; "np" or "tf" was expected.')
    arrays = {name: _typed(np.asarray(values)) for name, values in batch.items()}
    if return_tensors == "np":
        return arrays
    import tensorflow as tf

    return {name: tf.convert_to_tensor(values) for name, values in arrays.items()}


def renamed_labels(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with `label` or `label_ids` under the name `labels`."""
    batch = dict(batch)
    for name in ("label", "label_ids"):
        if name in batch:
            batch["labels"] = batch.pop(name)
    return batch


def to_tf_dataset(
    model: Any,
    dataset: Any,
    *,
    batch_size: int,
    shuffle: bool,
    tokenizer: Any,
    collate_fn: Callable[..., Mapping[str, Any]] | None,
    collate_fn_args: Mapping[str, Any] | None,
    drop_remainder: bool | None,
    prefetch: bool,
) -> Any:
    """See `tfmodels.models.base.TFPreTrainedModel.prepare_tf_dataset`."""
    import tensorflow as tf

    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")) or isinstance(dataset, Mapping):
        raise TypeError(
            f"dataset is of type {type(dataset).__name__}; a datasets.Dataset, or a list with a dict per row, was "
            f"expected."
        )
    if not len(dataset) or batch_size < 1:
        raise ValueError(f"{len(dataset)} rows in batches of {batch_size}: at least one of both was expected.")
    kept = (*accepted(model, _columns(dataset)), *_FOR_COLLATORS)
    if collate_fn is None:
        collate_fn = stack if tokenizer is None else lambda rows: tokenizer.pad(rows, return_tensors="np")

    def collate(indices: Any) -> dict[str, np.ndarray]:
        rows = [{name: value for name, value in row.items() if name in kept} for row in _rows(dataset, indices)]
        batch = renamed_labels(collate_fn(rows, **(collate_fn_args or {})))
        return {name: _typed(np.asarray(batch[name])) for name in model.input_names if name in batch}

    sample = collate(range(min(batch_size, len(dataset))))
    names = list(sample)

    def read(indices: np.ndarray) -> list[np.ndarray]:
        batch = collate(indices.tolist())  # once: a collator that draws at random makes inputs and labels that belong
        return [batch[name] for name in names]

    def load(indices: Any) -> Any:
        arrays = tf.numpy_function(
            read,
            [indices],
            [tf.as_dtype(sample[name].dtype) for name in names],
        )
        for array, name in zip(arrays, names, strict=True):
            array.set_shape([None] * sample[name].ndim)
        features, labels = split_labels(model, dict(zip(names, arrays, strict=True)))
        return features if labels is None else (features, labels)

    data = tf.data.Dataset.range(len(dataset))
    if shuffle:
        data = data.shuffle(len(dataset))
    data = data.batch(batch_size, drop_remainder=shuffle if drop_remainder is None else drop_remainder).map(load)
    return data.prefetch(tf.data.AUTOTUNE) if prefetch else data


def _columns(dataset: Any) -> dict[str, Any]:
    """An example of each column, by name."""
    return dict(dataset[0])


def _rows(dataset: Any, indices: Sequence[int]) -> list[dict[str, Any]]:
    if not hasattr(dataset, "column_names"):  # no table of the `datasets` library, which alone reads many rows at once
        return [dataset[index] for index in indices]
    found = dataset[list(indices)]  # one read for all of them
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
