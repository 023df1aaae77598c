"""`adapter_config.json` as the PEFT library writes it, read and checked. Needs no backend."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from tfmodels.utils.json_files import check_kinds, read_object
from tfmodels.utils.text import quote, shorten

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

# Settings of PEFT that change what an adapter computes, with the values that mean they are off.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "alpha_pattern": (None, {}),
    "fan_in_fan_out": (None, False),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "use_qalora": (None, False),
}


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the configuration of a LoRA adapter.

    Args:
        folder: what `save_adapter` or PEFT wrote.

    Returns:
        The file's content; `r` (from 1 on), `lora_alpha`, `lora_dropout` and `use_rslora` are there and checked, and
        `loftq_bits` is that of its `loftq_config`, or None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of adapter, one with settings that do not exist here, or values that make no sense;
            the message names the file.
    """
    path = folder / CONFIG_NAME
    if not os.path.isfile(path):  # False for a name that no file system takes
        raise FileNotFoundError(f"{shorten(folder)} holds no {CONFIG_NAME}: it is no adapter.")
    values = read_object(path)
    if values.get("peft_type") != "LORA":
        raise ValueError(f"{path} has peft_type={quote(values.get('peft_type'))}; only LORA is read.")
    for name, off in _UNSUPPORTED.items():
        if values.get(name) not in off:
            raise ValueError(f"{path} has {name}={quote(values[name])}, which does not exist here.")
    if values.get("rank_pattern"):
        raise ValueError(f"{path} has a rank_pattern; one rank for all layers was expected.")
    check_kinds(values, {"use_rslora": bool, "lora_dropout": float, "loftq_config": dict}, str(path))
    rank, alpha, dropout = values.get("r"), values.get("lora_alpha"), values.get("lora_dropout") or 0.0
    if type(rank) is not int or rank < 1:
        raise ValueError(f"{path} has r={quote(rank)}; a whole number above 0 was expected.")
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise ValueError(f"{path} has lora_alpha={quote(alpha)}; a finite number was expected.")
    if not 0 <= dropout < 1:
        raise ValueError(f"{path} has lora_dropout={quote(dropout)}; a share from 0 to below 1 was expected.")
    loftq = values.get("loftq_config") or {}
    bits = loftq.get("loftq_bits", 4) if loftq else None  # PEFT's default is 4
    if bits is not None and (type(bits) is not int or bits < 1):
        raise ValueError(f"{path} has loftq_bits={quote(bits)} in loftq_config; a number of bits was expected.")
    return {
        **values,
        "lora_dropout": float(dropout),
        "use_rslora": bool(values.get("use_rslora")),
        "loftq_bits": bits,
    }
