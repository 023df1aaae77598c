"""Turn the data given to `fit`, `evaluate` and `predict` into a model's inputs and labels.

Datasets of the `datasets` library and of older scripts hold texts and ids beside the inputs, labels under the singular
name, and rows of different lengths. This module settles all of that before Keras sees the data.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from tfmodels.models.calling import check_names, typed_in
from tfmodels.models.fit_checks import check_data
from tfmodels.models.losses import IGNORED
from tfmodels.runtime.fork import check_not_forked
from tfmodels.utils.text import holds_text, shorten
from tfmodels.utils.warn import warn

# Padding value per column; input_ids use pad_token_id.
PADDING = {"attention_mask": 0, "position_ids": 0, "token_type_ids": 0, "labels": IGNORED, "word_ids": -1}
# Columns that tokenizers and datasets add and that no model takes, though some resemble an input's name.
_KNOWN_EXTRAS = (
    "length",
    "num_truncated_tokens",
    "offset_mapping",
    "overflow_to_sample_mapping",
    "overflowing_tokens",
    "special_tokens_mask",
    "token_type_ids",
    "word_ids",
)
# Other names that datasets have for `labels`.
_LABELS_TOO = ("label", "label_ids")


def is_dataset(x: Any) -> bool:
    """Whether `x` is a `tf.data.Dataset`; imports nothing."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(x, tf.data.Dataset)


def can_shuffle(x: Any) -> bool:
    """Whether Keras shuffles such data: arrays and PyDatasets of known length, but neither datasets nor generators."""
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches is not None
    return isinstance(x, (Mapping, list, tuple)) or hasattr(x, "shape")


def prepared(model: Any, x: Any, y: Any, *, apart: bool = False) -> tuple[Any, Any]:
    """The arguments `x` and `y` of `fit` and its like, as Keras and the model's steps take them.

    Args:
        model: a `TaskModel`.
        x: arrays, tensors, ragged tensors, lists of numbers, a dict or list of them, a dict and labels as a tuple,
            a dataset, or a generator of batches.
        y: labels, or None.
        apart: move labels from `x` to `y`: sample and class weights belong to a `y`.

    Returns:
        The two; columns that are no inputs are dropped with a warning, ragged tensors are padded.

    Raises:
        TypeError: an unknown column whose name is close to an input's, or a tuple of more than features and labels.
        RuntimeError: this process was forked from one that has made or used a model.
    """
    check_not_forked()
    x, y = _features_and_labels(x, y)
    if is_dataset(x):
        return _dataset(model, x, apart), y
    if inspect.isgenerator(x):
        return _batches(model, x, apart), y
    x, y = _by_name(model, _without_token_types(model, _arrays(x))), _arrays(y)
    if isinstance(x, Mapping) or _is_ragged(x):
        x = _padded(model, as_inputs(model, x))
    if _any_ragged(y):
        y = _padded(model, by_label_name(model, y))
    if apart and y is None:
        x, y = split_labels(model, x)
    check_data(model, *named(model, x, y))
    return x, y


def check_not_empty(x: Any, name: str = "x") -> None:
    """Refuse data without a row, as far as that is known without taking any: Keras would train on nothing silently.

    Args:
        x: as `prepared` returns it.
        name: what the message calls it.

    Raises:
        ValueError: there are no data, no rows in arrays, or no batches in a dataset that knows its length.
    """
    if x is None:
        raise ValueError(f"{name} is missing; arrays, a dataset or a generator of batches was expected.")
    if is_dataset(x) or isinstance(x, keras.utils.PyDataset):
        if (int(x.cardinality()) if is_dataset(x) else x.num_batches) == 0:
            raise ValueError(without_batch(name))
    elif can_shuffle(x):
        shapes = [tuple(part.shape) for part in keras.tree.flatten(x) if hasattr(part, "shape")]
        empty = [shape for shape in shapes if shape[:1] == (0,)]
        if empty or (not hasattr(x, "shape") and not len(x)):
            shape = f" (shape {empty[0]})" if empty else ""
            raise ValueError(f"{name} is empty{shape}; at least one row was expected.")


def without_batch(name: str = "x") -> str:
    """The message where a dataset has no batch, which many show only when they are asked for one."""
    return (
        f"{name} is a dataset without a batch; at least one was expected. batch(..., drop_remainder=True) drops all "
        "rows where they are fewer than a batch, and filter(...) those that it does not keep."
    )


