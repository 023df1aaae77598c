"""The ASGI application: routes, keys, bodies, streams of events."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tfmodels.serving import page
from tfmodels.serving.chat import Chat
from tfmodels.serving.completions import Completions
from tfmodels.serving.embeddings import embed
from tfmodels.serving.errors import APIError, BadRequest, ServerEnds, ServerError, TooLarge, Unauthorized
from tfmodels.serving.service import Limits, Service
from tfmodels.serving.tokens import detokenize, tokenize
from tfmodels.serving.worker import Worker
from tfmodels.utils.json_files import parse_object
from tfmodels.utils.text import quote

log = logging.getLogger("tfmodels.serving")

_GONE = 499
# Bodies above this are parsed in a thread of their own.
_LARGE_BODY = 1 << 16
# Of a body that is too large, so many times the limit is read and forgotten.
_DISCARDED = 16
_STOP_SECONDS = 5.0

Handler = Callable[[Service, dict[str, Any]], Awaitable[dict[str, Any]]]


def make_app(
    worker: Worker,
    *,
    api_keys: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    limits: Limits | None = None,
    wait: bool = False,
) -> Starlette:
    """Make the application; it starts the worker, and ends it.

    Args:
        worker: the thread with the models, not started.
        api_keys: keys of which requests must show one; none: everybody may ask.
        cors_origins: origins whose pages may ask from a browser; "*" for all.
        limits: for clients.
        wait: start up only when the models are loaded, for those who send requests to whoever has started up; else
            requests are told to come again until then.

    Raises:
        ValueError: an origin that no page can have.
    """
    for origin in cors_origins:
        _check_origin(origin)
    service = Service(worker, limits)

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        worker.start()
        try:
            if wait:
                await worker.loaded()
            yield
        finally:
            await asyncio.get_running_loop().run_in_executor(None, worker.stop, _STOP_SECONDS)

    def post(path: str, handler: Any) -> Route:
        return Route(path, functools.partial(_post, service, handler, keys), methods=["POST"])

    keys = [key.encode() for key in api_keys]
    routes = [
        post("/v1/chat/completions", Chat),
        post("/v1/completions", Completions),
        post("/v1/embeddings", embed),
        post("/tokenize", tokenize),
        post("/detokenize", detokenize),
        Route("/v1/models", functools.partial(_models, service, keys)),
        Route("/v1/models/{name:path}", functools.partial(_models, service, keys)),
        Route("/health", functools.partial(_health, service)),
        Route("/metrics", functools.partial(_metrics, service)),
        Route("/", functools.partial(_page, service)),
    ]
    middleware = []
    if cors_origins:
        allowed = {"allow_origins": list(cors_origins), "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
        allowed["expose_headers"] = ["retry-after"]
        middleware.append(Middleware(CORSMiddleware, **allowed))
    app = Starlette(
        routes=routes,
        middleware=middleware,
        lifespan=running,
        exception_handlers={404: _unknown_path, 405: _wrong_method, 500: _failed},
    )
    app.state.service = service
    return app


def _check_origin(origin: str) -> None:
    """Refuse what no browser sends as the origin of a page, and would not be found equal to any."""
    scheme, _, host = origin.partition("://")
    if origin not in ("*", "null") and not (scheme and re.fullmatch(r"[^\sA-Z/?#@]+", host) and scheme.islower()):
        raise ValueError(
            f"cors_origins={quote(origin)}: the address of a page as browsers name it, such as 'https://example.org' "
            "or 'http://localhost:3000', in small letters and without a path, or '*' was expected."
        )


# Requests with a body ------------------------------------------------------------------------------------------------


async def _post(service: Service, handler: Any, keys: Sequence[bytes], request: Request) -> Response:
    endpoint = request.url.path
    try:
        _check_key(request, keys)
        body = await _read(request, service.limits)
        if isinstance(handler, type):
            one = handler(service, body)
            return await (_stream if one.stream else _whole)(service, request, one)
        return _count(service, endpoint, _json(await _while_there(service, request, handler(service, body))))
    except APIError as error:
        return _count(service, endpoint, _error(error))
    except ClientDisconnect:
        return _count(service, endpoint, Response(status_code=_GONE))
    except asyncio.CancelledError:  # the server ends and waits no longer
        return _count(service, endpoint, _error(ServerEnds()))
    except Exception as error:
        log.error("%s failed", endpoint, exc_info=error)
        return _count(service, endpoint, _error(ServerError("The request failed; the server's log says why.")))


async def _whole(service: Service, request: Request, one: Any) -> Response:
    return _count(service, request.url.path, _json(await _while_there(service, request, one.whole())))


async def _stream(service: Service, request: Request, one: Any) -> Response:
    chunks = one.chunks()
    try:
        # The first piece tells whether the request is well: until then an error has a status of its own.
        first = await _while_there(service, request, anext(chunks))
    except BaseException:
        await chunks.aclose()
        raise
    return _count(service, request.url.path, EventStream(service, first, chunks))


async def _while_there(service: Service, request: Request, work: Awaitable[Any]) -> Any:
    """Await work, and give it up when the client goes.

    Raises:
        ClientDisconnect: the client has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        service.metrics.client_gone()
        raise ClientDisconnect()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.wait({task, gone})


