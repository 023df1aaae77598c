"""Greedy decoding and multinomial sampling: one token a step, each row for itself."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from keras import ops

from tfmodels.generation import logits_processors as proc
from tfmodels.generation.sampling import choose_tokens
from tfmodels.generation.strategies.base import Chosen, SamplingInputs, Tokens


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Take the best token, or draw one.

    Args:
        do_sample: draw from the distribution that the scores give; None where `SamplingInputs.drawing` decides, so
            that one program does both.
    """

    do_sample: bool | None
    rows: ClassVar[int] = 1
    ends_candidates: ClassVar[bool] = False

    def start(self, rows: int, capacity: int, room: int) -> Any:
        return None

    def scores(self, logits: Any) -> Any:
        return logits

    def choose(self, scores: Any, tokens: Tokens, carry: Any, inputs: SamplingInputs) -> Chosen:
        if self.do_sample is None:
            chosen = self._drawn_or_best(scores, tokens, inputs)
        else:
            chosen = choose_tokens(scores, do_sample=self.do_sample, seed=inputs.seed, step=tokens.step)
        chosen = ops.where(tokens.finished, inputs.pad, chosen)
        ended = ops.any(ops.equal(ops.expand_dims(chosen, 1), ops.expand_dims(inputs.eos, 0)), axis=1)
        return Chosen(chosen, ops.logical_or(tokens.finished, ended))

    def _drawn_or_best(self, scores: Any, tokens: Tokens, inputs: SamplingInputs) -> Any:
        def draw() -> Any:
            warped = scores
            for processor in proc.bind(proc.WARPERS, inputs.drawing.processors):
                warped = processor(None, warped)
            return choose_tokens(warped, do_sample=True, seed=inputs.seed, step=tokens.step)

        # Outside of the branch: inside, XLA scores the vocabulary in a slower form on a CPU and copies the scores.
        best = choose_tokens(scores, do_sample=False, seed=inputs.seed, step=tokens.step)
        return ops.cond(inputs.drawing.do_sample, draw, lambda: best)
