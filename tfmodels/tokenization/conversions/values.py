"""Backends from vocabularies and merges that are values of Python instead of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer, models, normalizers

from tfmodels.tokenization.conversions.byte_level import byte_level_steps
from tfmodels.tokenization.conversions.merges import merges_of
from tfmodels.tokenization.conversions.reading import read_text
from tfmodels.tokenization.conversions.word_piece import word_piece_steps
from tfmodels.tokenization.pipeline import set_sentencepiece_spaces
from tfmodels.utils.text import quote


def spaced_bpe_backend(vocab: Any, merges: Any) -> Tokenizer:
    """BPE over text whose spaces are written as SentencePiece writes them, with bytes for unknown characters."""
    vocab = _vocabulary(vocab)
    unknown = "<unk>" if "<unk>" in vocab else None
    backend = Tokenizer(_bpe(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback="<0x00>" in vocab))
    backend.normalizer = normalizers.Sequence([])
    set_sentencepiece_spaces(backend, legacy=False, add_prefix_space=True)
    return backend


def byte_level_values(vocab: Any, merges: Any, *, nfc: bool, pattern: str | None = None) -> Tokenizer:
    """Byte-level BPE; arguments as for `PreTrainedTokenizerFast` and `byte_level_backend`."""
    return byte_level_steps(Tokenizer(_bpe(_vocabulary(vocab), merges)), nfc=nfc, pattern=pattern)


def word_piece_values(vocab: Any, unk_token: str) -> Tokenizer:
    """WordPiece with BERT's normalisation."""
    vocab = _vocabulary(vocab)
    if unk_token not in vocab:
        raise ValueError(
            f"vocab does not have the unknown token {quote(unk_token)}; name the one it has as unk_token."
        )
    return word_piece_steps(Tokenizer(models.WordPiece(vocab, unk_token=unk_token)))


def _vocabulary(vocab: Any) -> dict[str, int]:
    if isinstance(vocab, (list, tuple)) and all(isinstance(token, str) for token in vocab):
        vocab = {token: index for index, token in enumerate(vocab)}
    if not isinstance(vocab, Mapping) or not all(
        isinstance(token, str) and isinstance(index, int) and 0 <= index < 2**31 for token, index in vocab.items()
    ):
        raise ValueError(f"vocab must be ids by token, a list of tokens, or the path of a file; got {quote(vocab)}.")
    return dict(vocab)


def _bpe(vocab: dict[str, int], merges: Any, **options: Any) -> models.BPE:
    if merges is None:
        merges = list(merges_of(sorted(vocab, key=vocab.__getitem__), vocab))
    elif isinstance(merges, str) or hasattr(merges, "__fspath__"):
        lines = read_text(merges).split("\n")
        merges = [line for line in lines if line.strip() and not line.startswith("#version")]
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    try:
        return models.BPE(vocab=vocab, merges=pairs, **options)
    except Exception as error:  # the library raises plain Exception, or TypeError for a merge that is no pair
        raise ValueError(f"vocab and merges do not fit together: {quote(str(error))}.") from error
