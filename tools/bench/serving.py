"""Load on a server of OpenAI's interface: `tfmodels serve` beside its bare engine, or any server that runs already.

    python -m tools.bench serve --model ../shared/models/stories15M --rows 16 --clients 32 --crowd 200
    python -m tools.bench serve --url http://127.0.0.1:9000 --name NAME --chat --clients 4
    python -m tools.bench serve --model ../shared/models/stories15M --peer transformers --temperature 0

The clients are a closed loop: each sends its next request when the last one is answered, and the number of requests is
fixed, so that a run ends by itself. A crowd is as many clients at once, each with one request. Servers are of this
machine alone. A peer (`pip install 'transformers[serving]'`) serves a copy of the checkpoint with a tokenizer.json,
request by request and with continuous batching; it and this package answer 1, 4 and --clients clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from tools.bench.arguments import Row, benchmark
from tools.bench.cpu import run_child
from tools.memory import memory_of

_LOCAL = ("127.0.0.1", "localhost", "::1")
_SECONDS_TO_START = 600
# Of the peer's cache: enough for 32 answers at a time; without a limit it takes most of the machine's memory.
_PAGES = ("--cb-num-blocks", "128", "--cb-block-size", "32", "--cb-max-batch-tokens", "256")
_PROMPT = "Once upon a time there was a little girl named Lily who had a"


@benchmark(
    "serve",
    "model=stories260K rows=16 requests=128 max-new-tokens=64 json",
    {
        "--url": {"help": "measure this server instead of starting one; of this machine"},
        "--name": {"help": "what the server calls the model"},
        "--chat": {"action": "store_true", "help": "ask for conversations instead of completions"},
        "--max-waiting": ("32", "of the server"),
        "--clients": ("32", "at a time"),
        "--crowd": ("200", "clients at once; 0 for none"),
        "--temperature": ("1.0", "0 is greedy"),
        "--peer": {"choices": ("transformers",), "help": "measure its server beside this one"},
    },
)
def run(options: argparse.Namespace) -> Iterator[Row]:
    """A server under a steady load, twice, and a crowd, beside the bare engine; or two servers beside each other."""
    if options.peer is not None:
        yield from _beside_peer(options)
        return
    bare = None
    if options.url is None:
        sizes = options.rows, options.requests, options.max_new_tokens
        bare = run_child(measure_engine, options.model, *sizes, options.temperature)
        yield {"side": "engine", "requests": options.requests, "tokens_per_s": bare}
        server = _started(_command(options, options.model))
    elif urllib.parse.urlsplit(options.url).hostname in _LOCAL:
        server = contextlib.nullcontext((options.url.rstrip("/"), None))
    else:
        raise SystemExit(f"--url {options.url}: a server of this machine was expected.")
    with server as (url, process):
        asyncio.run(_load(url, options, 2, 4))  # what is compiled on the way
        # A server that has just started compiles its programs for few rows beside its answers.
        for side in ("server, started just now", "server"):
            row = {"side": side, "clients": options.clients, "memory_mb": _memory(process)}
            row |= asyncio.run(_load(url, options, options.clients, options.requests))
            row["memory_after_mb"] = _memory(process)
            row["ratio"] = row["tokens_per_s"] / bare if bare else None
            yield row
        if options.crowd:
            row = {"side": "server, crowd", "clients": options.crowd}
            row |= asyncio.run(_load(url, options, options.crowd, options.crowd))
            started = time.perf_counter()
            asyncio.run(_until_served(url, options))
            row |= {"recovery_s": time.perf_counter() - started, "memory_after_mb": _memory(process)}
            yield row


# The sides -----------------------------------------------------------------------------------------------------------


def measure_engine(model: str, rows: int, requests: int, new: int, temperature: float) -> float:
    """Tokens a second of an engine that has all requests at once."""
    from tfmodels import AutoTokenizer, Engine, TFAutoModelForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(model)
    engine = Engine(TFAutoModelForCausalLM.from_pretrained(model), rows=rows, tokenizer=tokenizer)
    prompt, settings = tokenizer.encode(_PROMPT), {"max_new_tokens": new, "eos_token_id": None}
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    for count in (rows, requests):  # the first compiles
        for index in range(count):
            engine.add(prompt, **settings, **drawn, **({"seed": index} if temperature > 0 else {}))
        started = time.perf_counter()
        made = sum(len(answer.tokens) for answer in engine.run().values())
        seconds = time.perf_counter() - started
    return made / seconds


def _beside_peer(options: argparse.Namespace) -> Iterator[Row]:
    """Rows: this server and the peer's two ways to serve, each for one client, a few and many."""
    with tempfile.TemporaryDirectory() as folder:
        run_child(save_copy, options.model, folder)
        theirs = ["transformers", "serve", folder]
        sides = {
            "tfmodels": (_command(options, folder), None),
            "transformers": (theirs, folder),
            "transformers, continuous batching": ([*theirs, "--continuous-batching", *_PAGES], folder),
        }
        for side, (command, name) in sides.items():
            own = argparse.Namespace(**{**vars(options), "name": name})
            with _started(command) as (url, process):
                asyncio.run(_load(url, own, 2, 4))  # what is made on the way
                for clients in dict.fromkeys((1, 4, options.clients)):
                    found = asyncio.run(_load(url, own, clients, max(8, 2 * clients)))
                    yield {"side": side, "clients": clients, "memory_after_mb": _memory(process), **found}


