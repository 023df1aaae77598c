"""Speculative decoding: several tokens are drafted cheaply and checked in one pass of the model.

Drafts come from the text itself (prompt lookup) or from a smaller model. Each place draws its token from the model's
own distribution with the random numbers that plain decoding would use there, and a draft counts as long as it equals
what was drawn. So the tokens are those of plain decoding with the same seed, greedy or sampled, whatever the drafts
are; a draft model that draws with the same random numbers agrees as often as its distribution does.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

from keras import backend, ops

from tfmodels.cache import kv
from tfmodels.generation import logits_processors as proc
from tfmodels.generation.sampling import choose_tokens
from tfmodels.generation.step import Decoder, Prompt, State, run_prompt, wants_more, while_loop
from tfmodels.generation.strategies import Sampling, SamplingInputs
from tfmodels.layers.columns import take_columns
from tfmodels.layers.tokens import TokenInputs

# Stands for "no draft": no token, and not what stands for scores that are no numbers.
_NONE = -2
# Prompt lookup counts gains and losses in parts of a token. A token made without drafts gains one part, so that wrong
# drafts cost a fortieth of a long text; right drafts gain at most twelve tokens in all, which wrong ones may lose.
_PARTS = 40
_MOST = 12 * _PARTS
# Bytes of float32 weights beyond any core's cache: a CPU takes its time to read them, for one token or for a few.
_MANY_BYTES = 16 << 20
# To look in vain takes about a fifth of a token's time on a CPU where there are few weights, and less elsewhere: each
# such look is followed by as many tokens without one.
_LOOK_OF_FEW, _LOOK_OF_MANY = _PARTS // 5, _PARTS // 20


@dataclasses.dataclass(frozen=True)
class Speculation:
    """The way tokens are drafted.

    Args:
        tokens: drafted at a time.
        ngram: with prompt lookup, tokens that must match at most; 0 for a draft model.
        confidence: a draft model stops after a token less probable than this; 0 never stops.
        heuristic: raise the number of drafts by 2 where all counted, lower it by 1 where not, up to `tokens`.

    Source:
        Leviathan et al., https://arxiv.org/abs/2211.17192; prompt lookup: Saxena, 2023.
    """

    tokens: int
    ngram: int = 0
    confidence: float = 0.0
    heuristic: bool = False


class Drafting(NamedTuple):
    """The state of drafting.

    Fields:
        cache: the draft model's StaticCache with merged rows, or None.
        count: int32 scalar, drafts to make next.
        passes: int32 scalar, passes of the model so far.
        drafts: int32 (tokens,), of prompt lookup, negative where there are none; None for a draft model.
        balance: int32 scalar, of prompt lookup, what checks have gained beyond their price, in parts of a token;
            drafts are checked while it is not negative.
    """

    cache: Any
    count: Any
    passes: Any
    drafts: Any
    balance: Any


class SpeculativeDecoder(Decoder):
    """Decoding of one row with drafts.

    Args:
        model, strategy, processors, **options: as of `Decoder`; the strategy is `Sampling`.
        speculation: how tokens are drafted.
        assistant: the draft model, or None for prompt lookup.
    """

    def __init__(
        self,
        model: Any,
        strategy: Sampling,
        processors: tuple[Any, ...] = (),
        *,
        speculation: Speculation,
        assistant: Any = None,
        **options: Any,
    ):
        super().__init__(model, strategy, processors, **{**options, "whole_cache": True})
        self.speculation = speculation
        self.assistant = assistant
        self.key = (*self.key, speculation, None if assistant is None else id(assistant))

    def forward_prompt(self, prompt: Prompt) -> tuple[State, Any]:
        """Run the prompt, through the draft model too."""
        state, logits = super().forward_prompt(prompt)
        cache = None
        if self.assistant is not None:
            whole = prompt._replace(past=None)
            _, cache = run_prompt(self.assistant.backbone, whole, self.prefill_chunk, self.lowering)
            cache = kv.merge_rows(kv.to_static(cache, prompt.attended.shape[1]))
        zero = ops.convert_to_tensor(0, "int32")
        drafts = None if self.assistant is not None else ops.full((self.speculation.tokens,), _NONE, "int32")
        drafting = Drafting(cache, self._start_count(), passes=zero, drafts=drafts, balance=zero)
        return state._replace(carry=drafting), logits

    def _start_count(self) -> Any:
        tokens = self.speculation.tokens
        return ops.convert_to_tensor(max(1, tokens // 2) if self.speculation.heuristic else tokens, "int32")

    def choose(self, state: State, logits: Any, inputs: SamplingInputs) -> State:
        # The strategy has no state of its own.
        carry = state.carry
        carry = carry._replace(passes=carry.passes + 1, balance=ops.minimum(carry.balance + 1, _MOST))
        return super().choose(state, logits, inputs)._replace(carry=carry)

    def decode(self, state: State, inputs: SamplingInputs) -> State:
        """Take one step: with a draft model draft, check, and write down what counts; else make one token."""
        if self.assistant is None:
            return super().decode(state, inputs)
        drafts, cache = self._drafts_of_assistant(state, state.prompt_end + state.step, inputs)
        return self._checked(state._replace(carry=state.carry._replace(cache=cache)), drafts, inputs)

    def loop(self, state: State, inputs: SamplingInputs, until: Any) -> State:
        """Add tokens until `until` were generated, or the row has ended.

        A pass over several tokens takes longer than one over a single token. Where what was looked up is wrong too
        often, decoding goes on without drafts, and without looking for them, until the loss is a small part of the
        whole. Loops in turns do that, as a branch would copy the cache.
        """
        if self.assistant is not None:
            return super().loop(state, inputs, until)

        def goes_on(state: State, *conditions: Any) -> Any:
            return functools.reduce(ops.logical_and, conditions, wants_more(state, until))

        def rests(state: State) -> Any:
            return goes_on(state, state.carry.balance < 0)

        def makes_one(state: State) -> Any:
            return goes_on(state, state.carry.balance >= 0, state.carry.drafts[0] < 0)

        def makes_several(state: State) -> Any:
            return goes_on(state, state.carry.balance >= 0, state.carry.drafts[0] >= 0)

        def turn(state: State) -> State:
            state = while_loop(rests, lambda state: self.decode(state, inputs), state)
            state = self._with_drafts(state)
            state = while_loop(makes_one, lambda state: self._with_drafts(self.decode(state, inputs)), state)
            return while_loop(makes_several, lambda state: self._checked(state, state.carry.drafts, inputs), state)

        return while_loop(lambda state: wants_more(state, until), turn, state)

    @property
    def _price(self) -> int:
        """The cost of a check, in parts of a token.

        On a GPU it is little over one token's. A CPU that reads many weights takes a quarter of a token's time longer
        for each draft; where there are few weights, products of several rows start so slowly that each row costs most
        of a token.
        """
        if self.lowering.target in ("gpu", "triton"):
            return _PARTS * 6 // 5
        if self._reads_much:
            return _PARTS + _PARTS * self.speculation.tokens // 4
        return _PARTS * 2 * (self.speculation.tokens + 1) // 3

    @functools.cached_property
    def _reads_much(self) -> bool:
        """Whether reading weights takes most of a token's time; only known of float32."""
        weights = self.model.weights
        if any(backend.standardize_dtype(weight.dtype) != "float32" for weight in weights):
            return False
        return 4 * sum(math.prod(weight.shape) for weight in weights) >= _MANY_BYTES

    def _with_drafts(self, state: State) -> State:
        """The state with the drafts for its next tokens, where the text gives them."""
        if self.assistant is not None:
            return state
        end, kind = state.prompt_end + state.step, self.speculation
        drafts = looked_up(state.ids, state.start, end, kind.tokens, kind.ngram)
        is_cheap = self._reads_much or self.lowering.target in ("gpu", "triton")
        look = _LOOK_OF_MANY if is_cheap else _LOOK_OF_FEW
        balance = state.carry.balance - ops.where(drafts[0] < 0, look, 0)
        return state._replace(carry=state.carry._replace(drafts=drafts, balance=balance))

    def _checked(self, state: State, drafts: Any, inputs: SamplingInputs) -> State:
        """Check drafts int32 (tokens,), and write down those that count and the token after."""
        count, end = self.speculation.tokens, state.prompt_end + state.step
        drafts = ops.where(ops.arange(count, dtype="int32") < state.carry.count, drafts, _NONE)
        ids = ops.slice_update(state.ids, (0, end), ops.expand_dims(drafts, 0))
        state, logits = self._check(state._replace(ids=ids), end)
        tokens, scores = self._choose_all(state, logits, end, inputs)

        agrees = ops.cast(ops.equal(tokens[:count], drafts), "int32")
        agreed = ops.sum(ops.cumprod(agrees))
        ends = ops.any(ops.equal(ops.expand_dims(tokens, 1), ops.expand_dims(inputs.eos, 0)), axis=1)
        places = ops.arange(count + 1, dtype="int32")
        first_end = ops.min(ops.where(ends, places, count + 1))
        added = ops.minimum(ops.minimum(agreed, first_end) + 1, inputs.limit - state.step)
        carry = state.carry
        balance = ops.minimum(carry.balance + _PARTS * added - self._price, _MOST)
        next_count = carry.count
        if self.speculation.heuristic:
            raised, lowered = ops.minimum(next_count + 2, count), ops.maximum(next_count - 1, 1)
            next_count = ops.where(agreed >= next_count, raised, lowered)
        state = state._replace(
            ids=ops.slice_update(state.ids, (0, end), ops.expand_dims(tokens, 0)),
            # Later columns are written again before a query sees them.
            cache=state.cache._replace(length=end - 1 + added),
            finished=ops.reshape(first_end < added, (1,)),
            step=state.step + added,
            scores=_record_all(state.scores, state.step, scores),
            logits=_record_all(state.logits, state.step, logits),
            carry=carry._replace(count=next_count, passes=carry.passes + 1, balance=balance),
        )
        return self._with_drafts(state)

    def _check(self, state: State, end: Any) -> tuple[State, Any]:
        """Run the last token and the drafts. Returns logits float32 (drafts + 1, vocab_size)."""
        length = self.speculation.tokens + 1
        hidden, cache = self.model.backbone.step(
            _tokens(state.ids, state, end - 1, length), kv.split_rows(state.cache, 1), lowering=self.lowering
        )
        logits = ops.cast(self.model.to_logits(hidden, self.lowering)[0], "float32")
        return state._replace(cache=kv.merge_rows(cache)), logits

    def _choose_all(self, state: State, logits: Any, end: Any, inputs: SamplingInputs) -> tuple[Any, Any]:
        """The model's own token at every place, int32 (drafts + 1,), and the scores it was chosen from."""
        if not self.processors and not self.strategy.do_sample:
            return choose_tokens(logits, do_sample=False, seed=inputs.seed, step=state.step), logits
        tokens, scores = [], []
        for place in range(self.speculation.tokens + 1):
            row = self._scores(state, logits[place : place + 1], end + place, inputs)
            scores.append(row)
            tokens.append(self._draw(row, state.step + place, inputs))
        return ops.concatenate(tokens, axis=0), ops.concatenate(scores, axis=0)

    def _scores(self, state: State, logits: Any, end: Any, inputs: SamplingInputs) -> Any:
        context = proc.Context(
            ids=state.ids, start=state.start, end=end, prompt_end=state.prompt_end, attended=state.attended
        )
        for processor in proc.bind(self.processors, inputs.processors):
            logits = processor(context, logits)
        return logits

    def _draw(self, scores: Any, step: Any, inputs: SamplingInputs) -> Any:
        return choose_tokens(scores, do_sample=self.strategy.do_sample, seed=inputs.seed, step=step)

    # Drafts ----------------------------------------------------------------------------------------------------

    def _drafts_of_assistant(self, state: State, end: Any, inputs: SamplingInputs) -> tuple[Any, Any]:
        tokens = self.speculation.tokens

        def draft(ids: Any, cache: Any, place: Any, length: int) -> tuple[Any, Any, Any]:
            """Run `length` tokens that end before column `end + place`, and draft the next one."""
            first = end + place - length
            hidden, cache = self.assistant.backbone.step(
                _tokens(ids, state, first, length),
                kv.split_rows(cache._replace(length=first), 1),
                lowering=self.lowering,
            )
            logits = ops.cast(self.assistant.to_logits(hidden[:, -1:], self.lowering)[:, -1], "float32")
            scores = self._scores(state._replace(ids=ids), logits, end + place, inputs)
            token = ops.maximum(self._draw(scores, state.step + place, inputs), 0)
            sure = ops.squeeze(ops.take_along_axis(ops.softmax(logits, axis=-1), ops.expand_dims(token, 1), axis=1))
            ids = ops.slice_update(ids, (0, end + place), ops.expand_dims(token, 1))
            return ids, kv.merge_rows(cache), sure

        # The draft model has not seen the last two tokens if all drafts counted; running one again changes nothing.
        zero = ops.convert_to_tensor(0, "int32")
        ids, cache, sure = draft(state.ids, state.carry.cache, zero, 2)

        def wants_more(place: Any, ids: Any, cache: Any, sure: Any) -> Any:
            return ops.logical_and(place < state.carry.count, sure >= self.speculation.confidence)

        def more(place: Any, ids: Any, cache: Any, sure: Any) -> tuple[Any, ...]:
            return (place + 1, *draft(ids, cache, place, 1))

        start = (zero + 1, ids, cache, sure)
        made, ids, cache, _ = ops.while_loop(wants_more, more, start)
        drafts = take_columns(ids, end, tokens)[0]
        return ops.where(ops.arange(tokens, dtype="int32") < made, drafts, _NONE), cache


