"""The families of shared layers, one head each: int8 weights, adapters beside them, and the same numbers on JAX.

A process takes one backend: this file, run as a script under KERAS_BACKEND=jax, computes there what a test compares.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models as small

ROOT = Path(__file__).parents[2]


def logits_of(name, head, folder):
    model = small.class_of(name, head).from_pretrained(folder / name)
    from keras import ops

    return ops.convert_to_numpy(model(**small.inputs_of(name, head)).logits)


@pytest.mark.parametrize("name, head", small.ONE_HEAD)
def test_adapters_learn_beside_int8_weights(name, head):
    import tensorflow as tf

    from tfmodels.training.lora import add_lora

    model = small.make(name, head)
    inputs, labels = small.inputs_of(name, head), small.labels_of(name, head)
    for weight in model.weights:  # rounding shows
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    whole = np.asarray(model(**inputs).logits)
    model.quantize("int8", group_size="channel")
    assert model.quantization == "int8"
    rounded = np.asarray(model(**inputs).logits)
    assert 0 < np.linalg.norm(rounded - whole) < 0.1 * np.linalg.norm(whole)
    add_lora(model, ".*", rank=2)
    np.testing.assert_array_equal(model(**inputs).logits, rounded)
    learning = [weight for weight in model.trainable_variables if "lora" in weight.path]
    assert learning
    losses = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = model(**inputs, **labels).loss
        gradients = tape.gradient(loss, [weight.value for weight in learning])
        for weight, gradient in zip(learning, gradients, strict=True):
            weight.assign(weight - 0.05 * tf.convert_to_tensor(gradient) / tf.linalg.global_norm(gradients))
        losses.append(float(loss))
    assert losses[1] < losses[0]


@pytest.mark.slow
def test_the_same_logits_on_jax(tmp_path):
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    for name, head in small.ONE_HEAD:
        small.make(name, head).save_pretrained(tmp_path / name)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, env=environment, cwd=ROOT)
    there = np.load(tmp_path / "jax.npz")
    for name, head in small.ONE_HEAD:
        np.testing.assert_allclose(there[name], logits_of(name, head, tmp_path), rtol=1e-5, atol=1e-5, err_msg=name)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    np.savez(folder / "jax.npz", **{name: logits_of(name, head, folder) for name, head in small.ONE_HEAD})
