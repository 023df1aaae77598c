"""SentencePiece `tokenizer.model` files (BPE and Unigram)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers

from tfmodels.tokenization.conversions.merges import merges_of
from tfmodels.tokenization.conversions.reading import read_bytes
from tfmodels.tokenization.pipeline import SPACE, SPACE_RUN, TRAILING_SPACES, set_sentencepiece_spaces
from tfmodels.utils.text import quote, shorten

# `SentencePiece.Type` and `TrainerSpec.ModelType` of sentencepiece_model.proto
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE, WORD, CHAR = 1, 2, 3, 4


@dataclass(frozen=True)
class SentencePieceModel:
    """The settings of a SentencePiece model file that say how text is cut.

    Args:
        pieces: (text, score, type) per id.
        model_type: UNIGRAM or BPE.
        special_tokens: piece by role ("unk_token", "bos_token", "eos_token", "pad_token"), those that exist.
        charsmap: compiled character normalisation rules, empty for identity.
        add_dummy_prefix: whether a space is put before the text.
        remove_extra_whitespaces: whether spaces are stripped at both ends and runs of them made one.
    """

    pieces: list[tuple[str, float, int]]
    model_type: int = UNIGRAM
    special_tokens: dict[str, str] = field(default_factory=dict)
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


_MAX_VARINT = 10  # bytes of a 64-bit number


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The protobuf varint at `at` and the position after it."""
    value = shift = 0
    for _ in range(_MAX_VARINT):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f"a number of more than {_MAX_VARINT} bytes at byte {at - _MAX_VARINT}")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) pairs of a protobuf message: int for varints, bytes for everything else."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        else:
            if kind == 2:
                size, at = _varint(data, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise ValueError(f"wire type {kind} at byte {at}")
            if at + size > end:
                raise ValueError(f"a field of {size} bytes at byte {at} of {end}")
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def read_sentencepiece(path: str | Path) -> SentencePieceModel:
    """Read a SentencePiece model file.

    Args:
        path: a `tokenizer.model` (serialised `ModelProto` of sentencepiece_model.proto).

    Returns:
        The pieces and the settings that matter for cutting text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such model, is cut off, or uses a setting that is not supported.

    Example:
        >>> read_sentencepiece("/nowhere/tokenizer.model")
        Traceback (most recent call last):
        FileNotFoundError: No vocabulary file at /nowhere/tokenizer.model.
    """
    data = read_bytes(path)
    try:
        return _parse_sentencepiece(data)
    except (ValueError, IndexError, struct.error, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a SentencePiece model that can be used, or it is cut off: {shorten(error)}"
        ) from error


def _parse_sentencepiece(data: bytes) -> SentencePieceModel:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            text, score, kind = "", 0.0, NORMAL
            for part, content in _fields(value):
                if part == 1:
                    text = content.decode("utf-8")
                elif part == 2:
                    (score,) = struct.unpack("<f", content)
                elif part == 3:
                    kind = content
            if kind == UNUSED:
                raise ValueError(f"piece {len(pieces)} ({quote(text)}) is marked unused, which is not supported")
            pieces.append((text, score, kind))
        elif number == 2:
            trainer.update(_fields(value))
        elif number == 3:
            normalizer.update(_fields(value))
    if not (pieces and trainer and normalizer):  # in this order in the file, so this also finds files that are cut off
        raise ValueError("pieces, trainer_spec or normalizer_spec is missing")
    model_type = trainer.get(3, UNIGRAM)
    if model_type not in (UNIGRAM, BPE):
        raise ValueError(f"model type {({WORD: 'word', CHAR: 'char'}).get(model_type, model_type)} is not supported")
    if trainer.get(24, 0) or not normalizer.get(5, 1):
        raise ValueError("spaces as suffixes (treat_whitespace_as_suffix) or unescaped spaces are not supported")
    charsmap = bytes(normalizer.get(2, b""))
    # It begins with the size of a table, for which the library makes room before it looks whether it is there.
    if len(charsmap) >= 4 and int.from_bytes(charsmap[:4], "little") > len(charsmap) - 4:
        raise ValueError("its normalisation rules (precompiled_charsmap) are cut off")
    return SentencePieceModel(
        pieces=pieces,
        model_type=model_type,
        special_tokens=dict(_special_pieces(pieces, trainer)),
        charsmap=charsmap,
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def _special_pieces(pieces: list[tuple[str, float, int]], trainer: dict[int, Any]) -> Iterator[tuple[str, str]]:
    roles = (("unk_token", 40, 0), ("bos_token", 41, 1), ("eos_token", 42, 2), ("pad_token", 43, -1))
    for role, number, default in roles:
        index = trainer.get(number, default)  # absent tokens have id -1, which as a varint is 2**64 - 1
        if 0 <= index < len(pieces) and pieces[index][2] in (UNKNOWN, CONTROL):
            yield role, pieces[index][0]


def sentencepiece_backend(model: SentencePieceModel) -> Tokenizer:
    """Build the backend that cuts text as SentencePiece does with this model.

    BPE merges come from the scores: every way to put a piece together from two others is a merge, best score first,
    which is how SentencePiece picks (Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226). Of equal scores
    SentencePiece takes the leftmost; here the longer piece goes first, which is the same for Llama's runs of spaces:
    they all have one score and grow from the left.

    Control and user-defined pieces become added tokens, so that they are found in the text.
    """
    ids = {text: index for index, (text, _, _) in enumerate(model.pieces)}
    byte_fallback = any(kind == BYTE for _, _, kind in model.pieces)
    unknown = next((index for index, (_, _, kind) in enumerate(model.pieces) if kind == UNKNOWN), None)
    if model.model_type == UNIGRAM:
        vocabulary = [(text, score) for text, score, _ in model.pieces]
        backend = Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=byte_fallback))
    else:
        # Bytes and control pieces are never the result of a merge, even where the text spells them out.
        normal = [(text, score) for text, score, kind in model.pieces if kind == NORMAL]
        normal.sort(key=lambda piece: (-piece[1], -len(piece[0])))
        parts = {text for text, _ in normal}
        merges = list(merges_of((text for text, _ in normal), parts))
        backend = Tokenizer(
            models.BPE(
                vocab=ids,
                merges=merges,
                unk_token=None if unknown is None else model.pieces[unknown][0],
                fuse_unk=True,
                byte_fallback=byte_fallback,
            )
        )
    cleaning = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        cleaning += [normalizers.Replace(Regex(TRAILING_SPACES), ""), normalizers.Replace(Regex(SPACE_RUN), " ")]
    backend.normalizer = normalizers.Sequence(cleaning)
    set_sentencepiece_spaces(backend, legacy=False, add_prefix_space=model.add_dummy_prefix)
    special = [text for text, _, kind in model.pieces if kind in (UNKNOWN, CONTROL)]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    defined = [text for text, _, kind in model.pieces if kind == USER_DEFINED]
    # A piece with spaces in it can only be found after they have been replaced.
    backend.add_tokens([AddedToken(text, normalized=SPACE in text) for text in defined])
    return backend
