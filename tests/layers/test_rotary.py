"""Rotary frequencies against the reference tables, and rotation against complex numbers."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tfmodels.configs.rotary import RotaryConfig
from tfmodels.layers.rotary import RotaryEmbedding, rotate

CASE = Path(__file__).parents[1] / "reference" / "common" / "rope_tables"
SPECS = json.loads((CASE / "meta.json").read_text())["specs"]
TABLES = np.load(CASE / "io.npz")


@pytest.mark.parametrize("name", SPECS)
def test_frequencies_equal_the_reference(name):
    values = dict(SPECS[name]["config"], model_type=None)
    rotary = RotaryEmbedding(RotaryConfig.from_dict(values))
    length = SPECS[name]["seq_len"] or 1
    got = keras.ops.convert_to_numpy(rotary.inverse_frequencies(length))
    np.testing.assert_allclose(got, TABLES[f"{name}.inv_freq"], rtol=3e-6)
    np.testing.assert_allclose(rotary.scale, TABLES[f"{name}.attention_scaling"], rtol=1e-6)


def test_every_scaling_is_the_same_compiled():
    import tensorflow as tf

    positions = np.arange(40)[None]
    for parameters in (
        {"rope_type": "dynamic", "factor": 2.0},
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 16,
        },
    ):
        rotary = RotaryEmbedding(RotaryConfig(head_dim=8, max_position_embeddings=20, rope_parameters=parameters))
        compiled = tf.function(rotary, jit_compile=True)
        for length in (10, 40, 10):  # a longer call in between leaves no trace
            for got, want in zip(compiled(positions[:, :length]), rotary(positions[:, :length]), strict=True):
                np.testing.assert_allclose(got, want, atol=2e-6)
        short, long = rotary(positions[:, :10])[0], rotary(positions)[0][:, :, :10]
        assert not np.allclose(short, long)  # the call's own length decides


def test_rotation_multiplies_complex_numbers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5, 10)).astype("float32")
    rotary = RotaryEmbedding(RotaryConfig(head_dim=10, rope_parameters={"partial_rotary_factor": 0.8}))
    cos, sin = rotary(np.array([[0, 1, 2, 7, 100]]))
    got = np.asarray(rotate(keras.ops.convert_to_tensor(x), cos, sin))
    angles = np.outer([0, 1, 2, 7, 100], 10000.0 ** (-np.arange(0, 8, 2) / 8))
    turned = (x[..., :4] + 1j * x[..., 4:8]) * np.exp(1j * angles)
    np.testing.assert_allclose(got[..., :4], turned.real, atol=1e-5)
    np.testing.assert_allclose(got[..., 4:8], turned.imag, atol=1e-5)
    np.testing.assert_array_equal(got[..., 8:], x[..., 8:])


def test_scores_depend_on_distance_only():
    rng = np.random.default_rng(1)
    query, key = (keras.ops.convert_to_tensor(rng.normal(size=(1, 1, 1, 16)).astype("float32")) for _ in range(2))
    rotary = RotaryEmbedding(RotaryConfig(head_dim=16))

    def score(at_query, at_key):
        turned = rotate(query, *rotary(np.array([[at_query]]))), rotate(key, *rotary(np.array([[at_key]])))
        return float(keras.ops.sum(turned[0] * turned[1]))

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-2)


@pytest.mark.parametrize("parameters", [{"rope_type": "default"}, {"rope_type": "dynamic", "factor": 2.0}])
def test_rows_of_no_tokens_have_no_angles(parameters):
    rotary = RotaryEmbedding(RotaryConfig(head_dim=8, rope_parameters=parameters))
    cos, sin = rotary(np.zeros((2, 0), "int32"))
    assert cos.shape == sin.shape == (2, 1, 0, 4)
