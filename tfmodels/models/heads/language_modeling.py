"""Heads that score tokens: the next one, masked ones, and the heads BERT was pre-trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfmodels.kernels.linear_cross_entropy import BLOCK, Projection
from tfmodels.layers.linear import build_all, is_one_product, unembed
from tfmodels.models import losses
from tfmodels.models.calling import values_of
from tfmodels.models.outputs import CausalLMOutput, MaskedLMOutput, NextSentencePredictorOutput, PreTrainingOutput
from tfmodels.runtime.lowering import PLAIN, Lowering


class CausalLMHead:
    """Scores of the next token at every position.

    `labels` are int (batch, length) with -100 where a token does not count; they are shifted inside. `logits_to_keep`
    limits the positions that get logits: an int n for the last n (0 for all), a 1-D int tensor of positions, or a 2-D
    one with positions per row (batch, kept); with it, labels still need all positions.

    A graph whose logits would take more than half a gigabyte computes the loss in blocks of tokens: where nothing else
    reads them, they never exist all at once. Metrics that read them still work, for one more product.
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
        hidden = outputs.last_hidden_state
        logits = self.to_logits(keep_positions(hidden, logits_to_keep), lowering)
        loss = self._loss_in_blocks(hidden, labels, bool(inputs.get("training")))
        return self.head_output(
            CausalLMOutput, outputs, return_dict, {"labels": labels}, given_loss=loss, logits=logits
        )

    def label_classes(self, labels: Any) -> int:
        return self.config.vocab_size

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Cross-entropy of each next token."""
        return losses.causal_lm_loss(outputs["logits"], labels["labels"])

    def _loss_in_blocks(self, hidden: Any, labels: Any, learns: bool) -> losses.Loss | None:
        """The loss without the logits, or None where they are small, there already, or more than one product.

        Under a distribution of Keras the logits are made: each device has its part of them, while a block of tokens
        would be computed by all.
        """
        if labels is None or values_of(labels) is not None or None in hidden.shape:
            return None
        if keras.distribution.distribution() is not None:
            return None
        layer = self.get_output_embeddings()
        if math.prod(hidden.shape[:2]) * self.config.vocab_size <= BLOCK or not is_one_product(layer):
            return None
        tied = self.config.tie_word_embeddings
        if not tied and layer.compute_dtype != keras.backend.standardize_dtype(hidden.dtype):
            return None  # a head of another dtype than the backbone, such as float32 over bfloat16
        projection = Projection(by_rows=tied, factor=self.config.logit_factor, cap=self.config.logit_cap)
        return losses.causal_lm_loss_in_blocks(
            hidden, layer.embeddings if tied else layer.kernel, labels, projection, learns=learns
        )


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
