"""Calls of pipelines whose results transformers has given (data/pipelines/make_expected.py), and the tests ask for."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """A call: a checkpoint of pipeline_checkpoints.py, a task, the pipeline's options, the call's arguments."""

    checkpoint: str
    task: str
    arguments: tuple[Any, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict)


LONG = "my name is paris, and where I live is the good city of naming days. " * 4
TEXTS = [
    "my name is paris.",
    "",
    "the good city",
    "bad day! what is the name of the city, in what day? é 日本 🙂",
    "x",
]
CHAT = [{"role": "system", "content": "be good"}, {"role": "user", "content": "what is the name?"}]
OPEN_CHAT = [*CHAT, {"role": "assistant", "content": "the name is"}]
PAIR = {"text": "my name is paris", "text_pair": "the city"}


def _text_classification() -> list[Case]:
    task, cases = "text-classification", []
    for name in ("mpnet_classes", "mpnet_multi", "mpnet_regression", "llama_classes", "llama_nopad", "mpt_classes"):
        texts = [text for text in TEXTS if text and (len(text) < 20 or name != "mpt_classes")]
        cases += [
            Case(name, task, ("my name is paris.",)),
            Case(name, "sentiment-analysis", (texts,)),
            Case(name, task, (texts,), {"top_k": None}),
        ]
    for name in ("mpnet_classes", "llama_classes"):
        cases += [
            Case(name, task, ("",)),
            Case(name, task, (["my name"],)),
            Case(name, task, ("my name",), {}, {"top_k": 1}),
            Case(name, task, ("my name",), {}, {"top_k": 2}),
            Case(name, task, ("my name",), {}, {"top_k": None}),
            Case(name, task, ("my name",), {"top_k": 2}),
            Case(name, task, ("my name",), {"top_k": 2}, {"top_k": 99}),
            Case(name, task, ("my name",), {}, {"function_to_apply": "sigmoid"}),
            Case(name, task, (["my name", "x"],), {"function_to_apply": "none", "top_k": 3}),
            Case(name, task, ("my name",), {"function_to_apply": "sigmoid"}, {"function_to_apply": "softmax"}),
            Case(name, task, (PAIR,)),
            Case(name, task, ([PAIR, {"text": "where?"}, "where?"],)),
            Case(name, task, ([[["my name is paris", "the city"]]],)),
            Case(name, task, (LONG,), {}, {"truncation": True, "max_length": 12}),
            Case(name, task, ([LONG, "x"],), {"truncation": True, "max_length": 9, "top_k": 2}),
            Case(name, task, ("my name",), {}, {"padding": "max_length", "max_length": 14}),
            Case(name, task, ("my name",), {}, {"text_pair": "the city"}),
        ]
    return cases


def _token_classification() -> list[Case]:
    task, cases = "token-classification", []
    for name in ("mpnet_tokens", "llama_tokens"):
        texts = TEXTS if name == "mpnet_tokens" else [text for text in TEXTS if text]
        cases += [Case(name, task, ("my name is paris.",)), Case(name, "ner", (texts,), {"ignore_labels": []})]
        for strategy in ("simple", "first", "average", "max"):
            cases += [
                Case(name, task, (texts,), {"aggregation_strategy": strategy}),
                Case(name, task, (texts[-2],), {}, {"aggregation_strategy": strategy, "ignore_labels": ["B-PER"]}),
                Case(name, task, (LONG,), {"aggregation_strategy": strategy, "stride": 5}),
                Case(name, task, ([LONG, "x"],), {"aggregation_strategy": strategy, "stride": 0, "ignore_labels": []}),
            ]
        words = ["my", "name", "is", "naming", "paris", "é日"]
        cases += [
            Case(name, task, (LONG,)),
            Case(name, task, (LONG,), {"aggregation_strategy": "first"}),
            Case(name, task, (words,), {}, {"is_split_into_words": True}),
            Case(name, task, ([words, ["x"]],), {}, {"is_split_into_words": True, "aggregation_strategy": "max"}),
            Case(
                name,
                task,
                ([words],),
                {},
                {"is_split_into_words": True, "aggregation_strategy": "simple", "delimiter": "--"},
            ),
        ]
    return cases


def _fill_mask() -> list[Case]:
    name, task, one, two = "mpnet_masked_lm", "fill-mask", "paris is the <mask> of my day.", "<mask> is <mask>!"
    return [
        Case(name, task, (one,)),
        Case(name, task, ([one],)),
        Case(name, task, ([one, "<mask>", "a long way to the <mask> day in the city"],)),
        Case(name, task, (two,)),
        Case(name, task, ([one, two],), {"top_k": 2}),
        Case(name, task, (one,), {}, {"top_k": 1}),
        Case(name, task, (one,), {}, {"top_k": 101}),
        Case(name, task, (one,), {}, {"targets": ["city", "day", "good"]}),
        Case(name, task, (one,), {}, {"targets": "city"}),
        Case(name, task, (two,), {"targets": ["city", "naming", "city"]}, {"top_k": 2}),
        Case(name, task, ("<mask> " + LONG,), {"tokenizer_kwargs": {"truncation": True}}),
    ]


def _feature_extraction() -> list[Case]:
    cases = []
    for name in ("mpnet_bare", "llama_text"):
        cases += [
            Case(name, "feature-extraction", ("my name",)),
            Case(name, "feature-extraction", (["my name", "x"],)),
            Case(name, "feature-extraction", (LONG,), {}, {"truncation": True, "tokenize_kwargs": {"max_length": 7}}),
        ]
    return cases


def _zero_shot() -> list[Case]:
    task, labels, cases = "zero-shot-classification", ["good", "bad", "the city of paris"], []
    for name in ("mpnet_classes", "llama_classes"):
        cases += [
            Case(name, task, ("my day", labels)),
            Case(name, task, ("my day",), {}, {"candidate_labels": "good, bad , day"}),
            Case(name, task, (["my day", "x"], labels), {}, {"multi_label": True}),
            Case(name, task, (["my day"], ["good"])),
            Case(name, task, ("my day", labels), {"hypothesis_template": "{}!"}),
            Case(name, task, (LONG, labels), {}, {"hypothesis_template": "in {}", "multi_label": True}),
        ]
    return cases


def _question_answering() -> list[Case]:
    task, cases = "question-answering", []
    context = "My name is paris, and I live in the good city of naming. What a bad day!"
    for name in ("mpnet_answers", "llama_answers"):
        for keywords in (
            {},
            {"top_k": 3},
            {"top_k": 20},
            {"handle_impossible_answer": True},
            {"handle_impossible_answer": True, "top_k": 4},
            {"max_answer_len": 1, "top_k": 2},
            {"max_answer_len": 3},
            {"align_to_words": False, "top_k": 3},
            {"max_seq_len": 20, "doc_stride": 6, "top_k": 5},
            {"max_seq_len": 16, "doc_stride": 2, "max_answer_len": 2, "handle_impossible_answer": True, "top_k": 3},
            {"padding": "max_length", "max_seq_len": 22, "doc_stride": 4},
        ):
            cases.append(Case(name, task, (), {}, {"question": "what name?", "context": context, **keywords}))
        both = [{"question": "where?", "context": LONG}, {"question": "what is my name?", "context": "x"}]
        cases += [
            Case(name, task, (both,)),
            Case(name, task, (both[:1],), {"top_k": 2}),
            Case(name, task, (both[0],), {"doc_stride": 3}),
            Case(name, task, (), {}, {"question": ["where?", "what?"], "context": context}),
            Case(name, task, (), {}, {"question": ["where?", "what?"], "context": [context, "the 日本 city"]}),
        ]
    return cases


def _text_generation() -> list[Case]:
    task, cases = "text-generation", []
    for name in ("llama_text", "gpt_neo_text"):
        greedy = {"do_sample": False, "max_new_tokens": 6}
        cases += [
            Case(name, task, ("the name",), greedy),
            Case(name, task, (["the name", "x", "my day is in paris"],), greedy),
            Case(name, task, (["the name"],), {}, greedy),
            Case(name, task, ("",), greedy),
            Case(name, task, ("the name",), greedy, {"return_full_text": False}),
            Case(name, task, ("the name",), greedy, {"return_tensors": True}),
            Case(name, task, ("the name",), greedy, {"return_text": True}),
            Case(name, task, ("the name",), {**greedy, "prefix": "my day "}),
            Case(name, task, ("the name",), {"do_sample": False, "max_length": 12}, {"prefix": "my day "}),
            Case(name, task, ("the name",), greedy, {"num_beams": 3, "num_return_sequences": 2}),
            Case(name, task, ("the name",), greedy, {"add_special_tokens": False}),
            Case(name, task, ("the name",), greedy, {"skip_special_tokens": False}),
            Case(
                name,
                task,
                ("the name is paris",),
                greedy,
                {"truncation": True, "tokenizer_encode_kwargs": {"max_length": 4}},
            ),
            Case(name, task, ("the good name is paris, in",), greedy, {"handle_long_generation": "hole"}),
            Case(name, task, ("the name",), {**greedy, "max_new_tokens": 12}, {"stop_sequence": "a"}),
            Case(name, task, ("the name",), greedy, {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2}),
        ]
    greedy = {"do_sample": False, "max_new_tokens": 6}
    name = "llama_text"
    cases += [
        Case(name, task, (CHAT,), greedy),
        Case(name, task, ([CHAT, OPEN_CHAT],), greedy),
        Case(name, task, (CHAT,), greedy, {"return_full_text": False}),
        Case(name, task, (OPEN_CHAT,), greedy),
        Case(name, task, (CHAT,), greedy, {"continue_final_message": True}),
        Case(name, task, (OPEN_CHAT,), greedy, {"continue_final_message": False}),
        Case(name, task, ([OPEN_CHAT],), greedy, {"return_tensors": True}),
    ]
    return cases


CASES = [
    *_text_classification(),
    *_token_classification(),
    *_fill_mask(),
    *_feature_extraction(),
    *_zero_shot(),
    *_question_answering(),
    *_text_generation(),
]
