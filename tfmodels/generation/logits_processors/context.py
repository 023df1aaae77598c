"""The tokens so far, as logits processors see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from tfmodels.generation.logits_processors.arithmetic import Tensor
from tfmodels.layers.columns import take_columns


class Context(NamedTuple):
    """The tokens so far, in a buffer of fixed shape.

    The bounds are the same for all rows, or int32 (batch, 1), each row's own.

    Attributes:
        ids: (batch, capacity) int32, token ids; an id outside the vocabulary, as -1, stands for no token.
        start: scalar int32; columns before it hold no tokens: they are bucket padding, or embeddings of the prompt.
        end: scalar int32; columns from it on are not written yet.
        prompt_end: scalar int32; generated tokens begin at this column.
        attended: (batch, capacity) bool, False at the padding that is part of the prompt; None without padding.
    """

    ids: Tensor
    start: Tensor
    end: Tensor
    prompt_end: Tensor
    attended: Tensor

    @property
    def length(self) -> Tensor:
        """Number of tokens so far, those of the prompt included."""
        return self.end - self.start

    @property
    def new_tokens(self) -> Tensor:
        """Number of tokens generated so far."""
        return self.end - self.prompt_end

    @property
    def is_per_row(self) -> bool:
        """Whether every row has bounds of its own."""
        return len(getattr(self.end, "shape", ())) > 0


Processor = Callable[[Context, Tensor], Tensor]


def last_tokens(context: Context, count: int) -> Tensor:
    """(batch, count): the last tokens; where there are fewer -1 with bounds per row, and else arbitrary."""
    if context.is_per_row:
        columns = context.end - count + ops.expand_dims(ops.arange(count, dtype="int32"), 0)
        tokens = ops.take_along_axis(context.ids, ops.maximum(columns, 0), axis=1)
        return ops.where(columns >= context.start, tokens, -1)
    return take_columns(context.ids, ops.maximum(context.end - count, 0), count)
