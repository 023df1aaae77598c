"""`tfmodels serve`: answer requests of OpenAI's clients over HTTP, with a page to talk to the model."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from tfmodels.auto import family_of
from tfmodels.cli.common import (
    DTYPES,
    CommandError,
    Place,
    add_model,
    check_backend,
    check_weights,
    place_of,
    read_config,
    transformer_of,
)
from tfmodels.utils.text import quote

HELP = "answer requests of OpenAI's clients over HTTP, with a page to talk to the model"
KEY_VARIABLE = "TFMODELS_API_KEY"
_EXTRAS = ("starlette", "uvicorn", "prometheus_client")
_LARGEST_TEMPLATE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tfmodels serve`."""
    add_model(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at; 0 picks one (%(default)s)")
    parser.add_argument("--name", help="what requests call the model (the last part of its path)")
    parser.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help=f"key that requests must show; may be given several times, or in {KEY_VARIABLE}, separated by commas",
    )
    parser.add_argument("--rows", type=int, default=8, metavar="N", help="requests at a time (%(default)s)")
    parser.add_argument(
        "--max-waiting", type=int, default=64, metavar="N", help="requests that may wait for a row (%(default)s)"
    )
    parser.add_argument(
        "--capacity", type=int, metavar="N", help="most tokens of a prompt and its answer (the model's, up to 4096)"
    )
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="serve a low-rank adapter as a model of this name; it takes the memory of a second model",
    )
    parser.add_argument("--chat-template", type=Path, metavar="FILE", help="jinja2 template of conversations")
    parser.add_argument("--cors-origin", action="append", default=[], metavar="URL", help="pages that may ask; * all")
    parser.add_argument("--max-body-bytes", type=int, default=4 << 20, metavar="N", help="of a request (%(default)s)")
    parser.add_argument("--dtype", choices=(*DTYPES, "auto"), default="float32", help="of the weights (%(default)s)")
    parser.add_argument("--no-jit", action="store_true", help="run as plain graphs instead of compiling with XLA")
    parser.add_argument("--no-warm-up", action="store_true", help="compile when the first requests come")
    parser.add_argument("--access-log", action="store_true", help="print a line for every request")


