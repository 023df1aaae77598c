"""Calling a tokenizer: padding, truncation, pairs, masks, offsets."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfmodels.tokenization import LlamaTokenizer, PreTrainedTokenizerFast

LONG = "The quick brown fox jumps over the lazy dog"


def as_lists(value):
    """JSON's view of a result: tuples as lists, a BatchEncoding as a dict."""
    if isinstance(value, dict):
        return {name: as_lists(item) for name, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def test_same_as_transformers(expected, vocabularies):
    for name, special in expected["special_tokens"].items():
        path = vocabularies / name / "tokenizer.json"
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, **special)
        calls = [call for call in expected["calls"] if call["tokenizer"] == name]
        assert len(calls) > 20
        for call in calls:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = getattr(tokenizer, call["method"])(*call["args"], **call["kwargs"])
            assert as_lists(result) == call["result"], (name, call["method"], call["kwargs"])


# ---------------------------------------------------------------------------------------------------------------------
# Padding


def test_padding_sides(llama, mpnet):
    padded = copy.deepcopy(llama)
    padded.pad_token = padded.unk_token
    assert padded(["a b", "a"], padding=True)["input_ids"] == [[1, 263, 289], [0, 1, 263]]
    assert padded(["a b", "a"], padding=True, padding_side="right")["input_ids"] == [[1, 263, 289], [1, 263, 0]]
    padded.padding_side = "right"
    assert padded(["a b", "a"], padding=True)["attention_mask"] == [[1, 1, 1], [1, 1, 0]]
    assert mpnet(["a b", "a"], padding=True, padding_side="left")["attention_mask"] == [[1, 1, 1, 1], [0, 1, 1, 1]]


def test_padding_needs_a_padding_token(llama):
    with pytest.raises(ValueError, match=r"has no padding token.*tokenizer\.pad_token = tokenizer\.eos_token"):
        llama("a", padding=True)
    with pytest.raises(ValueError, match="has no padding token"):
        llama.pad({"input_ids": [[1], [1, 2]]})
    unknown = copy.deepcopy(llama)
    unknown.pad_token = "[PAD]"
    with pytest.raises(ValueError, match=r"does not know its pad_token '\[PAD\]'.*add_special_tokens"):
        unknown("a", padding=True)
    unknown.add_special_tokens({"pad_token": "[PAD]"})
    assert unknown(["a b", "a"], padding=True)["input_ids"] == [[1, 263, 289], [32000, 1, 263]]


