"""One step of decoding, and the compiled programs made of it.

`Decoder` is the only place that knows the state of decoding. *Prefill* runs the prompt and chooses the first token;
the *loop* holds a fixed-size cache and a token buffer and takes one step per turn until all rows have ended. Exports
and streaming use the same two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from tfmodels.cache import kv
from tfmodels.generation import logits_processors as proc
from tfmodels.generation.strategies import BeamSearch, SamplingInputs, Strategy, Tokens
from tfmodels.kernels import decoding
from tfmodels.kernels.masks import positions_from_mask
from tfmodels.layers.columns import take_columns
from tfmodels.layers.tokens import TokenInputs
from tfmodels.runtime.gc import pause_gc
from tfmodels.runtime.lowering import PLAIN, Lowering

# Up to so many beams read each other's keys in place; of more, each would read too many.
_FEW_BEAMS = 8


class Prompt(NamedTuple):
    """The inputs of prefill; shapes are buckets.

    Fields:
        ids: int32 (batch, prompt), left-padded; -1 (no token) where the prompt is given as embeddings.
        embeds: (batch, prompt, hidden_size), or None.
        attended: bool (batch, capacity), False at padding, True from the prompt's end on.
        start: int32 scalar, columns before it hold no tokens: they are bucket padding, or embeddings of the prompt.
        finished: bool (batch,), True for rows that only pad the batch.
        past: per layer (key, value) of the first columns, each (batch, key_value_heads, columns, head_dim), or None.
        positions: int32 (batch, prompt + 1), of the columns and of the first new token; None to count tokens.
    """

    ids: Any
    embeds: Any
    attended: Any
    start: Any
    finished: Any
    past: Any = None
    positions: Any = None

    def positions_and_next(self) -> tuple[Any, Any]:
        """The positions of the columns, int32 (batch, prompt), and that of the first new token, int32 (batch,)."""
        if self.positions is not None:
            return self.positions[:, :-1], self.positions[:, -1]
        mask = self.attended[:, : self.ids.shape[1]]
        return positions_from_mask(mask), ops.sum(ops.cast(mask, "int32"), axis=1)


class State(NamedTuple):
    """The state of decoding.

    Fields:
        ids: int32 (batch, capacity), tokens so far.
        attended, start: as in `Prompt`.
        prompt_end: int32 scalar, column of the first generated token.
        position: int32 (batch,), position of the first generated token.
        cache: StaticCache with merged rows (`tfmodels.cache.kv.merge_rows`), or None when decoding without one.
        embeds: (batch, capacity, hidden_size), the prompt's, where it was given so and there is no cache; else None.
        finished: bool (batch,).
        step: int32 scalar, tokens generated so far.
        scores, logits: float32 (room, batch, vocab_size) after and before the processors, or None.
        carry: the strategy's own.
        positions: int32 (batch, capacity), of all columns, where the prompt's were given and there is no cache; else
            None.
    """

    ids: Any
    attended: Any
    start: Any
    prompt_end: Any
    position: Any
    cache: Any
    embeds: Any
    finished: Any
    step: Any
    scores: Any = None
    logits: Any = None
    carry: Any = None
    positions: Any = None


class Decoder:
    """Decoding of one kind: the constructor fixes all that shapes its compiled programs.

    Args:
        model: a causal language model.
        strategy: how tokens are chosen from scores.
        processors: the score processors, whose numbers and tokens are replaced by inputs.
        use_cache, keep_scores, keep_logits: as in `GenerationConfig`.
        whole_cache: keep all positions, those too that layers with a window no longer need.
        int8_cache: keep keys and values in eight bits.
        prefill_chunk: tokens of a prompt that are run at a time, or None for all.
        jit_compile: whether programs are compiled by XLA.
        lowering: which operations the model takes; `decoding.for_xla()` for programs that XLA compiles.
    """

    def __init__(
        self,
        model: Any,
        strategy: Strategy,
        processors: tuple[Any, ...] = (),
        *,
        use_cache: bool = True,
        keep_scores: bool = False,
        keep_logits: bool = False,
        whole_cache: bool = False,
        int8_cache: bool = False,
        prefill_chunk: int | None = None,
        jit_compile: bool = True,
        lowering: Lowering = PLAIN,
    ):
        self.model = model
        self.strategy = strategy
        self.processors = processors
        self.use_cache = use_cache
        self.keep_scores = keep_scores
        self.keep_logits = keep_logits
        self.jit_compile = jit_compile
        self.windows = None if whole_cache else model.backbone.cache_windows
        self.int8_cache = int8_cache
        self.prefill_chunk = prefill_chunk
        self.lowering = lowering
        # Beams change rows at every token. A few of them read each other's keys in less time than a copy of the whole
        # cache takes, except where a kernel expects every row's own; sums of parts are exact enough in float32 alone.
        is_few = isinstance(strategy, BeamSearch) and strategy.rows <= _FEW_BEAMS
        self.reads_holders = is_few and use_cache and lowering.target != "triton" and model.compute_dtype == "float32"
        kept = (use_cache, keep_scores, keep_logits, self.windows, int8_cache)
        self.key = (strategy, proc.split(processors)[0], *kept, prefill_chunk)

    # Passes through the model --------------------------------------------------------------------------------

    def forward_prompt(self, prompt: Prompt) -> tuple[State, Any]:
        """Run the prompt. Returns the state before the first token, and the logits for it, (batch, vocab_size)."""
        batch, capacity = prompt.attended.shape
        length = prompt.ids.shape[1]
        hidden, cache = run_prompt(
            self.model.backbone, prompt, self.prefill_chunk, self.lowering, int8=self.int8_cache
        )
        logits = self._next_logits(hidden)
        room, rows = capacity - length, batch * self.strategy.rows
        positions, position = prompt.positions_and_next()
        embeds = all_positions = None
        if prompt.embeds is not None and not self.use_cache:
            embeds = ops.pad(prompt.embeds, ((0, 0), (0, room), (0, 0)))
        if prompt.positions is not None and not self.use_cache:
            later = ops.expand_dims(position, 1) + ops.arange(room, dtype="int32")
            all_positions = ops.concatenate([positions, later], axis=1)
        state = State(
            ids=ops.pad(prompt.ids, ((0, 0), (0, room))),
            attended=prompt.attended,
            start=prompt.start,
            prompt_end=ops.convert_to_tensor(length, "int32"),
            position=position,
            cache=self._static(cache, capacity) if self.use_cache else None,
            embeds=embeds,
            positions=all_positions,
            finished=prompt.finished,
            step=ops.convert_to_tensor(0, "int32"),
        )
        if self.strategy.rows > 1:
            repeated = keras.tree.map_structure(self._for_all_rows, state._replace(cache=None, start=0, step=0))
            cache = None if state.cache is None else kv.repeat_rows(state.cache, batch, self.strategy.rows)
            state = repeated._replace(cache=cache, start=state.start, step=state.step, prompt_end=state.prompt_end)
            logits = self._for_all_rows(logits)
        state = state._replace(
            scores=self._record(room, self.strategy.scores(logits)) if self.keep_scores else None,
            logits=self._record(room, logits) if self.keep_logits else None,
            carry=self.strategy.start(rows, capacity, room),
        )
        return state, logits

    def _static(self, past_key_values: Any, capacity: int) -> kv.StaticCache:
        return kv.merge_rows(kv.to_static(past_key_values, capacity, self.windows, int8=self.int8_cache))

    def _record(self, room: int, values: Any) -> Any:
        return ops.zeros((room, *values.shape), "float32")

    def _for_all_rows(self, x: Any) -> Any:
        """A tensor of a row per prompt as one of the strategy's rows; scalars and None stay."""
        return x if x is None or not getattr(x, "shape", ()) else ops.repeat(x, self.strategy.rows, axis=0)

    def forward_token(self, state: State) -> tuple[State, Any]:
        """Run the last token (without a cache, everything). Returns the state and the logits for the next token."""
        if self.use_cache:
            last = state.prompt_end + state.step - 1
            tokens = TokenInputs(
                # A row without a next token holds a negative number.
                ids=ops.maximum(take_columns(state.ids, last, 1), 0),
                mask=state.attended,
                positions=ops.expand_dims(state.position + state.step - 1, 1),
                holders=self._holders(state),
            )
            cache = kv.split_rows(state.cache, state.ids.shape[0])
            hidden, cache = self.model.backbone.step(tokens, cache, lowering=self.lowering)
            return state._replace(cache=kv.merge_rows(cache)), self._next_logits(hidden)
        end = state.prompt_end + state.step
        columns = ops.expand_dims(ops.arange(state.ids.shape[1], dtype="int32"), 0)
        mask = ops.logical_and(state.attended, columns < end)
        positions = positions_from_mask(mask)
        if state.positions is not None:
            positions = ops.where(mask, state.positions, 0)
        tokens = TokenInputs(ops.maximum(state.ids, 0), mask=mask, positions=positions)
        if state.embeds is not None:
            own = self.model.get_input_embeddings()(ops.maximum(state.ids, 0))
            in_prompt = ops.expand_dims(columns < state.prompt_end, 2)
            tokens = tokens._replace(ids=None, embeds=ops.where(in_prompt, ops.cast(state.embeds, own.dtype), own))
        hidden, _ = self.model.backbone.step(tokens, lowering=self.lowering)
        return state, self._next_logits(ops.take(hidden, ops.reshape(end - 1, (1,)), axis=1))

    def _holders(self, state: State) -> Any:
        if not self.reads_holders:
            return None
        return self.strategy.holders(state.carry, state.prompt_end, state.ids.shape[1])

    def with_own_keys(self, state: State) -> State:
        """The state after the last step with a cache in which each row has its own keys and values."""
        if not self.reads_holders:
            return state
        return state._replace(cache=kv.gather_held(state.cache, self._holders(state)))

    def _next_logits(self, hidden: Any) -> Any:
        """Scores of the next token, float32 (batch, vocab_size), from hidden states (batch, 1, hidden_size)."""
        return ops.cast(self.model.to_logits(hidden, self.lowering)[:, -1], "float32")

    # Choosing tokens -----------------------------------------------------------------------------------------

    def choose(self, state: State, logits: Any, inputs: SamplingInputs) -> State:
        """Choose each row's next token from logits (batch, vocab_size) and write it down."""
        end = state.prompt_end + state.step
        scores = self.strategy.scores(logits)
        # Of rows that share their tokens the first one counts.
        sharing_rows = logits.shape[0] // scores.shape[0]
        ids, attended, finished = (
            x if sharing_rows == 1 else x[::sharing_rows] for x in (state.ids, state.attended, state.finished)
        )
        context = proc.Context(ids=ids, start=state.start, end=end, prompt_end=state.prompt_end, attended=attended)
        for processor in proc.bind(self.processors, inputs.processors):
            scores = processor(context, scores)
        tokens = Tokens(ids, state.start, end, state.step, finished)
        chosen = self.strategy.choose(scores, tokens, state.carry, inputs)
        if sharing_rows > 1:
            chosen = chosen._replace(
                tokens=ops.repeat(chosen.tokens, sharing_rows), finished=ops.repeat(chosen.finished, sharing_rows)
            )
        ids, cache = state.ids, state.cache
        if chosen.parents is not None:
            ids = ops.take(ids, chosen.parents, axis=0)
            if cache is not None and not self.reads_holders:
                cache = kv.gather_rows(cache, chosen.parents)
        return state._replace(
            ids=ops.slice_update(ids, (0, end), ops.expand_dims(chosen.tokens, 1)),
            cache=cache,
            finished=chosen.finished,
            step=state.step + 1,
            scores=record(state.scores, state.step, scores),
            logits=record(state.logits, state.step, logits),
            carry=chosen.carry,
        )

    def decode(self, state: State, inputs: SamplingInputs) -> State:
        """Take one step: run the last token and choose the next one."""
        state, logits = self.forward_token(state)
        return self.choose(state, logits, inputs)

    # The programs --------------------------------------------------------------------------------------------

    def prefill(self, prompt: Prompt, inputs: SamplingInputs) -> State:
        """Run the prompt and choose the first token."""
        state, logits = self.forward_prompt(prompt)
        return self.choose(state, logits, inputs)

    def loop(self, state: State, inputs: SamplingInputs, until: Any) -> State:
        """Add tokens until `until` (int32 scalar) were generated in all, or every row has ended."""
        return while_loop(lambda state: wants_more(state, until), lambda state: self.decode(state, inputs), state)

    def as_graph(self) -> Decoder:
        """The same decoding in plain graphs."""
        twin = copy.copy(self)
        twin.jit_compile, twin.lowering = False, lowering_for(False)
        return twin

    def traced(self, name: str) -> Callable:
        """Return a method as it is traced: with the garbage collector paused."""
        return traced(getattr(self, name))


