"""Attention masks, kept as their parts until one tensor is needed.

A mask says which keys a query may see. Kernels take its parts (causal, window, which keys are padding), plain
attention takes one boolean tensor: `AttentionMask` holds the parts and makes the tensor on demand. Masks are boolean;
the only additive part is the finite values of a user's own 4-D float mask.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from keras import backend, ops

# An additive entry below this masks: the lowest values of float16 and beyond, as written by existing scripts.
_MASKED_BELOW = -1e4


@dataclasses.dataclass
class AttentionMask:
    """The keys that each query may see: those that every given part allows.

    Queries stand at key positions `offset` to `offset + query_length`.

    Fields:
        query_length, key_length: ints, or int32 scalars where the shape is dynamic.
        causal: no key after the query.
        window: only the last `window` keys up to the query, and those after it that the next field leaves.
        ahead: only the next `ahead` keys after the query; None for all.
        keys: bool (batch, key_length), False at padding.
        segments: int32 (batch or 1, query_length): queries see keys of their own segment (packed sequences).
        pairs: bool (batch or 1, heads or 1, query_length, key_length), a mask the user made whole.
        bias: float, as `pairs`, added to the scores where they are not masked.
        offset: key position of the first query: an int or int32 scalar, or int32 (batch,), one for each row.
        holders: for single queries of rows that share keys: bool (batch, sharing, key_length), whether the key and the
            value at a place are those of the n-th of the `sharing` neighbouring rows; None where each row has its own.
        fills: a query that sees nothing but padding attends equally to the padding within its window and to the tokens
            before its window, as GPT-Neo's additive masks have it. Otherwise it attends equally to all keys.
    """

    query_length: Any
    key_length: Any
    causal: bool = False
    window: int | None = None
    ahead: int | None = None
    keys: Any = None
    segments: Any = None
    pairs: Any = None
    bias: Any = None
    offset: Any = 0
    holders: Any = None
    fills: bool = False

    @functools.cached_property
    def _windowed(self) -> dict[tuple[int, int | None], AttentionMask]:
        return {}

    @functools.cached_property
    def allowed(self) -> Any:
        """The mask as one bool (batch or 1, heads or 1, query_length, key_length), or None if all is allowed."""
        near, given = self._in_reach[0], self._given
        if near is None or given is None:
            return given if near is None else near
        return ops.logical_and(near, given)

    @functools.cached_property
    def _given(self) -> Any:
        """Keys that padding, segments and the user's own mask allow, likewise, or None for all."""
        given = [] if self.keys is None else [ops.expand_dims(ops.expand_dims(self.keys, 1), 1)]
        if self.segments is not None:
            own = ops.equal(ops.expand_dims(self.segments, 2), ops.expand_dims(self.segments, 1))
            given.append(ops.expand_dims(own, 1))
        given += [] if self.pairs is None else [self.pairs]
        return functools.reduce(ops.logical_and, given) if given else None

    @functools.cached_property
    def filled(self) -> Any:
        """Keys that get equal weight from queries that see only padding, shaped as `allowed`; or None."""
        near, past = self._in_reach
        if not self.fills or past is None or self._given is None:
            return None
        rest = ops.logical_and(past, ops.logical_xor(near, self._given))
        return ops.logical_and(rest, ops.logical_not(ops.any(self.allowed, axis=-1, keepdims=True)))

    def sees(self) -> Any:
        """Whether a query sees any key, bool (batch or 1, heads or 1, queries, 1); None where every query does.

        Few layers ask, so nothing is kept: XLA makes one of equal results.
        """
        if self.pairs is None and self.keys is None:
            return None
        if self.pairs is not None or self._offset_per_row:
            return ops.any(self.allowed, axis=-1, keepdims=True)
        query = ops.arange(self.query_length, dtype="int32") + self.offset
        last = ops.full_like(query, self.key_length - 1)
        last = last if self.last_ahead is None else ops.minimum(last, query + self.last_ahead)
        first = ops.zeros_like(query) if self.window is None else ops.maximum(query - self.window + 1, 0)
        before = _sums_before(ops.cast(self.keys, "int32"))
        seen = ops.take(before, last + 1, axis=1) > ops.take(before, first, axis=1)
        return ops.expand_dims(ops.expand_dims(seen, 1), 3)

    def unseeing(self, value: Any) -> Any:
        """The output of a query that sees no key: the mean of all values, or of those that `fills` names.

        Args:
            value: (batch, heads, keys, head_dim).

        Returns:
            float32 (batch, heads, queries or 1, head_dim); wrong for queries that see a key.
        """
        value = ops.cast(value, "float32")
        if not self.fills:
            return ops.mean(value, axis=2, keepdims=True)
        query = ops.arange(self.query_length, dtype="int32") + self.offset
        first = ops.zeros_like(query) if self.window is None else ops.maximum(query - self.window + 1, 0)
        # All of the window is padding, so the tokens up to the query are those before its window.
        tokens = ops.cast(self.keys, "float32")
        ones, given = ops.reshape(ops.ones_like(tokens), (-1, 1, self.key_length, 1)), ops.expand_dims(tokens, (1, 3))

        def total(x: Any) -> Any:
            of_all, of_tokens = _sums_before(x, axis=2), _sums_before(x * given, axis=2)
            near = ops.take(of_all, query + 1, axis=2) - ops.take(of_all, first, axis=2)
            return near + ops.take(of_tokens, query + 1, axis=2)

        return total(value) / total(ones)

    @functools.cached_property
    def _in_reach(self) -> tuple[Any, Any]:
        """Keys that position alone allows, bool (1, 1, queries, keys) or None: in the window, and from the first."""
        if self.last_ahead is None and self.window is None:
            return None, None
        offset = ops.reshape(self.offset, (-1, 1, 1)) if self._offset_per_row else self.offset
        query = ops.expand_dims(ops.arange(self.query_length, dtype="int32"), 1) + offset
        key = ops.expand_dims(ops.arange(self.key_length, dtype="int32"), 0)
        past = None if self.last_ahead is None else _lead(key <= query + self.last_ahead)
        if self.window is None:
            return past, past
        near = _lead(key > query - self.window)
        return (near if past is None else ops.logical_and(past, near)), past

    @property
    def last_ahead(self) -> int | None:
        """The number of keys after itself that a query may see: none in a causal mask, all for None."""
        return 0 if self.causal else self.ahead

    @property
    def _offset_per_row(self) -> bool:
        return len(getattr(self.offset, "shape", ())) == 1

    def make_whole(self) -> None:
        """Make the whole tensors now: before functions are traced, of which each would make its own."""
        _ = self.allowed, self.filled

    def with_window(self, window: int, ahead: int | None = None) -> AttentionMask:
        """The same mask, further limited to the last `window` keys; one object for all layers that ask.

        `ahead` also limits the keys after the query, in a mask that is not causal.

        Example:
            >>> import numpy as np
            >>> mask = make_mask(None, causal=False, query_length=4, key_length=4).with_window(2, ahead=1)
            >>> np.asarray(mask.allowed)[0, 0].astype(int).tolist()
            [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
        """
        return self._windowed.setdefault((window, ahead), dataclasses.replace(self, window=window, ahead=ahead))

    def at_keys(self, positions: Any) -> AttentionMask:
        """The same mask over other keys.

        Args:
            positions: int32 (keys,), key positions of this mask in their new order; negative for a key that none sees.
        """
        index = ops.maximum(positions, 0)
        pairs = ops.reshape(positions >= 0, (1, 1, 1, -1))
        if self.allowed is not None:
            pairs = ops.logical_and(pairs, ops.take(self.allowed, index, axis=3))
        bias = None if self.bias is None else ops.take(self.bias, index, axis=3)
        holders = None if self.holders is None else ops.take(self.holders, index, axis=2)
        return AttentionMask(self.query_length, positions.shape[0], pairs=pairs, bias=bias, holders=holders)


