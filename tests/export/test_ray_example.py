"""examples/ray_serve.py: replicas on Ray answer as the server alone does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ray.serve", reason="pip install 'ray[serve]'")
import httpx

from tfmodels import AutoTokenizer, TFAutoModelForCausalLM

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve.py"
PROMPT = [1, 403, 407, 261, 378]


@pytest.fixture
def start():
    """Start the example; a function from its arguments to the server's address, once a path of it answers 200."""
    started = []

    def begin(*arguments, path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        command = [sys.executable, str(EXAMPLE), *map(str, arguments), "--cpus", "0.5", "--port", port]
        # Ray gives its own processes half a minute to start, which is little where others keep the machine busy.
        patience = {"RAY_raylet_start_wait_time_s": "180", "RAY_USAGE_STATS_ENABLED": "0"}
        environment = {**os.environ, **patience, "PYTHONPATH": str(EXAMPLE.parents[1])}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen(command, env=environment, **quiet)
        started.append(server)
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 480
        while time.monotonic() < end:
            assert server.poll() is None, f"the example ended with status {server.returncode}"
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url + path, timeout=30).status_code == 200:
                    return url
            time.sleep(1)
        raise AssertionError(f"{path} did not become ready")

    yield begin
    for server in started:
        server.terminate()
        server.wait(60)


def served(metrics):
    """Completions that the replica which made this page of metrics has answered."""
    lines = [line for line in metrics.splitlines() if line.startswith("tfmodels_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if "/v1/completions" in line)


@pytest.mark.slow
def test_two_replicas_of_the_server(start):
    url = start("stories260K", "--replicas", "2", "--max-replicas", "3", "--rows", "2", "--no-jit", path="/health")
    model, tokenizer = (auto.from_pretrained("stories260K") for auto in (TFAutoModelForCausalLM, AutoTokenizer))
    prompt = tokenizer.encode("Once upon a time")
    ids = model.generate([prompt], max_new_tokens=16).numpy()[0].tolist()
    expected = tokenizer.decode(ids, skip_special_tokens=True).removeprefix("Once upon a time")
    body = {"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}
    with httpx.Client(base_url=url, timeout=300) as client:
        for _ in range(40):
            answer = client.post("/v1/completions", json=body).json()
            assert answer["choices"][0]["text"] == expected
        # Every replica counts its own: none has answered all of them.
        counts = {served(client.get("/metrics").text) for _ in range(40)}
        assert 0 < max(counts) < 40
        with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
            pieces = [line for line in response.iter_lines() if line]
        assert len(pieces) > 2 and pieces[-1] == "data: [DONE]"
        assert client.post("/v1/completions", json={"nonsense": 1}).status_code == 400


@pytest.mark.parametrize(
    "option", [("--replicas", "0"), ("--rows", "0"), ("--replicas", "3", "--max-replicas", "2")], ids=lambda o: o[-2]
)
def test_numbers_too_small_are_refused(option):
    done = subprocess.run([sys.executable, EXAMPLE, "m", *option], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and f"{option[-2]} {option[-1]}: " in done.stderr


@pytest.mark.slow
def test_replicas_of_an_export(tmp_path, start):
    model = TFAutoModelForCausalLM.from_pretrained("stories260K")
    model.export(tmp_path / "stories")
    path = "/v1/models/stories"
    inputs = {"input_ids": [PROMPT], "attention_mask": [[1] * 5], "max_new_tokens": 4}
    with httpx.Client(base_url=start(tmp_path / "stories", path=path), timeout=300) as client:  # each replica compiles
        assert client.get(path).json()["model_version_status"][0]["state"] == "AVAILABLE"
        answer = client.post(f"{path}:predict", json={"signature_name": "generate", "inputs": inputs})
        assert answer.json()["outputs"] == model.generate([PROMPT], max_new_tokens=4).numpy().tolist()
        assert client.post(f"{path}:predict", json={"nonsense": 1}).status_code == 400
