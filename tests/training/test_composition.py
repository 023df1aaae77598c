"""Models inside other Keras models, and their copies."""

import copy
import pickle

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

IDS = np.random.default_rng(0).integers(2, 61, (4, 6))
OTHER = np.random.default_rng(1).integers(2, 61, (4, 5))


def mean_pooled(backbone, ids):
    options = {} if "use_cache" not in backbone.input_names else {"use_cache": False}
    return keras.layers.GlobalAveragePooling1D()(backbone(ids, **options).last_hidden_state)


@pytest.mark.slow
def test_two_towers_share_one_encoder(tmp_path):
    backbone = small.make("mpnet", "Model", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).backbone
    left, right = keras.Input((None,), dtype="int32", name="left"), keras.Input((None,), dtype="int32", name="right")
    score = keras.layers.Dot(1, normalize=True)([mean_pooled(backbone, left), mean_pooled(backbone, right)])
    model = keras.Model([left, right], score)
    assert sum(int(np.prod(w.shape)) for w in model.weights) == backbone.count_params()  # once, though called twice
    towers = [np.asarray(backbone(ids).last_hidden_state).mean(1) for ids in (IDS, OTHER)]
    norms = [np.linalg.norm(tower, axis=1) for tower in towers]
    want = (towers[0] * towers[1]).sum(1) / (norms[0] * norms[1])
    np.testing.assert_allclose(np.asarray(model([IDS, OTHER]))[:, 0], want, atol=1e-6)
    model.compile(keras.optimizers.Adam(0.003), "mse", jit_compile=False)
    targets = np.array([1.0, 0.0, 1.0, 0.0])
    losses = model.fit([IDS, OTHER], targets, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    model.save(tmp_path / "towers.keras")
    again = keras.models.load_model(tmp_path / "towers.keras")
    np.testing.assert_array_equal(again([IDS, OTHER]), model([IDS, OTHER]))


def test_a_decoders_hidden_states_into_a_head_of_ones_own():
    decoder = small.make("llama", "ForCausalLM")
    ids = keras.Input((None,), dtype="int64", name="ids")
    hidden = decoder(ids, use_cache=False, output_hidden_states=True).hidden_states[1]
    model = keras.Model(ids, keras.layers.Dense(2, name="own")(hidden))
    kernel, bias = model.get_layer("own").get_weights()
    want = np.asarray(decoder(IDS, output_hidden_states=True).hidden_states[1]) @ kernel + bias
    np.testing.assert_allclose(model(IDS), want, atol=1e-6)
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    text = "\n".join(lines)
    assert "TFLlamaForCausalLM" in text and "Dense" in text and f"{model.count_params():,}" in text


def test_the_summary_of_a_model_tells_its_parts():
    model = small.make("mpnet", "ForMaskedLM")
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    text = "\n".join(lines)
    assert "MPNetBackbone" in text and "MaskedTokenLayer" in text and f"{model.count_params():,}" in text


def test_a_plot_shows_the_parts(tmp_path):
    pydot = pytest.importorskip("pydot", reason="keras.utils.plot_model needs pydot and Graphviz")
    model = small.make("llama", "Model")
    ids = keras.Input((None,), dtype="int32", name="ids")
    composed = keras.Model(ids, keras.layers.Dense(1)(mean_pooled(model.backbone, ids)))
    graph = keras.utils.model_to_dot(composed, show_shapes=True)
    assert isinstance(graph, pydot.Dot) and "LlamaBackbone" in graph.to_string()


# Heads are shared code; those of MPNet go every way in tests/models/test_saving.py.
@pytest.mark.quick(4)
@pytest.mark.parametrize("name, head", [case for case in small.SOME if case[0] == "llama" or case in small.FIRST])
def test_copies_are_exact(name, head, tmp_path):
    model = small.make(name, head)
    inputs = small.inputs_of(name, head)
    # Values that no initialiser draws: biases and norms too.
    model.set_weights([np.random.default_rng(3).normal(size=w.shape) * 0.1 for w in model.weights])
    want = np.asarray(model(**inputs)[0])
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    filled = small.make(name, head, seed=1)
    assert np.abs(np.asarray(filled(**inputs)[0]) - want).max() > 1e-4
    filled.load_weights(tmp_path / "model.weights.h5")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    for same in (
        keras.models.load_model(tmp_path / "model.keras"),
        filled,
        cloned,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        assert same is not model and same.config == model.config and type(same) is type(model)
        np.testing.assert_array_equal(same(**inputs)[0], want)


def test_time_distributed_over_a_model_around_a_backbone():
    ids = keras.Input((6,), dtype="int32")
    hidden = small.make("llama", "Model").backbone(ids, use_cache=False).last_hidden_state
    model = keras.Model(ids, keras.layers.GlobalAveragePooling1D()(hidden))
    several = keras.Sequential([keras.Input((2, 6), dtype="int32"), keras.layers.TimeDistributed(model)])
    texts = np.random.default_rng(0).integers(2, 61, (3, 2, 6))
    vectors = several(texts)
    assert several.output_shape == (None, 2, 16)
    for side in range(2):
        np.testing.assert_allclose(vectors[:, side], model(texts[:, side]), atol=1e-6)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name, head", [("llama", "Model"), ("mpnet", "ForSequenceClassification")])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("part", ["model", "backbone"])
def test_time_distributed_over_named_outputs_says_what_to_do(name, head, symbolic, part):
    model = small.make(name, head, **({"use_cache": False} if name == "llama" else {}))
    ids = small.inputs_of(name, head)["input_ids"]
    layer = model if part == "model" else model.backbone
    first = next(iter(layer(ids)))
    several = keras.layers.TimeDistributed(layer)
    with pytest.raises(
        TypeError, match=rf"by name, {first}.*: take one, as outputs.{first}; for TimeDistributed.*make"
    ):
        several(keras.Input((2, 5), dtype="int32") if symbolic else np.stack([ids, ids], axis=1))
    # The code in the message works.
    tokens = keras.Input((None,), dtype="int32")
    one = keras.Model(tokens, layer(tokens)[first])
    texts = np.stack([ids, ids[::-1]], axis=1)
    np.testing.assert_allclose(keras.layers.TimeDistributed(one)(texts)[:, 0], layer(ids)[first], atol=1e-6)
    np.testing.assert_allclose(keras.Sequential([one])(ids), layer(ids)[first], atol=1e-6)


def test_shapes_of_outputs_are_known():
    model = small.make("mpnet", "Model")
    want = {"last_hidden_state": (None, 5, 16), "pooler_output": (None, 16)}
    shapes = ((None, 5), {"input_ids": (None, 5), "attention_mask": (None, 5)}, [(None, 5), (None, 5)])
    for given in shapes:
        assert model.compute_output_shape(given) == model.backbone.compute_output_shape(given) == want
    assert dict(model.compute_output_shape({"inputs_embeds": (2, 5, 16)}))["pooler_output"] == (2, 16)
    with pytest.raises(TypeError, match="unknown argument 'input_idz'"):
        model.compute_output_shape({"input_idz": (2, 5)})


def test_outputs_taken_for_a_tensor_are_named():
    output = small.make("mpnet", "Model")(small.inputs_of("mpnet", "Model")["input_ids"])
    for use in (lambda x: tf.stack([x]), tf.nn.softmax, np.asarray, keras.ops.convert_to_tensor):
        with pytest.raises(TypeError, match="it holds several by name, last_hidden_state, pooler_output: take one"):
            use(output)
