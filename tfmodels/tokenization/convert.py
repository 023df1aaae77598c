"""Builds `tokenizers` backends from vocabulary files, and changes how a backend treats spaces, case and offsets.

Files read here: SentencePiece `tokenizer.model` (BPE and Unigram), tiktoken-style `tokenizer.model` (Llama 3),
`vocab.json` with `merges.txt` (byte-level BPE), `vocab.txt` (WordPiece). Neither the sentencepiece nor the protobuf
package is needed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tfmodels.utils.json_files import parse_object

SPACE = "▁"  # SentencePiece writes spaces as U+2581
SPACE_RUN, LEADING_SPACES, TRAILING_SPACES = " {2,}", r"\A +", rf"[ {SPACE}]+\z"

# `SentencePiece.Type` and `TrainerSpec.ModelType` of sentencepiece_model.proto
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE, WORD, CHAR = 1, 2, 3, 4

# How Llama 3's reference tokenizer cuts text before merging bytes.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_NAMED = {
    0: "begin_of_text",
    1: "end_of_text",
    4: "finetune_right_pad_id",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
    10: "python_tag",
}
LLAMA3_SPECIAL_TOKENS = 256


# ---------------------------------------------------------------------------------------------------------------------
# SentencePiece


@dataclass(frozen=True)
class SentencePieceModel:
    """What a SentencePiece model file says about cutting text.

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


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The protobuf varint at `at` and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


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
    data = _read_bytes(path)
    try:
        return _parse_sentencepiece(data)
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise ValueError(f"{path} is not a SentencePiece model that can be used, or it is cut off: {error}") from error


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
                raise ValueError(f"piece {len(pieces)} ({text!r}) is marked unused, which is not supported")
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
    return SentencePieceModel(
        pieces=pieces,
        model_type=model_type,
        special_tokens=dict(_special_pieces(pieces, trainer)),
        charsmap=bytes(normalizer.get(2, b"")),
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
        merges = list(_merges((text for text, _ in normal), parts))
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
    _set_sentencepiece_spaces(backend, legacy=False, add_prefix_space=model.add_dummy_prefix)
    special = [text for text, _, kind in model.pieces if kind in (UNKNOWN, CONTROL)]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    defined = [text for text, _, kind in model.pieces if kind == USER_DEFINED]
    # A piece with spaces in it can only be found after they have been replaced.
    backend.add_tokens([AddedToken(text, normalized=SPACE in text) for text in defined])
    return backend


def _merges(pieces: Iterable[Any], parts: Any) -> Iterator[tuple[Any, Any]]:
    """All (left, right) with both in `parts` that make up each piece, in the order of the pieces."""
    for piece in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in parts and right in parts:
                yield left, right


# ---------------------------------------------------------------------------------------------------------------------
# Byte-level BPE and WordPiece


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
    lines = _read_text(merges_file).split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    wrong = next((merge for merge in merges if len(merge) != 2), None)
    if wrong is not None:
        raise ValueError(f"{merges_file}: a merge is two tokens with a space between them, got {' '.join(wrong)!r}.")
    try:
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{vocab_file} and {merges_file} do not fit together: {error}") from error
    if nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=nfc, add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def tiktoken_backend(path: str | Path, special_tokens: Mapping[int, AddedToken] | None = None) -> Tokenizer:
    """Build a byte-level BPE backend from a tiktoken file such as Llama 3's `tokenizer.model`.

    Args:
        path: lines of base64 token bytes and rank; ranks are ids and the order of merging.
        special_tokens: by id. Default: the 256 of Llama 3.1 behind the vocabulary (those of Llama 3 have the same
            ids).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no tiktoken vocabulary.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(_read_bytes(path).splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"{path}, line {number}: expected base64 bytes and a rank, got {line[:60]!r}.") from error
    letters = byte_characters()

    def spell(token: bytes) -> str:
        return "".join([letters[byte] for byte in token])

    merges = [(spell(left), spell(right)) for left, right in _merges(sorted(ranks, key=ranks.__getitem__), ranks)]
    # A word that is one token is taken whole, whether or not merges lead to it.
    model = models.BPE(vocab={spell(token): rank for token, rank in ranks.items()}, merges=merges, ignore_merges=True)
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    special = special_tokens or _llama3_special_tokens(max(ranks.values()) + 1)
    backend.add_special_tokens([special[index] for index in sorted(special)])
    return backend


def _llama3_special_tokens(first: int) -> dict[int, AddedToken]:
    tokens, reserved = {}, 0
    for offset in range(LLAMA3_SPECIAL_TOKENS):
        name = _LLAMA3_NAMED.get(offset)
        if name is None:
            name, reserved = f"reserved_special_token_{reserved}", reserved + 1
        tokens[first + offset] = AddedToken(f"<|{name}|>", special=True, normalized=False)
    return tokens


def model_file_backend(
    path: str | Path, added_tokens: Mapping[int, AddedToken]
) -> tuple[Tokenizer, dict[str, str | AddedToken]]:
    """Build a backend from a `tokenizer.model`, whichever of the two formats of that name it has.

    Args:
        path: the file.
        added_tokens: tokens by id that a tiktoken vocabulary gets, as its file does not hold them; none for Llama
            3.1's.

    Returns:
        The backend, and the special token of each role ("bos_token", ...) that the file implies.
    """
    if re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n", _read_bytes(path)):
        roles = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
        return tiktoken_backend(path, added_tokens), roles
    model = read_sentencepiece(path)
    return sentencepiece_backend(model), dict(model.special_tokens)


def word_piece_backend(vocab_file: str | Path, unk_token: str) -> Tokenizer:
    """Build a WordPiece backend with BERT's normalisation (Devlin et al. 2019) from `vocab.txt`.

    Args:
        vocab_file: one token a line; the line number is the id.
        unk_token: what words stand for that cannot be put together.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the unknown token is not in the file.
    """
    tokens = _read_text(vocab_file).removesuffix("\n").split("\n")
    vocabulary = {token.rstrip("\r"): index for index, token in enumerate(tokens)}
    if unk_token not in vocabulary:
        raise ValueError(
            f"{vocab_file} does not have the unknown token {unk_token!r}; name the one it has as unk_token."
        )
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=unk_token))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


# ---------------------------------------------------------------------------------------------------------------------
# Changing a backend


def configure(backend: Tokenizer, **options: Any) -> None:
    """Change how a backend prepares text, in place.

    Args:
        backend: the tokenizer to change.
        options: add_prefix_space (a space before the text, so that its first word is cut like any other), legacy
            (SentencePiece-style vocabularies: that space also behind every special token, as the first Llama
            tokenizers did), trim_offsets (byte-level: offsets without the space before a word), do_lower_case,
            strip_accents, tokenize_chinese_chars (BERT-style).

    Raises:
        ValueError: the backend has no such thing to change.
    """
    state = _pipeline(backend)
    byte_level = [part for name in state for part in _walk(state[name]) if part["type"] == "ByteLevel"]
    bert = [part for part in _walk(state["normalizer"]) if part["type"] == "BertNormalizer"]
    names = {
        "do_lower_case": (bert, "lowercase"),
        "strip_accents": (bert, "strip_accents"),
        "tokenize_chinese_chars": (bert, "handle_chinese_chars"),
        "trim_offsets": ([part for part in _walk(state["post_processor"]) if part in byte_level], "trim_offsets"),
    }
    if byte_level:
        # The post-processor must know too, or it takes the added space off the first word's offsets.
        names["add_prefix_space"] = (byte_level, "add_prefix_space")
    spaces = {
        name: options.pop(name) for name in ("legacy", "add_prefix_space") if name in options and name not in names
    }
    for name, value in options.items():
        parts, key = names[name]
        if not parts:
            raise ValueError(f"{name}={value!r} has nothing to act on: this tokenizer does not prepare text that way.")
        for part in parts:
            part[key] = value
    _set_pipeline(backend, state)
    if spaces:
        _set_sentencepiece_spaces(backend, **spaces)


def _set_sentencepiece_spaces(
    backend: Tokenizer, legacy: bool | None = None, add_prefix_space: bool | None = None
) -> None:
    """Set where a SentencePiece-style backend puts the space before the text; None keeps what it does now."""
    state = _pipeline(backend)
    steps = list(_walk(state["normalizer"]))
    cutters = list(_walk(state["pre_tokenizer"]))
    if any(cutter["type"] != "Metaspace" for cutter in cutters):
        raise ValueError(
            "legacy and add_prefix_space are for tokenizers in the style of SentencePiece or byte-level BPE; "
            f"this one cuts text by {', '.join(cutter['type'] for cutter in cutters)}."
        )
    prepends = any(step["type"] == "Prepend" for step in steps)
    schemes = {cutter["prepend_scheme"] for cutter in cutters}
    if legacy is None:
        legacy = prepends or "always" in schemes
    if add_prefix_space is None:
        add_prefix_space = prepends or bool(schemes & {"always", "first"})
    kept = [
        step
        for step in steps
        if step["type"] != "Prepend"
        and step.get("content") != SPACE
        and step.get("pattern") != {"Regex": LEADING_SPACES}
    ]
    cleans = any(step.get("pattern") == {"Regex": SPACE_RUN} for step in kept)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if add_prefix_space and not legacy:
        # "first": only at the start of the whole text. Metaspace leaves texts alone that start with its own character,
        # but SentencePiece does not (unless it removes such spaces); so the space is added as a space and replaced
        # afterwards.
        state["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Metaspace", "replacement": " ", "prepend_scheme": "first", "split": False},
                {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": False},
            ],
        }
        kept += [] if cleans else [replace]
    else:
        state["pre_tokenizer"] = None
        kept += [{"type": "Replace", "pattern": {"Regex": LEADING_SPACES}, "content": ""}] if cleans else []
        kept += [{"type": "Prepend", "prepend": SPACE}] if add_prefix_space else []
        kept += [replace]
    state["normalizer"] = {"type": "Sequence", "normalizers": kept}
    # Decoding takes off the added space; where the model knows no spaces at the start, all of them.
    leading = 1_000_000 if cleans else int(add_prefix_space)
    strip = [{"type": "Strip", "content": " ", "start": leading, "stop": 0}] if leading else []
    replace_back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    state["decoder"] = {
        "type": "Sequence",
        "decoders": [replace_back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
    }
    _set_pipeline(backend, state)


def set_template(backend: Tokenizer, bos: str | None, eos: str | None) -> None:
    """Make the backend put `bos` before and `eos` behind every text of a pair, in place; None leaves one out.

    Raises:
        ValueError: the post-processor is of another kind (such as BERT's), or a token is not in the vocabulary.
    """
    byte_level = None
    for part in _walk(_pipeline(backend)["post_processor"]):
        if part["type"] == "ByteLevel":
            byte_level = part
        elif part["type"] != "TemplateProcessing":
            raise ValueError(f"add_bos_token and add_eos_token cannot change this tokenizer's {part['type']}.")

    if bos is None and eos is None and byte_level is not None:
        backend.post_processor = _byte_level_processor(byte_level)
        return

    def around(name: str, type_id: int) -> list[str]:
        return [f"{token}:{type_id}" if token != name else token for token in (bos, name, eos) if token is not None]

    tokens = []
    for token in {bos, eos} - {None}:
        if backend.token_to_id(token) is None:
            raise ValueError(f"The token {token!r}, to be added to every text, is not in the vocabulary.")
        tokens.append((token, backend.token_to_id(token)))
    template = processors.TemplateProcessing(
        single=around("$A:0", 0), pair=around("$A:0", 0) + around("$B:1", 1), special_tokens=tokens
    )
    if byte_level is not None:
        template = processors.Sequence([_byte_level_processor(byte_level), template])
    backend.post_processor = template


def _byte_level_processor(state: dict[str, Any]) -> processors.ByteLevel:
    return processors.ByteLevel(**{key: value for key, value in state.items() if key != "type"})


def has_template(backend: Tokenizer) -> bool:
    """Whether special tokens come from a template that `set_template` can change."""
    return any(part["type"] == "TemplateProcessing" for part in _walk(_pipeline(backend)["post_processor"]))


def special_frame(backend: Tokenizer, pair: bool) -> tuple[list[int], list[int], list[int]]:
    """The ids that the backend puts before, between and after the texts of a pair, or before and after one text."""
    frame: tuple[list[int], list[int], list[int]] = ([], [], [])
    for part in _walk(_pipeline(backend)["post_processor"]):
        if part["type"] == "TemplateProcessing":
            at = 0
            for step in part["pair" if pair else "single"]:
                if "Sequence" in step:
                    at = 1 if pair and at == 0 else 2
                else:
                    frame[at].extend(part["special_tokens"][step["SpecialToken"]["id"]]["ids"])
        elif part["type"] in ("BertProcessing", "RobertaProcessing"):
            cls, sep = part["cls"][1], part["sep"][1]
            double = part["type"] == "RobertaProcessing"
            frame[0].append(cls)
            frame[1].extend([sep] * (1 + double) if pair else [])
            frame[2].append(sep)
    return frame


_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def _pipeline(backend: Tokenizer) -> dict[str, Any]:
    """The steps around the model as JSON objects, as in `tokenizer.json`."""
    parts = {name: getattr(backend, name) for name in _PARTS}
    return {name: None if part is None else json.loads(part.__getstate__()) for name, part in parts.items()}


def _set_pipeline(backend: Tokenizer, state: dict[str, Any]) -> None:
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    rebuilt = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **state, "model": empty}))
    for name in _PARTS:
        setattr(backend, name, getattr(rebuilt, name))


def _walk(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The steps of a part of the pipeline, sequences flattened."""
    if part is None:
        return
    inner = next((value for key, value in part.items() if part["type"] == "Sequence" and key != "type"), None)
    if inner is None:
        yield part
    else:
        for step in inner:
            yield from _walk(step)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object from a file; see `tfmodels.utils.json_files.parse_object`."""
    return parse_object(_read_bytes(path), str(path))


def _read_text(path: str | Path) -> str:
    try:
        return _read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}.") from error


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"No vocabulary file at {path}.") from None
