"""The examples run, offline, and do what they say."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generate_text(capsys):
    texts = load("generate_text").main(["--max-new-tokens", "12"])
    out = capsys.readouterr().out
    assert texts[0].startswith("Once upon a time, there was a little")
    assert texts[1].startswith("Lily and her dog went to the park")
    streamed = out.split("streamed: ")[1].strip()
    assert texts[0].startswith(streamed) and len(streamed) > len("Once upon a time")


@pytest.mark.slow
def test_fine_tune():
    losses = load("fine_tune").main(["--epochs", "40"])
    assert losses["after"] < 0.5 * losses["before"]
