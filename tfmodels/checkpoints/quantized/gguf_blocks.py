"""Blocks of GGUF files as packed weights: those whose numbers have a place there, bit by bit.

Layout: `ggml-common.h` of https://github.com/ggml-org/ggml. Q8_0, Q4_0 and Q4_1 have blocks of 32 weights with a
float16 scale, and perhaps a minimum. Q4_K has blocks of 256 with eight scales and minimums of 6 bits, Q6_K with
sixteen scales of 8 bits; times the block's own float16 they are numbers that float32 holds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfmodels.checkpoints.quantized.packed import PackedTensor, signed
from tfmodels.checkpoints.quantized.scheme import Parts, Scheme, pack
from tfmodels.checkpoints.reader import Checkpoint

# Numbers (out, in), signed; scales (out, groups); and minimums, or None.
_Numbers = tuple[np.ndarray, np.ndarray, "np.ndarray | None"]


def find(checkpoint: Checkpoint) -> tuple[dict[str, PackedTensor], set[str]]:
    """The matrices of a GGUF file that packed weights hold exactly, and their names; others are read as floats."""
    found = {}
    for name in checkpoint.names():
        blocks = checkpoint.blocks(name)
        if blocks is not None and blocks.kind in _KINDS:
            scheme, decode = _KINDS[blocks.kind]
            found[name] = PackedTensor(scheme, checkpoint.info(name).shape, _reader(blocks.read, scheme, decode))
    return found, set(found)


def _reader(read: Callable[[], np.ndarray], scheme: Scheme, decode: Callable[[np.ndarray], _Numbers]) -> Callable:
    def parts() -> Parts:
        q, scales, minimums = decode(read())
        held = {"weights": pack(q.T, scheme), "scales": np.ascontiguousarray(scales.T)}
        return held if minimums is None else {**held, "minimums": np.ascontiguousarray(minimums.T)}

    return parts


def _float16(blocks: np.ndarray, start: int) -> np.ndarray:
    """The float16 number that begins at a byte of each block: (out, blocks)."""
    return np.ascontiguousarray(blocks[..., start : start + 2]).view("<f2")[..., 0]


def _by_row(q: np.ndarray) -> np.ndarray:
    return q.reshape(len(q), -1)


def _q8_0(blocks: np.ndarray) -> _Numbers:
    return _by_row(np.ascontiguousarray(blocks[..., 2:]).view(np.int8)), _float16(blocks, 0), None


def _halves(data: np.ndarray) -> np.ndarray:
    """Four-bit numbers, those of the low halves first: unsigned, (..., 2 * bytes)."""
    return np.concatenate([data & np.uint8(15), data >> np.uint8(4)], axis=-1)


def _q4_0(blocks: np.ndarray) -> _Numbers:
    return _by_row(signed(_halves(blocks[..., 2:]), 4)), _float16(blocks, 0), None


def _q4_1(blocks: np.ndarray) -> _Numbers:
    return _by_row(signed(_halves(blocks[..., 4:]), 4)), _float16(blocks, 0), _float16(blocks, 2)


def _q4_k(blocks: np.ndarray) -> _Numbers:
    whole, lowest = (_float16(blocks, start).astype(np.float32)[..., None] for start in (0, 2))
    packed = blocks[..., 4:16]
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    low, high = np.uint8(63), np.uint8(48)
    steps = np.concatenate([first & low, (third & np.uint8(15)) | (first >> np.uint8(2)) & high], axis=-1)
    mins = np.concatenate([second & low, (third >> np.uint8(4)) | (second >> np.uint8(2)) & high], axis=-1)
    q = _halves(blocks[..., 16:].reshape(*blocks.shape[:-1], 4, 32))
    return _by_row(signed(q, 4)), _by_row(whole * steps), _by_row(-(lowest * mins))


def _q6_k(blocks: np.ndarray) -> _Numbers:
    lower = blocks[..., :128].reshape(*blocks.shape[:-1], 2, 1, 64)
    upper = blocks[..., 128:192].reshape(*blocks.shape[:-1], 2, 1, 32)
    steps = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float32)
    low = np.concatenate([lower & np.uint8(15), lower >> np.uint8(4)], axis=-2).reshape(*blocks.shape[:-1], 2, 4, 32)
    high = np.concatenate([upper >> np.uint8(shift) & np.uint8(3) for shift in (0, 2, 4, 6)], axis=-2)
    q = (low | high << np.uint8(4)).view(np.int8) - np.int8(32)
    return _by_row(q), _by_row(_float16(blocks, 208).astype(np.float32)[..., None] * steps), None


_KINDS: dict[str, tuple[Scheme, Callable[[np.ndarray], _Numbers]]] = {
    "Q8_0": (Scheme(bits=8, group_size=32, scale_dtype="float16"), _q8_0),
    "Q4_0": (Scheme(bits=4, group_size=32, scale_dtype="float16"), _q4_0),
    "Q4_1": (Scheme(bits=4, group_size=32, offsets="minimums", scale_dtype="float16"), _q4_1),
    "Q4_K": (Scheme(bits=4, group_size=32, offsets="minimums"), _q4_k),
    "Q6_K": (Scheme(bits=8, group_size=16), _q6_k),
}
