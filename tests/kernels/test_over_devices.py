"""kernels/over_devices.py: attention on four devices of JAX gives what one device does, and each computes its part.

Keras's plain form stands in the place of its fused one, which needs a GPU: tests/gpu/test_over_devices.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LENGTH = 12
LEFT = [[1] * LENGTH, [0] * 3 + [1] * 9, [0] * 7 + [1] * 5, [1] * LENGTH]
# name -> query heads, key/value heads, and what is special.
CASES = {
    "grouped": ((8, 4), {}),
    "one key head for all": ((8, 1), {}),
    "two key heads, padding": ((8, 2), {"padding": LEFT}),
    "window": ((8, 2), {"window": 5}),
    "bias": ((8, 8), {"bias": (1, 8)}),
    "heads that do not divide": ((3, 1), {}),
}
# name -> devices of the batch and of the heads; and a batch's rows, heads and key/value heads on one of them.
MESHES = {"2 x 2": (2, 2), "1 x 4": (1, 4), "data": None}
PARTS = {
    ("2 x 2", "grouped"): [2, 4, 2],
    ("2 x 2", "one key head for all"): [2, 4, 1],
    ("1 x 4", "two key heads, padding"): [4, 2, 1],
    ("1 x 4", "grouped"): [4, 2, 1],
    ("1 x 4", "heads that do not divide"): [4, 3, 1],
    ("data", "bias"): [1, 8, 8],
}


def run(meshes: dict, *, fused: bool) -> dict:
    """Relative errors of output and gradients, and the shapes that a device saw, by mesh and case.

    Args:
        meshes: as `MESHES`.
        fused: whether Keras's fused form computes, of which nothing is seen; else its plain one.
    """
    import jax
    import keras

    from tfmodels.kernels import cudnn_attention
    from tfmodels.kernels.masks import make_mask
    from tfmodels.layers.attention import attend

    plain, seen = keras.ops.dot_product_attention, []

    def stand_in(*arrays, flash_attention, bias=None, **options):
        seen.append([arrays[0].shape[0], arrays[0].shape[2], arrays[1].shape[2]])
        wide = [x.astype("float32") for x in arrays]  # a CPU has no float16 products of this kind
        return plain(*wide, bias=None if bias is None else bias.astype("float32"), **options).astype(arrays[0].dtype)

    if not fused:
        cudnn_attention.ops.dot_product_attention, cudnn_attention.unavailable = stand_in, lambda: None
    devices, found = keras.distribution.list_devices(), {}

    def computed(case, arrays, implementation):
        options = CASES[case][1]
        mask = make_mask(
            np.array(options["padding"]) if "padding" in options else None,
            causal="bias" not in options,
            query_length=LENGTH,
            key_length=LENGTH,
        )
        mask = mask.with_window(options["window"]) if "window" in options else mask
        counts = np.array(options.get("padding", [[1] * LENGTH] * 4))[:, None, :, None]

        @jax.jit
        def both(arrays):
            def total(arrays):
                bias = arrays[3] if len(arrays) > 3 else None
                output, _ = attend(*arrays[:3], mask=mask, scale=0.3, bias=bias, implementation=implementation)
                output = output * counts
                return (output.astype("float32") * np.cos(np.arange(output.size)).reshape(output.shape)).sum(), output

            gradients, output = jax.grad(total, has_aux=True)(arrays)
            return [output, *gradients]

        return [np.asarray(x, "float32") for x in both(arrays)]

    for name, sizes in meshes.items():
        if sizes is None:
            distribution = keras.distribution.DataParallel(devices=devices)
        else:
            mesh = keras.distribution.DeviceMesh(sizes, ("batch", "model"), devices)
            layouts = keras.distribution.LayoutMap(mesh)
            distribution = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
        for case, (heads, options) in CASES.items():
            rng = np.random.default_rng(1)
            arrays = [rng.normal(size=(4, n, LENGTH, 16)).astype("float16") for n in (heads[0], heads[1], heads[1])]
            if "bias" in options:
                arrays.append(rng.normal(size=(*options["bias"], LENGTH, LENGTH)).astype("float16"))
            want = computed(case, [x.astype("float32") for x in arrays], "eager")
            seen.clear()
            with distribution.scope():
                got = computed(case, arrays, "flash")
            errors = [float(np.linalg.norm(g - w) / np.linalg.norm(w)) for g, w in zip(got, want, strict=True)]
            found[f"{name}: {case}"] = {"error": max(errors), "part": seen[0] if seen else None}
    return found


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    root = Path(__file__).parents[2]
    output = subprocess.run(
        [sys.executable, __file__], check=True, env=environment, cwd=root, stdout=subprocess.PIPE, text=True
    )
    return json.loads(output.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mesh", MESHES)
def test_devices_together_compute_what_one_does(found, mesh, case):
    assert found[f"{mesh}: {case}"]["error"] <= 3e-3
    if (mesh, case) in PARTS:
        assert found[f"{mesh}: {case}"]["part"] == PARTS[mesh, case]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.stdout.write(json.dumps(run(MESHES, fused=False)) + "\n")
