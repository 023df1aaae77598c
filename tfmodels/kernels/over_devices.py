"""Attention of JAX on the devices of a `keras.distribution`: each computes its own rows and heads.

JAX partitions what it compiles, but fused kernels only for some layouts of their operands. Here the parts are cut
before: within `shard_map` a kernel sees the tensors of one device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras


def over_devices(
    compute: Callable[..., Any], query: Any, key: Any, value: Any, *, bias: Any = None, mask: Any = None
) -> Any:
    """Call an attention on every device of the current distribution with its own part.

    Rows are split over the axis of the batch and heads over the other axes, where they divide; a device that holds
    fewer query heads than share a key/value head takes that one.

    Args:
        compute: the attention, called with `query`, `key` and `value` by place, `bias` and `mask` by name.
        query: (batch, length, heads, head_dim).
        key, value: (batch, length, key_value_heads, head_dim).
        bias, mask: (batch or 1, heads or 1, length, length), or None.

    Returns:
        (batch, length, heads, head_dim).
    """
    import jax

    distribution = keras.distribution.distribution()
    mesh, batch_axis = distribution.device_mesh.backend_mesh, distribution.batch_dim_name
    other_axes = tuple(name for name in mesh.axis_names if name != batch_axis)
    heads, key_value_heads = query.shape[2], key.shape[2]
    group, devices = heads // key_value_heads, math.prod(mesh.shape[name] for name in other_axes)
    own = heads // devices
    by_rows = batch_axis if query.shape[0] % mesh.shape[batch_axis] == 0 else None
    divides = heads % devices == 0 and (own % group == 0 or group % own == 0)
    by_heads = other_axes if other_axes and divides else None
    keys_by_heads = by_heads if key_value_heads % devices == 0 else None
    terms = {name: term for name, term in (("bias", bias), ("mask", mask)) if term is not None}

    def part_of(term: Any) -> Any:
        rows, count = term.shape[:2]
        return jax.sharding.PartitionSpec(by_rows if rows > 1 else None, by_heads if count > 1 else None)

    def on_device(query: Any, key: Any, value: Any, terms: dict[str, Any]) -> Any:
        if by_heads is not None and keys_by_heads is None:
            first, count = jax.lax.axis_index(other_axes) * own // group, max(1, own // group)
            key, value = (jax.lax.dynamic_slice_in_dim(x, first, count, axis=2) for x in (key, value))
        return compute(query, key, value, **terms)

    queries, keys = (jax.sharding.PartitionSpec(by_rows, None, split) for split in (by_heads, keys_by_heads))
    parts = {name: part_of(term) for name, term in terms.items()}
    # Kernels do not say over which axes their results vary, which JAX would check.
    options = {"mesh": mesh, "in_specs": (queries, keys, keys, parts), "out_specs": queries, "check_vma": False}
    return jax.shard_map(on_device, **options)(query, key, value, terms)
