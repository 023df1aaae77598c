"""Text of tokens that arrive one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfmodels.utils.text import quote

# What a decoder writes for bytes that are no character (yet).
_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"
# A character has at most four bytes, a token at least one: longer tails are wrong bytes, no unfinished character.
_LONGEST_CHARACTER = 4
# Decoders look at neighbours (leading spaces, runs of bytes): how much of the text before the next token is given.
_CONTEXT = 8


class Detokenizer:
    """Turns tokens into text, piece by piece.

    The pieces joined are the text of all tokens. A character whose bytes span several tokens comes once it is whole,
    and every piece costs the same however long the text is: only the tokens since the last piece are decoded, with
    those of that piece as context.

    Args:
        tokenizer: anything with `decode(ids, skip_special_tokens=...)`.
        prompt_ids: ids that come before. With them the text continues theirs: its leading space is kept.
        skip_special_tokens: leave special tokens out.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> text = Detokenizer(tokenizer)
        >>> ids = tokenizer.encode("a café", add_special_tokens=False)
        >>> [text.add(ids[:-1]), text.add(ids[-1:]), text.finish()]
        ['a caf', 'é', '']
    """

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int] = (), *, skip_special_tokens: bool = True):
        check_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        self.skip_special_tokens = skip_special_tokens
        self._context = list(prompt_ids[-_CONTEXT:])
        self._new: list[int] = []

    def add(self, ids: Iterable[int]) -> str:
        """The text that is whole with some tokens more."""
        self._new += ids
        for held in range(min(_LONGEST_CHARACTER, len(self._new))):
            piece = self._piece(len(self._new) - held, whole_characters=True)
            if piece is not None:
                return piece
        # So many tokens that end no character hold wrong bytes.
        return self.finish() if len(self._new) >= _LONGEST_CHARACTER else ""

    def finish(self) -> str:
        """The text that was held back."""
        return self._piece(len(self._new)) or ""

    def _piece(self, count: int, whole_characters: bool = False) -> str | None:
        """Take the first of the new tokens out as text; None where it would end within a character."""
        if not count:
            return None
        new = self._new[:count]
        text = self._decode(self._context + new)
        if whole_characters and text.endswith(_UNDECODABLE):
            return None
        piece = text[len(self._decode(self._context)) :]
        # Where there is nothing to see (a skipped token), what gives the next token its neighbours is kept.
        self._context, self._new = (new if piece else (self._context + new)[-_CONTEXT:]), self._new[count:]
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=self.skip_special_tokens)


class StopCutter:
    """Ends a text that arrives in pieces before the first of some stop strings.

    What may become a stop string is held back until more is known.

    Args:
        strings: the stop strings, none of them empty.
        before: the text that comes before, in which a stop string may begin.

    Example:
        >>> cutter = StopCutter(["END"])
        >>> [cutter.add(piece) for piece in ("one E", "N", "O two EN", "D three")], cutter.finish()
        (['one ', '', 'ENO two ', ''], '')
    """

    def __init__(self, strings: Sequence[str], before: str = ""):
        self.strings = list(strings)
        self._held = before[len(before) - self._open(before) :]
        # How much of what is held was text before.
        self._before = len(self._held)
        self._cut = False

    def add(self, piece: str) -> str:
        """The text that is certain with a piece more."""
        if self._cut:
            return ""
        self._held += piece
        places = [place for place in map(self._held.find, self.strings) if place >= 0]
        self._cut = bool(places)
        return self._take(min(places) if places else len(self._held) - self._open(self._held))

    def finish(self) -> str:
        """The text that was held back, once no more comes."""
        return "" if self._cut else self._take(len(self._held))

    def _take(self, count: int) -> str:
        text, self._held = self._held[min(self._before, count) : count], self._held[count:]
        self._before = max(0, self._before - count)
        return text

    def _open(self, text: str) -> int:
        """Characters at the end of a text that a stop string begins with."""
        longest = min(len(text), max(map(len, self.strings), default=1) - 1)
        return next((size for size in range(longest, 0, -1) if self._begins(text[-size:])), 0)

    def _begins(self, tail: str) -> bool:
        return any(stop.startswith(tail) for stop in self.strings)


def check_tokenizer(tokenizer: Any) -> None:
    """Raise TypeError for what cannot read a text: `tokenizer` is anything with `decode(ids)`."""
    if not callable(getattr(tokenizer, "decode", None)):
        raise TypeError(
            f"tokenizer={quote(tokenizer)}: a tokenizer was expected, such as AutoTokenizer.from_pretrained gives."
        )
