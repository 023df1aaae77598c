"""`/v1/chat/completions`: conversations to answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from tfmodels.serving import fields, logprobs, messages, sampling, tools
from tfmodels.serving.choices import Run
from tfmodels.serving.errors import BadRequest
from tfmodels.serving.opening import Opening
from tfmodels.serving.service import Service

MOST_LOGPROBS = 20

FIELDS = fields.Fields(
    {
        **sampling.CHECKS,
        "messages": messages.check_messages,
        "max_tokens": fields.integer(1),
        "max_completion_tokens": fields.integer(1),
        "logprobs": fields.flag,
        "top_logprobs": fields.integer(0, MOST_LOGPROBS),
        "tools": tools.check_tools,
        "tool_choice": tools.check_choice,
        "parallel_tool_calls": fields.flag,
        "chat_template_kwargs": fields.mapping,
    },
    ignored=sampling.IGNORED,
    refused={
        "functions": "use tools",
        "function_call": "use tool_choice",
        "audio": "this model writes text",
        "modalities": "this model writes text",
        "prediction": "leave it out",
        "web_search_options": "leave it out",
        "reasoning_effort": "say it in chat_template_kwargs where the model's template knows it",
        "verbosity": "leave it out",
    },
)
# Arguments of apply_chat_template that are the server's.
_RESERVED = {"self", "conversation", "messages", "tools", "add_generation_prompt", "continue_final_message"}
_RESERVED |= {"chat_template", "tokenize"}
_RESERVED |= {"tokenizer_kwargs", "return_dict", "return_tensors", "return_assistant_tokens_mask"}
_RESERVED |= {"padding", "truncation", "max_length", "sanitize_control_tokens"}


class Chat(Opening):
    """One request; arguments and errors as in `Opening`."""

    fields, needed, prefix = FIELDS, "messages", "chatcmpl"

    def __init__(self, service: Service, body: Mapping[str, Any]):
        super().__init__(service, body)
        request, self.count = self.request, self.each
        if "max_tokens" in request and "max_completion_tokens" in request:
            raise BadRequest("Give max_completion_tokens or max_tokens, not both.", "max_tokens")
        if "top_logprobs" in request and not request.get("logprobs"):
            raise BadRequest("top_logprobs is only allowed when logprobs is true.", "top_logprobs")
        self.tools = tools.choose(request.get("tools"), request.get("tool_choice"))

    async def _run(self) -> Run:
        request = self.request
        variables = request.get("chat_template_kwargs", {})
        if taken := _RESERVED & variables.keys():
            raise BadRequest(f"chat_template_kwargs may not set {min(taken)}.", "chat_template_kwargs")
        prompt = await self.service.in_background(
            messages.render, self.model.tokenizer, request["messages"], self.tools.told, variables
        )
        name = "max_tokens" if "max_tokens" in request else "max_completion_tokens"
        settings = sampling.settings_of(request, self.model.config)
        settings["max_new_tokens"] = sampling.new_tokens(request.get(name), name, len(prompt), self.model.capacity)
        if self.tools.response_format is not None:
            if settings.get("response_format", {}).get("type", "text") != "text":
                raise BadRequest("response_format and a forced tool_choice contradict each other.", "tool_choice")
            settings["response_format"] = self.tools.response_format
        if request.get("logprobs"):
            settings["logprobs"] = request.get("top_logprobs", 0)
        try:
            await self.service.prepare(self.model, settings)
        except BadRequest as error:
            if self.tools.response_format is None:
                raise
            # The grammar of a forced call is made of the tools' schemas.
            raise BadRequest(f"The parameters of a tool are no schema that calls can meet: {error}", "tools") from None
        own = [sampling.for_choice(settings, number) for number in range(self.count)]
        return Run(self.service.worker, self.model, [prompt] * self.count, own, self.service.metrics, self.count)

    def _reader(self) -> Any:
        names = [tool["function"]["name"] for tool in self.tools.told or ()]
        return tools.CallReader(names) if self.tools.reads else None

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        with self.service.worker.reserve(self.count):
            run = await self._run()
            texts: list[list[str]] = [[] for _ in range(self.count)]
            tokens: list[list[Any]] = [[] for _ in range(self.count)]
            reasons = [""] * self.count
            async for delta in run.deltas():
                texts[delta.index].append(delta.text)
                tokens[delta.index] += delta.logprobs or ()
                reasons[delta.index] = delta.finish_reason or ""
        choices = []
        for index in range(self.count):
            message, called = self._message("".join(texts[index]))
            content = logprobs.chat(self.model.tokens, tokens[index]) if self.request.get("logprobs") else None
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": content,
                    "finish_reason": "tool_calls" if called and reasons[index] == "stop" else reasons[index],
                }
            )
        return {**self.head("chat.completion"), "choices": choices, "usage": run.usage()}

    def _message(self, text: str) -> tuple[dict[str, Any], bool]:
        """The assistant's message, and whether it calls a tool."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        reader = self._reader()
        if reader is None:
            return message, False
        parts = [*reader.add(text), *reader.end()]
        calls = [part.content() for part in parts if isinstance(part, tools.Call)]
        calls = calls[:1] if self.request.get("parallel_tool_calls") is False else calls
        if calls:
            said = "".join(part for part in parts if isinstance(part, str)).strip()
            message |= {"content": said or None, "tool_calls": calls}
        return message, bool(calls)

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The answer piece by piece."""
        options = self.request.get("stream_options", {})
        head = self.head("chat.completion.chunk")
        readers = [self._reader() for _ in range(self.count)]
        calls, begun = [0] * self.count, [False] * self.count

        def chunk(index: int, delta: dict[str, Any], content: Any = None, reason: str | None = None) -> dict[str, Any]:
            choice = {"index": index, "delta": delta, "logprobs": content, "finish_reason": reason}
            return {**head, "choices": [choice], **run.chunk_usage(options)}

        with self.service.worker.reserve(self.count):
            run = await self._run()
            async for delta in run.deltas():
                index, reader = delta.index, readers[delta.index]
                if not begun[index]:
                    begun[index] = True
                    yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
                parts: list[Any] = [delta.text] if delta.text else []
                if reader is not None:
                    parts = reader.add(delta.text) + (reader.end() if delta.finish_reason else [])
                content = logprobs.chat(self.model.tokens, delta.logprobs) if delta.logprobs else None
                for part in parts:
                    if isinstance(part, str):
                        yield chunk(index, {"content": part}, content)
                    elif calls[index] and self.request.get("parallel_tool_calls") is False:
                        continue
                    else:
                        yield chunk(index, {"tool_calls": [{"index": calls[index], **part.content()}]}, content)
                        calls[index] += 1
                    content = None
                if content is not None:
                    yield chunk(index, {}, content)
                if delta.finish_reason:
                    reason = delta.finish_reason
                    yield chunk(index, {}, reason="tool_calls" if calls[index] and reason == "stop" else reason)
            if options.get("include_usage"):
                yield {**head, "choices": [], "usage": run.usage()}
