"""Contrastive search: of the most probable tokens, the one whose hidden state is least like those before it."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from tfmodels.cache import kv
from tfmodels.generation import logits_processors as proc
from tfmodels.generation.sampling import NO_NUMBER, NONE_ALLOWED, highest
from tfmodels.generation.step import Decoder, Prompt, State, record
from tfmodels.generation.strategies import Sampling, SamplingInputs
from tfmodels.layers.tokens import TokenInputs

_LOWEST = -1e9


@dataclasses.dataclass(frozen=True)
class Contrastive(Sampling):
    """The strategy of `ContrastiveDecoder`.

    Args:
        do_sample: False.
        candidates: most probable tokens that are looked at.
        alpha: weight of the likeness to what was said; 0 takes the most probable token.

    Source:
        Su et al., https://arxiv.org/abs/2202.06417.
    """

    candidates: int = 4
    alpha: float = 0.6


class Said(NamedTuple):
    """The text so far, by its hidden states, and the scores of what comes next.

    Fields:
        directions: float32 (batch, capacity, hidden_size), its hidden states, each of length 1.
        logits: float32 (batch, vocab_size), for the next token.
    """

    directions: Any
    logits: Any


class ContrastiveDecoder(Decoder):
    """Decoding in which every candidate is run before one of them is chosen.

    Args:
        model, strategy, processors, **options: as of `Decoder`; the strategy is `Contrastive`.
    """

    strategy: Contrastive

    def forward_prompt(self, prompt: Prompt) -> tuple[State, Any]:
        """Run the prompt, and keep the hidden states of all its columns."""
        capacity, length = prompt.attended.shape[1], prompt.ids.shape[1]
        positions, position = prompt.positions_and_next()
        tokens = TokenInputs(
            ids=prompt.ids if prompt.embeds is None else None,
            embeds=prompt.embeds,
            mask=prompt.attended[:, :length],
            positions=positions,
        )
        hidden, cache = self.model.backbone.step(tokens, lowering=self.lowering)
        logits = self._next_logits(hidden[:, -1:])
        room = capacity - length
        state = State(
            ids=ops.pad(prompt.ids, ((0, 0), (0, room))),
            attended=prompt.attended,
            start=prompt.start,
            prompt_end=ops.convert_to_tensor(length, "int32"),
            position=position,
            cache=self._static(cache, capacity),
            embeds=None,
            finished=prompt.finished,
            step=ops.convert_to_tensor(0, "int32"),
            scores=self._record(room, logits) if self.keep_scores else None,
            logits=self._record(room, logits) if self.keep_logits else None,
            carry=Said(ops.pad(_directions(hidden), ((0, 0), (0, room), (0, 0))), logits),
        )
        return state, logits

    def forward_token(self, state: State) -> tuple[State, Any]:
        """Return the logits for the next token: the last one was run as a candidate."""
        return state, state.carry.logits

    def choose(self, state: State, logits: Any, inputs: SamplingInputs) -> State:
        """Run the most probable tokens, and write down the one that is probable and says something new."""
        count, end = self.strategy.candidates, state.prompt_end + state.step
        batch, capacity = state.ids.shape
        context = proc.Context(state.ids, state.start, end, state.prompt_end, state.attended)
        scores = logits
        for processor in proc.bind(self.processors, inputs.processors):
            scores = processor(context, scores)
        no_number = ops.any(ops.isnan(scores), axis=1)
        bans_all = ops.all(ops.equal(scores, -np.inf), axis=1)
        probabilities = ops.softmax(scores, axis=-1)
        probabilities, tokens = highest(ops.where(ops.isnan(probabilities), 0.0, probabilities), count)

        columns = TokenInputs(
            ops.reshape(tokens, (batch * count, 1)),
            mask=ops.repeat(state.attended, count, axis=0),
            positions=ops.repeat(ops.expand_dims(state.position + state.step, 1), count, axis=0),
        )
        cache = kv.repeat_rows(state.cache._replace(length=end), batch, count)
        hidden, cache = self.model.backbone.step(columns, kv.split_rows(cache, batch * count), lowering=self.lowering)
        directions = ops.reshape(_directions(hidden), (batch, count, -1))
        likeness = ops.einsum("bch,bsh->bcs", directions, state.carry.directions)
        said = ops.logical_and(state.attended, ops.arange(capacity, dtype="int32") < end)
        likeness = ops.max(ops.where(ops.expand_dims(said, 1), likeness, _LOWEST), axis=2)
        best = ops.argmax((1 - self.strategy.alpha) * probabilities - self.strategy.alpha * likeness, axis=1)
        rows = ops.arange(batch, dtype="int32") * count + ops.cast(best, "int32")

        chosen = ops.where(bans_all, NONE_ALLOWED, ops.take(ops.reshape(tokens, (-1,)), rows))
        chosen = ops.where(no_number, NO_NUMBER, chosen)
        chosen = ops.where(state.finished, inputs.pad, chosen)
        ended = ops.any(ops.equal(ops.expand_dims(chosen, 1), inputs.eos), axis=1)
        own = ops.take(ops.reshape(directions, (batch * count, 1, -1)), rows, axis=0)
        return state._replace(
            ids=ops.slice_update(state.ids, (0, end), ops.expand_dims(chosen, 1)),
            cache=kv.gather_rows(kv.merge_rows(cache), rows, batch * count),
            finished=ops.logical_or(state.finished, ended),
            step=state.step + 1,
            scores=record(state.scores, state.step, scores),
            logits=record(state.logits, state.step, logits),
            carry=Said(
                ops.slice_update(state.carry.directions, (0, end, 0), own),
                self._next_logits(ops.take(hidden, rows, axis=0)),
            ),
        )


def _directions(hidden: Any) -> Any:
    """Hidden states of length 1, float32."""
    hidden = ops.cast(hidden, "float32")
    return hidden / ops.sqrt(ops.sum(hidden * hidden, axis=-1, keepdims=True) + 1e-12)
