"""Logits of a small Llama with int8 weights, by this package and by TensorFlow alone.

A script for a process of its own, as XLA reads its flags once. It writes a line of JSON: per way to compute them, the
relative error beside plain float32, and the error that is allowed.

    XLA_FLAGS=--xla_gpu_command_buffer_scheduling_mode=CONCURRENT python tests/gpu/concurrent_graphs.py [models]
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ["TFMODELS_XLA_CACHE"] = "0"
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from gpu import test_decoding  # noqa: E402
from gpu.checks import BOUNDS, relative_error  # noqa: E402

from tfmodels.kernels import cudnn_attention, triton_decoding  # noqa: E402

WIDTH, HEADS, LAYERS, TOKENS, BATCH = 256, 4, 2, 32, 3


def weights_of(rng: np.random.Generator) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Per layer int8 matrices and the scales of their columns."""
    shapes = dict.fromkeys("qkvo", (WIDTH, WIDTH)) | {"gate": (WIDTH, 512), "up": (WIDTH, 512), "down": (512, WIDTH)}

    def matrix(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        scales = rng.uniform(1, 2, shape[1]) / (64 * shape[0] ** 0.5)
        return rng.integers(-127, 128, shape).astype("int8"), scales.astype("float32")

    return [{name: matrix(shape) for name, shape in shapes.items()} for _ in range(LAYERS)]


def blocks(x: Any, layers: Any) -> Any:
    """A decoder's blocks in operations of TensorFlow, with products that do not need each other."""

    def product(x: Any, weights: Any) -> Any:
        matrix, scales = weights
        return tf.matmul(x, tf.cast(matrix, x.dtype)) * tf.cast(scales, x.dtype)

    def normed(x: Any) -> Any:
        wide = tf.cast(x, "float32")
        return tf.cast(wide * tf.math.rsqrt(tf.reduce_mean(wide**2, -1, keepdims=True) + 1e-6), x.dtype)

    def heads(x: Any) -> Any:
        return tf.transpose(tf.reshape(x, (BATCH, TOKENS, HEADS, WIDTH // HEADS)), (0, 2, 1, 3))

    seen = tf.linalg.band_part(tf.ones((TOKENS, TOKENS), "bool"), -1, 0)
    for layer in layers:
        inputs = normed(x)
        query, key, value = (heads(product(inputs, layer[name])) for name in "qkv")
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), "float32") / (WIDTH // HEADS) ** 0.5
        attended = tf.matmul(tf.cast(tf.nn.softmax(tf.where(seen, scores, -1e9)), x.dtype), value)
        x = x + product(tf.reshape(tf.transpose(attended, (0, 2, 1, 3)), (BATCH, TOKENS, WIDTH)), layer["o"])
        inputs = normed(x)
        x = x + product(tf.nn.silu(product(inputs, layer["gate"])) * product(inputs, layer["up"]), layer["down"])
    return x


def by_tensorflow_alone(loop: bool) -> tuple[float, float]:
    """Error of the blocks under XLA, once or as the body of a loop, and the error allowed."""
    rng = np.random.default_rng(0)
    layers, inputs = weights_of(rng), rng.standard_normal((BATCH, TOKENS, WIDTH)).astype("float32")
    layers = tf.nest.map_structure(tf.Variable, layers)

    def once(x: Any) -> Any:
        return blocks(x, layers)

    def three_times(x: Any) -> Any:
        return tf.while_loop(lambda step, _: step < 3, lambda step, x: (step + 1, once(x)), (0, x))[1]

    function = three_times if loop else once
    want = inputs
    for _ in range(3 if loop else 1):
        want = once(want)
    compiled = tf.function(function, jit_compile=True, autograph=False)
    found = [relative_error(compiled(tf.cast(inputs, "bfloat16")), want) for _ in range(10)]
    return max(found), 3 * BOUNDS["bfloat16"]


def by_models() -> dict[str, tuple[float, float]]:
    """Errors of decoding as test_decoding.py measures them, by the kernels of this package and without them."""

    def decoded() -> tuple[float, float]:
        found = test_decoding.errors("llama", LAYERS, "bfloat16", "left-padded, int8")
        return found.output, found.allowed[0]

    results = {"the package's kernels": decoded()}
    cudnn_attention.unavailable = triton_decoding.unavailable = lambda: "it is switched off here"
    results["the package without kernels"] = decoded()
    return results


def main() -> None:
    keras.utils.set_random_seed(0)
    results: dict[str, Any] = {
        "TensorFlow alone": by_tensorflow_alone(loop=False),
        "TensorFlow alone, in a loop": by_tensorflow_alone(loop=True),
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results |= by_models()
    results["warnings"] = [str(warning.message) for warning in caught if "XLA_FLAGS" in str(warning.message)]
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    if "--cpu" in sys.argv:
        tf.config.set_visible_devices([], "GPU")
    elif tf.config.get_visible_devices("GPU"):
        tf.config.experimental.enable_tensor_float_32_execution(False)
    main()
