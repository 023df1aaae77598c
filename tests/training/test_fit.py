"""`fit`, `evaluate` and `predict` as Keras users call them."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels.training.metrics import EntityF1, MaskedAccuracy, Perplexity

ROOT = Path(__file__).parent.parent.parent
IDS = np.random.default_rng(0).integers(2, 61, (8, 6))
MASK = np.ones_like(IDS)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 0, 1])
INPUTS = {"input_ids": IDS, "attention_mask": MASK}


def make(head, **settings):
    """A model of one layer, which is traced and compiled in less time."""
    return small.make("llama", head, num_hidden_layers=1, **settings)


def sparse_loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Batches(keras.utils.PyDataset):
    """The same data as a Keras PyDataset."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return {name: value[rows] for name, value in INPUTS.items()}, CLASSES[rows]


def in_batches(*data):
    return tf.data.Dataset.from_tensor_slices(data if len(data) > 1 else data[0]).batch(4)


WAYS = {
    "tf.data of dicts": lambda: (in_batches({**INPUTS, "labels": CLASSES}),),
    "tf.data of (dict, labels)": lambda: (in_batches(INPUTS, CLASSES),),
    "tf.data of (dict, dict)": lambda: (in_batches(INPUTS, {"labels": CLASSES}),),
    "tf.data of (list, labels)": lambda: (in_batches((IDS, MASK), CLASSES),),
    "NumPy dict with labels": lambda: ({**INPUTS, "labels": CLASSES},),
    "NumPy dict and labels": lambda: (INPUTS, CLASSES),
    "NumPy array and labels": lambda: (IDS, CLASSES),
    "PyDataset": lambda: (Batches(),),
}


def test_a_step_is_traced_once(monkeypatch):
    """And not again because of variables that the optimizer made meanwhile."""
    model = make("ForSequenceClassification")
    traced = []
    step = type(model).train_step
    monkeypatch.setattr(type(model), "train_step", lambda self, data: traced.append(1) or step(self, data))
    model.compile(keras.optimizers.AdamW(1e-3))
    first = model.fit({**INPUTS, "labels": CLASSES}, batch_size=4, epochs=2, verbose=0).history["loss"]
    assert first[1] != first[0] and len(traced) == 1 and model.optimizer.iterations == 4
    # What is trained is asked when training starts, not before.
    model.compile(keras.optimizers.AdamW(1e-3))
    model.backbone.trainable = False
    before = [np.asarray(weight) for weight in model.backbone.weights]
    model.fit({**INPUTS, "labels": CLASSES}, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.backbone.weights, strict=True))
    assert len(model.optimizer.variables) == 2 + 2 * len(model.trainable_variables)


def of_several_shapes():
    """Batches whose number and length of rows differ, of unknown shape to TensorFlow."""
    shapes = [(4, 6), (4, 6), (4, 9), (2, 9), (4, 6)]
    rng = np.random.default_rng(1)
    batches = [rng.integers(2, 61, shape).astype("int32") for shape in shapes]
    spec = tf.TensorSpec((None, None), "int32")
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec).map(
        lambda ids: {"input_ids": ids, "labels": ids}
    )


class Watched(small.class_of("llama", "ForCausalLM")):
    """A model that keeps the shapes for which its steps were traced."""

    def train_step(self, data):
        self.__dict__.setdefault("shapes", []).append(tf.nest.flatten(data)[0].shape)
        return super().train_step(data)


def watched(attention, **settings):
    keras.utils.set_random_seed(0)
    model = Watched(small.config_of("llama", num_hidden_layers=1), attn_implementation=attention)
    model.compile(keras.optimizers.SGD(0.1), **settings)
    return model


