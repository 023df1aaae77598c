"""The server as clients see it: the official client, and HTTP where that says more."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import logging
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from running_server import Running, wait_until

openai = pytest.importorskip("openai", reason="pip install openai")

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def client(stories):
    with openai.OpenAI(base_url=f"{stories.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def tokenizer(stories):
    return stories.worker.models["stories"].tokenizer


@pytest.fixture(scope="module")
def greedy(stories_model, tokenizer):
    """Text and ids that the model continues PROMPT with, 24 tokens."""
    prompt = tokenizer.encode(PROMPT)
    ids = np.asarray(stories_model.generate([prompt], max_new_tokens=24, jit_compile=False))[0].tolist()
    return tokenizer.decode(ids, skip_special_tokens=True)[len(PROMPT) :], ids[len(prompt) :]


def post(stories, path, body, **options):
    return httpx.post(stories.url + path, json=body, timeout=60, **options)


# Completions ---------------------------------------------------------------------------------------------------------


def test_models(client, stories):
    (model,) = client.models.list().data
    assert model.id == "stories" and model.object == "model" and model.max_model_len == 256
    assert client.models.retrieve("stories") == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("storis")
    assert caught.value.code == "model_not_found" and "did you mean stories" in caught.value.message
    assert httpx.get(f"{stories.url}/health").json() == {"status": "ok"}


def test_a_completion_is_what_generate_makes(client, tokenizer, greedy):
    answer = client.completions.create(model="stories", prompt=PROMPT, max_tokens=24, temperature=0)
    assert answer.choices[0].text == greedy[0] and answer.choices[0].finish_reason == "length"
    size = len(tokenizer.encode(PROMPT))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        size,
        24,
        size + 24,
    )
    ids = tokenizer.encode(PROMPT)
    again = client.completions.create(model="stories", prompt=ids, max_tokens=24, temperature=0, echo=True)
    assert again.choices[0].text == PROMPT + greedy[0]


def test_a_stream_joins_to_the_whole(client, greedy):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.completions.create(model="stories", prompt=PROMPT, max_tokens=24, temperature=0, **options))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == greedy[0] and len(chunks) > 3
    assert all(chunk.usage is None for chunk in chunks[:-1]) and chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 24
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == ["length"]


def test_a_stream_as_it_is_sent(stories):
    body = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0, "stream": True}
    response = post(stories, "/v1/completions", body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events[:-2])
    body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    events = post(stories, "/v1/completions", body).text.split("\n\n")[:-2]
    counts = [json.loads(event.removeprefix("data: "))["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts) and counts[0] < 24 and counts[-1] == 24


def test_no_stop_strings_are_as_none_given(client, greedy):
    answer = client.completions.create(model="stories", prompt=PROMPT, max_tokens=24, temperature=0, stop=[])
    assert answer.choices[0].text == greedy[0]


def test_stop_strings_end_a_text_before_them(client, greedy):
    stop = greedy[0][10:14]
    expected = greedy[0][: greedy[0].index(stop)]
    for stops in (stop, ["nowhere", stop]):
        answer = client.completions.create(model="stories", prompt=PROMPT, max_tokens=24, temperature=0, stop=stops)
        assert answer.choices[0].text == expected and answer.choices[0].finish_reason == "stop"
    stream = client.completions.create(
        model="stories", prompt=PROMPT, max_tokens=24, temperature=0, stop=stop, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == expected


def test_choices_and_seeds(client):
    def texts(**options):
        answer = client.completions.create(model="stories", prompt=PROMPT, max_tokens=16, n=3, **options)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert answer.usage.completion_tokens == 48
        return [choice.text for choice in answer.choices]

    drawn = texts(seed=7, temperature=1.2)
    assert texts(seed=7, temperature=1.2) == drawn and len(set(drawn)) > 1
    assert texts(seed=8, temperature=1.2) != drawn
    assert len(set(texts(temperature=0))) == 1
    # One token is left of those that may be drawn.
    assert len(set(texts(temperature=2, extra_body={"top_k": 1}))) == 1
    assert len(set(texts(temperature=2, extra_body={"min_p": 1.0}))) == 1
    assert len(set(texts(temperature=2, top_p=1e-6))) == 1
    # Numbers too small for float32 stand for the likeliest token.
    assert texts(temperature=1e-45) == texts(temperature=2, top_p=1e-45) == texts(temperature=0)


def test_several_prompts(client, greedy):
    prompts = [PROMPT, "Lily and"]
    answer = client.completions.create(model="stories", prompt=prompts, max_tokens=8, temperature=0, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1] and texts[2] == texts[3] != texts[0] and greedy[0].startswith(texts[0])
    single = [client.completions.create(model="stories", prompt=p, max_tokens=8, temperature=0) for p in prompts]
    assert answer.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in single)


def test_log_probabilities(client, stories_model, tokenizer, greedy):
    prompt = tokenizer.encode(PROMPT)
    logits = np.asarray(stories_model(np.array([prompt + greedy[1][:5]])).logits, "float64")[0, len(prompt) - 1 : -1]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = [expected[step, token] for step, token in enumerate(greedy[1][:5])]
    answer = client.completions.create(model="stories", prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3)
    found = answer.choices[0].logprobs
    assert "".join(found.tokens) == answer.choices[0].text
    assert found.text_offset == [len("".join(found.tokens[:index])) for index in range(5)]
    np.testing.assert_allclose(found.token_logprobs, own, atol=1e-4)
    for step, best in enumerate(found.top_logprobs):
        np.testing.assert_allclose(list(best.values()), np.sort(expected[step])[::-1][:3], atol=1e-4)
    chat = client.chat.completions.create(
        model="stories",
        messages=[{"role": "user", "content": PROMPT}],
        max_completion_tokens=5,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    content = chat.choices[0].logprobs.content
    assert b"".join(bytes(one.bytes) for one in content).decode() == chat.choices[0].message.content
    assert all(len(one.top_logprobs) == 2 for one in content) and len(content) == 5
    best = [one.top_logprobs[0] for one in content]
    assert [(one.token, one.logprob) for one in content] == [(one.token, one.logprob) for one in best]
    stream = client.chat.completions.create(
        model="stories",
        messages=[{"role": "user", "content": PROMPT}],
        max_completion_tokens=5,
        temperature=0,
        logprobs=True,
        stream=True,
    )
    parts = [one for chunk in stream if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
    assert [one.token for one in parts] == [one.token for one in content]


def test_log_probabilities_of_a_prompt(client, stories_model, tokenizer):
    """A text is scored as the model reads it, which is how its likelihood is measured."""
    ids = tokenizer.encode(PROMPT)
    logits = np.asarray(stories_model(np.array([ids])).logits, "float64")[0, :-1]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = [expected[step, token] for step, token in enumerate(ids[1:])]
    options = {"model": "stories", "prompt": PROMPT, "echo": True, "logprobs": 2, "temperature": 0}
    scored = client.completions.create(max_tokens=0, **options).choices[0]
    assert scored.text == PROMPT and scored.finish_reason == "length"
    assert scored.logprobs.token_logprobs[0] is None and scored.logprobs.top_logprobs[0] is None
    np.testing.assert_allclose(scored.logprobs.token_logprobs[1:], own, atol=1e-4)
    best = [max(top.values()) for top in scored.logprobs.top_logprobs[1:]]
    np.testing.assert_allclose(best, expected.max(-1), atol=1e-4)
    longer = client.completions.create(max_tokens=3, **options).choices[0]
    assert len(longer.logprobs.tokens) == len(ids) + 3 and longer.text.startswith(PROMPT)
    np.testing.assert_allclose(longer.logprobs.token_logprobs[1 : len(ids)], own, atol=1e-4)


@pytest.mark.slow
def test_biases_and_penalties(client, stories_model, tokenizer, greedy):
    first = greedy[1][0]
    banned = client.completions.create(
        model="stories", prompt=PROMPT, max_tokens=8, temperature=0, logit_bias={str(first): -100}
    )
    assert not greedy[0].startswith(banned.choices[0].text)
    bias = {"logit_bias": {str(greedy[1][3]): 100}, "logprobs": 0}
    forced = client.completions.create(model="stories", prompt=PROMPT, max_tokens=4, temperature=0, **bias)
    assert forced.choices[0].logprobs.tokens == [tokenizer.decode([1, greedy[1][3]]).removeprefix("<s>")] * 4
    prompt = tokenizer.encode(PROMPT)
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 1.5}, {"repetition_penalty": 1.9}):
        ids = np.asarray(stories_model.generate([prompt], max_new_tokens=24, jit_compile=False, **penalty))[0]
        expected = tokenizer.decode(ids.tolist(), skip_special_tokens=True)[len(PROMPT) :]
        answer = client.completions.create(
            model="stories", prompt=PROMPT, max_tokens=24, temperature=0, extra_body=penalty
        )
        assert answer.choices[0].text == expected


# Conversations -------------------------------------------------------------------------------------------------------


def test_a_conversation(client, greedy):
    messages = [{"role": "system", "content": "Once"}, {"role": "user", "content": " upon a time"}]
    answer = client.chat.completions.create(model="stories", messages=messages, temperature=0, max_tokens=24)
    assert answer.choices[0].message.content == greedy[0] and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 24
    stream = client.chat.completions.create(
        model="stories", messages=messages, temperature=0, max_tokens=24, stream=True, n=2
    )
    texts, reasons, roles = ["", ""], [None, None], []
    for chunk in stream:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] = choice.finish_reason
        roles += [choice.delta.role] if choice.delta.role else []
    assert texts == [greedy[0]] * 2 and reasons == ["length"] * 2 and roles == ["assistant"] * 2


def test_a_next_turn_costs_its_own_tokens(client):
    messages = [{"role": "user", "content": "Lily and her dog went to the park. They saw a big tree. "}]
    first = client.chat.completions.create(model="stories", messages=messages, temperature=0, max_tokens=16)
    messages.append({"role": "assistant", "content": first.choices[0].message.content})
    messages.append({"role": "user", "content": " Then"})
    second = client.chat.completions.create(model="stories", messages=messages, temperature=0, max_tokens=4)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens


def test_an_answer_fills_the_room_where_no_length_is_asked_for(client):
    answer = client.chat.completions.create(
        model="stories", messages=[{"role": "user", "content": PROMPT}], temperature=0
    )
    usage, reason = answer.usage, answer.choices[0].finish_reason
    assert (reason == "length" and usage.total_tokens == 256) or (reason == "stop" and usage.total_tokens < 256)


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Lily", "Tom"]}, "age": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_answers_by_a_schema(client):
    pytest.importorskip("llguidance")
    form = {"type": "json_schema", "json_schema": {"name": "child", "schema": SCHEMA}}
    answer = client.chat.completions.create(
        model="stories", messages=[{"role": "user", "content": PROMPT}], response_format=form, seed=1
    )
    found = json.loads(answer.choices[0].message.content)
    assert found["name"] in ("Lily", "Tom") and 1 <= found["age"] <= 9 and answer.choices[0].finish_reason == "stop"
    wrong = {"type": "json_schema", "json_schema": {"name": "child", "schema": {"type": "wizard"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="stories", messages=[{"role": "user", "content": PROMPT}], response_format=wrong
        )
    assert caught.value.param == "response_format"


def test_the_official_clients_helpers(client):
    """Its `parse` asks for a class by a strict schema, and its `stream` follows chunks."""
    pytest.importorskip("llguidance")
    pydantic = pytest.importorskip("pydantic")

    class Child(pydantic.BaseModel):
        age: int = pydantic.Field(ge=1, le=9)

    options = {"model": "stories", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0}
    answer = client.chat.completions.parse(response_format=Child, **options).choices[0].message
    assert 1 <= answer.parsed.age <= 9 and Child.model_validate_json(answer.content) == answer.parsed
    options["stop"] = " girl"  # an answer that its length ends is an error to the helper
    whole = client.chat.completions.create(**options)
    with client.chat.completions.stream(stream_options={"include_usage": True}, **options) as stream:
        told = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(told) == whole.choices[0].message.content == final.choices[0].message.content
    assert final.choices[0].finish_reason == "stop" and final.usage.completion_tokens == whole.usage.completion_tokens


TOOLS = [{"type": "function", "function": {"name": "meet", "parameters": SCHEMA}}]


@pytest.mark.slow
def test_a_tool_that_must_be_called(client):
    pytest.importorskip("llguidance")
    for choice in ("required", {"type": "function", "function": {"name": "meet"}}):
        options = {"messages": [{"role": "user", "content": PROMPT}], "tools": TOOLS, "tool_choice": choice, "seed": 3}
        answer = client.chat.completions.create(model="stories", **options)
        message = answer.choices[0].message
        (call,) = message.tool_calls
        assert call.function.name == "meet" and json.loads(call.function.arguments)["name"] in ("Lily", "Tom")
        assert (
            answer.choices[0].finish_reason == "tool_calls" and message.content is None and call.id.startswith("call_")
        )
        chunks = list(client.chat.completions.create(model="stories", stream=True, **options))
        (streamed,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        assert streamed.function == type(streamed.function)(**call.function.model_dump()) and streamed.index == 0
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_tools_that_need_not_be_called_leave_text_as_it_is(client):
    """The names of the tools stand before the conversation, in this template."""
    plain = client.chat.completions.create(
        model="stories", messages=[{"role": "user", "content": "meet Lily"}], temperature=0, max_tokens=8
    )
    told = client.chat.completions.create(
        model="stories", messages=[{"role": "user", "content": "Lily"}], temperature=0, max_tokens=8, tools=TOOLS
    )
    assert told.choices[0].message.content == plain.choices[0].message.content
    assert told.usage.prompt_tokens == plain.usage.prompt_tokens and told.choices[0].message.tool_calls is None


# Other endpoints -----------------------------------------------------------------------------------------------------


def test_embeddings(client, stories_model, tokenizer):
    texts = ["Once upon a time", "a dog", "there was a little girl"]
    answer = client.embeddings.create(model="stories", input=texts, encoding_format="float")
    for text, one in zip(texts, answer.data, strict=True):
        ids = np.array([tokenizer.encode(text)])
        states = np.asarray(stories_model(ids, output_hidden_states=True).hidden_states[-1])[0]
        np.testing.assert_allclose(one.embedding, states.mean(0), atol=1e-4)
    assert answer.usage.prompt_tokens == sum(len(tokenizer.encode(text)) for text in texts)
    # The client asks for base64 by itself, and decodes it.
    again = client.embeddings.create(model="stories", input=tokenizer.encode(texts[1])).data[0]
    np.testing.assert_allclose(again.embedding, answer.data[1].embedding, atol=1e-4)
    short = client.embeddings.create(model="stories", input=texts[1], dimensions=8, encoding_format="float").data[0]
    cut = np.array(answer.data[1].embedding[:8])
    np.testing.assert_allclose(short.embedding, cut / np.linalg.norm(cut), atol=1e-4)


def test_embeddings_in_base64(stories):
    body = {"input": "a dog", "model": "stories"}
    plain = post(stories, "/v1/embeddings", body).json()["data"][0]["embedding"]
    packed = post(stories, "/v1/embeddings", {**body, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed), "<f4"), plain, rtol=1e-6)


def test_tokens_and_back(stories, tokenizer):
    found = post(stories, "/tokenize", {"prompt": PROMPT, "return_token_strs": True}).json()
    assert found["tokens"] == tokenizer.encode(PROMPT) and found["count"] == len(found["tokens"])
    assert "".join(found["token_strs"][1:]).strip() == PROMPT and found["max_model_len"] == 256
    messages = [{"role": "user", "content": PROMPT}]
    chat = tokenizer.apply_chat_template(messages, return_dict=False)
    assert post(stories, "/tokenize", {"messages": messages}).json()["tokens"] == chat
    assert post(stories, "/detokenize", {"tokens": found["tokens"][1:]}).json() == {"prompt": PROMPT}
    assert post(stories, "/detokenize", {"tokens": []}).json() == {"prompt": ""}
    assert post(stories, "/tokenize", {}).status_code == 400
    assert post(stories, "/detokenize", {"tokens": "a"}).status_code == 400


def test_metrics_count(stories):
    def value(name):
        lines = httpx.get(f"{stories.url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    before = value("tfmodels_generated_tokens_total"), value("tfmodels_requests_total")
    post(stories, "/v1/completions", {"prompt": PROMPT, "max_tokens": 5, "temperature": 0})
    assert value("tfmodels_generated_tokens_total") == before[0] + 5
    assert value("tfmodels_requests_total") == before[1] + 1
    assert value("tfmodels_rows ") == 4 and value("tfmodels_ready") == 1 and value("tfmodels_cache_bytes") > 0
    assert 0 < value("tfmodels_programs ") <= value("tfmodels_programs_limit ")
    assert value("tfmodels_programs_compiled ") >= value("tfmodels_programs ")
    assert value("process_resident_memory_bytes ") > 1e8 or not os.path.exists("/proc/self/statm")


# Mistakes ------------------------------------------------------------------------------------------------------------

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "message"),
    [
        ("/v1/completions", {}, 400, "prompt", "prompt is missing"),
        ("/v1/completions", {"prompt": []}, 400, "prompt", "a text, up to"),
        ("/v1/completions", {"prompt": [10**6]}, 400, "prompt", "token ids from 0 to"),
        ("/v1/completions", {"prompt": ["a", 3]}, 400, "prompt", "a text, up to"),
        ("/v1/completions", {"prompt": "a", "temperature": 3}, 400, "temperature", "from 0 to 2"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens", "at least 1"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 300}, 400, "max_tokens", "256 tokens"),
        ("/v1/completions", {"prompt": "a " * 400}, 400, None, "maximum context length is 256"),
        ("/v1/completions", {"prompt": "a", "logit_bias": {"100000": 1}}, 400, "logit_bias", ""),
        ("/v1/completions", {"prompt": "a", "best_of": 3}, 400, "best_of", "equals n"),
        ("/v1/completions", {"prompt": "a", "n": 13}, 400, "n", "up to 12"),
        ("/v1/completions", {"prompt": ["a"] * 13}, 400, "prompt", "up to 12"),
        ("/v1/completions", {"prompt": "a", "stream_options": {}}, 400, "stream_options", "when stream is true"),
        ("/v1/completions", {"prompt": "a", "model": "gpt-5"}, 404, "model", "'gpt-5' is not served here"),
        ("/v1/completions", {"prompt": "a", "model": 3}, 400, "model", "a text"),
        ("/v1/chat/completions", {}, 400, "messages", "messages is missing"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages", "at least one"),
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}, 400, "top_logprobs", "when logprobs is true"),
        ("/v1/chat/completions", {**CHAT, "tool_choice": "required"}, 400, "tool_choice", "when tools are given"),
        ("/v1/chat/completions", {**CHAT, "reasoning_effort": "low"}, 400, "reasoning_effort", "not supported"),
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "x"}}, 400, "response_format", "json_schema"),
        (
            "/v1/chat/completions",
            {**CHAT, "chat_template_kwargs": {"tools": []}},
            400,
            "chat_template_kwargs",
            "tools",
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "chat_template_kwargs": {"documents": 5}},
            400,
            "chat_template_kwargs",
            "refuses the chat_template_kwargs",
        ),
        ("/v1/chat/completions", {**CHAT, "user": 5}, 400, "user", "a text was expected"),
        ("/tokenize", {"prompt": "a", "tools": []}, 400, "tools", "only allowed with messages"),
        ("/tokenize", {**CHAT, "add_special_tokens": True}, 400, "add_special_tokens", "writes its own"),
        (
            "/v1/chat/completions",
            {
                **CHAT,
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "wizard"}}}],
                "tool_choice": "required",
            },
            400,
            "tools",
            "no schema that calls can meet",
        ),
        ("/detokenize", {}, 400, "tokens", "tokens is missing"),
        ("/detokenize", {"tokens": [[1, 2]]}, 400, "tokens", "token ids was expected"),
        ("/detokenize", {"tokens": [1.5]}, 400, "tokens", "token ids was expected"),
        ("/detokenize", {"tokens": [1, 512]}, 400, "tokens", "holds 512: token ids from 0 to 511"),
        ("/v1/embeddings", {"input": ["a", ""]}, 400, "input", "empty"),
        ("/v1/embeddings", {"input": "a " * 400}, 400, "input", "maximum context length is 256"),
        ("/v1/embeddings", {"input": "a", "dimensions": 10**4}, 400, "dimensions", "vectors have 64"),
        ("/v1/nothing", {}, 404, None, "Unknown request URL"),
        ("/v1/models", {}, 405, None, "takes no POST"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_mistakes_name_the_field(stories, path, body, status, param, message, stream):
    if stream and "completions" in path and "stream_options" not in body:
        body = {**body, "stream": True}
    elif stream:
        pytest.skip("the same request")
    response = post(stories, path, body)
    error = response.json()["error"]
    assert response.status_code == status, error
    assert (
        error["param"] == param and message in error["message"] and set(error) == {"message", "type", "param", "code"}
    )


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"a": ' * 500, "application/json", 400),
        (b'{"prompt": "\\ud800"}', "application/json", 400),
        (b'{"prompt": "a"}', "text/plain", 415),
        (b'{"prompt": "a"}', "application/x-www-form-urlencoded", 415),
        (b" " * ((4 << 20) + 1), "application/json", 413),
        (b" " * (20 << 20), "application/json", 413),  # more than a connection holds before it is read
    ],
)
def test_bodies_that_are_no_requests(stories, content, kind, status):
    for sent in (content, iter([content])):  # with and without a length in front
        response = httpx.post(f"{stories.url}/v1/completions", content=sent, headers={"content-type": kind})
        assert response.status_code == status and response.json()["error"]["type"] == "invalid_request_error"


def test_a_packed_body_is_refused(stories):
    body = gzip.compress(json.dumps({"prompt": "a"}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = httpx.post(f"{stories.url}/v1/completions", content=body, headers=headers)
    assert response.status_code == 415 and "content-encoding='gzip'" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", {"POST"}),
        ("OPTIONS", "/v1/embeddings", {"POST"}),
        ("DELETE", "/v1/models/stories", {"GET", "HEAD"}),
        ("PUT", "/health", {"GET", "HEAD"}),
    ],
)
def test_other_methods_are_told_those_that_there_are(stories, method, path, allowed):
    response = httpx.request(method, stories.url + path)
    assert response.status_code == 405 and set(response.headers["allow"].split(", ")) == allowed
    assert response.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "origin", ["foo", "", "https://", "https://there.example/", "https://There.example", "ftp:x", "http://a@b"]
)
def test_origins_that_no_page_has_are_refused(origin):
    from tfmodels.serving.application import make_app

    for good in ("*", "null", "http://localhost:3000", "http://[::1]:80", "https://there.example"):
        make_app(None, cors_origins=[good])
    with pytest.raises(ValueError, match="the address of a page as browsers name it"):
        make_app(None, cors_origins=["*", origin])


def test_keys_and_other_origins(serve, stories):
    options = {"api_keys": ["first", "second"], "cors_origins": ["https://there.example"]}

    class Ready:
        """The worker of the other server, which is started."""

        state, models, in_flight, most, busy = "ready", stories.worker.models, 0, 1, 0

        def start(self): ...
        def stop(self, seconds): ...
        def check_ready(self): ...

    own = serve(Ready(), **options)
    wait_until(lambda: own.server.started, 20)
    for key, message in ((None, "missing"), ("third", "wrong"), ("firs", "wrong"), ("ÿ", "wrong")):
        headers = {} if key is None else {"authorization": f"Bearer {key}".encode()}
        response = httpx.get(f"{own.url}/v1/models", headers=headers)
        assert response.status_code == 401 and message in response.json()["error"]["message"]
        assert response.json()["error"]["code"] == "invalid_api_key"
    for key in options["api_keys"]:
        with openai.OpenAI(base_url=f"{own.url}/v1", api_key=key) as client:
            assert client.models.list().data[0].id == "stories"
    assert httpx.get(f"{own.url}/health").status_code == 200 == httpx.get(own.url).status_code
    asked = {"origin": "https://there.example", "access-control-request-method": "POST"}
    asked["access-control-request-headers"] = "authorization,content-type"
    response = httpx.options(f"{own.url}/v1/completions", headers=asked)
    assert response.status_code == 200 and response.headers["access-control-allow-origin"] == asked["origin"]
    assert (
        httpx.options(f"{own.url}/v1/completions", headers={**asked, "origin": "https://x.example"}).status_code == 400
    )


# Load ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_row(stories, stream):
    gone = stories.service.metrics._gone._value.get()
    body = json.dumps(
        {"prompt": PROMPT, "max_tokens": 240, "stream": stream, "n": 4, "logit_bias": {"2": -100, "1": -100}}
    )
    with socket.create_connection(stories.sock.getsockname()) as one:
        head = "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length:"
        one.sendall(f"{head} {len(body)}\r\n\r\n{body}".encode())
        wait_until(lambda: stories.worker.busy == 4, 30)
        if stream:
            assert one.recv(100).startswith(b"HTTP/1.1 200")
    wait_until(lambda: stories.worker.busy == 0 and stories.worker.in_flight == 0, 10)
    assert stories.service.metrics._gone._value.get() == gone + 1


def test_more_clients_than_room(stories):
    """Sixty at once, where twelve have room: the others are told to come again, and then all is as before."""

    async def crowd():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=stories.url, timeout=60, limits=limits) as client:
            body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0}
            return await asyncio.gather(*(client.post("/v1/completions", json=body) for _ in range(60)))

    answers = asyncio.run(crowd())
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(served) >= 12 and refused and len(served) + len(refused) == 60
    assert len({answer.json()["choices"][0]["text"] for answer in served}) == 1
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert stories.worker.in_flight == 0
    assert post(stories, "/v1/completions", {"prompt": PROMPT, "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_outlasts_the_server_is_told_so(stream, stories_model, tokenizer, monkeypatch, caplog):
    """The server waits for two seconds here, then gives up what it has not answered; its log has no traceback."""
    from tfmodels.serving.models import EngineOptions, LanguageModel
    from tfmodels.serving.worker import Worker

    model = LanguageModel("stories", stories_model, tokenizer, EngineOptions(4, 256, jit_compile=False))
    worker = Worker(lambda: {"stories": model}, 4)
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [caplog.handler])
    with ThreadPoolExecutor(1) as pool:
        with Running(worker) as running:
            running.ready()
            step, events = model.engine.step, []

            def slow_step():
                time.sleep(0.2)
                events.extend(new := step())
                return new

            monkeypatch.setattr(model.engine, "step", slow_step)
            body = {"prompt": PROMPT, "max_tokens": 200, "logit_bias": {"2": -100}, "stream": stream}
            asked = pool.submit(post, running, "/v1/completions", body)
            wait_until(lambda: len(events) > 1, 60)
        answer = asked.result(30)
    assert "Exception" not in caplog.text and "Traceback" not in caplog.text
    if stream:
        *chunks, error, end = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        assert answer.status_code == 200 and end == "[DONE]" and len(chunks) > 1
    else:
        error = answer.text
        assert answer.status_code == 503 and answer.headers["retry-after"]
    assert json.loads(error)["error"]["message"] == "The server ends."


@pytest.mark.slow
def test_a_client_that_does_not_read(serve, stories_model, tokenizer):
    """Others are answered meanwhile; what waits for it is given up after a while, and its room is free."""
    from tfmodels.serving.models import EngineOptions, LanguageModel
    from tfmodels.serving.service import Limits
    from tfmodels.serving.worker import Worker

    options = EngineOptions(rows=4, capacity=256, jit_compile=False)
    worker = Worker(lambda: {"stories": LanguageModel("stories", stories_model, tokenizer, options)}, 4)
    running = serve(worker, limits=Limits(read_seconds=10)).ready()
    running.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 13)
    plain = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0}
    long = {"messages": [{"role": "user", "content": PROMPT}], "n": 2, "logprobs": True, "top_logprobs": 20}
    long |= {"max_tokens": 240, "logit_bias": {"2": -100, "1": -100}}

    def ask(path, body):
        return httpx.post(running.url + path, json=body, timeout=300).json()["usage"]["completion_tokens"]

    assert ask("/v1/completions", plain) == 4 and ask("/v1/chat/completions", {**long, "max_tokens": 4}) == 8
    body = json.dumps({**long, "stream": True})
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        one.connect(running.sock.getsockname())
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length:"
        one.sendall(f"{head} {len(body)}\r\n\r\n{body}".encode())
        wait_until(lambda: worker.in_flight == 2, 60)
        assert ask("/v1/completions", plain) == 4
        wait_until(lambda: worker.in_flight == 0 and worker.busy == 0, 120)
        one.settimeout(20)
        received = 0
        with contextlib.suppress(ConnectionError):
            while piece := one.recv(1 << 16):
                received += len(piece)
        # The whole would be 480 pieces of a kilobyte and more: what it did not read was not kept for it.
        assert received < 1 << 18
