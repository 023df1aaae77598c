"""`Scheme`: how the weights of one layer are quantised, and the one layout that all methods are repacked into.

A weight matrix W (in, out) is kept as small integers q (in, out) and a float scale for each group of inputs and each
output. Rows of q lie one after the other, so that neighbouring bytes belong to neighbouring outputs. Four-bit numbers
are stored as q + 8, two rows to a byte: row 2i in the low half, row 2i + 1 in the high half. Where the inputs do not
fill the last group (or byte), rows are added that no input reads.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import DTYPES
from tfmodels.utils.text import quote

BITS = (4, 8)
VALUES = ("int", "float8")
OFFSETS = (None, "zeros", "minimums")
SCALE_DTYPES = ("float32", "float16", "bfloat16")

Parts = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Scheme:
    """The kind of quantisation of one layer: a weight is scale * (q - zero), or scale * (q + 2^(bits - 1)) + minimum.

    Fields:
        bits: 8 or 4, the size of q, which is signed: -128 to 127 or -8 to 7.
        group_size: neighbouring inputs that share a scale; None: all inputs of an output do.
        offsets: "zeros", integers like q; "minimums", floats in the scales' dtype; None for neither.
        ordered: the inputs are permuted first, so that those of a group are neighbours (activation order).
        divided: the inputs are divided by numbers of their own first (the activation scales of AWQ).
        values: "int", or "float8": q are the bits of float8_e4m3fn numbers, whose values take the place of q.
        scale_dtype: dtype of scales and minimums.

    Raises:
        ValueError: a field is not one of the values named.

    Example:
        >>> scheme = Scheme(bits=4, group_size=32, offsets="zeros")
        >>> scheme.parts(64, 10)["weights"], scheme.parts(64, 10)["scales"]
        (((32, 10), 'uint8'), ((2, 10), 'float32'))
        >>> str(scheme), str(Scheme(bits=8))
        ('int4, groups of 32, with zeros', 'int8, one scale per output')
    """

    bits: int = 8
    group_size: int | None = None
    offsets: str | None = None
    ordered: bool = False
    divided: bool = False
    values: str = "int"
    scale_dtype: str = "float32"

    def __post_init__(self) -> None:
        known = {"bits": BITS, "offsets": OFFSETS, "values": VALUES, "scale_dtype": SCALE_DTYPES}
        for name, possible in known.items():
            if getattr(self, name) not in possible:
                listed = " or ".join(repr(one) for one in possible)
                raise ValueError(f"{name}={quote(getattr(self, name))} in Scheme; {listed} was expected.")
        size = self.group_size
        if size is not None and (type(size) is not int or size < 2 or size % 2):
            raise ValueError(f"group_size={quote(size)} in Scheme; an even number of inputs, or None, was expected.")
        if self.values == "float8" and (self.bits != 8 or self.offsets):
            raise ValueError("values='float8' in Scheme takes bits=8 and no offsets.")

    @property
    def mode(self) -> str:
        """Short name: "int8", "int4" or "float8"."""
        return "float8" if self.values == "float8" else f"int{self.bits}"

    def __str__(self) -> str:
        groups = f"groups of {self.group_size}" if self.group_size else "one scale per output"
        extra = {"offsets": f"with {self.offsets}", "ordered": "in activation order", "divided": "divided inputs"}
        return ", ".join([self.mode, groups, *(text for name, text in extra.items() if getattr(self, name))])

    def padded(self, width: int) -> int:
        """The number of stored rows for `width` inputs."""
        unit = self.group_size or 8 // self.bits
        return -(-width // unit) * unit

    def groups(self, width: int) -> int:
        """The number of scales per output for `width` inputs."""
        return self.padded(width) // self.group_size if self.group_size else 1

    def parts(self, width: int, units: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each stored array of a matrix (width, units), by name."""
        rows, groups = self.padded(width) * self.bits // 8, (self.groups(width), units)
        stored = "uint8" if self.bits == 4 or self.values == "float8" else "int8"
        parts = {"weights": ((rows, units), stored), "scales": (groups, self.scale_dtype)}
        if self.offsets:
            parts[self.offsets] = groups, "int8" if self.offsets == "zeros" else self.scale_dtype
        if self.ordered:
            parts["order"] = (width,), "int32"
        if self.divided:
            parts["divisors"] = (width,), "float32"
        return parts

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return dataclasses.asdict(self)


