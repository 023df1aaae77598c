"""Padding rows of ids that exist already."""

from __future__ import annotations

import numpy as np
import pytest

LONG = "The quick brown fox jumps over the lazy dog"


def test_pad_a_list_of_encodings(mpnet):
    rows = [mpnet("Hello", return_special_tokens_mask=True), mpnet("a b", return_special_tokens_mask=True)]
    batch = mpnet.pad(rows, return_tensors="np")
    assert batch["input_ids"].tolist() == [[0, 7596, 2, 1], [0, 1041, 1042, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["special_tokens_mask"].tolist() == [[1, 0, 1, 1], [1, 0, 0, 1]]


def test_pad_makes_masks_and_keeps_other_values(mpnet):
    given_rows = {"input_ids": [np.array([5, 6, 7]), np.array([8])], "labels": [1, 0]}
    batch = mpnet.pad(given_rows, padding_side="left", pad_to_multiple_of=4)
    assert batch == {
        "input_ids": [[1, 5, 6, 7], [1, 1, 1, 8]],
        "labels": [1, 0],
        "attention_mask": [[0, 1, 1, 1], [0, 0, 0, 1]],
    }
    assert "attention_mask" not in mpnet.pad({"input_ids": [[1]]}, return_attention_mask=False)
    assert mpnet.pad({"input_ids": [[1, 2], [3]]}, padding=False)["attention_mask"] == [[1, 1], [1]]
    kept = mpnet.pad({"input_ids": [[1, 2], [3]], "attention_mask": [[0, 1], [1]]})["attention_mask"]
    assert kept == [[0, 1], [1, 0]]


def test_pad_one_encoding(mpnet):
    assert mpnet.pad(mpnet("a"), padding="max_length", max_length=5) == {
        "input_ids": [0, 1041, 2, 1, 1],
        "attention_mask": [1, 1, 1, 0, 0],
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"labels": [[1]]}, "have no 'input_ids'; they have labels"),
        ([], "have no 'input_ids'; they have nothing"),
        ([{"input_ids": [1]}, {"input_ids": [1], "labels": 2}], "must have the same values; the first has input_ids"),
        ({"input_ids": [[1], [2]], "labels": [1]}, "'input_ids' has 2 rows, but 'labels' has 1"),
    ],
)
def test_pad_errors(mpnet, rows, message):
    with pytest.raises(ValueError, match=message):
        mpnet.pad(rows)
