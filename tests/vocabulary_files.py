"""Small vocabulary files of every format, made for a test."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

from tokenizers import Tokenizer

from tfmodels.tokenization.conversions.sentencepiece import (
    BPE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    SentencePieceModel,
    read_sentencepiece,
    sentencepiece_backend,
)

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
    return sentencepiece_backend(read_sentencepiece(path)).encode(text).tokens


LETTERS = [("▁", -90.0), ("a", -91.0), ("b", -92.0), ("c", -93.0)]


def tiktoken_file(folder: Path, merged: list[bytes]) -> Path:
    tokens = [bytes([byte]) for byte in range(256)] + merged
    path = folder / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens)))
    return path


def byte_level_files(folder: Path, vocabulary: object, merges: str) -> tuple[Path, Path]:
    (folder / "vocab.json").write_text(vocabulary if isinstance(vocabulary, str) else json.dumps(vocabulary))
    (folder / "merges.txt").write_text(merges)
    return folder / "vocab.json", folder / "merges.txt"


def tiny_sentencepiece() -> Tokenizer:
    model = SentencePieceModel(normal(("▁a", -1.0), ("▁b", -2.0), *LETTERS), BPE, remove_extra_whitespaces=False)
    return sentencepiece_backend(model)
