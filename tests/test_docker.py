"""Dockerfile and compose.yaml name what there is; no Docker is needed."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]


def test_the_image_takes_what_it_needs():
    text = (ROOT / "Dockerfile").read_text()
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for name in line.split()[:-1]}
    assert copied == shown and all((ROOT / name).exists() for name in copied)
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    for extras in re.findall(r"EXTRAS=([\w,]+)", text):
        assert set(extras.split(",")) <= set(settings["options.extras_require"])
    # The image installs the extras that README names for a server.
    (default,) = re.findall(r"^ARG EXTRAS=([\w,]+)$", text, re.MULTILINE)
    assert 'RUN pip install ".[${EXTRAS}]"' in text
    assert f"pip install '.[{default}]'" in (ROOT / "README.md").read_text()


def test_the_services():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert set(compose["services"]) == {"tfmodels", "tensorflow-serving"}
    assert "pad_variable_length_inputs: true" in compose["configs"]["batching"]["content"]
