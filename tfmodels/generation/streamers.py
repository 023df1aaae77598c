"""Receivers of tokens while `generate` runs; nothing here needs TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

# What a decoder writes for bytes that are no character (yet).
_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"
# A character has at most four bytes, a token at least one: longer tails are wrong bytes, no unfinished character.
_LONGEST_CHARACTER = 4
# Decoders look at neighbours (leading spaces, runs of bytes): how much of the prompt the first new token is given.
_PROMPT_CONTEXT = 8


def write_to_stdout(text: str) -> None:
    """Write at once, without waiting for the end of a line."""
    sys.stdout.write(text)
    sys.stdout.flush()


class TextStreamer:
    """Turns the tokens that `generate(..., streamer=...)` hands over into text, piece by piece.

    The pieces joined are the text of all tokens. A character whose bytes span several tokens comes once it is whole,
    and every piece costs the same however long the text is: only the tokens since the last piece are decoded, with
    those of that piece as context.

    Args:
        tokenizer: anything with `decode(ids, skip_special_tokens=...)`.
        prompt_ids: ids of the prompt. With them the text continues the prompt's: its leading space is kept.
        skip_special_tokens: leave special tokens out.
        write: called with each piece of text, never empty. Default: write to standard output at once.

    Raises:
        ValueError: `put` gets more than one row.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> from tfmodels.generation.streamers import TextStreamer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> pieces = []
        >>> streamer = TextStreamer(tokenizer, write=pieces.append)
        >>> for token in tokenizer.encode("a café", add_special_tokens=False):
        ...     streamer.put([[token]])
        >>> streamer.end()
        >>> "".join(pieces)
        'a café'
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        prompt_ids: Iterable[int] | None = None,
        skip_special_tokens: bool = True,
        write: Callable[[str], None] = write_to_stdout,
    ):
        self.tokenizer = tokenizer
        self.skip_special_tokens = skip_special_tokens
        self.write = write
        self._prompt = [int(token) for token in prompt_ids or ()][-_PROMPT_CONTEXT:]
        self._reset()

    def _reset(self) -> None:
        self._context = list(self._prompt)
        self._new: list[int] = []

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=self.skip_special_tokens)

    def put(self, ids: Any) -> None:
        """Receive new tokens: int (1, new)."""
        ids = np.asarray(ids)
        if ids.ndim != 2 or ids.shape[0] != 1:
            raise ValueError(f"TextStreamer writes one text: ids of shape (1, new) were expected; got {ids.shape}.")
        for token in ids[0].tolist():
            self._new.append(token)
            self._flush(whole_characters=True)

    def end(self) -> None:
        """Write what was held back; the streamer is as new afterwards."""
        self._flush(whole_characters=False)
        self._reset()

    def _flush(self, whole_characters: bool) -> None:
        if not self._new:
            return
        text = self._decode(self._context + self._new)
        if whole_characters and text.endswith(_UNDECODABLE) and len(self._new) < _LONGEST_CHARACTER:
            return
        piece = text[len(self._decode(self._context)) :]
        if piece:
            self.write(piece)
            self._context, self._new = self._new, []
        else:
            # Nothing to see (a skipped token): keep what gives the next token its neighbours.
            self._context, self._new = (self._context + self._new)[-_PROMPT_CONTEXT:], []
