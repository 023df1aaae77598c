"""Whether this process has an NVIDIA GPU that the fused kernels support."""

from __future__ import annotations

import functools

_MIN_CAPABILITY = (8, 0)


@functools.cache
def missing() -> str | None:
    """The fused kernels' unmet need in this process, to follow the word "needs"; None where they can run."""
    import tensorflow as tf

    devices = tf.config.get_visible_devices("GPU")
    if not devices:
        return "a GPU, and TensorFlow sees none"
    if not tf.test.is_built_with_cuda():
        return "a TensorFlow built with CUDA"
    for device in devices:
        capability = tf.config.experimental.get_device_details(device).get("compute_capability", (0, 0))
        if capability < _MIN_CAPABILITY:
            return f"compute capability 8.0; {device.name} has {'.'.join(map(str, capability))}"
    return None
