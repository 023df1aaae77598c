"""The families of shared layers, one head each: int8 weights, adapters, scores beyond float16, every way to save, JAX.

A process takes one backend: this file, run as a script under KERAS_BACKEND=jax, computes there what a test compares.
"""

import copy
import os
import pickle
import re
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


@pytest.mark.quick(2)
@pytest.mark.parametrize("name, head", small.ONE_HEAD[::-1])
def test_scores_beyond_float16(name, head):
    """|q.k| passes 1e5 before it is scaled; float16 ends at 65504."""
    exact = small.make(name, head)
    for weight in exact.weights:
        if re.search(r"/[qk]_norm/", weight.path):
            weight.assign(np.full(weight.shape, 250.0))
        elif re.search(r"/([qk](_proj)?|c_attn|Wqkv)/kernel", weight.path):
            weight.assign(weight * 3000.0)
        weight.assign(np.float16(weight.numpy()))
    want = exact(**small.inputs_of(name, head)).logits
    for implementation in ("eager", "blockwise"):
        half = small.class_of(name, head)(exact.config, dtype="float16", attn_implementation=implementation)
        half.set_weights(exact.get_weights())
        got = np.asarray(half(**small.inputs_of(name, head)).logits, "float32")
        # Scores of 1e5 are rounded to multiples of 50 or so: a query may take the key that is next to the largest.
        assert np.isfinite(got).all() and np.mean(np.abs(got - want) > 0.1) < 0.2


def saved_and_read(model, folder):
    """Models that were saved and read again, one for each way."""
    import keras
    import tensorflow as tf

    model.save(folder / "model.keras")
    yield keras.models.load_model(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    again = type(model)(model.config)
    again.load_weights(folder / "model.weights.h5")
    yield again
    path = tf.train.Checkpoint(model).save(str(folder / "checkpoint"))
    again = type(model)(model.config)
    tf.train.Checkpoint(again).restore(path).assert_consumed()
    yield again
    yield pickle.loads(pickle.dumps(model))
    yield copy.deepcopy(model)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    yield again


@pytest.mark.quick(1)
@pytest.mark.parametrize("name, head", small.ONE_HEAD)
def test_every_way_to_save_brings_every_weight_back(name, head, tmp_path):
    model = small.make(name, head, seed=3)
    want = model(**small.inputs_of(name, head)).logits
    for again in saved_and_read(model, tmp_path):
        np.testing.assert_array_equal(again(**small.inputs_of(name, head)).logits, want)


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
