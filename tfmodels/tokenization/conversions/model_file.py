"""`tokenizer.model` files, whichever of the two formats of that name they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from tfmodels.tokenization.conversions.reading import library_errors, read_bytes
from tfmodels.tokenization.conversions.sentencepiece import read_sentencepiece, sentencepiece_backend
from tfmodels.tokenization.conversions.tiktoken import tiktoken_backend


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
    with library_errors(f"{path} holds pieces that make up no tokenizer"):
        if re.match(rb"[A-Za-z0-9+/]{1,1000}={0,2} \d{1,20}\r?\n", read_bytes(path)):
            roles = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
            return tiktoken_backend(path, added_tokens), roles
        model = read_sentencepiece(path)
        try:
            return sentencepiece_backend(model), dict(model.special_tokens)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from error
