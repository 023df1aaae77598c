"""The settings that a GGUF file holds of a tokenizer: the counterpart of `tfmodels.tokenization.conversions.gguf`."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import pre_tokenizers

from tfmodels.tokenization.conversions import sentencepiece
from tfmodels.tokenization.conversions.gguf import PRE_TOKENIZERS
from tfmodels.utils.text import quote

_PREFIX = "tokenizer.ggml."
_UNUSED = 5
_SPACE = "\u2581"  # SentencePiece's sign for one


def tokenizer_settings(tokenizer: Any, size: int) -> dict[str, Any]:
    """The settings, by their whole names.

    Args:
        tokenizer: a fast tokenizer of byte pairs, of SentencePiece's kind or GPT-2's.
        size: rows of the embeddings; further tokens than the tokenizer has are marked as unused.

    Raises:
        ValueError: llama.cpp has no such tokenizer, or there are more tokens than rows.
    """
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    model = whole["model"]
    if model.get("type") != "BPE":
        raise ValueError(
            f"the tokenizer is of the kind {quote(model.get('type'))}; GGUF files here hold byte pairs (BPE)."
        )
    tokens, types = _tokens(whole, size)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    settings: dict[str, Any] = {"tokens": tokens, "token_type": types}
    if model.get("byte_fallback"):
        found = "".join(tokenizer.backend_tokenizer.encode("a  a", add_special_tokens=False).tokens)
        settings |= {
            "model": "llama",
            "pre": "default",
            "scores": _scores(tokens, merges),
            "add_space_prefix": found.startswith(_SPACE),
            "remove_extra_whitespaces": 2 * _SPACE not in found,
        }
    else:
        _check_plain(whole)
        settings |= {"model": "gpt2", "pre": _cut(whole.get("pre_tokenizer")), "merges": merges}
    roles = {"bos": "bos_token_id", "eos": "eos_token_id", "unknown": "unk_token_id", "padding": "pad_token_id"}
    for key, role in roles.items():
        if (index := getattr(tokenizer, role, None)) is not None:
            settings[f"{key}_token_id"] = int(index)
    begun = tokenizer("a")["input_ids"]
    settings["add_bos_token"] = tokenizer.bos_token_id is not None and begun[0] == tokenizer.bos_token_id
    settings["add_eos_token"] = tokenizer.eos_token_id is not None and begun[-1] == tokenizer.eos_token_id
    named = {_PREFIX + key: value for key, value in settings.items()}
    if isinstance(template := getattr(tokenizer, "chat_template", None), str):
        named["tokenizer.chat_template"] = template
    return named


def _tokens(whole: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """All tokens by their ids, and llama.cpp's type of each."""
    found = {index: (token, sentencepiece.NORMAL) for token, index in whole["model"]["vocab"].items()}
    for index, (token, _) in found.items():
        if whole["model"].get("byte_fallback") and len(token) == 6 and token.startswith("<0x") and token[-1] == ">":
            found[index] = token, sentencepiece.BYTE
    for added in whole["added_tokens"]:
        kind = sentencepiece.CONTROL if added["special"] else sentencepiece.USER_DEFINED
        if added["content"] == whole["model"].get("unk_token") and added["special"]:
            kind = sentencepiece.UNKNOWN
        found[added["id"]] = added["content"], kind
    if max(found, default=0) >= size:
        raise ValueError(f"the tokenizer has a token {max(found)}; the model's embeddings have {size} rows.")
    pairs = [found.get(index, (f"[PAD{index}]", _UNUSED)) for index in range(size)]
    return [token for token, _ in pairs], [kind for _, kind in pairs]


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """SentencePiece's score of each token: the earlier two others are merged to it, the higher."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", "", 1), rank)
    return [-float(ranks.get(token, 0)) for token in tokens]


def _check_plain(whole: dict[str, Any]) -> None:
    """Raise ValueError where a tokenizer of GPT-2's kind does what llama.cpp's does not.

    Unicode's composed form (NFC) passes: texts have it as they are typed, and llama.cpp takes them so.
    """
    normalizer, model = whole.get("normalizer"), whole["model"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    if any(step.get("type") != "NFC" for step in steps):
        raise ValueError(f"the tokenizer changes texts by {quote(normalizer)}, for which GGUF files have no place.")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(f"the tokenizer has {name}={quote(model[name])}, for which GGUF files have no place.")


def _cut(pre_tokenizer: dict[str, Any] | None) -> str:
    """llama.cpp's name of the rules that text is cut by."""
    wanted = _parts(pre_tokenizer)
    for name, cut in PRE_TOKENIZERS.items():
        if name != "default" and _parts(json.loads(pre_tokenizers.Sequence(cut).__getstate__())) == wanted:
            return name
    raise ValueError(
        f"the tokenizer cuts text by the rules {quote(pre_tokenizer)}, for which no name of llama.cpp is known here; "
        f"known are those of {', '.join(PRE_TOKENIZERS)}."
    )


def _parts(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a sequence, without settings that change no token."""
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