def run(options: argparse.Namespace) -> None:
    """Check everything that can be wrong without TensorFlow, then listen, load in a thread and answer."""
    for name, least in (("rows", 1), ("capacity", 2), ("max_body_bytes", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise CommandError(f"{name}={value}: an integer of at least {least} was expected.")
    if options.max_waiting < 0:
        raise CommandError(f"max_waiting={options.max_waiting}: an integer of at least 0 was expected.")
    if missing := [name for name in _EXTRAS if importlib.util.find_spec(name) is None]:
        raise CommandError(f"{missing[0]} is not installed: pip install 'tfmodels[serve]'.")
    keys = api_keys(options.api_key)
    specs = specs_of(options)
    with listening(options.host, options.port) as sock:
        _serve(options, specs, keys, sock)


def api_keys(given: list[str]) -> list[str]:
    """The keys of the command line and of the environment.

    Raises:
        CommandError: one is empty, or no header can hold it.
    """
    keys = [*given, *(key for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip())]
    for key in keys:
        if not key.strip() or not key.strip().isascii() or not key.strip().isprintable():
            raise CommandError("--api-key: printable ASCII characters were expected.")
    return [key.strip() for key in keys]


def specs_of(options: argparse.Namespace) -> list[Any]:
    """The models to be served, checked as far as that goes without TensorFlow.

    Raises:
        CommandError, OSError, ValueError: something is wrong with one of them.
    """
    from tfmodels.serving.models import Spec

    place = place_of(options)
    check_backend()
    transformer, is_encoder = transformer_of(place)
    is_encoder = is_encoder or "ForCausalLM" not in family_of(read_config(transformer)).heads
    check_weights(transformer)
    template = None if options.chat_template is None else read_template(options.chat_template)
    if is_encoder and (options.adapter or template is not None):
        raise CommandError(f"{place.name} makes embeddings; --adapter and --chat-template are for models that write.")
    own = name_of(place) if options.name is None else options.name
    if not _is_name(own):
        raise CommandError(f"--name {quote(own)}: printable text was expected.")
    base = {"place": place.name, "options": place.options, "encoder": is_encoder, "chat_template": template}
    specs = [Spec(own, **base)]
    for value in options.adapter:
        name, sign, folder = value.partition("=")
        if not sign or not _is_name(name) or not (Path(folder) / "adapter_config.json").is_file():
            raise CommandError(f"--adapter {quote(value)}: NAME=FOLDER, a folder of a LoRA adapter, was expected.")
        if name in {spec.name for spec in specs}:
            raise CommandError(f"--adapter {quote(value)}: there is another model of this name.")
        specs.append(Spec(name, adapter=folder, **base))
    return specs


def _is_name(name: str) -> bool:
    """Whether requests can call a model so."""
    return bool(name.strip()) and name.isprintable()


def read_template(file: Path) -> str:
    """The chat template in a file."""
    from tfmodels.cli.common import read_text

    if file.is_file() and file.stat().st_size > _LARGEST_TEMPLATE:
        raise CommandError(f"{file} is larger than any chat template.")
    return read_text(str(file))


def name_of(place: Place) -> str:
    """The name of a model: the last part of its path, a hub id as it is.

    Example:
        >>> name_of(Place("org/model", {})), name_of(Place("models", {"gguf_file": "tiny.Q4_1.gguf"}))
        ('org/model', 'tiny.Q4_1')
    """
    if "gguf_file" in place.options:
        return Path(place.options["gguf_file"]).stem
    path = Path(os.path.expanduser(place.name))
    return path.resolve().name if path.exists() else place.name


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens: before the model is loaded, so that a port in use is told at once.

    Raises:
        CommandError: the address is not this machine's, or in use.
    """
    if not 0 <= port <= 65535:
        raise CommandError(f"port={port}: a number from 0 to 65535 was expected.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        raise CommandError(f"cannot listen at --host {host} --port {port}: {error.strerror or error}.") from error


def _serve(options: argparse.Namespace, specs: list[Any], keys: list[str], sock: socket.socket) -> None:
    import uvicorn

    from tfmodels.export.rest_server.connections import protocol_for
    from tfmodels.serving.application import make_app
    from tfmodels.serving.models import EngineOptions, load
    from tfmodels.serving.service import Limits
    from tfmodels.serving.worker import Worker

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    log = logging.getLogger("tfmodels.serving")
    log.setLevel(logging.INFO)
    engine = EngineOptions(
        rows=options.rows,
        capacity=options.capacity,
        dtype=options.dtype,
        jit_compile=not options.no_jit,
        warm_up=not options.no_warm_up,
    )
    host, port = sock.getsockname()[:2]
    most = options.rows * len(specs) + options.max_waiting

    def give_up(error: Exception) -> None:
        server.should_exit = True

    worker = Worker(lambda: load(specs, engine, log.info), most, give_up)
    limits = Limits(body_bytes=options.max_body_bytes)
    app = make_app(worker, api_keys=keys, cors_origins=options.cors_origin, limits=limits)
    config = uvicorn.Config(
        app,
        http=protocol_for(limits.read_seconds),
        ws="none",
        lifespan="on",
        log_level="info" if options.access_log else "warning",
        access_log=options.access_log,
        server_header=False,
        limit_concurrency=max(512, 4 * most),
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    # uvicorn ends well at these signals, and then sends them again to whoever had them before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    shown = f"[{host}]" if ":" in host else host
    log.info("listening at http://%s:%d; the model follows, Ctrl-C ends it", shown, port)
    server.run(sockets=[sock])
    if worker.error is not None:
        raise worker.error
    if worker.state != "stopped":
        # TensorFlow is being loaded or compiles, which nothing interrupts.
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(0)
    log.info("ended")
