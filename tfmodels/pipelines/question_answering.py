"""Questions and the texts that answer them to answers with their places."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops

from tfmodels.pipelines.base import LIST, ONE, Pipeline, Row, softmax
from tfmodels.pipelines.forward import call_model, row_of
from tfmodels.pipelines.inputs import text_of
from tfmodels.pipelines.settings import Settings, count
from tfmodels.runtime.lowering import Lowering
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

# The reference's room for a window, and the overlap of two.
_LONGEST, _OVERLAP = 384, 128
# A score of tokens that no answer has, before the softmax, and the null answer's before any window was read.
_NEVER, _NO_NULL = -10000.0, 1000000


@dataclasses.dataclass(frozen=True)
class AnswerSettings(Settings):
    """Parameters of question answering."""

    top_k: int = 1
    doc_stride: int | None = None
    max_answer_len: int = 15
    max_seq_len: int | None = None
    max_question_len: int | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = True
    padding: bool | str = "do_not_pad"
    topk: int | None = None

    def __post_init__(self) -> None:
        if self.topk is not None and self.top_k == 1:
            warn("topk is the old name of top_k.")
            object.__setattr__(self, "top_k", self.topk)
        for name in ("top_k", "max_answer_len"):
            count(name, getattr(self, name))
        for name in ("max_seq_len", "max_question_len"):
            if getattr(self, name) is not None:
                count(name, getattr(self, name))
        if self.doc_stride is not None:
            count("doc_stride", self.doc_stride, 0)


def start_and_end(model: Any, inputs: dict[str, Any], lowering: Lowering) -> dict[str, Any]:
    """The logits (batch, length) of where an answer starts and ends."""
    outputs = call_model(model, inputs, lowering)
    return {name: ops.cast(outputs[name], "float32") for name in ("start_logits", "end_logits")}


class QuestionAnsweringPipeline(Pipeline):
    """Finds the answers to questions in texts, by a `...ForQuestionAnswering` model.

    An input is {"question": text, "context": text}. A call also takes `question=` and `context=`, of which the
    questions, or both, may be lists. The result of an input is {"score", "start", "end", "answer"}, with `start` and
    `end` in characters of the context; with `top_k` above 1, a list of such dicts, likeliest first.

    Parameters of the constructor and of calls:
        top_k: answers to return; answers with the same text are one, their scores summed.
        doc_stride: tokens by which the windows of a long context overlap; default: 128, and half of a window at most.
        max_seq_len: tokens of a window, question included; default: 384, and `tokenizer.model_max_length` at most.
        max_answer_len: tokens of an answer at most.
        max_question_len: accepted; a question is never cut, as with the fast tokenizers of transformers.
        handle_impossible_answer: also judge that there is no answer; that answer is "".
        align_to_words: begin and end answers at whole words, where the tokenizer knows words.
        padding: of windows, as for calling the tokenizer.

    Source: behaves as the pipeline of transformers 4.57, the last version that has one.

    Example:
        >>> from tfmodels import pipeline  # doctest: +SKIP
        >>> answer = pipeline("question-answering", "folder of a model")  # doctest: +SKIP
        >>> answer(question="Where do I live?", context="My name is Wolfgang and I live in Berlin")  # doctest: +SKIP
    """

    task = "question-answering"
    head = "ForQuestionAnswering"
    settings_class = AnswerSettings
    compute = staticmethod(start_and_end)
    per_token = True
    way_out: ClassVar[str] = "; pass a smaller max_seq_len"

    def __call__(
        self, inputs: Any = None, *more: Any, question: Any = None, context: Any = None, **parameters: Any
    ) -> Any:
        for name in ("data", "X"):  # as older versions had it
            if parameters.get(name) is not None and inputs is None:
                inputs = parameters.pop(name)
        if question is not None or context is not None:
            if inputs is not None or more:
                raise TypeError("the question was given twice: in the inputs and as question= and context=.")
            inputs = _paired(question, context)
        elif isinstance(inputs, str) and len(more) == 1 and isinstance(more[0], str):
            inputs = {"question": inputs, "context": more[0]}
        elif more:
            inputs = [inputs, *more]
        return super().__call__(inputs, **parameters)

    def read_inputs(self, inputs: Any, settings: Any) -> tuple[str, Any]:
        if isinstance(inputs, str) or inputs is None:
            raise ValueError(f"{quote(inputs)} is no question with its context; give question= and context=.")
        kind, items = super().read_inputs(inputs, settings)
        if kind == LIST:
            items = [part for item in items for part in _spread(item)]
        elif kind == ONE:
            items = list(_spread(items))
            kind, items = (ONE, items[0]) if len(items) == 1 else (LIST, items)
        return (ONE, items[0]) if kind == LIST and len(items) == 1 else (kind, items)

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        question, context = _checked(item)
        length = settings.max_seq_len
        if length is None:
            length = min(self.tokenizer.model_max_length, _LONGEST)
        question_length = len(self.tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"])
        room = length - question_length - self.tokenizer.num_special_tokens_to_add(pair=True)
        if room < 1:
            raise ValueError(
                f"the question has {question_length} tokens, which leaves no room for a context in windows of "
                f"{length}: ask a shorter one, or pass a larger max_seq_len."
            )
        overlap = settings.doc_stride
        if overlap is None:
            overlap = min(length // 2, _OVERLAP, room - 1)
        if overlap > length:
            raise ValueError(f"doc_stride={overlap} is larger than max_seq_len={length}.")
        if settings.max_question_len is not None and question_length > settings.max_question_len:
            warn(f"max_question_len={settings.max_question_len}: a longer question is not cut.")
        question_first = self.tokenizer.padding_side == "right"
        try:
            encoding = self.tokenizer(
                [question if question_first else context],
                [context if question_first else question],
                padding=settings.padding,
                truncation="only_second" if question_first else "only_first",
                max_length=length,
                stride=overlap,
                return_overflowing_tokens=True,
            )
        except ValueError as error:
            if overlap < room:
                raise
            raise ValueError(
                f"doc_stride={overlap}: windows of {length} tokens have room for {room} of the context beside this "
                "question, and can overlap by less than that."
            ) from error
        for index in range(len(encoding["input_ids"])):
            own = {
                name: values[index] for name, values in encoding.items() if name in self.tokenizer.model_input_names
            }
            # With the context in front, transformers leaves all tokens in.
            allowed = [not question_first or text == 1 for text in encoding.sequence_ids(index)]
            if self.tokenizer.cls_token_id is not None:  # the token that stands for "no answer"
                for place, token in enumerate(own["input_ids"]):
                    allowed[place] |= token == self.tokenizer.cls_token_id
            yield row_of(self.model, own, _Window(context, np.asarray(allowed), encoding[index], int(question_first)))

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        answers: list[dict[str, Any]] = []
        # Aligned to words, several candidates may become one.
        candidates = settings.top_k * 2 + 10 if settings.align_to_words else settings.top_k
        null_score = float(_NO_NULL)
        for row, output in zip(rows, outputs, strict=True):
            window: _Window = row.note
            allowed = window.allowed & np.asarray(row.inputs["attention_mask"], bool)
            start, end = (
                softmax(np.where(allowed, output[name], np.float32(_NEVER))) for name in ("start_logits", "end_logits")
            )
            if settings.handle_impossible_answer:
                null_score = min(null_score, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            for first, last, score in best_spans(start, end, allowed, candidates, settings.max_answer_len):
                begin, stop = window.characters(first, last, settings.align_to_words)
                text = window.context[begin:stop]
                same = next((answer for answer in answers if answer["answer"].lower() == text.lower()), None)
                if same is not None:
                    same["score"] += score
                else:
                    answers.append({"score": score, "start": begin, "end": stop, "answer": text})
        if settings.handle_impossible_answer:
            answers.append({"score": null_score, "start": 0, "end": 0, "answer": ""})
        answers = sorted(answers, key=lambda answer: answer["score"], reverse=True)[: settings.top_k]
        return answers[0] if len(answers) == 1 else answers


def best_spans(
    start: np.ndarray, end: np.ndarray, allowed: np.ndarray, count: int, longest: int
) -> list[tuple[int, int, float]]:
    """The likeliest spans (first token, last token, score).

    Args:
        start, end: probabilities (length,).
        allowed: bool (length,), whether a token may be part of an answer.
        count: spans to look at; those with a forbidden end are left out of them.
        longest: tokens of a span at most.

    Example:
        >>> best_spans(np.array([0.0, 0.75, 0.25]), np.array([0.0, 0.25, 0.75]), np.array([False, True, True]), 2, 15)
        [(1, 2, 0.5625), (1, 1, 0.1875)]
    """
    scores = np.tril(np.triu(np.outer(start, end)), longest - 1).ravel()
    if count == 1:
        order = np.asarray([scores.argmax()])
    elif len(scores) <= count:
        order = np.argsort(-scores)
    else:
        order = np.argpartition(-scores, count)[:count]
        order = order[np.argsort(-scores[order])]
    firsts, lasts = np.unravel_index(order, (len(start), len(end)))
    found = zip(firsts.tolist(), lasts.tolist(), scores[order].tolist(), strict=True)
    return [(first, last, score) for first, last, score in found if allowed[first] and allowed[last]]


@dataclasses.dataclass
class _Window:
    """A part of a context: which tokens may be in an answer, and where they are in the text."""

    context: str
    allowed: np.ndarray
    encoding: Any
    sequence: int

    def characters(self, first: int, last: int, align_to_words: bool) -> tuple[int, int]:
        """The characters from one token to another one, or from its word to the other one's."""
        offsets = self.encoding.offsets
        if align_to_words:
            words = [self.encoding.token_to_word(token) for token in (first, last)]
            if None not in words:
                spans = [self.encoding.word_to_chars(word, self.sequence) for word in words]
                if None not in spans:
                    return spans[0][0], spans[1][1]
        return offsets[first][0], offsets[last][1]


