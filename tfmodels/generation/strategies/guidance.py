"""Classifier-free guidance: scores are pushed away from those of a negative prompt."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import ops

from tfmodels.generation.strategies.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Guided(Sampling):
    """Sampling from scores that a second row of each prompt, with the negative prompt, corrects.

    Rows come in pairs: a prompt's own, then the negative one, to which the same tokens are added.

    Args:
        do_sample: draw from the distribution that the scores give.
        scale: 1 for the prompt's own scores; above 1 away from the negative ones.

    Source:
        Sanchez et al., https://arxiv.org/abs/2306.17806.
    """

    scale: float = 1.0

    def scores(self, logits: Any) -> Any:
        logits = ops.log_softmax(logits, axis=-1)
        own, negative = logits[0::2], logits[1::2]
        return self.scale * (own - negative) + negative
