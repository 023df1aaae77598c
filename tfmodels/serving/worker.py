"""The thread that owns the models, and the bridge between it and asyncio.

TensorFlow is touched by one thread: it loads the models, steps their engines and runs what else they are asked for.
Coroutines send it commands and wait on queues of their own. Everything else about requests (how many there are, which
are given up) is known to the event loop alone, so that nothing needs a lock but the mailbox of commands.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tfmodels.serving.errors import APIError, BadRequest, Overloaded, ServerEnds, ServerError, Unavailable
from tfmodels.utils.text import shorten

log = logging.getLogger("tfmodels.serving")

LOADING_RETRY_SECONDS = 2


class News(NamedTuple):
    """News of one answer: `event` of the engine, for the answer at `index` of its request."""

    index: int
    event: Any


class Answers:
    """The answers that one request of a client gets, as the engine makes them."""

    def __init__(self, worker: Worker, count: int):
        self._worker = worker
        self._queue: asyncio.Queue[News | APIError] = asyncio.Queue()
        self._left = count
        self.ids: list[int] = []

    async def next(self) -> News:
        """The next news, in the order in which they happen.

        Raises:
            APIError: the engine refused the request, or failed.
        """
        news = await self._queue.get()
        if isinstance(news, APIError):
            raise news
        self._left -= news.event.completion is not None
        return news

    async def __aiter__(self) -> AsyncIterator[News]:
        while self._left:
            yield await self.next()

    def put(self, news: News | APIError) -> None:
        """Add news; called in the event loop."""
        self._queue.put_nowait(news)

    @property
    def done(self) -> bool:
        """Whether all answers are whole and read."""
        return not self._left

    def close(self) -> None:
        """Give up what is not answered; its rows are free after the engine's step."""
        if self._left:
            self._worker.cancel(self.ids)


