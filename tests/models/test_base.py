"""Models as a whole: checkpoints in and out, strictness, precision, Keras serialisation, training."""

import copy
import gc
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tfmodels import (
    LlamaConfig,
    TFAutoModelForSequenceClassification,
    TFLlamaForCausalLM,
    TFLlamaForQuestionAnswering,
    TFLlamaForSequenceClassification,
    TFLlamaForTokenClassification,
    TFLlamaModel,
)
from tfmodels.checkpoints import CheckpointError
from tfmodels.checkpoints.weight_map import slots_of

CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    pad_token_id=0,
    num_labels=3,
)
IDS = np.random.default_rng(0).integers(1, 61, (4, 7))
CLASSES = (
    TFLlamaModel,
    TFLlamaForCausalLM,
    TFLlamaForSequenceClassification,
    TFLlamaForTokenClassification,
    TFLlamaForQuestionAnswering,
)
LABELS = {
    TFLlamaForCausalLM: {"labels": IDS},
    TFLlamaForSequenceClassification: {"labels": np.array([0, 2, 1, 1])},
    TFLlamaForTokenClassification: {"labels": IDS % 3},
    TFLlamaForQuestionAnswering: {"start_positions": np.array([1, 2, 0, 3]), "end_positions": np.array([4, 2, 5, 6])},
}


def outputs(model, **inputs):
    return [np.asarray(x, "float32") for x in keras.tree.flatten(model(IDS, use_cache=False, **inputs))]


def assert_same(one, other):
    for got, want in zip(outputs(one), outputs(other), strict=True):
        np.testing.assert_array_equal(got, want)


class TestCheckpoints:
    @pytest.mark.parametrize("model_class", CLASSES, ids=lambda c: c.__name__)
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_round_trip_is_exact(self, model_class, dtype, tmp_path):
        model = model_class(CONFIG, dtype=dtype)
        model.save_pretrained(tmp_path, max_shard_size=2000)
        stored = json.loads((tmp_path / "config.json").read_text())
        assert stored["architectures"] == [model_class.__name__.removeprefix("TF")] and stored["dtype"] == dtype
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        again = model_class.from_pretrained(tmp_path, dtype="auto")
        assert again.compute_dtype == dtype and again.backbone.compute_dtype == dtype
        assert_same(again, model)

    def test_names_are_those_of_the_ecosystem(self, tmp_path):
        TFLlamaForCausalLM(CONFIG).save_pretrained(tmp_path)
        names = set(load_file(tmp_path / "model.safetensors"))
        assert {"model.layers.1.self_attn.q_proj.weight", "model.norm.weight", "lm_head.weight"} <= names
        TFLlamaModel(CONFIG).save_pretrained(tmp_path)
        assert "layers.1.self_attn.q_proj.weight" in set(load_file(tmp_path / "model.safetensors"))
        TFLlamaForQuestionAnswering(CONFIG).save_pretrained(tmp_path)
        assert "transformer.layers.0.mlp.up_proj.weight" in set(load_file(tmp_path / "model.safetensors"))

    @pytest.mark.parametrize("stored_class", CLASSES, ids=lambda c: c.__name__)
    @pytest.mark.parametrize("model_class", CLASSES, ids=lambda c: c.__name__)
    def test_any_head_loads_the_backbone_of_any_other(self, stored_class, model_class, tmp_path):
        stored = stored_class(CONFIG)
        stored.save_pretrained(tmp_path)
        # The two classifiers call their layer alike, and a token classifier's has all that the other needs.
        classifiers = (TFLlamaForTokenClassification, TFLlamaForSequenceClassification)
        if model_class in (stored_class, TFLlamaModel) or (stored_class, model_class) == classifiers:
            model = model_class.from_pretrained(tmp_path)
        else:
            with pytest.warns(UserWarning, match="did not come from the checkpoint and start at random"):
                model = model_class.from_pretrained(tmp_path)
        for got, want in zip(model.backbone.weights, stored.backbone.weights, strict=True):
            np.testing.assert_array_equal(got, want)

    def test_stored_dtype_and_computed_dtype_are_apart(self, tmp_path):
        model = TFLlamaForCausalLM(CONFIG, dtype="bfloat16")
        model.save_pretrained(tmp_path)
        wide = TFLlamaForCausalLM.from_pretrained(tmp_path)  # float32 unless asked otherwise
        assert wide.compute_dtype == "float32"
        for got, want in zip(wide.weights, model.weights, strict=True):
            np.testing.assert_array_equal(got, np.asarray(want, "float32"))
        for dtype in ("bfloat16", tf.bfloat16, "mixed_bfloat16", keras.DTypePolicy("bfloat16")):
            assert TFLlamaForCausalLM.from_pretrained(tmp_path, dtype=dtype).compute_dtype == "bfloat16"
        assert TFLlamaForCausalLM.from_pretrained(tmp_path, torch_dtype="float16").variable_dtype == "float16"
        assert keras.config.dtype_policy().name == "float32"
        with pytest.raises(ValueError, match="dtype='int8' is not for computing"):
            TFLlamaForCausalLM.from_pretrained(tmp_path, dtype="int8")

    def test_configuration_can_be_changed_on_the_way(self, tmp_path):
        TFLlamaModel(CONFIG).save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match="score.weight"):
            model = TFAutoModelForSequenceClassification.from_pretrained(
                tmp_path, num_labels=5, problem_type="multi_label_classification"
            )
        assert model(IDS).logits.shape == (4, 5)
        with pytest.raises(TypeError, match="unknown argument 'num_lables'.*did you mean num_labels"):
            TFLlamaForSequenceClassification.from_pretrained(tmp_path, num_lables=5)

    def test_no_variable_is_left_undeclared(self, tmp_path):
        config = CONFIG.replace(attention_dropout=0.1)  # a dropout layer has a state of its own
        TFLlamaForTokenClassification(config).save_pretrained(tmp_path)
        model = TFLlamaForTokenClassification.from_pretrained(tmp_path)
        symbolic = keras.Model(ids := keras.Input((None,), dtype="int32"), model(ids).logits)
        np.testing.assert_allclose(symbolic(IDS), model(IDS).logits, atol=1e-6)
        assert (np.asarray(model(IDS, training=True)[0]) != np.asarray(model(IDS)[0])).any()


