"""Data as people have it, in `fit`, `evaluate` and `predict`."""

import contextlib
import warnings
from typing import ClassVar

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels import BatchEncoding

IDS = np.random.default_rng(0).integers(2, 61, (8, 6))
LENGTHS = [6, 3, 4, 5, 6, 2, 1, 3]
MASK = (np.arange(6) < np.array(LENGTHS)[:, None]).astype(int)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 0, 1])


def make(head, **settings):
    """A model of one layer: how deep it is makes no difference to data."""
    return small.make("llama", head, num_hidden_layers=1, **settings)


def compiled(head="ForSequenceClassification", loss=None, **options):
    model = make(head)
    model.compile(keras.optimizers.SGD(0.0), loss, **{"run_eagerly": True, **options})
    return model


def own_loss(head="ForSequenceClassification", **inputs):
    return float(make(head)(**inputs).loss)


def ragged(values=IDS):
    return tf.ragged.constant([row[:length].tolist() for row, length in zip(values, LENGTHS, strict=True)])


@pytest.mark.parametrize("loss", [None, "auto", "auto_with_warning", "passthrough", "compute_loss", "hf_compute_loss"])
def test_the_models_own_loss_by_its_old_names(loss):
    model = make("ForSequenceClassification")
    model.compile("sgd", loss=getattr(model, loss) if loss and "_loss" in loss else loss, run_eagerly=True)
    assert model.loss is None
    assert model.evaluate({"input_ids": IDS}, CLASSES, verbose=0) == pytest.approx(
        own_loss(input_ids=IDS, labels=CLASSES), rel=1e-5
    )
    with pytest.raises(ValueError, match="passtrough"):
        model.compile("sgd", loss="passtrough")


def test_losses_and_targets_by_the_names_of_outputs():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = make("ForSequenceClassification")
    model.compile("sgd", loss, run_eagerly=True)
    want = model.evaluate({"input_ids": IDS}, CLASSES, verbose=0)
    for targets in ({"labels": CLASSES}, {"label": CLASSES}, {"logits": CLASSES}):
        assert model.evaluate({"input_ids": IDS}, targets, verbose=0) == pytest.approx(want, rel=1e-6)
    model.compile("sgd", {"logits": loss}, loss_weights={"logits": 2.0}, run_eagerly=True)
    assert model.evaluate({"input_ids": IDS}, CLASSES, verbose=0) == pytest.approx(2 * want, rel=1e-6)
    model = make("ForQuestionAnswering")
    both = {"start_logits": loss, "end_logits": loss}
    model.compile("sgd", both, loss_weights={"start_logits": 1.0, "end_logits": 0.0}, run_eagerly=True)
    targets = {"start_logits": CLASSES, "end_logits": CLASSES}
    want = float(loss(CLASSES, model(IDS).start_logits))
    assert model.evaluate({"input_ids": IDS}, targets, verbose=0, return_dict=True)["loss"] == pytest.approx(want)


@pytest.mark.parametrize("loss", [{"labels": "mse"}, {"logits": "mse", "foo": "mse"}, {}, {"logits": None}])
def test_losses_for_no_output_are_named(loss):
    model = make("ForSequenceClassification")
    with pytest.raises(ValueError, match="one with values for logits was expected"):
        model.compile("sgd", loss)
    with pytest.raises(ValueError, match="loss_weights is a dict for"):
        model.compile("sgd", "mse", loss_weights={**loss, "bar": 1.0})


def test_the_loss_of_outputs_that_are_there():
    model = make("ForSequenceClassification")
    want = float(model(IDS, labels=CLASSES).loss)
    assert float(model.hf_compute_loss(CLASSES, model(IDS).logits)) == pytest.approx(want, rel=1e-6)
    model, labels = make("ForQuestionAnswering"), {"start_positions": CLASSES, "end_positions": CLASSES}
    outputs, want = model(IDS), float(model(IDS, **labels).loss)
    for logits in (outputs, (outputs.start_logits, outputs.end_logits)):
        assert float(model.hf_compute_loss(labels, logits)) == pytest.approx(want, rel=1e-6)


