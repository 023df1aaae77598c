"""`import tfmodels` is light, and its public names are all there."""

import subprocess
import sys

import pytest

import tfmodels

LIGHT = """
import sys
import tfmodels
from tfmodels import AutoConfig, AutoTokenizer, GenerationConfig
import tfmodels.cli
heavy = [name for name in ("tensorflow", "keras", "torch", "transformers", "jax") if name in sys.modules]
assert not heavy, heavy
"""


def test_neither_tensorflow_nor_keras_is_imported():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_all_public_names_exist():
    for name in dir(tfmodels):
        assert getattr(tfmodels, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'tfmodels' has no attribute 'TFBertModel'"):
        tfmodels.TFBertModel  # noqa: B018
