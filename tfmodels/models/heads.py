"""The task heads, written once for all families.

A head is a mixin before a family's base class: it creates its layers, takes its labels beside the backbone's inputs
and turns the backbone's output into logits. `loss_of` gives the loss of logits and labels as a sum and a count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfmodels.layers.linear import build_all, unembed
from tfmodels.models import losses
from tfmodels.models.outputs import (
    CausalLMOutput,
    MaskedLMOutput,
    MultipleChoiceOutput,
    NextSentencePredictorOutput,
    PreTrainingOutput,
    QuestionAnsweringOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from tfmodels.runtime.lowering import PLAIN, Lowering


class CausalLMHead:
    """Scores of the next token at every position.

    `labels` are int (batch, length) with -100 where a token does not count; they are shifted inside. `logits_to_keep`
    limits the positions that get logits: an int n for the last n (0 for all), a 1-D int tensor of positions, or a 2-D
    one with positions per row (batch, kept); with it, labels still need all positions.
    """

    label_names = ("labels",)
    head_inputs = ("labels", "logits_to_keep")
    ties_embeddings = True

    def make_head(self) -> None:
        if not self.config.tie_word_embeddings:
            self.lm_head = self.make_linear(self.config.vocab_size, use_bias=False, name="lm_head")

    def build_head(self) -> None:
        if not self.config.tie_word_embeddings:
            build_all(self.config.hidden_size, self.lm_head)

    def get_output_embeddings(self) -> keras.layers.Layer:
        """The layer that gives logits: `lm_head`, or the input embeddings where they are tied."""
        return self.get_input_embeddings() if self.config.tie_word_embeddings else self.lm_head

    def to_logits(self, hidden: Any, lowering: Lowering = PLAIN) -> Any:
        """Scores over the vocabulary, (batch, length, vocab_size), from hidden states (batch, length, hidden_size)."""
        if self.config.tie_word_embeddings:
            logits = unembed(hidden, self.get_input_embeddings(), lowering)
        else:
            logits = self.lm_head(hidden, lowering=lowering)
        factor, cap = self.config.logit_factor, self.config.logit_cap
        logits = logits if factor == 1 else logits * factor
        return logits if cap is None else ops.tanh(logits / cap) * cap

    def forward(
        self,
        *,
        labels: Any,
        logits_to_keep: Any,
        return_dict: bool | None,
        lowering: Lowering = PLAIN,
        **inputs: Any,
    ) -> Any:
        outputs = self.backbone(**inputs, return_dict=True, lowering=lowering)
        if labels is not None and logits_to_keep is not None and not _keeps_all(logits_to_keep):
            raise ValueError("labels need the logits of all positions: leave logits_to_keep out.")
        logits = self.to_logits(keep_positions(outputs.last_hidden_state, logits_to_keep), lowering)
        return self.head_output(CausalLMOutput, outputs, return_dict, {"labels": labels}, logits=logits)

    def label_classes(self, labels: Any) -> int:
        return self.config.vocab_size

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Cross-entropy of each next token."""
        return losses.causal_lm_loss(outputs["logits"], labels["labels"])


def _keeps_all(logits_to_keep: Any) -> bool:
    return isinstance(logits_to_keep, int) and logits_to_keep == 0


def keep_positions(hidden: Any, logits_to_keep: Any) -> Any:
    """The positions of `hidden` (batch, length, width) that `logits_to_keep` names; see `CausalLMHead`.

    Example:
        >>> import numpy as np
        >>> x = np.arange(4.0).reshape(1, 4, 1)
        >>> [np.asarray(keep_positions(x, keep)).ravel().tolist() for keep in (1, np.array([2, 0]))]
        [[3.0], [2.0, 0.0]]
    """
    if logits_to_keep is None or _keeps_all(logits_to_keep):
        return hidden
    if isinstance(logits_to_keep, int):
        if logits_to_keep < 0:
            raise ValueError(
                f"logits_to_keep={logits_to_keep}; 0 for all, n for the last n, or positions are expected."
            )
        return hidden[:, -logits_to_keep:]
    positions = ops.convert_to_tensor(logits_to_keep)
    if not keras.backend.is_int_dtype(keras.backend.standardize_dtype(positions.dtype)) or len(positions.shape) > 2:
        raise ValueError(
            f"logits_to_keep is {keras.backend.standardize_dtype(positions.dtype)} of shape {tuple(positions.shape)}; "
            f"an int, a 1-D int tensor or a 2-D int tensor (batch, kept) is expected."
        )
    if len(positions.shape) == 0:
        raise ValueError("logits_to_keep is a scalar tensor; give a Python int, whose value shapes the graph.")
    if len(positions.shape) == 1:
        return ops.take(hidden, positions, axis=1)
    return ops.take_along_axis(hidden, ops.expand_dims(positions, 2), axis=1)