async def _until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Chunks as server-sent events.

    A client that goes, and one that reads too slowly, ends them: the chunks are closed, which gives up the request. A
    server that ends and waits no longer cancels the response: the client is told so by a last event.

    Args:
        service: the server.
        first: the first chunk.
        chunks: the others.
    """

    def __init__(self, service: Service, first: dict[str, Any], chunks: AsyncIterator[dict[str, Any]]):
        # x-accel-buffering: proxies hand events on at once.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(None, 200, headers, "text/event-stream")
        del self.headers["content-length"]
        self._service, self._first, self._chunks = service, first, chunks
        self._has_begun = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._service.metrics.client_gone()
            elif task.exception() is not None:
                raise task.exception()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            if not self._has_begun:
                raise
            await _send_event(send, _text(ServerEnds().content()))
            await _send_event(send, "[DONE]", more=False)
        finally:
            for one in (task, gone):
                one.cancel()
            await asyncio.wait({task, gone})
            await self._chunks.aclose()

    async def _send(self, send: Any) -> None:
        event = functools.partial(_send_event, send)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._has_begun = True
        await event(_text(self._first))
        try:
            async for chunk in self._chunks:
                await event(_text(chunk))
        except APIError as error:
            await event(_text(error.content()))
        except Exception as error:
            log.error("a stream failed", exc_info=error)
            await event(_text(ServerError("The request failed; the server's log says why.").content()))
        await event("[DONE]", more=False)


async def _send_event(send: Any, content: str, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": f"data: {content}\n\n".encode(), "more_body": more})


async def _read(request: Request, limits: Limits) -> dict[str, Any]:
    """The body of a request, parsed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise APIError(415, f"content-type={quote(kind)}: application/json was expected.", code="unsupported_media")
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    if packed != "identity":
        raise APIError(415, f"content-encoding={quote(packed)}: a plain body was expected.", code="unsupported_media")
    declared = request.headers.get("content-length", "")
    too_large = declared.isdecimal() and int(declared) > limits.body_bytes

    async def read() -> bytes:
        body, size = bytearray(), 0
        async for part in request.stream():
            size += len(part)
            if size > _DISCARDED * limits.body_bytes:
                break
            if not too_large and size <= limits.body_bytes:
                body += part
        # Many clients read no answer before they have sent everything, so it comes at the end.
        if too_large or size > limits.body_bytes:
            raise TooLarge(limits.body_bytes)
        return bytes(body)

    try:
        body = await asyncio.wait_for(read(), limits.read_seconds)
    except TimeoutError:
        if too_large:
            raise TooLarge(limits.body_bytes) from None
        raise APIError(
            408, "The body did not come in time.", code="timeout", headers={"connection": "close"}
        ) from None
    try:
        if len(body) > _LARGE_BODY:
            return await asyncio.get_running_loop().run_in_executor(None, parse_object, body, "the body")
        return parse_object(body, "the body")
    except ValueError as error:
        raise BadRequest(str(error), code="invalid_json") from None


# Other requests ------------------------------------------------------------------------------------------------------


async def _models(service: Service, keys: Sequence[bytes], request: Request) -> Response:
    try:
        _check_key(request, keys)
        name = request.path_params.get("name")
        if name is not None:
            return _json(_described(service.model(name)))
        service.worker.check_ready()
        data = [_described(model) for model in service.worker.models.values()]
        return _json({"object": "list", "data": data})
    except APIError as error:
        return _error(error)


def _described(model: Any) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "tfmodels",
        "max_model_len": model.capacity,
        "tasks": model.tasks,
    }


async def _health(service: Service, request: Request) -> Response:
    try:
        service.worker.check_ready()
    except APIError as error:
        return Response(_text({"status": error.code, **error.content()}), 503, error.headers, "application/json")
    return _json({"status": "ok"})


async def _metrics(service: Service, request: Request) -> Response:
    content, media_type = service.metrics.text()
    return Response(content, media_type=media_type)


async def _page(service: Service, request: Request) -> Response:
    return Response(page.content(), media_type="text/html", headers=page.headers())


# Parts ---------------------------------------------------------------------------------------------------------------


def _check_key(request: Request, keys: Sequence[bytes]) -> None:
    if not keys:
        return
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized("An API key is missing: send it as the header Authorization: Bearer KEY.")
    found = 0
    for one in keys:  # all of them, so that the time tells nothing
        found |= hmac.compare_digest(key.strip().encode(), one)
    if not found:
        raise Unauthorized("The API key is wrong.")


def _text(content: Any) -> str:
    # Python's JSON would write NaN, which clients cannot read; -inf is a log probability of what cannot come.
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _json(content: Any, status: int = 200) -> Response:
    return Response(_text(content), status, media_type="application/json")


def _error(error: APIError) -> Response:
    return Response(_text(error.content()), error.status, error.headers, "application/json")


def _count(service: Service, endpoint: str, response: Response) -> Response:
    service.metrics.request(endpoint, response.status_code)
    return response


async def _unknown_path(request: Request, error: Exception) -> Response:
    path = request.url.path[:200]
    return _error(APIError(404, f"Unknown request URL: {request.method} {path}.", code="unknown_url"))


async def _wrong_method(request: Request, error: Exception) -> Response:
    path = request.url.path[:200]
    message, allowed = f"{path} takes no {request.method[:20]}.", getattr(error, "headers", None)  # which it takes
    return _error(APIError(405, message, code="method_not_allowed", headers=allowed))


async def _failed(request: Request, error: Exception) -> Response:
    return _error(ServerError("The request failed; the server's log says why."))
