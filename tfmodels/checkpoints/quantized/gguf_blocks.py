"""Quantised blocks of GGUF files as packed weights, without a change of any number.

Layout: `ggml-common.h` of https://github.com/ggml-org/ggml. Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 have blocks of 32 weights
with a float16 scale, and perhaps a minimum. The K types have blocks of 256: Q4_K and Q5_K with eight scales and
minimums of 6 bits, Q2_K with sixteen of 4 bits, Q3_K and Q6_K with sixteen scales of 6 and 8 bits; times the block's
own float16 they are numbers that float32 holds. Weights of 2 and 3 bits take 4 here, those of 5 and 6 take 8.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfmodels.checkpoints.quantized.packed import PackedTensor, signed
from tfmodels.checkpoints.quantized.scheme import Parts, Scheme, pack, unpack
from tfmodels.checkpoints.reader import Checkpoint

_BLOCK = 32  # weights of a block, but for the K types

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


def kind_of(scheme: Scheme) -> str | None:
    """The block type that holds weights of a scheme, but for scales beyond float16; None where there is none."""
    plain = scheme.values == "int" and not scheme.ordered and not scheme.divided
    if not plain or scheme.group_size is None or scheme.group_size % _BLOCK or (scheme.bits == 8 and scheme.offsets):
        return None
    return "Q8_0" if scheme.bits == 8 else "Q4_1" if scheme.offsets else "Q4_0"


def encode(parts: Parts, scheme: Scheme, width: int) -> np.ndarray:
    """Packed weights as blocks of the type that `kind_of` names: uint8 (out, bytes of a row).

    Scales and minimums are rounded to float16, and no other number changes.
    """
    q = unpack(parts["weights"], scheme, width).T.reshape(parts["weights"].shape[1], -1, _BLOCK)
    each = scheme.group_size // _BLOCK

    def by_block(values: np.ndarray) -> np.ndarray:
        halves = np.repeat(values.astype(np.float32).T, each, axis=1)[:, : q.shape[1]].astype("<f2")
        return np.ascontiguousarray(halves)[..., None].view(np.uint8)

    scales = parts["scales"].astype(np.float32)
    if scheme.bits == 8:
        fields = [by_block(scales), np.ascontiguousarray(q).view(np.uint8)]
    else:
        numbers = (q + np.int8(8)).view(np.uint8)
        nibbles = numbers[..., : _BLOCK // 2] | numbers[..., _BLOCK // 2 :] << np.uint8(4)
        fields = [by_block(scales), nibbles]
    if scheme.offsets == "minimums":
        fields.insert(1, by_block(parts["minimums"]))
    elif scheme.offsets == "zeros":
        fields.insert(1, by_block(-(parts["zeros"].astype(np.float32) + 8) * scales))
    return np.concatenate(fields, axis=-1).reshape(len(q), -1)


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


def _q5_0(blocks: np.ndarray) -> _Numbers:
    q = _halves(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6])
    return _by_row(q.view(np.int8) - np.int8(16)), _float16(blocks, 0), None


def _q5_1(blocks: np.ndarray) -> _Numbers:
    q = _halves(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8])
    return _by_row(signed(q, 8)), _float16(blocks, 0), _float16(blocks, 2)


def _fifth_bits(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(words, axis=-1, bitorder="little") << np.uint8(4)


def _bits_of(data: np.ndarray, count: int) -> np.ndarray:
    """Bytes (..., n) as numbers of `count` bits: the low ones of 32 bytes, then their next ones, and so on."""
    shifts = np.arange(0, 8, count, dtype=np.uint8)[:, None]
    numbers = data.reshape(*data.shape[:-1], -1, 1, 32) >> shifts & np.uint8((1 << count) - 1)
    return numbers.reshape(*data.shape[:-1], -1)


def _q2_k(blocks: np.ndarray) -> _Numbers:
    whole, lowest = (_float16(blocks, start).astype(np.float32)[..., None] for start in (80, 82))
    steps, mins = blocks[..., :16] & np.uint8(15), blocks[..., :16] >> np.uint8(4)
    q = _bits_of(blocks[..., 16:80], 2)
    return _by_row(signed(q, 4)), _by_row(whole * steps), _by_row(-(lowest * mins))


def _q3_k(blocks: np.ndarray) -> _Numbers:
    low, high = blocks[..., 96:104], blocks[..., 104:108]
    low = np.concatenate([low & np.uint8(15), low >> np.uint8(4)], axis=-1)
    high = np.concatenate([high >> np.uint8(shift) & np.uint8(3) for shift in (0, 2, 4, 6)], axis=-1)
    steps = (low | high << np.uint8(4)).view(np.int8) - np.int8(32)
    q = (_bits_of(blocks[..., 32:96], 2) | _bits_of(blocks[..., :32], 1) << np.uint8(2)).view(np.int8) - np.int8(4)
    return _by_row(q), _by_row(_float16(blocks, 108).astype(np.float32)[..., None] * steps), None


def _q4_k(blocks: np.ndarray) -> _Numbers:
    q = _halves(blocks[..., 16:].reshape(*blocks.shape[:-1], 4, 32))
    return _by_row(signed(q, 4)), *_six_bits(blocks)


def _q5_k(blocks: np.ndarray) -> _Numbers:
    q = _bits_of(blocks[..., 48:], 4) | _bits_of(blocks[..., 16:48], 1) << np.uint8(4)
    return _by_row(signed(q, 8)), *_six_bits(blocks)


def _six_bits(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and minimums of Q4_K and Q5_K, (out, groups)."""
    whole, lowest = (_float16(blocks, start).astype(np.float32)[..., None] for start in (0, 2))
    packed = blocks[..., 4:16]
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    low, high = np.uint8(63), np.uint8(48)
    steps = np.concatenate([first & low, (third & np.uint8(15)) | (first >> np.uint8(2)) & high], axis=-1)
    mins = np.concatenate([second & low, (third >> np.uint8(4)) | (second >> np.uint8(2)) & high], axis=-1)
    return _by_row(whole * steps), _by_row(-(lowest * mins))


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
    "Q5_0": (Scheme(bits=8, group_size=32, scale_dtype="float16"), _q5_0),
    "Q5_1": (Scheme(bits=8, group_size=32, offsets="minimums", scale_dtype="float16"), _q5_1),
    "Q2_K": (Scheme(bits=4, group_size=16, offsets="minimums"), _q2_k),
    "Q3_K": (Scheme(bits=4, group_size=16), _q3_k),
    "Q4_K": (Scheme(bits=4, group_size=32, offsets="minimums"), _q4_k),
    "Q5_K": (Scheme(bits=8, group_size=32, offsets="minimums"), _q5_k),
    "Q6_K": (Scheme(bits=8, group_size=16), _q6_k),
}
