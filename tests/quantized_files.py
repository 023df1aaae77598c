"""Checkpoints of small models whose dense layers are quantised by the layouts of several methods, written by hand.

Each writer replaces the weights of one layer among a file's tensors and returns the float32 matrix (out, in) that they
stand for, computed from the integers, scales and zeros before they are packed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file


def words(numbers: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """Unsigned numbers in int32 words along an axis, low bits first."""
    numbers = np.moveaxis(np.asarray(numbers).astype(np.uint32), axis, -1)
    if 32 % bits:  # numbers go on from one word to the next
        stream = (numbers[..., None] >> np.arange(bits, dtype=np.uint32) & 1).reshape(*numbers.shape[:-1], -1)
        packed = np.packbits(stream.astype(np.uint8), axis=-1, bitorder="little").view("<i4")
        return np.ascontiguousarray(np.moveaxis(packed, -1, axis))
    per_word = 32 // bits
    numbers = np.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, -numbers.shape[-1] % per_word)])
    numbers = numbers.reshape(*numbers.shape[:-1], -1, per_word)
    packed = np.zeros(numbers.shape[:-1], np.uint32)
    for index in range(per_word):
        packed |= numbers[..., index] << np.uint32(bits * index)
    return np.ascontiguousarray(np.moveaxis(packed.view(np.int32), -1, axis))


def random_parts(rng: Any, width: int, units: int, bits: int, group: int, symmetric: bool = False) -> tuple[Any, ...]:
    """q (in, out), zeros and scales (groups, out)."""
    groups = -(-width // group)
    q = rng.integers(0, 2**bits, (width, units))
    middle = 2 ** (bits - 1)
    zeros = np.full((groups, units), middle) if symmetric else rng.integers(1, 2**bits, (groups, units))
    scales = (rng.uniform(0.5, 1.5, (groups, units)) * 0.4 / 2**bits).astype(np.float16)
    return q, zeros, scales


def gptq(tensors, name, rng, *, bits=4, group=8, version="gptq", order=False, symmetric=False):
    units, width = tensors.pop(f"{name}.weight").shape
    q, zeros, scales = random_parts(rng, width, units, bits, group, symmetric)
    groups = np.arange(width) // group
    groups = rng.permutation(groups) if order else groups
    tensors[f"{name}.qweight"] = words(q, bits, 0)
    tensors[f"{name}.qzeros"] = words(zeros - (version == "gptq"), bits, 1)
    tensors[f"{name}.scales"] = scales
    tensors[f"{name}.g_idx"] = groups.astype(np.int32)
    return (scales.astype(np.float32)[groups] * (q - zeros[groups])).T


def awq(tensors, name, rng, *, group=8, divisors=None):
    units, width = tensors.pop(f"{name}.weight").shape
    q, zeros, scales = random_parts(rng, width, units, 4, group)
    outputs = np.arange(units).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)
    tensors[f"{name}.qweight"] = words(q[:, outputs], 4, 1)
    tensors[f"{name}.qzeros"] = words(zeros[:, outputs], 4, 1)
    tensors[f"{name}.scales"] = scales
    groups = np.arange(width) // group
    weights = scales.astype(np.float32)[groups] * (q - zeros[groups])
    if divisors is not None:
        values = rng.uniform(0.5, 2.0, width).astype(np.float32)
        tensors[divisors] = values
        weights = weights / values[:, None]
    return weights.T


def pack_quantized(tensors, name, rng, *, bits=4, group=8, symmetric=True, order=False):
    units, width = tensors.pop(f"{name}.weight").shape
    size = group or width
    q, zeros, scales = random_parts(rng, width, units, bits, size, symmetric)
    groups = np.arange(width) // size
    if order:
        groups = rng.permutation(groups)
        tensors[f"{name}.weight_g_idx"] = groups.astype(np.int32)
    tensors[f"{name}.weight_packed"] = words(q.T, bits, 1)
    tensors[f"{name}.weight_scale"] = np.ascontiguousarray(scales.T)
    tensors[f"{name}.weight_shape"] = np.array([units, width], np.int64)
    if not symmetric:
        tensors[f"{name}.weight_zero_point"] = words(zeros.T, bits, 0)
    return (scales.astype(np.float32)[groups] * (q - zeros[groups])).T


def int_quantized(tensors, name, rng, *, strategy="channel", symmetric=True):
    units, width = tensors.pop(f"{name}.weight").shape
    q = rng.integers(-128, 128, (units, width)).astype(np.int8)
    scales = rng.uniform(0.001, 0.002, (1,) if strategy == "tensor" else (units, 1)).astype(np.float32)
    tensors[f"{name}.weight"], tensors[f"{name}.weight_scale"] = q, scales
    zeros = np.zeros(scales.shape, np.int8) if symmetric else rng.integers(-20, 20, scales.shape).astype(np.int8)
    if not symmetric:
        tensors[f"{name}.weight_zero_point"] = zeros
    return (q - zeros.astype(np.float32)) * scales


def mlx(tensors, name, rng, *, bits=4, group=32):
    units, width = tensors.pop(f"{name}.weight").shape
    q, _, scales = random_parts(rng, width, units, bits, group)
    biases = (-scales.astype(np.float32) * rng.uniform(0, 2**bits, scales.shape)).astype(np.float16)
    tensors[f"{name}.weight"] = words(q.T, bits, 1).view(np.uint32)
    tensors[f"{name}.scales"] = np.ascontiguousarray(scales.T)
    tensors[f"{name}.biases"] = np.ascontiguousarray(biases.T)
    groups = np.arange(width) // group
    return (scales.astype(np.float32)[groups] * q + biases.astype(np.float32)[groups]).T


def dense_names(tensors: dict[str, np.ndarray]) -> list[str]:
    """Names of the dense layers of a model's blocks."""
    outside = ("embed", "wte", "lm_head", "norm", "ln_")
    return [
        name.removesuffix(".weight")
        for name, tensor in tensors.items()
        if name.endswith(".weight") and tensor.ndim == 2 and not any(part in name for part in outside)
    ]


def write(
    model: Any,
    folder: Path,
    settings: dict[str, Any],
    writer: Any,
    *,
    also: Any = (),
    key: str = "quantization_config",
) -> tuple[Path, Path]:
    """Save a model twice: with its dense layers as `writer` writes them, and with the matrices that those stand for.

    Args:
        settings: goes into `config.json` under `key`.
        writer: called with the tensors and the name of each layer.
        also: names of further layers to quantise.
    """
    paths = folder / "quantised", folder / "whole"
    for path in paths:
        model.save_pretrained(path)
    tensors = load_file(paths[0] / "model.safetensors")
    whole = dict(tensors)
    for name in [*dense_names(tensors), *also]:
        whole[f"{name}.weight"] = np.ascontiguousarray(writer(tensors, name), np.float32)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, paths[0] / "model.safetensors")
    save_file(whole, paths[1] / "model.safetensors")
    edit_config(paths[0], **{key: settings})
    return paths


def edit_config(folder: Path, **changes: Any) -> None:
    """Put values into a folder's `config.json`."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder: Path, edit: Any) -> None:
    """Change a folder's tensors by a function that is given them."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")
