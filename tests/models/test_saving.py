"""Every way to keep a model gives back all of its weights: the outputs are the same, here and in another process."""

import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels.training.callbacks import BackupAndRestore
from tfmodels.training.lora import add_lora

ROOT = Path(__file__).parent.parent.parent
FIRST = dict(small.FIRST)
CASES = [case if case in small.FIRST else pytest.param(*case, marks=pytest.mark.slow) for case in small.SOME]
# Layers that take adapters, by what all families call their attention.
ATTENTION = r"(attn|attention)\."


def frozen(model):
    model.backbone.embed_tokens.trainable = False
    model.backbone.layers[1].trainable = False


def adapted(model):
    add_lora(model, ATTENTION, rank=2)
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape, scale=0.3))


KINDS = {
    "plain": lambda model: None,
    "frozen": frozen,
    "adapted": adapted,
    "int8": lambda model: model.quantize("int8"),
}


def made(name, head, kind="plain", seed=0):
    model = small.make(name, head, seed=seed)
    rng = np.random.default_rng(seed)
    # Norms start as ones and biases as zeros, which would hide it where they are lost.
    model.set_weights([w + rng.normal(size=w.shape, scale=0.1).astype(w.dtype) for w in model.get_weights()])
    KINDS[kind](model)
    return model


def outputs(model, name, head):
    found = model(**small.inputs_of(name, head))
    return [np.asarray(found[field]) for field in found if field != "past_key_values"]


def by_file(model, fresh, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def by_weights(model, fresh, folder):
    model.save_weights(folder / "model.weights.h5")
    fresh.load_weights(folder / "model.weights.h5")
    return fresh


def by_checkpoint(model, fresh, folder):
    path = tf.train.Checkpoint(model=model).save(str(folder / "checkpoint"))
    tf.train.Checkpoint(model=fresh).restore(path).assert_consumed()
    return fresh


def by_checkpoint_manager(model, fresh, folder):
    tf.train.CheckpointManager(tf.train.Checkpoint(model), folder, max_to_keep=1).save()
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(fresh), folder, max_to_keep=1)
    manager.checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    return fresh


def by_clone(model, fresh, folder):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def by_backup(model, fresh, folder):
    for one in (model, fresh):
        one.compile("sgd")
    backup = BackupAndRestore(folder / "backup", delete_checkpoint=False)
    backup.set_model(model)
    backup.on_epoch_end(0)
    restored = BackupAndRestore(folder / "backup")
    restored.set_model(fresh)
    restored.on_train_begin()
    assert fresh._initial_epoch == 1
    return fresh


WAYS = {
    "keras file": by_file,
    "weights file": by_weights,
    "checkpoint": by_checkpoint,
    "checkpoint manager": by_checkpoint_manager,
    "pickle": lambda model, fresh, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, fresh, folder: copy.deepcopy(model),
    "clone_model": by_clone,
    "backup": by_backup,
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("name, head", CASES)
def test_every_weight_comes_back(name, head, tmp_path):
    model, want = made(name, head), None
    want = outputs(model, name, head)
    fresh = made(name, head, seed=1)
    assert any(np.abs(one - other).max() > 1e-3 for one, other in zip(outputs(fresh, name, head), want, strict=True))
    random = fresh.get_weights()
    for number, (way, keep) in enumerate(WAYS.items()):
        fresh.set_weights(random)
        folder = tmp_path / str(number)
        folder.mkdir()
        for got, right in zip(outputs(keep(model, fresh, folder), name, head), want, strict=True):
            np.testing.assert_array_equal(got, right, err_msg=way)


# Llama with each kind; kinds are shared code, of which every other family has one.
@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "name, kind",
    [*(("llama", kind) for kind in ("frozen", "adapted", "int8"))]
    + [("gpt_neox", "adapted"), ("gpt_neo", "int8"), ("mpt", "adapted"), ("mpnet", "frozen")],
)
def test_frozen_weights_adapters_and_quantised_weights_too(name, kind, tmp_path):
    head = FIRST[name]
    model = made(name, head, kind)
    want = outputs(model, name, head)
    for number, (way, keep) in enumerate(WAYS.items()):
        fresh = made(name, head, kind, seed=1)
        folder = tmp_path / str(number)
        folder.mkdir()
        restored = keep(model, fresh, folder)
        for got, right in zip(outputs(restored, name, head), want, strict=True):
            np.testing.assert_array_equal(got, right, err_msg=way)
        if kind == "adapted":
            assert restored.lora_config == model.lora_config


