"""Turns ids into texts."""

from __future__ import annotations

import threading
from typing import Any

from tfmodels.tokenization.vocabulary import Vocabulary, to_list


class IdsToText(Vocabulary):
    """Base of tokenizers: decoding."""

    clean_up_tokenization_spaces: bool
    _lock: threading.Lock

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str | list[str]:
        """Turn ids into text.

        Args:
            token_ids: an id, a list of ids, a NumPy, tf or keras tensor of them; with two dimensions a list of texts
                is returned.
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: take out the spaces before punctuation and contractions. Default: the
                tokenizer's setting, except for BPE, whose texts have their own spaces.

        Returns:
            The text, or a list of texts.

        Raises:
            ValueError: ids that are negative or no integers.
        """
        ids = to_list(token_ids)
        ids = ids if isinstance(ids, list) else [ids]
        is_batch = bool(ids) and isinstance(ids[0], list)
        try:
            with self._lock:  # as for encoding: the backend must not be used while its settings change
                texts = self._tokenizer.decode_batch(
                    ids if is_batch else [ids], skip_special_tokens=skip_special_tokens
                )
        except (OverflowError, TypeError) as error:
            raise ValueError(
                "token_ids must be token ids, integers from 0 on (labels of -100 must be replaced first); "
                f"got {str(ids)[:80]}."
            ) from error
        if clean_up_tokenization_spaces is None:
            is_bpe = type(self._tokenizer.model).__name__ == "BPE"
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces and not is_bpe
        if clean_up_tokenization_spaces:
            texts = [self.clean_up_tokenization(text) for text in texts]
        return texts if is_batch else texts[0]

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
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