class MaskedLMHead:
    """Scores of the tokens behind masked positions; `labels` are int (batch, length) with -100 where nothing is asked.

    A family makes the layers and implements `to_logits(hidden, lowering)`.
    """

    label_names = ("labels",)
    head_inputs = ("labels",)
    ties_embeddings = True

    def forward(self, *, labels: Any, return_dict: bool | None, lowering: Lowering = PLAIN, **inputs: Any) -> Any:
        outputs = self.backbone(**inputs, return_dict=True, lowering=lowering)
        logits = self.to_logits(outputs.last_hidden_state, lowering)
        return self.head_output(MaskedLMOutput, outputs, return_dict, {"labels": labels}, logits=logits)

    def label_classes(self, labels: Any) -> int:
        return self.config.vocab_size

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Cross-entropy of the tokens that were asked for."""
        return losses.cross_entropy(outputs["logits"], labels["labels"])


class NextSentenceHead:
    """Whether the second of two texts follows the first (class 0) or is a random one (class 1).

    `labels`, or `next_sentence_label` as TensorFlow scripts call them, are int (batch,).
    """

    label_names = ("labels",)
    head_inputs = ("labels", "next_sentence_label")
    takes_one_text = False

    def make_head(self) -> None:
        self.seq_relationship = self.make_linear(2, use_bias=True, name="seq_relationship")

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.seq_relationship)

    def forward(
        self,
        *,
        labels: Any,
        next_sentence_label: Any,
        return_dict: bool | None,
        lowering: Lowering = PLAIN,
        **inputs: Any,
    ) -> Any:
        if labels is not None and next_sentence_label is not None:
            raise ValueError("labels and next_sentence_label are two names of the same labels; give one of them.")
        labels = next_sentence_label if labels is None else labels
        outputs = self.backbone(**inputs, return_dict=True, lowering=lowering)
        logits = self.seq_relationship(outputs.pooler_output, lowering=lowering)
        return self.head_output(NextSentencePredictorOutput, outputs, return_dict, {"labels": labels}, logits=logits)

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Cross-entropy of the two classes."""
        return losses.cross_entropy(outputs["logits"], ops.reshape(labels["labels"], (-1,)))


