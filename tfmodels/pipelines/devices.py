"""The arguments `framework`, `device` and `device_map`, by which PyTorch scripts choose what TensorFlow chooses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras

from tfmodels.runtime.device import has_gpu
from tfmodels.utils.text import quote

_WAY = "TensorFlow runs on the first GPU that it sees, else on the CPU; choose by CUDA_VISIBLE_DEVICES."


def check_framework(framework: str | None) -> str:
    """The backend's name in transformers, "tf" or "jax"; None and the backend itself are accepted.

    Raises:
        ValueError: another framework.

    Example:
        >>> check_framework("pt")
        Traceback (most recent call last):
            ...
        ValueError: framework='pt': these models run on Keras's backend, tensorflow; leave it out or pass "tf".
    """
    name = {"tensorflow": "tf"}.get(keras.backend.backend(), keras.backend.backend())
    if framework not in (None, name, keras.backend.backend()):
        raise ValueError(
            f"framework={quote(framework)}: these models run on Keras's backend, {keras.backend.backend()}; "
            f'leave it out or pass "{name}".'
        )
    return name


def check_device(device: Any, device_map: Any = None) -> str:
    """The device that the model runs on, "cpu" or "gpu:0", where the arguments ask for it or leave it open.

    Args:
        device: None, a number (-1 for the CPU, 0 for the first GPU, or the CPU where there is none), or a name such
            as "cpu", "cuda", "cuda:0", "gpu", "/GPU:0".
        device_map: None, "auto", one device, or a dict with one entry, {"": device}.

    Raises:
        ValueError: another device than the one that TensorFlow takes.
    """
    if isinstance(device_map, Mapping):
        if len(device_map) != 1 or "" not in device_map:
            raise ValueError(
                f"device_map={quote(device_map)} spreads a model over devices; models here are on one. {_WAY}"
            )
        device_map = device_map[""]
    own = "gpu:0" if has_gpu() else "cpu"
    for name, value in (("device", device), ("device_map", device_map)):
        if value is None or (name == "device_map" and value in ("auto", "balanced", "sequential")):
            continue
        wanted = _device(value)
        if wanted is None:
            raise ValueError(f"{name}={quote(value)} is no device; a number, 'cpu' or 'cuda' was expected. {_WAY}")
        if wanted != own and not (value == 0 and own == "cpu"):
            raise ValueError(f"{name}={quote(value)}: the model is on {own}. {_WAY}")
    return own


def _device(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return "cpu" if value < 0 else f"gpu:{value}"
    found = re.fullmatch(r"/?(?:device:)?(cpu|cuda|gpu)(?::(\d+))?", str(value).lower())
    if found is None:
        return None
    return "cpu" if found[1] == "cpu" else f"gpu:{found[2] or 0}"
