"""Tokens with scores of labels to entities: words whose tokens agree, and runs of words with one tag."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmodels.utils.warn import warn

STRATEGIES = ("none", "simple", "first", "average", "max")
# Strategies that give all tokens of a word one label.
WORDS = ("first", "average", "max")


@dataclasses.dataclass
class Token:
    """A token of a text.

    Fields:
        word: the token itself, or the text that it stands for where it is the unknown token.
        scores: a probability per label.
        start, end: its characters in the text; None where they are not known.
        index: its place in the row.
        continues: whether it goes on with the word of the token before it.
    """

    word: str
    scores: np.ndarray
    start: int | None
    end: int | None
    index: int
    continues: bool


def tokens_of(
    tokenizer: Any,
    text: str,
    ids: Sequence[int],
    special: Sequence[int],
    offsets: Sequence[tuple[int, int]] | None,
    scores: np.ndarray,
    strategy: str,
) -> list[Token]:
    """The tokens of a row that are no special ones.

    Args:
        tokenizer: the tokenizer.
        text: what the offsets point into.
        ids: the row's tokens.
        special: 1 for special tokens.
        offsets: (start, end) characters per token, or None.
        scores: (tokens, labels) probabilities.
        strategy: one of `STRATEGIES`; those of words warn where the tokenizer does not mark words.
    """
    marks_words = bool(getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None))
    if strategy in WORDS and not marks_words and offsets is not None:
        warn("Tokenizer does not support real words, using fallback heuristic: a word begins after a space.")
    found = []
    for index, token in enumerate(ids):
        if special[index]:
            continue
        word, start, end, continues = tokenizer.convert_ids_to_tokens(int(token)), None, None, False
        if offsets is not None:
            start, end = (int(place) for place in offsets[index])
            own = text[start:end]
            if marks_words:
                continues = len(word) != len(own)
            else:
                continues = start > 0 and " " not in text[start - 1 : start + 1]
            if token == tokenizer.unk_token_id:
                word, continues = own, False
        found.append(Token(word, scores[index], start, end, index, continues))
    return found


def entities_of(tokenizer: Any, tokens: Sequence[Token], strategy: str, labels: Any) -> list[dict[str, Any]]:
    """Tokens with their labels, or with a strategy the groups of them, as results have them.

    Args:
        tokenizer: makes text of tokens.
        tokens: of a row.
        strategy: one of `STRATEGIES`.
        labels: the name of each label by its number.
    """
    if strategy in WORDS:
        words: list[list[Token]] = []
        for token in tokens:
            if words and token.continues:
                words[-1].append(token)
            else:
                words.append([token])
        entities = [_word(tokenizer, word, strategy, labels) for word in words]
    else:
        entities = []
        for token in tokens:
            best = token.scores.argmax()
            entities.append(
                {
                    "entity": labels[int(best)],
                    "score": token.scores[best],
                    "index": token.index,
                    "word": token.word,
                    "start": token.start,
                    "end": token.end,
                }
            )
    if strategy == "none":
        return [{**entity, "score": float(entity["score"])} for entity in entities]
    groups: list[list[dict[str, Any]]] = []
    for entity in entities:
        begins, tag = _tag(entity["entity"])
        if groups and not begins and tag == _tag(groups[-1][-1]["entity"])[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return [_group(tokenizer, group) for group in groups]


def _word(tokenizer: Any, tokens: Sequence[Token], strategy: str, labels: Any) -> dict[str, Any]:
    """A word as one entity."""
    if strategy == "first":
        scores = tokens[0].scores
    elif strategy == "max":
        scores = max(tokens, key=lambda token: token.scores.max()).scores
    else:
        scores = np.nanmean(np.stack([token.scores for token in tokens]), axis=0)
    best = scores.argmax()
    return {
        "entity": labels[int(best)],
        "score": scores[best],
        "word": tokenizer.convert_tokens_to_string([token.word for token in tokens]),
        "start": tokens[0].start,
        "end": tokens[-1].end,
    }


def _group(tokenizer: Any, entities: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A run of entities of one tag as one."""
    return {
        "entity_group": entities[0]["entity"].split("-", 1)[-1],
        "score": float(np.nanmean([entity["score"] for entity in entities])),
        "word": tokenizer.convert_tokens_to_string([entity["word"] for entity in entities]),
        "start": entities[0]["start"],
        "end": entities[-1]["end"],
    }


def _tag(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and its tag; a label without B- or I- goes on.

    Example:
        >>> _tag("B-PER"), _tag("I-PER"), _tag("PER")
        ((True, 'PER'), (False, 'PER'), (False, 'PER'))
    """
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def without_overlaps(entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entities of overlapping windows, each once: of two that overlap the longer one, then the surer one.

    Example:
        >>> found = [{"start": 0, "end": 3, "score": 0.5}, {"start": 2, "end": 9, "score": 0.4}]
        >>> without_overlaps(found)
        [{'start': 2, 'end': 9, 'score': 0.4}]
    """
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        if kept and kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            length, before = (one["end"] - one["start"] for one in (entity, kept[-1]))
            if length > before or (length == before and entity["score"] > kept[-1]["score"]):
                kept[-1] = entity
        else:
            kept.append(entity)
    return kept
