"""Whether this process has a GPU, and one that the fused kernels support."""

from __future__ import annotations

import functools

from keras import backend

_MIN_CAPABILITY = (8, 0)


def has_gpu() -> bool:
    """Whether TensorFlow is the backend and sees a GPU."""
    if backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


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
