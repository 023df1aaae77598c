"""Texts to labels of their tokens, such as named entities."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfmodels.pipelines import entities
from tfmodels.pipelines.base import LIST, ONE, STREAM, Pipeline, Row, softmax
from tfmodels.pipelines.forward import row_of
from tfmodels.pipelines.settings import Settings, count
from tfmodels.utils.text import did_you_mean, quote
from tfmodels.utils.warn import warn


@dataclasses.dataclass(frozen=True)
class TokenSettings(Settings):
    """Parameters of token classification."""

    aggregation_strategy: str = "none"
    ignore_labels: Sequence[str] = ("O",)
    stride: int | None = None
    is_split_into_words: bool = False
    delimiter: str = " "
    offset_mapping: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        # An enumeration's member of transformers has the name as its own.
        name = str(getattr(self.aggregation_strategy, "name", self.aggregation_strategy)).lower()
        if name not in entities.STRATEGIES:
            raise ValueError(
                f"aggregation_strategy={quote(self.aggregation_strategy)}; {', '.join(entities.STRATEGIES)} were "
                f"expected{did_you_mean(name, entities.STRATEGIES) or '.'}"
            )
        object.__setattr__(self, "aggregation_strategy", name)
        if isinstance(self.ignore_labels, str):
            raise ValueError(f"ignore_labels={quote(self.ignore_labels)}; a list of labels was expected.")
        if self.stride is not None:
            count("stride", self.stride, 0)
            if name == "none":
                raise ValueError(
                    f"stride={self.stride} needs an aggregation_strategy other than 'none', which puts the parts of a "
                    "long text together."
                )

    def changed(self, given: Mapping[str, Any], owner: str) -> TokenSettings:
        former = {name: given[name] for name in ("grouped_entities", "ignore_subwords") if given.get(name) is not None}
        if former:
            strategy = "none"
            if former.get("grouped_entities"):
                strategy = "first" if former.get("ignore_subwords") else "simple"
            warn(f"{' and '.join(former)} are older names; aggregation_strategy={quote(strategy)} says the same.")
            given = {**given, "aggregation_strategy": strategy}
        rest = {name: value for name, value in given.items() if name not in ("grouped_entities", "ignore_subwords")}
        return super().changed(rest, owner)


class TokenClassificationPipeline(Pipeline):
    """Labels the tokens of texts, by a `...ForTokenClassification` model.

    The result of a text is a list of {"entity", "score", "index", "word", "start", "end"}, one per token whose label
    counts; with an aggregation strategy, of {"entity_group", "score", "word", "start", "end"}, one per entity.

    Parameters of the constructor and of calls:
        aggregation_strategy: "none" (tokens), "simple" (neighbours with one tag are an entity; B- begins a new one),
            or the same with whole words: "first" (a word takes its first token's label), "average" (of the scores),
            "max" (the surest token's).
        grouped_entities, ignore_subwords: the older way to ask for "simple", or, with both, for "first".
        ignore_labels: labels that are left out; default ["O"].
        stride: read the whole of long texts, in windows of `tokenizer.model_max_length` tokens that overlap by so
            many. Without it a long text is cut.
        is_split_into_words: inputs are lists of words, joined by `delimiter` for `start` and `end`.
        offset_mapping: the (start, end) characters of each token, instead of the tokenizer's.

    Example:
        >>> from tfmodels import pipeline  # doctest: +SKIP
        >>> find = pipeline("ner", "folder of a model", aggregation_strategy="simple")  # doctest: +SKIP
        >>> find("Wolfgang lives in Berlin.")  # doctest: +SKIP
    """

    task = "token-classification"
    head = "ForTokenClassification"
    settings_class = TokenSettings
    per_token = True
    way_out = "; shorten it, or pass stride=... and an aggregation_strategy"

    def read_inputs(self, inputs: Any, settings: Any) -> tuple[str, Any]:
        words = settings.is_split_into_words
        if words and isinstance(inputs, (list, tuple)) and not all(isinstance(item, list) for item in inputs):
            return LIST, [list(inputs)]
        kind, items = super().read_inputs(inputs, settings)
        if kind == LIST and not items:
            raise ValueError("At least one input is required.")
        offsets = settings.offset_mapping
        if offsets is None:
            return kind, items
        if kind == STREAM:
            raise ValueError("offset_mapping goes with a text or a list of texts, which a stream is not.")
        if offsets and isinstance(offsets[0], tuple):
            offsets = [offsets]
        items = [items] if kind == ONE else items
        if len(offsets) != len(items):
            raise ValueError(f"offset_mapping is of {len(offsets)} texts; there are {len(items)}.")
        items = [_Placed(item, own) for item, own in zip(items, offsets, strict=True)]
        return kind, items[0] if kind == ONE else items

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        item, places = (item.text, item.offsets) if isinstance(item, _Placed) else (item, None)
        longest, arguments = self.tokenizer.model_max_length, {}
        if settings.stride is not None:
            if settings.stride >= longest:
                raise ValueError(
                    f"stride={settings.stride} must be less than the {longest} tokens of tokenizer.model_max_length."
                )
            arguments = {"return_overflowing_tokens": True, "stride": settings.stride}
        text, begins = item, None
        if settings.is_split_into_words:
            if not isinstance(item, list):
                raise ValueError(f"is_split_into_words=True: a list of words was expected, got {quote(item)}.")
            text, begins = settings.delimiter.join(item), _begins(item, len(settings.delimiter))
            arguments["is_split_into_words"] = True
        elif not isinstance(item, str):
            raise ValueError(
                f"When `is_split_into_words=False`, an input must be an untokenized string; got {quote(item)}."
            )
        encoding = self.tokenizer(
            [item],
            truncation=longest < 1 << 30,
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
            **arguments,
        )
        for index in range(len(encoding["input_ids"])):
            own = {name: values[index] for name, values in encoding.items() if isinstance(values[index], list)}
            offsets = own.pop("offset_mapping") if places is None else places
            if begins is not None and places is None:
                words = encoding.word_ids(index)
                offsets = [
                    (start, end) if word is None else (start + begins[word], end + begins[word])
                    for (start, end), word in zip(offsets, words, strict=True)
                ]
            yield row_of(self.model, own, _Part(text, own["special_tokens_mask"], offsets))

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        strategy, found = settings.aggregation_strategy, []
        for row, output in zip(rows, outputs, strict=True):
            if output is None:
                continue
            part: _Part = row.note
            scores = softmax(output["logits"])
            ids = row.inputs["input_ids"]
            tokens = entities.tokens_of(self.tokenizer, part.text, ids, part.special, part.offsets, scores, strategy)
            for entity in entities.entities_of(self.tokenizer, tokens, strategy, self.model.config.id2label):
                if entity.get("entity", entity.get("entity_group")) not in settings.ignore_labels:
                    found.append(entity)
        return entities.without_overlaps(found) if len(rows) > 1 else found


@dataclasses.dataclass
class _Placed:
    """A text with the characters of its tokens."""

    text: Any
    offsets: Sequence[tuple[int, int]]


@dataclasses.dataclass
class _Part:
    """The source of a row: its text, which tokens are special ones, and the characters of each."""

    text: str
    special: Sequence[int]
    offsets: Sequence[tuple[int, int]]


def _begins(words: Sequence[str], space: int) -> list[int]:
    """The first character of each word when they are joined with so many characters between them.

    Example:
        >>> _begins(["ab", "c"], 1)
        [0, 3]
    """
    begins, place = [], 0
    for word in words:
        begins.append(place)
        place += len(word) + space
    return begins
