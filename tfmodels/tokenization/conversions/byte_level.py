"""Byte-level BPE: `vocab.json` with `merges.txt` as GPT-2 has them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tfmodels.tokenization.conversions.reading import check_ids, library_errors, read_json, read_text
from tfmodels.utils.text import quote

# Of tokenizer.json in the Qwen 2 and 3 checkpoints.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


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


def byte_level_backend(
    vocab_file: str | Path, merges_file: str | Path, *, nfc: bool = False, pattern: str | None = None
) -> Tokenizer:
    """Build a byte-level BPE backend (GPT-2's) from `vocab.json` and `merges.txt`.

    Args:
        vocab_file: JSON object, token -> id.
        merges_file: one merge a line, "left right", best first; a first line "#version..." is skipped.
        nfc: compose characters first, as GPT-NeoX does.
        pattern: regular expression of the pieces that text is cut into before merging; None for GPT-2's.

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
    return byte_level_steps(backend, nfc=nfc, pattern=pattern)


def byte_level_steps(backend: Tokenizer, *, nfc: bool, pattern: str | None = None) -> Tokenizer:
    """Give a BPE backend the steps around its model that make it byte-level; `nfc` and `pattern` as above."""
    if nfc:
        backend.normalizer = normalizers.NFC()
    if pattern is None:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    backend.post_processor = processors.ByteLevel(trim_offsets=False, add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend
