"""`tf_model.h5` as the former TensorFlow classes wrote it, for the families that had them: names, shapes, layout."""

import re

import h5py
import numpy as np
import pytest
import small_models
from safetensors.numpy import load_file

IDS = np.array([[5, 9, 12, 44, 17]])
NORM = re.compile(r"(LayerNorm|layer_norm|ln_\d|ln_f)\.(weight|bias)$")
CONV1D = re.compile(r"\.c_(attn|proj|fc)\.(weight|bias)$")


def old(name, value):
    """The name and the array of the former classes for a tensor of a PyTorch file."""
    if NORM.search(name):
        name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
    elif CONV1D.search(name):
        value = value[None] if name.endswith("bias") else value  # a row, (1, n)
    elif re.search(r"(word_embeddings|wte)\.weight$", name):
        pass
    elif re.search(r"(position|token_type)_embeddings\.weight$|wpe\.weight$", name):
        name = name.replace(".weight", ".embeddings")
    elif name.endswith(".weight"):
        name, value = name.replace(".weight", ".kernel"), value.T
    name = re.sub(r"\b(layer|h)\.(\d+)\.", r"\1_._\2.", name)
    return re.sub(r"\.(?!_)(?<!_\.)", "/", name) + ":0", value


@pytest.mark.parametrize(
    "family, head, keras_name",
    [
        ("bert", "ForSequenceClassification", "tf_bert_for_sequence_classification"),
        ("bert", "Model", "tf_bert_model"),
        ("roberta", "ForMaskedLM", "tf_roberta_for_masked_lm"),
        ("roberta", "ForSequenceClassification", "tf_roberta_for_sequence_classification"),
        ("distilbert", "ForMaskedLM", "tf_distil_bert_for_masked_lm"),
        ("distilbert", "ForQuestionAnswering", "tf_distil_bert_for_question_answering"),
        ("gpt2", "ForCausalLM", "tfgpt2lm_head_model"),
        ("gpt2", "Model", "tfgpt2_model"),
        ("gpt2", "ForSequenceClassification", "tfgpt2_for_sequence_classification"),
    ],
)
def test_files_of_the_former_classes(family, head, keras_name, tmp_path):
    model = small_models.make(family, head, initializer_range=0.3)
    for weight in model.weights:  # biases that say where they go
        if len(weight.shape) == 1:
            weight.assign_add(np.linspace(-0.5, 0.5, weight.shape[0]))
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    start = "" if head != "Model" else f"{model.base_model_prefix}."
    seen = []
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        for name, value in tensors.items():
            path, value = old(start + name, value)
            group = file.require_group(path.split("/")[0])
            group.create_dataset(f"{keras_name}/{path}", data=value)
            group.attrs["weight_names"] = [f"{keras_name}/{path}"]  # as groups of layers have it
            seen.append(f"{keras_name}/{path}")
    if family == "gpt2":
        assert f"{keras_name}/transformer/h_._0/attn/c_attn/weight:0" in seen
    if family == "bert":
        assert f"{keras_name}/bert/encoder/layer_._0/attention/self/query/kernel:0" in seen
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for got, want in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=want.path)