class Worker:
    """Owns the models: starts the thread, takes requests within a limit, hands out what is new.

    Args:
        load: called in the thread; makes the models by name. Each has `engine`, a `tfmodels.generation.Engine` of
            `rows` rows, and `restart()`, which makes a new one.
        most: requests that are worked on or wait at a time.
        on_failure: called in the event loop with the error where loading, or starting anew, failed.

    Attributes:
        in_flight: requests that are worked on or wait.
        error: why the models are not there, or None.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, Any]],
        most: int,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ):
        self._load = load
        self._on_failure = on_failure
        self.most = most
        self.in_flight = 0
        self.state = "loading"
        self.error: Exception | None = None
        self.models: Mapping[str, Any] = {}
        self._numbers = itertools.count()
        self._commands: collections.deque[Callable[[], None]] = collections.deque()
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._wake = threading.Condition()
        self._stopping = False
        # Touched by the thread alone: whose the engines' answers are, and the models that have work.
        self._owners: dict[int, tuple[Answers, int, str]] = {}
        self._due: set[str] = set()
        # Written by the thread after each step, for the metrics: asking an engine would wait for its step.
        self._pending: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def busy(self) -> int:
        """Rows that work on a request, as of the last step."""
        models = self.models
        return sum(min(count, models[name].rows) for name, count in list(self._pending.items()))

    # In the event loop -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which begins with loading."""
        self._loop = asyncio.get_running_loop()
        # A daemon: a process that is told to end does not wait for a compilation.
        self._thread = threading.Thread(target=self._run, name="tfmodels-serving", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> bool:
        """End the thread. Returns whether it has ended within the time."""
        self._tell(lambda: setattr(self, "_stopping", True))
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    async def loaded(self) -> None:
        """Wait until the models are loaded.

        Raises:
            Exception: what made loading fail.
        """
        while self.state == "loading":
            await asyncio.sleep(0.05)
        if self.error is not None:
            raise self.error

    def check_ready(self) -> None:
        """Raise APIError where the models are not loaded, or no longer."""
        if self.state == "loading":
            raise Unavailable(
                "The model is being loaded, or compiles its first programs; try again in a moment.",
                "loading",
                LOADING_RETRY_SECONDS,
            )
        if self.state != "ready":
            raise Unavailable("The model failed.", "failed") if self.state == "failed" else ServerEnds(self.state)

    def reserve(self, count: int, field: str = "n") -> Reservation:
        """Take room for `count` requests, to be used as a context manager.

        Args:
            count: of requests.
            field: of the client's request that asks for so many.

        Raises:
            APIError: too many requests are there already, or the models are not loaded.
        """
        self.check_ready()
        if count > self.most:
            raise BadRequest(f"{count} answers are asked for at once; this server takes up to {self.most}.", field)
        if self.in_flight + count > self.most:
            raise Overloaded(f"{self.in_flight} requests are worked on or wait, as many as may; try again later.")
        return Reservation(self, count)

    def submit(self, model: str, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> Answers:
        """Send prompts to a model's engine.

        Args:
            model: its name.
            prompts: token ids.
            settings: of `Engine.add`, for each prompt.

        Returns:
            The answers, to be read and closed.
        """
        answers = Answers(self, len(prompts))
        answers.ids = [next(self._numbers) for _ in prompts]

        def add() -> None:
            for index, (id, prompt, own) in enumerate(zip(answers.ids, prompts, settings, strict=True)):
                try:
                    self.models[model].engine.add(prompt, id=id, **own)
                except Exception as error:
                    self._cancel(answers.ids[:index])
                    self._in_loop(answers.put, told(error))
                    return
                self._owners[id] = (answers, index, model)
                self._due.add(model)

        self._tell(add)
        return answers

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function in the thread, between two steps of the engines, and return what it returns.

        Raises:
            APIError: it failed.
        """
        result: asyncio.Future = self._loop.create_future()

        def settle(value: Any, error: Exception | None) -> None:
            if result.cancelled():
                return
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error if isinstance(error, APIError) else failed(error))

        def job() -> None:
            if result.cancelled():
                return
            try:
                value = function()
            except Exception as error:
                self._in_loop(settle, None, error)
            else:
                self._in_loop(settle, value, None)

        with self._wake:
            self._jobs.append(job)
            self._wake.notify()
        return await result

    def cancel(self, ids: Sequence[int]) -> None:
        """Give requests up, in the thread."""
        self._tell(lambda: self._cancel(ids))

    def _tell(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._commands.append(command)
            self._wake.notify()

    # In the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        started = time.monotonic()
        try:
            self.models = self._load()
        except Exception as error:
            self.state, self.error = "failed", error
            self._in_loop(self._on_failure, error)
            return
        log.info("ready after %.1f s", time.monotonic() - started)
        self.state = "ready"
        while not self._stopping:
            with self._wake:
                while not (self._commands or self._jobs or self._due):
                    self._wake.wait()
                commands, self._commands = self._commands, collections.deque()
                job = self._jobs.popleft() if self._jobs else None
            for command in commands:
                command()
            if job is not None:
                job()
            for name in list(self._due):
                self._step(name)
        if self.state == "ready":
            self.state = "stopped"
        self._fail(None, ServerEnds(self.state))

    def _step(self, name: str) -> None:
        engine = self.models[name].engine
        try:
            events = engine.step()
        except Exception:
            # What the engine holds is not to be trusted after a failure inside of it.
            log.exception("the engine of %s failed; it starts anew", name)
            self._due.discard(name)
            try:
                self.models[name].restart()
            except Exception as error:
                self.state, self.error, self._stopping = "failed", error, True
                self._in_loop(self._on_failure, error)
            self._fail(name, ServerError("The model failed; the request is lost."))
            return
        self._pending[name] = engine.pending
        if not self._pending[name]:
            self._due.discard(name)
        found = []
        for event in events:
            owner = self._owners.get(event.id)
            if owner is not None:
                found.append((owner[0], News(owner[1], event)))
            if event.completion is not None:
                self._owners.pop(event.id, None)
        if found:
            self._in_loop(_hand_out, found)

    def _cancel(self, ids: Sequence[int]) -> None:
        for id in ids:
            owner = self._owners.pop(id, None)
            if owner is not None:
                self.models[owner[2]].engine.cancel(id)
                self._due.add(owner[2])  # the next step frees the row

    def _fail(self, name: str | None, error: APIError) -> None:
        """Tell an error to all requests of a model, or of every model."""
        lost = [id for id, owner in self._owners.items() if name in (None, owner[2])]
        for answers in {self._owners.pop(id)[0] for id in lost}:
            self._in_loop(answers.put, error)

    def _in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended: nobody waits any more
            log.debug("the event loop has ended")


class Reservation:
    """Room for requests of one client, given back at the end of a `with`."""

    def __init__(self, worker: Worker, count: int):
        self._worker, self._count = worker, count
        worker.in_flight += count

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *error: object) -> None:
        self._worker.in_flight -= self._count
        self._count = 0


def told(error: Exception) -> APIError:
    """An error of the engine or a model as clients are told: their own mistakes by their words, others without."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, (ValueError, TypeError)):
        return BadRequest(shorten(error, 500), _field_of(str(error)))
    return failed(error)


def failed(error: Exception) -> ServerError:
    """An error that is no client's mistake: the log has it, the client learns that it happened."""
    log.error("a request failed", exc_info=error)
    return ServerError("The request failed; the server's log says why.")


# Fields of requests by the engine's names of settings, with which its messages begin.
_FIELDS = {"stop_strings": "stop", "max_new_tokens": "max_tokens"} | {
    name: name
    for name in ("frequency_penalty", "logit_bias", "logprobs", "min_p", "presence_penalty", "prompt")
    + ("repetition_penalty", "response_format", "seed", "temperature", "top_k", "top_p")
}


def _field_of(message: str) -> str | None:
    """The field of a request that a message of the engine begins with."""
    name = re.match(r"\w*", message)[0]
    return _FIELDS.get(name)


def _hand_out(found: Sequence[tuple[Answers, News]]) -> None:
    for answers, news in found:
        answers.put(news)
