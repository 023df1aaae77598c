"""What is wrong with data is said by name, in eager mode and under `fit`, or shows as NaN."""

import re

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

IDS = np.random.default_rng(0).integers(2, 61, (4, 6))


def compiled(head, name="llama", **options):
    model = small.make(name, head)
    model.compile(keras.optimizers.SGD(0.1), **options)
    return model


def labels_for(head, value):
    """Labels of the right shape that are 0, but for one."""
    labels = np.zeros(4 if head == "ForSequenceClassification" else (4, 6), int)
    labels[(-1,) * labels.ndim] = value
    return labels


HEADS = {"ForSequenceClassification": 3, "ForTokenClassification": 3, "ForCausalLM": 61}


@pytest.mark.parametrize("value", [-1, "beyond"])
@pytest.mark.parametrize("head", HEADS)
def test_labels_out_of_range(head, value):
    value = HEADS[head] if value == "beyond" else value
    labels = labels_for(head, value)
    message = rf"labels run from {min(value, 0)} to {max(value, 0)}; .*\[0, {HEADS[head]}\)"
    with pytest.raises(ValueError, match=message):
        small.make("llama", head)(IDS, labels=labels)


def test_labels_out_of_range_in_a_graph():
    model = compiled("ForTokenClassification", jit_compile=False)
    data = {"input_ids": IDS, "labels": labels_for("ForTokenClassification", 3)}
    with pytest.raises(ValueError, match=r"labels run from 0 to 3; .*\[0, 3\)"):
        model.fit(data, verbose=0)
    with pytest.raises(ValueError, match=r"labels hold 3; .*\[0, 3\)"):
        model.fit(tf.data.Dataset.from_tensors(data), verbose=0)


@pytest.mark.parametrize(
    "head, shape",
    [
        ("ForSequenceClassification", (4, 2)),
        ("ForSequenceClassification", (3,)),
        ("ForTokenClassification", (4,)),
        ("ForTokenClassification", (4, 5)),
        ("ForTokenClassification", (4, 6, 3)),
        ("ForCausalLM", (4,)),
        ("ForCausalLM", (4, 5)),
        ("ForQuestionAnswering", (3,)),
        ("ForQuestionAnswering", (4, 2)),
    ],
)
def test_labels_of_another_shape(head, shape):
    model = small.make("llama", head)
    labels = dict.fromkeys(model.label_names, np.zeros(shape, int))
    message = rf"{model.label_names[0]} have shape {re.escape(str(shape))}; .* was expected"
    with pytest.raises(ValueError, match=message):
        model(IDS, **labels)
    model.compile("sgd", jit_compile=True)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch({"input_ids": IDS, **labels})


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_of_which_nothing_counts_has_no_loss(head):
    model = small.make("llama", head)
    assert np.isnan(float(model(IDS, labels=np.full_like(labels_for(head, 0), -100)).loss))
    if head == "ForCausalLM":  # a text of one token has no next one
        assert np.isnan(float(model(IDS[:, :1], labels=IDS[:, :1]).loss))


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["graph", "xla"])
def test_training_stops_at_the_first_batch_of_which_nothing_counts(jit_compile):
    model = compiled("ForTokenClassification", jit_compile=jit_compile)
    labels = np.stack([IDS % 3, np.full_like(IDS, -100), IDS % 3])
    data = tf.data.Dataset.from_tensor_slices({"input_ids": np.stack([IDS] * 3), "labels": labels})
    batches = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))
    model.fit(data, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN(), note])
    assert batches == [0, 1]


