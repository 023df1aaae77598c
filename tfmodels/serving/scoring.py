"""Log probabilities of a text's own tokens, which `echo` with `logprobs` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from tfmodels.runtime.buckets import bucket_length

# Positions whose scores over the vocabulary are in memory at a time.
_POSITIONS = 128


class Scored(NamedTuple):
    """A token of a text.

    Fields:
        token: its id.
        logprob: given the tokens before it; None for the first.
        top: pairs (token id, log probability) of the most probable tokens there, the best first.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


def score(model: Any, ids: Sequence[int], best: int, longest: int) -> list[Scored]:
    """Score every token of a text.

    Args:
        model: a causal language model.
        ids: of the text.
        best: how many of the most probable tokens are told with each.
        longest: tokens that the model is run on at most.
    """
    padded = np.zeros((1, min(bucket_length(len(ids)), longest)), "int32")
    padded[0, : len(ids)] = ids
    output = model(
        input_ids=padded,
        attention_mask=(np.arange(padded.shape[1]) < len(ids)).astype("int32")[None],
        use_cache=False,
        output_hidden_states=True,
        logits_to_keep=1,
        return_dict=True,
        training=False,
    )
    hidden, found = output.hidden_states[-1], [Scored(ids[0], None, ())]
    for start in range(0, len(ids) - 1, _POSITIONS):
        targets = np.asarray(ids[start + 1 : start + 1 + _POSITIONS])
        scores = model.to_logits(hidden[:, start : start + len(targets)])
        logs = ops.convert_to_numpy(ops.log_softmax(ops.cast(scores[0], "float32")))
        order = np.argsort(-logs, axis=1, kind="stable")[:, :best]
        for row, token, top in zip(logs, targets.tolist(), order.tolist(), strict=True):
            found.append(Scored(token, float(row[token]), tuple((one, float(row[one])) for one in top)))
    return found