def _paired(question: Any, context: Any) -> Any:
    """The inputs of `question=` and `context=`."""
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    if isinstance(question, (list, tuple)) and isinstance(context, str):
        return [{"question": one, "context": context} for one in question]
    if isinstance(question, (list, tuple)) and isinstance(context, (list, tuple)):
        if len(question) != len(context):
            raise ValueError(
                f"Questions and contexts don't have the same lengths: {len(question)} and {len(context)}."
            )
        return [{"question": one, "context": text} for one, text in zip(question, context, strict=True)]
    raise ValueError(
        f"question={quote(question)} and context={quote(context)}: two texts, a list and a text, or two lists of one "
        "length were expected."
    )


def _spread(item: Any) -> Iterable[Any]:
    """An input, or those that one stands for whose question and context are lists."""
    if isinstance(item, Mapping) and isinstance(item.get("question"), list):
        return _paired(item["question"], item.get("context"))
    _checked(item)
    return [item]


def _checked(item: Any) -> tuple[str, str]:
    """Question and context of an input.

    Raises:
        KeyError: one of them is missing.
        ValueError: it is no dict, or one of them is no text, or empty.
    """
    if hasattr(item, "question_text") and hasattr(item, "context_text"):  # SquadExample of transformers
        item = {"question": item.question_text, "context": item.context_text}
    if not isinstance(item, Mapping):
        raise ValueError(f'{quote(item)} is no input; a dict with "question" and "context" was expected.')
    for name in ("question", "context"):
        if name not in item:
            raise KeyError(f'You need to provide a dictionary with keys "question" and "context"; {name} is missing.')
        if item[name] is None:
            raise ValueError(f"`{name}` cannot be None")
        if not text_of(item[name], name):
            raise ValueError(f"`{name}` cannot be empty")
    return item["question"], item["context"]
