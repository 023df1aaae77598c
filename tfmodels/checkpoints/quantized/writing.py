"""Packed weights as compressed-tensors files hold them, in the format pack-quantized (float8 in float-quantized)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import DTYPES
from tfmodels.checkpoints.quantized.scheme import Scheme, unpack
from tfmodels.checkpoints.writer import TensorSpec

Tensor = tuple[str, TensorSpec, Callable[[], np.ndarray]]


def unwritable(scheme: Scheme) -> str | None:
    """Why compressed-tensors has no place for weights of a scheme; None where it has."""
    if scheme.offsets == "minimums":
        return "groups with minimums, where the format has integer zeros"
    if scheme.divided:
        return "inputs that are divided by numbers of their own (AWQ's activation scales)"
    return None


def tensors(
    name: str, scheme: Scheme, width: int, units: int, arrays: Callable[[], Mapping[str, Any]]
) -> list[Tensor]:
    """The tensors of a quantised layer in files.

    Args:
        name: of the layer there.
        scheme, width, units: of its weights.
        arrays: gives the arrays of `scheme.parts`; called once for each tensor.

    Returns:
        For each tensor its name, shape and dtype, and a function that gives its values.
    """
    groups, bits = scheme.groups(width), scheme.bits

    def integers() -> np.ndarray:
        parts = arrays()
        q = unpack(parts["weights"], scheme, width)
        if scheme.ordered:  # groups are named by `weight_g_idx`
            original = np.empty_like(q)
            original[parts["order"]] = q
            q = original
        return q.T

    def group_of_inputs() -> np.ndarray:
        found = np.empty(width, np.int32)
        found[arrays()["order"]] = np.arange(width) // (scheme.group_size or width)
        return found

    def add(part: str, shape: tuple[int, ...], dtype: str, get: Callable[[], np.ndarray]) -> None:
        made.append((f"{name}.{part}", TensorSpec(shape, dtype), get))

    made: list[Tensor] = []
    if scheme.values == "float8":
        add(
            "weight",
            (units, width),
            "float8_e4m3fn",
            lambda: np.ascontiguousarray(integers()).view(DTYPES["float8_e4m3fn"]),
        )
    else:
        add("weight_packed", (units, -(-width * bits // 32)), "int32", lambda: to_words(integers(), bits))
        add("weight_shape", (2,), "int64", lambda: np.array([units, width], np.int64))
    add("weight_scale", (units, groups), scheme.scale_dtype, lambda: np.ascontiguousarray(arrays()["scales"].T))
    if scheme.offsets == "zeros":
        rows = -(-units * bits // 32)
        get = lambda: np.ascontiguousarray(to_words(arrays()["zeros"], bits).T)
        add("weight_zero_point", (rows, groups), "int32", get)
    if scheme.ordered:
        add("weight_g_idx", (width,), "int32", group_of_inputs)
    return made


def to_words(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Signed numbers (rows, n) in 32-bit words along the last axis, low bits first, each 2^(bits - 1) larger.

    Example:
        >>> to_words(np.array([[-8, -7, -6]], "int8"), 4).tolist()
        [[528]]
    """
    biased = (numbers.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    per_word = 32 // bits
    biased = np.pad(biased, [(0, 0), (0, -biased.shape[1] % per_word)])
    if bits == 4:
        biased = biased[:, 0::2] | biased[:, 1::2] << np.uint8(4)
    return np.ascontiguousarray(biased).view("<i4")


def settings(layers: Mapping[str, Scheme], plain: list[str], others: Mapping[str, str]) -> dict[str, Any]:
    """The `quantization_config` of a model.

    Args:
        layers: name of each quantised layer -> its scheme.
        plain: names of the dense layers that are not quantised.
        others: second names that some layers have.
    """
    by_weights: dict[str, dict[str, Any]] = {}
    for name, scheme in layers.items():
        is_float = scheme.values == "float8"
        weights = {
            "num_bits": scheme.bits,
            "type": "float" if is_float else "int",
            "symmetric": scheme.offsets is None,
            "strategy": "group" if scheme.group_size else "channel",
            "group_size": scheme.group_size,
            "dynamic": False,
            "actorder": "group" if scheme.ordered else None,
            "observer": None,
        }
        group = by_weights.setdefault(
            repr(weights),
            {
                "targets": [],
                "weights": weights,
                "input_activations": None,
                "output_activations": None,
                "format": "float-quantized" if is_float else "pack-quantized",
            },
        )
        group["targets"] += dict.fromkeys((name, others.get(name, name)))
    groups = list(by_weights.values())
    formats = {group["format"] for group in groups}
    if len(groups) == 1:  # a name for all that is not left out, as other writers give
        groups[0]["targets"] = ["Linear"]
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {f"group_{index}": group for index, group in enumerate(groups)},
        "ignore": list(dict.fromkeys(other for name in plain for other in (name, others.get(name, name)))),
    }
