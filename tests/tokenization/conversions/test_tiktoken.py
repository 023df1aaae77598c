"""tiktoken vocabularies cut text as Llama 3's own tokenizer does."""

from __future__ import annotations

from vocabulary_files import (
    tiktoken_file,
)

from tfmodels.tokenization.conversions.tiktoken import tiktoken_backend


def test_tiktoken_merges_by_rank(tmp_path):
    backend = tiktoken_backend(tiktoken_file(tmp_path, [b"bc", b"ab", b"cd", b"abcd"]))
    assert backend.encode("abc").ids == [ord("a"), 256]
    assert backend.encode("ab").ids == [257]
    # No merges lead to "abcd", as "bc" goes first; but a word that is one token is taken whole.
    assert backend.encode("abcd").ids == [259]
    assert backend.encode("abcda").ids == [ord("a"), 256, ord("d"), ord("a")]
    assert backend.decode(backend.encode("x abc é").ids) == "x abc é"


def test_tiktoken_cuts_digits_and_words_as_llama3(tmp_path):
    backend = tiktoken_backend(tiktoken_file(tmp_path, []))
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("It's 12345  x!\n")]
    assert pieces == ["It", "'s", "Ġ", "123", "45", "Ġ", "Ġx", "!Ċ"]
