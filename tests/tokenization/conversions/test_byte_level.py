"""Byte-level BPE from vocab.json and merges.txt."""

from __future__ import annotations

import pytest
from tokenizers import pre_tokenizers
from vocabulary_files import (
    byte_level_files,
)

from tfmodels.tokenization.conversions.byte_level import QWEN2_PATTERN, byte_characters, byte_level_backend


def test_byte_characters_are_the_alphabet_of_the_library():
    assert set(byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert [byte_characters()[byte] for byte in b"\n\x00~\xad"] == ["Ċ", "Ā", "~", "Ń"]


def test_byte_level_backend(tmp_path):
    vocabulary = {"a": 0, "#": 1, "##": 2, "Ġ": 3, "Ġa": 4}
    backend = byte_level_backend(*byte_level_files(tmp_path, vocabulary, "#version: 0.2\n# #\nĠ a\n"))
    assert backend.encode("a## a").tokens == ["a", "##", "Ġa"]


def test_offsets_of_each_kind(tmp_path):
    files = byte_level_files(tmp_path, {"a": 0, "Ġ": 1, "Ġa": 2}, "Ġ a\n")
    # transformers 4.57 and 5.24.
    qwen = byte_level_backend(*files, nfc=True, pattern=QWEN2_PATTERN)
    assert qwen.encode("a a").offsets == byte_level_backend(*files).encode("a a").offsets == [(0, 1), (1, 3)]
    assert byte_level_backend(*files, nfc=True).encode("a a").offsets == [(0, 1), (1, 3)]


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
        byte_level_backend(*byte_level_files(tmp_path, vocabulary, merges))
