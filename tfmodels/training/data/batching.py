"""Columns of rows as a `tf.data.Dataset` of padded, shuffled batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import tensorflow as tf

from tfmodels.models.fit_data import PADDING
from tfmodels.utils.text import quote


def batches(
    columns: Mapping[str, Any],
    batch_size: int,
    *,
    pad_token_id: int | None = None,
    buckets: Sequence[int] | None = None,
    seed: int | None = None,
    drop_remainder: bool = False,
    transform: Callable[[dict[str, tf.Tensor], tf.Tensor], dict[str, tf.Tensor]] | None = None,
    position: Callable[[], Any] | None = None,
) -> tf.data.Dataset:
    """Make batches of rows, padded to the right and shuffled anew in every iteration.

    A batch depends only on `seed` and on the number of batches before it, so that an interrupted run continues with
    the batch that it would have seen next: give a `Position` to this function and to `fit`, beside `BackupAndRestore`.

    For rows of two texts, zip two datasets of the same seed, without buckets: they draw the same rows.

    Args:
        columns: rows by name, `input_ids` among them. Integer columns whose rows are as long as those of `input_ids`
            are padded: attention_mask, position_ids, token_type_ids, labels (with -100) and word_ids (with -1). Others
            (labels of whole rows, start_positions) have rows of one shape.
        batch_size: rows per batch; the last of each bucket has fewer.
        pad_token_id: fills `input_ids`; needed where rows differ in length or there are buckets.
        buckets: lengths to pad to. A batch has rows of one bucket, so that little is padding and compiled functions
            see few shapes. None pads to the longest row of each batch.
        seed: shuffle rows and batches; None leaves them in order (in order of buckets, where there are any).
        drop_remainder: leave smaller batches out: another choice of rows in every iteration.
        transform: a further change of each batch, run as a graph: (features, seed int64 (2,)) -> features, such as
            `mask_tokens` with its settings. It needs `seed`.
        position: a function that returns the number of batches before an iteration, called when it starts: a
            `Position` under `fit`. By default iterations are counted as whole epochs; `lambda: 0` makes them alike.

    Returns:
        A dataset of dicts of tensors: integers as int32, with a known number of batches per iteration.

    Raises:
        ValueError: no rows; columns that do not fit together; a length that no bucket has; no padding token; a
            transform without a seed.

    Example:
        >>> rows = {"input_ids": [[5, 6, 7], [8], [9, 4]], "labels": [0, 1, 0]}
        >>> for batch in batches(rows, 2, pad_token_id=0):
        ...     print(batch["input_ids"].numpy().tolist(), batch["labels"].numpy().tolist())
        [[5, 6, 7], [8, 0, 0]] [0, 1]
        [[9, 4]] [0]
    """
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size={quote(batch_size)}; an integer of at least 1 was expected.")
    if transform is not None and seed is None:
        raise ValueError("transform draws at random: give it a seed.")
    tensors, lengths = _as_tensors(columns)
    fills = {name: PADDING.get(name, pad_token_id) for name, rows in tensors.items() if _is_ragged(rows)}
    sizes = np.unique(lengths) if buckets is None else np.array(sorted(buckets))
    bucket_of = np.zeros_like(lengths) if buckets is None else np.searchsorted(sizes, lengths)
    if lengths.max() > sizes[-1]:
        raise ValueError(
            f"a row has {lengths.max()} tokens; the largest bucket has {sizes[-1]}: truncate, or add one."
        )
    if pad_token_id is None and (len(sizes) > 1 or lengths.min() < sizes[-1]):
        raise ValueError("pad_token_id is None and rows have to be padded: give it the tokenizer's pad_token_id.")
    sizes = tf.constant(sizes, tf.int64)
    steps = len(_batches_of_epoch(bucket_of, batch_size, drop_remainder, None))
    if not steps:
        raise ValueError(f"drop_remainder leaves nothing of {len(lengths)} rows in batches of {batch_size}.")
    iterations = itertools.count()

    def rest_of_epoch() -> np.ndarray:
        """The batches of this iteration, one per line: its number, then its rows, padded with -1."""
        epoch, first = divmod(next(iterations) * steps if position is None else int(position()), steps)
        generator = None if seed is None else np.random.default_rng((seed, epoch))
        plan = _batches_of_epoch(bucket_of, batch_size, drop_remainder, generator)
        numbers = np.arange(epoch * steps, (epoch + 1) * steps)
        return np.concatenate([numbers[:, None], plan], axis=1)[first:]

    def start(_: tf.Tensor) -> tf.Tensor:
        lines = tf.numpy_function(rest_of_epoch, [], tf.int64, stateful=True)
        # True of whole epochs. Keras asks how many batches there are, and has to hear it of the first one too, of
        # which a resumed run only takes the rest.
        lines.set_shape((steps, 1 + batch_size))
        return lines

    def load(line: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.boolean_mask(line[1:], line[1:] >= 0)
        features = {name: tf.gather(column, rows) for name, column in tensors.items()}
        longest = tf.reduce_max(tf.gather(tf.constant(lengths), rows))
        length = sizes[tf.searchsorted(sizes, longest[None])[0]]
        for name, fill in fills.items():
            features[name] = features[name].to_tensor(fill, shape=tf.stack([-1, length]))
        return features if transform is None else transform(features, tf.stack([tf.cast(seed, tf.int64), line[0]]))

    data = tf.data.Dataset.from_tensors(0).map(start).unbatch()
    return data.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def _batches_of_epoch(
    bucket_of: np.ndarray, batch_size: int, drop_remainder: bool, generator: np.random.Generator | None
) -> np.ndarray:
    """Row numbers of each batch, int64 (batches, batch_size), padded with -1; a generator only reorders them."""
    order = np.arange(len(bucket_of)) if generator is None else generator.permutation(len(bucket_of))
    found = []
    for bucket in np.unique(bucket_of):
        rows = order[bucket_of[order] == bucket]
        if drop_remainder:
            rows = rows[: len(rows) // batch_size * batch_size]
        found.append(np.pad(rows, (0, -len(rows) % batch_size), constant_values=-1).reshape(-1, batch_size))
    plan = np.concatenate(found).astype("int64")
    return plan if generator is None else generator.permutation(plan)


def _as_tensors(columns: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """Columns as tensors, ragged if they need padding, and the rows' lengths in tokens."""
    if "input_ids" not in columns:
        raise ValueError(f"columns are {', '.join(columns) or 'none'}; input_ids was expected among them.")
    counts = {name: len(rows) for name, rows in columns.items()}
    if len(set(counts.values())) > 1 or not counts["input_ids"]:
        raise ValueError(f"columns have {counts} rows; the same number, and at least one, was expected.")
    lengths = _lengths(columns["input_ids"])
    if lengths is None:
        raise ValueError("input_ids: a list of token ids per row was expected.")
    if not lengths.all():
        raise ValueError(f"input_ids: row {int(np.argmin(lengths))} has no tokens.")
    tensors = {}
    for name, rows in columns.items():
        if np.array_equal(_lengths(rows), lengths):
            flat = np.concatenate([np.asarray(row) for row in rows])
            if flat.ndim == 1 and np.issubdtype(flat.dtype, np.integer):
                if name != "input_ids" and name not in PADDING:
                    raise ValueError(
                        f"{quote(name)} has a number per token; padded columns are input_ids, {', '.join(PADDING)}."
                    )
                tensors[name] = tf.RaggedTensor.from_row_lengths(flat.astype("int32"), lengths)
                continue
        try:
            values = np.asarray(rows)
        except ValueError:
            values = np.empty((), object)
        if values.dtype == object:
            raise ValueError(f"{quote(name)}: rows are neither as long as those of input_ids nor of one shape.")
        kind = {"i": "int32", "u": "int32", "f": "float32"}.get(values.dtype.kind)
        tensors[name] = tf.constant(values if kind is None else values.astype(kind))
    return tensors, lengths


def _is_ragged(column: Any) -> bool:
    return isinstance(column, tf.RaggedTensor)


def _lengths(rows: Any) -> np.ndarray | None:
    """The length of each row; None where rows are single values."""
    if any(np.ndim(row) == 0 or isinstance(row, str) for row in rows[:1]):
        return None
    return np.array([len(row) for row in rows], "int64")