LABELS = {
    "single int": ({}, CLASSES),
    "single column": ({}, CLASSES[:, None]),
    "multi float": ({"problem_type": "multi_label_classification"}, np.eye(3, dtype="float32")[CLASSES]),
    "multi int": ({"problem_type": "multi_label_classification"}, np.eye(3, dtype=int)[CLASSES]),
    "multi inferred": ({}, np.eye(3, dtype="float32")[CLASSES]),
    "regression": ({"problem_type": "regression"}, np.linspace(0, 1, 24, dtype="float32").reshape(8, 3)),
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(kind):
    settings, labels = LABELS[kind]
    model = make("ForSequenceClassification", **settings)
    model.compile("sgd", jit_compile=False)
    want = float(model(input_ids=IDS, labels=labels).loss)
    assert model.evaluate({"input_ids": IDS}, labels, verbose=0) == pytest.approx(want, rel=1e-5)
    data = tf.data.Dataset.from_tensor_slices({"input_ids": IDS, "labels": labels}).batch(8)
    assert model.evaluate(data, verbose=0) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_one_hot_labels_are_named(run_eagerly):
    model = compiled(run_eagerly=run_eagerly, metrics=["accuracy"], jit_compile=False)
    with pytest.raises(ValueError, match=r"look one-hot; one class number a row.*argmax\(labels, axis=-1\)"):
        model.fit({"input_ids": IDS}, np.eye(3, dtype=int)[CLASSES], verbose=0)
    with pytest.raises(ValueError, match=r"for one-hot labels give argmax\(labels, axis=-1\)"):
        compiled("ForTokenClassification").fit({"input_ids": IDS}, np.eye(3, dtype=int)[IDS % 3], verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_labels_that_make_a_multi_label_problem_need_a_number_per_class(dtype):
    with pytest.raises(
        ValueError, match=rf"labels are {dtype} of shape .*\(batch, 3\) zeros and ones.*integers for one"
    ):
        compiled(jit_compile=False).fit({"input_ids": IDS}, CLASSES.astype(dtype), verbose=0)


class TestWeights:
    def loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @pytest.mark.parametrize("inside", [True, False])
    def test_of_samples_and_classes(self, inside):
        model = compiled(loss=self.loss())
        each = np.asarray(self.loss().call(CLASSES, model(IDS).logits))
        weights, shares = np.linspace(0.1, 2.0, 8).astype("float32"), {0: 0.5, 1: 3.0, 2: 1.0}
        data = ({"input_ids": IDS, "labels": CLASSES},) if inside else ({"input_ids": IDS}, CLASSES)
        got = model.fit(*data, sample_weight=weights, verbose=0).history["loss"][0]
        assert got == pytest.approx(np.mean(each * weights), rel=1e-5)
        got = model.evaluate(*data, sample_weight=weights, verbose=0)
        assert got == pytest.approx(np.mean(each * weights), rel=1e-5)
        want = np.mean(each * [shares[label] for label in CLASSES])
        assert model.fit(*data, class_weight=shares, verbose=0).history["loss"][0] == pytest.approx(want, rel=1e-5)
        dataset = tf.data.Dataset.from_tensor_slices(data if len(data) > 1 else data[0]).batch(8)
        assert model.fit(dataset, class_weight=shares, verbose=0).history["loss"][0] == pytest.approx(want, rel=1e-5)

    @pytest.mark.parametrize("weights", [{"sample_weight": np.ones(8)}, {"class_weight": {0: 1.0, 1: 2.0, 2: 1.0}}])
    def test_need_a_compiled_loss(self, weights):
        for data in (({"input_ids": IDS, "labels": CLASSES},), ({"input_ids": IDS}, CLASSES)):
            with pytest.raises(ValueError, match=r"sample weights need compile\(loss=\.\.\.\).*class_weight"):
                compiled().fit(*data, **weights, verbose=0)


def test_a_dict_and_labels_as_one_tuple():
    """A batch of a dataset, given by hand: Keras takes it for a list of inputs."""
    features = {"input_ids": IDS, "attention_mask": MASK}
    want = own_loss(**features, labels=CLASSES)
    model = compiled()
    for data in (
        (features, CLASSES),
        [features, CLASSES],
        (features, {"labels": CLASSES}),
        (features, CLASSES.tolist()),
    ):
        assert model.evaluate(data, verbose=0) == pytest.approx(want, rel=1e-5)
        assert model.test_on_batch(data) == pytest.approx(want, rel=1e-5)
        np.testing.assert_allclose(model.predict(data, verbose=0).logits, model(**features).logits, atol=1e-5)
    assert compiled().fit((features, CLASSES), verbose=0).history["loss"][0] == pytest.approx(want, rel=1e-5)
    for data in (
        ((features, CLASSES),),
        [(features, CLASSES)],
        [({"input_ids": IDS[0]}, 0), ({"input_ids": IDS[1]}, 1)],
    ):
        with pytest.raises(TypeError, match=f"x holds pairs of features and labels, {len(data)} of them; a dict of"):
            model.fit(data, verbose=0)

    assert compiled().train_on_batch(({**features, "labels": CLASSES},)) == pytest.approx(want, rel=1e-5)
    for call in (
        lambda: model.fit((features, CLASSES, np.ones(8)), verbose=0),
        lambda: model.evaluate((features, CLASSES), CLASSES, verbose=0),
    ):
        with pytest.raises(TypeError, match="x holds .* values, the first of them a dict.*give labels as y"):
            call()
    with pytest.raises(TypeError, match=r"the second has the shape \(8,\) of labels: give them as y"):
        model.evaluate((IDS, CLASSES), verbose=0)


def test_batches_of_one_shape_and_other_names_have_programs_of_their_own():
    features = {"input_ids": IDS, "attention_mask": MASK}
    model = compiled(run_eagerly=False, jit_compile=True)
    want = model(**features).logits
    for data in (features, [IDS, MASK], {"input_ids": IDS, "attention_mask": MASK, "labels": CLASSES}, features):
        np.testing.assert_allclose(model.predict(data, batch_size=len(IDS), verbose=0).logits, want, atol=1e-5)


class TestRagged:
    @pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_rows_of_different_lengths_are_padded(self, jit_compile):
        want = own_loss(
            "ForTokenClassification", input_ids=IDS * MASK, attention_mask=MASK, labels=np.where(MASK, IDS % 3, -100)
        )
        model = compiled("ForTokenClassification", run_eagerly=False, jit_compile=jit_compile)
        features = {"input_ids": ragged(), "labels": ragged(IDS % 3)}
        dataset = tf.data.Dataset.from_tensor_slices(features).batch(8)
        apart = tf.data.Dataset.from_tensor_slices((ragged(), ragged(IDS % 3))).batch(8)
        for data in (features, dataset, apart):
            assert model.evaluate(data, verbose=0) == pytest.approx(want, rel=1e-5)
        assert model.evaluate(ragged(), ragged(IDS % 3), verbose=0) == pytest.approx(want, rel=1e-5)
        # Training drops values of the head's input, so that its loss is only near.
        assert model.fit(ragged(), ragged(IDS % 3), verbose=0).history["loss"][0] == pytest.approx(want, rel=0.05)

    def test_predictions(self):
        model = compiled()
        want = model(IDS * MASK, attention_mask=MASK).logits
        np.testing.assert_allclose(model.predict({"input_ids": ragged()}, verbose=0).logits, want, atol=1e-5)
        np.testing.assert_allclose(model.predict(ragged(), verbose=0).logits, want, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "uint32", "int64"])
def test_ids_of_any_integers(dtype):
    model = compiled()
    assert model.evaluate({"input_ids": IDS.astype(dtype)}, CLASSES, verbose=0) == pytest.approx(
        own_loss(input_ids=IDS, labels=CLASSES), rel=1e-5
    )


@pytest.mark.quick(1)
@pytest.mark.parametrize("own", [True, False])
def test_labels_of_one_axis_and_of_two_serve_one_compiled_model(own):
    loss = None if own else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = compiled(loss=loss, run_eagerly=False, jit_compile=False)
    want = pytest.approx(own_loss(input_ids=IDS, labels=CLASSES), rel=1e-5)
    for labels in (CLASSES, CLASSES[:, None], CLASSES):
        assert model.evaluate(IDS, labels, verbose=0) == want
        assert model.test_on_batch(IDS, labels) == want
        assert model.fit(IDS, labels, batch_size=len(IDS), verbose=0).history["loss"][0] == want
        assert model.train_on_batch(IDS, labels) == want
    logits = model(IDS).logits
    for features in (IDS, {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}):
        np.testing.assert_allclose(model.predict(features, verbose=0).logits, logits, atol=1e-5)
        np.testing.assert_allclose(model.predict_on_batch(features).logits, logits, atol=1e-5)


def test_ids_of_floats_are_refused():
    for features in ({"input_ids": IDS.astype("float32")}, {"input_ids": (IDS * 1.0).tolist()}):
        with pytest.raises(TypeError, match="got float.. numbers as 'input_ids'; integers were expected"):
            compiled().fit(features, CLASSES, verbose=0)


def test_lists_and_what_tokenizers_return():
    want = own_loss(input_ids=IDS, attention_mask=MASK, labels=CLASSES)
    rows = {"input_ids": IDS.tolist(), "attention_mask": MASK.astype(int).tolist()}
    for features in (rows, BatchEncoding(rows), BatchEncoding({"input_ids": IDS, "attention_mask": MASK})):
        assert compiled().evaluate(features, CLASSES.tolist(), verbose=0) == pytest.approx(want, rel=1e-5)
    with pytest.raises(ValueError, match="rows of 1 to 2 values make no array: pad them"):
        compiled().fit({"input_ids": [[5, 9], [7]]}, [0, 1], verbose=0)


@pytest.mark.parametrize("apart", [True, False])
def test_generators_yield_what_datasets_do(apart):
    want = own_loss(input_ids=IDS * MASK, attention_mask=MASK, labels=CLASSES)

    def batches():
        features = {"input_ids": ragged(), "idx": np.arange(8)}
        yield (features, CLASSES) if apart else {**features, "label": CLASSES}

    model = compiled()
    with pytest.warns(UserWarning, match="takes no idx"):
        assert model.evaluate(batches(), verbose=0) == pytest.approx(want, rel=1e-5)
    with pytest.warns(UserWarning, match="takes no idx"):
        got = model.predict(batches(), verbose=0).logits
    np.testing.assert_allclose(got, model(IDS * MASK, attention_mask=MASK).logits, atol=1e-5)


def test_weights_of_a_generators_rows():
    weights = np.arange(8) + 1.0
    model = compiled(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    weighed = ({"input_ids": IDS, "labels": CLASSES}, None, weights)
    want = model.evaluate({"input_ids": IDS}, CLASSES, sample_weight=weights, verbose=0)
    assert model.test_on_batch({"input_ids": IDS, "labels": CLASSES}, sample_weight=weights) == pytest.approx(want)
    assert compiled(loss=model.loss).evaluate((batch for batch in [weighed]), verbose=0) == pytest.approx(want)


@pytest.mark.parametrize("kind", ["dict", "tuple", "dataset", "generator"])
def test_validation_data_of_the_same_kinds(kind):
    features = {"input_ids": ragged(), "idx": np.arange(8)}
    data = {
        "dict": lambda: {**features, "label": CLASSES},
        "tuple": lambda: (features, CLASSES),
        "dataset": lambda: tf.data.Dataset.from_tensor_slices({**features, "label": CLASSES}).batch(8),
        "generator": lambda: (batch for batch in [{**features, "label": CLASSES}]),
    }
    model = compiled()
    with pytest.warns(UserWarning, match="takes no idx"):
        history = model.fit({"input_ids": IDS}, CLASSES, validation_data=data[kind](), verbose=0).history
    want = own_loss(input_ids=IDS * MASK, attention_mask=MASK, labels=CLASSES)
    assert history["val_loss"][0] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"run_eagerly": False, "jit_compile": False}])
