"""Checks of the inputs of a backbone."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from tfmodels.models.calling import value_range, values_of


def as_rows(position_ids: Any) -> Any:
    """Positions that a caller gave, int32 (batch or 1, length); one axis is one row for all."""
    position_ids = ops.cast(position_ids, "int32")
    return ops.expand_dims(position_ids, 0) if len(position_ids.shape) == 1 else position_ids


def exactly_one_input(input_ids: Any, inputs_embeds: Any, vocab_size: int) -> None:
    """Check that ids or embeddings are given, and not both.

    Values are looked at where there are some now. Inside a graph an id beyond the vocabulary looks up whatever the
    backend makes of it (an error on a CPU, zeros on a GPU, the last row under XLA), and NaN goes on to the outputs.

    Raises:
        ValueError: both or neither were given, the rank is wrong, ids lie outside the vocabulary, or embeddings are
            NaN.
    """
    if (input_ids is None) == (inputs_embeds is None):
        given = "both" if input_ids is not None else "neither"
        raise ValueError(f"exactly one of input_ids and inputs_embeds is needed; {given} was given.")
    if inputs_embeds is not None:
        if len(inputs_embeds.shape) != 3:
            raise ValueError(
                f"inputs_embeds has shape {tuple(inputs_embeds.shape)}; (batch, length, hidden_size) was expected."
            )
        values = values_of(inputs_embeds)
        if values is not None and np.isnan(values).any():
            row, column, _ = np.argwhere(np.isnan(values))[0]
            raise ValueError(f"inputs_embeds holds NaN, first in row {row} at position {column}.")
        return
    if len(input_ids.shape) != 2:
        raise ValueError(f"input_ids has shape {tuple(input_ids.shape)}; (batch, length) was expected.")
    check_ids(input_ids, vocab_size)


def check_ids(input_ids: Any, vocab_size: int) -> None:
    """Raise ValueError where ids are known to lie outside the vocabulary."""
    lowest, highest = value_range(input_ids) or (0, 0)
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(f"input_ids run from {lowest} to {highest}; the vocabulary has ids 0 to {vocab_size - 1}.")
