"""Inputs that come as texts or as token ids, one or many: prompts of completions, texts to embed."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfmodels.serving.errors import BadRequest
from tfmodels.serving.fields import Check, wrong

MOST_TOKENS = 1 << 20


class Input(NamedTuple):
    """One input: a text, or token ids."""

    name: str
    value: str | list[int]

    def ids(self, model: Any) -> list[int]:
        """The token ids.

        Raises:
            BadRequest: there are none, or one is not in the vocabulary.
        """
        if isinstance(self.value, str):
            ids = model.tokenizer(self.value)["input_ids"]
        else:
            ids, size = self.value, len(model.tokenizer)
            if max(ids, default=0) >= size:
                raise BadRequest(
                    f"{self.name} holds {max(ids)}: token ids from 0 to {size - 1} were expected.", self.name
                )
        if not ids:
            raise BadRequest(f"{self.name} is empty.", self.name)
        return ids

    def text(self, model: Any) -> str:
        """The text."""
        value = self.value
        return value if isinstance(value, str) else model.tokenizer.decode(value, skip_special_tokens=True)


def check_inputs(most: int) -> Check:
    """A text, a list of texts, a list of token ids, or a list of such lists; up to `most` of them."""

    def check(value: Any, name: str) -> list[Input]:
        if isinstance(value, str) or _are_ids(value):
            return [Input(name, value)]
        several = isinstance(value, list) and 0 < len(value) <= most
        if several and (all(isinstance(one, str) for one in value) or all(_are_ids(one) for one in value)):
            return [Input(name, one) for one in value]
        raise wrong(name, value, f"a text, up to {most} texts, or token ids instead of texts,")

    return check


def check_ids(value: Any, name: str) -> Input:
    """A list of token ids, which may be empty."""
    if value != [] and not _are_ids(value):
        raise wrong(name, value, f"a list of up to {MOST_TOKENS} token ids")
    return Input(name, value)


def _are_ids(value: Any) -> bool:
    fits = isinstance(value, list) and 0 < len(value) <= MOST_TOKENS
    return fits and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in value)