def wants_more(state: State, until: Any) -> Any:
    """Whether fewer than `until` tokens were generated and a row has not ended, bool scalar."""
    return ops.any(ops.logical_and(state.step < until, ops.logical_not(state.finished)))


def run_prompt(
    backbone: Any, prompt: Prompt, chunk: int | None, lowering: Lowering, *, int8: bool = False
) -> tuple[Any, Any]:
    """Run a prompt through a backbone.

    Args:
        backbone: of the model.
        prompt: what to run.
        chunk: tokens at a time, so that no pass looks at more than these and the cache; None for all.
        lowering: of the passes.
        int8: keep keys and values in eight bits between chunks.

    Returns:
        Hidden states of the last column, (batch, 1, hidden_size), and the layers of a cache.
    """
    length = prompt.ids.shape[1]
    mask = prompt.attended[:, :length]
    positions, _ = prompt.positions_and_next()
    known = 0 if prompt.past is None else prompt.past[0][0].shape[2]

    def tokens(first: int, last: int) -> TokenInputs:
        if prompt.embeds is not None:
            ids, embeds = None, prompt.embeds[:, first:last]
        else:
            ids, embeds = prompt.ids[:, first:last], None
        return TokenInputs(ids=ids, embeds=embeds, mask=mask[:, :last], positions=positions[:, first:last])

    if chunk is None or length - known <= chunk:
        hidden, cache = backbone.step(tokens(known, length), prompt.past, lowering=lowering)
        return hidden[:, -1:], cache
    # The first chunk says which cache the model makes; the others are turns of a loop, and the last of them may run
    # some tokens again.
    start = known + chunk
    hidden, cache = backbone.step(tokens(known, start), prompt.past, lowering=lowering)
    cache = kv.merge_rows(kv.to_static(cache, length, int8=int8))

    def turn(start: Any, hidden: Any, cache: kv.StaticCache) -> tuple[Any, Any, Any]:
        first = ops.minimum(start, length - chunk)
        columns = TokenInputs(
            ids=take_columns(prompt.ids, first, chunk) if prompt.embeds is None else None,
            embeds=None if prompt.embeds is None else take_columns(prompt.embeds, first, chunk),
            mask=mask,
            positions=take_columns(positions, first, chunk),
        )
        cache = kv.split_rows(cache._replace(length=first), mask.shape[0])
        hidden, cache = backbone.step(columns, cache, lowering=lowering)
        return start + chunk, hidden[:, -1:], kv.merge_rows(cache)

    _, hidden, cache = while_loop(
        lambda state: state[0] < length,
        lambda state: turn(*state),
        (ops.convert_to_tensor(start, "int32"), hidden[:, -1:], cache),
    )
    return hidden, kv.split_rows(cache, mask.shape[0]).layers


