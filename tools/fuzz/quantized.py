"""Checkpoints whose weights are quantised: GPTQ, AWQ, compressed-tensors and MLX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.checkpoints import TensorSpec, open_checkpoint, write_checkpoint
from tfmodels.checkpoints.quantized.methods import as_packed
from tfmodels.configs.base import ModelConfig
from tools.fuzz.damage import Random, damage_json, damage_safetensors
from tools.fuzz.kind import Kind

LAYER = "model.layers.0.self_attn.q_proj"
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 8, "desc_act": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 8, "zero_point": True, "version": "gemm"}
AWQ |= {"modules_to_not_convert": None}
WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 8}
GROUP = {"targets": ["Linear"], "weights": WEIGHTS, "input_activations": None}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": GROUP}}
COMPRESSED |= {"ignore": ["lm_head"]}
MLX = {"bits": 4, "group_size": 8, LAYER: {"bits": 4, "group_size": 8}}

Tensors = dict[str, tuple[str, tuple[int, ...]]]
# A config.json's settings, and dtype and shape of the tensors of one layer of 16 inputs and 8 outputs.
LAYOUTS: tuple[tuple[dict[str, Any], Tensors], ...] = (
    (
        {"quantization_config": GPTQ},
        {
            "qweight": ("int32", (2, 8)),
            "qzeros": ("int32", (2, 1)),
            "scales": ("float16", (2, 8)),
            "g_idx": ("int32", (16,)),
        },
    ),
    (
        {"quantization_config": AWQ},
        {"qweight": ("int32", (16, 1)), "qzeros": ("int32", (2, 1)), "scales": ("float16", (2, 8))},
    ),
    (
        {"quantization_config": COMPRESSED},
        {
            "weight_packed": ("int32", (8, 2)),
            "weight_scale": ("float16", (8, 2)),
            "weight_shape": ("int64", (2,)),
        },
    ),
    (
        {"quantization": MLX},
        {"weight": ("uint32", (8, 2)), "scales": ("float16", (8, 2)), "biases": ("float16", (8, 2))},
    ),
)
# Tensors that are not zero.
VALUES = {"g_idx": np.arange(16) // 8, "weight_shape": np.array([8, 16])}


def write_quantized(rng: Random, folder: Path) -> None:
    config, tensors = rng.choice(LAYOUTS)
    specs = []
    for name, (dtype, shape) in tensors.items():
        array = np.broadcast_to(VALUES.get(name, 0), shape).astype(dtype)
        specs.append((f"{LAYER}.{name}", TensorSpec(shape, dtype), lambda array=array: array))
    (path,) = write_checkpoint(folder, specs)
    if rng.random() < 0.6:
        (folder / "config.json").write_bytes(damage_json(rng, config))
    else:
        (folder / "config.json").write_text(json.dumps(config))
        path.write_bytes(damage_safetensors(rng, path.read_bytes()))


def read_quantized(folder: Path) -> None:
    config = ModelConfig.from_pretrained(folder)
    with open_checkpoint(folder) as checkpoint:
        packed = as_packed(config, checkpoint)
        for name in packed.names():
            tensor = packed.packed(name)
            if tensor is not None:
                tensor.read()


KINDS = {"quantized": Kind(write_quantized, read_quantized)}
