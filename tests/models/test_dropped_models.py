"""A model that is dropped frees its weights, whatever was done with it."""

import gc
import weakref

import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels.kernels import gradients

IDS = np.arange(12).reshape(2, 6) + 2
HEADS = dict.fromkeys(("llama", "gpt_neox", "gpt_neo", "mpt"), "ForCausalLM") | {"mpnet": "ForMaskedLM"}


def predict(model):
    model.predict(IDS, verbose=0)


def fit(model, **options):
    model.compile("sgd", **{"jit_compile": False, **options})
    data = {"input_ids": IDS, "labels": IDS}
    model.fit(data, verbose=0)


def checkpointed_fit(model):
    model.gradient_checkpointing_enable()
    fit(model)


def everything(model):
    predict(model)
    generate(model)
    fit(model)


def generate(model):
    if hasattr(model, "generate"):
        model.generate(IDS, max_new_tokens=2, jit_compile=False)


def gradient_from_outside(model):
    run = tf.function(lambda ids: model(ids, labels=ids).loss)
    with tf.GradientTape() as tape:
        loss = run(tf.constant(IDS))
    assert all(gradient is not None for gradient in tape.gradient(loss, model.trainable_variables))


def live_weights(name, use, **options):
    """Make a model, use it and drop it: weak references to its weights, and a copy of none."""
    model = small.make(name, HEADS[name], **options)
    use(model)
    return [weakref.ref(variable.value) for variable in model.variables]


@pytest.mark.quick(2)
@pytest.mark.parametrize("use", [gradient_from_outside, checkpointed_fit])
@pytest.mark.parametrize(
    "name", [n if n in ("llama", "mpnet") else pytest.param(n, marks=pytest.mark.slow) for n in HEADS]
)
def test_models_in_turn_leave_nothing(name, use):
    leaves_nothing(name, use, times=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_models_used_in_every_way_leave_nothing(name):
    leaves_nothing(name, everything, times=2)


def leaves_nothing(name, use, times):
    weights = [reference for _ in range(times) for reference in live_weights(name, use)]
    gc.collect()
    assert len(weights) > 10 * times and sum(reference() is not None for reference in weights) == 0


def test_gradients_are_kept_where_no_export_looks():
    """Writers of meta graphs, as Keras's ONNX export is one, warn of objects in collections."""
    model = small.make("llama", "ForCausalLM", num_hidden_layers=1)
    graph = tf.function(lambda ids: model(ids).logits).get_concrete_function(tf.constant(IDS)).graph
    assert getattr(graph, gradients._HELD)
    assert not [key for key in graph.get_all_collection_keys() if "tfmodels" in key]


def test_blocks_of_attention_leave_nothing():
    def use(model):
        model.backbone.attn_implementation = "blockwise"
        gradient_from_outside(model)
        assert "blockwise" in model.attention_report()

    weights = live_weights("llama", use)
    gc.collect()
    assert sum(reference() is not None for reference in weights) == 0
