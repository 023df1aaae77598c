"""Key/value caches: plain pytrees, so that they pass through graphs, exports and user code alike.

A *growing* cache is what models return as `past_key_values`: a tuple with one `(key, value)` pair per layer, each
(batch, key_value_heads, length, head_dim). A `StaticCache` has room for a fixed number of positions, of which the
first `length` are filled: its shapes never change, as a compiled loop needs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from tfmodels.cache.int8 import Int8, rounded
from tfmodels.utils.text import quote

LayerCache = tuple[Any, Any]


class StaticCache(NamedTuple):
    """A cache of fixed capacity.

    Fields:
        layers: one (key, value) pair per layer, each (batch, key_value_heads, room, head_dim), or `Int8` of that
            shape. The first layer's room is the capacity, for which masks are made; a layer with less keeps the last
            positions (`slot_positions`).
        length: int32 scalar, number of filled positions, the same for all rows; or int32 (batch,), each row's own, for
            calls with one token and layers that all keep the capacity.
    """

    layers: tuple[LayerCache, ...]
    length: Any


def to_static(
    layers: tuple[LayerCache, ...],
    capacity: int,
    windows: tuple[int | None, ...] | None = None,
    *,
    int8: bool = False,
) -> StaticCache:
    """A growing cache with room added at its end.

    Args:
        layers: (key, value) pairs, each (batch, key_value_heads, length, head_dim).
        capacity: positions in all, at least `length`.
        windows: per layer how many of the last positions it needs, None for all. A layer that keeps fewer than
            `capacity` takes one token at a time, and going back to a smaller `length` misses what it has forgotten.
        int8: keep keys and values in eight bits.
    """
    length = room_of(layers[0])
    rooms = [min(capacity, window or capacity) for window in windows or [None] * len(layers)]
    if int8:
        layers = tuple(tuple(x if isinstance(x, Int8) else rounded(x) for x in pair) for pair in layers)
    fitted = tuple(
        keras.tree.map_structure(lambda x, room=room: _fit(x, room), pair)
        for pair, room in zip(layers, rooms, strict=True)
    )
    return StaticCache(fitted, ops.convert_to_tensor(length, "int32"))


def _fit(x: Any, room: int) -> Any:
    length = x.shape[2]
    if length <= room:
        return ops.pad(x, ((0, 0), (0, 0), (0, room - length), (0, 0)))
    return ops.take(x, slot_positions(room, length), axis=2)


def room_of(layer: LayerCache) -> Any:
    """The number of positions that a layer has room for: an int where it is known when a program is traced."""
    return ops.shape(keras.tree.flatten(layer)[0])[2]


def slot_positions(room: int, length: Any) -> Any:
    """The position that each slot of a layer with `room` slots holds: position p is written to slot p % room.

    Args:
        length: number of positions so far, an int or int32 scalar.

    Returns:
        int32 (room,), negative where nothing was written.

    Example:
        >>> [slot_positions(4, length).numpy().tolist() for length in (3, 4, 6)]
        [[0, 1, 2, -1], [0, 1, 2, 3], [4, 5, 2, 3]]
    """
    last = length - 1
    return last - ops.mod(last - ops.arange(room, dtype="int32"), room)


def layers_of(past_key_values: Any) -> tuple[LayerCache, ...]:
    """The (key, value) pairs of either kind of cache.

    Raises:
        TypeError: it is no cache.
    """
    if isinstance(past_key_values, StaticCache):
        return past_key_values.layers
    if not isinstance(past_key_values, (list, tuple)) or not all(map(_is_pair, past_key_values)):
        raise TypeError(
            f"past_key_values={quote(past_key_values)}; what a model returned as past_key_values was expected: a pair "
            f"of keys and values, (batch, heads, length, head_dim), for each layer."
        )
    return tuple(past_key_values)


def _is_pair(layer: Any) -> bool:
    return isinstance(layer, (list, tuple)) and len(layer) == 2


def filled_length(past_key_values: Any) -> Any:
    """The number of positions in a cache (or None): an int, or an int32 scalar for a static cache."""
    if past_key_values is None:
        return 0
    if isinstance(past_key_values, StaticCache):
        return past_key_values.length
    return ops.shape(past_key_values[0][0])[2]


def check_room(past_key_values: Any, new: Any) -> None:
    """Raise ValueError where a static cache is known to be too full for `new` further positions.

    A static cache written past its room would silently lose its oldest positions. Both numbers are checked where
    their values are known; inside a graph nothing is checked.

    Example:
        >>> import numpy as np
        >>> room = np.zeros((1, 1, 4, 2), "float32")
        >>> check_room(StaticCache(((room, room),), np.int32(3)), 2)
        Traceback (most recent call last):
            ...
        ValueError: the cache has room for 4 positions, of which 3 are filled; 2 more do not fit.
    """
    if not isinstance(past_key_values, StaticCache):
        return
    room, filled = room_of(past_key_values.layers[0]), past_key_values.length
    if ops.is_tensor(filled):
        filled = int(ops.max(filled)) if hasattr(filled, "numpy") else None
    if filled is not None and isinstance(new, int) and isinstance(room, int) and filled + new > room:
        raise ValueError(
            f"the cache has room for {room} positions, of which {int(filled)} are filled; {new} more do not fit."
        )


def grown(past_key_values: Any, layers: tuple[LayerCache, ...], new: Any) -> Any:
    """The cache after a pass of `new` tokens, of the kind that went in, from the (key, value) pairs of its blocks."""
    if isinstance(past_key_values, StaticCache):
        return StaticCache(layers, past_key_values.length + new)
    return layers


def extend(past: LayerCache | None, key: Any, value: Any, length: Any = None) -> LayerCache:
    """Keys and values of one layer with new ones added.

    Args:
        past: the layer's (key, value) so far, or None; new ones are rounded where it is `Int8`.
        key, value: new ones, (batch, key_value_heads, new, head_dim).
        length: None to append; for a static cache the int32 scalar of positions so far, or one per row, (batch,), for
            one new position. Writing has no gradient.

    Returns:
        (key, value): longer tensors, or tensors of the same capacity with the new positions filled.
    """
    if past is None:
        return key, value
    if length is None:
        return tuple(
            ops.concatenate([ops.cast(old, new.dtype), new], axis=2)
            for old, new in zip(past, (key, value), strict=True)
        )
    new = tuple(rounded(x) if isinstance(old, Int8) else x for old, x in zip(past, (key, value), strict=True))
    if len(length.shape) == 1:
        return keras.tree.map_structure(lambda old, x: _written_per_row(old, x, length), past, new)
    slot = ops.mod(length, room_of(past))

    def written(old: Any, x: Any) -> Any:
        merged = ops.slice_update(_merge_rows(old), (0, slot, 0), ops.cast(_merge_rows(x), old.dtype))
        return _split_rows(merged, old.shape[0])

    return keras.tree.map_structure(written, past, new)


def _written_per_row(old: Any, new: Any, slots: Any) -> Any:
    """A cache's tensor with one new position (batch, heads, 1, head_dim) at each row's own slot, int32 (batch,)."""
    batch, heads, _, _ = old.shape
    places = ops.stack([ops.arange(batch * heads, dtype="int32"), ops.repeat(slots, heads)], axis=1)
    written = ops.scatter_update(_merge_rows(old), places, ops.cast(_merge_rows(new)[:, 0], old.dtype))
    return _split_rows(written, batch)


def merge_rows(cache: StaticCache) -> StaticCache:
    """A cache whose tensors are (batch * key_value_heads, room, head_dim), as a compiled loop carries it.

    Attention's products have one batch axis. If the loop carried two, XLA would copy the whole cache at every token to
    write the form that it carries and the form that it reads; this way it writes one, in place.
    """
    return _mapped(_merge_rows, cache)


def split_rows(cache: StaticCache, batch: int) -> StaticCache:
    """`merge_rows` undone."""
    return _mapped(lambda x: _split_rows(x, batch), cache)


def gather_rows(cache: StaticCache, rows: Any, batch: int | None = None) -> StaticCache:
    """A cache with merged rows whose row r is the row `rows[r]` of this one.

    Args:
        cache: of `batch` rows.
        rows: int32 (n,).
        batch: default n.
    """
    batch = rows.shape[0] if batch is None else batch

    def gathered(x: Any) -> Any:
        return _merge_rows(ops.take(_split_rows(x, batch), rows, axis=0))

    return _mapped(gathered, cache)


def gather_held(cache: StaticCache, holders: Any) -> StaticCache:
    """A cache with merged rows, each of which has the keys and values that other rows held for it.

    Args:
        cache: of layers that all keep the capacity.
        holders: bool (batch, sharing, capacity), see `tfmodels.kernels.masks.AttentionMask`.
    """
    batch, sharing, room = holders.shape
    index = ops.reshape(ops.argmax(ops.cast(holders, "int32"), axis=1), (-1, sharing, 1, room, 1))

    def gathered(x: Any) -> Any:
        x = _split_rows(x, batch)
        apart = ops.reshape(x, (-1, sharing, *x.shape[1:]))
        return _merge_rows(ops.reshape(ops.take_along_axis(apart, index, axis=1), x.shape))

    return _mapped(gathered, cache)


def repeat_rows(cache: StaticCache, batch: int, times: int) -> StaticCache:
    """A cache with merged rows, of which each comes so many times, one after the other."""

    def repeated(x: Any) -> Any:
        return _merge_rows(ops.repeat(_split_rows(x, batch), times, axis=0))

    return _mapped(repeated, cache)


def take_part(layers: tuple[LayerCache, ...], rows: Any, columns: int) -> tuple[LayerCache, ...]:
    """A copy of the first positions of some rows.

    Args:
        layers: (key, value) pairs, each (batch, key_value_heads, room, head_dim).
        rows: int32 (n,).
        columns: number of positions, at most the room.

    Returns:
        Pairs of (n, key_value_heads, columns, head_dim).
    """
    return keras.tree.map_structure(lambda x: ops.take(x, rows, axis=0)[:, :, :columns], layers)


def put_part(
    layers: tuple[LayerCache, ...], part: tuple[LayerCache, ...], rows: Any, starts: Any, count: int, active: Any
) -> tuple[LayerCache, ...]:
    """The layers with a few positions of what `take_part` took, written back in place under XLA.

    Args:
        layers, part, rows: as of `take_part`, each row once.
        starts: int32 (n,), the first position to write of each row; all positions exist in `part`.
        count: positions of each row.
        active: bool (n,), rows that are written; the others stay as they are.
    """
    positions = ops.expand_dims(starts, 1) + ops.arange(count, dtype="int32")
    of_part = ops.arange(rows.shape[0], dtype="int32")

    @functools.cache  # once for all layers: plain graphs are smaller, and sooner ready
    def places(heads: int, room: int, of_whole: bool) -> Any:
        """The positions' places in a tensor whose first three axes are one, int32 (n * heads * count,)."""
        of_heads = ops.expand_dims((rows if of_whole else of_part) * heads, 1) + ops.arange(heads, dtype="int32")
        return ops.reshape(ops.expand_dims(of_heads * room, 2) + ops.expand_dims(positions, 1), (-1,))

    @functools.cache
    def written(heads: int) -> Any:
        return ops.expand_dims(ops.repeat(active, heads * count), 1)

    def put(whole: Any, taken: Any) -> Any:
        _, heads, room, head_dim = whole.shape
        flat, targets = ops.reshape(whole, (-1, head_dim)), places(heads, room, True)
        new = ops.take(ops.reshape(taken, (-1, head_dim)), places(heads, taken.shape[2], False), axis=0)
        new = ops.where(written(heads), ops.cast(new, whole.dtype), ops.take(flat, targets, axis=0))
        return ops.reshape(ops.scatter_update(flat, ops.expand_dims(targets, 1), new), whole.shape)

    return keras.tree.map_structure(put, layers, part)


def _mapped(change: Callable[[Any], Any], cache: StaticCache) -> StaticCache:
    return cache._replace(layers=tuple(keras.tree.map_structure(change, tuple(layer)) for layer in cache.layers))


def _merge_rows(x: Any) -> Any:
    batch, heads, length, head_dim = x.shape
    return ops.reshape(x, (-1 if batch is None else batch * heads, length, head_dim))


def _split_rows(x: Any, batch: int | None) -> Any:
    rows, length, head_dim = x.shape
    return ops.reshape(x, (batch, rows // batch, length, head_dim))
