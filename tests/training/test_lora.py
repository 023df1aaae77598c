"""Low-rank adapters: what they compute and train, and their files, here and in PEFT."""

import copy
import json
import re
import warnings

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels.checkpoints.weight_map import slots_of
from tfmodels.training.lora import add_lora, load_adapter, lora_report, merge_lora, save_adapter, unmerge_lora

IDS = np.random.default_rng(0).integers(2, 61, (4, 6))
QUERY_VALUE = {
    "llama": r"\.(q|v)_proj$",
    "gpt_neox": "query_key_value",
    "gpt_neo": r"\.(q|v)_proj$",
    "mpt": "Wqkv",
    "mpnet": r"attn\.(q|v)$",
}


def shuffled(model, seed=1):
    """Adapters that do something: as after training."""
    random = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(random.normal(size=weight.shape, scale=0.2))
    return model


def adapted(name, head, *, fully=None, **options):
    model = small.make(name, head)
    add_lora(model, QUERY_VALUE[name], rank=3, alpha=6, train_fully=fully, **options)
    return shuffled(model)


def first(model):
    return np.asarray(model(IDS)[0])


def test_before_training_nothing_changes_and_after_it_only_adapters_have():
    model = small.make("llama", "ForSequenceClassification")
    want = first(model)
    before = {name: np.asarray(slot.variable) + 0.0 for name, slot in slots_of(model).items()}
    report = add_lora(model, r"\.(q|v)_proj$", rank=2, train_fully="^score$")
    np.testing.assert_array_equal(first(model), want)
    # q: 16 -> 16, v: 16 -> 8, each rank 2; two layers; the head 16 -> 3.
    assert report.trainable == 2 * (2 * (16 + 16) + 2 * (16 + 8)) + 48
    assert report.layers[0] == "model.layers.0.self_attn.q_proj" and report.fully == ("score",)
    assert report.total == model.count_params() and "4 adapted layers and score" in str(report)
    model.compile(keras.optimizers.Adam(0.02))
    labels = np.array([0, 1, 2, 1])
    losses = model.fit({"input_ids": IDS, "labels": labels}, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    changed = {name for name, slot in slots_of(model).items() if not np.array_equal(before[name], slot.variable)}
    assert changed == {"score.weight"}


@pytest.mark.parametrize("name", small.SMALL)
def test_an_adapter_is_a_change_of_the_kernel(name):
    model = adapted(name, "Model")
    plain = small.make(name, "Model")
    assert np.abs(first(model) - first(plain)).max() > 1e-3
    want = first(model)
    merge_lora(model)
    np.testing.assert_allclose(first(model), want, atol=2e-6)
    # The merged kernels alone, in a plain model.
    slots = slots_of(plain)
    for place, slot in slots_of(model).items():
        slots[place].variable.assign(slot.variable)
    np.testing.assert_allclose(first(plain), want, atol=2e-6)
    unmerge_lora(model)
    np.testing.assert_allclose(first(model), want, atol=2e-6)


@pytest.mark.slow
def test_compiled_programs_are_made_anew():
    model = small.make("llama", "ForCausalLM")
    model.compile("sgd", jit_compile=False)
    plain = model.predict(IDS, verbose=0).logits
    tokens = np.asarray(model.generate(IDS, max_new_tokens=5))
    add_lora(model, "_proj$", rank=2)
    shuffled(model)
    assert np.abs(model.predict(IDS, verbose=0).logits - plain).max() > 1e-3
    written = np.asarray(model.generate(IDS, max_new_tokens=5))
    assert (written != tokens).any()
    np.testing.assert_array_equal(model.generate(IDS, max_new_tokens=5, jit_compile=False), written)


def test_dropout_is_for_training():
    model = adapted("llama", "Model", dropout=0.5)
    np.testing.assert_array_equal(first(model), first(model))
    assert np.abs(np.asarray(model(IDS, training=True)[0]) - first(model)).max() > 1e-4


@pytest.mark.slow
def test_lower_precision_keeps_adapters_wide():
    model = small.make("llama", "ForCausalLM", dtype="bfloat16")
    add_lora(model, "_proj$")
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    losses = model.fit({"input_ids": IDS, "labels": IDS}, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.95 * losses[0] and model(IDS).logits.dtype == "bfloat16"


@pytest.mark.quick(1)
@pytest.mark.parametrize("activations", ["default", None])
def test_beside_quantised_kernels(activations, tmp_path):
    model = small.make("llama", "ForSequenceClassification")
    whole = first(model)
    model.quantize(config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=activations))
    want = first(model)
    assert 0 < np.linalg.norm(want - whole) < 0.05 * np.linalg.norm(whole)
    add_lora(model, r"\.(q|v)_proj$", rank=2)
    np.testing.assert_array_equal(first(model), want)
    model.compile(keras.optimizers.Adam(0.02))
    losses = model.fit({"input_ids": IDS, "labels": np.array([0, 1, 2, 1])}, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.85 * losses[0]
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(first(keras.models.load_model(tmp_path / "model.keras")), first(model))
    with pytest.raises(ValueError, match=r"is quantised \(int8\): its kernels cannot take the adapters' part"):
        merge_lora(model)
    with pytest.raises(ValueError, match="has adapters, and Keras.s own quantisation must come before"):
        model.quantize("int8")


def test_what_is_quantised_is_not_trained_whole():
    model = small.make("llama", "ForSequenceClassification")
    model.quantize("int8")
    before = [weight.trainable for weight in model.weights]
    with pytest.raises(ValueError, match="train_fully names score, quantised, which cannot learn"):
        add_lora(model, r"\.q_proj$", train_fully="^score$")
    assert [weight.trainable for weight in model.weights] == before and model.lora_config is None
    model = small.make("llama", "ForSequenceClassification")
    model.quantize("int8", filters=lambda layer: layer.name != "score")
    add_lora(model, r"\.q_proj$", train_fully="^score$")
    head = np.asarray(model.score.kernel)
    model.compile(keras.optimizers.Adam(0.02))
    model.fit({"input_ids": IDS, "labels": np.array([0, 1, 2, 1])}, verbose=0)
    assert np.abs(np.asarray(model.score.kernel) - head).max() > 1e-3


class TestFiles:
    @pytest.mark.parametrize("name", small.SMALL)
    def test_alone_and_whole(self, name, tmp_path):
        fully = "classifier|score"
        model = adapted(name, "ForTokenClassification", fully=fully)
        save_adapter(model, tmp_path / "adapter")
        other = small.make(name, "ForTokenClassification")
        report = load_adapter(other, tmp_path / "adapter")
        np.testing.assert_array_equal(first(other), first(model))
        assert report.trainable == lora_report(model).trainable
        # What `save_pretrained` writes is the frozen model, until the adapters are merged into it.
        with pytest.warns(UserWarning, match="without its adapters: tfmodels.training.lora.save_adapter"):
            model.save_pretrained(tmp_path / "base")
        base = type(model).from_pretrained(tmp_path / "base")
        assert np.abs(first(base) - first(model)).max() > 1e-4
        load_adapter(base, tmp_path / "adapter")
        np.testing.assert_array_equal(first(base), first(model))
        merge_lora(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.save_pretrained(tmp_path / "merged")
        np.testing.assert_array_equal(first(type(model).from_pretrained(tmp_path / "merged")), first(model))

    @pytest.mark.parametrize("merged", [False, True])
    def test_keras_files_and_copies(self, merged, tmp_path):
        model = adapted("llama", "ForSequenceClassification", fully="^score$")
        if merged:
            merge_lora(model)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        filled = type(model).from_config(model.get_config())
        filled.load_weights(tmp_path / "model.weights.h5")
        for same in (keras.models.load_model(tmp_path / "model.keras"), copy.deepcopy(model), filled):
            np.testing.assert_array_equal(first(same), first(model))
            assert len(same.trainable_weights) == len(model.trainable_weights) == 9

    @pytest.mark.parametrize(
        "name, head, fully",
        [(name, "ForCausalLM" if name != "mpnet" else "ForMaskedLM", None) for name in small.SMALL]
        + [("llama", "ForSequenceClassification", "^score$"), ("mpnet", "Model", None)],
    )
    def test_peft_reads_ours_and_we_read_theirs(self, name, head, fully, tmp_path):
        torch = pytest.importorskip("torch", reason="compares with PEFT on PyTorch")
        transformers = pytest.importorskip("transformers", reason="compares with PEFT on PyTorch")
        peft = pytest.importorskip("peft", reason="compares with PEFT on PyTorch")
        model = adapted(name, head, fully=fully)
        model.save_pretrained(tmp_path / "base")
        save_adapter(model, tmp_path / "ours")
        base = getattr(transformers, type(model).__name__.removeprefix("TF")).from_pretrained(tmp_path / "base")
        theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "ours")).eval()

        def outputs():
            with torch.inference_mode():
                return theirs(torch.tensor(IDS)).to_tuple()[0].numpy()

        np.testing.assert_allclose(outputs(), first(model), atol=1e-5)
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.shape[0] == 3 or parameter.shape[-1] == 3:  # adapters, and the head of three classes
                    parameter.mul_(-1.5)
        theirs.save_pretrained(str(tmp_path / "theirs"))
        again = type(model).from_pretrained(tmp_path / "base")
        load_adapter(again, tmp_path / "theirs")
        np.testing.assert_allclose(first(again), outputs(), atol=1e-5)
        assert np.abs(first(again) - first(model)).max() > 1e-4


class TestRefusals:
    def test_patterns(self):
        model = small.make("llama", "ForCausalLM")
        with pytest.raises(
            ValueError, match=r"targets='query' fits no layer; there are 'lm_head', 'model\.layers\.0.* and \d+ more\."
        ):
            add_lora(model, "query")
        with pytest.raises(ValueError, match="targets='model.layers.7' fits no layer"):
            add_lora(model, ["lm_head", "model.layers.7"])
        with pytest.raises(ValueError, match=r"targets='\(' is no regular expression: missing \)"):
            add_lora(model, "(")
        with pytest.raises(ValueError, match="train_fully='classifier' fits no layer"):
            add_lora(model, "q_proj", train_fully="classifier")
        with pytest.raises(ValueError, match="targets and train_fully both name lm_head"):
            add_lora(model, "q_proj|lm_head", train_fully="lm_head")
        with pytest.raises(ValueError, match="rank=0; a whole number above 0"):
            add_lora(model, "q_proj", rank=0)
        with pytest.raises(ValueError, match="dropout=1.0; a share from 0"):
            add_lora(model, "q_proj", dropout=1)
        for wrong in (5, None, b"q_proj", [5], [["q_proj"]]):
            with pytest.raises(TypeError, match=rf"targets={re.escape(repr(wrong))}; a regular expression"):
                add_lora(model, wrong)
        with pytest.raises(TypeError, match=r"train_fully=5; a regular expression"):
            add_lora(model, "q_proj", train_fully=5)
        for name in ("alpha", "dropout"):
            with pytest.raises(TypeError, match=f"{name}='x'; a number was expected"):
                add_lora(model, "q_proj", **{name: "x"})
        with pytest.raises(TypeError, match="model='q_proj'; a model was expected"):
            add_lora("q_proj", model)
        # None of that has changed it.
        assert model.lora_config is None and len(model.trainable_weights) == len(model.weights)
        add_lora(model, "q_proj")
        with pytest.raises(ValueError, match="has adapters already"):
            add_lora(model, "v_proj")
        with pytest.raises(ValueError, match="are not merged"):
            unmerge_lora(model)
        merge_lora(model)
        with pytest.raises(ValueError, match="are merged already"):
            merge_lora(model)

    def test_models_without_adapters(self, tmp_path):
        model = small.make("llama", "Model")
        for call in (merge_lora, lora_report, lambda model: save_adapter(model, tmp_path)):
            with pytest.raises(ValueError, match="has no adapters; add_lora or load_adapter"):
                call(model)
        with pytest.raises(FileNotFoundError, match=r"holds no adapter_config\.json"):
            load_adapter(model, tmp_path)

    def test_adapters_of_other_models(self, tmp_path):
        save_adapter(adapted("llama", "ForCausalLM"), tmp_path)
        with pytest.raises(
            ValueError, match=r"does not fit TFMPNetForMaskedLM: layers that the model lacks: 'model\.l"
        ):
            load_adapter(small.make("mpnet", "ForMaskedLM"), tmp_path)
        wider = small.make("llama", "ForCausalLM", hidden_size=32)
        with pytest.raises(ValueError, match=r"other shapes: .*q_proj\.lora_A\.weight \(3, 16\) where \(3, 32\)"):
            load_adapter(wider, tmp_path)
        assert wider.lora_config is None

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"peft_type": "IA3"}, "peft_type='IA3'; only LORA is read"),
            ({"use_dora": True}, "use_dora=True, which does not exist here"),
            ({"rank_pattern": {"q_proj": 2}}, "one rank for all layers"),
            ({"r": None}, "r=None; a whole number above 0 was expected"),
        ],
    )
    def test_settings_of_peft_that_do_not_exist_here(self, change, message, tmp_path):
        save_adapter(adapted("llama", "ForCausalLM"), tmp_path)
        path = tmp_path / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(ValueError, match=message):
            load_adapter(small.make("llama", "ForCausalLM"), tmp_path)

    def test_scaling_by_the_root_of_the_rank(self, tmp_path):
        model = adapted("llama", "ForCausalLM")
        save_adapter(model, tmp_path)
        path = tmp_path / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "use_rslora": True}))
        other = small.make("llama", "ForCausalLM")
        load_adapter(other, tmp_path)
        adapters = [m.model.layers[0].self_attn.q_proj.adapter for m in (model, other)]
        assert adapters[1].scale == pytest.approx(adapters[0].scale * 3**0.5)


def test_under_xla():
    model = adapted("llama", "ForCausalLM")
    compiled = tf.function(lambda ids: model(ids).logits, jit_compile=True)
    np.testing.assert_allclose(compiled(IDS), first(model), atol=3e-6)
