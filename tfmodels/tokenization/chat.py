"""Chat templates: conversations to texts and ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfmodels.tokenization.batch_encoding import BatchEncoding
from tfmodels.tokenization.encoding import TextToIds
from tfmodels.tokenization.sandbox import has_generation_tag, plain, render
from tfmodels.tokenization.tool_schemas import tool_schemas
from tfmodels.utils.text import quote, some
from tfmodels.utils.warn import warn

# The names under which messages carry what a model thought before it answered; templates read the first.
REASONING = ("reasoning_content", "thinking", "reasoning")
# Marks where the last message ends, in characters that no filter changes. A template that strips takes the space.
_END = "\U000f0001\U000f0002\U000f0001 "


class ChatTemplates(TextToIds):
    """Base of tokenizers: conversations by a template."""

    chat_template: str | dict[str, str] | None

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """The template that `apply_chat_template` uses.

        Args:
            chat_template: a template, or the name of one of the tokenizer's; default: the tokenizer's own.
            tools: with tools, the template named "tool_use" goes before the one named "default".

        Returns:
            The template's source.

        Raises:
            ValueError: there is none, or there are several and none is the default.
        """
        own = self.chat_template
        if isinstance(own, Mapping):
            if chat_template is not None:
                return own.get(chat_template, chat_template)
            for name in (["tool_use"] if tools is not None else []) + ["default"]:
                if name in own:
                    return own[name]
            raise ValueError(
                f"This tokenizer has several chat templates and no default; name one of {some(own)} as chat_template."
            )
        if chat_template is None and own is None:
            raise ValueError(
                "This tokenizer has no chat template: set tokenizer.chat_template, or give chat_template=, the source "
                "of a jinja2 template."
            )
        template = own if chat_template is None else chat_template
        if not isinstance(template, str):
            raise ValueError(f"chat_template must be the source of a jinja2 template, got {quote(template)}.")
        return template

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Any = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        *,
        sanitize_control_tokens: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Write conversations as the model knows them, by its chat template.

        Templates come from checkpoints, and run in a sandbox with limits: see `tfmodels.tokenization.sandbox`.

        Args:
            conversation: messages, such as [{"role": "user", "content": "Hello"}], or a list of such lists. Objects
                with fields (dataclasses, pydantic models) may stand for dicts.
            tools: functions with type hints and docstrings, or JSON schemas, that the model may call.
            documents: dicts such as {"title": ..., "text": ...} that the model may read.
            chat_template: a template, or the name of one of the tokenizer's, instead of the usual one.
            add_generation_prompt: end with what stands before an answer.
            continue_final_message: leave the last message open, so that the model goes on with it; a string names the
                field to continue instead of "content".
            tokenize: return ids; False returns the text.
            padding, truncation, max_length, return_tensors: as for calling the tokenizer.
            return_dict: return a BatchEncoding; False returns the ids alone.
            return_assistant_tokens_mask: also return "assistant_masks", 1 for tokens inside the template's
                {% generation %} blocks.
            tokenizer_kwargs: further arguments for calling the tokenizer.
            sanitize_control_tokens: not supported.
            kwargs: further variables of the template, such as enable_thinking.

        Returns:
            BatchEncoding, ids or text; one for one conversation, a list for a list.

        Raises:
            ValueError: arguments that do not go together, no template, a wrong message, or a template that cannot be
                rendered (`ChatTemplateError`).

        Example:
            >>> from tfmodels import AutoTokenizer
            >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
            >>> tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\\n{% endfor %}"
            >>> tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
            '[user] Hello\\n'
        """
        if sanitize_control_tokens:
            raise ValueError(
                "sanitize_control_tokens=True is not supported; tokenizer_kwargs={'split_special_tokens': True} cuts "
                "every special token of the text like other text, the template's own among them."
            )
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise ValueError("return_assistant_tokens_mask=True needs tokenize=True and return_dict=True.")
        if continue_final_message and add_generation_prompt:
            raise ValueError(
                "continue_final_message and add_generation_prompt contradict each other: the one goes on with the "
                "last message, the other begins a new one."
            )
        if continue_final_message and return_assistant_tokens_mask:
            raise ValueError("continue_final_message does not go together with return_assistant_tokens_mask.")
        template = self.get_chat_template(chat_template, tools)
        if return_assistant_tokens_mask and not has_generation_tag(template):
            warn(
                "return_assistant_tokens_mask=True, but the chat template has no {% generation %} block: all masks "
                "are 0."
            )
        conversations, is_batch = _conversations(conversation)
        variables = plain({**self.special_tokens_map, **kwargs})
        variables |= {
            "tools": plain(tool_schemas(tools)),
            "documents": plain(_checked_documents(documents)),
            "add_generation_prompt": add_generation_prompt,
        }
        texts: list[str] = []
        spans: list[list[tuple[int, int]]] = []
        for messages in conversations:
            spans.append([])
            if continue_final_message:
                field = continue_final_message if isinstance(continue_final_message, str) else "content"
                texts.append(_open_ended(template, variables, messages, field))
            else:
                variables["messages"] = messages
                texts.append(render(template, variables, spans[-1] if return_assistant_tokens_mask else None))
        if not tokenize:
            return texts if is_batch else texts[0]
        encoded = self(
            texts if is_batch else texts[0],
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            **(tokenizer_kwargs or {}),
        )
        if return_assistant_tokens_mask:
            masks: Any = [_mask(encoded[row].offsets, spans[row]) for row in range(len(texts))]
            masks = masks if is_batch or return_tensors else masks[0]
            encoded["assistant_masks"] = BatchEncoding({"assistant_masks": masks}, tensor_type=return_tensors)[
                "assistant_masks"
            ]
        return encoded if return_dict else encoded["input_ids"]

    def encode_message_with_chat_template(
        self, message: Mapping[str, Any], conversation_history: Sequence[Any] | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids that a message adds to a conversation.

        Args:
            message: the message.
            conversation_history: the messages before it.
            kwargs: as for `apply_chat_template`.

        Returns:
            The ids of the whole conversation from where they differ from those of the history.

        Raises:
            ValueError: `add_generation_prompt` is among the arguments.
        """
        if "add_generation_prompt" in kwargs:
            raise ValueError("encode_message_with_chat_template encodes one message; it adds no generation prompt.")
        history = list(conversation_history or ())
        ids = self.apply_chat_template([*history, message], return_dict=False, **kwargs)
        before = self.apply_chat_template(history, return_dict=False, **kwargs) if history else []
        shared = min(len(ids), len(before))
        differs = next((index for index in range(shared) if ids[index] != before[index]), shared)
        return ids[differs:]


def checked_templates(value: Any) -> str | dict[str, str] | None:
    """The chat templates of a tokenizer's options or files: a source, or sources by name.

    Args:
        value: a source, a dict of sources, or a list of {"name", "template"} as in tokenizer_config.json.

    Raises:
        ValueError: it is none of these.

    Example:
        >>> checked_templates([{"name": "default", "template": "{{ messages }}"}])
        {'default': '{{ messages }}'}
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(entry, Mapping) for entry in value):
        value = {entry.get("name"): entry.get("template") for entry in value}
    if isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair):
        return dict(value)
    raise ValueError(
        f"chat_template must be a jinja2 template, a dict of them by name, or a list of dicts with name and template; "
        f"got {quote(value)}."
    )


