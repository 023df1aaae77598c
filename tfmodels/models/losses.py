"""The losses of the heads, each a sum and a count in float32."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import backend, ops

from tfmodels.kernels.linear_cross_entropy import Projection, linear_cross_entropy
from tfmodels.models.calling import value_range

IGNORED = -100


class Loss(NamedTuple):
    """A loss as a sum of terms and their number.

    Replicas that train one model on parts of a batch may count different numbers of terms; the mean of their means is
    then not the mean over the batch. So the trainer, which knows the replicas, divides by a count of its own.

    Fields:
        total: sum of the terms, float32, a scalar or (k,) for the mean of k losses.
        count: number of the terms, likewise.

    Example:
        >>> import numpy as np
        >>> loss = cross_entropy(np.zeros((2, 4), "float32"), np.array([1, -100]))
        >>> round(float(loss.mean()), 4), float(loss.count)
        (1.3863, 1.0)
    """

    total: Any
    count: Any

    def mean(self, count: Any = None) -> Any:
        """The loss as one number, float32 scalar; NaN where no term counts, as the mean over nothing is in PyTorch.

        Args:
            count: to divide by in place of `self.count`.
        """
        if count is None:
            # No gradient comes from the mean over nothing: that of a division by zero would be NaN.
            some = self.count > 0
            mean = ops.where(some, self.total / ops.where(some, self.count, 1.0), float("nan"))
        else:
            mean = self.total / count
        return ops.mean(mean) if len(mean.shape) else mean


def _loss(values: Any, counts: Any = None) -> Loss:
    """Sum float32 values where the bool `counts` is true, or all of them where it is None."""
    if counts is None:
        counts = ops.ones_like(values, dtype="bool")
    return Loss(ops.sum(ops.where(counts, values, 0.0)), ops.sum(ops.cast(counts, "float32")))


def cross_entropy(logits: Any, labels: Any, ignored: int = IGNORED) -> Loss:
    """Cross-entropy; labels equal to -100 are ignored.

    Labels beyond the classes are an error where their values are known. Inside a graph the backend decides what they
    give: an error on a CPU, NaN on a GPU and under XLA.

    Args:
        logits: float (..., classes).
        labels: int (...).
        ignored: label of positions that do not count.

    Raises:
        ValueError: labels of another shape, or beyond the classes.

    Example:
        >>> import numpy as np
        >>> round(float(cross_entropy(np.zeros((2, 4), "float32"), np.array([1, -100])).mean()), 4)
        1.3863
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "int32")
    check_shape("labels", labels, logits.shape[:-1])
    counts = ops.not_equal(labels, ignored)
    safe = ops.where(counts, labels, 0)
    classes = logits.shape[-1]
    check_classes(value_range(safe), classes, ignored)
    losses = ops.sparse_categorical_crossentropy(safe, logits, from_logits=True)
    return _loss(losses, counts)


def check_classes(found: tuple[int, int] | None, classes: int, ignored: int = IGNORED) -> None:
    """Raise ValueError where labels are known to lie beyond the classes.

    Args:
        found: least and largest label that counts, or None where they are not known.
        classes: their number.
        ignored: label of positions that do not count, for the message.
    """
    if found and (found[0] < 0 or found[1] >= classes):
        given = f"labels run from {found[0]} to {found[1]}" if found[0] != found[1] else f"labels hold {found[0]}"
        raise ValueError(
            f"{given}; classes are numbered in [0, {classes}), and {ignored} is for positions that do not count."
        )


def check_shape(name: str, labels: Any, expected: Any) -> None:
    """Raise ValueError where labels are known to have another shape than expected.

    Args:
        name: of the argument that they came as.
        labels: a tensor.
        expected: sizes, None for any.
    """
    given, expected = tuple(labels.shape), tuple(expected)
    if len(given) == len(expected) + 1 and given[-1] not in (1, None):
        hint = "; for one-hot labels give argmax(labels, axis=-1)"
    else:
        hint = ""
    pairs = zip(given, expected, strict=False)
    if len(given) != len(expected) or any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise ValueError(f"{name} have shape {given}; {expected} was expected, as the logits have it{hint}.")


def causal_lm_loss(logits: Any, labels: Any) -> Loss:
    """Cross-entropy of each token given those before it; labels are the inputs themselves, shifted here.

    Args:
        logits: (batch, length, vocab_size).
        labels: int (batch, length), -100 where a token does not count.
    """
    labels = ops.convert_to_tensor(labels)
    check_shape("labels", labels, logits.shape[:-1])
    return cross_entropy(logits[:, :-1], labels[:, 1:])


