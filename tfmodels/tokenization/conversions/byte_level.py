"""Byte-level BPE: `vocab.json` with `merges.txt` as GPT-2 has them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tfmodels.tokenization.conversions.reading import check_ids, library_errors, read_json, read_text
from tfmodels.utils.text import quote


def byte_characters() -> list[str]:
    """The printable character that stands for each of the 256 bytes in byte-level BPE vocabularies.

    The table of GPT-2 (Radford et al. 2019): printable Latin-1 characters stand for themselves, the rest follow from
    U+0100.

    Example:
        >>> byte_characters()[ord("A")], byte_characters()[ord(" ")]
        ('A', 'Ġ')
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def byte_level_backend(vocab_file: str | Path, merges_file: str | Path, *, nfc: bool = False) -> Tokenizer:
    """Build a byte-level BPE backend (GPT-2's) from `vocab.json` and `merges.txt`.

    Args:
        vocab_file: JSON object, token -> id.
        merges_file: one merge a line, "left right", best first; a first line "#version..." is skipped.
        nfc: compose characters first, as GPT-NeoX does.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: one of the files cannot be used.
    """
    vocabulary = read_json(vocab_file)
    check_ids(vocab_file, vocabulary)
    lines = read_text(merges_file).split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    wrong = next((merge for merge in merges if len(merge) != 2), None)
    if wrong is not None:
        got = quote(" ".join(wrong))
        raise ValueError(f"{merges_file}: a merge is two tokens with a space between them, got {got}.")
    with library_errors(f"{vocab_file} and {merges_file} do not fit together"):
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    return byte_level_steps(backend, nfc=nfc)


def byte_level_steps(backend: Tokenizer, *, nfc: bool) -> Tokenizer:
    """Give a BPE backend the steps around its model that make it byte-level; `nfc` as above."""
    if nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=nfc, add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend
