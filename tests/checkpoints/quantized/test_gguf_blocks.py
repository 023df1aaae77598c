"""Blocks of GGUF files as packed weights: the same numbers as the gguf library's floats."""

import numpy as np
import pytest

from tfmodels.checkpoints.quantized import gguf_blocks
from tfmodels.checkpoints.quantized.scheme import dequantize

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"])
def test_the_numbers_of_the_library(kind):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (6, 3, size), np.uint8)
    for start in {"Q4_1": (0, 2), "Q4_K": (0, 2), "Q6_K": (208,)}.get(kind, (0,)):  # finite float16 numbers
        numbers = rng.normal(size=(6, 3, 1)).astype(np.float16)
        blocks[..., start : start + 2] = numbers.view(np.uint8).reshape(6, 3, 2)
    wanted = gguf.quants.dequantize(blocks.reshape(6, -1), gguf.GGMLQuantizationType[kind])
    scheme, decode = gguf_blocks._KINDS[kind]
    parts = gguf_blocks._reader(lambda: blocks, scheme, decode)()
    for name, (shape, dtype) in scheme.parts(3 * elements, 6).items():
        assert parts[name].shape == shape and parts[name].dtype == dtype
    np.testing.assert_allclose(dequantize(parts, scheme, 3 * elements).T, wanted, rtol=1e-6, atol=1e-6)
