"""Keras's own `model.export` of functional models built around ours."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import small_models

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

HEADS = {
    "llama": "ForTokenClassification",
    "gpt_neox": "ForTokenClassification",
    "gpt_neo": "ForTokenClassification",
    "mpt": "ForTokenClassification",
    "mpnet": "ForTokenClassification",
}


def functional(name):
    """Ids and mask of any batch and length to the scores of three labels, through a dense layer of the user's."""
    changes = {"hidden_act": "gelu"} if name == "mpnet" else {}
    model = small_models.make(name, HEADS[name], **changes)
    inputs = {key: keras.Input((None,), dtype="int32", name=key) for key in ("input_ids", "attention_mask")}
    scores = keras.layers.Dense(3, name="own")(model(inputs)["logits"])
    model = keras.Model(inputs, scores)
    model(small_models.inputs_of(name, HEADS[name]))  # Keras's export asks for one call
    return model


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", HEADS)
def test_onnx(name, tmp_path):
    model = functional(name)
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    inputs = small_models.inputs_of(name, HEADS[name])
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    given = {tensor.name: inputs[tensor.name].astype("int32") for tensor in session.get_inputs()}
    (scores,) = session.run(None, given)
    np.testing.assert_allclose(scores, model(inputs), atol=1e-5)


@pytest.mark.slow
def test_tf_saved_model(tmp_path):
    import tensorflow as tf

    model = functional("mpnet")
    model.export(tmp_path / "model", verbose=False)
    inputs = small_models.inputs_of("mpnet", HEADS["mpnet"])
    again = tf.saved_model.load(str(tmp_path / "model"))
    given = {name: tf.constant(value, tf.int32) for name, value in inputs.items()}
    np.testing.assert_allclose(again.serve(given), model(inputs), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mpnet", "llama"])
def test_tensorflows_own_converter(name):
    """It asks a functional model's inputs for their shapes, and gives them as a list."""
    import tensorflow as tf

    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    model = small_models.make(name, HEADS[name])
    inputs = [keras.Input((5,), dtype="int32", name=key) for key in ("input_ids", "attention_mask")]
    content = tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, model(inputs)["logits"])).convert()
    interpreter = interpreters.Interpreter(model_content=content)
    given = small_models.inputs_of(name, HEADS[name])
    for tensor in interpreter.get_input_details():
        interpreter.resize_tensor_input(tensor["index"], (2, 5))
    interpreter.allocate_tensors()
    for tensor in interpreter.get_input_details():
        key = next(key for key in given if key in tensor["name"])
        interpreter.set_tensor(tensor["index"], given[key].astype("int32"))
    interpreter.invoke()
    scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(scores, model(given)["logits"], atol=1e-5)


def test_formats_by_keras_names(tmp_path):
    model = small_models.make("mpnet", "ForTokenClassification")
    report = model.export(tmp_path / "model", format="tf_saved_model")
    assert report.format == "saved_model" and (tmp_path / "model" / "1" / "saved_model.pb").is_file()
    for name, message in (("openvino", "export to 'onnx' or 'saved_model'"), ("torch", "save_pretrained writes")):
        with pytest.raises(ValueError, match=f"format='{name}' is not written by tfmodels: {message}"):
            model.export(tmp_path / "other", format=name)
