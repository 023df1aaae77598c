"""serving/messages.py: messages as templates read them, and what is wrong with others."""

from __future__ import annotations

import pytest

from tfmodels import AutoTokenizer
from tfmodels.serving.errors import BadRequest
from tfmodels.serving.messages import check_messages, for_template, render

CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}


def test_a_conversation_with_a_tool():
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "time?"}]
    given = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "me"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "audio": None},
        {"role": "tool", "content": "12:00", "tool_call_id": "call_1"},
    ]
    call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": {"zone": "UTC"}}}
    assert check_messages(given, "messages") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What time?", "name": "me"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "12:00", "tool_call_id": "call_1"},
    ]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("Hi", "messages"),
        (["Hi"], "messages[0]"),
        ([{"role": "user", "content": "a"}, {"role": "wizard", "content": "b"}], "messages[1].role"),
        ([{"role": ["user"], "content": "a"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": "a", "mood": "good"}], "messages[0].mood"),
        ([{"role": "user", "content": "a", "tool_calls": [CALL]}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [{"id": "1"}]}], "messages[0].tool_calls[0]"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "now", "arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([{"role": "tool", "content": "a", "tool_call_id": 3}], "messages[0].tool_call_id"),
        ([{"role": "tool", "content": "a"}], "messages[0].tool_call_id"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        *(
            (
                [{"role": "assistant", "tool_calls": [{"function": {"name": "now", "arguments": arguments}}]}],
                "messages[0].tool_calls[0].function.arguments",
            )
            for arguments in ("[" * 100_000, '{"a": ' * 100_000, '{"a": "\\ud800"}', '{"a": NaN}', "[]")
        ),
        ([{"role": "assistant", "refusal": {"a": 1}}], "messages[0].refusal"),
        ([{"role": "assistant", "tool_calls": [{**CALL, "id": 5}]}], "messages[0].tool_calls[0].id"),
        ([{"role": "assistant", "tool_calls": [{**CALL, "type": "web"}]}], "messages[0].tool_calls[0]"),
        ([{"role": "assistant", "content": "a", "function_call": CALL["function"]}], "messages[0].function_call"),
    ],
)
def test_wrong_messages_are_named(messages, param):
    with pytest.raises(BadRequest) as caught:
        check_messages(messages, "messages")
    assert caught.value.param == param


@pytest.mark.parametrize(
    "template, has",
    [(None, "no chat template"), ({"a": "x", "b": "y"}, "several chat templates and no default")],
)
def test_a_model_without_a_template_is_told_once(stories260k, template, has):
    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    tokenizer.chat_template = template
    with pytest.raises(BadRequest) as caught:
        render(tokenizer, [{"role": "user", "content": "Hi"}], None, {})
    assert str(caught.value) == (
        f"This model has {has}, so that it cannot read messages: start the server with --chat-template FILE, or use "
        "/v1/completions."
    )


def test_an_answer_of_the_official_client_is_a_message():
    """Its `message.model_dump()` has all keys."""
    empty = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    assert check_messages([{"role": "assistant", "content": "Hi", **empty}], "messages") == [
        {"role": "assistant", "content": "Hi"}
    ]


def test_a_developer_is_the_system_where_the_template_knows_no_developer():
    message = [{"role": "developer", "content": "a"}]
    assert for_template(message, "{{ system }}")[0]["role"] == "system"
    assert for_template(message, "{% if role == 'developer' %}")[0]["role"] == "developer"