class TestStrictness:
    @pytest.fixture
    def folder(self, tmp_path):
        TFLlamaForCausalLM(CONFIG).save_pretrained(tmp_path)
        return tmp_path

    def change(self, folder, change):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    def test_missing_tensors_are_named(self, folder):
        self.change(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
        with pytest.raises(CheckpointError, match=r"missing from the file: model\.layers\.1\.mlp\.up_proj\.weight"):
            TFLlamaForCausalLM.from_pretrained(folder)

    def test_unexpected_tensors_are_named(self, folder):
        self.change(folder, lambda tensors: tensors.update({"model.layers.2.norm.weight": np.ones(3, "float32")}))
        with pytest.raises(CheckpointError, match=r"not in the model: model\.layers\.2\.norm\.weight"):
            TFLlamaForCausalLM.from_pretrained(folder)

    def test_other_shapes_are_named(self, folder):
        with pytest.raises(CheckpointError, match=r"embed_tokens\.weight \(61, 16\) in the file, \(62, 16\) here"):
            TFLlamaForCausalLM.from_pretrained(folder, vocab_size=62)
        TFLlamaForSequenceClassification(CONFIG).save_pretrained(folder)
        with pytest.raises(CheckpointError, match="ignore_mismatched_sizes"):
            TFLlamaForSequenceClassification.from_pretrained(folder, num_labels=7)
        with pytest.warns(UserWarning, match="score.weight"):
            model = TFLlamaForSequenceClassification.from_pretrained(
                folder, num_labels=7, ignore_mismatched_sizes=True
            )
        assert model(IDS).logits.shape == (4, 7)

    def test_leftovers_of_old_files_are_dropped(self, folder):
        extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, "float32")}
        self.change(folder, lambda tensors: tensors.update(extra))
        TFLlamaForCausalLM.from_pretrained(folder)

    def test_another_config_class_is_refused(self):
        with pytest.raises(TypeError, match="TFLlamaModel takes a LlamaConfig; got str"):
            TFLlamaModel("stories260K")

    def test_a_failed_save_leaves_the_old_one(self, folder, monkeypatch):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        model = TFLlamaForCausalLM(CONFIG)
        monkeypatch.setattr(
            "tfmodels.checkpoints.save.values_of", lambda slot: lambda: (_ for _ in ()).throw(OSError("no space left"))
        )
        with pytest.raises(OSError, match="no space left"):
            model.save_pretrained(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


class TestKeras:
    @pytest.mark.quick(2)
    @pytest.mark.parametrize("model_class", CLASSES, ids=lambda c: c.__name__)
    def test_serialisation_is_exact(self, model_class, tmp_path):
        model = model_class(CONFIG, name="mine")
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.name == "mine" and loaded.config == model.config
        for same in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_same(same, model)
        other = model_class(CONFIG)
        model.save_weights(tmp_path / "model.weights.h5")
        other.load_weights(tmp_path / "model.weights.h5")
        assert_same(other, model)

    def test_precision_is_kept(self, tmp_path):
        model = TFLlamaForCausalLM(CONFIG, dtype="mixed_bfloat16")
        model.save(tmp_path / "model.keras")
        assert keras.models.load_model(tmp_path / "model.keras").dtype_policy.name == "mixed_bfloat16"
        assert model(IDS).logits.dtype == "bfloat16" and model.weights[0].dtype == "float32"
        assert model(IDS, labels=IDS).loss.dtype == "float32"

    def test_a_backbone_inside_a_model(self):
        backbone = TFLlamaModel(CONFIG).backbone
        ids = keras.Input((None,), dtype="int32")
        pooled = keras.layers.GlobalAveragePooling1D()(backbone(ids, use_cache=False).last_hidden_state)
        model = keras.Model(ids, keras.layers.Dense(1)(pooled))
        again = keras.Model.from_config(model.get_config())
        again.set_weights(model.get_weights())
        np.testing.assert_allclose(again(IDS), model(IDS), atol=1e-6)


class TestTraining:
    @pytest.mark.quick(1)
    @pytest.mark.parametrize(
        "model_class, jit_compile",
        [(c, False) for c in LABELS] + [(c, True) for c in (TFLlamaForCausalLM, TFLlamaForQuestionAnswering)],
        ids=lambda value: getattr(value, "__name__", "xla" if value else "graph"),
    )
    def test_fit_with_the_models_own_loss(self, model_class, jit_compile):
        keras.utils.set_random_seed(0)
        model = model_class(CONFIG)
        model.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
        inputs = {"input_ids": IDS, **LABELS[model_class]}
        before = float(model(inputs).loss)
        history = model.fit(tf.data.Dataset.from_tensors(inputs).repeat(12), verbose=0, epochs=1)
        after = float(model(inputs).loss)
        assert after < 0.5 * before and history.history["loss"][0] < before
        assert model.evaluate(inputs, verbose=0, batch_size=4) == pytest.approx(after, rel=1e-4)
        assert "past_key_values" not in model.predict({"input_ids": IDS}, verbose=0)

    @pytest.mark.slow
    def test_labels_as_targets(self):
        model = TFLlamaForSequenceClassification(CONFIG)
        targets = LABELS[TFLlamaForSequenceClassification]["labels"]
        model.compile(keras.optimizers.SGD(0.0), metrics=["accuracy"])
        own = model.fit({"input_ids": IDS}, targets, verbose=0).history
        inside = model.fit({"input_ids": IDS, "labels": targets}, verbose=0).history
        model.compile(
            keras.optimizers.SGD(0.0),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        compiled = model.fit({"input_ids": IDS}, targets, verbose=0).history
        accuracy = (np.asarray(model(IDS).logits).argmax(-1) == targets).mean()
        for history in (own, inside, compiled):
            assert history["loss"][0] == pytest.approx(own["loss"][0], rel=1e-5)
            assert history["accuracy"][0] == pytest.approx(accuracy)

    def test_gradients_reach_every_weight_and_padding_none(self):
        model = TFLlamaForCausalLM(CONFIG)
        mask = np.ones_like(IDS)
        mask[:, :2] = 0
        labels = np.where(np.roll(mask, 1, axis=1) & mask, IDS, -100)  # the first token is predicted by padding
        with tf.GradientTape() as tape:
            embeds = tf.convert_to_tensor(model.get_input_embeddings()(IDS))
            tape.watch(embeds)
            loss = model(inputs_embeds=embeds, attention_mask=mask, labels=labels, training=True).loss
        weights = [slot.variable for name, slot in slots_of(model).items() if "embed_tokens" not in name]
        into_embeds, *into_weights = tape.gradient(loss, [embeds, *(w.value for w in weights)])
        assert all(np.abs(gradient).max() > 0 for gradient in into_weights)
        assert np.abs(into_embeds[:, :2]).max() == 0 and np.abs(into_embeds[:, 2:]).max() > 0

    def test_what_cannot_be_learned_from_says_so(self):
        model = TFLlamaForCausalLM(CONFIG)
        model.compile("adam")
        with pytest.raises(ValueError, match="nothing to learn from: give labels"):
            model.fit({"input_ids": IDS}, verbose=0)
        with pytest.raises(ValueError, match=r"sample weights need compile\(loss="):
            model.fit({"input_ids": IDS}, IDS, sample_weight=np.ones(4), verbose=0)


@pytest.mark.slow
class TestQuantization:
    @pytest.fixture
    def model(self):
        model = TFLlamaForCausalLM(CONFIG.replace(tie_word_embeddings=True))
        # Weights so large that rounding shows, and that other ids follow.
        rng = np.random.default_rng(3)
        model.set_weights([rng.normal(size=w.shape) * 0.3 for w in model.weights])
        return model

    @pytest.mark.parametrize("mode, most", [("int8", 0.05), ("int4", 0.4)])
    def test_tied_logits_are_near_those_of_the_whole_weights(self, model, mode, most):
        before = np.asarray(model(IDS).logits)
        model.quantize(mode)
        after = np.asarray(model(IDS).logits)
        assert model.quantization == mode
        assert 0 < np.linalg.norm(after - before) < most * np.linalg.norm(before)

    def test_what_was_compiled_before_is_compiled_anew(self, model):
        prompt = IDS[:1, :3]
        settings = {"max_new_tokens": 4, "eos_token_id": None}
        model.set_weights([np.zeros(w.shape) for w in model.weights])
        model.backbone.norm.weight.assign(np.ones(16))
        rows = np.zeros((61, 16))
        rows[7], rows[prompt[0, -1]] = 1.0, 0.5  # normalised, what follows is always 7
        model.get_input_embeddings().embeddings.assign(rows)
        assert np.asarray(model.generate(prompt, **settings))[0, 3:].tolist() == [7, 7, 7, 7]
        model.quantize("int8")
        assert np.asarray(model.generate(prompt, **settings))[0, 3:].tolist() == [7, 7, 7, 7]
        for variable in model.get_input_embeddings().weights:  # rows and their scales: now it is 9
            values = np.array(variable)
            values[[7, 9]] = values[[9, 7]]
            variable.assign(values)
        assert np.asarray(model.generate(prompt, **settings))[0, 3:].tolist() == [9, 9, 9, 9]

    @pytest.mark.parametrize(
        "mode, settings",
        [
            ("int8", {"mode": "int8"}),
            ("int4", {"mode": "int4"}),
            ("int8", {"config": keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)}),
            ("int8", {"mode": "int8", "filters": "_proj"}),
        ],
        ids=["int8", "int4", "int8 weights", "int8 projections"],
    )
    def test_keras_files_and_copies_are_exact(self, model, mode, settings, tmp_path):
        model.quantize(**settings)
        model.save(tmp_path / "model.keras")
        for same in (keras.models.load_model(tmp_path / "model.keras"), copy.deepcopy(model)):
            assert same.quantization == mode
            assert_same(same, model)

    def test_checkpoints_are_refused(self, model, tmp_path):
        model.quantize("int8")
        with pytest.raises(ValueError, match=r"is quantised \(int8\) and checkpoints hold floating-point weights"):
            model.save_pretrained(tmp_path / "model")
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("enabled", [True, False])
def test_loading_leaves_garbage_collection_as_it_was(enabled, monkeypatch):
    """It is off while a model is made, and afterwards what it was, after errors too."""
    seen = []
    build = TFLlamaForCausalLM.build

    def watched(self, *given):
        seen.append(gc.isenabled())
        build(self, *given)

    monkeypatch.setattr(TFLlamaForCausalLM, "build", watched)
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        TFLlamaForCausalLM.from_pretrained("stories260K")
        assert (seen, gc.isenabled()) == ([False], enabled)
        with pytest.raises(CheckpointError):
            TFLlamaForCausalLM.from_pretrained("stories260K", hidden_size=32)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
