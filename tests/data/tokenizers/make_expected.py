"""Writes expected.json: encodings by sentencepiece and by transformers, which the tests compare with.

    python tests/data/tokenizers/make_expected.py

Needs both packages; the tests do not.
"""

from __future__ import annotations

import itertools
import json
import lzma
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STORIES = HERE.parents[2] / "saved_models" / "stories260K" / "tokenizer.model"

TEXTS = [
    "",
    " ",
    "   ",
    "Hello this is a test",
    "  two in front",
    "two behind  ",
    "in  the   middle    of it",
    "a\nb\n\n  c\t\td\r\n",
    "Once upon a time, there was a little girl named Lily.",
    "naïve café, ﬁne e\u0301 \u00a0 \u3000 ① Ⅷ",
    "日本語のテキストと한국어 и русский العربية",
    "emoji 🙂🙂 👩‍👩‍👧 🏳️‍🌈 and \u200b zero width",
    "1234567890 3.14159 0x1F",
    "def f(x):\n    return x  # ok\n\n\n    if x:\n        pass",
    "!!!!!! ------ ====== ....... aaaaaaa bababababa",
    "<0x0A> <0xFF> ▁ ▁▁a",
    "x" * 50 + " " * 40 + "y",
    "http://example.org/a_b?c=d&e=%20",
    "\ufeffbyte order mark \x00 \x07",
    "Hello [INST] who <<SYS>> {are} |you|",
]
SPECIAL = {
    "mpnet": {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "[UNK]",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": "<mask>",
    },
    "neox": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|padding|>"},
}
QUESTION, CONTEXT = "Who wrote the play?", "The play Hamlet was written by William Shakespeare between 1599 and 1601."


def calls() -> list[dict[str, Any]]:
    """Tokenizer calls: name, method, positional and keyword arguments."""
    everything = {
        "return_offsets_mapping": True,
        "return_special_tokens_mask": True,
        "return_token_type_ids": True,
        "return_length": True,
    }
    texts = ["Hello world", "", " A longer text, with a <mask> and <|endoftext|> in it.", "e\u0301t\u00e9 🙂 1999"]
    batches = [
        {},
        {"padding": True},
        {"padding": "longest", "padding_side": "left"},
        {"padding": "max_length", "max_length": 9},
        {"padding": "max_length", "max_length": 9, "truncation": True},
        {"padding": True, "pad_to_multiple_of": 8},
        {"max_length": 6},
        {"truncation": "longest_first", "max_length": 7, "stride": 2, "return_overflowing_tokens": True},
        {"add_special_tokens": False, "padding": True},
        {"return_attention_mask": False},
    ]
    pairs = [
        {},
        {"truncation": True, "max_length": 14},
        {"truncation": "only_first", "max_length": 20},
        {"truncation": "only_second", "max_length": 14, "stride": 3, "return_overflowing_tokens": True},
        {"truncation": "only_second", "max_length": 12, "padding": "max_length", "return_overflowing_tokens": True},
    ]
    words = [["Hello", "wor-ld", "x"], ["It", "'s", "naïve", "."]]
    found = []
    for name in SPECIAL:
        for options in batches:
            found.append((name, "__call__", [texts], {**everything, **options}))
            if not options.keys() & {"padding"}:
                found.append((name, "__call__", [texts[2]], {**everything, **options}))
        for options in pairs:
            first, second = (CONTEXT, QUESTION) if options.get("truncation") == "only_first" else (QUESTION, CONTEXT)
            found.append((name, "__call__", [first, second], {**everything, **options}))
            found.append(
                (name, "__call__", [[first, first], [second, f"{second} {second}"]], {**everything, **options})
            )
        found.append((name, "__call__", [words], {**everything, "is_split_into_words": True}))
        found.append((name, "__call__", [words[0], words[1]], {**everything, "is_split_into_words": True}))
        found.append((name, "batch_decode", [[[5, 6, 0], [7596, 1, 2]]], {}))
        found.append((name, "batch_decode", [[[5, 6, 0], [7596, 1, 2]]], {"skip_special_tokens": True}))
        for padding, side in itertools.product((True, "max_length"), ("left", "right")):
            rows = {"input_ids": [[1, 2, 3], [4]], "token_type_ids": [[0, 0, 1], [1]]}
            found.append((name, "pad", [rows], {"padding": padding, "max_length": 6, "padding_side": side}))
    return [dict(zip(("tokenizer", "method", "args", "kwargs"), call, strict=True)) for call in found]


def main() -> None:
    import sentencepiece
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        llama = Path(folder) / "tokenizer.model"
        llama.write_bytes(lzma.decompress((HERE / "llama" / "tokenizer.model.xz").read_bytes()))
        encoded = {}
        for name, path in (("llama", llama), ("stories260K", STORIES)):
            processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
            encoded[name] = [[text, processor.encode(text)] for text in TEXTS]
        tokenizers = {}
        for name, special in SPECIAL.items():
            path = Path(folder) / f"{name}.json"
            path.write_bytes(lzma.decompress((HERE / name / "tokenizer.json.xz").read_bytes()))
            tokenizers[name] = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path), **special)
    results = []
    for call in calls():
        result = getattr(tokenizers[call["tokenizer"]], call["method"])(*call["args"], **call["kwargs"])
        results.append({**call, "result": dict(result) if hasattr(result, "items") else result})
    made_with = {"sentencepiece": sentencepiece.__version__, "transformers": transformers.__version__}
    content = {"made_with": made_with, "sentencepiece": encoded, "special_tokens": SPECIAL, "calls": results}
    (HERE / "expected.json").write_text(json.dumps(content, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