class PreTrainingHead:
    """Scores of masked tokens beside those of the next sentence; the loss is the sum of both.

    `labels` are int (batch, length) with -100 where nothing is asked, `next_sentence_label` int (batch,). A family's
    head for masked tokens comes before this one and makes the layers that `to_logits` uses.
    """

    label_names = ("labels", "next_sentence_label")
    head_inputs = ("labels", "next_sentence_label")
    main_outputs = ("prediction_logits", "seq_relationship_logits")
    ties_embeddings = True
    takes_one_text = False

    def make_head(self) -> None:
        super().make_head()
        self.seq_relationship = self.make_linear(2, use_bias=True, name="seq_relationship")

    def build_head(self) -> None:
        super().build_head()
        build_all(self.config.hidden_size, self.seq_relationship)

    def forward(
        self,
        *,
        labels: Any,
        next_sentence_label: Any,
        return_dict: bool | None,
        lowering: Lowering = PLAIN,
        **inputs: Any,
    ) -> Any:
        outputs = self.backbone(**inputs, return_dict=True, lowering=lowering)
        scores = {
            "prediction_logits": self.to_logits(outputs.last_hidden_state, lowering),
            "seq_relationship_logits": self.seq_relationship(outputs.pooler_output, lowering=lowering),
        }
        given = {"labels": labels, "next_sentence_label": next_sentence_label}
        return self.head_output(PreTrainingOutput, outputs, return_dict, given, **scores)

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Sum of the cross-entropies of masked tokens and of the next sentence."""
        tokens = losses.cross_entropy(outputs["prediction_logits"], labels["labels"])
        sentences = ops.reshape(labels["next_sentence_label"], (-1,))
        pairs = losses.cross_entropy(outputs["seq_relationship_logits"], sentences)
        # The mean of a loss of two parts is that of their means.
        return losses.Loss(ops.stack([2 * tokens.total, 2 * pairs.total]), ops.stack([tokens.count, pairs.count]))


class SequenceClassificationHead:
    """Classification or regression of whole sequences, here at each row's last token that is not padding.

    `labels`: see `tfmodels.models.losses.sequence_classification_loss`; without `config.problem_type` the kind of
    problem follows from `num_labels` and the labels' dtype. With `inputs_embeds` the last position is taken.
    Families that classify otherwise override `make_head`, `build_head` and `classify`.
    """

    label_names = ("labels",)
    head_inputs = ("labels",)
    classifies_texts = True

    @property
    def finds_last_token(self) -> bool:
        """Whether `classify` reads the last token that is not padding: it does unless a family overrides it."""
        return type(self).classify is SequenceClassificationHead.classify

    def make_head(self) -> None:
        self.score = self.make_linear(self.config.num_labels, use_bias=False, name="score")

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.score)

    def classify(self, hidden: Any, input_ids: Any, training: bool | None, lowering: Lowering = PLAIN) -> Any:
        """Logits (batch, num_labels) from the last hidden states (batch, length, hidden_size)."""
        pad = self.config.pad_token_id
        if pad is None and hidden.shape[0] != 1:
            raise ValueError(
                f"{type(self).__name__} finds each row's last token by config.pad_token_id, which is None: set it, or "
                f"give one row at a time (got a batch of {hidden.shape[0] or 'unknown size'})."
            )
        if pad is None or input_ids is None:
            pooled = hidden[:, -1]
        else:
            columns = ops.arange(ops.shape(input_ids)[1], dtype="int32")
            last = ops.max(columns * ops.cast(ops.not_equal(input_ids, pad), "int32"), axis=1)
            pooled = ops.squeeze(ops.take_along_axis(hidden, ops.reshape(last, (-1, 1, 1)), axis=1), 1)
        return self.score(pooled, lowering=lowering)

    def forward(
        self,
        *,
        labels: Any,
        return_dict: bool | None,
        training: bool | None,
        lowering: Lowering = PLAIN,
        **inputs: Any,
    ) -> Any:
        outputs = self.backbone(**inputs, return_dict=True, training=training, lowering=lowering)
        logits = self.classify(outputs.last_hidden_state, inputs["input_ids"], training, lowering)
        return self.head_output(SequenceClassifierOutput, outputs, return_dict, {"labels": labels}, logits=logits)

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Cross-entropy, binary cross-entropy or squared error, by the kind of problem."""
        given = labels["labels"]
        return losses.sequence_classification_loss(outputs["logits"], given, self._problem_type(given))

    def label_classes(self, labels: Any) -> int | None:
        single = self._problem_type(labels) == "single_label_classification"
        one_hot = len(labels.shape) == 2 and labels.shape[1] > 1  # which the loss refuses
        return self.config.num_labels if single and not one_hot else None

    def _problem_type(self, labels: Any) -> str:
        return self.config.problem_type or losses.infer_problem_type(self.config.num_labels, labels)


class PooledClassificationHead(SequenceClassificationHead):
    """Classification or regression of whole sequences by their pooled output."""

    def make_head(self) -> None:
        self.dropout = keras.layers.Dropout(classifier_dropout(self.config), dtype=self.dtype_policy, name="dropout")
        self.classifier = self.make_linear(self.config.num_labels, use_bias=True, name="classifier")

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.dropout, self.classifier)

    def classify(self, hidden: Any, input_ids: Any, training: bool | None, lowering: Lowering = PLAIN) -> Any:
        pooled = self.dropout(self.backbone.pool(hidden, lowering), training=training)
        return self.classifier(pooled, lowering=lowering)


