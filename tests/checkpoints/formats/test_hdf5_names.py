"""`tf_model.h5` as the former TensorFlow classes wrote it, for the families that had them: names, shapes, layout."""

import numpy as np
import pytest
import small_models
from former_files import as_former_file


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
    start = "" if head != "Model" else f"{model.base_model_prefix}."
    seen = as_former_file(tmp_path, keras_name, start)
    if family == "gpt2":
        assert f"{keras_name}/transformer/h_._0/attn/c_attn/weight:0" in seen
    if family == "bert":
        assert f"{keras_name}/bert/encoder/layer_._0/attention/self/query/kernel:0" in seen
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for got, want in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=want.path)
