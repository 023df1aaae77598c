"""`import tfmodels` is light, and its public names are all there."""

import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import tfmodels
from tfmodels.moved import MOVED

ROOT = Path(__file__).parents[1]

LIGHT = """
import sys
import tfmodels
from tfmodels import AutoConfig, AutoTokenizer, GenerationConfig
import tfmodels.cli.main
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


@pytest.mark.parametrize("old", MOVED)
def test_old_module_names_stand_for_the_new_ones(old):
    assert importlib.import_module(old) is importlib.import_module(MOVED[old])


def test_every_package_of_the_tree_is_listed_for_the_wheel():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    there = {".".join(file.relative_to(ROOT).parent.parts) for file in ROOT.glob("tfmodels/**/__init__.py")}
    assert there <= listed
    assert {name for name in listed if "._bundled" not in name} <= there
