"""The tokens of the engine's rows as its programs know them, and what they return."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from tfmodels.generation.request import MOST_LOGPROBS
from tfmodels.generation.sampling import highest
from tfmodels.runtime.device import host_tensor


class Text(NamedTuple):
    """The tokens of every row, and the log-probabilities of those of this call.

    Fields:
        ids: int32 (rows, columns), prompt and new tokens from column 0 on.
        prompt_lengths: int32 (rows,).
        logprobs: float32 (rows, steps), of the tokens of this call.
        top_ids, top: int32 and float32 (rows, steps, n), the most probable tokens and their log-probabilities.
    """

    ids: Any
    prompt_lengths: Any
    logprobs: Any
    top_ids: Any
    top: Any


class Decoded(NamedTuple):
    """The results of a call, as arrays.

    Fields:
        tokens: int32 (rows, columns).
        made: int (rows,), how many each row has made.
        logprobs, top_ids, top: as in `Text`; None where the kind of programs knows none.
    """

    tokens: np.ndarray
    made: np.ndarray
    logprobs: np.ndarray | None = None
    top_ids: np.ndarray | None = None
    top: np.ndarray | None = None


def start_text(ids: np.ndarray, prompt_lengths: np.ndarray, steps: int, vocab_size: int) -> Text:
    """The text of rows before a call.

    Args:
        ids, prompt_lengths: as in `Text`.
        steps: at most of the call.
        vocab_size: of the model.
    """
    rows, most = len(ids), min(MOST_LOGPROBS, vocab_size)
    return Text(
        host_tensor(ids),
        host_tensor(prompt_lengths),
        logprobs=ops.zeros((rows, steps), "float32"),
        top_ids=ops.zeros((rows, steps, most), "int32"),
        top=ops.zeros((rows, steps, most), "float32"),
    )


def recorded(text: Text, logits: Any, tokens: Any, columns: Any, step: Any) -> Text:
    """The text with one token more per row, at each row's own column, and the log-probabilities there."""
    logs = ops.log_softmax(logits, axis=-1)
    logs = ops.where(ops.isnan(logs), -np.inf, logs)
    own = ops.take_along_axis(logs, ops.expand_dims(ops.maximum(tokens, 0), 1), axis=1)
    top, top_ids = highest(logs, text.top.shape[2])
    is_new = ops.arange(text.ids.shape[1], dtype="int32") == ops.expand_dims(columns, 1)
    return text._replace(
        ids=ops.where(is_new, ops.expand_dims(tokens, 1), text.ids),
        logprobs=ops.slice_update(text.logprobs, (0, step), own),
        top_ids=ops.slice_update(text.top_ids, (0, step, 0), ops.expand_dims(top_ids, 1)),
        top=ops.slice_update(text.top, (0, step, 0), ops.expand_dims(top, 1)),
    )


def decoded_of(tokens: Any, made: Any, text: Text | None) -> Decoded:
    """The results of a call, once the device has them."""
    records = () if text is None else (text.logprobs, text.top_ids, text.top)
    return Decoded(*map(np.asarray, (tokens, made, *records)))
