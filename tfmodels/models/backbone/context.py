"""`BlockContext` and `Pass`: the inputs and results of the blocks of a backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from tfmodels.cache import kv
from tfmodels.kernels.masks import AttentionMask
from tfmodels.layers.attention import AttentionPath, attend, merge_heads
from tfmodels.runtime.lowering import PLAIN, Lowering


@dataclasses.dataclass
class BlockContext:
    """The inputs of every block of one pass beside the hidden states, and its way to attention.

    It is no pytree on purpose: Keras leaves it alone at layer boundaries, where it would cast every float it finds.

    Fields:
        mask: which keys each query sees.
        positions: of the tokens, int (batch or 1, length).
        rotary: cosine and sine of the positions, for families with rotary embeddings; None in a block without.
        rotaries: `rotary` by its kind, where blocks differ in it.
        bias: float scores added in every block (ALiBi, relative positions), or None.
        cache_length: int32 scalar where a static cache is written; None for growing caches.
        return_weights: whether to return attention weights.
        head_mask: factors on the attention weights of this block, or None.
        past: this block's (key, value) so far, or None.
        training: as in Keras.
        implementation: of attention, see `tfmodels.layers.attention.attend`.
        lowering: see `tfmodels.runtime.lowering.Lowering`; layers take it as an argument of their call.
        record: how each block so far computed attention, or None.
    """

    mask: AttentionMask
    positions: Any = None
    rotary: tuple[Any, Any] | None = None
    rotaries: dict[str, tuple[Any, Any]] | None = None
    bias: Any = None
    cache_length: Any = None
    return_weights: bool = False
    head_mask: Any = None
    past: kv.LayerCache | None = None
    training: bool | None = None
    implementation: str = "auto"
    lowering: Lowering = PLAIN
    record: list[AttentionPath] | None = None

    def attend(
        self, query: Any, key: Any, value: Any, *, scale: float, dropout: Callable[..., Any]
    ) -> tuple[Any, kv.LayerCache, Any]:
        """Attention over this block's cached keys and values and the new ones.

        Args:
            query, key, value: of this pass's tokens, (batch, heads, length, head_dim).
            scale, dropout: as in `tfmodels.layers.attention.attend`.

        Returns:
            (batch, length, heads * head_dim), the (key, value) to cache, and the weights or None.
        """
        cache = kv.extend(self.past, key, value, self.cache_length)
        mask, room = self.mask, cache[0].shape[2]
        if self.cache_length is not None and room != mask.key_length:
            if query.shape[2] != 1:
                raise ValueError(
                    f"a cache that keeps {room} positions takes one token at a time; got {query.shape[2]}."
                )
            mask = mask.at_keys(kv.slot_positions(room, self.cache_length + 1))
        output, weights = attend(
            query,
            *cache,
            mask=mask,
            scale=scale,
            bias=self.bias,
            head_mask=self.head_mask,
            dropout=dropout,
            training=self.training,
            implementation=self.implementation,
            return_weights=self.return_weights,
            lowering=self.lowering,
            record=self.record,
        )
        return merge_heads(output), cache, weights


class Pass(NamedTuple):
    """The results of one pass through all blocks.

    Fields:
        hidden: (batch, length, hidden_size).
        caches: per block (key, value), or None for encoders.
        states: the hidden states *before* each block, or none.
        weights: attention weights per block, or None.
    """

    hidden: Any
    caches: tuple[kv.LayerCache | None, ...]
    states: tuple[Any, ...]
    weights: tuple[Any, ...] | None


class AttentionLog:
    """The attention paths of the blocks in the last call, or in the last program traced.

    A plain object, whose changes Keras does not track.
    """

    def __init__(self):
        self.paths: tuple[AttentionPath, ...] = ()
