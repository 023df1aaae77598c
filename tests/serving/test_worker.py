"""serving/worker.py: the thread of the models, by engines of a few lines."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from tfmodels.serving.errors import APIError, BadRequest, Overloaded, ServerError, Unavailable
from tfmodels.serving.worker import Worker


class FakeEngine:
    """Gives every request one token a step, and says why it ends after `length` of them."""

    def __init__(self):
        self.requests, self.threads, self.fails = {}, set(), False

    @property
    def pending(self):
        return len(self.requests)

    def add(self, prompt, *, id, length=3):
        if length == "wrong":
            raise ValueError("max_new_tokens=wrong: a number was expected.")
        if length == "broken":
            raise KeyError("inside")
        self.requests[id] = [length, 0]

    def cancel(self, id):
        return self.requests.pop(id, None) is not None

    def step(self):
        self.threads.add(threading.current_thread().name)
        if self.fails:
            raise RuntimeError("out of memory")
        events = []
        for id, request in list(self.requests.items()):
            request[1] += 1
            ends = request[1] == request[0]
            events.append(SimpleNamespace(id=id, tokens=(request[1],), completion="all" if ends else None))
            if ends:
                del self.requests[id]
        time.sleep(0.001)
        return events


class FakeModel:
    rows = 2

    def __init__(self):
        self.engine, self.restarts = FakeEngine(), 0

    def restart(self):
        self.engine, self.restarts = FakeEngine(), self.restarts + 1


def with_worker(test, most=4, load=None):
    """Run a coroutine function with a worker that is ready, and its model."""
    model = FakeModel()

    async def run():
        worker = Worker(load or (lambda: {"m": model}), most)
        worker.start()
        try:
            while worker.state == "loading":
                await asyncio.sleep(0.001)
            return await asyncio.wait_for(test(worker, model), 20)
        finally:
            assert worker.stop()

    return asyncio.run(run())


async def tokens_of(answers):
    found = {}
    while not answers.done:
        index, event = await answers.next()
        found.setdefault(index, []).extend(event.tokens)
    return found


def test_answers_come_in_order_and_from_one_thread():
    async def test(worker, model):
        first = worker.submit("m", [[1], [2]], [{"length": 2}, {"length": 4}])
        second = worker.submit("m", [[3]], [{"length": 3}])
        assert await tokens_of(first) == {0: [1, 2], 1: [1, 2, 3, 4]}
        assert await tokens_of(second) == {0: [1, 2, 3]}
        assert model.engine.threads == {"tfmodels-serving"}
        assert worker.busy == 0

    with_worker(test)


def test_room_is_limited_and_given_back():
    async def test(worker, model):
        with worker.reserve(3):
            with pytest.raises(Overloaded) as caught, worker.reserve(2):
                pass
            assert caught.value.status == 429 and caught.value.headers["retry-after"] == "1"
            with worker.reserve(1):
                assert worker.in_flight == 4
        assert worker.in_flight == 0
        with pytest.raises(BadRequest) as caught:
            worker.reserve(5)
        assert caught.value.param == "n"

    with_worker(test)


def test_requests_that_are_given_up_leave_the_engine():
    async def test(worker, model):
        answers = worker.submit("m", [[1], [2]], [{"length": 10**9}] * 2)
        await answers.next()
        answers.close()
        while model.engine.pending or worker.busy:
            await asyncio.sleep(0.001)

    with_worker(test)


@pytest.mark.parametrize(
    ("length", "kind", "param"), [("wrong", BadRequest, "max_tokens"), ("broken", ServerError, None)]
)
def test_a_request_that_the_engine_refuses_fails_alone(length, kind, param):
    async def test(worker, model):
        good = worker.submit("m", [[1]], [{"length": 50}])
        bad = worker.submit("m", [[1], [2]], [{"length": 50}, {"length": length}])
        with pytest.raises(kind) as caught:
            await tokens_of(bad)
        assert caught.value.param == param and "inside" not in caught.value.message
        assert (await tokens_of(good))[0] == list(range(1, 51))
        assert not model.engine.pending  # nor the first of the two

    with_worker(test)


def test_an_engine_that_fails_starts_anew():
    async def test(worker, model):
        model.engine.fails = True
        with pytest.raises(ServerError):
            await tokens_of(worker.submit("m", [[1]], [{}]))
        assert model.restarts == 1
        assert await tokens_of(worker.submit("m", [[1]], [{}])) == {0: [1, 2, 3]}

    with_worker(test)


def test_a_model_that_cannot_start_anew_is_told_as_failed():
    async def test(worker, model):
        model.engine.fails, model.restart = True, lambda: 1 // 0
        with pytest.raises(ServerError):
            await tokens_of(worker.submit("m", [[1]], [{}]))
        while worker.state == "ready":
            await asyncio.sleep(0.001)
        with pytest.raises(Unavailable) as caught:
            worker.reserve(1)
        assert caught.value.code == "failed"

    with_worker(test)


def test_functions_run_between_steps():
    async def test(worker, model):
        answers = worker.submit("m", [[1]], [{"length": 200}])
        names = await asyncio.gather(*(worker.call(lambda: threading.current_thread().name) for _ in range(3)))
        assert names == ["tfmodels-serving"] * 3 and not answers.done
        with pytest.raises(ServerError):
            await worker.call(lambda: 1 // 0)
        with pytest.raises(BadRequest):
            await worker.call(lambda: (_ for _ in ()).throw(BadRequest("no")))
        await tokens_of(answers)

    with_worker(test)


def test_loading_that_fails_is_told():
    failures = []

    async def run():
        worker = Worker(lambda: 1 // 0, 4, failures.append)
        with pytest.raises(Unavailable) as caught:
            worker.reserve(1)
        assert caught.value.code == "loading" and caught.value.headers["retry-after"] == "2"
        worker.start()
        while not failures:
            await asyncio.sleep(0.001)
        with pytest.raises(Unavailable) as caught:
            worker.reserve(1)
        assert caught.value.code == "failed" and isinstance(worker.error, ZeroDivisionError)

    asyncio.run(run())


def test_requests_are_told_that_the_server_ends():
    async def test(worker, model):
        answers = worker.submit("m", [[1]], [{"length": 10**9}])
        await answers.next()
        assert await asyncio.get_running_loop().run_in_executor(None, worker.stop)
        with pytest.raises(APIError) as caught:
            await tokens_of(answers)
        assert caught.value.status == 503 and caught.value.code == "stopped"

    with_worker(test)
