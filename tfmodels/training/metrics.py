"""Keras metrics for `compile(metrics=[...])`, and scores of answer texts.

The Keras metrics take the labels and logits that `fit` hands them, and work under `jit_compile=True`.
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.models.losses import IGNORED


class MaskedAccuracy(keras.metrics.Metric):
    """Accuracy over the labels that count: the share whose class has the highest logit.

    Args:
        shift: compare each label with the logits one position earlier, as causal language models are scored.
        ignored: label of positions that do not count.
        name, dtype: as in Keras.

    Example:
        >>> import numpy as np
        >>> metric = MaskedAccuracy()
        >>> logits = np.array([[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]])
        >>> float(metric(np.array([[0, 1, -100]]), logits))
        0.5
    """

    def __init__(self, *, shift: bool = False, ignored: int = IGNORED, name: str = "accuracy", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.shift, self.ignored = shift, ignored
        self.right = self.add_variable((), initializer="zeros", name="right")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: labels int (...), logits (..., classes), and weights that broadcast to the labels."""
        labels, logits = _aligned(y_true, y_pred, self.shift)
        weights = _weights(labels, sample_weight, self.ignored, self.shift)
        hits = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), labels)
        self.right.assign_add(ops.sum(ops.where(hits, weights, 0.0)))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Any:
        """The share so far, a float32 scalar; 0 before any label counted."""
        return ops.divide_no_nan(self.right, self.count)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shift": self.shift, "ignored": self.ignored}


class Perplexity(keras.metrics.Metric):
    """Exponential of the mean cross-entropy over all labels that count, whatever batches they came in.

    Args:
        shift: compare each label with the logits one position earlier, as causal language models are trained; False
            for masked language models.
        ignored, name, dtype: as in `MaskedAccuracy`.

    Example:
        >>> import numpy as np
        >>> metric = Perplexity()
        >>> round(float(metric(np.array([[3, 1, -100]]), np.zeros((1, 3, 8)))), 4)
        8.0
    """

    def __init__(self, *, shift: bool = True, ignored: int = IGNORED, name: str = "perplexity", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.shift, self.ignored = shift, ignored
        self.total = self.add_variable((), initializer="zeros", name="total")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: labels int (batch, length), logits (batch, length, vocabulary), weights that broadcast."""
        labels, logits = _aligned(y_true, y_pred, self.shift)
        weights = _weights(labels, sample_weight, self.ignored, self.shift)
        safe = ops.where(ops.equal(labels, self.ignored), 0, labels)
        losses = ops.sparse_categorical_crossentropy(safe, ops.cast(logits, "float32"), from_logits=True)
        self.total.assign_add(ops.sum(ops.where(weights > 0, losses * weights, 0.0)))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Any:
        """The perplexity so far, a float32 scalar; 1 before any label counted."""
        return ops.exp(ops.divide_no_nan(self.total, self.count))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shift": self.shift, "ignored": self.ignored}


class EntityF1(keras.metrics.Metric):
    """F1 of whole entities in BIO tags: one counts as found if its first token, last token and type are right.

    An entity begins at B-, and at an I- that follows nothing of its type; that is how the CoNLL evaluation reads tags.
    Positions whose label does not count are taken out before entities are read.

    Args:
        id2label: the tag of each class id, such as {0: "O", 1: "B-person", 2: "I-person"}; `config.id2label` serves.
        ignored, name, dtype: as in `MaskedAccuracy`.

    Raises:
        ValueError: ids that do not run from 0 without gaps, or a tag that is neither O nor begins with B- or I-.

    Source:
        Tjong Kim Sang and De Meulder, https://arxiv.org/abs/cs/0306050.

    Example:
        >>> import numpy as np
        >>> metric = EntityF1({0: "O", 1: "B-place", 2: "I-place"})
        >>> logits = np.eye(3)[[[1, 0, 0, 1, 2]]]
        >>> round(float(metric(np.array([[1, 2, 0, 1, 2]]), logits)), 2)
        0.5
    """

    def __init__(
        self, id2label: Mapping[int, str], *, ignored: int = IGNORED, name: str = "entity_f1", dtype: Any = None
    ):
        super().__init__(name=name, dtype=dtype)
        self.id2label = {int(index): str(tag) for index, tag in id2label.items()}
        self.ignored = ignored
        if sorted(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(f"id2label has the ids {sorted(self.id2label)}; 0, 1, 2, ... was expected.")
        tags = [self.id2label[index] for index in range(len(self.id2label))]
        wrong = [tag for tag in tags if tag != "O" and tag[:2] not in ("B-", "I-")]
        if wrong:
            raise ValueError(f"id2label has the tags {wrong}; O, or B- or I- and a type, was expected.")
        types = sorted({tag[2:] for tag in tags if tag != "O"})
        # Type 0 is outside.
        self._types = np.array([0 if tag == "O" else types.index(tag[2:]) + 1 for tag in tags], "int32")
        self._begins = np.array([tag.startswith("B-") for tag in tags])
        self.right = self.add_variable((), initializer="zeros", name="right")
        self.found = self.add_variable((), initializer="zeros", name="found")
        self.there = self.add_variable((), initializer="zeros", name="there")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch: labels int (batch, length), logits (batch, length, classes); entities have no weights.

        Raises:
            ValueError: weights were given.
        """
        if sample_weight is not None:
            raise ValueError(
                "sample_weight: whole entities have no weights; put the metric in `metrics`, not in "
                "`weighted_metrics`."
            )
        labels, logits = _aligned(y_true, y_pred, False)
        counts = ops.not_equal(labels, self.ignored)
        # Positions that count go to the front, in order.
        length = ops.shape(labels)[1]
        order = ops.argsort(ops.arange(length, dtype="int32") + ops.where(counts, 0, length), axis=1)

        def read(tags: Any) -> tuple[Any, Any, Any]:
            types = ops.where(counts, ops.take(self._types, tags), 0)
            begins = ops.logical_and(counts, ops.take(self._begins, tags))
            return _entities(ops.take_along_axis(types, order, axis=1), ops.take_along_axis(begins, order, axis=1))

        starts, types, lengths = read(ops.where(counts, labels, 0))
        own_starts, own_types, own_lengths = read(ops.cast(ops.argmax(logits, axis=-1), "int32"))
        same = ops.logical_and(ops.equal(types, own_types), ops.equal(lengths, own_lengths))
        right = ops.logical_and(same, ops.logical_and(starts, own_starts))
        for variable, which in ((self.right, right), (self.found, own_starts), (self.there, starts)):
            variable.assign_add(ops.sum(ops.cast(which, "float32")))

    def result(self) -> Any:
        """The F1 so far over all entities, a float32 scalar; 0 where there is none."""
        return ops.divide_no_nan(2.0 * self.right, self.found + self.there)

    @property
    def precision(self) -> float:
        """Share of the entities found that are right."""
        return float(ops.divide_no_nan(self.right, self.found))

    @property
    def recall(self) -> float:
        """Share of the labelled entities that were found."""
        return float(ops.divide_no_nan(self.right, self.there))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "id2label": self.id2label, "ignored": self.ignored}


