"""Zero-shot classification: texts to classes named at the call, by a model of natural-language inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfmodels.pipelines.base import Pipeline, Row, softmax
from tfmodels.pipelines.forward import row_of
from tfmodels.pipelines.inputs import text_of
from tfmodels.pipelines.settings import Settings
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn


@dataclasses.dataclass(frozen=True)
class ZeroShotSettings(Settings):
    """Parameters of zero-shot classification."""

    candidate_labels: str | Sequence[str] | None = None
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False

    def __post_init__(self) -> None:
        labels = self.candidate_labels
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(",") if label.strip()]
        if labels is not None:
            labels = tuple(text_of(label, "candidate_labels") for label in labels)
            if not labels:
                raise ValueError("candidate_labels is empty: You must include at least one label.")
            if self.hypothesis_template.format(labels[0]) == self.hypothesis_template:
                raise ValueError(
                    f"hypothesis_template={quote(self.hypothesis_template)} has no {{}} for the label to go in."
                )
        object.__setattr__(self, "candidate_labels", labels)


class ZeroShotClassificationPipeline(Pipeline):
    """Classifies texts by labels named in the call, by a `...ForSequenceClassification` model of entailment (NLI).

    Each label becomes a hypothesis, and its score is how well the text entails it. The result of a text is
    {"sequence": text, "labels": [...], "scores": [...]}, likeliest first.

    Parameters of the constructor and of calls:
        candidate_labels: labels as a list, or as one text with commas; calls take them as second argument too.
        hypothesis_template: a sentence with {} for the label.
        multi_label: score every label by itself, entailment against contradiction; False: scores of a text sum to 1.

    Example:
        >>> from tfmodels import pipeline  # doctest: +SKIP
        >>> classify = pipeline("zero-shot-classification", "folder of an NLI model")  # doctest: +SKIP
        >>> classify("The server is down!", ["urgent", "not urgent"])  # doctest: +SKIP
    """

    task = "zero-shot-classification"
    head = "ForSequenceClassification"
    settings_class = ZeroShotSettings

    def __init__(self, model: Any, tokenizer: Any = None, **options: Any):
        super().__init__(model, tokenizer, **options)
        if self.entailment_id == -1:
            warn(
                f"no label of {quote(model.config.label2id)} begins with 'entail'; the last one is taken as "
                "entailment. Set config.label2id to what the model was trained with."
            )

    def __call__(self, sequences: Any, candidate_labels: Any = None, **parameters: Any) -> Any:
        if candidate_labels is not None:
            parameters["candidate_labels"] = candidate_labels
        return super().__call__(sequences, **parameters)

    def run(self, kind: str, items: Any, settings: Any, *options: Any) -> Any:
        if settings.candidate_labels is None:
            raise ValueError("candidate_labels is missing: name the labels to choose among.")
        return super().run(kind, items, settings, *options)

    @property
    def entailment_id(self) -> int:
        """The class that says that the hypothesis follows; -1 where no label says so."""
        labels = self.model.config.label2id
        return next((index for label, index in labels.items() if label.lower().startswith("entail")), -1)

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        if not text_of(item, "sequences"):
            raise ValueError("an empty text: You must include at least one label and at least one sequence.")
        for label in settings.candidate_labels:
            hypothesis = settings.hypothesis_template.format(label)
            try:
                encoding = self.tokenizer(item, hypothesis, truncation="only_first")
            except ValueError:  # the hypothesis alone is too long; the model says what it can read
                encoding = self.tokenizer(item, hypothesis)
            yield row_of(self.model, encoding)

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        logits = np.stack([output["logits"] for output in outputs])
        entailment = self.entailment_id
        if settings.multi_label or len(logits) == 1:
            contradiction = -1 if entailment == 0 else 0
            scores = softmax(logits[:, [contradiction, entailment]])[:, 1]
        else:
            scores = softmax(logits[:, entailment])
        order = scores.argsort()[::-1]
        return {
            "sequence": item,
            "labels": [settings.candidate_labels[index] for index in order],
            "scores": scores[order].tolist(),
        }
