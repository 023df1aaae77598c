"""Score processors, in the order and with the results users of transformers know.

A processor is a frozen dataclass called as `processor(context, scores)`. It works on a token buffer of fixed shape
with traced bounds, so that one compiled program serves every prompt length. Its numbers and token ids are inputs of
that program: `split` takes them out and `bind` puts tensors in their place. Rows that differ in their settings share a
program by `stack`, which gives every number once per row.

Scores are (batch, vocab) float32 and a banned token's is -inf. Rows without a finite score stay without one.

    >>> from keras import ops
    >>> ids = ops.convert_to_tensor([[4, 1, 3, 1]])
    >>> context = Context(ids, start=0, end=4, prompt_end=3, attended=ids > 0)
    >>> NoRepeatNGram(2)(context, ops.zeros((1, 5))).numpy()
    array([[  0.,   0.,   0., -inf,   0.]], dtype=float32)
"""

from tfmodels.generation.logits_processors.context import Context, Processor
from tfmodels.generation.logits_processors.inputs import Inputs, bind, build, split
from tfmodels.generation.logits_processors.rows import CUTOFFS, RULES, WARPERS, bias_of, parted, stack
from tfmodels.generation.logits_processors.rules import (
    BadWords,
    BeginSuppressTokens,
    Callback,
    CountPenalty,
    ExponentialDecay,
    ForcedBOS,
    ForcedEOS,
    MinLength,
    MinNewTokens,
    NoPromptNGram,
    NoRepeatNGram,
    PromptPenalty,
    RemoveInvalid,
    RepetitionPenalty,
    SequenceBias,
    SuppressTokens,
)
from tfmodels.generation.logits_processors.warpers import (
    EpsilonCutoff,
    EtaCutoff,
    MinP,
    Renormalize,
    Temperature,
    TopK,
    TopP,
    TypicalP,
)

__all__ = [
    "CUTOFFS",
    "RULES",
    "WARPERS",
    "BadWords",
    "BeginSuppressTokens",
    "Callback",
    "Context",
    "CountPenalty",
    "EpsilonCutoff",
    "EtaCutoff",
    "ExponentialDecay",
    "ForcedBOS",
    "ForcedEOS",
    "Inputs",
    "MinLength",
    "MinNewTokens",
    "MinP",
    "NoPromptNGram",
    "NoRepeatNGram",
    "Processor",
    "PromptPenalty",
    "RemoveInvalid",
    "Renormalize",
    "RepetitionPenalty",
    "SequenceBias",
    "SuppressTokens",
    "Temperature",
    "TopK",
    "TopP",
    "TypicalP",
    "bias_of",
    "bind",
    "build",
    "parted",
    "split",
    "stack",
]
