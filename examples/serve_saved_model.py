"""A small REST server for exported SavedModels, with TensorFlow Serving's requests and answers.

    tfmodels export stories260K --to saved_model -o models/stories
    python examples/serve_saved_model.py models/stories --port 8501
    curl -s http://localhost:8501/v1/models/stories
    curl -s http://localhost:8501/v1/models/stories:predict -d '{"signature_name": "generate",
        "inputs": {"input_ids": [[1, 403, 407, 261, 378]], "attention_mask": [[1, 1, 1, 1, 1]], "max_new_tokens": 20}}'

For development and tests of clients: what talks to this talks to `tensorflow_model_server` too. Requests that wait
together and fit run as one batch. Needs `pip install 'tfmodels[serve]'`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tfmodels.export.rest_server.batching import Batcher, Full
from tfmodels.export.rest_server.connections import protocol_for
from tfmodels.export.rest_server.messages import (
    BadRequest,
    Limits,
    Served,
    metadata,
    read_request,
    status_of,
    write_answer,
)


def make_app(folder: str | Path, name: str | None = None, *, limits: Limits | None = None, **batching: Any) -> Any:
    """The server of one model, an ASGI application.

    Args:
        folder: of the model, or of one of its versions; the highest version is served.
        name: what the model is called; default: the folder's name.
        limits: how much one client may ask for.
        **batching: of `Batcher`.
    """
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route

    from tfmodels.export import saved_model

    runner, limits = saved_model.open(folder), limits or Limits()
    version = runner.folder.resolve().name
    name = name or runner.folder.resolve().parent.name
    batcher = Batcher(runner, **batching)
    # Read once: the file is large, and parsing it took longer than answering.
    signatures = {
        found.name: Served(found.inputs, frozenset(runner.defaults[found.name])) for found in runner.declared
    }
    described = metadata(runner, name, version)

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.work())
        yield
        worker.cancel()

    def answer(content: Any, status: int = 200, **headers: str) -> Response:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return Response(content, status, named, "application/json")

    async def status(request: Request) -> Response:
        state = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return answer({"model_version_status": [{"version": version, **state}]})

    async def show_metadata(request: Request) -> Response:
        return answer(described)

    async def read_body(request: Request) -> bytes:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limits.body_bytes:
                raise BadRequest(f"the body is larger than {limits.body_bytes} bytes", 413)
        return bytes(body)

    async def until_gone(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async def predict(request: Request) -> Response:
        try:
            body = await asyncio.wait_for(read_body(request), limits.read_seconds)
            # In a thread: a large body would keep all others waiting.
            signature, inputs, in_rows = await asyncio.to_thread(read_request, body, signatures)
            limits.check(inputs)
            outputs = asyncio.ensure_future(batcher.predict(signature, inputs))
            gone = asyncio.ensure_future(until_gone(request))
            try:
                await asyncio.wait({outputs, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not outputs.done():
                    return answer({"error": "the client has gone"}, 499)
                return answer(await asyncio.to_thread(write_answer, outputs.result(), in_rows))
            finally:
                outputs.cancel()
                gone.cancel()
        except BadRequest as error:
            headers = {"connection": "close"} if error.status == 413 else {}
            return answer({"error": str(error)}, error.status, **headers)
        except asyncio.TimeoutError:
            return answer({"error": "the body did not arrive in time"}, 408, connection="close")
        except Full as error:
            return answer({"error": f"{error}; try again later"}, 503, retry_after="1")
        except ClientDisconnect:
            return answer({"error": "the client has gone"}, 499)
        except Exception as error:
            return answer({"error": " ".join(str(error).split())[:500]}, status_of(error))

    async def unknown(request: Request, error: Exception) -> Response:
        path = request.url.path[:200]
        return answer({"error": f"Malformed request: {request.method} {path}; the model is {name}"}, 404)

    async def wrong_method(request: Request, error: Exception) -> Response:
        return answer({"error": f"Malformed request: {request.method} {request.url.path[:200]}"}, 405)

    routes = []
    for start in (f"/v1/models/{name}", f"/v1/models/{name}/versions/{version}"):
        routes += [
            Route(start, status),
            Route(f"{start}/metadata", show_metadata),
            Route(f"{start}:predict", predict, methods=["POST"]),
        ]
    app = Starlette(routes=routes, lifespan=running, exception_handlers={404: unknown, 405: wrong_method})
    app.state.batcher = batcher
    return app


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="an exported SavedModel: the folder that holds its versions")
    parser.add_argument("--name", help="what the model is called (the folder's name)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--wait-ms", type=float, default=2.0, help="how long requests wait for others (%(default)s)")
    parser.add_argument("--max-body-bytes", type=int, default=Limits.body_bytes, help="of a request (%(default)s)")
    parser.add_argument("--max-waiting", type=int, default=256, help="requests that may wait (%(default)s)")
    parser.add_argument("--access-log", action="store_true", help="print a line for every request")
    options = parser.parse_args(arguments)
    check_folder(parser, options.folder)
    for module in ("starlette", "uvicorn"):
        if importlib.util.find_spec(module) is None:
            parser.error(f"{module} is not installed: pip install 'tfmodels[serve]'")
    import uvicorn

    limits = Limits(body_bytes=options.max_body_bytes)
    app = make_app(
        options.folder, options.name, limits=limits, wait_ms=options.wait_ms, most_waiting=options.max_waiting
    )
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        access_log=options.access_log,
        http=protocol_for(limits.read_seconds),
        limit_concurrency=4 * options.max_waiting,
        timeout_keep_alive=30,
    )


def check_folder(parser: argparse.ArgumentParser, folder: Path) -> None:
    """End with a message where a folder holds no SavedModel."""
    if not (folder / "saved_model.pb").is_file() and not any(folder.glob("[0-9]*/saved_model.pb")):
        parser.error(f"{folder} holds no saved_model.pb, nor does a version in it")


if __name__ == "__main__":
    main()
