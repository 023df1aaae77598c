"""Scores of how similar sentences are in meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfmodels.models.base import TFPreTrainedModel
from tfmodels.pipelines.base import ONE, Pipeline, Row
from tfmodels.pipelines.inputs import text_of
from tfmodels.pipelines.settings import Settings
from tfmodels.pipelines.tasks import check_head
from tfmodels.sentence.encoder import SentenceEncoder
from tfmodels.utils.text import quote

_FORM = '{"source_sentence": text, "sentences": [texts]}'


@dataclasses.dataclass(frozen=True)
class SimilaritySettings(Settings):
    """Parameters of sentence similarity."""

    normalize: bool = False


class SentenceSimilarityPipeline(Pipeline):
    """Scores how alike a sentence is to others, by a `SentenceEncoder`, or by mean pooling over a bare model.

    An input is {"source_sentence": text, "sentences": [texts]}, as the Hub's inference service has it; a call also
    takes the two as two arguments. The result of an input is a list of floats, one per sentence, by the encoder's
    `similarity_fn_name` (cosine unless the folder says otherwise). Two single texts give one float.

    Parameters of the constructor and of calls:
        normalize: scale vectors to length 1 before they are compared.

    Example:
        >>> from tfmodels import pipeline
        >>> compare = pipeline("sentence-similarity", "stories260K")
        >>> scores = compare("A dog ran.", ["A dog ran.", "Milk is white."])
        >>> round(scores[0], 3), scores[0] > scores[1]
        (1.0, True)
    """

    task = "sentence-similarity"
    head = "Model"
    settings_class = SimilaritySettings

    def __init__(self, model: Any, tokenizer: Any = None, **options: Any):
        if not isinstance(model, SentenceEncoder):
            self.check_model(model)
            model = SentenceEncoder(model, tokenizer)
        elif tokenizer is not None:
            model.tokenizer = tokenizer
        self.encoder = model
        super().__init__(model.model, model.tokenizer, **options)

    @classmethod
    def check_model(cls, model: Any) -> None:
        if isinstance(model, TFPreTrainedModel) and type(model).head_inputs:
            raise ValueError(
                f"{type(model).__name__} has a head; {cls.task} needs a bare model, such as TFAutoModel loads from "
                "the same folder, or a SentenceEncoder."
            )
        check_head(cls, model)

    def __call__(self, inputs: Any, sentences: Any = None, **parameters: Any) -> Any:
        if sentences is None:
            return super().__call__(inputs, **parameters)
        if isinstance(sentences, str):
            found = super().__call__({"source_sentence": inputs, "sentences": [sentences]}, **parameters)
            return found[0]
        return super().__call__({"source_sentence": inputs, "sentences": list(sentences)}, **parameters)

    def read_inputs(self, inputs: Any, settings: Any) -> tuple[str, Any]:
        if isinstance(inputs, str):
            raise ValueError(f"{quote(inputs)} is one text; give the sentences to compare it with too, or {_FORM}.")
        return (ONE, inputs) if isinstance(inputs, Mapping) else super().read_inputs(inputs, settings)

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        if not isinstance(item, Mapping) or set(item) != {"source_sentence", "sentences"}:
            raise ValueError(f"{quote(item)} is no input of {self.task}; {_FORM} was expected.")
        if isinstance(item["sentences"], (str, bytes)) or not isinstance(item["sentences"], Iterable):
            raise ValueError(f"sentences={quote(item['sentences'])}; a list of texts was expected.")
        texts = [text_of(item["source_sentence"], "source_sentence")]
        texts += [text_of(text, "sentences") for text in item["sentences"]]
        return [Row({"input_ids": [0]}, note=text) for text in texts]

    def forward(self, rows: Sequence[Row], settings: Any) -> list[Any]:
        texts = [row.note for row in rows]
        return list(self.encoder.encode(texts, batch_size=len(texts), normalize=settings.normalize))

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        if len(outputs) == 1:
            return []
        return self.encoder.similarity(outputs[0], list(outputs[1:]))[0].tolist()
