"""Every activation against the reference table."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tfmodels import LlamaConfig, TFLlamaModel
from tfmodels.layers.activations import get_activation

CASE = Path(__file__).parents[1] / "reference" / "common" / "activations"
NAMES = json.loads((CASE / "meta.json").read_text())["names"]
TABLE = np.load(CASE / "io.npz")


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference(name):
    got = get_activation(name)(keras.ops.convert_to_tensor(TABLE["x"].astype("float32")))
    np.testing.assert_allclose(np.asarray(got), TABLE[f"y.{name}"], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["selu", "elu", "celu", "softplus", "softsign", "log_sigmoid", "hard_tanh"])
def test_names_that_keras_has_are_its_functions(name):
    x = np.linspace(-3, 3, 13).astype("float32")
    np.testing.assert_allclose(get_activation(name)(x), keras.activations.get(name)(x), atol=1e-6)


def test_a_function_is_taken_as_it_is():
    config = LlamaConfig(50, 16, 24, 1, 2, hidden_act=keras.ops.relu)
    model, same = TFLlamaModel(config), TFLlamaModel(config.replace(hidden_act="relu"))
    same.set_weights(model.get_weights())
    np.testing.assert_allclose(model(input_ids=[[1, 2, 3]])[0], same(input_ids=[[1, 2, 3]])[0], atol=1e-6)


@pytest.mark.parametrize("name", [None, ["relu"], 3])
def test_what_names_no_function_is_refused_in_words(name):
    with pytest.raises(ValueError, match="hidden_act=.* is unknown; it is one of"):
        get_activation(name)


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="hidden_act='swoosh' is unknown.*silu"):
        get_activation("swoosh")
