"""The tokenizer that a GGUF file holds beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.formats.gguf import read_header
from tfmodels.tokenization.conversions import sentencepiece
from tfmodels.tokenization.conversions.byte_level import QWEN2_PATTERN
from tfmodels.tokenization.conversions.tiktoken import LLAMA3_PATTERN
from tfmodels.utils.text import quote

_PREFIX = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"  # and, with a dot and a name behind it, further ones
_SPECIAL_TOKENS = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}

_GPT2 = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
_LLAMA3 = [
    pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
]
_QWEN2 = [
    pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
]
# How text is cut before merging, by the name that the file gives.
PRE_TOKENIZERS = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "qwen2": _QWEN2,
    "smollm": [pre_tokenizers.Digits(individual_digits=True), *_GPT2],
}


def read_gguf(path: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """Build the backend of a GGUF file's tokenizer.

    Args:
        path: the file.

    Returns:
        The backend, and what a tokenizer_config.json would say.

    Raises:
        CheckpointError: the file is damaged, has no tokenizer, or one of a kind that cannot be read.
    """
    metadata = read_header(path).metadata
    tokens = _list(path, metadata, "tokens", str)
    types = _list(path, metadata, "token_type", int) if _PREFIX + "token_type" in metadata else []
    if types and len(types) != len(tokens):
        raise CheckpointError(f"{path} has {len(tokens)} tokens, but types for {len(types)}.")
    if len(set(tokens)) < len(tokens):
        raise CheckpointError(f"{path} has tokens of the same text, which no tokenizer tells apart.")
    kind = metadata.get(_PREFIX + "model")
    cut = None
    if kind == "llama":
        backend = _sentencepiece(path, metadata, tokens, types or [sentencepiece.NORMAL] * len(tokens))
    elif kind == "gpt2":
        name = metadata.get(_PREFIX + "pre", "default")
        if name not in PRE_TOKENIZERS:
            raise CheckpointError(
                f"{path} cuts text by the rules {quote(name)}, which are unknown here; known are "
                f"{', '.join(PRE_TOKENIZERS)}."
            )
        cut = PRE_TOKENIZERS[name]
        backend = _byte_level(path, metadata, tokens, types, cut)
    else:
        raise CheckpointError(f"{path} has a tokenizer of the kind {quote(kind)}; 'llama' and 'gpt2' can be read.")
    config: dict[str, Any] = {
        "add_bos_token": metadata.get(_PREFIX + "add_bos_token", kind == "llama" or cut is _LLAMA3),
        "add_eos_token": metadata.get(_PREFIX + "add_eos_token", False),
        "model_max_length": metadata.get(f"{metadata.get('general.architecture')}.context_length"),
    }
    for key, role in _SPECIAL_TOKENS.items():
        index = metadata.get(f"{_PREFIX}{key}_token_id")
        if index is None:
            continue
        if not isinstance(index, int) or not 0 <= index < len(tokens):
            raise CheckpointError(f"{path}: the {role} has id {quote(index)}; there are {len(tokens)} tokens.")
        config[role] = AddedToken(tokens[index], special=True, normalized=False)
    templates = {
        key.removeprefix(_TEMPLATE).removeprefix(".") or "default": template
        for key, template in metadata.items()
        if key == _TEMPLATE or key.startswith(_TEMPLATE + ".")
    }
    if templates:
        config["chat_template"] = templates["default"] if set(templates) == {"default"} else templates
    return backend, config


def _sentencepiece(path: Path, metadata: dict[str, Any], tokens: list[str], types: list[int]) -> Tokenizer:
    scores = _list(path, metadata, "scores", float)
    if len(scores) != len(tokens):
        raise CheckpointError(f"{path} has {len(tokens)} tokens, but {len(scores)} scores.")
    return sentencepiece.sentencepiece_backend(
        sentencepiece.SentencePieceModel(
            pieces=list(zip(tokens, scores, types, strict=True)),
            model_type=sentencepiece.BPE,
            add_dummy_prefix=bool(metadata.get(_PREFIX + "add_space_prefix", True)),
            remove_extra_whitespaces=bool(metadata.get(_PREFIX + "remove_extra_whitespaces", False)),
        )
    )


def _byte_level(
    path: Path, metadata: dict[str, Any], tokens: list[str], types: list[int], cut: list[Any]
) -> Tokenizer:
    merges = [tuple(merge.split(" ")) for merge in _list(path, metadata, "merges", str)]
    try:
        model = models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=cut is _LLAMA3,
        )
    except Exception as error:  # the library raises plain Exception, or TypeError for a merge that is no pair
        raise CheckpointError(f"{path}: tokens and merges do not fit together: {error}") from error
    backend = Tokenizer(model)
    if cut is _QWEN2:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(cut)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    special = [
        token
        for token, kind in zip(tokens, types, strict=False)
        if kind in (sentencepiece.UNKNOWN, sentencepiece.CONTROL)
    ]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    defined = [token for token, kind in zip(tokens, types, strict=False) if kind == sentencepiece.USER_DEFINED]
    backend.add_tokens([AddedToken(token, normalized=False) for token in defined])
    return backend


def _list(path: Path, metadata: dict[str, Any], key: str, kind: type) -> list[Any]:
    values = metadata.get(_PREFIX + key)
    is_array = isinstance(values, Sequence) and not isinstance(values, str)
    if not is_array or not all(isinstance(value, kind) for value in values):
        raise CheckpointError(f"{path} has no {_PREFIX}{key}, an array of {kind.__name__}.")
    return list(values)
