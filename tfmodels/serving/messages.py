"""The messages of a chat request, checked and as chat templates read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfmodels.serving.errors import BadRequest
from tfmodels.utils.json_files import parse_value
from tfmodels.utils.text import quote

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MOST_MESSAGES = 4096
_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "reasoning_content", "reasoning"}
# Keys of answers that clients send back: the first is forgotten, the others are empty where this server wrote them.
_IGNORED_KEYS = {"annotations", "audio", "function_call"}


def check_messages(value: Any, name: str) -> list[dict[str, Any]]:
    """Check `messages` and return them for a template: texts for contents, objects for arguments of tool calls.

    Raises:
        BadRequest: a message is no such; `param` says which part of it.

    Example:
        >>> check_messages([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "messages")
        [{'role': 'user', 'content': 'Hi'}]
    """
    if not isinstance(value, list) or not value:
        raise BadRequest(f"{name}={quote(value)}: a list of at least one message was expected.", name)
    if len(value) > MOST_MESSAGES:
        raise BadRequest(f"{name} has {len(value)} messages; up to {MOST_MESSAGES} are taken.", name)
    return [_message(message, f"{name}[{index}]") for index, message in enumerate(value)]


def _message(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{name}={quote(value)}: an object with role and content was expected.", name)
    for key, part in value.items():
        if key not in _KEYS and (key not in _IGNORED_KEYS or (key != "annotations" and part is not None)):
            hint = "; use tool_calls" if key == "function_call" else ""
            raise BadRequest(f"{name} has an unknown key {quote(key)}{hint}.", f"{name}.{key[:100]}")
    role = value.get("role")
    if role not in ROLES or not isinstance(role, str):
        words = ", ".join(ROLES)
        raise BadRequest(f"{name}.role={quote(role)}: one of {words} was expected.", f"{name}.role")
    message = {"role": role}
    calls = value.get("tool_calls")
    if value.get("content") is not None:
        message["content"] = _text_of(value["content"], f"{name}.content")
    elif not (role == "assistant" and (calls or value.get("refusal"))):
        raise BadRequest(f"{name}.content is missing; a text was expected.", f"{name}.content")
    else:
        message["content"] = value.get("refusal") or ""
    for key in ("name", "tool_call_id", "reasoning_content", "reasoning", "refusal"):
        if value.get(key) is not None:
            if not isinstance(value[key], str):
                raise BadRequest(f"{name}.{key}={quote(value[key])}: a text was expected.", f"{name}.{key}")
            if key != "refusal":  # which stands as the content, where there is no other
                message[key] = value[key]
    if role == "tool" and "tool_call_id" not in message:
        raise BadRequest(
            f"{name}.tool_call_id is missing; the id of the call that it answers was expected.", f"{name}.tool_call_id"
        )
    if calls is not None:
        if role != "assistant" or not isinstance(calls, list):
            raise BadRequest(
                f"{name}.tool_calls={quote(calls)}: a list, of the assistant's message alone, was expected.",
                f"{name}.tool_calls",
            )
        made = [_call(call, f"{name}.tool_calls[{index}]") for index, call in enumerate(calls)]
        if made:
            message["tool_calls"] = made
    return message


def _text_of(content: Any, name: str) -> str:
    """A content as one text: it may come in parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise BadRequest(f"{name}={quote(content)}: a text or a list of at least one part was expected.", name)
    found = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get(kind) if kind in ("text", "refusal") else None
        if not isinstance(text, str):
            raise BadRequest(
                f'{name}[{index}]={quote(part)}: a part {{"type": "text", "text": ...}} was expected; this model '
                "reads text alone.",
                f"{name}[{index}]",
            )
        found.append(text)
    return "".join(found)


def _call(call: Any, name: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    is_call = isinstance(function, dict) and isinstance(function.get("name"), str)
    if not is_call or call.get("type") not in (None, "function"):
        raise BadRequest(f"{name}={quote(call)}: a function with name and arguments was expected.", name)
    if call.get("id") is not None and not isinstance(call["id"], str):
        raise BadRequest(f"{name}.id={quote(call['id'])}: a text was expected.", f"{name}.id")
    arguments = function.get("arguments", "{}")
    try:
        # Templates write the arguments themselves.
        arguments = parse_value((arguments or "{}").encode(), name) if isinstance(arguments, str) else arguments
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest(
            f"{name}.function.arguments={quote(function['arguments'])}: the JSON of an object was expected.",
            f"{name}.function.arguments",
        )
    made = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return made if call.get("id") is None else {"id": call["id"], **made}


def for_template(messages: Sequence[Mapping[str, Any]], template: str) -> list[dict[str, Any]]:
    """The messages with "developer" as "system" where a template does not know that role."""
    knows = "developer" in template
    return [
        {**message, "role": "system"} if message["role"] == "developer" and not knows else dict(message)
        for message in messages
    ]


def render(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any],
) -> list[int]:
    """The prompt of a conversation, by the tokenizer's chat template.

    Raises:
        BadRequest: there is no template, or it refuses the conversation.
    """
    try:
        template = tokenizer.get_chat_template(tools=tools)
    except ValueError as error:
        has = "no chat template" if tokenizer.chat_template is None else "several chat templates and no default"
        raise BadRequest(
            f"This model has {has}, so that it cannot read messages: start the server with --chat-template FILE, or "
            "use /v1/completions.",
            "messages",
            "no_chat_template",
        ) from error
    if tools is not None and "tools" not in template:
        raise BadRequest("The model's chat template knows no tools.", "tools")
    return _checked(
        lambda: tokenizer.apply_chat_template(
            for_template(messages, template),
            tools=tools,
            add_generation_prompt=True,
            return_dict=False,
            **variables,
        ),
        "chat_template_kwargs" if variables else "messages",
    )


def _checked(make: Callable[[], list[int]], of_other_types: str) -> list[int]:
    """The prompt; `of_other_types` is the field that is to blame where the template meets what it does not expect."""
    try:
        return make()
    except (ValueError, TypeError) as error:
        field = of_other_types if isinstance(error, TypeError) else "messages"
        raise BadRequest(f"The chat template refuses the {field}: {error}", field) from error
