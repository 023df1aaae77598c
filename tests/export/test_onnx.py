"""ONNX: every family and head gives the model's numbers in onnxruntime, for any batch and length."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import small_models

import tfmodels
from tfmodels.export import export, onnx
from tfmodels.export.verify import verify

pytest.importorskip("tf2onnx")
runtime = pytest.importorskip("onnxruntime")

FEW = [("mpnet", "ForMultipleChoice"), ("llama", "ForSequenceClassification"), ("gpt_neo", "ForCausalLM")]


@pytest.fixture(scope="module")
def stories():
    return tfmodels.TFLlamaForCausalLM.from_pretrained("stories260K")


@pytest.fixture(scope="module")
def stories_file(stories, tmp_path_factory):
    return export(stories, tmp_path_factory.mktemp("onnx") / "stories.onnx", "onnx")


@pytest.mark.quick(1)
@pytest.mark.parametrize(("name", "head"), FEW)
def test_outputs_equal_the_models(name, head, tmp_path):
    model = small_models.make(name, head)
    report = export(model, tmp_path / "model.onnx", "onnx", verify=True).verification
    assert report.largest_difference < 2e-6
    assert report.equal_tokens == report.greedy_tokens


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head"), [case for case in small_models.EXPORTED if case not in FEW])
def test_outputs_equal_the_models_everywhere(name, head, tmp_path):
    test_outputs_equal_the_models(name, head, tmp_path)


def test_sentence_encoder(tmp_path):
    encoder = tfmodels.SentenceEncoder(small_models.make("mpnet", "Model"), tail=["normalize"], truncate_dim=6)
    report = export(encoder, tmp_path / "model.onnx", "onnx", verify=True)
    assert report.verification.differences.keys() == {"sentence_embedding"}
    inputs = small_models.inputs_of("mpnet", "Model")
    got = onnx.open(report.path).run(inputs)["sentence_embedding"]
    np.testing.assert_allclose(got, encoder(**inputs).sentence_embedding[:, :6], atol=1e-5)


def assert_types_count(model, session):
    """Pairs of texts in one batch, by onnxruntime alone."""
    inputs = small_models.inputs_of("bert", "ForSequenceClassification")
    types = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
    expected = model(**inputs, token_type_ids=types).logits
    assert np.abs(expected - model(**inputs).logits).max() > 1e-3
    (got,) = session.run(None, {**inputs, "token_type_ids": types})
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_token_types(tmp_path):
    model = small_models.make("bert", "ForSequenceClassification", initializer_range=0.5)
    report = export(model, tmp_path / "model.onnx", "onnx", verify=True)
    session = runtime.InferenceSession(str(report.path))
    assert [tensor.name for tensor in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [tensor.shape for tensor in session.get_inputs()] == [["batch", "sequence"]] * 3
    assert_types_count(model, session)
    # Without types the runner gives type 0, as the model does.
    inputs = small_models.inputs_of("bert", "ForSequenceClassification")
    got = onnx.open(report.path).run(inputs)["logits"]
    np.testing.assert_allclose(got, model(**inputs).logits, atol=1e-5)


def test_types_given_to_a_file_without(stories_file):
    inputs = {"input_ids": np.array([[1, 403]])}
    runner = onnx.open(stories_file.path)
    plain = runner.run(inputs)["logits"]
    np.testing.assert_array_equal(runner.run({**inputs, "token_type_ids": np.zeros((1, 2), "int64")})["logits"], plain)
    with pytest.raises(ValueError, match=r"token_type_ids=array.*this file has no such input"):
        runner.run({**inputs, "token_type_ids": np.array([[0, 1]])})


@pytest.mark.slow
def test_a_trained_model_decodes_with_its_cache(stories, stories_file):
    ids = np.array([[1, 403, 407, 261]])
    expected = stories.generate(ids, max_new_tokens=64, jit_compile=False).numpy()
    np.testing.assert_array_equal(onnx.open(stories_file.path).generate(ids, 64), expected)
    assert verify(stories_file.path, stories, tolerance=1e-4).equal_tokens == 128


@pytest.mark.slow
def test_stops_at_the_end_of_sequence(stories, stories_file):
    ids = np.array([[1, 403, 407, 261]])
    runner = onnx.open(stories_file.path)
    assert runner.eos_token_ids == stories.generation_config.eos_token_ids
    free = runner.generate(ids, 10)
    runner.eos_token_ids = (int(free[0, 8]),)
    first = 1 + int(np.argmax(free[0, 4:] == free[0, 8]))
    np.testing.assert_array_equal(runner.generate(ids, 10), free[:, : 4 + first])


def test_the_file_alone(stories, stories_file):
    """Rows of different lengths continued by onnxruntime alone, as the documented names say."""
    (signature,) = stories_file.signatures
    free = (None, None)
    past = ("float32", (None, 4, None, 8))
    assert signature.inputs == {
        **dict.fromkeys(("input_ids", "attention_mask", "position_ids"), ("int64", free)),
        **{f"past_key_values.{layer}.{part}": past for layer in range(5) for part in ("key", "value")},
    }
    assert signature.outputs["logits"] == ("float32", (None, None, stories.config.vocab_size))
    session = runtime.InferenceSession(str(stories_file.path))
    ids = np.array([[0, 0, 1, 403, 407], [1, 403, 407, 261, 378]])
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    names = [output.name for output in session.get_outputs()]
    cache = {name: np.zeros((2, 4, 0, 8), "float32") for name in signature.inputs if name.startswith("past")}
    whole = stories(ids, attention_mask=mask, position_ids=np.maximum(np.cumsum(mask, 1) - 1, 0)).logits.numpy()
    for part in (slice(0, 3), slice(3, 4), slice(4, 5)):
        inputs = {
            "input_ids": ids[:, part],
            "attention_mask": mask[:, : part.stop],
            "position_ids": np.maximum(np.cumsum(mask, 1) - 1, 0)[:, part],
        }
        outputs = dict(zip(names, session.run(None, {**inputs, **cache}), strict=True))
        tokens = mask[:, part] == 1
        np.testing.assert_allclose(outputs["logits"][tokens], whole[:, part][tokens], atol=1e-4)
        cache = {name: outputs[name.replace("past_key_values", "present")] for name in cache}


@pytest.mark.slow
def test_order_and_names_are_the_signatures(tmp_path):
    """Two exports of one model are the same bytes, whatever was made in the process before."""
    import onnx as library

    contents = []
    for number in range(2):
        model = small_models.make("mpnet", "ForQuestionAnswering")
        report = export(model, tmp_path / f"{number}.onnx", "onnx")
        contents.append(report.path.read_bytes())
    assert contents[0] == contents[1]
    session = runtime.InferenceSession(contents[0])
    assert [tensor.name for tensor in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [tensor.name for tensor in session.get_outputs()] == ["start_logits", "end_logits"]
    assert [tensor.shape for tensor in session.get_outputs()] == [["batch", "sequence"]] * 2
    library.checker.check_model(library.load_from_string(contents[0]), full_check=True)


@pytest.mark.parametrize("name", ["llama", "mpnet"])
def test_symbolic_shape_inference_passes(name, stories_file, tmp_path, monkeypatch):
    import onnx as library

    pytest.importorskip("sympy")
    monkeypatch.chdir(tmp_path)  # where it leaves a file
    tools = pytest.importorskip("onnxruntime.tools.symbolic_shape_infer")
    path = stories_file.path
    if name == "mpnet":
        path = export(small_models.make("mpnet", "ForTokenClassification"), tmp_path / "model.onnx", "onnx").path
    found = tools.SymbolicShapeInference.infer_shapes(library.load(str(path)), auto_merge=False)
    shapes = {
        info.name: [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*found.graph.value_info, *found.graph.output)
    }
    assert shapes["logits"] == ["batch", "sequence", 512 if name == "llama" else 3]
    assert all(shape is not None for shape in shapes.values()) and len(shapes) > 100
    if name == "llama":
        assert shapes["present.0.key"] == ["batch", 4, "past + sequence", 8]


def test_half_precision_models_are_exported_in_float32(tmp_path):
    model = small_models.make("llama", "ForTokenClassification", dtype="bfloat16")
    report = export(model, tmp_path / "model.onnx", "onnx")
    ids = np.array([[5, 9, 2]])
    expected = model(ids).logits.numpy().astype("float32")
    np.testing.assert_allclose(onnx.open(report.path).run({"input_ids": ids})["logits"], expected, atol=1e-2)


# What cannot be ------------------------------------------------------------------------------------------------------


def test_weights_beyond_the_format(tmp_path, monkeypatch):
    model = small_models.make("llama", "Model")
    monkeypatch.setattr(onnx, "MOST_WEIGHTS", 1000)
    with pytest.raises(ValueError, match="an ONNX file holds at most 2 GB: export to 'saved_model' or 'litert'"):
        export(model, tmp_path / "model.onnx", "onnx")


def test_operators_without_counterpart_are_named(tmp_path, monkeypatch):
    import tensorflow as tf

    model = small_models.make("llama", "Model")
    norm = model.backbone.final_norm
    monkeypatch.setattr(model.backbone, "final_norm", lambda hidden: tf.math.digamma(norm(hidden)))
    with pytest.raises(ValueError, match="the model needs Digamma, which ONNX has no operator for"):
        export(model, tmp_path / "model.onnx", "onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_options_refused(stories, tmp_path):
    with pytest.raises(ValueError, match="quantize='int8' is no option of format='onnx'"):
        export(stories, tmp_path / "model.onnx", "onnx", quantize="int8")


def test_classifier_without_padding_token(tmp_path):
    model = small_models.make("llama", "ForSequenceClassification", pad_token_id=None)
    with pytest.raises(ValueError, match="pad_token_id, which is None"):
        export(model, tmp_path / "model.onnx", "onnx")


def test_missing_extra(stories, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"needs tf2onnx, .*pip install 'tfmodels\[export\]'"):
        export(stories, tmp_path / "model.onnx", "onnx")


def test_foreign_files(stories_file, tmp_path):
    import onnx as library

    proto = library.load(str(stories_file.path))
    del proto.metadata_props[:]
    library.save(proto, str(tmp_path / "other.onnx"))
    with pytest.raises(ValueError, match="was not written by tfmodels"):
        onnx.open(tmp_path / "other.onnx")