def save_copy(model: str, folder: str) -> None:
    """Save a checkpoint as the peer reads it, with a tokenizer.json."""
    from tfmodels import AutoTokenizer, TFAutoModelForCausalLM

    TFAutoModelForCausalLM.from_pretrained(model).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)


def _command(options: argparse.Namespace, model: str) -> list[str]:
    command = [sys.executable, "-m", "tfmodels", "serve", model]
    return [*command, "--rows", str(options.rows), "--max-waiting", str(options.max_waiting)]


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start a server by a command that takes a port, and yield its address once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is not installed.")
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process)
            yield url, process
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen) -> None:
    import httpx

    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health").status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit("the server did not start.")


def _memory(process: subprocess.Popen | None) -> float | None:
    """Resident memory in MB, where /proc tells."""
    with contextlib.suppress(OSError, AttributeError):
        return memory_of("VmRSS", process.pid) / 1e6
    return None


# The clients ---------------------------------------------------------------------------------------------------------


async def _load(url: str, options: argparse.Namespace, clients: int, requests: int) -> Row:
    """Send requests from several clients; what came, and how fast."""
    import httpx

    numbers, found = iter(range(requests)), []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def one() -> None:
            for number in numbers:
                found.append(await _ask(client, options, number))

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(min(clients, requests))))
        seconds = time.perf_counter() - started
    served = [answer for answer in found if answer["status"] == 200]
    first = sorted(answer["first_ms"] for answer in served if answer["first_ms"] is not None)
    return {
        "requests": requests,
        "refused": sum(answer["status"] == 429 for answer in found),
        "failed": sum(answer["status"] not in (200, 429) for answer in found),
        "tokens_per_s": sum(answer["tokens"] for answer in served) / seconds,
        "first_token_ms": statistics.median(first) if first else None,
        "first_token_p95_ms": first[int(0.95 * (len(first) - 1))] if first else None,
    }


async def _ask(client: Any, options: argparse.Namespace, seed: int) -> Row:
    """One streamed answer: its status, tokens, and milliseconds to its first text."""
    import httpx

    body = {"stream": True, "stream_options": {"include_usage": True}, "seed": seed}
    body |= {"max_tokens": options.max_new_tokens, "temperature": options.temperature}
    body |= {"model": options.name} if options.name else {}
    path = "/v1/chat/completions" if options.chat else "/v1/completions"
    body |= {"messages": [{"role": "user", "content": _PROMPT}]} if options.chat else {"prompt": _PROMPT}
    started, first, tokens = time.perf_counter(), None, 0
    try:
        async with client.stream("POST", path, json=body) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    return {"status": 500, "tokens": tokens, "first_ms": None}
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
                for choice in chunk["choices"]:
                    text = choice["delta"].get("content") if options.chat else choice["text"]
                    if text and first is None:
                        first = 1000 * (time.perf_counter() - started)
            return {"status": response.status_code, "tokens": tokens, "first_ms": first}
    except httpx.HTTPError:
        return {"status": 0, "tokens": tokens, "first_ms": None}


async def _until_served(url: str, options: argparse.Namespace) -> None:
    """Ask until an answer comes."""
    for _ in range(1000):
        if not (await _load(url, options, 1, 1))["refused"]:
            return