@pytest.mark.slow
def test_compiled_steps_know_their_shapes():
    """Attention in blocks raises where it does not; the numbers are those without XLA."""
    results = []
    for model in (watched("eager", jit_compile=False), watched("blockwise", jit_compile=True)):
        fitted = model.fit(of_several_shapes(), epochs=2, verbose=0).history["loss"]
        judged = model.evaluate(of_several_shapes(), verbose=0)
        predicted = [model.predict(batch["input_ids"], verbose=0)["logits"] for batch in of_several_shapes().take(3)]
        results.append((fitted, judged, predicted, model.train_on_batch(next(iter(of_several_shapes())))))
    for one, other in zip(*map(tf.nest.flatten, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    assert model.shapes == [(4, 6), (4, 9), (2, 9), (4, 6)]  # on_batch's is another structure


@pytest.mark.slow
def test_several_steps_of_unknown_shapes_are_one_to_callbacks():
    ends, losses = [], []
    for model in (watched("eager", steps_per_execution=2), watched("eager", steps_per_execution=2, jit_compile=True)):
        ends.append([])
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: ends[-1].append(step))
        losses.append(model.fit(of_several_shapes(), epochs=2, verbose=0, callbacks=[callback]).history["loss"])
        assert model.optimizer.iterations == 10
    assert ends[0] == ends[1] == [1, 3, 5, 1, 3, 5]
    np.testing.assert_allclose(*losses, rtol=2e-5)
    both = model.predict(IDS, batch_size=4, verbose=0)["logits"]
    np.testing.assert_allclose(both, model(input_ids=IDS).logits, rtol=1e-5, atol=1e-6)


def test_known_shapes_stay_with_keras():
    """Its loop over several steps is inside the program."""
    model = make("ForSequenceClassification")
    model.compile(keras.optimizers.SGD(0.1), jit_compile=True, steps_per_execution=2)
    data = tf.data.Dataset.from_tensor_slices({**INPUTS, "labels": CLASSES}).batch(2, drop_remainder=True)
    model.fit(data, epochs=2, verbose=0)
    assert model.train_function.programs.compilations == 0 and model.optimizer.iterations == 8


@pytest.mark.quick(6)
@pytest.mark.parametrize("loss", [None, sparse_loss()], ids=["own loss", "compiled loss"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_give_data_trains_alike(way, loss):
    model = make("ForSequenceClassification")
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"], run_eagerly=True)
    data = WAYS[way]()
    options = {"verbose": 0} | ({} if len(data) == 1 and not isinstance(data[0], dict) else {"batch_size": 4})
    history = model.fit(*data, shuffle=False, **options).history
    after = model.evaluate(*data, return_dict=True, **options)

    # The same two steps by hand.
    same = make("ForSequenceClassification")
    losses, hits = [], 0
    for rows in (slice(0, 4), slice(4, 8)):
        with tf.GradientTape() as tape:
            output = same(IDS[rows], attention_mask=MASK[rows], labels=CLASSES[rows], training=True)
        losses.append(float(output.loss))
        hits += (np.asarray(output.logits).argmax(-1) == CLASSES[rows]).sum()
        gradients = tape.gradient(output.loss, [weight.value for weight in same.trainable_weights])
        for weight, gradient in zip(same.trainable_weights, gradients, strict=True):
            weight.assign_sub(0.5 * tf.convert_to_tensor(gradient))
    assert history["loss"][0] == pytest.approx(np.mean(losses), rel=1e-5)
    assert history["accuracy"][0] == pytest.approx(hits / 8)
    assert after["loss"] == pytest.approx(float(same(IDS, attention_mask=MASK, labels=CLASSES).loss), rel=1e-5)
    predicted = model.predict(data[0], verbose=0).logits
    np.testing.assert_allclose(predicted, same(IDS, attention_mask=MASK).logits, atol=1e-5)


def test_weights_of_samples_and_classes():
    model = make("ForSequenceClassification")
    losses = np.asarray(sparse_loss().call(CLASSES, model(IDS).logits))
    model.compile(keras.optimizers.SGD(0.0), sparse_loss(), run_eagerly=True)
    weights = np.linspace(0.1, 2.0, 8).astype("float32")
    want = np.mean(losses * weights)
    assert model.fit(INPUTS, CLASSES, sample_weight=weights, verbose=0).history["loss"][0] == pytest.approx(want, 1e-5)
    data = tf.data.Dataset.from_tensors((INPUTS, CLASSES, weights))
    assert model.evaluate(data, verbose=0) == pytest.approx(want, rel=1e-5)
    shares = {0: 0.5, 1: 3.0, 2: 1.0}
    want = np.mean(losses * [shares[label] for label in CLASSES])
    history = model.fit(INPUTS, CLASSES, class_weight=shares, verbose=0).history
    assert history["loss"][0] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("compiled", [False, True], ids=["own loss", "compiled loss"])
@pytest.mark.parametrize("apart", [False, True], ids=["labels inside", "labels apart"])
def test_question_answering_has_two_targets(compiled, apart):
    model = make("ForQuestionAnswering")
    labels = {"start_positions": np.arange(8) % 6, "end_positions": np.arange(8)[::-1] % 6}
    loss = {"start_logits": sparse_loss(), "end_logits": sparse_loss()} if compiled else None
    metrics = {"start_logits": keras.metrics.SparseCategoricalAccuracy(name="right"), "end_logits": "accuracy"}
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=metrics, run_eagerly=True)
    data = (INPUTS, labels) if apart else ({**INPUTS, **labels},)
    got = model.evaluate(*data, verbose=0, return_dict=True)
    output = model(**INPUTS, **labels)
    assert got["loss"] == pytest.approx((2 if compiled else 1) * float(output.loss), rel=1e-5)
    for name, side in (("start_logits_right", "start"), ("end_logits_accuracy", "end")):
        hits = np.asarray(output[f"{side}_logits"]).argmax(-1) == labels[f"{side}_positions"]
        assert got[name] == pytest.approx(hits.mean())


def test_a_second_compile_without_a_loss_returns_to_the_models_own():
    model = make("ForSequenceClassification")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    compiled = model.evaluate(INPUTS, CLASSES, verbose=0)
    model.compile("sgd", run_eagerly=True)
    assert model.loss is None and model.evaluate(INPUTS, CLASSES, verbose=0) == pytest.approx(compiled, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_metrics_see_labels_and_logits(jit_compile):
    model = make("ForCausalLM")
    labels = np.where(IDS % 5 == 0, -100, IDS)
    model.compile("sgd", metrics=[MaskedAccuracy(shift=True), Perplexity()], jit_compile=jit_compile)
    got = model.evaluate({**INPUTS, "labels": labels}, verbose=0, return_dict=True)
    assert got["perplexity"] == pytest.approx(np.exp(got["loss"]), rel=1e-5)
    hits = np.asarray(model(IDS).logits).argmax(-1)[:, :-1] == labels[:, 1:]
    assert got["accuracy"] == pytest.approx(hits[labels[:, 1:] != -100].mean())


def test_entities_in_fit():
    tags = {0: "O", 1: "B-x", 2: "I-x"}
    model = small.make("mpnet", "ForTokenClassification", id2label=tags, hidden_dropout_prob=0.0, num_hidden_layers=1)
    labels = np.array([[0, 1, 2, 0, 1, -100]] * 8)
    model.compile(keras.optimizers.Adam(0.02), metrics=[EntityF1(model.config.id2label)])
    history = model.fit(INPUTS, labels, epochs=25, verbose=0).history
    assert history["entity_f1"][0] < 0.8 and history["entity_f1"][-1] == 1.0


class TestCallbacks:
    def fit(self, model, *callbacks, epochs=3, **options):
        model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"], jit_compile=False)
        return model.fit(
            INPUTS,
            CLASSES,
            validation_data=(INPUTS, CLASSES),
            callbacks=callbacks,
            epochs=epochs,
            verbose=0,
            **options,
        )

    @pytest.mark.slow
    def test_early_stopping_restores_the_best(self):
        model = make("ForSequenceClassification")
        start = float(model(IDS, labels=CLASSES).loss)
        stop = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True, start_from_epoch=0)
        climb = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 if epoch < 2 else -5.0)
        history = self.fit(model, climb, stop, epochs=9).history["val_loss"]
        assert len(history) == 4 and min(history) < start
        assert float(model(IDS, labels=CLASSES).loss) == pytest.approx(min(history), rel=1e-5)

    @pytest.mark.quick(1)
    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
    def test_model_checkpoint(self, suffix, tmp_path):
        model = make("ForSequenceClassification")
        path = tmp_path / f"best{suffix}"
        self.fit(model, keras.callbacks.ModelCheckpoint(path, save_weights_only=suffix != ".keras"))
        if suffix == ".keras":
            other = keras.models.load_model(path)
            # It trains on from where it was: the optimizer and the loss come along.
            again = [m.fit(INPUTS, CLASSES, verbose=0).history["loss"] for m in (model, other)]
            assert again[0] == pytest.approx(again[1], rel=1e-5)
        else:
            other = make("ForSequenceClassification", seed=1)
            other.load_weights(path)
        np.testing.assert_array_equal(other(IDS).logits, model(IDS).logits)

    def test_tensorboard_writes_scalars(self, tmp_path):
        pytest.importorskip("tensorboard", reason="the TensorBoard callback needs the tensorboard package")
        model = make("ForSequenceClassification")
        history = self.fit(model, keras.callbacks.TensorBoard(tmp_path, write_graph=False)).history
        found = {}
        for file in sorted(tmp_path.glob("train/*")):
            for record in tf.data.TFRecordDataset(str(file)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                for value in event.summary.value:
                    found.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
        assert found["epoch_loss"] == pytest.approx(history["loss"], rel=1e-5)


class TestOptimizers:
    def losses(self, optimizer, steps, batch, **compile_options):
        model = make("ForSequenceClassification")
        model.compile(optimizer, run_eagerly=True, **compile_options)
        data = tf.data.Dataset.from_tensor_slices((INPUTS, CLASSES)).batch(batch).repeat(steps)
        model.fit(data, verbose=0)
        return model

    def test_accumulated_gradients_are_those_of_the_whole_batch(self):
        whole = self.losses(keras.optimizers.SGD(0.5), 2, 8)
        parts = self.losses(keras.optimizers.SGD(0.5, gradient_accumulation_steps=4), 2, 2)
        assert float(whole(IDS, labels=CLASSES).loss) < 1.05
        np.testing.assert_allclose(parts(IDS).logits, whole(IDS).logits, atol=1e-5)

    def test_clipped_gradients_move_no_further_than_the_norm(self):
        before = make("ForSequenceClassification").get_weights()
        norms = []
        for limit in (None, 0.05):
            model = self.losses(keras.optimizers.SGD(1.0, global_clipnorm=limit), 1, 8)
            moved = [np.sum(np.square(new - old)) for new, old in zip(model.get_weights(), before, strict=True)]
            norms.append(np.sqrt(np.sum(moved)))
        assert norms[0] > 0.1 and norms[1] == pytest.approx(0.05, rel=0.01)

    def test_frozen_layers_stay(self):
        model = small.make("llama", "ForSequenceClassification")
        model.backbone.embed_tokens.trainable = False
        model.backbone.layers[0].trainable = False
        before = {id(weight): np.asarray(weight) + 0.0 for weight in model.weights}
        frozen = {id(weight) for weight in (*model.backbone.embed_tokens.weights, *model.backbone.layers[0].weights)}
        model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
        model.fit(INPUTS, CLASSES, verbose=0)
        for weight in model.weights:
            assert np.array_equal(before[id(weight)], weight) == (id(weight) in frozen), weight.path

    def test_warm_up(self):
        rate = keras.optimizers.schedules.CosineDecay(0.0, 4, warmup_target=0.4, warmup_steps=2)
        model = self.losses(keras.optimizers.SGD(rate), 2, 8)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.4)


class TestPrecision:
    # Llama in every precision, each of the others in a whole and in a mixed one.
    @pytest.mark.quick(1)
    @pytest.mark.parametrize(
        "name, dtype",
        [("llama", dtype) for dtype in ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")]
        + [(name, dtype) for name in ("gpt_neox", "mpt") for dtype in ("mixed_bfloat16", "float16")]
        + [(name, dtype) for name in ("gpt_neo", "mpnet") for dtype in ("mixed_float16", "bfloat16")],
    )
    def test_every_model_trains_in_its_own_precision(self, name, dtype):
        model = small.make(name, "ForTokenClassification", dtype=dtype)
        assert keras.config.dtype_policy().name == "float32"
        labels = IDS % 3
        # Adam stands still in pure bfloat16, in which its decay rates are 1, and its epsilon is 0 in pure float16.
        optimizer = keras.optimizers.SGD(0.3) if dtype in ("bfloat16", "float16") else keras.optimizers.Adam(0.02)
        if dtype == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
        model.compile(optimizer, jit_compile=False)
        before = float(model(IDS, labels=labels).loss)
        model.fit({**INPUTS, "labels": labels}, epochs=25, verbose=0)
        output = model(IDS, labels=labels)
        assert output.loss.dtype == "float32" and float(output.loss) < 0.6 * before
        assert output.logits.dtype == dtype.removeprefix("mixed_")
        assert model.weights[0].dtype == ("float32" if dtype.startswith("mixed") else dtype)

    @pytest.mark.quick(3)
    @pytest.mark.parametrize(
        "dtype, optimizer, message",
        [
            ("bfloat16", keras.optimizers.Adam, "Adam's beta_2=0.999 is 1 in bfloat16.* dtype='mixed_bfloat16'"),
            (
                "float16",
                keras.optimizers.AdamW,
                "AdamW's epsilon=1e-07 is too small for float16.* dtype='mixed_float16'",
            ),
            ("bfloat16", lambda: keras.optimizers.Adam(beta_2=0.95), None),
            ("bfloat16", keras.optimizers.SGD, None),
            ("bfloat16", keras.optimizers.Lion, None),
            ("mixed_bfloat16", keras.optimizers.Adam, None),
            ("mixed_float16", keras.optimizers.Adam, None),
        ],
    )
    def test_adam_tells_that_it_cannot_train_weights_of_16_bits(self, dtype, optimizer, message):
        model = make("ForTokenClassification", dtype=dtype)
        model.compile(optimizer(), run_eagerly=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                model.fit({**INPUTS, "labels": IDS % 3}, verbose=0)
        told = [str(one.message) for one in caught if "16" in str(one.message)]
        assert len(told) == (message is not None) and all(re.match(message, one) for one in told)

    def test_mixed_float16_scales_its_loss_by_itself(self):
        model = make("ForTokenClassification", dtype="mixed_float16")
        model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        model.fit({**INPUTS, "labels": IDS % 3}, verbose=0)
        assert float(model.optimizer.dynamic_scale) > 1.0

    @pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16"])
    def test_float_labels_are_not_rounded(self, dtype):
        model = make("ForSequenceClassification", dtype=dtype, problem_type="regression")
        labels = np.full((8, 3), 1000.25, "float32")  # neither half precision has this number
        want = np.mean(np.square(np.asarray(model(IDS).logits, "float32") - labels))
        assert float(model(IDS, labels=labels).loss) == pytest.approx(want, rel=1e-6)
        model.compile("sgd", run_eagerly=True)
        assert model.evaluate(INPUTS, labels, verbose=0) == pytest.approx(want, rel=1e-6)


class TestBadInput:
    @pytest.fixture
    def model(self):
        model = make("ForSequenceClassification")
        model.compile("sgd", run_eagerly=True)
        return model

    def test_unknown_names_in_a_dataset(self, model):
        with pytest.raises(TypeError, match="unknown argument 'token_mask'.*it accepts input_ids"):
            model.fit({**INPUTS, "token_mask": MASK, "labels": CLASSES}, verbose=0)

    def test_labels_out_of_range(self, model):
        error = (ValueError, tf.errors.InvalidArgumentError)
        with pytest.raises(error, match=r"(?s)(label value of .*valid range of|labels run from 7 to 9.*) \[0, 3\)"):
            model.fit(INPUTS, CLASSES + 7, verbose=0)

    def test_labels_of_another_shape(self, model):
        with pytest.raises(ValueError, match=r"labels have shape \(8, 2\); \(8, 1\) was expected"):
            model.fit(INPUTS, np.stack([CLASSES, CLASSES], 1), verbose=0)

    def test_a_batch_that_counts_nothing_is_nan_and_can_be_stopped(self, model):
        history = model.fit(
            INPUTS, np.full(8, -100), verbose=0, epochs=3, callbacks=[keras.callbacks.TerminateOnNaN()]
        )
        assert np.isnan(history.history["loss"]).all() and len(history.history["loss"]) == 1


KILLED = """
    import os, signal, sys
    import keras, numpy as np, tensorflow as tf
    import small_models as small

    folder, kill_at = sys.argv[1], int(sys.argv[2])
    model = small.make("llama", "ForSequenceClassification")  # without dropout: Keras saves no random states
    rows = np.random.default_rng(0)
    data = tf.data.Dataset.from_tensor_slices((rows.integers(2, 61, (32, 6)), rows.integers(0, 3, 32))).batch(4)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)

    class Kill(keras.callbacks.Callback):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            self.seen += 1
            if self.seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    history = model.fit(
        data, epochs=4, verbose=0, callbacks=[keras.callbacks.BackupAndRestore(folder), Kill()]
    ).history
    print(len(history["loss"]), repr(history["loss"][-1]))
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_loss(tmp_path):
    def run(folder, kill_at):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / folder), str(kill_at)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    unbroken = run("unbroken", 0)
    assert unbroken.returncode == 0, unbroken.stderr
    assert run("broken", 20).returncode == -signal.SIGKILL  # 8 batches an epoch: in the middle of the third
    resumed = run("broken", 0)
    assert resumed.returncode == 0, resumed.stderr
    (epochs, loss), (epochs_left, loss_resumed) = unbroken.stdout.split(), resumed.stdout.split()
    assert (epochs, epochs_left) == ("4", "2")
    assert float(loss_resumed) == pytest.approx(float(loss), rel=1e-6)
