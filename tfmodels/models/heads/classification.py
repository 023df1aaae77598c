"""Heads that classify texts, tokens and choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfmodels.layers.linear import build_all
from tfmodels.models import losses
from tfmodels.models.outputs import MultipleChoiceOutput, SequenceClassifierOutput, TokenClassifierOutput
from tfmodels.runtime.lowering import PLAIN, Lowering


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

    def classify(
        self, hidden: Any, inputs: Mapping[str, Any], training: bool | None, lowering: Lowering = PLAIN
    ) -> Any:
        """Logits (batch, num_labels) from the last hidden states (batch, length, hidden_size) and the inputs."""
        pad, input_ids = self.config.pad_token_id, inputs["input_ids"]
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
        logits = self.classify(outputs.last_hidden_state, inputs, training, lowering)
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

    def classify(
        self, hidden: Any, inputs: Mapping[str, Any], training: bool | None, lowering: Lowering = PLAIN
    ) -> Any:
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
        features = self.choice_features(outputs, inputs, training, lowering)
        logits = ops.reshape(self.classifier(features, lowering=lowering), (-1, choices))
        return self.head_output(MultipleChoiceOutput, outputs, return_dict, {"labels": labels}, logits=logits)

    def choice_features(
        self, outputs: Any, inputs: Mapping[str, Any], training: bool | None, lowering: Lowering
    ) -> Any:
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

    def make_head(self) -> None:
        self.dropout = keras.layers.Dropout(classifier_dropout(self.config), dtype=self.dtype_policy, name="dropout")
        classifier = self.make_linear(self.config.num_labels, use_bias=True, name=self.token_classifier_name)
        setattr(self, self.token_classifier_name, classifier)

    def build_head(self) -> None:
        build_all(self.config.hidden_size, self.dropout, getattr(self, self.token_classifier_name))

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
        features = self.token_features(outputs.last_hidden_state, training, lowering)
        logits = getattr(self, self.token_classifier_name)(features, lowering=lowering)
        return self.head_output(TokenClassifierOutput, outputs, return_dict, {"labels": labels}, logits=logits)

    def token_features(self, hidden: Any, training: bool | None, lowering: Lowering) -> Any:
        """The classifier's input for each token, (batch, length, hidden_size), from the last hidden states."""
        return self.dropout(hidden, training=training)

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
