"""One loss per head, each a scalar in float32."""

from __future__ import annotations

from typing import Any

from keras import backend, ops

IGNORED = -100


def cross_entropy(logits: Any, labels: Any, ignored: int = IGNORED) -> Any:
    """Mean cross-entropy over the labels that count.

    Args:
        logits: float (..., classes).
        labels: int (...).
        ignored: label of positions that do not count.

    Returns:
        float32 scalar; NaN where no label counts, as the mean over nothing is in PyTorch.

    Example:
        >>> import numpy as np
        >>> round(float(cross_entropy(np.zeros((2, 4), "float32"), np.array([1, -100]))), 4)
        1.3863
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "int32")
    counts = ops.not_equal(labels, ignored)
    safe = ops.where(counts, labels, 0)
    losses = ops.sparse_categorical_crossentropy(safe, logits, from_logits=True)
    total = ops.sum(ops.cast(counts, "float32"))
    return ops.sum(ops.where(counts, losses, 0.0)) / total


def causal_lm_loss(logits: Any, labels: Any) -> Any:
    """Cross-entropy of each token given those before it; labels are the inputs themselves, shifted here.

    Args:
        logits: (batch, length, vocab_size).
        labels: int (batch, length), -100 where a token does not count.
    """
    return cross_entropy(logits[:, :-1], labels[:, 1:])


def sequence_classification_loss(logits: Any, labels: Any, problem_type: str) -> Any:
    """Loss of whole-sequence classification or regression.

    Args:
        logits: (batch, num_labels).
        labels: "single_label_classification": int (batch,); "multi_label_classification": (batch, num_labels) of 0 and
            1; "regression": float (batch,) or (batch, num_labels).
        problem_type: one of those three.
    """
    if problem_type == "single_label_classification":
        return cross_entropy(logits, ops.reshape(labels, (-1,)))
    logits = ops.cast(logits, "float32")
    labels = ops.reshape(ops.cast(labels, "float32"), ops.shape(logits))
    if problem_type == "regression":
        return ops.mean(ops.square(logits - labels))
    return ops.mean(ops.binary_crossentropy(labels, logits, from_logits=True))


def infer_problem_type(num_labels: int, labels: Any) -> str:
    """The kind of problem that a number of labels and the labels' dtype speak of.

    Example:
        >>> import numpy as np
        >>> infer_problem_type(3, np.array([0, 2]))
        'single_label_classification'
    """
    if num_labels == 1:
        return "regression"
    integers = backend.is_int_dtype(backend.standardize_dtype(labels.dtype))
    return "single_label_classification" if integers else "multi_label_classification"


def question_answering_loss(start_logits: Any, end_logits: Any, start_positions: Any, end_positions: Any) -> Any:
    """Mean of the two cross-entropies over positions.

    Args:
        start_logits, end_logits: (batch, length).
        start_positions, end_positions: int (batch,) or (batch, 1); clamped to [0, length], and `length` does not
            count.
    """
    length = ops.shape(start_logits)[1]

    def one(logits: Any, positions: Any) -> Any:
        positions = ops.clip(ops.cast(ops.reshape(positions, (-1,)), "int32"), 0, length)
        return cross_entropy(logits, ops.where(positions >= length, IGNORED, positions))

    return (one(start_logits, start_positions) + one(end_logits, end_positions)) / 2
