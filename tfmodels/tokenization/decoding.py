"""Turns ids into texts."""

from __future__ import annotations

import threading
from typing import Any

from tfmodels.tokenization.conversions.byte_level import byte_characters
from tfmodels.tokenization.vocabulary import Vocabulary, to_list
from tfmodels.utils.text import quote


class IdsToText(Vocabulary):
    """Base of tokenizers: decoding."""

    errors: str
    clean_up_tokenization_spaces: bool
    # Files of byte-level vocabularies that name no class say clean_up_tokenization_spaces=true without meaning it: the
    # spaces of such texts are their own.
    _cleans_bpe: bool = False
    _lock: threading.Lock

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        *,
        spaces_between_special_tokens: bool = True,
    ) -> str | list[str]:
        """Turn ids into text.

        Args:
            token_ids: an id, a list of ids, a NumPy, tf or keras tensor of them; with two dimensions a list of texts
                is returned.
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: take out the spaces before punctuation and contractions. Default: the
                tokenizer's setting.
            spaces_between_special_tokens: accepted from scripts for Python tokenizers; here special tokens stand
                where the tokenizer's decoder puts them.

        Returns:
            The text, or a list of texts.

        Raises:
            ValueError: ids that are negative or no integers; bytes that are no UTF-8 where the option `errors` is
                "strict".
        """
        ids = to_list(token_ids)
        ids = ids if isinstance(ids, list) else [ids]
        is_batch = bool(ids) and isinstance(ids[0], list)
        try:
            rows = ids if is_batch else [ids]
            with self._lock:  # as for encoding: the backend must not be used while its settings change
                texts = self._tokenizer.decode_batch(rows, skip_special_tokens=skip_special_tokens)
            if self.errors != "replace":  # which is what the library does
                if type(self._tokenizer.decoder).__name__ != "ByteLevel":
                    raise ValueError(
                        f"errors={quote(self.errors)} is for byte-level tokenizers, which this one is not."
                    )
                texts = [self._bytes(row, skip_special_tokens).decode("utf-8", self.errors) for row in rows]
        except (OverflowError, TypeError) as error:
            raise ValueError(
                "token_ids must be token ids, integers from 0 on (labels of -100 must be replaced first); "
                f"got {str(ids)[:80]}."
            ) from error
        if clean_up_tokenization_spaces is None:
            is_bpe = type(self._tokenizer.model).__name__ == "BPE"
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces and (self._cleans_bpe or not is_bpe)
        if clean_up_tokenization_spaces:
            texts = [self.clean_up_tokenization(text) for text in texts]
        return texts if is_batch else texts[0]

    def _bytes(self, ids: list[int], skip_special_tokens: bool) -> bytes:
        """The bytes that byte-level tokens stand for."""
        added = self.added_tokens_decoder
        numbers = {letter: byte for byte, letter in enumerate(byte_characters())}
        out = bytearray()
        for index in ids:
            token = self._tokenizer.id_to_token(index) or ""
            if index in added or any(letter not in numbers for letter in token):
                out += b"" if skip_special_tokens and index in added and added[index].special else token.encode()
            else:
                out += bytes(numbers[letter] for letter in token)
        return bytes(out)

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        *,
        spaces_between_special_tokens: bool = True,
    ) -> list[str]:
        """Turn rows of ids into one text each; the arguments are those of `decode`."""
        rows = [row if isinstance(row, list) else [row] for row in to_list(sequences)]
        return self.decode(rows, skip_special_tokens, clean_up_tokenization_spaces) if rows else []

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        """Take out the spaces before punctuation and English contractions.

        Example:
            >>> IdsToText.clean_up_tokenization("i do n't know , really .")
            "i don't know, really."
        """
        for mark in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
            text = text.replace(mark, mark.strip())
        return text
