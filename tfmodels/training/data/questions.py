"""Data for question answering: windows over long contexts, and answers found from logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Questions with pieces of their contexts.

    Fields:
        columns: for `batches`.
        questions: per row, which question it belongs to.
        offsets: per row and token the (start, end) characters of the context that it covers, None for other tokens.
    """

    columns: dict[str, list]
    questions: list[int]
    offsets: list[list[tuple[int, int] | None]]


def question_windows(
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[tuple[int, int] | None] | None = None,
    *,
    max_length: int,
    doc_stride: int,
) -> Windows:
    """Tokenise questions with their contexts, long contexts in several windows that overlap.

    Args:
        tokenizer: the model's.
        questions, contexts: a text each per question.
        answers: per question the characters (start, end) of its answer in the context, None where there is none.
            Given, the columns have `start_positions` and `end_positions`: the answer's first and last token, or 0 and
            0 (SQuAD's "no answer here") in windows that do not hold all of it.
        max_length: tokens per window, question and special tokens included.
        doc_stride: tokens of the context that a window repeats from the one before.

    Raises:
        ValueError: not one context and answer per question; an answer outside its context; a question that leaves no
            room for the context.

    Source:
        Rajpurkar et al., https://arxiv.org/abs/1606.05250.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> context = "Tom lives by the sea and Lily lives in a big red house on the hill."
        >>> windows = question_windows(
        ...     tokenizer, ["Where is Tom?"], [context], [(10, 20)], max_length=30, doc_stride=6
        ... )
        >>> windows.questions, windows.columns["start_positions"]
        ([0, 0], [16, 0])
        >>> start, end = windows.columns["start_positions"][0], windows.columns["end_positions"][0]
        >>> context[windows.offsets[0][start][0] : windows.offsets[0][end][1]]
        ' by the sea'
    """
    for name, values in (("contexts", contexts), ("answers", answers)):
        if values is not None and len(values) != len(questions):
            raise ValueError(f"{len(questions)} questions and {len(values)} {name}; one each was expected.")
    for number, answer in enumerate(answers or ()):
        if answer is not None and not 0 <= answer[0] < answer[1] <= len(contexts[number]):
            raise ValueError(
                f"answer {number} has the characters {tuple(answer)}; its context has 0 to {len(contexts[number])}."
            )
    encoded = tokenizer(
        list(questions),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    columns = {name: list(rows) for name, rows in encoded.items()}
    numbers, all_offsets = columns.pop("overflow_to_sample_mapping"), columns.pop("offset_mapping")
    offsets = [
        [tuple(span) if part == 1 else None for span, part in zip(spans, encoded.sequence_ids(row), strict=True)]
        for row, spans in enumerate(all_offsets)
    ]
    if answers is not None:
        spans = [_tokens_of(answers[number], own) for number, own in zip(numbers, offsets, strict=True)]
        columns["start_positions"] = [start for start, _ in spans]
        columns["end_positions"] = [end for _, end in spans]
    return Windows(columns, numbers, offsets)


def _tokens_of(answer: tuple[int, int] | None, offsets: list[tuple[int, int] | None]) -> tuple[int, int]:
    """First and last token of an answer in a window; (0, 0) unless the window holds all of it."""
    if answer is None:
        return 0, 0
    start, end = answer
    inside = [i for i, span in enumerate(offsets) if span is not None and span[0] < end and span[1] > start]
    if not inside or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


class Answer(NamedTuple):
    """A span of a context: its text ("" for no answer), its score (logits added up), its characters."""

    text: str
    score: float
    characters: tuple[int, int]


def best_answers(
    windows: Windows,
    contexts: Sequence[str],
    start_logits: Sequence[Any],
    end_logits: Sequence[Any],
    *,
    max_tokens: int = 30,
    no_answer: float | None = None,
) -> list[Answer]:
    """Find the best span of each question over all its windows.

    Args:
        windows: from `question_windows`, in their order.
        contexts: as given there.
        start_logits, end_logits: per window float (length,), or (windows, length); padding to the right is not looked
            at.
        max_tokens: longest answer.
        no_answer: None to answer always; else how much better than the best span position 0 must score in every
            window for the answer to be "".

    Raises:
        ValueError: not one row of logits per window.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> contexts = ["Tom lives by the sea."]
        >>> windows = question_windows(tokenizer, ["Where is Tom?"], contexts, [(13, 20)], max_length=64, doc_stride=8)
        >>> start, end = (windows.columns[f"{side}_positions"] for side in ("start", "end"))
        >>> best_answers(windows, contexts, np.eye(64)[start], np.eye(64)[end])[0].text
        'the sea'
    """
    count = len(windows.questions)
    if len(start_logits) != count or len(end_logits) != count:
        raise ValueError(f"{len(start_logits)} and {len(end_logits)} rows of logits; {count} windows.")
    best = [Answer("", -np.inf, (0, 0)) for _ in contexts]
    nothing = np.full(len(contexts), np.inf)
    for row, number in enumerate(windows.questions):
        own = windows.offsets[row]
        # Tokens that stand for no characters begin and end nothing.
        inside = np.array([i for i, span in enumerate(own) if span is not None and span[1] > span[0]], int)
        starts, ends = (np.asarray(logits[row], "float32")[: len(own)] for logits in (start_logits, end_logits))
        nothing[number] = min(nothing[number], float(starts[0] + ends[0]))
        if not len(inside):
            continue
        scores = starts[inside][:, None] + ends[inside][None, :]
        far = inside[None, :] - inside[:, None]
        scores[(far < 0) | (far >= max_tokens)] = -np.inf
        first, last = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[first, last] > best[number].score:
            start, end = own[inside[first]][0], own[inside[last]][1]
            text = contexts[number][start:end]
            start, end = start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())
            best[number] = Answer(contexts[number][start:end], float(scores[first, last]), (start, end))
    if no_answer is None:
        return best
    return [
        Answer("", float(none), (0, 0)) if none - answer.score > no_answer else answer
        for answer, none in zip(best, nothing, strict=True)
    ]