def test_datasets_of_unknown_rank(options):
    def rows():
        for start in (0, 4):
            yield {"input_ids": IDS[start : start + 4], "labels": CLASSES[start : start + 4]}

    data = tf.data.Dataset.from_generator(rows, output_types={"input_ids": tf.int32, "labels": tf.int32})
    assert data.element_spec["input_ids"].shape.rank is None
    model = compiled(**options)
    want = own_loss(input_ids=IDS, labels=CLASSES)
    assert model.fit(data, verbose=0).history["loss"][0] == pytest.approx(want, rel=1e-5)
    assert model.evaluate(data, verbose=0) == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(model.predict(data, verbose=0).logits, model(IDS).logits, atol=1e-5)


class TestColumns:
    EXTRA: ClassVar = {"idx": np.arange(8), "token_type_ids": np.zeros_like(IDS), "sentence": np.array(["a"] * 8)}

    @pytest.mark.quick(3)
    @pytest.mark.parametrize("labels", ["labels", "label", "label_ids"])
    @pytest.mark.parametrize("as_dataset", [True, False])
    def test_what_no_model_takes_is_left_out_with_a_warning(self, as_dataset, labels):
        model = compiled(run_eagerly=False, jit_compile=False)
        data = {"input_ids": IDS, labels: CLASSES, **self.EXTRA}
        data = tf.data.Dataset.from_tensor_slices(data).batch(8) if as_dataset else data
        with pytest.warns(
            UserWarning, match="takes no idx, sentence.*these columns of the data are left out"
        ) as found:
            loss = model.evaluate(data, verbose=0)
        assert loss == pytest.approx(own_loss(input_ids=IDS, labels=CLASSES), rel=1e-5)
        assert len([one for one in found if "left out" in str(one.message)]) == 1

    def test_a_misspelt_column_is_an_error(self):
        for name in ("atention_mask", "input_id", "start_position"):
            with pytest.raises(TypeError, match=f"unknown argument '{name}'.*did you mean"):
                compiled().evaluate({"input_ids": IDS, "labels": CLASSES, name: MASK}, verbose=0)

    def test_labels_under_the_names_of_outputs(self):
        labels = {"start_positions": CLASSES, "end_positions": CLASSES}
        model = compiled("ForQuestionAnswering")
        want = own_loss("ForQuestionAnswering", input_ids=IDS, **labels)
        of_outputs = {"start_logits": CLASSES, "end_logits": CLASSES}
        assert model.evaluate({"input_ids": IDS}, of_outputs, verbose=0) == pytest.approx(want, rel=1e-5)
        with pytest.raises(ValueError, match="learns from start_positions and end_positions; the targets .* are 1"):
            model.evaluate({"input_ids": IDS}, CLASSES, verbose=0)


