"""Log probabilities of tokens in the two forms that clients know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmodels.serving.token_texts import TokenTexts

# JSON knows no infinity; clients know this number for tokens that cannot come.
_LEAST = -9999.0


def _finite(logprob: float) -> float:
    return max(float(logprob), _LEAST)


def chat(texts: TokenTexts, tokens: Sequence[Any]) -> dict[str, Any]:
    """The `logprobs` of a chat's choice.

    Args:
        texts: of the model's tokens.
        tokens: what the engine tells of each.
    """

    def named(token: int, logprob: float) -> dict[str, Any]:
        return {"token": texts.text(token), "logprob": _finite(logprob), "bytes": list(texts.bytes(token))}

    content = []
    for one in tokens:
        best = [named(token, logprob) for token, logprob in one.top]
        content.append({**named(one.token, one.logprob), "top_logprobs": best})
    return {"content": content, "refusal": None}


def completion(texts: TokenTexts, tokens: Sequence[Any], offset: int) -> tuple[dict[str, Any], int]:
    """The `logprobs` of a completion's choice, and the offset of what follows.

    Args:
        texts: of the model's tokens.
        tokens: what the engine tells of each.
        offset: characters before the first of them.
    """
    content: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for one in tokens:
        text = texts.text(one.token)
        content["tokens"].append(text)
        content["text_offset"].append(offset)
        offset += 0 if texts.special(one.token) else len(text)
        if one.logprob is None:  # nothing stands before the first token of a prompt
            content["token_logprobs"].append(None)
            content["top_logprobs"].append(None)
            continue
        content["token_logprobs"].append(_finite(one.logprob))
        best = {texts.text(token): _finite(logprob) for token, logprob in reversed(one.top)}
        content["top_logprobs"].append({**dict(reversed(best.items())), text: _finite(one.logprob)})
    return content, offset