@pytest.mark.parametrize("name", ["llama", "mpnet"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nan_in_inputs_is_refused_where_it_can_be_seen(name, dtype):
    model = small.make(name, "ForSequenceClassification", dtype=dtype)
    embeds = np.random.default_rng(0).normal(size=(4, 6, 16)).astype("float32")
    graph = tf.function(lambda embeds: tf.cast(model(inputs_embeds=embeds).logits, "float32"))
    clean = graph(embeds).numpy()
    embeds[2, 1, 3] = np.nan
    for given in (embeds, tf.constant(embeds), tf.constant(embeds, "bfloat16")):
        with pytest.raises(ValueError, match="inputs_embeds holds NaN, first in row 2 at position 1"):
            model(inputs_embeds=given)
    # A graph cannot look; there it stays in its row.
    logits = graph(embeds).numpy()
    assert np.isnan(logits).any(axis=1).tolist() == [False, False, True, False]
    np.testing.assert_allclose(logits[[0, 1, 3]], clean[[0, 1, 3]], atol=1e-6)


def test_nan_in_inputs_is_seen_by_terminate_on_nan():
    model = compiled("ForTokenClassification", jit_compile=False)
    embeds = np.full((4, 6, 16), np.nan, "float32")
    stop = keras.callbacks.TerminateOnNaN()
    history = model.fit({"inputs_embeds": embeds, "labels": IDS % 3}, epochs=3, verbose=0, callbacks=[stop])
    assert len(history.history["loss"]) == 1


@pytest.mark.parametrize("loss", [None, "sparse_categorical_crossentropy"])
def test_unknown_names_in_a_dataset(loss):
    model = compiled("ForSequenceClassification", loss=loss, jit_compile=False)
    data = tf.data.Dataset.from_tensors(({"input_ids": IDS, "token_mask": IDS}, np.zeros(4, int)))
    for call in (model.fit, model.evaluate, model.predict):
        with pytest.raises(TypeError, match="unknown argument 'token_mask'.*it accepts input_ids"):
            call(data, verbose=0)


ROWS = tf.data.Dataset.from_tensor_slices({"input_ids": IDS, "labels": IDS})


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize(
    "data, message",
    [
        ({"input_ids": IDS[:0], "labels": IDS[:0]}, r"x is empty \(shape \(0, 6\)\); at least one row was expected"),
        ([], "x is empty; at least one row was expected"),
        (None, "x is missing; arrays, a dataset or a generator of batches was expected"),
        (ROWS.take(0).batch(2), "x is a dataset without a batch; at least one was expected"),
        (ROWS.batch(8, drop_remainder=True), r"without a batch; .* drops all rows where they are fewer than a batch"),
    ],
)
def test_data_without_a_row(call, data, message):
    with pytest.raises(ValueError, match=message):
        getattr(compiled("ForCausalLM", jit_compile=False), call)(data, verbose=0)


@pytest.mark.parametrize(
    "data, message",
    [
        (ROWS.take(0).batch(2), "validation_data is a dataset without a batch"),
        (({"input_ids": IDS[:0]}, IDS[:0]), r"validation_data is empty \(shape \(0, 6\)\)"),
    ],
)
def test_validation_data_without_a_row(data, message):
    with pytest.raises(ValueError, match=message):
        compiled("ForCausalLM", jit_compile=False).fit(ROWS.batch(2), validation_data=data, verbose=0)


# Nothing but taking a batch tells that it has none.
NONE_KEPT = ROWS.filter(lambda row: tf.reduce_all(row["labels"] < 0)).batch(2)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_a_dataset_that_turns_out_empty(call, jit_compile):
    with pytest.raises(
        ValueError, match=r"x is a dataset without a batch; .* filter\(...\) those that it does not keep"
    ):
        getattr(compiled("ForCausalLM", jit_compile=jit_compile), call)(NONE_KEPT, verbose=0)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_validation_data_that_turns_out_empty():
    model = compiled("ForCausalLM", jit_compile=False)
    with pytest.warns(UserWarning, match="validation_data is a dataset without a batch"):
        history = model.fit(ROWS.batch(2), validation_data=NONE_KEPT, verbose=0).history
    assert set(history) == {"loss"}
    # The next call forgets the empty data.
    assert set(model.fit(ROWS.batch(2), validation_data=ROWS.batch(2), verbose=0).history) == {"loss", "val_loss"}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_results_of_a_users_own_step_have_any_name(monkeypatch):
    """`fit` takes data for empty where no step gave a result; a callback's learning rate is none."""
    model = compiled("ForCausalLM", jit_compile=False)
    monkeypatch.setattr(type(model), "train_step", lambda self, batch: {"own": self(**batch, training=True).loss})
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    history = model.fit(ROWS.batch(2), validation_data=ROWS.batch(2), callbacks=[rate], verbose=0).history
    assert set(history) == {"own", "val_loss", "learning_rate"}
    with pytest.raises(ValueError, match="x is a dataset without a batch"):
        model.fit(NONE_KEPT, validation_data=ROWS.batch(2), callbacks=[rate], verbose=0)


def test_a_users_unset_variable_is_told_as_it_is():
    def unset(batch, logs):
        if batch > 0:
            count = batch
        return count

    note = keras.callbacks.LambdaCallback(on_predict_batch_end=unset)
    with pytest.raises(UnboundLocalError, match="count"):
        compiled("ForCausalLM", jit_compile=False).predict(IDS, callbacks=[note], verbose=0)


def test_a_generator_is_read_once():
    """Nobody looks whether it is empty: its batches come once."""
    model, given = compiled("ForCausalLM", jit_compile=False), []

    def batches():
        for rows in (IDS[:2], IDS[2:]):
            given.append(len(rows))
            yield {"input_ids": rows, "labels": rows}

    assert np.isfinite(model.fit(batches(), verbose=0).history["loss"]).all() and given == [2, 2]
