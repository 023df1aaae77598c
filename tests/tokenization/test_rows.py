"""Padding rows of ids that exist already."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tensorflow as tf

LONG = "The quick brown fox jumps over the lazy dog"


def test_pad_a_list_of_encodings(mpnet):
    rows = [mpnet("Hello", return_special_tokens_mask=True), mpnet("a b", return_special_tokens_mask=True)]
    batch = mpnet.pad(rows, return_tensors="np")
    assert batch["input_ids"].tolist() == [[0, 7596, 2, 1], [0, 1041, 1042, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["special_tokens_mask"].tolist() == [[1, 0, 1, 1], [1, 0, 0, 1]]


def test_pad_makes_masks_and_keeps_other_values(mpnet):
    given_rows = {"input_ids": [[5, 6, 7], (np.int64(8),)], "labels": [1, 0]}
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


def test_pad_gives_what_it_got(mpnet):
    rows = [{"input_ids": np.array([5, 6]), "label": 1}, {"input_ids": np.array([7]), "label": 0}]
    batch = mpnet.pad(rows)
    assert {name: (type(values), values.tolist()) for name, values in batch.items()} == {
        "input_ids": (np.ndarray, [[5, 6], [7, 1]]),
        "label": (np.ndarray, [1, 0]),
        "attention_mask": (np.ndarray, [[1, 1], [1, 0]]),
    }
    batch = mpnet.pad({"input_ids": tf.constant([[5, 6]])}, padding="max_length", max_length=3)
    assert tf.is_tensor(batch["attention_mask"])
    assert batch["input_ids"].numpy().tolist() == [[5, 6, 1]]
    kept = mpnet.pad([{"input_ids": [5], "spans": [(0, 1)]}, {"input_ids": [5, 6], "spans": [(0, 1), (2, 3)]}])
    assert kept["spans"] == [[(0, 1)], [(0, 1), (2, 3)]]


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


# ---------------------------------------------------------------------------------------------------------------------
# Ids of texts to model inputs


def test_prepare_for_model_is_calling_with_ids(mpnet, llama, gpt2):
    for tokenizer in (mpnet, llama, gpt2):
        first, second = (tokenizer.encode(text, add_special_tokens=False) for text in ("one two three", "four five"))
        everything = {"return_token_type_ids": True, "return_special_tokens_mask": True}
        assert tokenizer.prepare_for_model(first, **everything) == tokenizer("one two three", **everything)
        for options in (
            {},
            {"truncation": "only_first", "max_length": 8},
            {"truncation": "only_second", "max_length": 8},
        ):
            given = {**everything, **options}
            want = dict(tokenizer("one two three", "four five", **given))
            got = dict(tokenizer.prepare_for_model(first, second, **given))
            if tokenizer is gpt2:  # no token tells its texts apart, and the library types both 0
                want.pop("token_type_ids"), got.pop("token_type_ids")
            assert got == want
    padded = mpnet.prepare_for_model([5], padding="max_length", max_length=5, return_tensors="np", return_length=True)
    assert padded["input_ids"].tolist() == [0, 5, 2, 1, 1]
    assert padded["length"] == 5
    row = mpnet.prepare_for_model([5], return_tensors="np", prepend_batch_axis=True)
    assert row["input_ids"].tolist() == [[0, 5, 2]]
    plain = mpnet.prepare_for_model([5, 6], [7], add_special_tokens=False)
    assert plain == {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1]}


def test_prepare_for_model_returns_what_overflows(mpnet):
    made = mpnet.prepare_for_model(
        [5, 6, 7, 8], truncation=True, max_length=4, stride=1, return_overflowing_tokens=True
    )
    assert made["input_ids"] == [0, 5, 6, 2]
    assert (made["overflowing_tokens"], made["num_truncated_tokens"]) == ([6, 7, 8], 2)
    with pytest.raises(ValueError, match="what is cut off both texts is not one sequence"):
        mpnet.prepare_for_model([5], [6], truncation=True, max_length=5, return_overflowing_tokens=True)
    with pytest.raises(ValueError, match="needs add_special_tokens=True"):
        mpnet.prepare_for_model([5], add_special_tokens=False, return_token_type_ids=True)


@pytest.mark.parametrize(
    ("first", "second", "count", "strategy", "stride", "right", "left"),
    [
        # by transformers 4.57
        ([1, 2, 3, 4], None, 2, "longest_first", 0, ([1, 2], None, [3, 4]), ([3, 4], None, [1, 2])),
        ([1, 2, 3, 4], None, 1, "only_first", 2, ([1, 2, 3], None, [2, 3, 4]), ([2, 3, 4], None, [1, 2, 3])),
        ([1, 2], [3, 4, 5], 2, "only_second", 0, ([1, 2], [3], [4, 5]), ([1, 2], [5], [3, 4])),
        ([1, 2, 3], [4], 2, "longest_first", 0, ([1], [4], []), ([3], [4], [])),
        ([1, 2, 3], [4, 5, 6], 3, "longest_first", 0, ([1, 2], [4], []), ([2, 3], [6], [])),
        ([1, 2, 3, 4], [5, 6], 3, "longest_first", 0, ([1, 2], [5], []), ([3, 4], [6], [])),
        ([1, 2], [3], 0, "longest_first", 0, ([1, 2], [3], []), ([1, 2], [3], [])),
        ([1, 2], [3], 1, "do_not_truncate", 0, ([1, 2], [3], []), ([1, 2], [3], [])),
    ],
)
def test_truncate_sequences(mpnet, first, second, count, strategy, stride, right, left):
    cut = copy.deepcopy(mpnet)
    for side, want in (("right", right), ("left", left)):
        cut.truncation_side = side
        assert cut.truncate_sequences(first, second, count, strategy, stride) == want


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], None, 2, "only_first"), "cannot remove 2 ids: ids has 2"),
        (([1, 2], [3], 1, "only_second"), "cannot remove 1 ids: pair_ids has 1"),
        (([1, 2], None, 1, "only_second"), "pair_ids has 0"),
        (([1, 2], None, 1, "longest"), 'must be "longest_first", "only_first" or "only_second", got \'longest\''),
    ],
)
def test_truncate_sequences_errors(mpnet, arguments, message):
    with pytest.raises(ValueError, match=message):
        mpnet.truncate_sequences(*arguments)


def test_room_for_texts(mpnet, llama):
    short = copy.deepcopy(mpnet)
    short.model_max_length = 512
    assert (short.max_len_single_sentence, short.max_len_sentences_pair) == (510, 508)
    short.max_len_single_sentence = 510
    with pytest.raises(ValueError, match="max_len_single_sentence is 510: it follows from model_max_length"):
        short.max_len_single_sentence = 100
    with pytest.raises(ValueError, match="max_len_sentences_pair is 508"):
        short.max_len_sentences_pair = 100


# ---------------------------------------------------------------------------------------------------------------------
# Attributes that scripts of transformers set and read


def test_truncation_and_padding_of_the_backend(mpnet):
    """As PreTrainedTokenizerFast.set_truncation_and_padding of transformers 4.57: for the backend alone."""
    mpnet = copy.deepcopy(mpnet)
    mpnet.set_truncation_and_padding("max_length", "longest_first", 6, 1, None, "left")
    backend = mpnet.backend_tokenizer
    assert backend.encode("Hello").ids == [1, 1, 1, 0, 7596, 2]
    assert len(backend.encode(LONG)) == 6
    assert (backend.truncation["stride"], backend.padding["length"]) == (1, 6)
    assert mpnet("Hello")["input_ids"] == [0, 7596, 2]  # a call does what it says
    assert backend.truncation is None and backend.padding is None
    mpnet.set_truncation_and_padding("longest", "do_not_truncate", None, 0, 4)
    assert [len(row) for row in backend.encode_batch(["Hello", LONG])] == [12, 12]
    mpnet.set_truncation_and_padding(False, False, None, 0, None)
    assert backend.truncation is None and backend.padding is None
    with pytest.raises(ValueError, match="padding must be True"):
        mpnet.set_truncation_and_padding("wide", False, 6, 0, None)


def test_attributes_that_scripts_read(mpnet, llama):
    mpnet = copy.deepcopy(mpnet)
    assert mpnet.decoder.decode(["a", "##b"]) == "ab"
    assert llama.can_save_slow_tokenizer and mpnet.sanitize_special_tokens() == 0
    with pytest.raises(AttributeError, match="no attribute 'prepare_seq2seq_batch': use .*text_target"):
        _ = mpnet.prepare_seq2seq_batch
