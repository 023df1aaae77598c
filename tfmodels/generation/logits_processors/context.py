"""The tokens so far, as logits processors see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from tfmodels.generation.logits_processors.arithmetic import Tensor


class Context(NamedTuple):
    """The tokens so far, in a buffer of fixed shape.

    Attributes:
        ids: (batch, capacity) int32, token ids; an id outside the vocabulary, as -1, stands for no token.
        start: scalar int32; columns before it are bucket padding and hold no tokens.
        end: scalar int32; columns from it on are not written yet.
        prompt_end: scalar int32; generated tokens begin at this column.
        attended: (batch, capacity) bool, False at the padding that is part of the prompt.
    """

    ids: Tensor
    start: Tensor
    end: Tensor
    prompt_end: Tensor
    attended: Tensor

    @property
    def length(self) -> Tensor:
        """Number of tokens so far, prompt included."""
        return self.end - self.start

    @property
    def new_tokens(self) -> Tensor:
        """Number of tokens generated so far."""
        return self.end - self.prompt_end


Processor = Callable[[Context, Tensor], Tensor]


def last_tokens(context: Context, count: int) -> Tensor:
    """(batch, count): the last tokens; arbitrary where there are fewer."""
    start = ops.maximum(context.end - count, 0)
    return ops.slice(context.ids, (0, start), (ops.shape(context.ids)[0], count))