def _tokens(ids: Any, state: State, first: Any, length: int) -> TokenInputs:
    """The model's inputs for `length` columns of ids from `first` on."""
    first_position = ops.expand_dims(state.position, 1) + first - state.prompt_end
    positions = first_position + ops.expand_dims(ops.arange(length, dtype="int32"), 0)
    return TokenInputs(
        ops.maximum(take_columns(ids, first, length), 0),
        mask=state.attended,
        positions=ops.maximum(positions, 0),
    )


def _record_all(buffer: Any, step: Any, values: Any) -> Any:
    return None if buffer is None else ops.slice_update(buffer, (step, 0, 0), ops.expand_dims(values, 1))


def looked_up(ids: Any, start: Any, end: Any, tokens: int, ngram: int) -> Any:
    """The tokens that followed the longest earlier match of the last `ngram` tokens or fewer.

    Args:
        ids: int32 (1, capacity).
        start, end: int32 scalars, the columns with tokens.
        tokens: drafts to make.
        ngram: tokens that must match at most.

    Returns:
        int32 (tokens,); a negative number where there is no draft.

    Example:
        >>> ids = ops.array([[5, 6, 7, 8, 9, 5, 6, 0]])
        >>> looked_up(ids, 0, 7, tokens=3, ngram=2).numpy().tolist()
        [7, 8, 9]
    """
    row = ids[0]
    capacity = row.shape[0]
    columns = ops.arange(capacity, dtype="int32")
    asked = take_columns(ids, ops.maximum(end - 1, 0), 1)[0]
    # How many tokens up to each column equal the last ones, the last included; column `end - 1` would equal itself.
    length = ops.cast(ops.logical_and(ops.equal(row, asked), columns < end - 1), "int32")

    def longer(size: Any, length: Any) -> Any:
        """The lengths, where one token more is looked at."""
        asked = take_columns(ids, ops.maximum(end - 1 - size, 0), 1)[0]
        before = ops.roll(row, size)
        equal = ops.logical_and(ops.equal(before, asked), columns - size >= start)
        return length + ops.cast(ops.logical_and(ops.equal(length, size), equal), "int32")

    length = ops.where(columns >= start, length, 0)
    length = ops.fori_loop(1, ngram, longer, length)
    most = ops.max(length)
    # The first of the longest matches.
    place = ops.where(most > 0, ops.cast(ops.argmax(ops.equal(length, most)), "int32") + 1, capacity)
    # Padded, so that all of the columns exist.
    drafts = take_columns(ops.pad(ids, ((0, 0), (0, tokens))), ops.minimum(place, capacity), tokens)[0]
    inside = place + ops.arange(tokens, dtype="int32") < end
    return ops.where(ops.logical_and(inside, place < capacity), drafts, _NONE)
