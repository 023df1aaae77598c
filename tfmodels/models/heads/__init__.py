"""The task heads, written once for all families.

A head is a mixin before a family's base class: it creates its layers, takes its labels beside the backbone's inputs
and turns the backbone's output into logits. `loss_of` gives the loss of logits and labels as a sum and a count.
"""

from tfmodels.models.heads.classification import (
    MultipleChoiceHead,
    PooledClassificationHead,
    SequenceClassificationHead,
    TokenClassificationHead,
    classifier_dropout,
)
from tfmodels.models.heads.double_heads import DoubleHeads
from tfmodels.models.heads.language_modeling import (
    CausalLMHead,
    MaskedLMHead,
    NextSentenceHead,
    PreTrainingHead,
    keep_positions,
)
from tfmodels.models.heads.question_answering import QuestionAnsweringHead

__all__ = [
    "CausalLMHead",
    "DoubleHeads",
    "MaskedLMHead",
    "MultipleChoiceHead",
    "NextSentenceHead",
    "PooledClassificationHead",
    "PreTrainingHead",
    "QuestionAnsweringHead",
    "SequenceClassificationHead",
    "TokenClassificationHead",
    "classifier_dropout",
    "keep_positions",
]
