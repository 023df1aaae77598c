"""Embeddings of token ids: by a sentence encoder, or as the mean of a language model's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.runtime.buckets import bucket_batch, bucket_length

BATCH = 16


def _padded(rows: Sequence[Sequence[int]], pad: int, longest: int) -> tuple[Any, Any]:
    """Ids and mask, int32 (batch, length), of a few shapes."""
    batch, length = bucket_batch(len(rows)), min(bucket_length(max(map(len, rows))), longest)
    ids, mask = np.full((batch, length), pad, "int32"), np.zeros((batch, length), "int32")
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


class Encoder:
    """A sentence encoder over ids.

    Args:
        encoder: a `SentenceEncoder`.
    """

    def __init__(self, encoder: Any):
        self._encoder = encoder
        limits = (encoder.settings.max_seq_length, encoder.model.backbone.longest_input)
        self.longest = min((limit for limit in limits if limit), default=encoder.model.config.max_position_embeddings)
        self.dimension = encoder.dimension

    def encode(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Vectors of up to `BATCH` texts, float32 (texts, dimension)."""
        encoder = self._encoder
        ids, mask = _padded(rows, encoder.tokenizer.pad_token_id or 0, self.longest)
        vectors = encoder(input_ids=ids, attention_mask=mask, training=False).sentence_embedding
        return ops.convert_to_numpy(ops.cast(vectors, "float32"))[: len(rows), : self.dimension]

    def ids(self, text: str) -> list[int]:
        """The ids of a text, as `SentenceEncoder.encode` reads it; not cut."""
        settings = self._encoder.settings
        text = (settings.prompts.get(settings.default_prompt_name, "") + text).strip()
        text = text.lower() if settings.lower_case else text
        return self._encoder.tokenizer(text, truncation=False)["input_ids"]


class MeanPooling:
    """The mean over a text's tokens of a language model's last hidden states.

    Args:
        model: a causal language model.
        tokenizer: of the model.
        longest: tokens of a text.
    """

    def __init__(self, model: Any, tokenizer: Any, longest: int):
        self._model, self._tokenizer, self.longest = model, tokenizer, longest
        self.dimension = model.config.hidden_size

    def encode(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Vectors of up to `BATCH` texts, float32 (texts, dimension)."""
        ids, mask = _padded(rows, self._tokenizer.pad_token_id or 0, self.longest)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=1,
            return_dict=True,
            training=False,
        )
        hidden = ops.convert_to_numpy(ops.cast(output.hidden_states[-1], "float32"))
        weights = mask[:, :, None].astype("float32")
        return ((hidden * weights).sum(1) / np.maximum(weights.sum(1), 1))[: len(rows)]

    def ids(self, text: str) -> list[int]:
        """The ids of a text."""
        return self._tokenizer(text)["input_ids"]
