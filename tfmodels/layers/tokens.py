"""`TokenInputs`: the tokens of one pass through a model."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops


class TokenInputs(NamedTuple):
    """The tokens of one pass: ids, or embeddings in their place.

    Fields:
        ids: int (batch, length), or None.
        embeds: float (batch, length, hidden_size), or None.
        mask: as `attention_mask` of `tfmodels.kernels.masks.make_mask`; cached positions count as keys.
        positions: int (batch or 1, length); None counts on from the cache.
        types: int (batch, length), `token_type_ids` of the families that have them, or None.
        holders: as of `tfmodels.kernels.masks.AttentionMask`: rows of the cache that hold keys of other rows, or None.
    """

    ids: Any = None
    embeds: Any = None
    mask: Any = None
    positions: Any = None
    types: Any = None
    holders: Any = None

    @property
    def length(self) -> Any:
        """Number of tokens in a row, an int or int32 scalar."""
        return ops.shape(self.ids if self.embeds is None else self.embeds)[1]
