"""Data collators: the batches that transformers 4.57 makes of the same rows."""

import numpy as np
import pytest
import tensorflow as tf

import tfmodels
from tfmodels.training import collators


class Tokenizer:
    """Rows of ids padded with 0, 2 for the mask: what collators ask of a tokenizer."""

    pad_token_id, mask_token, mask_token_id, all_special_ids, padding_side = 0, "<mask>", 2, [0, 1, 2], "right"

    def __init__(self, padding_side="right", mask_token="<mask>"):
        self.padding_side, self.mask_token = padding_side, mask_token

    def __len__(self):
        return 50

    def pad(self, rows, padding=True, max_length=None, pad_to_multiple_of=None, return_tensors=None):
        length = max_length if padding == "max_length" else max(len(row["input_ids"]) for row in rows)
        length = -(-length // (pad_to_multiple_of or 1)) * (pad_to_multiple_of or 1)
        batch = {name: [row[name] for row in rows] for name in rows[0]}
        ids = batch["input_ids"]

        def fill(row, value):
            rest = [value] * (length - len(row))
            return rest + list(row) if self.padding_side == "left" else list(row) + rest

        batch["attention_mask"] = [fill([1] * len(row), 0) for row in ids]
        batch["input_ids"] = [fill(row, 0) for row in ids]
        return batch if return_tensors is None else {name: np.array(values) for name, values in batch.items()}


ROWS = [{"input_ids": [1, 5, 6], "label": 1}, {"input_ids": [1, 7, 8, 9], "label": 0}]


def as_lists(batch):
    return {name: np.asarray(values).tolist() for name, values in batch.items()}


@pytest.mark.parametrize("kind", ["np", "tf"])
def test_padding(kind):
    batch = collators.DataCollatorWithPadding(Tokenizer(), return_tensors=kind)(ROWS)
    assert as_lists(batch) == {
        "input_ids": [[1, 5, 6, 0], [1, 7, 8, 9]],
        "attention_mask": [[1, 1, 1, 0], [1, 1, 1, 1]],
        "labels": [1, 0],
    }
    assert all(isinstance(values, np.ndarray if kind == "np" else tf.Tensor) for values in batch.values())
    wide = collators.DataCollatorWithPadding(Tokenizer(), pad_to_multiple_of=8)(ROWS)
    assert wide["input_ids"].shape == (2, 8) and wide["input_ids"].dtype == "int64"
    fixed = collators.DataCollatorWithPadding(Tokenizer(), padding="max_length", max_length=6)(ROWS)
    assert fixed["input_ids"].shape == (2, 6)


@pytest.mark.parametrize("side, want", [("right", [-100, 3, -100, -100]), ("left", [-100, -100, 3, -100])])
@pytest.mark.parametrize("name", ["label", "labels"])
def test_labels_of_tokens(name, side, want):
    rows = [{"input_ids": [1, 5, 6], name: [-100, 3, -100]}, {"input_ids": [1, 7, 8, 9], name: [-100, 1, 2, -100]}]
    batch = as_lists(collators.DataCollatorForTokenClassification(Tokenizer(side))(rows))
    assert batch["labels"] == [want, [-100, 1, 2, -100]] and set(batch) == {"input_ids", "attention_mask", "labels"}
    rows = [{"input_ids": row["input_ids"]} for row in rows]
    assert "labels" not in collators.DataCollatorForTokenClassification(Tokenizer())(rows)


@pytest.mark.parametrize("kind", ["np", "tf"])
def test_rows_of_one_length(kind):
    rows = [
        {"input_ids": [1, 5], "label_ids": [0.5, 1.0], "text": "a", "nothing": None, "score": 2.5},
        {"input_ids": [1, 7], "label_ids": [0.0, 0.25], "text": "b", "nothing": None, "score": 1.0},
    ]
    batch = collators.DefaultDataCollator(return_tensors=kind)(rows)
    assert as_lists(batch) == {
        "input_ids": [[1, 5], [1, 7]],
        "labels": [[0.5, 1.0], [0.0, 0.25]],
        "score": [2.5, 1.0],
    }
    assert as_lists(collators.default_data_collator(rows, kind)) == as_lists(batch)
    assert batch["input_ids"].dtype == "int64" and batch["labels"].dtype == "float32"
    with pytest.raises(ValueError, match=r"'input_ids': the rows of a batch have the shapes .*one shape was expected"):
        collators.DefaultDataCollator()([{"input_ids": [1]}, {"input_ids": [1, 2]}])
    with pytest.raises(ValueError, match=r'return_tensors=\'pt\'; "np" or "tf" was expected'):
        collators.DefaultDataCollator(return_tensors="pt")(rows)


def test_labels_of_causal_language_models():
    collate = collators.DataCollatorForLanguageModeling(Tokenizer(mask_token=None), mlm=False)
    for rows in ([{"input_ids": [1, 5, 6]}, {"input_ids": [1, 7, 8, 9]}], [[1, 5, 6], [1, 7, 8, 9]]):
        batch = as_lists(collate(rows))
        assert batch["labels"] == [[1, 5, 6, -100], [1, 7, 8, 9]]
        assert batch["input_ids"] == [[1, 5, 6, 0], [1, 7, 8, 9]]


def test_masked_tokens_are_80_10_10_of_the_share_and_never_special():
    rng = np.random.default_rng(0)
    rows = [{"input_ids": [1, *rng.integers(3, 50, 200), 1]} for _ in range(64)]
    collate = collators.DataCollatorForLanguageModeling(Tokenizer(), seed=1, mlm_probability=0.2)
    batch = collate(rows)
    ids = np.array([row["input_ids"] for row in rows])
    asked = batch["labels"] != -100
    assert asked[:, 1:-1].mean() == pytest.approx(0.2, abs=0.012) and not asked[:, [0, -1]].any()
    np.testing.assert_array_equal(batch["labels"][asked], ids[asked])
    np.testing.assert_array_equal(batch["input_ids"][~asked], ids[~asked])
    masked, kept = batch["input_ids"][asked] == 2, batch["input_ids"][asked] == ids[asked]
    # One of the 50 random tokens is the mask, and one the token itself.
    assert masked.mean() == pytest.approx(0.8 + 0.1 / 50, abs=0.03) and kept.mean() == pytest.approx(0.102, abs=0.02)
    again = collators.DataCollatorForLanguageModeling(Tokenizer(), seed=1, mlm_probability=0.2)(rows)
    np.testing.assert_array_equal(again["input_ids"], batch["input_ids"])
    tfmodels.set_seed(3)
    first = collators.DataCollatorForLanguageModeling(Tokenizer())(rows)["labels"]
    tfmodels.set_seed(3)
    np.testing.assert_array_equal(collators.DataCollatorForLanguageModeling(Tokenizer())(rows)["labels"], first)


def test_a_mask_of_special_tokens_decides_where_it_is_given():
    rows = [{"input_ids": [5, 6, 7], "special_tokens_mask": [1, 0, 0]}]
    batch = collators.DataCollatorForLanguageModeling(Tokenizer(), mlm_probability=1.0)(rows)
    assert (batch["labels"] != -100).tolist() == [[False, True, True]] and "special_tokens_mask" not in batch


def test_choices():
    rows = [{"input_ids": [[1, 5], [1, 6, 7]], "label": 1}, {"input_ids": [[1], [1, 8]], "label": 0}]
    batch = as_lists(collators.DataCollatorForMultipleChoice(Tokenizer())(rows))
    assert batch["input_ids"] == [[[1, 5, 0], [1, 6, 7]], [[1, 0, 0], [1, 8, 0]]] and batch["labels"] == [1, 0]
    with pytest.raises(ValueError, match=r"rows have \[2, 3\] choices"):
        collators.DataCollatorForMultipleChoice(Tokenizer())([*rows, {"input_ids": [[1], [1], [1]], "label": 0}])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mlm_probability": 15}, "mlm_probability=15"),
        ({"mask_replace_prob": 0.95}, "more than 1 together"),
        ({"tokenizer": Tokenizer(mask_token=None)}, "does not have a mask token.*pass mlm=False"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        collators.DataCollatorForLanguageModeling(**{"tokenizer": Tokenizer(), **options})


@pytest.mark.parametrize("name", collators._REFUSED)
def test_collators_that_are_not_here_say_what_to_use(name):
    with pytest.raises(ImportError, match=f"{name} (is for|masks|packs)"):
        getattr(collators, name)