def traced(function: Callable) -> Callable:
    """Return a function as it is traced: with the garbage collector paused."""

    def run(*arguments: Any) -> Any:
        with pause_gc():
            return function(*arguments)

    return run


def lowering_for(jit_compile: bool) -> Lowering:
    """The lowering of programs that run here; equal blocks are traced once in plain graphs, too."""
    return decoding.for_xla() if jit_compile else Lowering(reuse=keras.backend.backend() == "tensorflow")


def starts_as_graph(jit_compile: bool, lowering: Lowering) -> bool:
    """Whether plain graphs may do the work until XLA has compiled: on a CPU, where they are not much slower."""
    if not jit_compile or lowering.target != "cpu" or keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not (tf.config.functions_run_eagerly() or tf.distribute.has_strategy())


def record(buffer: Any, step: Any, values: Any) -> Any:
    """A buffer (room, batch, ...) with the values of a step; None where nothing is recorded."""
    if buffer is None:
        return None
    return ops.slice_update(buffer, (step, 0, 0), ops.expand_dims(values, 0))


def while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], start: Any) -> Any:
    """`ops.while_loop` over one nested structure, in which some entries may be None."""
    leaves = keras.tree.flatten(start)
    held = [index for index, leaf in enumerate(leaves) if leaf is not None]

    def packed(some: Sequence[Any]) -> Any:
        full: list[Any] = [None] * len(leaves)
        for index, leaf in zip(held, some, strict=True):
            full[index] = leaf
        return keras.tree.pack_sequence_as(start, full)

    def held_of(structure: Any) -> tuple[Any, ...]:
        flat = keras.tree.flatten(structure)
        return tuple(flat[index] for index in held)

    result = ops.while_loop(
        lambda *some: condition(packed(some)), lambda *some: held_of(body(packed(some))), held_of(start)
    )
    return packed(result)
