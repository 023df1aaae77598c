"""serving/fields.py: what fields may hold, and errors that name them."""

from __future__ import annotations

import pytest

from tfmodels.serving import fields
from tfmodels.serving.chat import FIELDS as CHAT
from tfmodels.serving.completions import FIELDS as COMPLETIONS
from tfmodels.serving.errors import BadRequest


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (fields.integer(1, 4), [1, 4, 2.0], [0, 5, 1.5, True, "1", [1]]),
        (fields.integer(0), [0, 10**9], [-1, None]),
        (fields.number(0, 2), [0, 2, 1.5], [-0.1, 2.1, float("nan"), float("inf"), 10**400, True, "1"]),
        (fields.flag, [True, False], [0, "true"]),
        (fields.text, ["", "a"], [1, ["a"]]),
        (fields.notes, [{}, {"a": "b"}], [[], "a", {"a": 1}, {"a": None}]),
        (fields.schema, [{}, True, {"type": "integer"}], [[], "integer", None]),
        (fields.one_of("a", "b"), ["a"], ["c", ["a"], {}]),
        (fields.mapping, [{}], [[], "{}"]),
        (fields.texts(2), ["a", ["a", "b"], []], ["", ["a", ""], ["a", "b", "c"], [1], {}]),
        (fields.token_numbers(-1, 1), [{"3": 1, "0": -1}], [{"-3": 1}, {"a": 1}, {"1": 2}, {"1": "x"}, [1], {"²": 1}]),
    ],
)
def test_values(check, right, wrong):
    for value in right:
        check(value, "name")
    for value in wrong:
        with pytest.raises(BadRequest) as caught:
            check(value, "name")
        assert caught.value.param.startswith("name") and len(caught.value.message) < 600


def test_every_field_of_openai_is_known():
    """Fields of OpenAI's reference: each is checked, ignored or refused with a reason, and none is unknown."""
    chat = """audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens
        messages metadata modalities model n parallel_tool_calls prediction presence_penalty prompt_cache_key
        reasoning_effort response_format safety_identifier seed service_tier stop store stream stream_options
        temperature tool_choice tools top_logprobs top_p user verbosity web_search_options"""
    completions = """best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed
        stop stream stream_options suffix temperature top_p user"""
    for endpoint, names in ((CHAT, chat), (COMPLETIONS, completions)):
        known = {*endpoint.checks, *endpoint.ignored, *endpoint.refused}
        assert set(names.split()) <= known, set(names.split()) - known


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"temprature": 1}, "temprature", "did you mean temperature"),
        ({"x" * 5000: 1}, "x" * 100, "Unrecognized request argument"),
        ({"suffix": "a"}, "suffix", "suffix is not supported here"),
        (
            {"stream_options": {"include_usages": True}},
            "stream_options.include_usages",
            "Unrecognized request argument: 'stream_options.include_usages'; did you mean include_usage",
        ),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "stream_options.include_usage=1"),
        ({"stream_options": []}, "stream_options", "an object was expected"),
        ({"temperature": "x" * 5000}, "temperature", "a number from 0 to 2"),
        # Fields that change nothing hold what OpenAI's may hold, too.
        ({"user": 5}, "user", "user=5: a text was expected"),
        ({"metadata": {"a": 1}}, "metadata", "an object of texts"),
        ({"store": "yes"}, "store", "true or false"),
        ({"response_format": []}, "response_format", "an object was expected"),
        ({"response_format": {}}, "response_format", "text, json_object, json_schema, regex and grammar"),
        ({"response_format": {"type": ["text"]}}, "response_format", "whose type is one of"),
        ({"response_format": {"type": "json_schema"}}, "response_format", '"json_schema": ...} was expected'),
        ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema", "Unrecognized"),
        ({"response_format": {"type": "regex", "regex": 5}}, "response_format.regex", "a text was expected"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}}},
            "response_format.json_schema.strict",
            "true or false",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"type": "object"}}},
            "response_format.json_schema.type",
            "response_format.json_schema takes name, schema, description and strict",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": [1]}}},
            "response_format.json_schema.schema",
            "a JSON schema was expected",
        ),
    ],
)
def test_wrong_requests(body, param, message):
    with pytest.raises(BadRequest) as caught:
        COMPLETIONS.read(body)
    assert caught.value.param == param and message in caught.value.message and len(caught.value.message) < 600


def test_null_stands_for_a_field_that_is_not_given():
    names = dict.fromkeys((*COMPLETIONS.checks, *COMPLETIONS.ignored, *COMPLETIONS.refused))
    assert COMPLETIONS.read(names) == {}
