"""Fused attention by Triton: what it serves, the kernels that are called, and (with PyTorch) what they compute.

The kernels run on a GPU only, where tests/gpu compares them with plain float32; here Triton's interpreter runs them.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from kernels.test_triton import kernels_of

from tfmodels.kernels import cudnn_attention, flash_attention
from tfmodels.kernels.blockwise_attention import Dropout
from tfmodels.kernels.masks import AttentionMask, make_mask
from tfmodels.layers.attention import AttentionPath, attend, choose

has_triton = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not has_triton, reason="triton is not installed")


def mask_of(**options):
    return AttentionMask(16, 16, **{"causal": True, **options})


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(cudnn_attention, "unavailable", lambda: None)
    monkeypatch.setattr(flash_attention, "unavailable", lambda: None)


X = tf.zeros((2, 4, 16, 64), "float16")
KEYS = tf.ones((2, 16), "bool")


@pytest.mark.parametrize(
    ("options", "drops", "width", "path"),
    [
        ({}, False, 64, "flash"),
        ({}, True, 64, "triton"),
        ({"segments": tf.zeros((1, 16), "int32")}, False, 64, "triton"),
        ({"pairs": tf.ones((2, 1, 16, 16), "bool")}, False, 64, "triton"),
        ({"window": 4}, False, 64, "flash"),
        ({"window": 4, "keys": KEYS}, False, 64, "triton"),
        ({"window": 4, "ahead": 3, "causal": False}, False, 64, "triton"),
        ({"keys": KEYS, "fills": True}, False, 64, "triton"),
        ({}, False, 192, "triton"),
    ],
)
def test_what_is_computed_by_which_kernels(gpu, options, drops, width, path):
    x = tf.zeros((2, 4, 16, width), "float16")
    assert choose("flash", x, x, mask=mask_of(**options), drops=drops) == AttentionPath(path)
    # Not measured yet: only where it is asked for.
    assert choose("auto", x, x, mask=mask_of(**options), drops=drops).name == ("flash" if path == "flash" else "eager")


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (tf.zeros((2, 4, 16, 64)), {}, "compute in float16 or bfloat16, not in float32"),
        (tf.zeros((2, 4, 16, 264), "float16"), {}, "up to 256 numbers per head, not 264"),
        (X, {"pairs": tf.ones((2, 1, 16, 16), "bool"), "fills": True}, "a mask of pairs"),
        (X, {"offset": tf.constant([1, 2]), "window": 3, "keys": KEYS}, "over their own keys alone"),
    ],
)
def test_what_no_kernel_serves_is_said(gpu, x, options, message):
    with pytest.raises(ValueError, match=f"'flash' cannot serve this call: .*; .*{message}"):
        choose("flash", x, x, mask=mask_of(**options), drops=True)


@needs_triton
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_call_launches_three_kernels_and_a_fourth_for_a_bias(gpu, dtype):
    x = tf.zeros((2, 4, 48, 64), dtype)
    bias = tf.zeros((1, 4, 48, 48), dtype)
    seed = tf.constant([1, 2], "uint32")

    def gradients(*arrays):
        mask = make_mask(None, causal=True, query_length=48, key_length=48)
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            options = {"scale": 1.0, "mask": mask, "dropout": Dropout(0.1, seed)}
            output = flash_attention.attention(*arrays[:3], **options, bias=arrays[3] if len(arrays) > 3 else None)
        return tape.gradient(output, arrays)

    kernels = {"flash_forward", "flash_query_gradient", "flash_key_gradient"}
    assert kernels <= kernels_of(gradients, x, x, x).keys()
    assert kernels_of(gradients, x, x, x)["flash_bias_gradient"] == 0
    assert kernels | {"flash_bias_gradient"} <= kernels_of(gradients, x, x, x, bias).keys()


def test_without_a_gpu_it_says_so():
    if cudnn_attention.unavailable() is None:
        pytest.skip("has a GPU")
    assert flash_attention.unavailable()
    with pytest.raises(ValueError, match="'flash' cannot serve this call"):
        attend(X, X, X, mask=mask_of(), scale=1.0, implementation="flash")


@pytest.fixture(scope="module")
def interpreted():
    pytest.importorskip("torch", reason="Triton's interpreter takes its tensors")
    script = Path(__file__).with_name("interpreted_flash.py")
    root = Path(__file__).parents[2]
    output = subprocess.run([sys.executable, str(script)], check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    return [json.loads(line) for line in output.stdout.splitlines()]


@pytest.mark.slow
@needs_triton
def test_kernels_compute_what_plain_attention_does(interpreted):
    assert len(interpreted) == 17
    for case in interpreted:
        assert case["output"] < 2e-3 and case["gradient"] < 2e-3, case
