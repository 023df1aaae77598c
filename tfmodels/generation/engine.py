"""Continuous batching: requests of every length and setting share the rows of one model.

Prompts are run in chunks between the decoding steps of the others, and a row takes the next request as soon as it has
answered one. What a row writes does not depend on its neighbours.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.prefix_cache import PrefixCache
from tfmodels.generation.prompt import array_of
from tfmodels.generation.request import Completion, Event, Request, check_supported
from tfmodels.generation.run import seed_of
from tfmodels.generation.slots import Rows, RowSettings, Slots
from tfmodels.generation.stopping import StopStrings
from tfmodels.generation.structured import Grammar, Matcher, wants_grammar
from tfmodels.utils.text import quote

# Decoding steps in one call of the device: new requests wait so long, and its overhead is shared by so many.
_STEPS = 8
_SMALLEST_CHUNK = 16


@dataclasses.dataclass
class _Row:
    """A row that works on a request."""

    request: Request
    seed: int
    limit: int
    run: int
    reused: int
    stop: StopStrings | None
    deadline: float | None
    matcher: Matcher | None = None
    new: list[int] = dataclasses.field(default_factory=list)
    finish_reason: str | None = None


class Engine:
    """Serves requests with a fixed number of rows.

    `add` takes a request, `step` does the next piece of work and tells what is new, `run` steps until all requests are
    answered. All methods may be called from several threads.

    Args:
        model: a causal language model.
        rows: requests that are worked on at a time.
        capacity: most tokens of a prompt and its continuation.
        prefill_chunk: tokens of a prompt that are run between two decoding steps of the others.
        tokenizer: reads the text for `stop_strings`.
        jit_compile: whether programs are compiled by XLA.

    Raises:
        ValueError: a size below 1, or a capacity beyond the model's positions.

    Example:
        >>> from tfmodels import Engine, TFLlamaForCausalLM
        >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
        >>> engine = Engine(model, rows=2, capacity=64, jit_compile=False)
        >>> first = engine.add([1, 403, 407, 261, 378], max_new_tokens=4)
        >>> second = engine.add([1, 403], max_new_tokens=3)
        >>> answers = engine.run()
        >>> answers[first].tokens, answers[second].finish_reason
        ((432, 383, 286, 261), 'length')
    """

    def __init__(
        self,
        model: Any,
        *,
        rows: int = 8,
        capacity: int | None = None,
        prefill_chunk: int = 256,
        tokenizer: Any = None,
        jit_compile: bool = True,
    ):
        limit = model.backbone.position_limit
        capacity = model.config.max_position_embeddings if capacity is None else capacity
        for name, value in (("rows", rows), ("capacity", capacity), ("prefill_chunk", prefill_chunk)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={quote(value)}: an integer of at least 1 was expected.")
        if limit is not None and capacity > limit:
            raise ValueError(f"capacity={capacity} is beyond the model's {limit} positions.")
        self.model = model
        self.capacity = capacity
        self.chunk = max(_SMALLEST_CHUNK, prefill_chunk)
        self.tokenizer = tokenizer
        # The last chunk of a prompt is filled up: what it writes beyond needs room, too.
        self.slots = Slots(model, rows, capacity + self.chunk, jit_compile)
        self.prefixes = PrefixCache(rows)
        self._rows: list[_Row | None] = [None] * rows
        self._waiting: collections.deque[Request] = collections.deque()
        self._cancelled: list[Event] = []
        self._known: set[Any] = set()
        self._next_id = 0
        self._lock = threading.RLock()

    def add(
        self,
        prompt: Sequence[int],
        generation_config: GenerationConfig | None = None,
        *,
        id: Any = None,
        response_format: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        """Take a request.

        Args:
            prompt: token ids.
            generation_config: settings that go before the model's own.
            id: what events and the answer are called; default: a number.
            response_format: what the answer must look like, as in `generate`; needs the engine's tokenizer.
            **settings: settings of `GenerationConfig` for this request.

        Returns:
            The id.

        Raises:
            ValueError: an empty prompt, ids outside the vocabulary, a prompt that leaves no room for a token, a
                setting that the engine's rows do not have, stop strings without a tokenizer, an id that is in use.
            TypeError: an unknown setting.
        """
        config = self.model.generation_config
        if generation_config is not None:
            config = generation_config.with_defaults(config)
        config = config.update(**settings)
        check_supported(config)
        ids = tuple(array_of(prompt, "the prompt").reshape(-1).tolist())
        vocab_size = self.model.config.vocab_size
        if not ids or not all(isinstance(token, int) and 0 <= token < vocab_size for token in ids):
            raise ValueError(f"prompt={quote(prompt)}: a list of token ids from 0 to {vocab_size - 1} was expected.")
        if len(ids) >= self.capacity:
            raise ValueError(
                f"the prompt of {len(ids)} tokens leaves no room for a new one within capacity={self.capacity}."
            )
        config.new_tokens(len(ids), self.capacity)
        if config.stop_strings is not None:
            StopStrings(self.tokenizer, config.stop_strings)
        grammar = None
        if wants_grammar(response_format):
            grammar = Grammar(
                response_format,
                tokenizer=self.tokenizer,
                vocab_size=vocab_size,
                eos_token_ids=config.eos_token_ids,
            )
        with self._lock:
            if id is None:
                id, self._next_id = self._next_id, self._next_id + 1
            if id in self._known:
                raise ValueError(f"id={quote(id)} is in use: give every request an id of its own.")
            self._known.add(id)
            self._waiting.append(Request(ids, config, id, grammar))
        return id

    def cancel(self, id: Any) -> bool:
        """Give a request up; the next `step` tells what it has. Returns whether there was such a request."""
        with self._lock:
            for row in self._rows:
                if row is not None and row.request.id == id:
                    row.finish_reason = "cancelled"
                    return True
            for request in self._waiting:
                if request.id == id:
                    self._waiting.remove(request)
                    self._known.discard(id)
                    completion = Completion(id, request.prompt, (), "cancelled")
                    self._cancelled.append(Event(id, (), completion))
                    return True
        return False

    @property
    def pending(self) -> int:
        """Requests that are not answered yet."""
        with self._lock:
            return len(self._waiting) + sum(row is not None for row in self._rows)

    @property
    def stats(self) -> dict[str, float]:
        """Counts since the start: prompts, how many found a beginning in the cache, tokens, memory of the cache."""
        prefixes = self.prefixes
        return {
            "prompts": prefixes.prompts,
            "prefix_hits": prefixes.hits,
            "prompt_tokens": prefixes.prompt_tokens,
            "reused_tokens": prefixes.reused_tokens,
            "cache_bytes": self.slots.nbytes,
        }

    def run(self, *, show_progress: bool = False) -> dict[Any, Completion]:
        """Work until all requests are answered. Returns the answers that came, by id."""
        answers: dict[Any, Completion] = {}
        with _progress(self.pending, show_progress) as advance:
            while self.pending or self._cancelled:
                new = {event.id: event.completion for event in self.step() if event.completion is not None}
                answers |= new
                advance(len(new))
        return answers

    def step(self) -> list[Event]:
        """Give free rows to waiting requests, run one chunk of a prompt, and make a few tokens in every other row."""
        with self._lock:
            events, self._cancelled = self._cancelled, []
            self._admit()
            started = self._prefill()
            events += self._decode(started)
            return events

    # Prompts ---------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        while self._waiting and None in self._rows:
            request = self._waiting.popleft()
            free = [index for index, row in enumerate(self._rows) if row is None]
            source, reused = self.prefixes.best(request.prompt)
            index = source if source in free else self.prefixes.oldest(free)
            if source is not None and source != index:
                self.slots.copy_row(source, index)
            content = self.prefixes.rows[index]
            content.tokens = list(request.prompt[:reused])
            self.prefixes.touch(index)
            self.prefixes.count(request.prompt, reused)
            config, length = request.config, len(request.prompt)
            limit = min(config.new_tokens(length, self.capacity), self.capacity - length)
            stop = None if config.stop_strings is None else StopStrings(self.tokenizer, config.stop_strings)
            deadline = None if config.max_time is None else time.monotonic() + config.max_time
            matcher = None if request.grammar is None else request.grammar.matcher()
            self._rows[index] = _Row(request, seed_of(config.seed), limit, reused, reused, stop, deadline, matcher)

    def _prefill(self) -> dict[int, list[int]]:
        """Run a chunk of the prompt that waits longest. Returns its row's first token where it is complete."""
        index = min(
            (i for i, row in enumerate(self._rows) if row is not None and row.run < len(row.request.prompt)),
            key=lambda i: self.prefixes.rows[i].used,
            default=None,
        )
        if index is None or self._rows[index].finish_reason is not None:
            return {}
        row = self._rows[index]
        tokens = list(row.request.prompt[row.run : row.run + self.chunk])
        size = _SMALLEST_CHUNK
        while size < len(tokens):
            size = min(2 * size, self.chunk)
        logits = self.slots.prefill(index, tokens, row.run, size)
        self.prefixes.rows[index].tokens += tokens
        row.run += len(tokens)
        if row.run < len(row.request.prompt):
            return {}
        made = ops.zeros((1,), "int32")
        token = self.slots.choose(logits, self._settings([row]), made)
        return {index: self._note(row, [token])}

    # Tokens ----------------------------------------------------------------------------------------------------

    def _settings(self, rows: Sequence[_Row | None]) -> RowSettings:
        configs = [GenerationConfig() if row is None else row.request.config for row in rows]
        # Two rows' lists of ends may differ in length; a few more columns change nothing.
        width = max(4, *(len(config.eos_token_ids) + 1 for config in configs))
        eos = np.full((len(rows), width), -1, "int32")
        for index, config in enumerate(configs):
            eos[index, : len(config.eos_token_ids)] = config.eos_token_ids
        vocab_size = self.model.config.vocab_size

        def column(values: Iterable[Any], dtype: str) -> Any:
            return ops.convert_to_tensor(np.asarray(list(values), dtype)[:, None])

        return RowSettings(
            do_sample=ops.convert_to_tensor(np.asarray([config.do_sample for config in configs])),
            seeds=ops.convert_to_tensor(np.asarray([0 if row is None else row.seed for row in rows], "int32")),
            temperature=column((config.temperature or 1.0 for config in configs), "float64"),
            top_k=column((config.top_k or vocab_size for config in configs), "int32"),
            top_p=column((config.top_p for config in configs), "float64"),
            min_p=column((config.min_p or 0.0 for config in configs), "float64"),
            eos=ops.convert_to_tensor(eos),
            allowed=self._allowed(rows),
        )

    def _allowed(self, rows: Sequence[_Row | None]) -> Any:
        """Which tokens may come next in each row, bool (rows, vocab_size); None where nothing is limited."""
        if all(row is None or row.matcher is None for row in rows):
            return None
        allowed = np.ones((len(rows), self.model.config.vocab_size), bool)
        for index, row in enumerate(rows):
            if row is not None and row.matcher is not None:
                allowed[index] = row.matcher.allowed()
        return ops.convert_to_tensor(allowed)

    def _decode(self, started: dict[int, list[int]]) -> list[Event]:
        """Make tokens in every row that has its prompt; `started` are the rows that got their first one just now."""
        news = {index: list(tokens) for index, tokens in started.items()}
        active = [
            index for index, row in enumerate(self._rows) if row is not None and row.new and row.finish_reason is None
        ]
        if active:
            waiting = any(row is not None and row.run < len(row.request.prompt) for row in self._rows)
            # Prompts that wait are run after fewer steps; a grammar says anew after every token what may follow.
            limited = any(self._rows[index].matcher is not None for index in active)
            steps = 1 if limited else _STEPS // 4 if waiting else _STEPS
            rows = self._state(active)
            sampling = any(self._rows[index].request.config.do_sample for index in active)
            output, made = self.slots.decode(
                rows,
                self._settings(self._rows),
                steps,
                sampling=sampling,
            )
            for index in active:
                row, tokens = self._rows[index], output[index, : made[index]].tolist()
                # The last token has not been run yet.
                self.prefixes.rows[index].tokens += [row.new[-1], *tokens[:-1]] if tokens else []
                news.setdefault(index, []).extend(self._note(row, tokens))
        return self._events(news)

    def _state(self, active: Sequence[int]) -> Rows:
        count = len(self._rows)
        tokens, made, left = (np.zeros(count, "int32") for _ in range(3))
        lengths = np.asarray([len(content.tokens) for content in self.prefixes.rows], "int32")
        for index in active:
            row = self._rows[index]
            tokens[index], made[index], left[index] = row.new[-1], len(row.new), row.limit - len(row.new)
        parts = [ops.convert_to_tensor(part) for part in (tokens, lengths, made, left)]
        return Rows(None, *parts, ops.zeros((count, _STEPS), "int32"), ops.convert_to_tensor(0, "int32"))

    def _note(self, row: _Row, tokens: Sequence[int]) -> list[int]:
        """Add tokens to a row's answer until one of them ends it. Returns those that were added."""
        for count, token in enumerate(tokens):
            row.finish_reason = self._end(row, token)
            if row.finish_reason == "error":
                return list(tokens[:count])
            row.new.append(token)
            if row.matcher is not None:
                row.matcher = row.matcher.after(token)
            if row.finish_reason is None and row.stop is not None:
                row.finish_reason = "stop" if row.stop([[*row.request.prompt, *row.new]])[0] else None
            if row.finish_reason is not None:
                return list(tokens[: count + 1])
        if row.deadline is not None and time.monotonic() > row.deadline:
            row.finish_reason = "time"
        return list(tokens)

    def _end(self, row: _Row, token: int) -> str | None:
        """The reason for which a row ends with a token, or None."""
        if token < 0:
            return "error"
        if token in row.request.config.eos_token_ids:
            return "stop"
        return "length" if len(row.new) + 1 >= row.limit else None

    def _events(self, news: dict[int, list[int]]) -> list[Event]:
        events = []
        for index, row in enumerate(self._rows):
            if row is None:
                continue
            request, tokens = row.request, tuple(news.get(index, ()))
            if row.finish_reason is None:
                if tokens:
                    events.append(Event(request.id, tokens))
                continue
            answer = Completion(request.id, request.prompt, tuple(row.new), row.finish_reason, row.reused)
            events.append(Event(request.id, tokens, answer))
            self._known.discard(request.id)
            self._rows[index] = None
            self.prefixes.touch(index)
        return events


@contextlib.contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar that counts answers; what it yields takes how many are new."""
    if not shown:
        yield lambda count: None
        return
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task("Generating", total=total)
        yield lambda count: progress.advance(task, count)