class MultipleChoiceHead:
    """Choice among several texts, each read alone and scored by its pooled output.

    Inputs have an axis more, the choices: `input_ids` (batch, choices, length) and so on; `labels` are int (batch,).
    """

    label_names = ("labels",)
    head_inputs = ("labels",)
    input_rank = 3
    takes_one_text = False

    def make_head(self) -> None:
        self.dropout = keras.layers.Dropout(classifier_dropout(self.config), dtype=self.dtype_policy, name="dropout")
        self.classifier = self.make_linear(1, use_bias=True, name="classifier")

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.dropout, self.classifier)

    def forward(
        self,
        *,
        labels: Any,
        return_dict: bool | None,
        training: bool | None,
        lowering: Lowering = PLAIN,
        **inputs: Any,
    ) -> Any:
        choices = None
        for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"):
            if inputs.get(name) is not None:
                inputs[name], choices = _fold_choices(name, inputs[name], 4 if name == "inputs_embeds" else 3)
        outputs = self.backbone(**inputs, return_dict=True, training=training, lowering=lowering)
        features = self.choice_features(outputs, training, lowering)
        logits = ops.reshape(self.classifier(features, lowering=lowering), (-1, choices))
        return self.head_output(MultipleChoiceOutput, outputs, return_dict, {"labels": labels}, logits=logits)

    def choice_features(self, outputs: Any, training: bool | None, lowering: Lowering) -> Any:
        """The classifier's input for each text, (batch * choices, hidden_size)."""
        return self.dropout(outputs.pooler_output, training=training)

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Cross-entropy of the right choice."""
        return losses.cross_entropy(outputs["logits"], ops.reshape(labels["labels"], (-1,)))


def _fold_choices(name: str, values: Any, rank: int) -> tuple[Any, Any]:
    """(batch, choices, ...) as (batch * choices, ...), and the number of choices."""
    if len(values.shape) != rank:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; {rank} axes were expected: (batch, choices, ...).")
    choices, *rest = ops.shape(values)[1:]
    return ops.reshape(values, (-1, *rest)), choices


class TokenClassificationHead:
    """Classification of every token; `labels` are int (batch, length) with -100 where a token does not count."""

    label_names = ("labels",)
    head_inputs = ("labels",)
    # The layer's name in the family's checkpoints.
    classifier_name = "classifier"

    def make_head(self) -> None:
        self.dropout = keras.layers.Dropout(classifier_dropout(self.config), dtype=self.dtype_policy, name="dropout")
        classifier = self.make_linear(self.config.num_labels, use_bias=True, name=self.classifier_name)
        setattr(self, self.classifier_name, classifier)

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.dropout, getattr(self, self.classifier_name))

    def forward(
        self,
        *,
        labels: Any,
        return_dict: bool | None,
        training: bool | None,
        lowering: Lowering = PLAIN,
        **inputs: Any,
    ) -> Any:
        inputs = self.without_cache(inputs)
        outputs = self.backbone(**inputs, return_dict=True, training=training, lowering=lowering)
        hidden = self.dropout(outputs.last_hidden_state, training=training)
        logits = getattr(self, self.classifier_name)(hidden, lowering=lowering)
        return self.head_output(TokenClassifierOutput, outputs, return_dict, {"labels": labels}, logits=logits)

    def label_classes(self, labels: Any) -> int:
        return self.config.num_labels

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Cross-entropy of the tokens that count."""
        return losses.cross_entropy(outputs["logits"], labels["labels"])


def classifier_dropout(config: Any) -> float:
    """The share that training drops before a classifier, by whichever name the configuration has for it."""
    for name in ("classifier_dropout", "hidden_dropout", "hidden_dropout_prob"):
        value = getattr(config, name, None)
        if value is not None:
            return value
    return 0.1


class QuestionAnsweringHead:
    """Start and end of an answer within the input.

    `start_positions` and `end_positions` are int (batch,) or (batch, 1); negatives count as 0, positions beyond the
    input do not count.
    """

    label_names = ("start_positions", "end_positions")
    head_inputs = ("start_positions", "end_positions")
    main_outputs = ("start_logits", "end_logits")
    takes_one_text = False

    def make_head(self) -> None:
        self.qa_outputs = self.make_linear(2, use_bias=True, name="qa_outputs")

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.qa_outputs)

    def forward(
        self,
        *,
        start_positions: Any,
        end_positions: Any,
        return_dict: bool | None,
        training: bool | None,
        lowering: Lowering = PLAIN,
        **inputs: Any,
    ) -> Any:
        if (start_positions is None) != (end_positions is None):
            raise ValueError("start_positions and end_positions go together; only one was given.")
        inputs = self.without_cache(inputs)
        outputs = self.backbone(**inputs, return_dict=True, training=training, lowering=lowering)
        scores = self.qa_outputs(self.answer_features(outputs.last_hidden_state, training), lowering=lowering)
        start_logits, end_logits = ops.unstack(scores, 2, axis=-1)
        labels = {"start_positions": start_positions, "end_positions": end_positions}
        return self.head_output(
            QuestionAnsweringOutput, outputs, return_dict, labels, start_logits=start_logits, end_logits=end_logits
        )

    def answer_features(self, hidden: Any, training: bool | None) -> Any:
        """The input of the layer that scores, from the last hidden states."""
        return hidden

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Mean of the cross-entropies of start and end."""
        return losses.question_answering_loss(
            outputs["start_logits"], outputs["end_logits"], labels["start_positions"], labels["end_positions"]
        )
