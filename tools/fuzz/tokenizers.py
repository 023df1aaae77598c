"""Files of tokenizers."""

from __future__ import annotations

import base64
import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tfmodels.tokenization import AutoTokenizer
from tools.fuzz.damage import Random, damage_bytes, damage_json
from tools.fuzz.kind import Kind


@cache
def _tokenizer_json() -> dict[str, Any]:
    letters = [chr(code) for code in range(97, 123)]
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *letters, "Ġ", "ab", "Ġa"])}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("Ġ", "a")], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B:1", [("<s>", 1)])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>"])
    return json.loads(backend.to_str())


_PLAIN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
TOKENIZER_CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": {"content": "</s>", **_PLAIN},
    "unk_token": "<unk>",
    "pad_token": None,
    "additional_special_tokens": ["<extra>"],
    "added_tokens_decoder": {"32": {"content": "<extra>", "special": True, **_PLAIN}},
    "model_max_length": 1000,
    "model_input_names": ["input_ids", "attention_mask"],
    "padding_side": "left",
    "truncation_side": "right",
    **dict.fromkeys(("clean_up_tokenization_spaces", "split_special_tokens", "add_prefix_space"), False),
    "chat_template": [{"name": "default", "template": "{{ messages }}"}],
}


def _varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def write_sentencepiece(rng: Random, folder: Path) -> None:
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{byte:02X}>", 6) for byte in range(256))]
    pieces += [(text, 1) for text in ("▁", "a", "b", "ab", "▁a", "▁ab", "l", "e")]
    pieces += [("a" * length, 1) for length in range(3, rng.choice((4, 4, 4, 60)))]
    parts = [
        _field(1, _field(1, text.encode()) + b"\x15" + struct.pack("<f", -float(n)) + b"\x18" + bytes([kind]))
        for n, (text, kind) in enumerate(pieces)
    ]
    parts += [_field(2, b"\x18" + bytes([rng.choice((1, 2, 2))])), _field(3, _field(1, b"identity") + b"\x18\x01")]
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 2, 5))):
            at = rng.randrange(len(parts))
            parts[at] = rng.choice((b"", parts[at] * 2, damage_bytes(rng, parts[at]), b"\x80" * 1000, parts[0]))
        data = b"".join(parts)
    else:
        data = damage_bytes(rng, b"".join(parts))
    (folder / "tokenizer.model").write_bytes(data)
    (folder / "config.json").write_text('{"model_type": "llama"}')


def write_tiktoken(rng: Random, folder: Path) -> None:
    lines = [base64.b64encode(bytes([byte])) + b" %d" % byte for byte in range(256)]
    lines += [base64.b64encode(text) + b" %d" % (256 + n) for n, text in enumerate((b"ab", b"abc", b" a"))]
    (folder / "tokenizer.model").write_bytes(damage_bytes(rng, b"\n".join(lines) + b"\n"))
    (folder / "config.json").write_text('{"model_type": "llama"}')


def write_tokenizer_json(rng: Random, folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(damage_json(rng, _tokenizer_json()))


def write_tokenizer_config(rng: Random, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer_json()))
    others = {"special_tokens_map.json": {"bos_token": "<s>", "pad_token": {"content": "<unk>"}}}
    others["added_tokens.json"] = {"<extra>": 32}
    files = {"tokenizer_config.json": TOKENIZER_CONFIG, **(others if rng.random() < 0.5 else {})}
    damaged = rng.choice(list(files))
    for name, value in files.items():
        if name == damaged and rng.random() < 0.3:
            value = {**value, "added_tokens_decoder": None}
        (folder / name).write_bytes(damage_json(rng, value) if name == damaged else json.dumps(value).encode())


def write_vocabulary(rng: Random, folder: Path) -> None:
    model = _tokenizer_json()["model"]
    vocabulary, merges = json.dumps(model["vocab"]).encode(), b"#version: 0.2\na b\n\xc4\xa0 a\n"
    if rng.random() < 0.6:
        vocabulary = damage_json(rng, model["vocab"])
    else:
        merges = damage_bytes(rng, merges)
    (folder / "vocab.json").write_bytes(vocabulary)
    (folder / "merges.txt").write_bytes(merges)


def write_word_pieces(rng: Random, folder: Path) -> None:
    words = b"<s>\n<pad>\n</s>\n[UNK]\n<unk>\n<mask>\na\n##b\nhello\n"
    (folder / "vocab.txt").write_bytes(damage_bytes(rng, words))
    (folder / "config.json").write_text('{"model_type": "mpnet"}')


def read_tokenizer(folder: Path) -> None:
    use(AutoTokenizer.from_pretrained(folder))


def use(tokenizer: Any) -> None:
    ids = tokenizer("ab <s> hello\n")["input_ids"]
    tokenizer.decode(ids)
    len(tokenizer)


KINDS = {
    "tokenizer.json": Kind(write_tokenizer_json, read_tokenizer),
    "tokenizer_config": Kind(write_tokenizer_config, read_tokenizer),
    "sentencepiece": Kind(write_sentencepiece, read_tokenizer),
    "tiktoken": Kind(write_tiktoken, read_tokenizer),
    "vocab.json": Kind(write_vocabulary, read_tokenizer),
    "vocab.txt": Kind(write_word_pieces, read_tokenizer),
}
