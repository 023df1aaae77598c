"""Residual additions and the norms after them, as one Triton kernel in a program under XLA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmodels.kernels import triton_call
from tfmodels.runtime.buckets import power_of_two

_MAX_WIDTH = 2**14  # of a row, that one program holds


class Norm(NamedTuple):
    """A normalisation over the last axis.

    Fields:
        weight: (width,), float.
        bias: (width,), float, or None.
        epsilon: added to the variance or the mean square.
        offset: added to the weight.
        is_centered: whether the mean is taken away first (layer normalisation).
    """

    weight: Any
    bias: Any
    epsilon: float
    offset: float = 0.0
    is_centered: bool = False


def serves_norms(width: int, norms: Sequence[Norm]) -> bool:
    """Whether `added_norms` can compute these norms of rows of so many numbers."""
    alike = {(norm.bias is None, norm.epsilon, norm.offset, norm.is_centered) for norm in norms}
    dtypes = {norm.weight.dtype for norm in norms} | {norm.bias.dtype for norm in norms if norm.bias is not None}
    return width <= _MAX_WIDTH and len(norms) in (1, 2) and len(alike) == 1 and len(dtypes) == 1


def added_norms(hidden: Any, added: Sequence[Any], norms: Sequence[Norm]) -> list[Any]:
    """The sum of rows and of what products left for them, and its norms, by one kernel.

    Args:
        hidden: (rows, width).
        added: one or two of (parts, rows, width); the sums over their parts are rounded to the dtype of `hidden`.
        norms: one or two, which `serves_norms` takes.

    Returns:
        The sum and each norm of it, (rows, width) in the dtype of `hidden`.
    """
    import tensorflow as tf

    rows, width = hidden.shape
    first = norms[0]
    counts = [parts.shape[0] for parts in added]
    biases = [norm.weight if norm.bias is None else norm.bias for norm in norms]
    ends = [0, -1]  # one for both where there is one
    sizes = [(rows, width), (rows, width), (rows, width) if len(norms) == 2 else (1,)]
    found = triton_call.launch(
        "added_norms",
        [hidden, *(added[end] for end in ends), *(norms[end].weight for end in ends), *(biases[end] for end in ends)],
        [tf.TensorSpec(size, hidden.dtype) for size in sizes],
        grid=(rows,),
        warps=16,
        ROWS=rows,
        WIDTH=width,
        PARTS_1=counts[0],
        PARTS_2=counts[1] if len(counts) == 2 else 0,
        CENTERED=first.is_centered,
        EPSILON=float(first.epsilon),
        OFFSET=float(first.offset),
        HAS_BIAS=first.bias is not None,
        NORMS=len(norms),
        BLOCK=power_of_two(width),
    )
    return found[: 1 + len(norms)]
