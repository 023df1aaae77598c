"""Beam search and beam sampling.

Each prompt has `num_beams` running rows and a set of as many finished sequences. A step takes the best candidates of
all running rows of a prompt together; those that end join the finished set if they are good enough, and the best of
the others run on.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np
from keras import ops

from tfmodels.generation.sampling import gumbel_noise, highest
from tfmodels.generation.strategies.base import Chosen, SamplingInputs, Tokens

# Added to scores of what must not be chosen; sums of log-probabilities stay far above it.
_OUT = -1.0e9


class Beams(NamedTuple):
    """The state of a beam search over `batch` prompts.

    Fields:
        scores: float32 (batch, beams), summed log-probabilities of the running rows.
        origins: int32 (batch, beams, room), the row each token of a running row was chosen in; -1 where there is none.
        sequences: int32 (batch, beams, capacity), the finished sequences, the best first.
        sequence_scores: float32 (batch, beams), their scores with the length penalty.
        sequence_origins: int32 (batch, beams, room), as `origins`.
        is_finished: bool (batch, beams), False where there is no finished sequence yet.
        open: bool (batch,), whether better sequences may still come.
    """

    scores: Any
    origins: Any
    sequences: Any
    sequence_scores: Any
    sequence_origins: Any
    is_finished: Any
    open: Any


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Keep the `rows` best continuations of each prompt.

    Args:
        rows: number of beams.
        ends: number of end-of-sequence ids: so many candidates of a row may end at once.
        do_sample: draw candidates without replacement instead of taking the best.
        length_penalty: a finished sequence's score is divided by its new tokens to this power.
        early_stopping: True to stop at `rows` finished sequences, False at a heuristic, "never" when no better one
            can come.

    Source:
        Wu et al., https://arxiv.org/abs/1609.08144, section 7; sampling without replacement by Gumbel noise: Kool et
        al., https://arxiv.org/abs/1903.06059.
    """

    rows: int
    ends: int = 1
    do_sample: bool = False
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    ends_candidates: ClassVar[bool] = True

    def start(self, rows: int, capacity: int, room: int) -> Beams:
        batch = rows // self.rows
        origins = ops.full((batch, self.rows, room), -1, "int32")
        # All rows of a prompt are equal at first: only the first one's candidates count.
        scores = ops.convert_to_tensor(np.array([[0.0] + [_OUT] * (self.rows - 1)] * batch, "float32"))
        return Beams(
            scores=scores,
            origins=origins,
            sequences=ops.zeros((batch, self.rows, capacity), "int32"),
            sequence_scores=ops.full((batch, self.rows), _OUT, "float32"),
            sequence_origins=origins,
            is_finished=ops.zeros((batch, self.rows), "bool"),
            open=ops.ones((batch,), "bool"),
        )

    def holders(self, carry: Beams, prompt_end: Any, capacity: int) -> Any:
        """The running rows whose caches hold the tokens of each row: the row that a token stood in when it was run.

        Args:
            carry: the state.
            prompt_end: int32 scalar, column of the first new token.
            capacity: number of columns.

        Returns:
            bool (batch * beams, beams, capacity), as `tfmodels.kernels.masks.AttentionMask` has it. The last token and
            the prompt are each row's own.
        """
        batch, beams, _ = carry.origins.shape
        own = ops.reshape(ops.arange(beams, dtype="int32"), (1, beams, 1))
        # A token was run in the row that the token after it was chosen in.
        following = ops.pad(carry.origins[:, :, 1:], ((0, 0), (0, 0), (0, 1)), constant_values=-1)
        held = ops.where(following < 0, own, ops.mod(following, beams))
        held = ops.slice_update(ops.broadcast_to(own, (batch, beams, capacity)), (0, 0, prompt_end), held)
        held = ops.reshape(held, (batch * beams, 1, capacity))
        return ops.equal(held, ops.reshape(own, (1, beams, 1)))

    def scores(self, logits: Any) -> Any:
        return ops.log_softmax(logits, axis=-1)

    def choose(self, scores: Any, tokens: Tokens, carry: Beams, inputs: SamplingInputs) -> Chosen:
        beams, batch, vocab_size = self.rows, carry.scores.shape[0], scores.shape[-1]
        count = max(2, 1 + self.ends) * beams
        new = ops.cast(tokens.step + 1, "float32")

        totals = ops.reshape(scores, (batch, beams, vocab_size)) + ops.expand_dims(carry.scores, 2)
        totals = ops.reshape(totals, (batch, beams * vocab_size))
        # A NaN counts as the highest score: the best candidates show it, and no other look at all scores is needed.
        # A prompt without numbers ends with beams of the token -1, which `generate` refuses.
        best, picked = self._candidates(ops.where(ops.isnan(totals), np.inf, totals), count, inputs.seed, tokens.step)
        no_number = ops.any(ops.equal(best, np.inf), axis=1, keepdims=True)
        best = ops.where(no_number, 0.0, best)
        parent, token = picked // vocab_size, ops.where(no_number, -1, picked % vocab_size)
        ends = ops.any(ops.equal(ops.expand_dims(token, 2), inputs.eos), axis=2)
        ends = ops.logical_or(ends, tokens.step + 1 >= inputs.limit)
        ids = ops.reshape(tokens.ids, (batch, beams, tokens.ids.shape[1]))
        sequences = _written(_rows(ids, parent), tokens.end, token)
        if inputs.stop is not None:
            so_far = sequences[:, :, int(tokens.start) : int(tokens.end) + 1]
            stopped = inputs.stop(ops.reshape(so_far, (batch * count, -1)))
            ends = ops.logical_or(ends, ops.reshape(stopped, (batch, count)))
        own_row = parent + ops.expand_dims(ops.arange(batch, dtype="int32") * beams, 1)
        origins = _written(_rows(carry.origins, parent), tokens.step, own_row)

        running, chosen = highest(best + ops.cast(ends, "float32") * _OUT, beams)
        next_rows = ops.take_along_axis(own_row, chosen, axis=1)

        # Only the best `beams` candidates may join the finished ones; the others are there to run on.
        joins = ops.logical_and(ends, ops.arange(count, dtype="int32") < beams)
        closed = ops.logical_not(carry.open)
        if self.early_stopping is True:
            closed = ops.logical_or(closed, ops.all(carry.is_finished, axis=1))
        joining = best / new**self.length_penalty
        joining = joining + ops.cast(ops.expand_dims(closed, 1), "float32") * _OUT
        joining = joining + ops.cast(ops.logical_not(joins), "float32") * _OUT
        sequence_scores, kept = highest(ops.concatenate([carry.sequence_scores, joining], axis=1), beams)

        def merged(old: Any, candidates: Any) -> Any:
            return _rows(ops.concatenate([old, candidates], axis=1), kept)

        is_finished = ops.take_along_axis(ops.concatenate([carry.is_finished, joins], axis=1), kept, axis=1)
        still_open = ops.logical_and(carry.open, self._may_improve(running, sequence_scores, is_finished, new, inputs))
        done = ops.logical_or(ops.logical_not(still_open), ops.all(ends, axis=1))
        if self.early_stopping is True:
            done = ops.logical_or(done, ops.all(is_finished, axis=1))
        carry = Beams(
            scores=running,
            origins=_rows(origins, chosen),
            sequences=merged(carry.sequences, sequences),
            sequence_scores=sequence_scores,
            sequence_origins=merged(carry.sequence_origins, origins),
            is_finished=is_finished,
            open=still_open,
        )
        return Chosen(
            tokens=ops.reshape(ops.take_along_axis(token, chosen, axis=1), (-1,)),
            finished=ops.logical_or(tokens.finished, ops.repeat(done, beams, axis=0)),
            carry=carry,
            parents=ops.reshape(next_rows, (-1,)),
        )

    def _candidates(self, totals: Any, count: int, seed: Any, step: Any) -> tuple[Any, Any]:
        """The scores and places of `count` candidates, the best first, from scores (batch, beams * vocab_size)."""
        if not self.do_sample:
            return highest(totals, count)
        _, drawn = highest(totals + gumbel_noise(totals.shape, seed, step), count)
        scores, order = highest(ops.take_along_axis(totals, drawn, axis=1), count)
        return scores, ops.take_along_axis(drawn, order, axis=1)

    def _may_improve(self, running: Any, finished_scores: Any, is_finished: Any, new: Any, inputs: Any) -> Any:
        """Whether the best running row of each prompt might still beat the worst finished sequence, bool (batch,)."""
        longest = self.early_stopping == "never" and self.length_penalty > 0
        length = ops.cast(inputs.limit, "float32") if longest else new
        best = running[:, :1] / length**self.length_penalty
        worst = ops.where(is_finished, ops.min(finished_scores, axis=1, keepdims=True), _OUT)
        return ops.any(best > worst, axis=1)


def _rows(x: Any, index: Any) -> Any:
    """Rows of x (batch, n, ...) at index (batch, m): (batch, m, ...)."""
    return ops.take_along_axis(x, ops.expand_dims(index, 2), axis=1)


def _written(x: Any, column: Any, values: Any) -> Any:
    """x (batch, n, columns) with values (batch, n) written to a column."""
    return ops.slice_update(x, (0, 0, column), ops.expand_dims(values, 2))


def results(carry: Beams, prompt_end: int, fill: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The finished sequences of all prompts.

    Args:
        carry: the state after the last step.
        prompt_end: column of the first new token.
        fill: id after a sequence's end.

    Returns:
        New tokens (batch, beams, new), scores (batch, beams) and origins (batch, beams, new), the best first.
    """
    sequences, scores, origins = (
        np.asarray(part) for part in (carry.sequences, carry.sequence_scores, carry.sequence_origins)
    )
    new = sequences[:, :, prompt_end : prompt_end + origins.shape[2]]
    return np.where(origins >= 0, new, fill), scores, origins
