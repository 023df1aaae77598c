"""`tfmodels serve`: mistakes before anything is loaded, and a server from its start to its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfmodels.cli import main as cli
from tfmodels.cli.common import CommandError, Place
from tfmodels.cli.serve import api_keys, name_of

for needed in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(needed, reason="pip install 'tfmodels[serve]'")
httpx = pytest.importorskip("httpx")

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds; importing TensorFlow leaves other threads little time, and tests share the machine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["storis260K"], "did you mean the bundled checkpoint 'stories260K'"),
        (["stories260K", "--rows", "0"], "--rows 0: an integer of at least 1"),
        (["stories260K", "--capacity", "-3"], "--capacity -3: an integer of at least 2"),
        (["stories260K", "--capacity", "1"], "--capacity 1: an integer of at least 2"),
        (["stories260K", "--name", ""], "--name '': printable text was expected"),
        (["stories260K", "--name", "a\nb"], "--name 'a\\nb': printable text was expected"),
        (["stories260K", "--cors-origin", "*", "--cors-origin", "foo"], "--cors-origin foo: the address of a page"),
        (["stories260K", "--max-waiting", "-1"], "--max-waiting -1"),
        (["stories260K", "--port", "70000"], "--port 70000: a number from 0 to 65535"),
        (["stories260K", "--host", "256.0.0.1"], "cannot listen at --host 256.0.0.1"),
        (["stories260K", "--adapter", "mine"], "--adapter 'mine': NAME=FOLDER"),
        (["stories260K", "--adapter", " =/nowhere"], "--adapter ' =/nowhere': NAME=FOLDER"),
        (["stories260K", "--adapter", "mine=/nowhere"], "a folder of a LoRA adapter"),
        (["stories260K", "--chat-template", "/nowhere.jinja"], "No such file"),
        (["stories260K", "--api-key", " "], "--api-key: printable"),
        (["stories260K", "--portt", "1"], "unrecognized arguments: --portt 1; did you mean --port"),
    ],
)
def test_mistakes(capsys, arguments, message):
    with contextlib.suppress(SystemExit):  # of the parser
        assert cli.main(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["serve", "stories260K", "--port", str(taken.getsockname()[1])]) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_keys_of_the_command_line_and_of_the_environment(monkeypatch):
    monkeypatch.setenv("TFMODELS_API_KEY", "two, three,")
    assert api_keys(["one"]) == ["one", "two", "three"]
    monkeypatch.delenv("TFMODELS_API_KEY")
    assert api_keys([]) == []
    with pytest.raises(CommandError):
        api_keys(["a\nb"])


def test_names():
    assert name_of(Place("owner/model", {})) == "owner/model"
    assert name_of(Place(str(ROOT / "saved_models" / "stories260K"), {})) == "stories260K"
    assert name_of(Place("folder", {"gguf_file": "tiny.Q4_1.gguf"})) == "tiny.Q4_1"


class Server:
    """A server in a process of its own."""

    def __init__(self, *arguments):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "tfmodels", "serve", *arguments, "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TFMODELS_API_KEY": ""}
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def until(self, status, seconds=300):
        """Wait for a status of /health."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                answer = httpx.get(f"{self.url}/health", timeout=PATIENCE)
            except httpx.HTTPError:
                assert self.process.poll() is None, self.process.stderr.read()
            else:
                if answer.status_code == status:
                    return answer
            time.sleep(0.05)
        raise AssertionError(f"no {status} within {seconds} s")

    def end(self, number):
        """Send a signal; the exit code, and what it has written."""
        self.process.send_signal(number)
        return self.process.wait(60), self.process.stderr.read()


@pytest.fixture
def server():
    started = []

    def start(*arguments):
        started.append(Server(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def curls():
    """The requests of docs/serving.md."""
    text = (ROOT / "docs" / "serving.md").read_text()
    (block,) = (block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "curl" in block)
    found = block.strip().split("\n\n")
    return [re.sub(r"\n\s+", " ", command) for command in found]


def test_from_start_to_end(server):
    """It answers 503 at once, then what the documentation asks it, and ends at a signal while an answer is written."""
    running = server("stories260K", "--no-jit", "--no-warm-up", "--capacity", "256")
    loading = running.until(503)
    assert loading.json()["status"] == "loading" and int(loading.headers["retry-after"]) > 0
    assert "<title>tfmodels</title>" in httpx.get(running.url, timeout=PATIENCE).text
    running.until(200)
    commands = curls()
    assert len(commands) == 9
    for command in commands:
        arguments = shlex.split(command.replace("http://127.0.0.1:8000", running.url))
        output = subprocess.run([*arguments, "--max-time", "120"], capture_output=True, text=True, check=True).stdout
        if "/metrics" in command:
            assert "tfmodels_ready 1.0" in output
        elif '"stream": true' in command:
            assert output.endswith("data: [DONE]\n\n") and '"usage":{"prompt_tokens":5' in output
        elif "json_schema" in command:
            answer = json.loads(json.loads(output)["choices"][0]["text"])
            assert list(answer) == ["age"] and 0 <= answer["age"] <= 120
        else:
            assert "error" not in json.loads(output), output
    body = {"prompt": "Once", "stream": True, "max_tokens": 200}
    with httpx.stream("POST", f"{running.url}/v1/completions", json=body, timeout=PATIENCE):
        code, log = running.end(signal.SIGTERM)
    assert code == 0 and "Traceback" not in log, log


def test_a_model_that_cannot_be_loaded_ends_the_server(server, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    running = server("stories260K", "--adapter", f"mine={tmp_path}", "--no-jit", "--no-warm-up")
    assert running.process.wait(300) == 2
    error = running.process.stderr.read()
    assert "error: the adapter" in error and "Traceback" not in error, error


@pytest.mark.slow
def test_an_interrupt_while_it_loads(server):
    running = server("stories260K")
    running.until(503)
    code, log = running.end(signal.SIGINT)
    assert code == 0 and "Traceback" not in log