def _sums_before(x: Any, axis: int = 1) -> Any:
    """Sums of the elements before each place of an axis, and of all of them: one place more."""
    room = [(1, 0) if place == axis else (0, 0) for place in range(len(x.shape))]
    return ops.pad(ops.cumsum(x, axis=axis), room)


def _lead(pairs: Any) -> Any:
    """Pairs (queries, keys) or (batch, queries, keys) with axes for rows and heads."""
    return ops.expand_dims(pairs if len(pairs.shape) == 3 else ops.expand_dims(pairs, 0), 1)


def make_mask(
    attention_mask: Any,
    *,
    causal: bool,
    query_length: Any,
    key_length: Any,
    offset: Any = 0,
    packed_positions: Any = None,
) -> AttentionMask:
    """The mask of one call from what the user gave.

    Args:
        attention_mask: None; (batch, keys) with nonzero for tokens, holes allowed; or (batch or 1, heads or 1,
            queries, keys): bool or integer with nonzero for visible, or float that is added to the scores. A 4-D mask
            is used as it is, without a causal mask.
        causal: whether the architecture is causal.
        query_length, key_length, offset: as in `AttentionMask`.
        packed_positions: (batch or 1, queries) int positions whose restarts separate packed sequences, or None.

    Raises:
        ValueError: the mask has another rank or a static size that does not fit; the message gives both.

    Example:
        >>> import numpy as np
        >>> mask = make_mask(np.array([[1, 1, 0]]), causal=True, query_length=3, key_length=3)
        >>> np.asarray(mask.allowed)[0, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    """
    sizes = {"query_length": query_length, "key_length": key_length, "offset": offset}
    if attention_mask is None:
        segments = None if packed_positions is None else segments_of(packed_positions)
        return AttentionMask(causal=causal, segments=segments, **sizes)
    attention_mask = ops.convert_to_tensor(attention_mask)
    shape = attention_mask.shape
    if len(shape) == 2:
        _check_size(shape[1], key_length, "(batch, keys)", shape)
        return AttentionMask(causal=causal, keys=ops.not_equal(attention_mask, 0), **sizes)
    if len(shape) != 4:
        raise ValueError(
            f"attention_mask has shape {tuple(shape)}; (batch, keys) or (batch, heads, queries, keys) was expected."
        )
    _check_size(shape[2], query_length, "(batch, heads, queries, keys)", shape)
    _check_size(shape[3], key_length, "(batch, heads, queries, keys)", shape)
    if not backend.is_float_dtype(backend.standardize_dtype(attention_mask.dtype)):
        return AttentionMask(pairs=ops.not_equal(attention_mask, 0), **sizes)
    pairs = attention_mask > _MASKED_BELOW
    return AttentionMask(pairs=pairs, bias=ops.where(pairs, attention_mask, 0), **sizes)