def _entities(types: Any, begins: Any) -> tuple[Any, Any, Any]:
    """For every position: whether an entity starts there, its type, and the length of its run."""
    before = ops.pad(types[:, :-1], ((0, 0), (1, 0)))
    goes_on = ops.logical_and(ops.logical_and(ops.equal(types, before), types > 0), ops.logical_not(begins))
    runs = ops.cumsum(ops.cast(ops.logical_not(goes_on), "int32"), axis=1)
    lengths = ops.sum(ops.cast(ops.equal(ops.expand_dims(runs, 2), ops.expand_dims(runs, 1)), "int32"), axis=2)
    return ops.logical_and(types > 0, ops.logical_not(goes_on)), types, lengths


def _aligned(labels: Any, logits: Any, shift: bool) -> tuple[Any, Any]:
    labels, logits = ops.cast(labels, "int32"), ops.convert_to_tensor(logits)
    if len(labels.shape) != len(logits.shape) - 1:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and logits {tuple(logits.shape)}; logits with one axis more, "
            f"the classes, were expected."
        )
    return (labels[:, 1:], logits[:, :-1]) if shift else (labels, logits)


def _weights(labels: Any, sample_weight: Any, ignored: int, shift: bool) -> Any:
    weights = ops.cast(ops.not_equal(labels, ignored), "float32")
    if sample_weight is None:
        return weights
    sample_weight = ops.cast(sample_weight, "float32")
    if len(sample_weight.shape) < len(labels.shape):
        sample_weight = ops.reshape(sample_weight, (-1, *[1] * (len(labels.shape) - 1)))
    elif shift:
        sample_weight = sample_weight[:, 1:]
    return weights * sample_weight


# Answers' texts ------------------------------------------------------------------------------------------------

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Normalise an answer for comparison: lower case, no punctuation, no English articles, single spaces.

    Source:
        Rajpurkar et al., https://arxiv.org/abs/1606.05250.

    Example:
        >>> normalize_answer("The  Eiffel Tower.")
        'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if a predicted answer, normalised, equals one of the right answers, else 0.0.

    Args:
        prediction: text; empty for "no answer".
        answers: texts that are right; none, or an empty text, where the question has no answer.
    """
    wanted = normalize_answer(prediction)
    return float(any(normalize_answer(answer) == wanted for answer in answers or [""]))


def answer_f1(prediction: str, answers: Sequence[str]) -> float:
    """F1 over the words of a predicted answer, against the right answer that fits best.

    Args:
        prediction, answers: as in `answer_exact_match`.

    Example:
        >>> round(answer_f1("in the old town", ["old town", "the harbour"]), 4)
        0.8
    """
    return max(_overlap(normalize_answer(prediction).split(), normalize_answer(a).split()) for a in answers or [""])


def _overlap(found: list[str], right: list[str]) -> float:
    if not found or not right:
        return float(found == right)
    common = sum((collections.Counter(found) & collections.Counter(right)).values())
    return 2 * common / (len(found) + len(right))


def answer_scores(predictions: Iterable[str], answers: Iterable[Sequence[str]]) -> dict[str, float]:
    """Mean exact match and F1 over questions.

    Args:
        predictions: one text per question.
        answers: per question the texts that are right.

    Returns:
        {"exact_match": ..., "f1": ...}, each from 0 to 1.

    Raises:
        ValueError: no question, or another number of predictions than of answers.

    Example:
        >>> answer_scores(["the harbour", "1999"], [["harbour"], ["in 1998"]])
        {'exact_match': 0.5, 'f1': 0.5}
    """
    predictions, answers = list(predictions), list(answers)
    if not predictions or len(predictions) != len(answers):
        raise ValueError(f"{len(predictions)} predictions and {len(answers)} lists of answers; one per question each.")
    pairs = list(zip(predictions, answers, strict=True))
    return {
        "exact_match": sum(answer_exact_match(*pair) for pair in pairs) / len(pairs),
        "f1": sum(answer_f1(*pair) for pair in pairs) / len(pairs),
    }


for _metric in (MaskedAccuracy, Perplexity, EntityF1):
    keras.saving.register_keras_serializable("tfmodels")(_metric)
