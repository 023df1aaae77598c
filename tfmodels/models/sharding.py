"""The layers of a family that tensor parallelism splits over devices."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sharding:
    """Regular expressions for the ends of layers' paths, by the role that the layers play.

    Fields:
        queries: projections whose columns belong to attention heads; a fused projection of queries, keys and values
            is one of them.
        keys_and_values: projections of keys and values where they are apart, split only if every device gets a head.
        attended: the projection after attention, split by rows.
        widened: projections into the feed-forward block, split by columns.
        narrowed: the projection out of it, split by rows.
        tokens: the embedding table, split by tokens.
        scores: the output layer, split by tokens.
    """

    queries: str
    attended: str
    widened: str
    narrowed: str
    tokens: str
    keys_and_values: str | None = None
    scores: str = "lm_head"