def _check_size(given: Any, expected: Any, layout: str, shape: Any) -> None:
    if isinstance(given, int) and isinstance(expected, int) and given != expected:
        raise ValueError(
            f"attention_mask has shape {tuple(shape)}, read as {layout}: {given} where {expected} was expected "
            f"(cached positions count as keys)."
        )


def segments_of(positions: Any) -> Any:
    """Number the sequences packed into each row: a new one begins wherever a position is not its predecessor plus one.

    Args:
        positions: int (batch, length).

    Returns:
        int32 (batch, length), 0 for the first sequence of a row.

    Example:
        >>> import numpy as np
        >>> np.asarray(segments_of(np.array([[0, 1, 2, 0, 1]]))).tolist()
        [[0, 0, 0, 1, 1]]
    """
    positions = ops.cast(positions, "int32")
    restarts = ops.not_equal(positions[:, 1:] - positions[:, :-1], 1)
    starts = ops.concatenate([ops.zeros_like(positions[:, :1]), ops.cast(restarts, "int32")], axis=1)
    return ops.cumsum(starts, axis=1)


def positions_from_mask(attention_mask: Any) -> Any:
    """Position of each token among the tokens of its row; padding gets 0.

    Args:
        attention_mask: (batch, length), nonzero for tokens.

    Returns:
        int32 (batch, length).

    Example:
        >>> import numpy as np
        >>> np.asarray(positions_from_mask(np.array([[0, 0, 1, 1, 1]]))).tolist()
        [[0, 0, 0, 1, 2]]
    """
    tokens = ops.cast(ops.not_equal(attention_mask, 0), "int32")
    return (ops.cumsum(tokens, axis=1) - 1) * tokens
