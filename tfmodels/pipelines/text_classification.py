"""Texts to classes, or to numbers by regression."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from tfmodels.pipelines.base import LIST, Pipeline, Row, softmax
from tfmodels.pipelines.forward import row_of
from tfmodels.pipelines.inputs import text_of
from tfmodels.pipelines.settings import TokenizerSettings, count
from tfmodels.utils.text import did_you_mean, quote
from tfmodels.utils.warn import warn

FUNCTIONS = ("sigmoid", "softmax", "none")


@dataclasses.dataclass(frozen=True)
class ClassificationSettings(TokenizerSettings):
    """Parameters of text classification; `top_k` is "one" where nobody gives it."""

    none_counts: ClassVar[tuple[str, ...]] = ("top_k",)

    top_k: int | str | None = "one"
    function_to_apply: str | None = None
    return_all_scores: bool | None = None

    def __post_init__(self) -> None:
        if self.top_k not in (None, "one", ""):
            count("top_k", self.top_k)
        if self.function_to_apply is not None:
            # An enumeration's member of transformers has the name as its own.
            name = str(getattr(self.function_to_apply, "name", self.function_to_apply)).lower()
            if name not in (*FUNCTIONS, "default"):
                raise ValueError(
                    f"function_to_apply={quote(self.function_to_apply)}; {', '.join(FUNCTIONS)} were expected"
                    f"{did_you_mean(name, FUNCTIONS) or '.'}"
                )
            object.__setattr__(self, "function_to_apply", None if name == "default" else name)


class TextClassificationPipeline(Pipeline):
    """Classifies texts, or pairs of texts, by a `...ForSequenceClassification` model.

    An input is a text, or a dict {"text": ..., "text_pair": ...}. The result of an input is the likeliest class,
    {"label": ..., "score": ...}, or a list of such dicts where `top_k` is given. A single text without `top_k` in the
    call gives a list around its result, as in transformers.

    Parameters of the constructor and of calls:
        top_k: how many classes to return, likeliest first; None for all.
        function_to_apply: "softmax", "sigmoid" or "none"; default: by `config.problem_type`, or else softmax, and
            sigmoid for a single label.
        return_all_scores: the older way to ask for all classes, in the order of their ids.
        truncation, max_length, padding, ...: arguments of the tokenizer. Texts are not cut unless this is asked for.

    Example:
        >>> from tfmodels import AutoTokenizer, LlamaConfig, TFLlamaForSequenceClassification, pipeline
        >>> config = LlamaConfig(vocab_size=512, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        ...                      num_attention_heads=2, num_labels=2, pad_token_id=0)
        >>> model = TFLlamaForSequenceClassification(config)
        >>> classify = pipeline("text-classification", model, tokenizer=AutoTokenizer.from_pretrained("stories260K"))
        >>> [sorted(result) for result in classify(["A fine day.", "A dull day."])]
        [['label', 'score'], ['label', 'score']]
    """

    task = "text-classification"
    head = "ForSequenceClassification"
    settings_class = ClassificationSettings

    def __call__(self, inputs: Any, **parameters: Any) -> Any:
        if parameters.get("return_all_scores") is not None:
            warn("return_all_scores is deprecated: use top_k=None for all classes.")
        result = super().__call__(inputs, **parameters)
        return [result] if isinstance(inputs, str) and "top_k" not in parameters else result

    def read_inputs(self, inputs: Any, settings: Any) -> tuple[str, Any]:
        kind, items = super().read_inputs(inputs, settings)
        if isinstance(inputs, list) and len(inputs) == 1 and _is_wrapped_pair(inputs[0]):
            return LIST, [{"text": inputs[0][0][0], "text_pair": inputs[0][0][1]}]
        return kind, items

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        arguments = dict(settings.tokenizer)
        if isinstance(item, Mapping):
            unknown = [name for name in item if name not in ("text", "text_pair")]
            if unknown or "text" not in item:
                raise ValueError(
                    f'an input is a text or a dict with "text" and "text_pair"; got one with {quote(list(item))}.'
                )
            arguments |= item
        elif isinstance(item, (list, tuple)):
            raise ValueError(
                f'{quote(item)} is no text; a pair of texts is given as {{"text": ..., "text_pair": ...}}.'
            )
        else:
            arguments["text"] = item
        if not arguments.get("is_split_into_words"):
            text_of(arguments["text"])
            if arguments.get("text_pair") is not None:
                text_of(arguments["text_pair"], "text_pair")
        row = row_of(self.model, self.tokenizer(**arguments))
        if not len(row):
            raise ValueError(
                f"the tokenizer makes no tokens of {quote(arguments['text'])}: there is nothing to classify."
            )
        return [row]

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        scores = apply_function(outputs[0]["logits"], settings.function_to_apply, self.model.config)
        labels = self.model.config.id2label
        top_k = settings.top_k
        if top_k in ("one", ""):
            if settings.return_all_scores:
                return [{"label": labels[index], "score": float(score)} for index, score in enumerate(scores)]
            best = int(scores.argmax())
            return {"label": labels[best], "score": float(scores[best])}
        order = sorted(range(len(scores)), key=lambda index: -float(scores[index]))
        return [{"label": labels[index], "score": float(scores[index])} for index in order[:top_k]]


def apply_function(logits: np.ndarray, function: str | None, config: Any) -> np.ndarray:
    """Scores of classes from logits (num_labels,).

    Args:
        logits: float32.
        function: "softmax", "sigmoid", "none", or None to take what fits the configuration.
        config: of the model.
    """
    if function is None:
        if config.problem_type == "regression":
            function = "none"
        elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
            function = "sigmoid"
        else:
            function = "softmax"
    if function == "softmax":
        return softmax(logits)
    if function == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    return logits


def _is_wrapped_pair(item: Any) -> bool:
    """Whether an item is [[text, pair]], the oldest form of a pair."""
    return isinstance(item, list) and len(item) == 1 and isinstance(item[0], list) and len(item[0]) == 2