def _features_and_labels(x: Any, y: Any) -> tuple[Any, Any]:
    """`({"input_ids": ...}, labels)` given as one argument, as a batch of a dataset is, as two."""
    first = x[0] if isinstance(x, (tuple, list)) and x else None
    if isinstance(first, (tuple, list)) and first and isinstance(first[0], Mapping):
        raise TypeError(
            f"x holds pairs of features and labels, {len(x)} of them; a dict of arrays of all rows, and their labels, "
            f"were expected, or a tf.data.Dataset or generator of such batches."
        )
    if not isinstance(first, Mapping):
        if isinstance(x, tuple) and len(x) == 2 and y is None and len(getattr(x[1], "shape", ())) == 1:
            raise TypeError(
                f"x=(features, labels) stands for two inputs of the model, and the second has the shape "
                f"{tuple(x[1].shape)} of labels: give them as y."
            )
        return x, y
    if len(x) > 2 or (len(x) == 2 and y is not None):
        given = f"{len(x)} values, the first of them a dict" + (", and y" if y is not None else "")
        raise TypeError(
            f"x holds {given}; a dict of features, or features and labels, were expected: give labels as y and "
            f"weights of the rows as sample_weight."
        )
    return x[0], x[1] if len(x) == 2 else y


def named(model: Any, x: Any, y: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and labels by name, as far as they tell their names or come in order."""
    if isinstance(x, Mapping) and model.label_names == ("labels",) and "labels" not in x:
        x = {"labels" if name in _LABELS_TOO else name: value for name, value in x.items()}
    inputs = dict(x) if isinstance(x, Mapping) else dict(zip(model.input_names, _listed(x), strict=False))
    labels = {name: inputs.pop(name) for name in model.label_names if name in inputs}
    if y is not None:
        labels |= y if isinstance(y, Mapping) else dict(zip(model.label_names, _listed(y), strict=False))
    return inputs, labels


def _listed(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, (list, tuple)) and not holds_text(values) else (values,)


def _arrays(data: Any) -> Any:
    """Python lists of numbers, which Keras does not take, as arrays; what a tokenizer returned as a plain dict."""
    if isinstance(data, Mapping):
        return {name: typed_in(value) for name, value in data.items()}
    return typed_in(data)


def _without_token_types(model: Any, x: Any) -> Any:
    """A list `[ids, mask, token_type_ids]` of old scripts by name, without the types that the model does not take."""
    if not isinstance(x, (list, tuple)) or len(x) < 3:
        return x
    values = model.without_token_types(tuple(x))
    if values[2] is x[2]:
        return x
    return {name: value for name, value in zip(model.input_names, values, strict=False) if value is not None}


def _by_name(model: Any, x: Any) -> Any:
    """A list of inputs that holds ragged tensors as a dict by their names; anything else as it is."""
    if isinstance(x, (list, tuple)) and _any_ragged(x):
        return {name: value for name, value in zip(model.input_names, x, strict=False) if value is not None}
    return x


def prepared_validation(model: Any, data: Any) -> Any:
    """The `validation_data` of `fit`, as `prepared` makes training data."""
    if data is None or is_dataset(data):
        return data if data is None else _dataset(model, data, False)
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    x, y = prepared(model, x, y, apart=weights is not None)
    return x if y is None and weights is None else (x, y, weights)


def _batches(model: Any, batches: Iterable[Any], apart: bool) -> Iterator[tuple]:
    """A Python generator's batches, each made what `prepared` returns. Keras takes tuples only."""
    for batch in batches:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch if isinstance(batch, tuple) else (batch,))
        x, y = prepared(model, x, y, apart=apart or weights is not None)
        yield (x, y, weights) if weights is not None else ((x,) if y is None else (x, y))


def _dataset(model: Any, data: Any, apart: bool) -> Any:
    """A `tf.data.Dataset` mapped to what `prepared` returns, or the same dataset where nothing has to change."""
    spec = data.element_spec
    parts = spec if isinstance(spec, tuple) else (spec,)
    features = parts[0]
    changes = _any_ragged(features) or any(map(_any_ragged, parts[1:2]))
    if isinstance(features, Mapping):
        kept = accepted(model, features)
        changes |= set(kept) != set(features)
    else:
        kept = None
    known = features if kept is None else {name: features[column] for column, name in kept.items()}
    check_data(model, *named(model, known, parts[1] if len(parts) > 1 else None))
    apart = apart and len(parts) == 1 and kept is not None and any(name in kept.values() for name in model.label_names)
    if not changes and not apart:
        return data

    def change(*element: Any) -> Any:
        x, *rest = element
        if kept is not None:
            x = {name: x[column] for column, name in kept.items()}
        x = _padded(model, _by_name(model, x))
        if rest and _any_ragged(rest[0]):
            rest[0] = _padded(model, by_label_name(model, rest[0]))
        if apart:
            return split_labels(model, x)
        return (x, *rest) if rest else x

    return data.map(change)


