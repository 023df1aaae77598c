"""The sources of answers in `tfmodels chat`: a model on this machine, or a server that speaks OpenAI's protocol."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfmodels.cli.common import CommandError
from tfmodels.utils.text import quote, shorten

Messages = Sequence[Mapping[str, Any]]
# Settings of an answer that /set and the flags know: the type of each.
SETTINGS: dict[str, type] = {
    "max_new_tokens": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "seed": int,
}
# Where neither the user nor the model's generation_config.json says otherwise.
DEFAULTS = {"max_new_tokens": 1024, "temperature": 0.7}
# Settings that the protocol of servers has under other names.
_RENAMED = {"max_new_tokens": "max_tokens"}
_TIMEOUT_S = 600.0


class Speaker:
    """Base of those who answer.

    Attributes:
        name: what it is called in the greeting.
        tokens: tokens of the last answer, as far as they are known.
    """

    name: str
    tokens: int = 0

    def answer(self, messages: Messages, settings: Mapping[str, Any]) -> Iterator[str]:
        """The answer to a conversation, piece by piece.

        An interrupt (Ctrl-C) while it is asked for ends the answer.

        Args:
            messages: the conversation, the last of the user.
            settings: those of `SETTINGS` that are set.
        """
        raise NotImplementedError

    def count(self, messages: Messages) -> str:
        """The length of a conversation, in words."""
        raise NotImplementedError


class LocalSpeaker(Speaker):
    """A model of this machine; what it has read of a conversation stays in its cache from turn to turn.

    Args:
        name: of the model.
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        context: most tokens of a conversation and the next answer.
        jit_compile: compile by XLA.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, *, context: int, jit_compile: bool = True):
        from tfmodels.generation.engine import Engine

        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.context = context
        self.engine = Engine(model, rows=1, capacity=context, tokenizer=tokenizer, jit_compile=jit_compile)

    def prompt(self, messages: Messages) -> list[int]:
        """The tokens of a conversation up to where the answer begins."""
        options = {"add_generation_prompt": True, "return_dict": False, "tokenizer_kwargs": {"verbose": False}}
        return self.tokenizer.apply_chat_template(messages, **options)

    def answer(self, messages: Messages, settings: Mapping[str, Any]) -> Iterator[str]:
        self.tokens = 0
        prompt = self.prompt(messages)
        if len(prompt) >= self.context:
            raise CommandError(
                f"the conversation has {len(prompt)} tokens, and there is room for {self.context}: /undo or /clear, "
                "or start with a larger --context."
            )
        request = self.engine.add(prompt, **self.config(settings))
        with _interrupts() as interrupted:
            completion = None
            while completion is None:
                if interrupted.is_set():
                    self.engine.cancel(request)
                for event in self.engine.step():
                    self.tokens += len(event.tokens)
                    completion = event.completion
                    if event.text:
                        yield event.text
        if completion.finish_reason == "error":
            raise CommandError("the model's scores were not numbers (NaN): try another --dtype.")
        if interrupted.is_set():
            raise KeyboardInterrupt

    def config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of the engine for an answer; temperature 0 takes the likeliest token always."""
        own = self.model.generation_config
        known = {name: getattr(own, name) for name in (*DEFAULTS, "do_sample") if own.is_given(name)}
        found = {**DEFAULTS, **known, **settings}
        if found["temperature"] == 0 or (known.get("do_sample") is False and "temperature" not in settings):
            sampling = ("temperature", "top_k", "top_p", "min_p")
            found = {name: value for name, value in found.items() if name not in sampling}
            found |= {"do_sample": False, **dict.fromkeys(sampling)}
        else:
            found["do_sample"] = True
        ends = [*own.eos_token_ids, self.tokenizer.eos_token_id]
        return {**found, "eos_token_id": list(dict.fromkeys(token for token in ends if token is not None)) or None}

    def count(self, messages: Messages) -> str:
        if not messages:
            return f"no conversation yet; room for {self.context} tokens"
        return f"{len(self.prompt(messages))} of {self.context} tokens"


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Inside, Ctrl-C sets the event instead of raising, so that a step of the model is never broken off halfway."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


class ServerSpeaker(Speaker):
    """A server with OpenAI's interface for chats.

    Args:
        url: the address of the interface, such as http://localhost:8000/v1; without a path, /v1 is meant.
        api_key: sent as a bearer token.
        model: which of the server's models; default: its only or first one.

    Raises:
        CommandError: there is no such server, or it refuses.
    """

    def __init__(self, url: str, *, api_key: str | None = None, model: str | None = None):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(f"{quote(url)} is no address of a server; http://localhost:8000/v1 is one.")
        self.url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))
        self.headers = {"Content-Type": "application/json"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"
        # A proxy for the internet knows nothing of this machine.
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self.opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
        self.model = model or self._first_model()
        self.name = f"{self.model} at {self.url}"
        self.usage: Mapping[str, Any] = {}

    def _open(self, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, self.headers)
        try:
            return self.opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                raise CommandError(f"{self.url}: {error.code}: {_message(error.read(100_000))}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise CommandError(f"{self.url} cannot be reached: {shorten(reason)}") from error

    def _first_model(self) -> str:
        with self._open("models") as answer:
            content = answer.read(1_000_000)
        try:
            return json.loads(content)["data"][0]["id"]
        except (ValueError, LookupError, TypeError) as error:
            raise CommandError(
                f"{self.url}/models does not list a model ({shorten(content.decode('utf-8', 'replace'), 80)}); name "
                "one by --server-model, and check the address."
            ) from error

    def answer(self, messages: Messages, settings: Mapping[str, Any]) -> Iterator[str]:
        self.tokens, self.usage = 0, {}
        content = {
            "model": self.model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **{_RENAMED.get(name, name): value for name, value in settings.items()},
        }
        with self._open("chat/completions", content) as answer:
            for event in _events(answer):
                if error := event.get("error"):
                    text = error.get("message") if isinstance(error, Mapping) else error
                    raise CommandError(f"{self.url}: {shorten(text)}")
                self.usage = event.get("usage") or self.usage
                for choice in event.get("choices") or ():
                    piece = (choice.get("delta") or {}).get("content")
                    if piece:
                        self.tokens += 1
                        yield piece
        self.tokens = self.usage.get("completion_tokens") or self.tokens

    def count(self, messages: Messages) -> str:
        total = self.usage.get("total_tokens")
        return f"{total} tokens" if total else "the server has not said how many tokens there are"


def _events(lines: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to [DONE].

    Example:
        >>> list(_events([b'data: {"a": 1}', b"", b": a comment", b"data: [DONE]", b'data: {"b": 2}']))
        [{'a': 1}]
    """
    for line in lines:
        line = line.decode("utf-8").strip()
        if not line.startswith("data:"):
            continue
        text = line.removeprefix("data:").strip()
        if text == "[DONE]":
            return
        try:
            event = json.loads(text)
        except ValueError as error:
            raise CommandError(f"the server sent {quote(text)}, which is no JSON.") from error
        if isinstance(event, dict):
            yield event


def _message(content: bytes) -> str:
    """The message in the body of a server's error."""
    text = content.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        found = found.get("error", found)
        return shorten(found.get("message", found) if isinstance(found, dict) else found)
    except (ValueError, AttributeError):
        return shorten(text) or "no reason was given"