def test_padding_and_truncation_of_a_call_do_not_stay(mpnet):
    plain = mpnet(LONG)
    mpnet(LONG, truncation=True, max_length=5, padding="max_length", split_special_tokens=True)
    assert mpnet(LONG) == plain
    with pytest.raises(ValueError, match="cannot bring every row"):
        mpnet("a", LONG, truncation="only_first", max_length=5)
    assert mpnet(LONG) == plain
    assert mpnet.tokenize("<mask>") == ["<mask>"]
    mpnet("a", split_special_tokens=True)
    assert mpnet.backend_tokenizer.encode("<mask>").ids == [0, 30526, 2]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=4),
    st.sampled_from(["left", "right"]),
    st.integers(1, 9),
)
def test_padded_rows_hold_the_single_rows(mpnet, texts, side, multiple):
    batch = mpnet(texts, padding=True, padding_side=side, pad_to_multiple_of=multiple, return_tensors="np")
    singles = [mpnet(text)["input_ids"] for text in texts]
    longest = max(map(len, singles))
    assert batch["input_ids"].shape == (len(texts), -(-longest // multiple) * multiple)
    for ids, mask, single in zip(batch["input_ids"], batch["attention_mask"], singles, strict=True):
        assert ids[mask == 1].tolist() == single
        assert (ids[mask == 0] == mpnet.pad_token_id).all()
        steps = np.diff(mask)
        assert (steps >= 0).all() if side == "left" else (steps <= 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# Truncation


@given(st.integers(0, 25), st.integers(3, 40), st.sampled_from(["left", "right"]))
def test_truncation_length(mpnet, words, max_length, side):
    cut = copy.deepcopy(mpnet)
    cut.truncation_side = side
    text = " ".join(["one two"] * words)
    ids = mpnet.encode(text)
    expected = ids
    if len(ids) > max_length:
        room = max_length - 2
        expected = [ids[0], *(ids[1:-1][-room:] if side == "left" else ids[1:-1][:room]), ids[-1]]
    assert cut.encode(text, truncation=True, max_length=max_length) == expected
    assert cut.encode(text, max_length=max_length) == expected  # max_length alone means truncation


@given(st.integers(0, 30), st.integers(3, 12), st.data())
def test_overflowing_rows_cover_the_text(mpnet, words, max_length, data):
    stride = data.draw(st.integers(0, max_length - 3))
    texts = [" ".join(["one two three four five six"] * (words // 6 + 1)), "seven"]
    rows = mpnet(texts, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True)
    samples = rows["overflow_to_sample_mapping"]
    assert samples == sorted(samples)
    for sample, text in enumerate(texts):
        parts = [ids[1:-1] for ids, of in zip(rows["input_ids"], samples, strict=True) if of == sample]
        joined = parts[0] + [index for part in parts[1:] for index in part[stride:]]
        assert joined == mpnet.encode(text, add_special_tokens=False)
        assert all(len(part) <= max_length - 2 for part in parts)


def test_overflow_of_one_text_is_a_batch(mpnet):
    rows = mpnet(LONG, max_length=6, return_overflowing_tokens=True, return_length=True)
    assert [len(ids) for ids in rows["input_ids"]] == rows["length"] == [6, 6, 3]
    assert rows["overflow_to_sample_mapping"] == [0, 0, 0]
    assert rows.tokens(2) == ["<s>", "dog", "</s>"]


def test_truncation_of_pairs(mpnet):
    assert mpnet.tokenize("a b c d e", "x y", add_special_tokens=True, truncation=True, max_length=8) == [
        *("<s>", "a", "b", "</s>", "</s>", "x", "y", "</s>")
    ]
    assert mpnet.tokenize("a b", "v w x y", add_special_tokens=True, truncation="only_second", max_length=7) == [
        *("<s>", "a", "b", "</s>", "</s>", "v", "</s>")
    ]
    assert mpnet.tokenize("a b c", "x y", add_special_tokens=True, truncation="only_first", max_length=7) == [
        *("<s>", "a", "</s>", "</s>", "x", "y", "</s>")
    ]


def test_model_max_length(mpnet, llama):
    short = PreTrainedTokenizerFast(tokenizer_object=mpnet.backend_tokenizer, pad_token="<pad>", model_max_length=6)
    assert len(short.encode(LONG, truncation=True)) == 6
    assert len(short.encode("a", padding="max_length")) == 6
    with pytest.warns(UserWarning, match="A text has 11 tokens, more than the 6"):
        short(LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short(LONG)  # said once
        copy.deepcopy(short)(LONG, verbose=False)
        short(LONG, padding=True, verbose=False, max_length=3)
    with pytest.warns(UserWarning, match="Neither max_length nor the tokenizer's model_max_length is set"):
        assert len(llama.encode(LONG, truncation=True)) == len(llama.encode(LONG))
    with pytest.warns(UserWarning, match="max_length=3 has no effect with padding=True"):
        short("a b c", padding=True, max_length=3)


# ---------------------------------------------------------------------------------------------------------------------
# Wrong calls


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (["a"], {"padding": "longst"}, ValueError, "padding must be True, \"longest\".*'longst'"),
        (["a"], {"truncation": "first"}, ValueError, "truncation must be True, \"longest_first\".*'first'"),
        (["a"], {"max_length": 0}, ValueError, "max_length must be a positive number of tokens, got 0"),
        (["a"], {"max_length": 2.5}, ValueError, "max_length must be a positive number of tokens, got 2.5"),
        (["a"], {"padding": True, "pad_to_multiple_of": -1}, ValueError, "pad_to_multiple_of must be a positive"),
        (["a"], {"padding": True, "padding_side": "top"}, ValueError, "padding_side must be 'left' or 'right'"),
        (["a"], {"max_length": 1}, ValueError, "max_length=1 leaves no room for text next to 2 special tokens"),
        (["a", "b"], {"max_length": 3}, ValueError, "max_length=3 leaves no room for text next to 4 special tokens"),
        (["a"], {"max_length": 4, "stride": 2}, ValueError, "stride=2 must be from 0 to less than .* 2 tokens"),
        (
            ["a"],
            {"truncation": True, "max_length": 12, "padding": True, "pad_to_multiple_of": 8},
            ValueError,
            "max_length=12 is not a multiple of pad_to_multiple_of=8",
        ),
        ([LONG], {"truncation": "only_second", "max_length": 5}, ValueError, "'only_second' cannot bring every row"),
        ([None], {}, ValueError, "text must be a string or a list of them, got NoneType"),
        ([b"bytes"], {}, ValueError, "got bytes"),
        ([["a", 3]], {}, ValueError, r"Texts must be strings.*number 1 is '3' \(int\)"),
        ([["a", None]], {}, ValueError, "number 1 is 'None'"),
        (["\ud800"], {}, ValueError, "half of a surrogate pair"),
        ([["a", "b\udcff"]], {}, ValueError, "half of a surrogate pair"),
        ([["a", "b"], ["c"]], {}, ValueError, "one text for each of the 2 of text, got 1 texts"),
        ([["a", "b"], "c"], {}, ValueError, "one text for each of the 2 of text, got one text"),
        (["a", ["b"]], {}, ValueError, "text is one text and text_pair is a list"),
        (["a b"], {"is_split_into_words": True}, ValueError, "wants a list of words, got one string"),
        ([[["a"], "b c"]], {"is_split_into_words": True}, ValueError, "lists of words.*number 1 is 'b c'"),
        (["a"], {"max_len": 3}, TypeError, "max_len"),
    ],
)
def test_wrong_calls(mpnet, arguments, options, error, message):
    with pytest.raises(error, match=message):
        mpnet(*arguments, **options)


# ---------------------------------------------------------------------------------------------------------------------
# Forms of input


def test_pairs_as_tuples(mpnet):
    pairs = [("Hello", "world"), ("a", "b c")]
    assert mpnet(pairs) == mpnet(["Hello", "a"], ["world", "b c"])
    assert mpnet.batch_encode_plus(pairs, padding=True) == mpnet(pairs, padding=True)
    assert mpnet.encode_plus("Hello", "world") == mpnet("Hello", "world")


def test_empty_second_text_is_a_pair_for_one_as_for_many(mpnet):
    assert mpnet("a", "")["input_ids"] == mpnet(["a"], [""])["input_ids"][0] == [0, 1041, 2, 2, 2]


def test_words(mpnet, llama):
    words = ["Hello", "wor ld", "!"]
    encoding = mpnet(words, is_split_into_words=True)
    assert encoding["input_ids"] == mpnet("Hello wor ld !")["input_ids"]
    assert mpnet([words, ["a"]], is_split_into_words=True)["input_ids"] == [
        encoding["input_ids"],
        mpnet("a")["input_ids"],
    ]
    pair = mpnet(words, ["x", "y"], is_split_into_words=True)
    assert pair["input_ids"] == mpnet("Hello wor ld !", "x y")["input_ids"]
    assert mpnet([(words, ["x", "y"])], is_split_into_words=True, max_length=9)["input_ids"][0][-3:] != []
    assert llama.tokenize(["a", "b"], is_split_into_words=True) == ["▁a", "▁b"]


def test_return_values_that_were_asked_for(mpnet):
    full = mpnet(
        "Hello",
        "a b",
        return_token_type_ids=True,
        return_special_tokens_mask=True,
        return_offsets_mapping=True,
        return_length=True,
        return_attention_mask=False,
    )
    assert full == {
        "input_ids": [0, 7596, 2, 2, 1041, 1042, 2],
        "token_type_ids": [0] * 7,
        "special_tokens_mask": [1, 0, 1, 1, 0, 0, 1],
        "offset_mapping": [(0, 0), (0, 5), (0, 0), (0, 0), (0, 1), (2, 3), (0, 0)],
        "length": [7],
    }


def test_model_input_names_set_the_defaults(llama):
    tokenizer = LlamaTokenizer(
        tokenizer_object=llama.backend_tokenizer, model_input_names=["input_ids", "token_type_ids"]
    )
    assert tokenizer("a", "b") == {"input_ids": [1, 263, 1, 289], "token_type_ids": [0, 0, 1, 1]}


TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), st.sampled_from("  \nae.")),
    max_size=30,
)


@given(TEXTS)
@example("  two  spaces ")
@example("\x00\ufeff\u200d🏳️‍🌈")
def test_byte_fallback_decodes_to_the_same_text(llama, text):
    assert llama.decode(llama.encode(text), skip_special_tokens=True) == text


@given(TEXTS)
def test_byte_level_decodes_to_the_same_text(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)) == text


@given(st.lists(TEXTS, max_size=4))
def test_batch_is_the_single_texts(llama, texts):
    singles = [llama(text, return_offsets_mapping=True) for text in texts]
    batch = llama(texts, return_offsets_mapping=True)
    assert batch["input_ids"] == [single["input_ids"] for single in singles]
    assert batch["offset_mapping"] == [single["offset_mapping"] for single in singles]


@given(TEXTS)
def test_offsets_slice_the_text(llama, mpnet, gpt2, text):
    for token, (start, end) in zip(*_located(llama, text), strict=True):
        body = token.replace("▁", " ").strip(" ")
        if body and not token.startswith("<0x") and token not in llama.all_special_tokens:
            assert text[start:end].strip(" ") == body
        elif token.startswith("▁") and start > 0:  # the space that is put in front has no place of its own
            assert text[start:end] == " " * (end - start)
    spans = _located(gpt2, text)[1]
    assert all(start <= end for start, end in spans)
    assert {at for span in spans for at in range(*span)} == set(range(len(text)))
    for token, (start, end) in zip(*_located(mpnet, text), strict=True):
        if token.isascii() and token.isalnum():
            assert text[start:end].casefold().startswith(token[0]) or not text[start:end].isascii()


def _located(tokenizer, text):
    encoding = tokenizer(text, return_offsets_mapping=True)
    return encoding.tokens(), encoding["offset_mapping"]


# ---------------------------------------------------------------------------------------------------------------------
# Texts to be predicted


def test_text_target(mpnet):
    both = mpnet("Hello", text_target="world", padding="max_length", max_length=5)
    assert both == {
        "input_ids": [0, 7596, 2, 1, 1],
        "attention_mask": [1, 1, 1, 0, 0],
        "labels": [0, 2092, 2, 1, 1],
    }
    assert mpnet(text_target=["world"], return_tensors="np")["input_ids"].tolist() == [[0, 2092, 2]]
    assert mpnet("a", text_target="b", text_pair_target="c")["labels"] == mpnet("b", "c")["input_ids"]
    with pytest.raises(ValueError, match="text_target is missing"):
        mpnet("a", text_pair_target="c")
    with pytest.raises(ValueError, match="text must be a string or a list of them, got NoneType"):
        mpnet()
    with pytest.warns(DeprecationWarning, match="text_target"), mpnet.as_target_tokenizer():
        assert mpnet.encode("world") == [0, 2092, 2]
