"""`tokenizer.model` files of both formats."""

from __future__ import annotations

import time

import pytest
from tokenizers import AddedToken
from vocabulary_files import (
    tiktoken_file,
)

from tfmodels.tokenization.conversions.model_file import model_file_backend


def test_large_model_converts_quickly(vocabularies):
    path = vocabularies / "llama" / "tokenizer.model"
    start = time.process_time()
    backend, special = model_file_backend(path, {})
    assert time.process_time() - start < 2
    assert backend.get_vocab_size() == 32000
    assert special == {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def test_tiktoken_special_tokens(tmp_path):
    path = tiktoken_file(tmp_path, [b"ab"])
    backend, special = model_file_backend(path, {})
    assert backend.get_vocab_size() == 257 + 256
    assert special == {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    named = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 9: "eot_id", 10: "python_tag"}
    reserved = {2: "reserved_special_token_0", 5: "reserved_special_token_2", 255: "reserved_special_token_247"}
    for offset, name in (named | reserved).items():
        assert backend.token_to_id(f"<|{name}|>") == 257 + offset
    own, _ = model_file_backend(path, {257: AddedToken("<|mine|>", special=True, normalized=False)})
    assert own.get_vocab_size() == 258
    assert own.encode("ab<|mine|>").ids == [256, 257]


def test_tiktoken_broken_line(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_text("YQ== 0\nYg== one\n")
    with pytest.raises(ValueError, match="line 2: expected base64 bytes and a rank"):
        model_file_backend(path, {})
