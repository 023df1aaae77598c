"""Checkpoints whose weights are quantised: GPTQ, AWQ, compressed-tensors and MLX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.checkpoints import TensorSpec, open_checkpoint, write_checkpoint
from tools.fuzz.damage import Random, damage_bytes, damage_json
from tools.fuzz.kind import Kind

_LAYER = "model.layers.0.self_attn.q_proj"
_WIDTH, _UNITS, _GROUP = 16, 8, 8


def _zeros(dtype: str, *shape: int) -> np.ndarray:
    return np.zeros(shape, dtype)


def _layouts() -> dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """For each method what config.json says, and the tensors of one layer of 16 inputs and 8 outputs, 4 bits."""
    groups, words = _WIDTH // _GROUP, _UNITS // 8
    scales = np.full((groups, _UNITS), 0.5, "float16")
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": _GROUP}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {
        "gptq": (
            {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": _GROUP, "desc_act": True}},
            {
                "qweight": _zeros("int32", _WIDTH // 8, _UNITS),
                "qzeros": _zeros("int32", groups, words),
                "scales": scales,
                "g_idx": (np.arange(_WIDTH) // _GROUP).astype("int32"),
            },
        ),
        "awq": (
            {
                "quantization_config": {
                    "quant_method": "awq",
                    "bits": 4,
                    "group_size": _GROUP,
                    "zero_point": True,
                    "version": "gemm",
                    "modules_to_not_convert": None,
                }
            },
            {
                "qweight": _zeros("int32", _WIDTH, words),
                "qzeros": _zeros("int32", groups, words),
                "scales": scales,
            },
        ),
        "compressed-tensors": (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "format": "pack-quantized",
                    "config_groups": {"group_0": group},
                    "ignore": ["lm_head"],
                }
            },
            {
                "weight_packed": _zeros("int32", _UNITS, _WIDTH // 8),
                "weight_scale": np.ascontiguousarray(scales.T),
                "weight_shape": np.array([_UNITS, _WIDTH], "int64"),
            },
        ),
        "mlx": (
            {"quantization": {"bits": 4, "group_size": _GROUP, f"{_LAYER}": {"bits": 4, "group_size": _GROUP}}},
            {
                "weight": _zeros("uint32", _UNITS, _WIDTH // 8),
                "scales": np.ascontiguousarray(scales.T),
                "biases": np.ascontiguousarray(scales.T),
            },
        ),
    }


def write_quantized(rng: Random, folder: Path) -> None:
    config, tensors = rng.choice(list(_layouts().values()))
    specs = [
        (f"{_LAYER}.{name}", TensorSpec(array.shape, array.dtype.name), lambda array=array: array)
        for name, array in tensors.items()
    ]
    (path,) = write_checkpoint(folder, specs)
    settings = rng.random() < 0.6
    (folder / "config.json").write_bytes(damage_json(rng, config) if settings else json.dumps(config).encode())
    if settings:
        return
    data = path.read_bytes()
    if rng.random() < 0.7:
        size = int.from_bytes(data[:8], "little")
        header = damage_json(rng, json.loads(data[8 : 8 + size]))
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    else:
        path.write_bytes(damage_bytes(rng, data))


def read_quantized(folder: Path) -> None:
    from tfmodels.checkpoints.quantized.methods import as_packed
    from tfmodels.configs.base import ModelConfig

    config = ModelConfig.from_pretrained(folder)
    with open_checkpoint(folder) as checkpoint:
        packed = as_packed(config, checkpoint)
        for name in packed.names():
            tensor = packed.packed(name)
            if tensor is not None:
                tensor.read()


def _prepare() -> None:
    import tfmodels.checkpoints.quantized.methods
    import tfmodels.configs.base  # noqa: F401


KINDS = {"quantized": Kind(write_quantized, read_quantized, _prepare)}
