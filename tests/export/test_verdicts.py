"""Verification says what is so in every combination of format, quantisation, adapters and length."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from tfmodels.export import export
from tfmodels.export.models import context_of
from tfmodels.training.lora import add_lora

CONTEXT = 48
# Every pair of quantisation, adapters and length; the first runs by default.
SAVED_MODELS = [(None, False, 8), (None, True, None), (None, False, 20)]
SAVED_MODELS += [("int8", True, 8), ("int8", False, None), ("int8", True, 20)]
OPTIONS = ({}, {"quantize": "int8"}, {"quantize": "int4"}, {"dtype": "float16"})
LITERT = [
    (options, adapted, length)
    for number, options in enumerate(OPTIONS)
    for adapted, length in (((True, 8), (False, 20)), ((False, 8), (True, 20)))[number % 2]
]
FORMATS = {"saved_model": "model", "litert": "model.tflite", "onnx": "model.onnx"}


# A combination for each of the families of shared layers.
FAMILIES = [
    ("gpt2", "ForCausalLM", None, r"c_(attn|fc)$", "onnx", {}),
    ("qwen3", "ForCausalLM", None, r"(q|v|up)_proj$", "litert", {"max_length": 20}),
    ("smollm3", "ForCausalLM", None, None, "onnx", {}),
    ("granite", "ForCausalLM", None, r"(q|v|up)_proj$", "litert", {"max_length": 8, "quantize": "int4"}),
    ("mistral", "ForCausalLM", "int8", r"(q|v|up)_proj$", "saved_model", {"max_length": 8}),
    ("distilbert", "ForMaskedLM", None, r"(q_lin|lin1)$", "onnx", {}),
    ("bert", "ForSequenceClassification", "int8", r"(query|dense)$", "saved_model", {}),
]


def source(quantised, adapted, name="llama", head="ForCausalLM"):
    """A small model, quantised by Keras, with adapters that change it, at layers whose names fit `adapted`."""
    model = small_models.make(name, head, num_hidden_layers=1, max_position_embeddings=CONTEXT)
    if quantised:
        model.quantize(quantised)
    if adapted:
        add_lora(model, r"(q|v|up)_proj$" if adapted is True else adapted, rank=2)
        random = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(random.normal(size=variable.shape) * 0.2)
    return model


@pytest.fixture(scope="module")
def models():
    return {(q, a): source(q, a) for q in (None, "int8") for a in (False, True)}


def verdict(model, format, folder, **options):
    if format == "saved_model":
        options |= {"batch_sizes": (1,), "jit_compile": False}
    return export(model, folder / FORMATS[format], format, verify=True, **options).verification


@pytest.mark.quick(1)
@pytest.mark.parametrize(("quantised", "adapted", "length"), SAVED_MODELS)
def test_saved_model(models, tmp_path, quantised, adapted, length):
    report = verdict(models[quantised, adapted], "saved_model", tmp_path, max_length=length)
    room = length or CONTEXT
    prompts = [min(5, room // 2), min(11, room // 2)]
    assert report.greedy_tokens == sum(room - prompt for prompt in prompts)
    assert report.exact_ids is (quantised is None)
    if quantised is None:
        assert report.equal_tokens == report.greedy_tokens


@pytest.mark.quick(1)
@pytest.mark.parametrize(("options", "adapted", "length"), LITERT)
def test_litert(models, tmp_path, options, adapted, length):
    pytest.importorskip("ai_edge_litert")
    report = verdict(models[None, adapted], "litert", tmp_path, max_length=length, **options)
    assert report.greedy_tokens == 2 * length - min(5, length // 2) - min(11, length // 2)
    assert report.exact_ids is (not options)
    assert ("required" if not options else "not required") in dict(report.rows())["greedy tokens"]


@pytest.mark.quick(1)
@pytest.mark.parametrize("adapted", [False, True])
def test_onnx(models, tmp_path, adapted):
    pytest.importorskip("tf2onnx")
    report = verdict(models[None, adapted], "onnx", tmp_path)
    assert report.exact_ids and report.equal_tokens == report.greedy_tokens == 2 * CONTEXT - 16


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head", "quantised", "adapted", "format", "options"), FAMILIES)
def test_families_of_shared_layers(tmp_path, name, head, quantised, adapted, format, options):
    pytest.importorskip({"litert": "ai_edge_litert", "onnx": "tf2onnx"}.get(format, "tensorflow"))
    generates = {"batch_sizes": (1,), "jit_compile": False} if format == "saved_model" and "Causal" in head else {}
    path = tmp_path / FORMATS[format]
    report = export(source(quantised, adapted, name, head), path, format, verify=True, **options, **generates)
    found = report.verification
    assert found.calls >= 6
    if head != "ForCausalLM":
        assert found.greedy_tokens is None and max(found.differences.values()) < 1e-4
        return
    assert found.exact_ids is not bool(quantised or "quantize" in options)
    assert found.equal_tokens == found.greedy_tokens > 0 or not found.exact_ids


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("litert", r'was quantised by Keras \(int8\).*export it with quantize="int8"'),
        ("onnx", r"was quantised by Keras \(int8\).*onnxruntime.quantization"),
    ],
)
@pytest.mark.parametrize("adapted", [False, True])
def test_models_quantised_by_keras_are_refused(models, tmp_path, format, message, adapted):
    pytest.importorskip({"litert": "ai_edge_litert", "onnx": "tf2onnx"}[format])
    with pytest.raises(ValueError, match=message):
        verdict(models["int8", adapted], format, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_packed_weights_are_refused_by_their_name(tmp_path):
    pytest.importorskip("tf2onnx")
    model = source(None, False)
    model.quantize("int4", group_size=16)
    with pytest.raises(ValueError, match=r"has packed weights \(int4\); an ONNX file holds float32 weights"):
        verdict(model, "onnx", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_context_is_what_the_table_says(models):
    assert context_of(models[None, False]) == CONTEXT
