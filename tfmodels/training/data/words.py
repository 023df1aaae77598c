"""Data for token classification: labels of words given to their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmodels.models.losses import IGNORED
from tfmodels.utils.text import quote


def tokenize_words(
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    labels: Sequence[Sequence[int]],
    *,
    max_length: int | None = None,
    labelled: str = "first",
    inside: Mapping[int, int] | None = None,
) -> dict[str, list]:
    """Tokenise sentences that are split into words, and label the tokens by their words.

    Args:
        tokenizer: the model's.
        sentences: words of each.
        labels: a class id per word; -100 for words that do not count.
        max_length: tokens that a sentence is cut to; None keeps all.
        labelled: which tokens of a word bear its label: "first"; "last", for decoders, which have read the word only
            then; or "all". The others get -100.
        inside: with "all", the labels of a word's tokens after the first, by the word's, such as {1: 2} where 1 is
            B-person and 2 is I-person. Labels that it lacks stay.

    Returns:
        Columns: what the tokenizer returns, and `labels`.

    Raises:
        ValueError: no label for some word, another `labelled`, or `inside` without "all".

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> rows = tokenize_words(tokenizer, [["Lily", "smiled"]], [[3, 0]])
        >>> tokenizer.convert_ids_to_tokens(rows["input_ids"][0]), rows["labels"][0]
        (['<s>', '▁Lily', '▁s', 'm', 'il', 'ed'], [-100, 3, 0, -100, -100, -100])
    """
    if len(sentences) != len(labels):
        raise ValueError(f"{len(sentences)} sentences and {len(labels)} rows of labels; as many were expected.")
    for row, (words, own) in enumerate(zip(sentences, labels, strict=True)):
        if len(words) != len(own):
            raise ValueError(f"sentence {row} has {len(words)} words and {len(own)} labels; one each was expected.")
    if labelled not in ("first", "last", "all"):
        raise ValueError(f'labelled={quote(labelled)}; "first", "last" or "all" was expected.')
    if inside is not None and labelled != "all":
        raise ValueError(f'inside is for labelled="all"; with {quote(labelled)} a word has one label.')
    encoded = tokenizer(
        [list(words) for words in sentences],
        is_split_into_words=True,
        truncation=max_length is not None,
        max_length=max_length,
    )
    columns = {name: list(rows) for name, rows in encoded.items()}
    columns["labels"] = []
    for row, own in enumerate(labels):
        words = encoded.word_ids(row)
        of_row = []
        for word, before, after in zip(words, [None, *words[:-1]], [*words[1:], None], strict=True):
            label = IGNORED if word is None else int(own[word])
            if (labelled == "first" and word == before) or (labelled == "last" and word == after):
                label = IGNORED
            elif inside is not None and word == before:
                label = inside.get(label, label)
            of_row.append(label)
        columns["labels"].append(of_row)
    return columns