def test_fit_does_not_warn_that_datasets_are_not_shuffled():
    data = tf.data.Dataset.from_tensor_slices(({"input_ids": IDS}, CLASSES)).batch(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled().fit(data, verbose=0)
    # Arrays are shuffled as ever.
    seen = []
    model = compiled()
    step = model.train_step
    model.train_step = lambda batch: seen.append(batch[1].numpy().tolist()) or step(batch)
    keras.utils.set_random_seed(1)
    model.fit({"input_ids": IDS}, np.arange(8) % 3, batch_size=8, verbose=0)
    assert sorted(seen[0]) == sorted((np.arange(8) % 3).tolist()) and seen[0] != (np.arange(8) % 3).tolist()


def test_rows_of_a_dataset_become_batches():
    rows = [{"input_ids": IDS[n].tolist(), "label": int(CLASSES[n])} for n in range(8)]
    model = compiled()
    found = list(model.prepare_tf_dataset(rows, batch_size=3, shuffle=False, drop_remainder=False))
    assert [len(labels) for _, labels in found] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate([features["input_ids"] for features, _ in found]), IDS)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found]), CLASSES)
    shuffled = model.prepare_tf_dataset(rows, batch_size=3)
    assert len(shuffled) == 2
    orders = [np.concatenate([labels for _, labels in shuffled]).tolist() for _ in range(6)]
    assert len({tuple(order) for order in orders}) > 1
    unlabelled = [{"input_ids": IDS[0].tolist()}]
    assert set(next(iter(model.prepare_tf_dataset(unlabelled, batch_size=1, shuffle=False)))) == {"input_ids"}
    with pytest.raises(TypeError, match=r"dataset is of type dict; a datasets\.Dataset"):
        model.prepare_tf_dataset({"input_ids": IDS})
    with pytest.raises(ValueError, match="0 rows in batches of 8"):
        model.prepare_tf_dataset([])
    with pytest.raises(ValueError, match="'input_ids': the rows of a batch have the shapes.*DataCollatorWithPadding"):
        model.prepare_tf_dataset([{"input_ids": [1]}, {"input_ids": [1, 2]}])


