"""tools/check_layout.py: each rule on a small tree that breaks it, and on one that does not."""

from __future__ import annotations

import pytest

from tools import check_layout

PACKAGES = ("tfmodels", "tfmodels.families", "tfmodels.layers", "tfmodels.kernels", "tfmodels.checkpoints")
SETTINGS = "[options]\npackages =\n    " + "\n    ".join(PACKAGES) + "\n"
CLEAN = {
    "setup.cfg": SETTINGS,
    **{package.replace(".", "/") + "/__init__.py": "" for package in PACKAGES},
    "tfmodels/auto.py": "import importlib\n\ndef f(n):\n  return importlib.import_module(f'tfmodels.families.{n}')\n",
    "tfmodels/config.py": "import json\n\n\ndef build():\n    import keras\n",
    "tfmodels/heads.py": "import keras\nfrom tfmodels.model import Model\n",
    "tfmodels/model.py": "import keras\nfrom tfmodels.layers import norms\n",
    "tfmodels/layers/norms.py": "import keras\nfrom tfmodels.kernels import flash\n",
    "tfmodels/kernels/flash.py": "import tensorflow as tf\n",
    "tfmodels/checkpoints/reader.py": "from . import safe\n",
    "tfmodels/checkpoints/safe.py": "import numpy\n",
    "tfmodels/families/llama.py": "from tfmodels.layers.norms import Norm\nfrom tfmodels.heads import CausalLMHead\n",
}


@pytest.fixture
def check(tmp_path):
    """Writes the clean tree with changes and returns its violations."""

    def run(**changes):
        for name, text in {**CLEAN, **changes.get("files", {})}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return check_layout.check(tmp_path)

    return run


def test_clean_tree_passes(check):
    assert check() == []


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "tfmodels/layers/norms.py",
            "from tfmodels.families import llama",
            "tfmodels.layers must not import tfmodels.families",
        ),
        (
            "tfmodels/kernels/flash.py",
            "import tfmodels.layers.norms",
            "tfmodels.kernels must not import tfmodels.layers",
        ),
        (
            "tfmodels/heads.py",
            "from tfmodels.families.llama import X",
            "tfmodels.heads must not import tfmodels.families",
        ),
        (
            "tfmodels/generation/beam.py",
            "from ..families import llama",
            "tfmodels.generation must not import tfmodels.families",
        ),
        (
            "tfmodels/export/onnx.py",
            "def f():\n    import tfmodels.families.llama",
            "tfmodels.export must not import tfmodels.fam",
        ),
        (
            "tfmodels/training/lora.py",
            "from tfmodels import families",
            "tfmodels.training must not import tfmodels.families",
        ),
        (
            "tfmodels/checkpoints/safe.py",
            "from tfmodels.families.llama import Y",
            "tfmodels.checkpoints must not import tfmodels",
        ),
        (
            "tfmodels/families/mpt.py",
            "from tfmodels.families.llama import X",
            "tfmodels.families must not import tfmodels.families",
        ),
        (
            "tfmodels/model.py",
            "import importlib\nimportlib.import_module('tfmodels.families.llama')",
            "tfmodels.model must not",
        ),
        (
            "tfmodels/losses.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tfmodels.families import llama",
            "tfmodels.losses must not import tfmodels.families",
        ),
    ],
)
def test_arrows(check, file, text, expected):
    problems = [p for p in check(files={file: text + "\n"}) if p.startswith(f"{file}:")]
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("tfmodels/config.py", "import tensorflow as tf", "tfmodels.config must import without tensorflow"),
        ("tfmodels/cli.py", "from keras import ops", "tfmodels.cli must import without keras"),
        (
            "tfmodels/checkpoints/reader.py",
            "try:\n    import keras\nexcept ImportError:\n    pass",
            "tfmodels.checkpoints.reader",
        ),
        ("tfmodels/cli.py", "class A:\n    import keras", "tfmodels.cli must import without keras"),
        ("tfmodels/cli.py", "from tfmodels import heads", "tfmodels.cli -> tfmodels.heads -> keras"),
        ("tfmodels/cli.py", "from tfmodels.layers.norms import RMSNorm", "tfmodels.cli must import without"),
        (
            "tfmodels/checkpoints/__init__.py",
            "import tensorflow",
            "tfmodels.checkpoints.reader -> tfmodels.checkpoints",
        ),
    ],
)
def test_backend_at_import(check, file, text, expected):
    assert any(expected in problem for problem in check(files={file: text + "\n"}))


def test_backend_inside_a_function_or_for_types_is_allowed(check):
    text = "import typing\nif typing.TYPE_CHECKING:\n    import keras\nasync def f():\n    import tensorflow\n"
    assert check(files={"tfmodels/cli.py": text}) == []


@pytest.mark.parametrize(
    "text", ["import torch", "def f():\n    from transformers import AutoModel", "import torch.nn as nn"]
)
def test_never(check, text):
    (problem,) = check(files={"tfmodels/layers/norms.py": text + "\n"})
    assert "which the package replaces" in problem


def test_names_that_only_begin_alike_are_allowed(check):
    assert check(files={"tfmodels/layers/norms.py": "import torchlike\nimport transformers_x\n"}) == []


def test_long_family(check):
    limit = check_layout.MAX_FAMILY_LINES
    assert check(files={"tfmodels/families/mpt.py": "x = 1\n" * limit}) == []
    (problem,) = check(files={"tfmodels/families/mpt.py": "x = 1\n" * (limit + 1)})
    assert "351 lines" in problem


def test_package_that_the_wheel_would_lack(check):
    (problem,) = check(files={"tfmodels/export/__init__.py": ""})
    assert problem == "setup.cfg: [options] packages lacks tfmodels.export"


def test_folder_without_init(check):
    (problem,) = check(files={"tfmodels/export/onnx.py": ""})
    assert problem == "tfmodels/export: has Python files and no __init__.py"


def test_broken_file_is_reported_with_its_line(check):
    (problem,) = check(files={"tfmodels/losses.py": "x = 1\ndef (\n"})
    assert problem.startswith("tfmodels/losses.py:2: does not parse")


def test_exit_codes(check, tmp_path, capsys):
    check()
    assert check_layout.main([str(tmp_path)]) == 0
    (tmp_path / "tfmodels" / "layers" / "norms.py").write_text("import torch\n")
    assert check_layout.main([str(tmp_path)]) == 1
    assert "tfmodels/layers/norms.py:1: imports torch" in capsys.readouterr().out
    assert check_layout.main([str(tmp_path / "nowhere")]) == 1


def test_this_repository():
    assert check_layout.main([]) == 0
