"""Blocks of GGUF files as packed weights: the same numbers as the gguf library's floats."""

import numpy as np
import pytest

from tfmodels.checkpoints.quantized import gguf_blocks
from tfmodels.checkpoints.quantized.scheme import dequantize

gguf = pytest.importorskip("gguf")

# Where the float16 numbers of a block begin, if not at 0 alone.
FLOATS = dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2))
FLOATS |= {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}


@pytest.mark.parametrize("kind", sorted(gguf_blocks._KINDS))
def test_the_numbers_of_the_library(kind):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (6, 3, size), np.uint8)
    for start in FLOATS.get(kind, (0,)):  # finite float16 numbers
        numbers = rng.normal(size=(6, 3, 1)).astype(np.float16)
        blocks[..., start : start + 2] = numbers.view(np.uint8).reshape(6, 3, 2)
    wanted = gguf.quants.dequantize(blocks.reshape(6, -1), gguf.GGMLQuantizationType[kind])
    scheme, decode = gguf_blocks._KINDS[kind]
    parts = gguf_blocks._reader(lambda: blocks, scheme, decode)()
    for name, (shape, dtype) in scheme.parts(3 * elements, 6).items():
        assert parts[name].shape == shape and parts[name].dtype == dtype
    np.testing.assert_allclose(dequantize(parts, scheme, 3 * elements).T, wanted, rtol=1e-6, atol=1e-6)
