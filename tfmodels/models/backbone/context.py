"""`BlockContext` and `Pass`: the inputs and results of the blocks of a backbone."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops
from keras.backend import standardize_dtype

from tfmodels.cache import kv
from tfmodels.cache.int8 import Int8, whole
from tfmodels.kernels import decoding
from tfmodels.kernels.decoding import Heads
from tfmodels.kernels.masks import AttentionMask
from tfmodels.layers import few_rows
from tfmodels.layers.attention import AttentionPath, attend, choose, merge_heads, split_heads
from tfmodels.layers.linear import Linear, project
from tfmodels.layers.rotary import rotate
from tfmodels.runtime import device
from tfmodels.runtime.lowering import PLAIN, Lowering
from tfmodels.utils.warn import warn


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
        if self._decodes_in_place(query, key, dropout):
            heads = query.shape[1]
            apart = [merge_heads(x) for x in (query, key, value)]
            apart = [Heads(ops.reshape(x, (1, x.shape[0], x.shape[2])), query.shape[3], 0) for x in apart]
            return self._decode_in_place(apart, heads, scale, None)
        cache = kv.extend(self.past, key, value, self.cache_length)
        mask, room = self.mask, kv.room_of(cache)
        if self.cache_length is not None and room != mask.key_length:
            if query.shape[2] != 1:
                raise ValueError(
                    f"a cache that keeps {room} positions takes one token at a time; got {query.shape[2]}."
                )
            mask = mask.at_keys(kv.slot_positions(room, self.cache_length + 1))
        output, weights = attend(
            query,
            *map(whole, cache),
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

    def project_and_attend(
        self,
        inputs: Any,
        projections: Sequence[Linear],
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        dropout: Callable[..., Any],
    ) -> tuple[Any, kv.LayerCache, Any]:
        """`attend` with queries, keys and values that are projections of the same inputs, turned by `rotary`.

        Args:
            inputs: (batch, length, width).
            projections: three layers; or one, whose outputs are each head's query, key and value side by side.
            heads, kv_heads, head_dim: sizes of the queries, and of keys and values.
            scale, dropout: as for `attend`.
        """
        batch, length, _ = inputs.shape
        if batch is not None and length == 1 and self.past is not None:
            matrices = few_rows.matrices_of(inputs, projections, self.lowering)
            query, key = (_Like((batch, n, 1, head_dim), inputs.dtype) for n in (heads, kv_heads))
            if matrices is not None and self._decodes_in_place(query, key, dropout):
                parts = decoding.products_in_parts(inputs, matrices, few_rows.biases_of(projections))
                if len(projections) == 1:
                    places = [(3 * head_dim, index * head_dim) for index in range(3)]
                else:
                    places = [(head_dim, n * head_dim) for n in (0, heads, heads + kv_heads)]
                projected = [Heads(parts, *place) for place in places]
                return self._decode_in_place(projected, heads, scale, self.rotary)
        if len(projections) == 1:
            fused = split_heads(projections[0](inputs, lowering=self.lowering), heads)
            query, key, value = ops.split(fused, 3, axis=-1)
        else:
            apart = project(inputs, *projections, lowering=self.lowering)
            query, key, value = map(split_heads, apart, (heads, kv_heads, kv_heads))
        if self.rotary is not None:
            query, key = rotate(query, *self.rotary), rotate(key, *self.rotary)
        return self.attend(query, key, value, scale=scale, dropout=dropout)

    def _decodes_in_place(self, query: Any, key: Any, dropout: Callable[..., Any]) -> bool:
        """Whether one kernel can write a token into the static cache and attend to it.

        Args:
            query, key: of the token, of which shapes and dtypes are looked at.
            dropout: as for `attend`.
        """
        if self.lowering.xla_target != "triton" or self.cache_length is None or self.past is None:
            return False
        if query.shape[2] != 1 or isinstance(self.past[0], Int8):
            return False
        if standardize_dtype(key.dtype) != standardize_dtype(self.past[0].dtype):
            return False
        path = choose(
            self.implementation,
            query,
            self.past[0],
            mask=self.mask,
            bias=self.bias,
            head_mask=self.head_mask,
            drops=bool(self.training) and dropout.rate > 0,
            return_weights=self.return_weights,
            lowering=self.lowering,
        )
        return path.name == "decode"

    def _decode_in_place(
        self, projected: Sequence[Heads], heads: int, scale: float, rotary: tuple[Any, Any] | None
    ) -> tuple[Any, kv.LayerCache, None]:
        mask, room = self.mask, kv.room_of(self.past)
        if room != mask.key_length:
            mask = mask.at_keys(kv.slot_positions(room, self.cache_length + 1))
        options = {"heads": heads, "scale": scale, "rotary": rotary, "bias": self.bias}
        output, cache = decoding.cached_attention(
            tuple(projected), self.past, self.cache_length, mask.allowed, **options
        )
        if self.record is not None:
            self.record.append(AttentionPath("decode"))
        return output, cache, None


class _Like(NamedTuple):
    """The shape and dtype of a tensor that is not made yet."""

    shape: tuple[int, ...]
    dtype: Any


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

    def note(self, paths: Sequence[AttentionPath], *, training: bool | None) -> None:
        """Keep the paths of a call; where it trains on a GPU, warn once of each reason that kept off fused kernels."""
        self.paths = tuple(paths)
        if training and any(path.reason for path in paths) and device.on_gpu():
            _warn_of_fallback(self.report())

    def report(self) -> str:
        """The paths and their reasons, a line for each kind; empty before the first call."""
        return "\n".join(
            f"{count} block{'s' if count > 1 else ''}: {name}{f' ({reason})' if reason else ''}"
            for (name, reason), count in Counter(self.paths).items()
        )


@functools.cache
def _warn_of_fallback(report: str) -> None:
    warn(
        f"training on a GPU computes attention without the fused kernels, slower and in more memory: {report}. "
        f"attn_implementation='flash' takes kernels of Triton where cuDNN's do not serve; 'eager' silences this."
    )