def test_a_collator_that_draws_at_random_makes_inputs_and_labels_that_belong():
    model = compiled()
    draw = np.random.default_rng(0)

    def collate(rows):
        ids = draw.integers(1, 99, (len(rows), 4))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids[:, 0]}

    rows = [{"input_ids": [1, 2], "labels": 0}] * 6
    for features, labels in model.prepare_tf_dataset(rows, batch_size=3, shuffle=False, collate_fn=collate):
        np.testing.assert_array_equal(features["input_ids"][:, 0], labels)


def test_an_object_with_rows_by_number_is_a_dataset():
    class Rows:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"input_ids": [index, index + 1], "labels": range(4)[index]}

    found = list(compiled().prepare_tf_dataset(Rows(), batch_size=2, shuffle=False))
    assert [features["input_ids"].numpy().tolist() for features, _ in found] == [[[0, 1], [1, 2]], [[2, 3], [3, 4]]]
    assert [labels.numpy().tolist() for _, labels in found] == [[0, 1], [2, 3]]


class Batches(keras.utils.PyDataset):
    """One batch, as a user's class gives it."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


class TestLabelsAndIdsOutOfRange:
    BEYOND: ClassVar = np.where(np.arange(8) == 3, 5, CLASSES)

    @pytest.mark.parametrize("wrong", [5, -1])
    def test_arrays_are_looked_at_before_a_step(self, wrong):
        labels = np.where(np.arange(8) == 3, wrong, CLASSES)
        model = compiled(run_eagerly=False)
        model.train_step = None  # nothing is traced
        for data in (({"input_ids": IDS}, labels), ({"input_ids": IDS, "label": labels},), ([IDS], labels.tolist())):
            for call in (model.fit, model.train_on_batch):
                with pytest.raises(ValueError, match=r"labels run from .* to .*; classes are numbered in \[0, 3\)"):
                    call(*data)
        with pytest.raises(ValueError, match="input_ids run from 99 to 99; the vocabulary has ids 0 to 60"):
            model.fit(np.full_like(IDS, 99), CLASSES)

    @pytest.mark.parametrize("head, classes", [("ForCausalLM", 61), ("ForTokenClassification", 3)])
    def test_of_tokens(self, head, classes):
        with pytest.raises(ValueError, match=rf"labels hold 61; classes are numbered in \[0, {classes}\), and -100"):
            compiled(head).evaluate(IDS, np.where(MASK, 61, -100), verbose=0)
        assert compiled(head).evaluate(IDS, np.where(MASK, 2, -100), verbose=0) > 0

    def test_what_a_dataset_gives_is_named_after(self):
        model = compiled(run_eagerly=False, jit_compile=False)
        rows = {"input_ids": IDS, "labels": self.BEYOND}
        with pytest.raises(ValueError, match=r"labels hold 5; classes are numbered in \[0, 3\), and -100 is for pos"):
            model.fit(tf.data.Dataset.from_tensor_slices(rows).batch(8), verbose=0)
        rows = {"input_ids": np.full_like(IDS, 99), "labels": CLASSES}
        with pytest.raises(ValueError, match="input_ids hold 99; the vocabulary has ids 0 to 60"):
            model.evaluate(tf.data.Dataset.from_tensor_slices(rows).batch(8), verbose=0)

    def test_batches_are_looked_at_where_xla_compiles_the_steps(self):
        model = compiled(run_eagerly=False, jit_compile=True)
        rows, pairs = {"input_ids": IDS, "label": self.BEYOND}, ({"input_ids": IDS}, self.BEYOND)
        ids = np.where(IDS[0, 0] == IDS, 61, IDS)
        for data, message in (
            (tf.data.Dataset.from_tensor_slices(rows).batch(8), "labels run from 0 to 5"),
            (tf.data.Dataset.from_tensor_slices(pairs).batch(4, drop_remainder=True), "labels run from 0 to 5"),
            (Batches(pairs), "labels run from 0 to 5"),
            (tf.data.Dataset.from_tensor_slices({"input_ids": ids, "labels": CLASSES}).batch(8), "input_ids run from"),
        ):
            with pytest.raises(ValueError, match=message):
                model.evaluate(data, verbose=0)
        assert model.test_function.programs.compilations == 0  # no program was even traced

    def test_ignored_labels_of_a_compiled_loss(self):
        labels = np.where(np.arange(8) == 3, -100, CLASSES)
        loss = keras.losses.SparseCategoricalCrossentropy
        model = compiled(loss=loss(from_logits=True), run_eagerly=False, jit_compile=False)
        with pytest.raises(ValueError, match=r"labels hold -100.*SparseCategoricalCrossentropy\(ignore_class=-100\)"):
            model.evaluate(IDS, labels, verbose=0)
        model = compiled(loss=loss(from_logits=True, ignore_class=-100))
        assert model.evaluate(IDS, labels, verbose=0) > 0


@pytest.mark.parametrize("convert", [np.asarray, tf.constant, list, lambda x: np.asarray(x, object)])
def test_text_in_place_of_numbers(convert):
    labels, texts = convert(["good", "bad"] * 4), convert(["Once upon a time"] * 8)
    data = tf.data.Dataset.from_tensor_slices({"input_ids": IDS, "labels": np.array(["good"] * 8)}).batch(8)
    for call in (
        lambda: compiled().fit(IDS, labels),
        lambda: compiled().fit({"input_ids": IDS, "labels": labels}),
        lambda: compiled(loss="mse").fit(IDS, labels),
        lambda: compiled().evaluate(data),
        lambda: make("ForSequenceClassification")(IDS, labels=labels),
    ):
        with pytest.raises(TypeError, match="got text as 'labels'; give class numbers, as model.config.label2id has"):
            call()
    for call in (lambda: compiled().predict(texts), lambda: compiled()(input_ids=texts)):
        with pytest.raises(TypeError, match=r"got text as 'input_ids'; make numbers of it first, tokenizer\(texts"):
            call()


def test_ragged_tensors_in_lists_and_columns_of_lists():
    model = compiled()
    want = model(IDS * MASK, attention_mask=MASK).logits
    np.testing.assert_allclose(model.predict([ragged()], verbose=0).logits, want, atol=1e-5)
    listed = tf.data.Dataset.from_tensors((ragged(), ragged(MASK)))
    np.testing.assert_allclose(model.predict(listed.map(lambda *x: (x,)), verbose=0).logits, want, atol=1e-5)
    column = np.empty(8, object)
    column[:] = [np.arange(4) for _ in range(8)]
    np.testing.assert_allclose(model.predict(column, verbose=0).logits[0], model([[0, 1, 2, 3]]).logits[0], atol=1e-5)
    column[0] = [1, 2]
    with pytest.raises(ValueError, match="rows of 2 to 4 values make no array: pad them"):
        model.predict(column, verbose=0)


def test_labels_in_columns_of_objects():
    labels = np.arange(8) % 3
    want = compiled().evaluate(IDS, labels, verbose=0)
    columns = [labels.astype(object), list(labels)]
    texts = [np.array(list("abcabcab"), object)]
    with contextlib.suppress(ImportError):
        import pandas

        columns += [pandas.Series(labels).astype(kind) for kind in ("int64", object, "category", "Int64")]
        texts += [pandas.Series(list("abcabcab")), pandas.Series(list("abcabcab"), dtype="category")]
    for column in columns:
        assert compiled().evaluate(IDS, column, verbose=0) == pytest.approx(want, abs=1e-6)
    for column in texts:
        with pytest.raises(TypeError, match="got text as 'labels'; give class numbers"):
            compiled().fit(IDS, column, verbose=0)
    with pytest.raises(TypeError, match="got objects such as None as 'labels'; give numbers"):
        compiled().fit(IDS, np.array([0, None, *labels[2:]], object), verbose=0)


@pytest.mark.parametrize(
    "name, head",
    [case if case in small.FIRST else pytest.param(*case, marks=pytest.mark.slow) for case in small.EVERY],
)
def test_a_rank_that_is_not_known_is_named(name, head):
    model = small.make(name, head)
    with pytest.raises(ValueError, match=r"a tensor of unknown rank as 'input_ids'; say its rank, as tf.ensure_shape"):
        tf.function(lambda ids: model(ids), input_signature=[tf.TensorSpec(None, "int64")]).get_concrete_function()
