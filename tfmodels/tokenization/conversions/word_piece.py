"""WordPiece: `vocab.txt` as BERT and MPNet have it."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tfmodels.tokenization.conversions.reading import library_errors, read_text
from tfmodels.utils.text import quote


def word_piece_backend(vocab_file: str | Path, unk_token: str) -> Tokenizer:
    """Build a WordPiece backend with BERT's normalisation (Devlin et al. 2019) from `vocab.txt`.

    Args:
        vocab_file: one token a line; the line number is the id.
        unk_token: what words stand for that cannot be put together.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the unknown token is not in the file.
    """
    tokens = read_text(vocab_file).removesuffix("\n").split("\n")
    vocabulary = {token.rstrip("\r"): index for index, token in enumerate(tokens)}
    if unk_token not in vocabulary:
        raise ValueError(
            f"{vocab_file} does not have the unknown token {quote(unk_token)}; name the one it has as unk_token."
        )
    with library_errors(f"{vocab_file} is not a vocabulary that can be used"):
        backend = Tokenizer(models.WordPiece(vocabulary, unk_token=unk_token))
    return word_piece_steps(backend)


def word_piece_steps(backend: Tokenizer) -> Tokenizer:
    """Give a WordPiece backend BERT's steps around its model."""
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend
