"""The text and bytes of single tokens, as log probabilities name them."""

from __future__ import annotations

import functools
import re
from typing import Any

from tfmodels.tokenization.conversions.byte_level import byte_characters

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


class TokenTexts:
    """Texts of a tokenizer's tokens.

    Args:
        tokenizer: of the model.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> texts = TokenTexts(tokenizer)
        >>> [texts.bytes(token) for token in tokenizer.encode("a time", add_special_tokens=False)]
        [b' a', b' time']
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer

    @functools.cached_property
    def _numbers(self) -> dict[str, int] | None:
        """Bytes by the characters that stand for them; None for tokenizers that are not byte-level."""
        decoder = self._tokenizer.backend_tokenizer.decoder
        if type(decoder).__name__ != "ByteLevel":
            return None
        return {letter: byte for byte, letter in enumerate(byte_characters())}

    @functools.cached_property
    def _added(self) -> dict[int, Any]:
        return self._tokenizer.added_tokens_decoder

    def bytes(self, token: int) -> bytes:
        """The bytes that a token stands for within a text."""
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return b""
        if token in self._added:
            return piece.encode()
        if self._numbers is not None:
            if all(letter in self._numbers for letter in piece):
                return bytes(self._numbers[letter] for letter in piece)
            return piece.encode()
        byte = _BYTE.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace(_SPACE, " ").encode()

    def special(self, token: int) -> bool:
        """Whether a token is left out of texts."""
        return token in self._added and self._added[token].special

    def text(self, token: int) -> str:
        """A token's text; bytes that are no character alone are replaced."""
        return self.bytes(token).decode("utf-8", "replace")
