"""Continuous batching: requests of every length and setting share the rows of one model.

Prompts are run in chunks between the decoding steps of the others, and a row takes the next request as soon as it has
answered one. What a row writes does not depend on its neighbours.

The file is long because it is one class, `Engine`; the cache, the programs and the rows are in `slots`,
`row_programs` and `row`.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmodels.generation import logits_processors as proc
from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.detokenizer import check_tokenizer
from tfmodels.generation.pace import Pace
from tfmodels.generation.prefix_cache import PrefixCache
from tfmodels.generation.prompt import check_room, ids_of
from tfmodels.generation.request import MOST_LOGPROBS, Completion, EngineFull, Event, Request, check_supported
from tfmodels.generation.row import Row, ending, token_logprobs
from tfmodels.generation.row_inputs import RowInputs
from tfmodels.generation.row_programs import STEPS, TOGETHER
from tfmodels.generation.row_settings import Kind, limits_of
from tfmodels.generation.row_text import Decoded
from tfmodels.generation.run import seed_of
from tfmodels.generation.slots import Slots
from tfmodels.generation.stopping import StopStrings
from tfmodels.generation.structured import Grammar, compute_masks, wants_grammar
from tfmodels.runtime.device import in_turn
from tfmodels.utils.progress import counting
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

# Prompts are run for so many chunks' worth of tokens between two calls that decode.
_CHUNKS = 2
_SMALLEST_CHUNK = 16
_ALIGNED = 16


class Engine:
    """Serves requests with a fixed number of rows.

    `add` takes a request, `step` does the next piece of work and tells what is new, `run` steps until all requests are
    answered. All methods may be called from several threads; `add` and `cancel` do not wait for the model. It forgets
    earlier prompts where weights have changed while no request was worked on, which it sees by one number of each;
    after a change of a few numbers call `forget_prompts`.

    Args:
        model: a causal language model.
        rows: requests that are worked on at a time.
        capacity: most tokens of a prompt and its continuation.
        prefill_chunk: most tokens of a prompt that one call runs; where tokens are streamed, twice as many of all
            prompts are run between two decoding steps of the others.
        tokenizer: gives events and answers their text, and reads the text for `stop_strings`.
        max_waiting: requests at most that wait for a row; None for any number.
        jit_compile: whether programs are compiled by XLA; default: what the model's `generation_config` says.
        cache_implementation: as in `GenerationConfig`: "quantized" keeps keys and values in eight bits; default: what
            the model's `generation_config` says.
        generation_config: used in place of the model's own, which stays as it is.

    Raises:
        ValueError: a size below 1, a capacity below 2 or beyond the model's positions.
        TypeError: `tokenizer` is no tokenizer.

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
        max_waiting: int | None = None,
        jit_compile: bool | None = None,
        cache_implementation: str | None = None,
        generation_config: GenerationConfig | None = None,
    ):
        limit = model.backbone.position_limit
        capacity = model.config.max_position_embeddings if capacity is None else capacity
        # A prompt has a token, and its continuation another.
        for name, value, least in (("rows", rows, 1), ("capacity", capacity, 2), ("prefill_chunk", prefill_chunk, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={quote(value)}: an integer of at least {least} was expected.")
        if limit is not None and capacity > limit:
            raise ValueError(f"capacity={capacity} is beyond the model's {limit} positions.")
        if capacity > model.config.max_position_embeddings:
            warn(
                f"capacity={capacity} is beyond max_position_embeddings={model.config.max_position_embeddings}: text "
                "beyond what the model was trained for may be poor."
            )
        if max_waiting is not None and (not isinstance(max_waiting, int) or max_waiting < 0):
            raise ValueError(f"max_waiting={quote(max_waiting)}: an integer of at least 0, or None, was expected.")
        if tokenizer is not None:
            check_tokenizer(tokenizer)
        self.model = model
        self.capacity = capacity
        # A resting row writes at the slot after its last token, which is one beyond the capacity at most.
        room = _ALIGNED * -(-(capacity + 1) // _ALIGNED)
        self.chunk = min(max(_SMALLEST_CHUNK, prefill_chunk), room)
        self.tokenizer = tokenizer
        self._own_config = generation_config
        self.jit_compile = self.generation_config.compiles if jit_compile is None else jit_compile
        if cache_implementation is None:
            cache_implementation = self.generation_config.cache_implementation
        int8 = GenerationConfig(cache_implementation=cache_implementation).quantizes_cache
        self.slots = Slots(model, rows, room, self.jit_compile, int8=int8)
        sizes = {min(_SMALLEST_CHUNK << doubled, self.chunk) for doubled in range(self.chunk.bit_length())}
        # A GPU runs a short chunk about as fast as one four times as long, and each size takes seconds to compile.
        self._chunk_sizes = sorted(sizes)[-3 if self.slots.lowering.target in ("gpu", "triton") else 0 :]
        self.prefixes = PrefixCache(rows)
        self.max_waiting = max_waiting
        self._rows: list[Row | None] = [None] * rows
        self._waiting: collections.deque[Request] = collections.deque()
        self._ended: list[Event] = []
        self._known: set[Any] = set()
        self._next_id = 0
        # Who works holds the first lock; the second one guards what other threads change meanwhile.
        self._work = threading.RLock()
        self._lock = threading.RLock()
        self._inputs = RowInputs(room, model.config.vocab_size)
        self._pace = Pace()

    @property
    def generation_config(self) -> GenerationConfig:
        """The settings of requests that do not say otherwise."""
        return self.model.generation_config if self._own_config is None else self._own_config

    def add(
        self,
        prompt: Sequence[int],
        generation_config: GenerationConfig | None = None,
        *,
        id: Any = None,
        response_format: Mapping[str, Any] | Grammar | None = None,
        logprobs: int | None = None,
        skip_special_tokens: bool = True,
        **settings: Any,
    ) -> Any:
        """Take a request.

        Args:
            prompt: token ids, (length,) or (1, length).
            generation_config: settings that go before the engine's own.
            id: what events and the answer are called, a number, a text or another hashable value; default: a number.
            response_format: what the answer must look like, as in `generate`; needs the engine's tokenizer. A
                `Grammar` where it was compiled before.
            logprobs: tell the log-probability of every new token, and of so many most probable ones, 0 to 20, of the
                model's own distribution.
            skip_special_tokens: leave special tokens out of the text.
            **settings: settings of `GenerationConfig` for this request. An answer ends where prompt and answer fill
                the capacity, whatever `max_new_tokens` is.

        Returns:
            The id.

        Raises:
            ValueError: an empty prompt, ids outside the vocabulary, a prompt that leaves no room for a token, a
                setting that the engine's rows do not have, stop strings without a tokenizer, a `Grammar` of another
                vocabulary, an id that is in use.
            TypeError: an unknown setting, an id that is not hashable.
            EngineFull: `max_waiting` requests wait already.
        """
        config = self.generation_config.for_call(generation_config, settings)
        check_supported(config, self.jit_compile, self.slots.int8, self.generation_config)
        if logprobs is not None and (not isinstance(logprobs, int) or not 0 <= logprobs <= MOST_LOGPROBS):
            raise ValueError(f"logprobs={quote(logprobs)}: an integer from 0 to {MOST_LOGPROBS} was expected.")
        vocab_size = self.model.config.vocab_size
        ids = ids_of(prompt, vocab_size)
        check_room(len(ids), self.capacity)
        new = min(config.new_tokens(len(ids), self.capacity), self.capacity - len(ids))
        processors = proc.build(config, vocab_size=vocab_size, max_new_tokens=new, eos_token_ids=config.eos_token_ids)
        if config.stop_strings is not None:
            StopStrings(self.tokenizer, config.stop_strings)
        grammar = response_format if isinstance(response_format, Grammar) else None
        if grammar is None and wants_grammar(response_format):
            grammar = Grammar(
                response_format,
                tokenizer=self.tokenizer,
                vocab_size=vocab_size,
                eos_token_ids=config.eos_token_ids,
            )
        if grammar is not None and grammar.vocab_size != vocab_size:
            raise ValueError(
                f"response_format=Grammar(vocab_size={grammar.vocab_size}): a grammar of the model's {vocab_size} "
                "tokens was expected."
            )
        try:
            hash(id)
        except TypeError:
            raise TypeError(f"id={quote(id)}: a hashable value, such as a number or a text, was expected.") from None
        with self._lock:
            if id is None:
                id, self._next_id = self._next_id, self._next_id + 1
            if id in self._known:
                raise ValueError(f"id={quote(id)} is in use: give every request an id of its own.")
            free = sum(row is None for row in self._rows)
            if self.max_waiting is not None and len(self._waiting) >= free + self.max_waiting:
                raise EngineFull(
                    f"{len(self._waiting)} requests wait for {len(self._rows)} rows, and max_waiting is "
                    f"{self.max_waiting}: try again later."
                )
            self._known.add(id)
            self._waiting.append(Request(ids, config, id, grammar, processors, logprobs, skip_special_tokens))
        return id

    def cancel(self, id: Any) -> bool:
        """Give a request up; the next `step` tells what it has. Returns whether there was such a request."""
        with self._lock:
            for row in self._rows:
                if row is not None and row.request.id == id:
                    row.cancelled = True
                    return True
            for request in self._waiting:
                if request.id == id:
                    self._waiting.remove(request)
                    self._end(request, "cancelled")
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
        return {**self.prefixes.counts(), "cache_bytes": self.slots.nbytes}

    def forget_prompts(self) -> None:
        """Use no keys and values of earlier prompts again, after a change of weights.

        Raises:
            RuntimeError: requests wait or are worked on.
        """
        with self._lock:
            if self.pending:
                raise RuntimeError(
                    f"{self.pending} requests wait or are worked on: forget_prompts() comes after run()."
                )
            self.prefixes.forget()

    def warm_up(self, kinds: Iterable[Kind] = Kind, *, grammars: bool | None = None, wait: bool = False) -> None:
        """Compile programs before the first request, so that none waits for them later.

        Afterwards every request can be served: one program can do everything, and stands in for those that are not
        compiled. On a CPU, programs that serve fewer kinds of settings, few rows or short texts faster are compiled in
        the background, which slows the first answers down; `model.programs.wait()` waits for them.

        Args:
            kinds: of settings that have programs of their own; penalties and log-probabilities are
                `Kind.EVERYTHING`.
            grammars: whether rows with a `response_format` have, too; default: whether the engine has a tokenizer.
            wait: return when those are compiled, too.

        Raises:
            RuntimeError: the engine has served requests already.
        """
        with self._work:
            if self.prefixes.prompts or self.pending:
                raise RuntimeError("warm_up is for an engine that has served nothing yet: call it before add.")
            self.slots.waits = True
            grammars = self.tokenizer is not None if grammars is None else grammars
            self.prefixes.look_at(self.model)
            self.slots.warm_up(self._chunk_sizes, kinds, with_grammars=grammars, wait=wait)

    def run(self, *, show_progress: bool = False) -> dict[Any, Completion]:
        """Work until all requests are answered. Returns the answers that came, by id.

        Programs are compiled by XLA before they are used, as answers count here and not their first tokens.
        """
        answers: dict[Any, Completion] = {}
        with counting("Generating", self.pending, show_progress) as advance:
            while self.pending or self._ended:
                new = {event.id: event.completion for event in self._step() if event.completion is not None}
                answers |= new
                advance(len(new))
        return answers

    def step(self) -> list[Event]:
        """Give free rows to waiting requests, run a few chunks of prompts, and make a few tokens in every other row.

        First tokens are told as soon as they are there. On a CPU nothing waits for XLA: plain graphs do the work while
        it compiles in the background.
        """
        return self._step(streaming=True)

    @in_turn
    def _step(self, streaming: bool = False) -> list[Event]:
        with self._work:
            self.slots.waits = not streaming
            with self._lock:
                events, self._ended = self._ended, []
                for row in self._rows:
                    if row is not None and row.cancelled:
                        row.finish_reason = "cancelled"
            if self._waiting and not any(self._rows):
                self.prefixes.look_at(self.model)
            self._admit()
            self._prefill(streaming)
            self._decode(streaming)
            with self._lock:
                return events + self._events(streaming)

    # Prompts ---------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        while True:
            with self._lock:
                free = [index for index, row in enumerate(self._rows) if row is None]
                if not self._waiting or not free:
                    return
                request = self._waiting.popleft()
                source, reused = self.prefixes.best(request.prompt)
                index = source if source in free else self.prefixes.oldest(free)
                try:
                    row = self._row(request, reused)
                except Exception as error:  # of this request's grammar or the tokenizer
                    self._end(request, "error", error)
                    continue
                self._rows[index] = row
            if source is not None and source != index:
                self.slots.copy_row(source, index)
            self.prefixes.rows[index].tokens = list(request.prompt[:reused])
            self.prefixes.touch(index)
            self.prefixes.count(request.prompt, reused)

    def _row(self, request: Request, reused: int) -> Row:
        config, length = request.config, len(request.prompt)
        limit = min(config.new_tokens(length, self.capacity), self.capacity - length)
        return Row(request, seed=seed_of(config.seed), limit=limit, reused=reused, tokenizer=self.tokenizer)

    def _end(self, request: Request, reason: str, error: Exception | None = None) -> None:
        """End a request that has no row."""
        self._known.discard(request.id)
        self._ended.append(ending(request, reason, has_text=self.tokenizer is not None, error=error))

    def _prefill(self, streaming: bool) -> None:
        """Run chunks of the prompts that wait longest, up to each prompt's last token.

        Args:
            streaming: run `_CHUNKS` whole ones or more that are shorter, so that the others' tokens come soon;
                otherwise all, as rows without a prompt's end do nothing while others decode.
        """
        left = _CHUNKS * self.chunk if streaming else np.inf
        while left > 0:
            waiting = [
                i for i, row in enumerate(self._rows) if row is not None and row.wants_prompt and not row.finish_reason
            ]
            if not waiting:
                break
            # Where nobody waits for tokens all prompts begin before one goes on: more of them have like chunks then.
            waiting.sort(key=lambda i: (0 if streaming else self._rows[i].run, self.prefixes.rows[i].used))
            left -= self._run_next(waiting, left)

    def _run_next(self, waiting: Sequence[int], most: float) -> int:
        """Run the next chunk of the first prompt that waits, with those of others that are alike.

        Args:
            waiting: rows whose prompts are not run yet.
            most: tokens that a call for several prompts may take.

        Returns:
            The tokens that the call took, those that fill chunks up among them.
        """
        chunks = [self._next_chunk(self._rows[index]) for index in waiting]
        start, size = chunks[0]
        rows = [index for index, chunk in zip(waiting, chunks, strict=True) if chunk == chunks[0]][:TOGETHER]
        if len(rows) < TOGETHER or TOGETHER * size > most or not self.slots.runs_together(size):
            rows, size = rows[:1], self.slots.chunk_size([one for one in self._chunk_sizes if one >= size])
            start = min(start, self.slots.room - size)
        prompts, end = {index: self._rows[index].request.prompt[:-1] for index in rows}, start + size
        self.slots.prefill(rows, [prompt[start:end] for prompt in prompts.values()], start, size)
        for index, prompt in prompts.items():
            row = self._rows[index]
            self.prefixes.rows[index].tokens += prompt[row.run : end]
            row.run = min(end, len(prompt))
        return len(rows) * size

    def _next_chunk(self, row: Row) -> tuple[int, int]:
        """The first slot of a prompt's next chunk, and the size that the chunk is filled up to.

        A chunk that would pass the room begins earlier and runs some tokens again.
        """
        wanted = min(self.chunk, len(row.request.prompt) - 1 - row.run)
        size = next(size for size in self._chunk_sizes if size >= wanted)
        return min(row.run, self.slots.room - size), size

    # Tokens ----------------------------------------------------------------------------------------------------

    def _decode(self, streaming: bool) -> None:
        """Make tokens in every row that has its prompt; only one where they are streamed and a row has none yet."""
        active = [
            i for i, row in enumerate(self._rows) if row is not None and not row.wants_prompt and not row.finish_reason
        ]
        matchers = [self._rows[index].matcher for index in active]
        compute_masks(matcher for matcher in matchers if matcher is not None)
        found = {index: self._upcoming(self._rows[index], STEPS - 1) for index in active}
        active = [index for index in active if not self._rows[index].finish_reason]
        if not active:
            return
        lefts = {i: self._rows[i].left if found[i] is None else len(found[i][0]) + 1 for i in active}  # by row
        steps = self._pace.steps(
            [self._rows[index] for index in active],
            list(lefts.values()),
            streaming=streaming,
            has_prompts=any(row is not None and row.wants_prompt for row in self._rows),
            has_waiting=bool(self._waiting),
        )
        kind = max((self._rows[index].kind for index in active), key=lambda kind: kind.value)
        lengths = [len(content.tokens) for content in self.prefixes.rows]
        # A row that ends writes once more behind its last token.
        longest = max(lengths[index] for index in active) + steps + 1
        is_limited = any(found[index] is not None for index in active)
        size, kind, is_limited = self.slots.program_for(len(active), longest, kind, is_limited)
        if size == self.slots.whole:
            places = list(range(len(self._rows)))
        else:  # with rows that rest, up to the program's number
            resting = (index for index in range(len(self._rows)) if index not in lefts)
            places = [*active, *itertools.islice(resting, size.rows - len(active))]
        rows = [self._rows[index] if index in lefts else None for index in places]
        limits = None
        if is_limited:
            upcoming = [found[index] if index in lefts else None for index in places]
            limits = limits_of(upcoming, STEPS, self.model.config.vocab_size)
        most = [min(lefts.get(index, 0), steps) for index in places]
        counts = self._inputs.counts(rows, [lengths[index] for index in places], most)
        started = time.monotonic()
        text = self._inputs.text(rows, STEPS) if kind is Kind.EVERYTHING else None
        settings = self._inputs.settings(rows, kind)
        decoded = self.slots.decode(np.asarray(places, "int32"), counts, settings, size, kind, limits, text)
        self._pace.note(time.monotonic() - started, steps)
        self._note({index: place for place, index in enumerate(places) if index in lefts}, decoded)

    def _upcoming(self, row: Row, most: int) -> tuple[Sequence[int], np.ndarray] | None:
        """The tokens that a row's grammar lets come next, as `Matcher.upcoming` returns them; None without one."""
        if row.matcher is None:
            return None
        try:
            return row.matcher.upcoming(row.left, most)
        except Exception as error:  # of this request's grammar; the other rows go on
            row.fail(error)
            return None

    def _note(self, places: Mapping[int, int], decoded: Decoded) -> None:
        """Hand new tokens to their rows; `places` are the rows' in what was decoded."""
        made = decoded.made.tolist()
        for index, place in places.items():
            row, logprobs = self._rows[index], ()
            tokens = decoded.tokens[place, : made[place]].tolist()
            if tokens:  # the last one has not been run yet
                self.prefixes.rows[index].tokens += [row.last, *tokens[:-1]]
            if row.request.logprobs is not None:
                records = (records[place] for records in (decoded.logprobs, decoded.top_ids, decoded.top))
                logprobs = token_logprobs(tokens, *records, row.request.logprobs)
            row.note(tokens, logprobs)

    def _events(self, streaming: bool) -> list[Event]:
        """The news of all rows; where nobody waits for tokens only of those that have ended."""
        events = []
        for index, row in enumerate(self._rows):
            if row is None or not (streaming or row.finish_reason):
                continue
            event = row.event()
            if event is None:
                continue
            events.append(event)
            if event.completion is not None:
                self._known.discard(event.id)
                self._rows[index] = None
                self.prefixes.touch(index)
        return events
