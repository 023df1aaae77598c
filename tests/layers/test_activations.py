"""Every activation against the reference table."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tfmodels.layers.activations import get_activation

CASE = Path(__file__).parents[1] / "reference" / "common" / "activations"
NAMES = json.loads((CASE / "meta.json").read_text())["names"]
TABLE = np.load(CASE / "io.npz")


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference(name):
    got = get_activation(name)(keras.ops.convert_to_tensor(TABLE["x"].astype("float32")))
    np.testing.assert_allclose(np.asarray(got), TABLE[f"y.{name}"], rtol=2e-6, atol=2e-6)


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="hidden_act='swoosh' is unknown.*silu"):
        get_activation("swoosh")
