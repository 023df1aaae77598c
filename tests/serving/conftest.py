"""A running server with the bundled model, shared by the tests of this folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from running_server import Running
from web_page import chromium

pytest.importorskip("starlette", reason="pip install 'tfmodels[serve]'")
pytest.importorskip("uvicorn", reason="pip install 'tfmodels[serve]'")

# A conversation is the text that its messages make; tools are named in front of it.
TEMPLATE = (
    "{{ bos_token }}{% if tools %}{% for tool in tools %}{{ tool.function.name }} {% endfor %}{% endif %}"
    "{% for message in messages %}{{ message.content }}{% endfor %}"
)


@pytest.fixture(scope="session")
def serve():
    """Start servers that end with the tests: a function from a worker, and options of `make_app`, to `Running`."""
    with contextlib.ExitStack() as stack:
        yield lambda worker, **options: stack.enter_context(Running(worker, **options))


@pytest.fixture(scope="session")
def stories_model():
    """The bundled model."""
    from tfmodels import TFAutoModelForCausalLM

    return TFAutoModelForCausalLM.from_pretrained("stories260K")


@pytest.fixture(scope="session")
def stories(serve, stories_model):
    """A server of the bundled model: 4 rows, room for 12 requests."""
    from tfmodels import AutoTokenizer
    from tfmodels.serving.models import EngineOptions, LanguageModel
    from tfmodels.serving.worker import Worker

    def load():
        tokenizer = AutoTokenizer.from_pretrained("stories260K")
        tokenizer.chat_template = TEMPLATE
        options = EngineOptions(rows=4, capacity=256, jit_compile=False)
        return {"stories": LanguageModel("stories", stories_model, tokenizer, options)}

    return serve(Worker(load, 12)).ready()


@pytest.fixture(scope="session")
def shots(tmp_path_factory):
    """The folder of screenshots: TFMODELS_SCREENSHOTS, else a temporary one."""
    folder = os.environ.get("TFMODELS_SCREENSHOTS")
    folder = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    with chromium() as running:
        yield running
