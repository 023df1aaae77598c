"""Fused attention on several GPUs under a distribution of JAX, against one device.

KERAS_BACKEND=jax pytest -o addopts= -m gpu tests/gpu/test_over_devices.py
"""

from __future__ import annotations

import keras
import pytest
from kernels.test_over_devices import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution does nothing here"),
]


def test_gpus_together_compute_what_one_does(settings):
    count = len(keras.distribution.list_devices())
    if count not in (2, 4):
        pytest.skip(f"for 2 or 4 devices, not {count}")
    found = run({"heads": (1, count), "data": None}, fused=settings.device == "gpu")
    assert {name: case["error"] for name, case in found.items() if not case["error"] <= 5e-3} == {}
