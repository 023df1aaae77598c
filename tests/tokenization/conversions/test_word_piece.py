"""WordPiece from vocab.txt."""

from __future__ import annotations

import pytest

from tfmodels.tokenization.conversions.word_piece import word_piece_backend


def test_word_piece_needs_its_unknown_token(tmp_path):
    (tmp_path / "vocab.txt").write_text("<s>\nhello\n##s\n[UNK]\n")
    backend = word_piece_backend(tmp_path / "vocab.txt", "[UNK]")
    assert backend.encode("Hellos bye").ids == [1, 2, 3]
    with pytest.raises(ValueError, match="does not have the unknown token '<unk>'"):
        word_piece_backend(tmp_path / "vocab.txt", "<unk>")


def test_text_that_is_no_utf8(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        word_piece_backend(tmp_path / "vocab.txt", "[UNK]")
