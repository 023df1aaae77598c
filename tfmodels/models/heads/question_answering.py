"""The head that finds an answer within the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from tfmodels.layers.linear import build_all
from tfmodels.models import losses
from tfmodels.models.outputs import QuestionAnsweringOutput
from tfmodels.runtime.lowering import PLAIN, Lowering


class QuestionAnsweringHead:
    """Start and end of an answer within the input.

    `start_positions` and `end_positions` are int (batch,) or (batch, 1); negatives count as 0, positions beyond the
    input do not count.
    """

    label_names = ("start_positions", "end_positions")
    head_inputs = ("start_positions", "end_positions")
    main_outputs = ("start_logits", "end_logits")
    takes_one_text = False
    # The layer's name in the family's checkpoints.
    classifier_name = "qa_outputs"

    def make_head(self) -> None:
        setattr(self, self.classifier_name, self.make_linear(2, use_bias=True, name=self.classifier_name))

    def build_head(self) -> None:
        build_all(self.config.hidden_size, getattr(self, self.classifier_name))

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
        features = self.answer_features(outputs.last_hidden_state, training, lowering)
        scores = getattr(self, self.classifier_name)(features, lowering=lowering)
        start_logits, end_logits = ops.unstack(scores, 2, axis=-1)
        labels = {"start_positions": start_positions, "end_positions": end_positions}
        return self.head_output(
            QuestionAnsweringOutput, outputs, return_dict, labels, start_logits=start_logits, end_logits=end_logits
        )

    def answer_features(self, hidden: Any, training: bool | None, lowering: Lowering) -> Any:
        """The input of the layer that scores, from the last hidden states."""
        return hidden

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Mean of the cross-entropies of start and end."""
        return losses.question_answering_loss(
            outputs["start_logits"], outputs["end_logits"], labels["start_positions"], labels["end_positions"]
        )
