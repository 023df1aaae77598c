"""Tensors that the libraries themselves packed stand for the numbers that they dequantise them to.

`make.py` beside them recorded them.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from tfmodels.checkpoints.quantized.methods import as_packed
from tfmodels.checkpoints.reader import open_checkpoint

RECORDED = np.load(Path(__file__).parents[2] / "data" / "quantized" / "layouts.npz")
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemm"}


def compressed(bits, symmetric):
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": 8}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}


@pytest.mark.parametrize(
    "case, settings",
    [
        ("compressed-4-symmetric", compressed(4, True)),
        ("compressed-4-zeros", compressed(4, False)),
        ("compressed-8-symmetric", compressed(8, True)),
        ("awq", AWQ),
    ],
)
def test_recorded_layouts(case, settings, tmp_path):
    tensors = {name.partition("/")[2]: RECORDED[name] for name in RECORDED.files if name.startswith(f"{case}/")}
    whole = tensors.pop("whole")
    held = {f"layer.{name}": np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(held, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        packed = as_packed(SimpleNamespace(quantization_config=settings), checkpoint)
        assert packed.names() == ["layer.weight"]
        np.testing.assert_allclose(packed.read("layer.weight"), whole, rtol=1e-6, atol=1e-7)
