"""Vocabulary files become backends that cut text as their own library does."""

from __future__ import annotations

import base64
import json
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from tfmodels.tokenization import convert
from tfmodels.tokenization.convert import BPE, BYTE, CONTROL, NORMAL, UNIGRAM, UNKNOWN, UNUSED, USER_DEFINED

SPECIAL = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def message(*fields: tuple[int, int | float | bytes]) -> bytes:
    """A protobuf message of (number, value) fields."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def model_file(folder: Path, pieces, trainer=((3, BPE),), normalizer=((1, b"identity"), (4, 0))) -> Path:
    """A SentencePiece model file; field numbers are those of sentencepiece_model.proto."""
    fields = []
    for text, score, kind in pieces:
        piece = [(1, text.encode()), (2, float(score))] + ([] if kind == NORMAL else [(3, kind)])
        fields.append((1, message(*piece)))
    fields += [(2, message(*trainer)), (3, message(*normalizer))]
    path = folder / "tokenizer.model"
    path.write_bytes(message(*fields))
    return path


def normal(*texts_and_scores: tuple[str, float]) -> list[tuple[str, float, int]]:
    return SPECIAL + [(text, score, NORMAL) for text, score in texts_and_scores]


def cut(path: Path, text: str) -> list[str]:
    return convert.sentencepiece_backend(convert.read_sentencepiece(path)).encode(text).tokens


LETTERS = [("▁", -90.0), ("a", -91.0), ("b", -92.0), ("c", -93.0)]


def test_reads_settings(tmp_path):
    path = model_file(
        tmp_path,
        [*normal(("▁", -1.5)), ("<pad>", 0.0, CONTROL)],
        trainer=((3, BPE), (41, -1), (42, 2), (43, 4)),
        normalizer=((2, b"\x01\x02"), (3, 0), (4, 0)),
    )
    model = convert.read_sentencepiece(path)
    assert model.pieces == [*SPECIAL, ("▁", -1.5, NORMAL), ("<pad>", 0.0, CONTROL)]
    assert model.special_tokens == {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    assert model.charsmap == b"\x01\x02"
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces) == (False, False)


def test_defaults_of_absent_settings(tmp_path):
    model = convert.read_sentencepiece(model_file(tmp_path, normal(("a", -1.0)), ((4, 4),), ((1, b"nfkc"),)))
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
        backend = convert.sentencepiece_backend(convert.read_sentencepiece(path))
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
    backend = convert.sentencepiece_backend(convert.read_sentencepiece(path))
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
        convert.read_sentencepiece(path)
    assert str(path) in str(error.value)


@given(st.data())
def test_files_that_are_cut_off_or_garbage(stories260k, tmp_path_factory, data):
    content = (stories260k / "tokenizer.model").read_bytes()
    # Behind the last 20 bytes at most an optional part is missing.
    broken = data.draw(st.one_of(st.integers(0, len(content) - 20).map(lambda end: content[:end]), st.binary()))
    path = tmp_path_factory.getbasetemp() / "broken.model"
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"broken\.model"):
        convert.read_sentencepiece(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"No vocabulary file at nowhere/tokenizer\.model"):
        convert.read_sentencepiece("nowhere/tokenizer.model")


def test_large_model_converts_quickly(vocabularies):
    path = vocabularies / "llama" / "tokenizer.model"
    start = time.process_time()
    backend, special = convert.model_file_backend(path, {})
    assert time.process_time() - start < 2
    assert backend.get_vocab_size() == 32000
    assert special == {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


# ---------------------------------------------------------------------------------------------------------------------
# tiktoken


def tiktoken_file(folder: Path, merged: list[bytes]) -> Path:
    tokens = [bytes([byte]) for byte in range(256)] + merged
    path = folder / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens)))
    return path


def test_tiktoken_merges_by_rank(tmp_path):
    backend = convert.tiktoken_backend(tiktoken_file(tmp_path, [b"bc", b"ab", b"cd", b"abcd"]))
    assert backend.encode("abc").ids == [ord("a"), 256]
    assert backend.encode("ab").ids == [257]
    # No merges lead to "abcd", as "bc" goes first; but a word that is one token is taken whole.
    assert backend.encode("abcd").ids == [259]
    assert backend.encode("abcda").ids == [ord("a"), 256, ord("d"), ord("a")]
    assert backend.decode(backend.encode("x abc é").ids) == "x abc é"


def test_tiktoken_cuts_digits_and_words_as_llama3(tmp_path):
    backend = convert.tiktoken_backend(tiktoken_file(tmp_path, []))
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("It's 12345  x!\n")]
    assert pieces == ["It", "'s", "Ġ", "123", "45", "Ġ", "Ġx", "!Ċ"]


def test_tiktoken_special_tokens(tmp_path):
    path = tiktoken_file(tmp_path, [b"ab"])
    backend, special = convert.model_file_backend(path, {})
    assert backend.get_vocab_size() == 257 + 256
    assert special == {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    named = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 9: "eot_id", 10: "python_tag"}
    reserved = {2: "reserved_special_token_0", 5: "reserved_special_token_2", 255: "reserved_special_token_247"}
    for offset, name in (named | reserved).items():
        assert backend.token_to_id(f"<|{name}|>") == 257 + offset
    own, _ = convert.model_file_backend(path, {257: AddedToken("<|mine|>", special=True, normalized=False)})
    assert own.get_vocab_size() == 258
    assert own.encode("ab<|mine|>").ids == [256, 257]


def test_tiktoken_broken_line(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_text("YQ== 0\nYg== one\n")
    with pytest.raises(ValueError, match="line 2: expected base64 bytes and a rank"):
        convert.model_file_backend(path, {})


# ---------------------------------------------------------------------------------------------------------------------
# Byte-level BPE and WordPiece


def test_byte_characters_are_the_alphabet_of_the_library():
    assert set(convert.byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert [convert.byte_characters()[byte] for byte in b"\n\x00~\xad"] == ["Ċ", "Ā", "~", "Ń"]


def byte_level_files(folder: Path, vocabulary: object, merges: str) -> tuple[Path, Path]:
    (folder / "vocab.json").write_text(vocabulary if isinstance(vocabulary, str) else json.dumps(vocabulary))
    (folder / "merges.txt").write_text(merges)
    return folder / "vocab.json", folder / "merges.txt"


def test_byte_level_backend(tmp_path):
    vocabulary = {"a": 0, "#": 1, "##": 2, "Ġ": 3, "Ġa": 4}
    backend = convert.byte_level_backend(*byte_level_files(tmp_path, vocabulary, "#version: 0.2\n# #\nĠ a\n"))
    assert backend.encode("a## a").tokens == ["a", "##", "Ġa"]


@pytest.mark.parametrize(
    ("vocabulary", "merges", "problem"),
    [
        ("{", "", "vocab.json is not valid JSON"),
        ("[]", "", "holds a JSON list"),
        ({"a": 0}, "a b c\n", "merges.txt: a merge is two tokens .* 'a b c'"),
        ({"a": 0}, "a b\n", "do not fit together"),
    ],
)
def test_byte_level_files_that_cannot_be_used(tmp_path, vocabulary, merges, problem):
    with pytest.raises(ValueError, match=problem):
        convert.byte_level_backend(*byte_level_files(tmp_path, vocabulary, merges))


def test_word_piece_needs_its_unknown_token(tmp_path):
    (tmp_path / "vocab.txt").write_text("<s>\nhello\n##s\n[UNK]\n")
    backend = convert.word_piece_backend(tmp_path / "vocab.txt", "[UNK]")
    assert backend.encode("Hellos bye").ids == [1, 2, 3]
    with pytest.raises(ValueError, match="does not have the unknown token '<unk>'"):
        convert.word_piece_backend(tmp_path / "vocab.txt", "<unk>")


def test_text_that_is_no_utf8(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        convert.word_piece_backend(tmp_path / "vocab.txt", "[UNK]")


# ---------------------------------------------------------------------------------------------------------------------
# Changing a backend


def tiny_sentencepiece() -> Tokenizer:
    model = convert.SentencePieceModel(
        normal(("▁a", -1.0), ("▁b", -2.0), *LETTERS), BPE, remove_extra_whitespaces=False
    )
    return convert.sentencepiece_backend(model)


def test_space_behind_special_tokens():
    backend = tiny_sentencepiece()
    assert backend.encode("a</s>b").tokens == ["▁a", "</s>", "b"]
    assert backend.encode("</s>b").tokens == ["</s>", "b"]
    convert.configure(backend, legacy=True)
    assert backend.encode("a</s>b").tokens == ["▁a", "</s>", "▁b"]
    assert backend.encode(" a</s> b").tokens == ["▁", "▁a", "</s>", "▁", "▁b"]
    convert.configure(backend, legacy=False)
    assert backend.encode("a</s>b").tokens == ["▁a", "</s>", "b"]


@pytest.mark.parametrize("legacy", [False, True])
def test_prefix_space_off_and_on(legacy):
    backend = tiny_sentencepiece()
    convert.configure(backend, legacy=legacy, add_prefix_space=False)
    assert backend.encode("a b").tokens == ["a", "▁b"]
    assert backend.decode(backend.encode(" a b").ids) == " a b"
    convert.configure(backend, legacy=legacy, add_prefix_space=True)
    assert backend.encode("a b").tokens == ["▁a", "▁b"]
    assert backend.decode(backend.encode(" a b").ids) == " a b"


@pytest.mark.parametrize(
    ("scheme", "legacy"),
    [("always", True), ("first", False)],
)
def test_spaces_of_other_pipelines_are_understood(scheme, legacy):
    # As transformers writes them; an unrelated change keeps what they do behind special tokens.
    backend = tiny_sentencepiece()
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    convert.configure(backend, add_prefix_space=True)
    assert backend.encode("a</s>b").tokens == ["▁a", "</s>", "▁b" if legacy else "b"]
    assert backend.encode(" a").tokens == ["▁", "▁a"]


def test_prefix_space_of_byte_level(tmp_path):
    vocabulary = {letter: index for index, letter in enumerate(["a", "b", "Ġ", "Ġa", "Ġb"])}
    backend = convert.byte_level_backend(*byte_level_files(tmp_path, vocabulary, "Ġ a\nĠ b\n"))
    convert.configure(backend, add_prefix_space=True, trim_offsets=True)
    encoding = backend.encode("a b")
    assert encoding.tokens == ["Ġa", "Ġb"]
    assert encoding.offsets == [(0, 1), (2, 3)]
    convert.configure(backend, trim_offsets=False)
    assert backend.encode("a b").offsets == [(0, 1), (1, 3)]
    convert.configure(backend, add_prefix_space=False)
    assert backend.encode("a b").tokens == ["a", "Ġb"]


def test_options_without_effect_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do_lower_case=False has nothing to act on"):
        convert.configure(tiny_sentencepiece(), do_lower_case=False)
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="this one cuts text by Whitespace"):
        convert.configure(words, legacy=True)


def test_template_keeps_byte_level_offsets(tmp_path):
    vocabulary = {letter: index for index, letter in enumerate(["a", "b", "Ġ", "Ġb", "<s>"])}
    backend = convert.byte_level_backend(*byte_level_files(tmp_path, vocabulary, "Ġ b\n"), nfc=True)
    convert.set_template(backend, "<s>", None)
    encoding = backend.encode("a b", "b")
    assert encoding.tokens == ["<s>", "a", "Ġb", "<s>", "b"]
    assert encoding.type_ids == [0, 0, 0, 1, 1]
    assert encoding.offsets == [(0, 0), (0, 1), (2, 3), (0, 0), (0, 1)]
    convert.set_template(backend, None, "<s>")
    assert backend.encode("a b").tokens == ["a", "Ġb", "<s>"]
    convert.set_template(backend, None, None)
    assert backend.encode("a b").tokens == ["a", "Ġb"]


def test_template_errors():
    backend = tiny_sentencepiece()
    with pytest.raises(ValueError, match="'<bos>', to be added to every text, is not in the vocabulary"):
        convert.set_template(backend, "<bos>", None)
    backend.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    with pytest.raises(ValueError, match="cannot change this tokenizer's BertProcessing"):
        convert.set_template(backend, "<s>", None)


@pytest.mark.parametrize(
    ("processor", "single", "pair"),
    [
        (None, ([], [], []), ([], [], [])),
        (processors.BertProcessing(("</s>", 2), ("<s>", 1)), ([1], [], [2]), ([1], [2], [2])),
        (processors.RobertaProcessing(("</s>", 2), ("<s>", 1)), ([1], [], [2]), ([1], [2, 2], [2])),
        (
            processors.TemplateProcessing("$A </s>", "<s> $A </s> $B", [("<s>", 1), ("</s>", 2)]),
            ([], [], [2]),
            ([1], [2], []),
        ),
    ],
)
def test_special_frame(processor, single, pair):
    backend = tiny_sentencepiece()
    if processor is not None:
        backend.post_processor = processor
    assert convert.special_frame(backend, pair=False) == single
    assert convert.special_frame(backend, pair=True) == pair