def accepted(model: Any, columns: Mapping[str, Any]) -> dict[str, str]:
    """Pick the columns that a model takes, with the input each one is; drop the others with a warning.

    Args:
        model: a `TaskModel`.
        columns: tensors or their specs by name.

    Returns:
        Column -> input of the model.

    Raises:
        TypeError: a column that holds numbers and whose name is close to an input's: dropping a misspelt
            attention mask would change results.
    """
    names = (*model.input_names, "training")
    kept, dropped = {}, []
    for column in columns:
        if column in names:
            kept[column] = column
        elif column in _LABELS_TOO and model.label_names == ("labels",) and "labels" not in columns:
            kept[column] = "labels"
        else:
            dropped.append(column)
    for column in dropped:
        is_text = getattr(columns[column], "dtype", None) in ("string", object) or _kind(columns[column]) in ("U", "S")
        if is_text or column in (*_KNOWN_EXTRAS, *_LABELS_TOO):
            continue
        if difflib.get_close_matches(str(column), names, cutoff=0.65):
            check_names(names, {column: None}, type(model).__name__)
    if dropped:
        warn(
            f"{type(model).__name__} takes no {', '.join(sorted(map(shorten, dropped)))}; these columns of the data "
            f"are left out. It takes {', '.join(kept.values()) or 'none of the columns'} of them."
        )
    return kept


def as_inputs(model: Any, x: Any) -> Any:
    """A dict of features without the columns that the model does not take; anything else as it is."""
    if not isinstance(x, Mapping):
        return x
    kept = accepted(model, x)
    return x if list(kept) == list(x) == list(kept.values()) else {name: x[column] for column, name in kept.items()}


def split_labels(model: Any, x: Any) -> tuple[Any, Any]:
    """Features without labels, and the labels among them by name, or None where there are none."""
    if not isinstance(x, Mapping):
        return x, None
    labels = {name: x[name] for name in model.label_names if name in x}
    features = {name: value for name, value in x.items() if name not in model.label_names}
    return features, (next(iter(labels.values())) if len(labels) == 1 else labels or None)


def by_label_name(model: Any, y: Any) -> dict[str, Any]:
    """Labels by name, from a dict under the labels' or the outputs' names, a list in their order, or a tensor alone.

    Raises:
        ValueError: names or a number of labels that are not the model's.
    """
    if isinstance(y, Mapping):
        named = under_label_names(model, y)
        if set(named) <= set(model.label_names):
            return named
        given = ", ".join(map(str, y))
    else:
        values = y if isinstance(y, (list, tuple)) else (y,)
        if len(values) == len(model.label_names):
            return dict(zip(model.label_names, values, strict=True))
        given = f"{len(values)} of them"
    raise ValueError(
        f"{type(model).__name__} learns from {' and '.join(model.label_names)}; the targets that came are {given}."
    )


def under_label_names(model: Any, y: Mapping[str, Any]) -> dict[str, Any]:
    """Targets whose names are the labels', the outputs' or other known ones under the labels' names; others stay."""
    of_output = dict(zip(model.main_outputs, model.label_names, strict=False))
    if model.label_names == ("labels",):
        of_output |= dict.fromkeys(_LABELS_TOO, "labels")
    return {of_output.get(name, name): value for name, value in y.items()}


def _padded(model: Any, x: Any) -> Any:
    """Features with ragged tensors padded to the right, and an attention mask where there was none."""
    if _is_ragged(x):
        x = {model.input_names[0]: x}
    if not isinstance(x, Mapping) or not _any_ragged(x):
        return x
    dense = {}
    for name, value in x.items():
        if not _is_ragged(value):
            dense[name] = value
            continue
        fill = PADDING.get(name)
        if fill is None:
            # Padding is kept out by the mask below, so any id will do where the model has none for it.
            fill = getattr(model.config, "pad_token_id", None) or 0
        dense[name] = value.to_tensor(fill)
    ids = x.get("input_ids")
    if _is_ragged(ids) and "attention_mask" not in dense and "attention_mask" in model.input_names:
        import tensorflow as tf

        dense["attention_mask"] = tf.ones_like(ids).to_tensor(0)
    return dense


def _is_ragged(value: Any) -> bool:
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(value, (tf.RaggedTensor, tf.RaggedTensorSpec))


def _any_ragged(data: Any) -> bool:
    """Whether data, or a part of a dict or list of it, is a ragged tensor."""
    parts = data.values() if isinstance(data, Mapping) else data if isinstance(data, (list, tuple)) else (data,)
    return any(map(_is_ragged, parts))


def _kind(column: Any) -> str:
    return getattr(getattr(column, "dtype", None), "kind", "")
