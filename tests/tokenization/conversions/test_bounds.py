"""Small vocabulary files that would hang, eat memory or end the process are refused with their names."""

from __future__ import annotations

import json
import struct
import time

import pytest

from tfmodels.tokenization import AutoTokenizer, GPT2Tokenizer
from tfmodels.tokenization.conversions.merges import merges_of


def field(number: int, value: bytes) -> bytes:
    size, out = len(value), b""
    while size >= 128:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + out + bytes([size]) + value


def piece(text: str, kind: int = 1) -> bytes:
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", -1.0) + b"\x18" + bytes([kind]))


REST = field(2, b"\x18\x02") + field(3, field(1, b"identity"))
MODELS = {
    "a number of more than 10 bytes": b"\x80" * 1_000_000,
    "normalisation rules .* are cut off": piece("<unk>", 2)
    + field(2, b"\x18\x01")
    + field(3, field(1, b"x") + field(2, b"\xff\xff\xff\xff" + bytes(99))),
    "piece of 100000 characters": piece("<unk>", 2) + piece("a" * 100_000) + REST,
    "ways to put": piece("<unk>", 2) + b"".join(piece("a" * length) for length in range(1, 999)) + REST,
}


@pytest.mark.parametrize("message", MODELS)
def test_sentencepiece_models(tmp_path, message):
    (tmp_path / "tokenizer.model").write_bytes(MODELS[message])
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    start = time.process_time()
    with pytest.raises(ValueError, match=rf"tokenizer\.model.*{message}") as raised:
        AutoTokenizer.from_pretrained(tmp_path)
    assert time.process_time() - start < 5
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("index", [2**31 - 1, 2**32, -1, "1", 1.5, None, [1], True])
def test_ids_that_are_none(tmp_path, index):
    vocabulary = {"a": 0, "b": index}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(ValueError, match=r"vocab\.json: the token 'b' has the id"):
        GPT2Tokenizer.from_pretrained(tmp_path)
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        GPT2Tokenizer.from_pretrained(tmp_path)


def test_fifty_thousand_added_tokens(tmp_path):
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    tokens = {str(number): {"content": f"<{number}>", "special": True} for number in range(1, 50_001)}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": tokens}))
    start = time.process_time()
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 50_001
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "part",
    [
        {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}},
        {"post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {"x": 1}}},
        {"model": {"type": "x" * 100_000}},
        {"model": None},
    ],
    ids=range(4),
)
def test_errors_of_the_library_name_the_file(tmp_path, part):
    content = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, **part}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer that") as raised:
        AutoTokenizer.from_pretrained(tmp_path)
    assert len(str(raised.value)) < 600


def test_a_panic_while_encoding_is_an_error(tmp_path):
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}], "pair": []}
    content = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    content["post_processor"] = {**template, "special_tokens": {}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))

    def use():
        AutoTokenizer.from_pretrained(tmp_path)("a")

    with pytest.raises(ValueError, match=str(tmp_path)):
        use()


def test_real_vocabularies_are_far_from_the_bounds():
    spaces = [" " * length for length in range(1, 17)]
    assert len(list(merges_of(spaces, set(spaces)))) == sum(range(16))
