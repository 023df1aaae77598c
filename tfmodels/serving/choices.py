"""The choices of one completion request: from the engine's events to texts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfmodels.serving.errors import ServerError
from tfmodels.serving.metrics import Metrics
from tfmodels.serving.worker import Worker

_REASONS = {"stop": "stop", "length": "length", "time": "length", "cancelled": "stop"}


class Delta(NamedTuple):
    """A new piece of a choice.

    Fields:
        index: of the choice.
        text: new text; may be empty.
        tokens: new token ids.
        logprobs: what the engine tells of them, as many; None where nobody asked.
        finish_reason: "stop" or "length" where this is the last of the choice.
    """

    index: int
    text: str
    tokens: tuple[int, ...]
    logprobs: Sequence[Any] | None
    finish_reason: str | None


class Run:
    """Sends the choices of a request to the engine, and reads them.

    Args:
        worker: the thread with the model.
        model: the model.
        prompts: token ids, for each choice.
        settings: of `Engine.add`, for each choice.
        metrics: counts what happens.
        each: choices of one prompt, which stand side by side.
    """

    def __init__(
        self,
        worker: Worker,
        model: Any,
        prompts: Sequence[Sequence[int]],
        settings: Sequence[Mapping[str, Any]],
        metrics: Metrics,
        each: int,
    ):
        self._worker, self._model, self._metrics = worker, model, metrics
        self.prompts, self._settings, self._each = prompts, settings, each
        self._made = [0] * len(prompts)
        self._cached = [0] * len(prompts)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Yield new pieces as they come; a reader that stops early gives the rest up.

        Raises:
            APIError: the engine refused the request, or failed.
        """
        started, times = time.perf_counter(), {}
        answers = self._worker.submit(self._model.name, self.prompts, self._settings)
        try:
            while not answers.done:
                index, event = await answers.next()
                now = time.perf_counter()
                if event.tokens:
                    if index not in times:
                        self._metrics.first_token(now - started)
                    times[index] = now
                yield self._delta(index, event)
                if event.completion is not None:
                    self._metrics.answered(
                        prompt=len(self.prompts[index]),
                        cached=self._cached[index],
                        made=self._made[index],
                        seconds=now - started,
                    )
        finally:
            answers.close()

    def _delta(self, index: int, event: Any) -> Delta:
        completion, reason = event.completion, None
        self._made[index] += len(event.tokens)
        if completion is not None:
            if completion.finish_reason == "error":
                raise ServerError(f"The request failed: {completion.error}")
            self._cached[index] = completion.reused
            reason = _REASONS[completion.finish_reason]
        return Delta(index, event.text or "", event.tokens, event.logprobs, reason)

    def chunk_usage(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The `usage` of a chunk that is not the last, as `stream_options` ask for it."""
        if options.get("continuous_usage_stats"):
            return {"usage": self.usage()}
        return {"usage": None} if options.get("include_usage") else {}

    def usage(self) -> dict[str, Any]:
        """Tokens read and made so far, as clients get it; a prompt of several choices counts once."""
        read = sum(map(len, self.prompts[:: self._each]))
        made = sum(self._made)
        return {
            "prompt_tokens": read,
            "completion_tokens": made,
            "total_tokens": read + made,
            "prompt_tokens_details": {"cached_tokens": sum(self._cached[:: self._each])},
        }
