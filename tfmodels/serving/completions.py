"""`/v1/completions`: texts or token ids to their continuations."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tfmodels.serving import fields, logprobs, sampling
from tfmodels.serving.choices import Delta, Run
from tfmodels.serving.errors import BadRequest
from tfmodels.serving.inputs import Input, check_inputs
from tfmodels.serving.opening import Opening
from tfmodels.serving.service import Service
from tfmodels.serving.worker import Reservation

DEFAULT_TOKENS = 16
MOST_LOGPROBS = 5
MOST_PROMPTS = 2048

FIELDS = fields.Fields(
    {
        **sampling.CHECKS,
        "prompt": check_inputs(MOST_PROMPTS),
        "max_tokens": fields.integer(0),
        "logprobs": fields.integer(0, MOST_LOGPROBS),
        "echo": fields.flag,
        "best_of": fields.integer(1, sampling.MOST_CHOICES),
    },
    ignored=sampling.IGNORED,
    refused={"suffix": "this model continues texts and fills no gaps"},
)


class Completions(Opening):
    """One request; arguments and errors as in `Opening`."""

    fields, needed, prefix = FIELDS, "prompt", "cmpl"

    def __init__(self, service: Service, body: Mapping[str, Any]):
        super().__init__(service, body)
        request = self.request
        if request.get("best_of", self.each) != self.each:
            raise BadRequest("best_of is not supported here but where it equals n.", "best_of")
        self.inputs: list[Input] = request["prompt"]
        self.count = self.each * len(self.inputs)
        self.echo = request.get("echo", False)
        if request.get("max_tokens") == 0 and not self.echo:
            raise BadRequest("max_tokens=0: an integer of at least 1 was expected, or 0 with echo.", "max_tokens")

    def _room(self) -> Reservation:
        return self.service.worker.reserve(self.count, "n" if self.each > 1 else "prompt")

    async def _run(self) -> Run:
        model, request = self.model, self.request
        ids = [await self.service.in_background(one.ids, model) for one in self.inputs]
        settings = sampling.settings_of(request, model.config)
        if "logprobs" in request:
            settings["logprobs"] = request["logprobs"]
        await self.service.prepare(model, settings)
        prompts, own = [], []
        for prompt in ids:
            most = sampling.new_tokens(
                request.get("max_tokens"), "max_tokens", len(prompt), model.capacity, DEFAULT_TOKENS
            )
            for number in range(self.each):
                prompts.append(prompt)
                own.append({**sampling.for_choice(settings, number), "max_new_tokens": most})
        return Run(self.service.worker, model, prompts, own, self.service.metrics, self.each)

    async def _deltas(self, run: Run) -> AsyncIterator[Delta]:
        """The prompt where it is echoed, then what is new."""
        ends = "length" if self.request.get("max_tokens") == 0 else None
        if self.echo:
            best, scored = self.request.get("logprobs"), None
            for index, prompt in enumerate(run.prompts):
                if best is not None and index % self.each == 0:
                    job = functools.partial(self.model.score, prompt, best)
                    scored = await self.service.worker.call(job)
                text = self.inputs[index // self.each].text(self.model)
                yield Delta(index, text, (), scored, ends)
        if not ends:
            async for delta in run.deltas():
                yield delta

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        with self._room():
            run = await self._run()
            texts: list[list[str]] = [[] for _ in range(self.count)]
            tokens: list[list[Any]] = [[] for _ in range(self.count)]
            reasons: list[str | None] = [None] * self.count
            async for delta in self._deltas(run):
                texts[delta.index].append(delta.text)
                tokens[delta.index] += delta.logprobs or ()
                reasons[delta.index] = delta.finish_reason
        choices = []
        for index in range(self.count):
            content = None
            if "logprobs" in self.request:
                content, _ = logprobs.completion(self.model.tokens, tokens[index], 0)
            text = "".join(texts[index])
            choices.append({"index": index, "text": text, "logprobs": content, "finish_reason": reasons[index]})
        return {**self.head("text_completion"), "choices": choices, "usage": run.usage()}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The answer piece by piece."""
        options = self.request.get("stream_options", {})
        head = self.head("text_completion")
        offsets = [0] * self.count
        with self._room():
            run = await self._run()
            async for delta in self._deltas(run):
                index, content = delta.index, None
                if delta.logprobs:
                    content, offsets[index] = logprobs.completion(self.model.tokens, delta.logprobs, offsets[index])
                if delta.text or content or delta.finish_reason:
                    reason = delta.finish_reason
                    choice = {"index": index, "text": delta.text, "logprobs": content, "finish_reason": reason}
                    yield {**head, "choices": [choice], **run.chunk_usage(options)}
            if options.get("include_usage"):
                yield {**head, "choices": [], "usage": run.usage()}
