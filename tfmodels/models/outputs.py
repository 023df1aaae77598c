"""The outputs of models: one class per task, each an ordered dict read by attribute, key or index."""

from __future__ import annotations

from tfmodels.generation.outputs import GenerateOutput
from tfmodels.runtime.outputs import ModelOutput, PastKeyValues

__all__ = [
    "BaseModelOutput",
    "BaseModelOutputWithPooling",
    "CausalLMOutput",
    "GenerateOutput",
    "MaskedLMOutput",
    "ModelOutput",
    "MultipleChoiceOutput",
    "NextSentencePredictorOutput",
    "PastKeyValues",
    "PreTrainingOutput",
    "QuestionAnsweringOutput",
    "SentenceEmbeddingOutput",
    "SequenceClassifierOutput",
    "TokenClassifierOutput",
]


class BaseModelOutput(ModelOutput):
    """Output of a decoder's backbone.

    Fields:
        last_hidden_state: (batch, length, hidden_size).
        past_key_values: one (key, value) pair per layer, each (batch, key_value_heads, length so far, head_dim).
        hidden_states: the embeddings and every layer's output, each (batch, length, hidden_size).
        attentions: per layer, after softmax, (batch, heads, length, keys).
    """

    fields = ("last_hidden_state", "past_key_values", "hidden_states", "attentions")


class BaseModelOutputWithPooling(ModelOutput):
    """Output of an encoder's backbone; `pooler_output` is (batch, hidden_size)."""

    fields = ("last_hidden_state", "pooler_output", "hidden_states", "attentions")


class CausalLMOutput(ModelOutput):
    """Output of a causal language model; `loss` is a scalar, `logits` (batch, length, vocab_size)."""

    fields = ("loss", "logits", "past_key_values", "hidden_states", "attentions")


class DoubleHeadsOutput(ModelOutput):
    """Output of a language model with a head for choices.

    Fields:
        loss, mc_loss: scalars, of the next tokens and of the right choice.
        logits: (batch, choices, length, vocab_size).
        mc_logits: (batch, choices).
        past_key_values, hidden_states, attentions: as in `BaseModelOutput`, the choices folded into the batch.
    """

    fields = ("loss", "mc_loss", "logits", "mc_logits", "past_key_values", "hidden_states", "attentions")


class MaskedLMOutput(ModelOutput):
    """Output of a masked language model; `loss` is a scalar, `logits` (batch, length, vocab_size)."""

    fields = ("loss", "logits", "hidden_states", "attentions")


class NextSentencePredictorOutput(ModelOutput):
    """Output of a next-sentence predictor; `logits` is (batch, 2): the second text follows, or is a random one."""

    fields = ("loss", "logits", "hidden_states", "attentions")


class PreTrainingOutput(ModelOutput):
    """Output of BERT's pretraining heads.

    Fields:
        loss: scalar.
        prediction_logits: of masked tokens, (batch, length, vocab_size).
        seq_relationship_logits: of the next sentence, (batch, 2).
        hidden_states, attentions: as in `BaseModelOutputWithPooling`.
    """

    fields = ("loss", "prediction_logits", "seq_relationship_logits", "hidden_states", "attentions")


class SequenceClassifierOutput(ModelOutput):
    """Output of a classifier or regressor of whole sequences; `logits` is (batch, num_labels)."""

    fields = ("loss", "logits", "past_key_values", "hidden_states", "attentions")


class TokenClassifierOutput(ModelOutput):
    """Output of a token classifier; `logits` is (batch, length, num_labels)."""

    fields = ("loss", "logits", "hidden_states", "attentions")


class QuestionAnsweringOutput(ModelOutput):
    """Output of an extractive question-answering model; both logits are (batch, length)."""

    fields = ("loss", "start_logits", "end_logits", "hidden_states", "attentions")


class MultipleChoiceOutput(ModelOutput):
    """Output of a multiple-choice model; `logits` is (batch, choices)."""

    fields = ("loss", "logits", "hidden_states", "attentions")


class SentenceEmbeddingOutput(ModelOutput):
    """Output of a sentence encoder; `sentence_embedding` is float (batch, dimension)."""

    fields = ("sentence_embedding",)