def pack(q: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Store integers as a scheme does.

    Args:
        q: int8 (in, out), from -2^(bits - 1) on; already in the scheme's order of inputs.

    Returns:
        The scheme's "weights", a new array.

    Example:
        >>> pack(np.array([[1], [-8], [7]], "int8"), Scheme(bits=4)).tolist()
        [[9], [143]]
    """
    width = len(q)
    q = np.pad(q, [(0, scheme.padded(width) - width), (0, 0)]) if scheme.padded(width) != width else q
    if scheme.bits == 8:
        return np.ascontiguousarray(q if scheme.values == "int" else q.view(np.uint8))
    biased = (q + np.int8(8)).view(np.uint8)
    return biased[0::2] | biased[1::2] << np.uint8(4)


def unpack(weights: np.ndarray, scheme: Scheme, width: int) -> np.ndarray:
    """The integers that `pack` stored: int8 (width, out), or uint8 bits of float8 numbers."""
    if scheme.bits == 8:
        return weights[:width]
    rows = np.empty((2 * len(weights), weights.shape[1]), np.uint8)
    rows[0::2], rows[1::2] = weights & np.uint8(15), weights >> np.uint8(4)
    return rows[:width].view(np.int8) - np.int8(8)


def dequantize(parts: Parts, scheme: Scheme, width: int) -> np.ndarray:
    """The float32 matrix (in, out) that stored arrays stand for, divisors included; memory for the whole of it.

    Example:
        >>> scheme = Scheme(bits=4, group_size=2, offsets="zeros")
        >>> parts = round_to_nearest(np.array([[0.0], [1.5], [-3.0], [4.5]], "float32"), scheme)
        >>> dequantize(parts, scheme, 4)[:, 0].tolist()
        [0.0, 1.5, -3.0, 4.5]
    """
    q = unpack(parts["weights"], scheme, width)
    q = q.view(DTYPES["float8_e4m3fn"]).astype(np.float32) if scheme.values == "float8" else q.astype(np.float32)
    group = np.arange(width) // (scheme.group_size or max(width, 1))
    scales = parts["scales"].astype(np.float32)
    if scheme.offsets == "zeros":
        q -= parts["zeros"].astype(np.float32)[group]
    if scheme.offsets == "minimums":
        q += 1 << (scheme.bits - 1)
    q *= scales[group]
    if scheme.offsets == "minimums":
        q += parts["minimums"].astype(np.float32)[group]
    if scheme.ordered:
        q[parts["order"]] = q.copy()
    return q / parts["divisors"][:, None] if scheme.divided else q


def round_to_nearest(weights: np.ndarray, scheme: Scheme) -> Parts:
    """Quantise a matrix, each group by its largest number.

    Args:
        weights: float (in, out).
        scheme: integers without order and divisors. Symmetric ones scale by the largest absolute number, those with
            zeros or minimums by the range, which 0 is part of.

    Returns:
        The scheme's arrays.
    """
    scales, offsets = group_scales(weights, scheme)
    levels = 1 << scheme.bits
    group = np.arange(len(weights)) // (scheme.group_size or max(len(weights), 1))
    steps = scales.astype(np.float32)[group]
    if scheme.offsets == "minimums":
        q = (weights - offsets.astype(np.float32)[group]) / steps - levels // 2
    else:
        q = weights / steps + (0 if offsets is None else offsets.astype(np.float32)[group])
    q = np.clip(np.rint(q), -levels // 2, levels // 2 - 1).astype(np.int8)
    parts = {"weights": pack(q, scheme), "scales": scales}
    return parts if offsets is None else {**parts, scheme.offsets: offsets}


def group_scales(weights: np.ndarray, scheme: Scheme) -> tuple[np.ndarray, np.ndarray | None]:
    """Scales (groups, out) by which a scheme rounds a matrix (in, out), and its zeros or minimums.

    Example:
        >>> scales, zeros = group_scales(np.array([[-0.7], [0.7]], "float32"), Scheme(bits=4))
        >>> round(float(scales[0, 0]), 3), zeros
        (0.1, None)
    """
    width = len(weights)
    grouped = np.asarray(weights, np.float32)
    if scheme.padded(width) != width:
        grouped = np.pad(grouped, [(0, scheme.padded(width) - width), (0, 0)])
    grouped = grouped.reshape(scheme.groups(width), -1, grouped.shape[1])
    top = (1 << (scheme.bits - 1)) - 1
    dtype = DTYPES[scheme.scale_dtype]
    if scheme.offsets is None:
        scales = np.abs(grouped).max(axis=1) / top
        return _above_zero(scales).astype(dtype), None
    low, high = np.minimum(grouped.min(axis=1), 0), np.maximum(grouped.max(axis=1), 0)
    scales = _above_zero((high - low) / (2 * top + 1)).astype(dtype)
    if scheme.offsets == "minimums":
        return scales, low.astype(dtype)
    zeros = np.rint(-low / scales.astype(np.float32)) - (top + 1)
    return scales, np.clip(zeros, -top - 1, top).astype(np.int8)


def _above_zero(scales: np.ndarray) -> np.ndarray:
    """Raise scales to 1e-7 at least, so that none is zero, in float16 either."""
    return np.where(scales > 1e-7, scales, np.float32(1e-7))