def _conversations(given: Any) -> tuple[list[list[dict[str, Any]]], bool]:
    """Conversations of plain messages, and whether several were given."""
    if isinstance(given, (str, Mapping)) or not (hasattr(given, "__iter__") or hasattr(given, "messages")):
        raise ValueError(f"conversation must be a list of messages, or a list of such lists; got {quote(given)}.")
    rows = getattr(given, "messages", given)
    rows = list(rows)
    if not rows:
        raise ValueError("The conversation is empty; it needs a message.")
    is_batch = isinstance(rows[0], (list, tuple)) or hasattr(rows[0], "messages")
    return [_messages(row) for row in (rows if is_batch else [rows])], is_batch


def _messages(conversation: Any) -> list[dict[str, Any]]:
    found = []
    for message in getattr(conversation, "messages", conversation):
        message = plain(_as_dicts(message))
        if not isinstance(message, dict):
            raise ValueError(
                f"A message must be a dict such as {{'role': ..., 'content': ...}}, got {quote(message)}."
            )
        # Interfaces write None for a missing content or missing tool calls, which templates would print.
        message = {name: value for name, value in message.items() if value is not None}
        thought = next((message[name] for name in REASONING if name in message), None)
        if thought is not None:
            message = {"thinking": thought, **message, "reasoning_content": thought}
        found.append(message)
    return found


def _as_dicts(value: Any) -> Any:
    """The value with objects that have fields as dicts."""
    if isinstance(value, Mapping):
        return {name: _as_dicts(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_dicts, value)) if type(value) in (list, tuple) else [*map(_as_dicts, value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_dicts(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):  # pydantic, which clients of chat services use
        return _as_dicts(value.model_dump())
    return value


def _checked_documents(documents: Any) -> list[dict[str, Any]] | None:
    if documents is None:
        return None
    documents = list(documents)
    if wrong := [document for document in documents if not isinstance(document, Mapping)]:
        raise ValueError(f"documents must be dicts such as {{'title': ..., 'text': ...}}, got {quote(wrong[0])}.")
    return documents


def _open_ended(template: str, variables: dict[str, Any], messages: list[dict[str, Any]], field: str) -> str:
    """Render a conversation up to the end of what its last message says in `field`."""
    last = dict(messages[-1])
    content = last.get(field)
    fields = [name for name in REASONING if last.get(name) == content] if field in REASONING else [field]
    if content is None:
        raise ValueError(f"continue_final_message: the last message has no {quote(field)} to continue.")
    if not any(name in template for name in fields):
        raise ValueError(f"continue_final_message={quote(field)}: the chat template does not read this field.")
    if isinstance(content, str):
        last |= dict.fromkeys(fields, content + _END)
    else:
        parts = [dict(part) if isinstance(part, dict) else part for part in content]
        text = next((part for part in reversed(parts) if isinstance(part, dict) and "text" in part), None)
        if text is None:
            raise ValueError("continue_final_message: the last message has no text to continue.")
        content, text["text"] = text["text"], text["text"] + _END
        last[field] = parts
    rendered = render(template, {**variables, "messages": [*messages[:-1], last]})
    end = rendered.rfind(_END.strip())
    if end < 0 or content.strip() not in rendered:
        raise ValueError(
            "continue_final_message: the chat template leaves out or changes the last message, so that there is "
            f"nothing to continue; the message is {quote(content)}."
        )
    # A template that strips the message also strips what comes before the mark.
    return rendered[:end] if rendered[end:].startswith(_END) else rendered[:end].rstrip()


def _mask(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[int]:
    """1 for every token that has characters inside one of the spans; both are in order."""
    mask = [0] * len(offsets)
    current = 0
    for index, (start, end) in enumerate(offsets):
        while current < len(spans) and start >= spans[current][1]:
            current += 1
        if current < len(spans) and end > spans[current][0]:
            mask[index] = 1
    return mask
