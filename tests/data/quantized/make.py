"""Record what the libraries of two methods pack, and dequantise it to: `layouts.npz`.

Needs torch, compressed-tensors 0.20 and, on the path, `packing_utils.py` of AutoAWQ 0.2.9 (awq/utils).
"""

from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from packing_utils import dequantize_gemm

UNITS, WIDTH, GROUP = 16, 40, 8


def main() -> None:
    torch.manual_seed(0)
    found = {}
    for bits, symmetric in ((4, True), (4, False), (8, True)):
        weights = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=GROUP)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights)
        state = {
            "weight": torch.randn(UNITS, WIDTH),
            "weight_scale": torch.rand(UNITS, WIDTH // GROUP) / 2**bits + 0.01,
        }
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
        state["weight_zero_point"] = torch.randint(low, high, (UNITS, WIDTH // GROUP), dtype=torch.int8)
        if symmetric:
            state["weight_zero_point"].zero_()
        packed = PackedQuantizationCompressor.compress(state, scheme)
        whole = PackedQuantizationCompressor.decompress(dict(packed), scheme)["weight"]
        case = f"compressed-{bits}-{'symmetric' if symmetric else 'zeros'}"
        found |= {f"{case}/{name}": tensor.numpy() for name, tensor in packed.items()}
        found[f"{case}/whole"] = whole.float().numpy()
    words = (WIDTH, UNITS // 8), (WIDTH // GROUP, UNITS // 8)
    qweight, qzeros = (torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int32) for shape in words)
    scales = (torch.rand(WIDTH // GROUP, UNITS) / 16).half()
    found |= {"awq/qweight": qweight.numpy(), "awq/qzeros": qzeros.numpy(), "awq/scales": scales.numpy()}
    found["awq/whole"] = dequantize_gemm(qweight, qzeros, scales.float(), 4, GROUP).T.numpy()
    np.savez_compressed(Path(__file__).with_name("layouts.npz"), **found)


if __name__ == "__main__":
    main()
