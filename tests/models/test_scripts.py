"""Methods and attributes of models that scripts written for transformers use."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels import (
    AutoConfig,
    LlamaConfig,
    MPNetConfig,
    TFAutoModel,
    TFAutoModelForCausalLM,
    TFLlamaForCausalLM,
    TFLlamaForSequenceClassification,
    TFLlamaModel,
    TFMPNetForMaskedLM,
    TFMPNetForMultipleChoice,
)

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 50,
}


def small(cls=TFLlamaForCausalLM, **changes):
    config = MPNetConfig if "MPNet" in cls.__name__ else LlamaConfig
    return cls(config(**{**SIZES, "pad_token_id": 1, **changes}))


def test_counts_and_sizes():
    model = small()
    block = 4 * 16 * 16 + 3 * 16 * 24 + 2 * 16
    assert model.num_parameters() == 2 * 50 * 16 + 2 * block + 16 == model.count_params()
    assert model.num_parameters(exclude_embeddings=True) == 50 * 16 + 2 * block + 16
    assert model.get_memory_footprint() == 4 * model.num_parameters()
    whole = model.num_parameters()
    model.backbone.trainable = False
    assert model.num_parameters(only_trainable=True) == 50 * 16
    model.quantize("int4", group_size=8, embeddings="int8")
    assert model.num_parameters() == whole
    half = TFLlamaForCausalLM(LlamaConfig(**SIZES), dtype="bfloat16")
    assert half.get_memory_footprint(return_buffers=False) == 2 * half.num_parameters()


def test_what_a_model_is():
    model, bare = small(), small(TFLlamaModel)
    assert model.can_generate() and not bare.can_generate()
    assert model.base_model is model.backbone and bare.base_model is bare
    assert (model.framework, model.main_input_name, model.name_or_path) == ("tf", "input_ids", "")
    assert "CPU" in model.device.upper() or "GPU" in model.device.upper()
    assert TFLlamaForCausalLM.from_pretrained("stories260K").name_or_path == "stories260K"


@pytest.mark.parametrize("cls", [TFLlamaForCausalLM, TFLlamaForSequenceClassification, TFMPNetForMultipleChoice])
def test_dummy_inputs_are_inputs(cls):
    model = small(cls)
    assert model(model.dummy_inputs).logits.shape[0] == 3


def test_embeddings_are_read_and_replaced():
    model = small(tie_word_embeddings=False)
    table = np.arange(50 * 16, dtype="float32").reshape(50, 16)
    model.set_input_embeddings(table)
    model.set_output_embeddings(tf.constant(table * 2))
    assert np.array_equal(model.get_input_embeddings().embeddings, table)
    assert np.array_equal(model.get_output_embeddings().kernel, table.T * 2)
    # A layer, with more tokens than before.
    layer = keras.layers.Embedding(60, 16)
    layer.build()
    model.set_input_embeddings(layer)
    assert model.config.vocab_size == 60 and np.array_equal(model.get_input_embeddings().embeddings, layer.embeddings)
    assert model(input_ids=[[59]]).logits.shape == (1, 1, 60)
    with pytest.raises(ValueError, match=r"shape \(50, 3\); \(tokens, 16\) was expected"):
        model.set_input_embeddings(table[:, :3])
    tied = small(TFMPNetForMaskedLM)
    assert tied.get_output_embeddings() is tied.get_input_embeddings()
    untied = small(TFMPNetForMaskedLM, tie_word_embeddings=False)
    assert untied.get_output_embeddings() is untied.lm_head.decoder
    assert small(TFLlamaModel).get_output_embeddings() is None
    with pytest.raises(ValueError, match="TFLlamaModel has no output embeddings"):
        small(TFLlamaModel).set_output_embeddings(table)


def test_resizing_as_transformers_spells_it():
    model = small()
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    assert model.resize_token_embeddings(51, pad_to_multiple_of=8).input_dim == 56
    assert model.resize_token_embeddings(None, pad_to_multiple_of=32).input_dim == 64
    with pytest.raises(ValueError, match="pad_to_multiple_of=0"):
        model.resize_token_embeddings(pad_to_multiple_of=0)
    with pytest.raises(ValueError, match="mean_resizing=False"):
        model.resize_token_embeddings(70, mean_resizing=False)


def test_what_there_is_not_names_the_way():
    model = small()
    with pytest.raises(NotImplementedError, match="call it with head_mask of shape"):
        model.prune_heads({0: [1]})
    for name, way in (
        ("eval", "training=True"),
        ("to", "dtype="),
        ("state_dict", "get_weights"),
        ("cuda", "tf.device"),
    ):
        with pytest.raises(AttributeError, match=f"no attribute '{name}': .*{way}"):
            getattr(model, name)
        assert not hasattr(model, name)


def test_models_from_a_configuration():
    config = LlamaConfig(**SIZES)
    model = TFAutoModelForCausalLM.from_config(config, torch_dtype="bfloat16", trust_remote_code=True)
    assert isinstance(model, TFLlamaForCausalLM) and model.compute_dtype == "bfloat16"
    for model_class in (TFLlamaModel, TFLlamaForCausalLM, TFLlamaForSequenceClassification):
        for make in (model_class.from_config, model_class._from_config):
            model = make(config, torch_dtype="float16")
            assert type(model) is model_class and model.compute_dtype == "float16"
    with pytest.raises(TypeError, match="TFAutoModel picks a class and is none itself"):
        TFAutoModel("stories260K")


def test_saving_takes_what_scripts_give(tmp_path):
    model = small()
    with pytest.warns(UserWarning, match="safe_serialization=False is ignored"):
        model.save_pretrained(save_directory=tmp_path / "a", safe_serialization=False, is_main_process=True)
    again = TFAutoModelForCausalLM.from_pretrained(
        tmp_path / "a", device_map="auto", low_cpu_mem_usage=True, trust_remote_code=True, from_pt=True, num_labels=3
    )
    assert np.array_equal(again(model.dummy_inputs).logits, model(model.dummy_inputs).logits)
    assert again.config.num_labels == 3 and again.name_or_path == str(tmp_path / "a")
    with pytest.raises(ValueError, match="saved_model=True: call model.export"):
        model.save_pretrained(tmp_path / "b", saved_model=True)
    with pytest.raises(TypeError, match="unknown argument 'shard_size'"):
        model.save_pretrained(tmp_path / "b", shard_size=1)
    with pytest.raises(ValueError, match="load_in_8bit=True: load the model and call model.quantize"):
        TFAutoModelForCausalLM.from_pretrained(tmp_path / "a", load_in_8bit=True)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["torch", "numpy", "openvino"])
def test_another_backend_is_refused_before_anything_is_loaded(name):
    result = subprocess.run(
        [sys.executable, "-c", "from tfmodels import TFLlamaModel"],
        env={**os.environ, "KERAS_BACKEND": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"ImportError: KERAS_BACKEND={name}: the models of tfmodels run on tensorflow and jax" in result.stderr


def test_keywords_that_say_nothing_of_a_model_are_refused_in_words():
    with pytest.raises(ValueError, match=r"does not take return_unused_kwargs=True.*AutoConfig\.from_pretrained"):
        TFLlamaForCausalLM.from_pretrained("stories260K", return_unused_kwargs=True)
    model = TFLlamaForCausalLM.from_pretrained("stories260K", return_unused_kwargs=False)
    for thing in (model, model.config, model.generation_config):
        with pytest.raises(TypeError, match="save_directory=None; the path of a folder was expected"):
            thing.save_pretrained(None)
        with pytest.raises(ValueError, match="save_directory is empty; the path of a folder was expected"):
            thing.save_pretrained("")
    with pytest.raises(ValueError, match="path is empty; where to write was expected"):
        model.export("")


def test_auto_classes_take_a_dict_as_configuration():
    values = AutoConfig.from_pretrained("stories260K").to_dict()
    model = TFAutoModelForCausalLM.from_pretrained("stories260K", config={**values, "num_labels": 7})
    assert type(model) is TFLlamaForCausalLM and model.config.num_labels == 7


def test_classes_say_whether_they_generate():
    assert TFLlamaForCausalLM.can_generate() and not TFLlamaModel.can_generate()


def test_heads_of_language_models_and_their_bias():
    masked, causal, other = small(TFMPNetForMaskedLM), small(), small(TFLlamaForSequenceClassification)
    assert masked.get_lm_head() is masked.lm_head and causal.get_lm_head() is causal.lm_head
    assert other.get_lm_head() is None and other.get_bias() is None and causal.get_bias() is None
    ids = masked.dummy_inputs["input_ids"]
    before = masked(ids).logits
    masked.set_bias({"bias": np.arange(50, dtype="float32")})
    np.testing.assert_allclose(masked(ids).logits - before, np.broadcast_to(np.arange(50), (3, 5, 50)), atol=1e-4)
    untied = small(TFMPNetForMaskedLM, tie_word_embeddings=False)
    untied.set_bias({"bias": np.ones(50)})
    assert np.ptp(untied.get_bias()["bias"]) == 0
    with pytest.raises(ValueError, match=r"the bias has shape \(3,\); \(50,\) was expected"):
        masked.set_bias({"bias": np.ones(3)})
    with pytest.raises(ValueError, match=r"set_bias\(3\)"):
        masked.set_bias(3)
    with pytest.raises(ValueError, match="has no bias"):
        other.set_bias({"bias": np.ones(50)})


def test_head_masks_for_layers():
    model = small()
    assert model.get_head_mask(None, 3) == [None] * 3
    # As TFPreTrainedModel of transformers 4.57 spreads them, but for a batch axis that never is another than 1.
    spread = model.get_head_mask([1, 0], 3)
    assert spread.shape == (3, 1, 2, 1, 1) and spread.dtype == "float32"
    assert np.asarray(spread)[:, 0, :, 0, 0].tolist() == [[1, 0]] * 3
    assert np.asarray(model.get_head_mask([[1, 0], [0, 1]], 2))[:, 0, :, 0, 0].tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match=r"head_mask has shape \(1, 1, 2\)"):
        model.get_head_mask(np.ones((1, 1, 2)), 2)
    assert model.build_in_name_scope() is None
