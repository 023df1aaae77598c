"""Score processors of sampling: they reshape the distribution that a token is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

from keras import ops

from tfmodels.generation.logits_processors.arithmetic import (
    Number,
    Tensor,
    ban,
    cast,
    except_highest,
    kth_highest,
    lowest,
    row_count,
    row_sum,
    threshold,
)
from tfmodels.generation.logits_processors.context import Context


@dataclass(frozen=True)
class Temperature:
    """Divide the scores by a temperature; below 1e-30 by that, so that no score becomes infinite."""

    temperature: Number

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        return scores / ops.maximum(cast(self.temperature, scores.dtype), 1e-30)


@dataclass(frozen=True)
class TopK:
    """Keep the `top_k` highest scores; scores equal to the lowest of them are kept too."""

    top_k: Number
    min_tokens_to_keep: int = 1

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        count = ops.maximum(cast(self.top_k, "int32"), self.min_tokens_to_keep)
        return ban(scores, scores < kth_highest(scores, count))


@dataclass(frozen=True)
class TopP:
    """Nucleus sampling: drop the least probable tokens whose probabilities sum to at most `1 - top_p`.

    Of equal scores the first ones are dropped, as by a stable sort (torch's own order of them depends on the CPU). See
    "The Curious Case of Neural Text Degeneration", https://arxiv.org/abs/1904.09751.
    """

    top_p: Number
    min_tokens_to_keep: int = 1

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        probabilities = ops.softmax(scores, axis=-1)
        # Subtract before rounding to float32: 1 - float32(0.8) is not float32(0.2).
        tail = cast(1.0 - self.top_p, scores.dtype)
        droppable = max(scores.shape[-1] - self.min_tokens_to_keep, 0)

        def fits(tokens: Tensor) -> Tensor:
            light = row_sum(ops.where(tokens, probabilities, 0.0)) <= tail
            if self.min_tokens_to_keep == 1:  # `lowest` never takes all
                return light
            return ops.logical_and(light, row_count(tokens) <= droppable)

        return ban(scores, lowest(scores, fits, tail > 0))


@dataclass(frozen=True)
class MinP:
    """Drop the tokens that are less probable than `min_p` times the most probable one.

    See "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs", https://arxiv.org/abs/2407.01082.
    """

    min_p: Number
    min_tokens_to_keep: int = 1

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        probabilities = ops.softmax(scores, axis=-1)
        limit = cast(self.min_p, scores.dtype) * ops.max(probabilities, axis=-1, keepdims=True)
        return ban(scores, except_highest(probabilities < limit, probabilities, self.min_tokens_to_keep))


@dataclass(frozen=True)
class TypicalP:
    """Keep the tokens of probability mass `typical_p` whose information is closest to the entropy.

    See "Locally Typical Sampling", https://arxiv.org/abs/2202.00666.
    """

    typical_p: Number
    min_tokens_to_keep: int = 1

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        logs = ops.log_softmax(scores, axis=-1)
        probabilities = ops.exp(logs)
        entropy = -row_sum(ops.where(probabilities > 0, logs * probabilities, 0.0))
        distance = ops.abs(-logs - entropy)
        mass = cast(self.typical_p, scores.dtype)
        farthest = threshold(distance, lambda limit: row_sum(ops.where(distance < limit, probabilities, 0.0)) < mass)
        dropped = except_highest(distance > farthest, -distance, self.min_tokens_to_keep)
        # Rounded sums must not drop anything where all the mass is kept.
        return ban(scores, ops.logical_and(dropped, mass < 1.0))


@dataclass(frozen=True)
class EpsilonCutoff:
    """Drop the tokens that are less probable than `epsilon`.

    See "Truncation Sampling as Language Model Desmoothing", https://arxiv.org/abs/2210.15191.
    """

    epsilon: Number
    min_tokens_to_keep: int = 1

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        low = ops.softmax(scores, axis=-1) < cast(self.epsilon, scores.dtype)
        return ban(scores, ops.logical_and(low, scores < kth_highest(scores, self.min_tokens_to_keep)))


@dataclass(frozen=True)
class EtaCutoff:
    """Drop the tokens that are less probable than the smaller of `epsilon` and `sqrt(epsilon) * exp(-entropy)`.

    See "Truncation Sampling as Language Model Desmoothing", https://arxiv.org/abs/2210.15191.
    """

    epsilon: Number
    min_tokens_to_keep: int = 1

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        logs = ops.log_softmax(scores, axis=-1)
        probabilities = ops.softmax(scores, axis=-1)
        entropy = -row_sum(ops.where(probabilities > 0, logs * probabilities, 0.0))
        epsilon = cast(self.epsilon, scores.dtype)
        low = probabilities < ops.minimum(epsilon, ops.sqrt(epsilon) * ops.exp(-entropy))
        return ban(scores, ops.logical_and(low, scores < kth_highest(scores, self.min_tokens_to_keep)))


@dataclass(frozen=True)
class Renormalize:
    """Turn the scores into log-probabilities."""

    def __call__(self, context: Context, scores: Tensor) -> Tensor:
        return ops.log_softmax(scores, axis=-1)
