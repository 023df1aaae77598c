"""SentencePiece models cut text as their own library does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabulary_files import (
    LETTERS,
    SPECIAL,
    cut,
    model_file,
    normal,
)

from tfmodels.tokenization.conversions.sentencepiece import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNUSED,
    USER_DEFINED,
    read_sentencepiece,
    sentencepiece_backend,
)


def test_reads_settings(tmp_path):
    path = model_file(
        tmp_path,
        [*normal(("▁", -1.5)), ("<pad>", 0.0, CONTROL)],
        trainer=((3, BPE), (41, -1), (42, 2), (43, 4)),
        normalizer=((2, b"\x01\x02"), (3, 0), (4, 0)),
    )
    model = read_sentencepiece(path)
    assert model.pieces == [*SPECIAL, ("▁", -1.5, NORMAL), ("<pad>", 0.0, CONTROL)]
    assert model.special_tokens == {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    assert model.charsmap == b"\x01\x02"
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces) == (False, False)


def test_defaults_of_absent_settings(tmp_path):
    model = read_sentencepiece(model_file(tmp_path, normal(("a", -1.0)), ((4, 4),), ((1, b"nfkc"),)))
    assert model.model_type == UNIGRAM
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces) == (True, True)
    assert model.special_tokens == {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def test_merges_follow_scores_not_ids(tmp_path):
    # "bc" has the lower id, "ab" the better score.
    path = model_file(tmp_path, normal(("bc", -2.0), ("ab", -1.0), *LETTERS))
    assert cut(path, "abc") == ["▁", "ab", "c"]
    path = model_file(tmp_path, normal(("bc", -1.0), ("ab", -2.0), *LETTERS))
    assert cut(path, "abc") == ["▁", "a", "bc"]


def test_runs_of_spaces_with_one_score_grow_from_the_left(tmp_path):
    spaces = [("▁" * n, -1e9) for n in (2, 4, 3, 5)]
    path = model_file(tmp_path, normal(*spaces, ("▁a", -1.0), *LETTERS))
    assert cut(path, " " * 6) == ["▁" * 5, "▁" * 2]
    assert cut(path, "  a") == ["▁▁", "▁a"]
    assert cut(path, " " * 7 + "a") == ["▁" * 5, "▁▁", "▁a"]


def test_bytes_and_control_pieces_are_no_merges(tmp_path):
    letters = [(letter, -9.0) for letter in "▁<0x4s>"]
    pieces = [*normal(*letters, ("<0", -1.0)), *[(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]]
    path = model_file(tmp_path, pieces)
    assert cut(path, "<0x44>") == ["▁", "<0", "x", "4", "4", ">"]
    assert cut(path, "é") == ["▁", "<0xC3>", "<0xA9>"]
    assert cut(path, "4<s>4") == ["▁", "4", "<s>", "4"]


def test_unknown_characters_are_one_unknown_token(tmp_path):
    path = model_file(tmp_path, normal(*LETTERS))
    assert cut(path, "aéèb") == ["▁", "a", "<unk>", "b"]


def test_unigram_takes_the_likeliest_path(tmp_path):
    pieces = normal(("▁a", -1.0), ("b", -3.0), ("▁ab", -3.5), ("bc", -1.0), ("c", -3.0), ("▁", -5.0))
    path = model_file(tmp_path, pieces, trainer=((3, UNIGRAM),))
    assert cut(path, "ab") == ["▁ab"]  # -3.5 beats -4
    assert cut(path, "abc") == ["▁a", "bc"]  # -2 beats -6.5


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a  b", ["▁a", "▁", "b"]),
        ("  a b  ", ["▁a", "▁", "b"]),
        ("a", ["▁a"]),
        ("   ", []),
        ("▁a", ["▁", "▁a"]),  # only spaces are extra, not the character that stands for them
        ("a ▁", ["▁a"]),  # but at the end both are
        ("a\n b", ["▁a", "<unk>", "▁", "b"]),
    ],
)
def test_extra_spaces_are_removed_where_the_model_says_so(tmp_path, text, tokens):
    path = model_file(tmp_path, normal(("▁a", -1.0), *LETTERS), normalizer=((1, b"identity"),))
    assert cut(path, text) == tokens


def test_decoding_takes_off_the_space_that_was_added(tmp_path):
    pieces = normal(("▁a", -1.0), *LETTERS)
    for cleaning, text in ((0, " a b"), (1, "a b")):
        path = model_file(tmp_path, pieces, normalizer=((1, b"identity"), (4, cleaning)))
        backend = sentencepiece_backend(read_sentencepiece(path))
        assert backend.decode([backend.token_to_id(piece) for piece in ("▁", "▁a", "▁", "b")]) == text


def test_no_prefix_where_the_model_says_so(tmp_path):
    for cleaning, tokens in ((0, ["▁", "a", "▁", "b"]), (1, ["a", "▁", "b"])):
        path = model_file(tmp_path, normal(*LETTERS), normalizer=((3, 0), (4, cleaning)))
        assert cut(path, "a") == ["a"]
        assert cut(path, " a b") == tokens
        assert cut(path, "a\n b") == ["a", "<unk>", "▁", "b"]


def test_user_defined_pieces_are_found_first(tmp_path):
    pieces = [*normal(("ab", -1.0), *LETTERS), ("bc", 0.0, USER_DEFINED), ("c▁a", 0.0, USER_DEFINED)]
    path = model_file(tmp_path, pieces)
    backend = sentencepiece_backend(read_sentencepiece(path))
    assert backend.encode("abc").tokens == ["▁", "a", "bc"]
    assert backend.encode("ac ab").tokens == ["▁", "a", "c▁a", "b"]
    # they are text, not special
    assert backend.decode(backend.encode("abc").ids, skip_special_tokens=True) == "abc"


@pytest.mark.parametrize(
    ("pieces", "trainer", "normalizer", "problem"),
    [
        (normal(("a", -1.0)), ((3, 4),), ((4, 0),), "model type char"),
        (normal(("a", -1.0)), ((3, 3),), ((4, 0),), "model type word"),
        ([*SPECIAL, ("a", -1.0, UNUSED)], ((3, BPE),), ((4, 0),), "'a'.* marked unused"),
        (normal(("a", -1.0)), ((3, BPE), (24, 1)), ((4, 0),), "suffixes"),
        (normal(("a", -1.0)), ((3, BPE),), ((5, 0),), "unescaped"),
        ([], ((3, BPE),), ((4, 0),), "missing"),
        (normal(("a", -1.0)), (), ((4, 0),), "missing"),
        (normal(("a", -1.0)), ((3, BPE),), (), "missing"),
    ],
)
def test_models_that_cannot_be_used(tmp_path, pieces, trainer, normalizer, problem):
    path = model_file(tmp_path, pieces, trainer, normalizer)
    with pytest.raises(ValueError, match=problem) as error:
        read_sentencepiece(path)
    assert str(path) in str(error.value)


@given(st.data())
def test_files_that_are_cut_off_or_garbage(stories260k, tmp_path_factory, data):
    content = (stories260k / "tokenizer.model").read_bytes()
    # Behind the last 20 bytes at most an optional part is missing.
    broken = data.draw(st.one_of(st.integers(0, len(content) - 20).map(lambda end: content[:end]), st.binary()))
    path = tmp_path_factory.getbasetemp() / "broken.model"
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"broken\.model"):
        read_sentencepiece(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"No vocabulary file at nowhere/tokenizer\.model"):
        read_sentencepiece("nowhere/tokenizer.model")
