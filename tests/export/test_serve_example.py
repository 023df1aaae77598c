"""examples/serve_saved_model.py: TensorFlow Serving's requests and answers over HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import importlib.util
import json
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import small_models

pytest.importorskip("starlette")
pytest.importorskip("httpx")
from starlette.testclient import TestClient

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
EXAMPLE = EXAMPLES / "serve_saved_model.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("serve_saved_model", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    return small_models.make("mpnet", "ForQuestionAnswering")


@pytest.fixture(scope="module")
def app(example, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "reader"
    model.export(folder, version=3)
    return example.make_app(folder, wait_ms=50)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app) as client:
        yield client


INPUTS = {name: value.tolist() for name, value in small_models.inputs_of("mpnet", "ForQuestionAnswering").items()}


def test_status(client):
    (status,) = client.get("/v1/models/reader").json()["model_version_status"]
    assert (status["version"], status["state"]) == ("3", "AVAILABLE")
    assert client.get("/v1/models/writer").status_code == 404


def test_columns_and_rows(client, model):
    expected = model(**small_models.inputs_of("mpnet", "ForQuestionAnswering"))
    answer = client.post("/v1/models/reader:predict", json={"inputs": INPUTS}).json()["outputs"]
    np.testing.assert_allclose(answer["start_logits"], expected.start_logits, atol=1e-5)
    rows = [{name: values[row] for name, values in INPUTS.items()} for row in range(2)]
    answer = client.post("/v1/models/reader/versions/3:predict", json={"instances": rows}).json()["predictions"]
    np.testing.assert_allclose([row["end_logits"] for row in answer], expected.end_logits, atol=1e-5)
    request = {"signature_name": "serving_int64", "inputs": INPUTS}
    again = client.post("/v1/models/reader:predict", json=request).json()["outputs"]
    np.testing.assert_allclose(again["start_logits"], expected.start_logits, atol=1e-5)


def ids_of(value, mask=None):
    return {"inputs": {"input_ids": value, "attention_mask": [[1]] if mask is None else mask}}


SURROGATE = json.dumps({"instances": ["\ud800"]})
BAD = [
    ({"inputs": INPUTS, "instances": []}, 'one of "instances" and "inputs"'),
    ({}, 'one of "instances" and "inputs"'),
    ([], "in a JSON object"),
    (None, "in a JSON object"),
    (b"{", "JSON Parse error"),
    (b"\xff\xfe", "JSON Parse error"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"inputs": ' + b"9" * 5000 + b"}", "JSON Parse error"),
    ({"inputs": {"input_ids": [[1]]}}, 'takes input_ids, attention_mask; the request has "input_ids"'),
    ({"inputs": {**INPUTS, "more": [[1]]}}, "takes input_ids, attention_mask; the request has"),
    ({"inputs": [["input_ids"]]}, '"inputs" must be an object with input_ids, attention_mask'),
    ({"inputs": "text"}, '"inputs" must be an object'),
    ({"inputs": None}, '"inputs" must be an object'),
    ({"inputs": {"input_ids": [[1], [2, 3]], "attention_mask": [[1], [1, 1]]}}, "equally long rows"),
    ({"inputs": {"input_ids": [1], "attention_mask": [1]}}, "input_ids has 1 axes; 2 are expected"),
    ({"inputs": {"input_ids": [[[1]]], "attention_mask": [[1]]}}, "input_ids has more than 2 axes"),
    (ids_of([[99]]), "99 is not in"),
    (ids_of([[1.0]]), "1.0 is not of expected type: int32"),
    (ids_of([[True]]), "true is not of expected type: int32"),
    (ids_of([["12"]]), '"12" is not of expected type: int32'),
    (ids_of([[None]]), "null is not of expected type: int32"),
    (ids_of([[{"b64": "AA=="}]]), "is not of expected type: int32"),
    (ids_of([{"b64": "AA=="}]), "input_ids has 1 axes"),
    (ids_of([[2**40]]), "is out of the range of int32"),
    (ids_of([[1], [2]]), "same number of rows; these have input_ids 2, attention_mask 1"),
    (ids_of([[1] * 5000], [[1] * 5000]), "input_ids is too long"),
    (ids_of([[1]] * 300, [[1]] * 300), "300 rows; at most 256"),
    ({"inputs": INPUTS, "signature_name": "classify"}, 'signature "classify" does not exist'),
    ({"inputs": INPUTS, "signature_name": ["serving_default"]}, "does not exist"),
    ({"inputs": INPUTS, "signature_name": {"a": 1}}, "does not exist"),
    *(({"inputs": INPUTS, "signature_name": name}, "does not exist") for name in (0, False, None, [], {})),
    ({"instances": []}, "at least one row"),
    ({"instances": {"input_ids": [1]}}, "at least one row"),
    ({"instances": [1, 2]}, "every row must name the same inputs"),
    ({"instances": [{"input_ids": [1]}, {"attention_mask": [1]}]}, "every row must name the same inputs"),
    ({"instances": [{"input_ids": 1, "attention_mask": 1}]}, "input_ids has 1 axes"),
]


@pytest.mark.parametrize(("body", "message"), BAD, ids=range(len(BAD)))
def test_bad_requests(client, body, message):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/v1/models/reader:predict", content=content)
    assert answer.status_code == 400 and message in answer.json()["error"], answer.text
    assert len(answer.text) < 1000


def test_wrong_places(client):
    assert client.get("/v1/models/reader:predict").status_code == 405
    assert client.post("/v1/models/other:predict", json={"inputs": INPUTS}).status_code == 404
    assert client.get("/v2").json()["error"].startswith("Malformed request: GET /v2")


def test_large_bodies_are_not_read(client):
    answer = client.post("/v1/models/reader:predict", content=b" " * (5 * 2**20))
    assert answer.status_code == 413 and "larger than 4194304 bytes" in answer.json()["error"]


def test_metadata(client):
    answer = client.get("/v1/models/reader/metadata").json()
    assert answer["model_spec"] == {"name": "reader", "signature_name": "", "version": "3"}
    found = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert found["method_name"] == "tensorflow/serving/predict"
    tensor = found["inputs"]["input_ids"]
    free = {"size": "-1", "name": ""}
    assert tensor["dtype"] == "DT_INT32"
    assert tensor["tensor_shape"] == {"dim": [free, free], "unknown_rank": False}
    assert set(found["outputs"]) == {"start_logits", "end_logits"}
    assert client.get("/v1/models/reader/versions/3/metadata").json() == answer


# The format alone ----------------------------------------------------------------------------------------------------


def test_strings_and_bytes(example):
    from tfmodels.export.rest_server.messages import BadRequest, as_array, read_request, write_answer

    text = example.Served({"text": ("string", (None,))}, frozenset())
    encoded = base64.b64encode(b"\xff\x00").decode()
    for body in ({"instances": ["a", {"b64": encoded}]}, {"inputs": ["a", {"b64": encoded}]}):
        _, inputs, _ = read_request(json.dumps(body).encode(), {"serving_default": text})
        assert inputs["text"].tolist() == [b"a", b"\xff\x00"]
    for wrong in (SURROGATE, '{"instances": [{"b64": "*"}]}', '{"instances": [{"b64": 1}]}', '{"instances": [1]}'):
        with pytest.raises(BadRequest, match="surrogate|base64|expected type: string"):
            read_request(wrong.encode(), {"serving_default": text})
    outputs = {"image_bytes": np.array([b"\xff"], "object")}
    assert json.loads(write_answer(outputs, False)) == {"outputs": [{"b64": "/w=="}]}
    assert b"NaN" in write_answer({"x": np.array([np.nan])}, True)
    assert as_array("x", [1, 2.5], "float32", 1).tolist() == [1.0, 2.5]
    for value in (True, "1", 1e39):
        with pytest.raises(BadRequest, match="is not of expected type|out of the range"):
            as_array("x", value, "float32", 0)


# Batches -------------------------------------------------------------------------------------------------------------


def run_together(batcher, requests):
    """Answers, or exceptions, of requests that all wait when the first batch is taken."""

    async def run():
        worker = asyncio.create_task(batcher.work())
        asked = [batcher.predict(*request) for request in requests]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        worker.cancel()
        return answers

    return asyncio.run(run())


def test_requests_share_a_batch(example, app, model):
    """Requests of other lengths, one of them wrong: each gets its own answer."""
    batcher = example.Batcher(app.state.batcher.runner, wait_ms=20)

    def request(rows, length, highest=60):
        ids = np.full((rows, length), highest, "int32")
        return "serving_default", {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    one, two, other, wrong, long = run_together(
        batcher, [request(1, 4, 7), request(2, 4, 9), request(1, 6), request(1, 4, 99), request(1, 30, 5)]
    )
    # The long one would make most of the batch padding.
    assert batcher.sizes == [5, 1]
    assert isinstance(wrong, Exception)
    for answer, rows, length, token in ((one, 1, 4, 7), (two, 2, 4, 9), (other, 1, 6, 60), (long, 1, 30, 5)):
        expected = model(np.full((rows, length), token)).start_logits
        np.testing.assert_allclose(answer["start_logits"], expected, atol=1e-5)


@pytest.mark.slow
def test_prompts_share_a_batch(example, tmp_path):
    """Rows of other lengths and with other ends: each sequence is as long as it would be alone."""
    from tfmodels.export import saved_model

    writer = small_models.make("llama", "ForCausalLM", num_hidden_layers=1, initializer_range=1.0)
    report = writer.export(tmp_path / "writer", batch_sizes=(4,), max_length=32, jit_compile=False)
    runner = saved_model.open(report.path)
    prompts = [[1, 40, 7, 26, 37], [1, 31, 26], [1, 40, 7]]
    free = [writer.generate([ids], max_new_tokens=12, jit_compile=False).numpy()[0].tolist() for ids in prompts]
    end = free[1][6]
    ends = {"max_new_tokens": np.int32(12), "eos_token_id": np.array([end], "int32")}
    requests = [
        (
            "generate",
            {"input_ids": np.array([ids], "int32"), "attention_mask": np.ones((1, len(ids)), "int32"), **ends},
        )
        for ids in prompts
    ]
    requests = [
        (name, {key: np.asarray(value, "int32") for key, value in inputs.items()}) for name, inputs in requests
    ]
    batcher = example.Batcher(runner, wait_ms=20)
    answers = run_together(batcher, requests)
    assert batcher.sizes == [3]
    for ids, whole, answer in zip(prompts, free, answers, strict=True):
        new = whole[len(ids) :]
        stop = new.index(end) + 1 if end in new else len(new)
        assert answer["sequences"].tolist() == [ids + new[:stop]]
    # Drawn rows depend on their number, numbers of other calls on theirs: these run alone.
    draw = [("generate_sample", requests[0][1]), ("generate_sample", requests[1][1])]
    other = [("generate", {**requests[0][1], "max_new_tokens": np.asarray(2, "int32")}), requests[1]]
    for pair in (draw, other):
        batcher.sizes = []
        run_together(batcher, pair)
        assert batcher.sizes == [1, 1]


class Slow:
    """A runner whose calls last until they are let go."""

    declared, defaults = (), {"serving_default": {}}

    def __init__(self):
        self.go, self.calls = threading.Event(), []

    def run(self, inputs, signature):
        self.calls.append(len(inputs["x"]))
        self.go.wait(10)
        return {"y": inputs["x"]}


def test_queue_is_bounded_and_clients_that_left_are_forgotten(example):
    runner = Slow()
    runner.declared = [example.Served({}, frozenset())]
    runner.declared[0] = type("Signature", (), {"name": "serving_default", "outputs": {"y": ("int32", (None,))}})

    async def run():
        batcher = example.Batcher(runner, wait_ms=0, most_waiting=2)
        worker = asyncio.create_task(batcher.work())
        requests = []
        for _ in range(3):
            requests.append(asyncio.create_task(batcher.predict("serving_default", {"x": np.ones(1, "int32")})))
            while not runner.calls:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        with pytest.raises(example.Full, match="2 requests wait already"):
            await batcher.predict("serving_default", {"x": np.ones(1, "int32")})
        requests[1].cancel()
        runner.go.set()
        await requests[2]
        worker.cancel()
        return runner.calls

    assert asyncio.run(run()) == [1, 1]


# Connections ---------------------------------------------------------------------------------------------------------


async def hello(scope, receive, send):
    """An application that answers everything at once."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"AVAILABLE"})


def test_slow_clients_are_let_go(example):
    """Headers that do not end also end the connection; others are answered."""
    uvicorn = pytest.importorskip("uvicorn")
    protocol = example.protocol_for(1.0)
    config = uvicorn.Config(hello, port=0, log_level="error", access_log=False, http=protocol, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(b"GET /v1/models/reader HTTP/1.1\r\nHost: x\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert slow.recv(100) == b""
        quick = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(quick):
            quick.request("GET", "/v1/models/reader")
            assert quick.getresponse().read() == b"AVAILABLE"
    finally:
        server.should_exit = True
        thread.join(10)


def test_body_that_does_not_come(example, tmp_path, model):
    model.export(tmp_path / "reader")
    app = example.make_app(tmp_path / "reader", limits=example.Limits(read_seconds=0.1))
    sent = []

    async def receive():
        await asyncio.sleep(5)

    async def send(message):
        sent.append(message)

    path = "/v1/models/reader:predict"
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "app": app}
    asyncio.run(app({**scope, "raw_path": path.encode(), "root_path": "", "http_version": "1.1"}, receive, send))
    assert sent[0]["status"] == 408