def causal_lm_loss_in_blocks(hidden: Any, matrix: Any, labels: Any, projection: Projection, *, learns: bool) -> Loss:
    """`causal_lm_loss` of logits that are products of hidden states with a matrix, and never exist all at once.

    Args:
        hidden: (batch, length, width), of known sizes.
        matrix, projection, learns: as in `tfmodels.kernels.linear_cross_entropy.linear_cross_entropy`.
        labels: int (batch, length), -100 where a token does not count.
    """
    labels = ops.cast(labels, "int32")
    check_shape("labels", labels, hidden.shape[:-1])
    asked = ops.reshape(ops.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED), (-1,))
    states = ops.reshape(hidden, (-1, hidden.shape[2]))
    matrix = ops.convert_to_tensor(matrix)
    total = linear_cross_entropy(states, matrix, asked, projection, ignored=IGNORED, learns=learns)
    return Loss(total, ops.sum(ops.cast(ops.not_equal(asked, IGNORED), "float32")))


def sequence_classification_loss(logits: Any, labels: Any, problem_type: str) -> Loss:
    """Loss of whole-sequence classification or regression.

    Args:
        logits: (batch, num_labels).
        labels: "single_label_classification": int (batch,); "multi_label_classification": (batch, num_labels) of 0 and
            1; "regression": float (batch,) or (batch, num_labels).
        problem_type: one of those three.
    """
    labels = ops.convert_to_tensor(labels)
    if problem_type == "single_label_classification":
        return cross_entropy(logits, _one_per_row("labels", labels, logits))
    logits = ops.cast(logits, "float32")
    if logits.shape[-1] == 1:
        labels = ops.expand_dims(_one_per_row("labels", labels, logits), 1)
    if problem_type == "multi_label_classification" and len(labels.shape) == 1:
        raise ValueError(
            f"labels are {backend.standardize_dtype(labels.dtype)} of shape {tuple(labels.shape)}; of several labels "
            f"a row, (batch, {logits.shape[-1]}) zeros and ones were expected, or integers for one class a row."
        )
    check_shape("labels", labels, logits.shape)
    labels = ops.cast(labels, "float32")
    if problem_type == "regression":
        return _loss(ops.square(logits - labels))
    return _loss(ops.binary_crossentropy(labels, logits, from_logits=True))


def _one_per_row(name: str, labels: Any, logits: Any) -> Any:
    """Labels (batch,) or (batch, 1) as (batch,)."""
    if len(labels.shape) == 2:
        classes = logits.shape[-1]
        if name == "labels" and classes not in (1, None) and labels.shape[1] == classes:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} and look one-hot; one class number a row, shape "
                f"{tuple(logits.shape[:1])}, was expected: give argmax(labels, axis=-1), or set "
                f'config.problem_type="multi_label_classification" where a row may have several classes.'
            )
        check_shape(name, labels, (logits.shape[0], 1))
    labels = ops.reshape(labels, (-1,))
    check_shape(name, labels, logits.shape[:1])
    return labels


def infer_problem_type(num_labels: int, labels: Any) -> str:
    """Derive the kind of problem from the number of labels and the labels' dtype.

    Example:
        >>> import numpy as np
        >>> infer_problem_type(3, np.array([0, 2]))
        'single_label_classification'
    """
    if num_labels == 1:
        return "regression"
    integers = backend.is_int_dtype(backend.standardize_dtype(labels.dtype))
    return "single_label_classification" if integers else "multi_label_classification"


def question_answering_loss(start_logits: Any, end_logits: Any, start_positions: Any, end_positions: Any) -> Loss:
    """The two cross-entropies over positions, whose mean is the loss.

    Args:
        start_logits, end_logits: (batch, length).
        start_positions, end_positions: int (batch,) or (batch, 1); clamped to [0, length], and `length` does not
            count.
    """
    length = ops.shape(start_logits)[1]

    def one(name: str, logits: Any, positions: Any) -> Loss:
        positions = _one_per_row(name, ops.cast(positions, "int32"), logits)
        positions = ops.clip(positions, 0, length)
        return cross_entropy(logits, ops.where(positions >= length, IGNORED, positions))

    start = one("start_positions", start_logits, start_positions)
    end = one("end_positions", end_logits, end_positions)
    return Loss(ops.stack([start.total, end.total]), ops.stack([start.count, end.count]))
