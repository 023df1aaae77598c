"""Texts to the hidden states of their tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.pipelines.base import Pipeline, Row
from tfmodels.pipelines.forward import call_model, row_of
from tfmodels.pipelines.inputs import text_of
from tfmodels.pipelines.settings import TokenizerSettings, checked_tokenizer_arguments
from tfmodels.runtime.lowering import Lowering


@dataclasses.dataclass(frozen=True)
class FeatureSettings(TokenizerSettings):
    """Parameters of feature extraction."""

    return_tensors: bool = False
    tokenize_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        given = checked_tokenizer_arguments(self.tokenize_kwargs or {}, "tokenize_kwargs")
        if both := given.keys() & self.tokenizer.keys():
            raise ValueError(f"{', '.join(sorted(both))} was given twice: by itself and in tokenize_kwargs.")


def first_output(model: Any, inputs: dict[str, Any], lowering: Lowering) -> dict[str, Any]:
    """The first of the model's outputs: the hidden states of a bare model, the logits of one with a head."""
    outputs = call_model(model, inputs, lowering)
    return {"features": ops.cast(next(iter(outputs.values())), "float32")}


class FeatureExtractionPipeline(Pipeline):
    """Turns texts into the last hidden states of their tokens, by a model without a head.

    The result of a text is a nested list of floats, `[1][tokens][hidden_size]`. Of a model with a head it is the
    logits, as in transformers.

    Parameters of the constructor and of calls:
        return_tensors: return tensors of the backend instead of lists.
        truncation, max_length, ...: arguments of the tokenizer; `tokenize_kwargs` takes them as a dict too.

    Example:
        >>> from tfmodels import pipeline
        >>> extract = pipeline("feature-extraction", "stories260K")
        >>> extract("Once upon a time", return_tensors=True).shape
        TensorShape([1, 5, 64])
    """

    task = "feature-extraction"
    head = "Model"
    settings_class = FeatureSettings
    compute = staticmethod(first_output)

    def __init__(self, model: Any, tokenizer: Any = None, **options: Any):
        super().__init__(model, tokenizer, **options)
        self.per_token = not model.classifies_texts

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        arguments = {**settings.tokenizer, **(settings.tokenize_kwargs or {})}
        if arguments.get("is_split_into_words"):
            texts = [item]
        else:  # an inner list is one input of several rows
            texts = [text_of(text) for text in (item if isinstance(item, (list, tuple)) else [item])]
        return [row_of(self.model, self.tokenizer(text, **arguments)) for text in texts]

    def forward(self, rows: Sequence[Row], settings: Any) -> list[Any]:
        return [output["features"] for output in super().forward(rows, settings)]

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        empty = np.zeros((0, self.model.config.hidden_size), "float32")
        features = [empty if output is None else output for output in outputs]
        if not settings.return_tensors:
            return [one.tolist() for one in features]
        if len({one.shape for one in features}) > 1:
            raise ValueError("return_tensors=True: the texts of an inner list have different lengths; pad them.")
        return ops.convert_to_tensor(np.stack(features))
