"""tiktoken-style `tokenizer.model` files, such as Llama 3's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from tfmodels.tokenization.conversions.byte_level import byte_characters
from tfmodels.tokenization.conversions.merges import merges_of
from tfmodels.tokenization.conversions.reading import check_ids, read_bytes
from tfmodels.utils.text import quote

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
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(
                f"{path}, line {number}: expected base64 bytes and a rank, got {quote(line, 60)}."
            ) from error
    check_ids(path, ranks)
    letters = byte_characters()

    def spell(token: bytes) -> str:
        return "".join([letters[byte] for byte in token])

    merges = [(spell(left), spell(right)) for left, right in merges_of(sorted(ranks, key=ranks.__getitem__), ranks)]
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