def test_generation_settings_come_along(tmp_path):
    model = made("llama", "ForCausalLM")
    model.generation_config.max_new_tokens, model.generation_config.temperature = 7, 0.25
    keeps = (by_file, by_clone, WAYS["pickle"], WAYS["deepcopy"])
    for keep in keeps:
        assert keep(model, None, tmp_path).generation_config == model.generation_config


def test_a_saved_model_gives_the_same_outputs(tmp_path):
    model = made("llama", "ForSequenceClassification")
    ids = small.inputs_of("llama", "ForSequenceClassification")["input_ids"]
    tf.saved_model.save(
        model,
        str(tmp_path / "saved"),
        signatures=tf.function(lambda ids: {"logits": model(ids).logits}).get_concrete_function(
            tf.TensorSpec((None, None), "int32", name="ids")
        ),
    )
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    got = loaded.signatures["serving_default"](ids=tf.constant(ids, "int32"))["logits"]
    np.testing.assert_allclose(got, model(ids).logits, atol=1e-6)


def test_training_goes_on_from_a_checkpoint_of_model_and_optimizer(tmp_path):
    def train(model, epochs):
        data = {**small.inputs_of("llama", "ForCausalLM"), **small.labels_of("llama", "ForCausalLM")}
        model.compile(keras.optimizers.Adam(0.02), run_eagerly=True)
        model.optimizer.build(model.trainable_variables)
        return lambda: model.fit(data, epochs=epochs, verbose=0).history["loss"]

    model, other = made("llama", "ForCausalLM"), made("llama", "ForCausalLM", seed=1)
    step, other_step = train(model, 1), train(other, 1)
    step()
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "both"))
    tf.train.Checkpoint(model=other, optimizer=other.optimizer).restore(path)
    for _ in range(3):
        assert other_step() == pytest.approx(step(), rel=1e-6)


OTHER_PROCESS = """
    import json, pickle, sys
    from pathlib import Path
    import tfmodels  # all that a user imports to load a .keras file
    import keras, numpy as np

    folder = Path(sys.argv[1])
    cases = json.loads((folder / "cases.json").read_text())
    loaded = {case: keras.models.load_model(folder / f"{case}.keras") for case in cases}

    import tensorflow as tf
    import small_models as small

    for case, (name, head) in cases.items():
        model, want = loaded[case], np.load(folder / f"{case}.npy")
        inputs = small.inputs_of(name, head)
        models = {"keras": model, "pickle": pickle.loads((folder / f"{case}.pickle").read_bytes())}
        models["checkpoint"] = type(model).from_config(model.get_config())
        tf.train.Checkpoint(models["checkpoint"]).read(str(folder / case)).assert_existing_objects_matched()
        models["weights"] = type(model).from_config(model.get_config())
        models["weights"].load_weights(folder / f"{case}.weights.h5")
        for way, one in models.items():
            np.testing.assert_allclose(one(**inputs)[0], want, atol=1e-6, err_msg=f"{case} {way}")
    print("the same")
"""


@pytest.mark.slow
def test_the_same_in_another_process(tmp_path):
    cases = {f"{kind}-{name}": (name, FIRST[name], kind) for name in small.SMALL for kind in ("plain",)}
    cases |= {f"{kind}-llama": ("llama", "ForCausalLM", kind) for kind in ("frozen", "adapted", "int8")}
    for case, (name, head, kind) in cases.items():
        model = made(name, head, kind)
        model.save(tmp_path / f"{case}.keras")
        model.save_weights(tmp_path / f"{case}.weights.h5")
        tf.train.Checkpoint(model).write(str(tmp_path / case))
        (tmp_path / f"{case}.pickle").write_bytes(pickle.dumps(model))
        np.save(tmp_path / f"{case}.npy", outputs(model, name, head)[0])
    (tmp_path / "cases.json").write_text(json.dumps({case: value[:2] for case, value in cases.items()}))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", textwrap.dedent(OTHER_PROCESS), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[-2] == "the same"


@pytest.mark.parametrize("method, name", [("save", "m.keras"), ("save_weights", "m.weights.h5")])
def test_a_failed_save_leaves_the_old_file(method, name, tmp_path, monkeypatch):
    model = made("llama", "Model")
    getattr(model, method)(tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def fail(self, path, **options):
        Path(path).write_bytes(b"torn")
        raise OSError("no space left")

    monkeypatch.setattr(keras.Model, method, fail)
    with pytest.raises(OSError, match="no space left"):
        getattr(model, method)(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == before
