"""Extractive question answering: mark the answer in a paragraph (XQuAD, English).

python examples/answer_questions.py
python examples/answer_questions.py --model path/to/all-mpnet-base-v2 --learning-rate 5e-5 --epochs 2

The bundled model is far too small to understand questions: it learns what answers look like and where they tend to be.
"""

from __future__ import annotations

import json
from typing import Any

from helpers import load_tokenizer, options_of, plot_losses, read_lines, warmed_up


def load_questions(lines: list[str]) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """Questions, the paragraph of each, and the characters of its answer there."""
    questions, contexts, answers = [], [], []
    for paragraph in map(json.loads, lines):
        for question, start, answer in paragraph["questions"]:
            questions.append(question)
            contexts.append(paragraph["context"])
            answers.append((start, start + len(answer)))
    return questions, contexts, answers


def main(arguments: list[str] | None = None) -> dict[str, float]:
    options = options_of(__doc__, arguments, epochs=3, batch_size=16, learning_rate=2e-3, max_length=256, limit=100)

    # After the options, so that --help and mistakes in them are told at once.
    import keras

    from tfmodels import TFAutoModelForQuestionAnswering
    from tfmodels.training.data import batches, best_answers, question_windows
    from tfmodels.training.metrics import answer_scores

    keras.utils.set_random_seed(0)
    tokenizer = load_tokenizer(options.model)
    lines = read_lines("xquad_en.jsonl", options.limit)
    cut = len(lines) // 10  # whole paragraphs are held out
    train, test = load_questions(lines[cut:]), load_questions(lines[:cut])
    # A paragraph that is too long gives several windows, of which each repeats an eighth of the one before.
    sizes = {"max_length": options.max_length, "doc_stride": options.max_length // 8}
    windows = question_windows(tokenizer, *train, **sizes)
    settings = {"pad_token_id": tokenizer.pad_token_id, "buckets": [options.max_length]}
    data = batches(windows.columns, options.batch_size, seed=0, **settings)
    print(f"{len(train[0])} questions make {len(windows.questions)} windows")

    model = TFAutoModelForQuestionAnswering.from_pretrained(options.model, pad_token_id=tokenizer.pad_token_id)

    questions, contexts, answers = test
    test_windows = question_windows(tokenizer, questions, contexts, **sizes)
    wanted = [[context[slice(*span)]] for context, span in zip(contexts, answers, strict=True)]

    def judge() -> tuple[dict[str, float], list[Any]]:
        logits = model.predict(batches(test_windows.columns, options.batch_size, **settings), verbose=0)
        found = best_answers(test_windows, contexts, logits.start_logits, logits.end_logits)
        return answer_scores([answer.text for answer in found], wanted), found

    before, _ = judge()
    steps = options.epochs * int(data.cardinality())
    rate = warmed_up(options.learning_rate, steps)
    model.compile(keras.optimizers.AdamW(rate, global_clipnorm=1.0), jit_compile=False)
    history = model.fit(data, epochs=options.epochs)
    plot_losses(history.history, options.plot)
    after, found = judge()

    for name, scores in (("before", before), ("after", after)):
        print(f"{name}: exact match {scores['exact_match']:.3f}, F1 {scores['f1']:.3f}, {len(questions)} questions")
    for question, answer, right in list(zip(questions, found, wanted, strict=True))[:3]:
        print(f"{question}\n  found: {answer.text}\n  right: {right[0]}")
    return {"f1_before": before["f1"], "f1": after["f1"]}


if __name__ == "__main__":
    main()
