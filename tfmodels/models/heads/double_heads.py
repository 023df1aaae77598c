"""The two heads of GPT-2's double-heads model: scores of the next token, and of choices among texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tfmodels.layers.activations import get_activation
from tfmodels.layers.linear import build_all, linear
from tfmodels.models import losses
from tfmodels.models.heads.language_modeling import CausalLMHead
from tfmodels.models.outputs import DoubleHeadsOutput
from tfmodels.runtime.lowering import PLAIN, Lowering


class ChoiceSummary(keras.layers.Layer):
    """The score of a text from the hidden state of one of its tokens, by the `summary` fields of a configuration."""

    def __init__(self, config: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        for name, known in (
            ("summary_type", ("cls_index",)),
            ("summary_use_proj", (True,)),
            ("summary_proj_to_labels", (True,)),
        ):
            config.check_known(name, known)
        dtype = self.dtype_policy
        self.summary = linear(1, std=config.initializer_range, use_bias=True, dtype=dtype, name="summary")
        self.activation = get_activation(config.summary_activation or "linear")
        self.dropout = keras.layers.Dropout(config.summary_first_dropout, dtype=dtype, name="dropout")

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.summary, self.dropout)

    def call(self, hidden: Any, places: Any, training: bool | None = None, lowering: Lowering = PLAIN) -> Any:
        """Scores (batch,) of hidden states (batch, length, width) at places, int (batch,), or at the last one."""
        if places is None:
            chosen = hidden[:, -1]
        else:
            places = ops.reshape(ops.cast(places, "int32"), (-1, 1, 1))
            chosen = ops.squeeze(ops.take_along_axis(hidden, places, axis=1), 1)
        scores = self.activation(self.summary(self.dropout(chosen, training=training), lowering=lowering))
        return ops.squeeze(scores, -1)


class DoubleHeads(CausalLMHead):
    """Scores of the next token at every position, and of the choices that the texts of a row are.

    Inputs may have an axis more, the choices: `input_ids` (batch, choices, length) and so on. `mc_token_ids`, int
    (batch, choices), says which token's hidden state scores a choice: the last one where it is not given. `labels` are
    shaped as `input_ids` and shifted inside, -100 does not count; `mc_labels` are int (batch,). The output has `loss`
    of the one and `mc_loss` of the other; `fit` learns from the sum of both.
    """

    label_names = ("labels", "mc_labels")
    head_inputs = ("mc_token_ids", "labels", "mc_labels")
    main_outputs = ("logits", "mc_logits")
    input_rank = 3
    takes_one_text = False

    def make_head(self) -> None:
        super().make_head()
        self.multiple_choice_head = ChoiceSummary(self.config, dtype=self.dtype_policy, name="multiple_choice_head")

    def build_head(self) -> None:
        super().build_head()
        build_all(self.config.hidden_size, self.multiple_choice_head)

    def forward(
        self,
        *,
        mc_token_ids: Any,
        labels: Any,
        mc_labels: Any,
        return_dict: bool | None,
        training: bool | None,
        lowering: Lowering = PLAIN,
        **inputs: Any,
    ) -> Any:
        outer: tuple[Any, ...] = (-1,)
        for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"):
            value, inner = inputs[name], 2 if name == "inputs_embeds" else 1
            if value is not None and len(value.shape) == inner + 2:
                outer = ops.shape(value)[:2]
                inputs[name] = ops.reshape(value, (-1, *ops.shape(value)[2:]))
        outputs = self.backbone(**inputs, return_dict=True, training=training, lowering=lowering)
        hidden = outputs.last_hidden_state
        logits = self.to_logits(hidden, lowering)
        scores = self.multiple_choice_head(hidden, mc_token_ids, training=training, lowering=lowering)
        values = {
            "logits": ops.reshape(logits, (*outer, *ops.shape(logits)[1:])),
            "mc_logits": ops.reshape(scores, outer),
        }
        if mc_labels is not None:
            values["mc_loss"] = self._choice_loss(values["mc_logits"], mc_labels).mean()
        if labels is not None:
            values["loss"] = losses.causal_lm_loss(*self._rows(values["logits"], labels)).mean()
        # The losses are there already: one of two labels gives its own.
        return self.head_output(DoubleHeadsOutput, outputs, return_dict, {"labels": None}, **values)

    def loss_of(self, outputs: Mapping[str, Any], labels: Mapping[str, Any]) -> losses.Loss:
        """Sum of the cross-entropies of next tokens and of the right choice, as far as their labels are given."""
        parts = []
        if labels.get("labels") is not None:
            parts.append(losses.causal_lm_loss(*self._rows(outputs["logits"], labels["labels"])))
        if labels.get("mc_labels") is not None:
            parts.append(self._choice_loss(outputs["mc_logits"], labels["mc_labels"]))
        # The mean of a loss of several parts is that of their means.
        return losses.Loss(
            ops.stack([len(parts) * part.total for part in parts]), ops.stack([part.count for part in parts])
        )

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any) -> Any:
        if self.own_loss and isinstance(y_pred, Mapping):
            found = [y_pred[name] for name in ("loss", "mc_loss") if name in y_pred]
            y_pred = {**y_pred, "loss": sum(found[1:], found[0])} if found else y_pred
        return super().compute_loss(x, y, y_pred, *args, **kwargs)

    @staticmethod
    def _rows(logits: Any, labels: Any) -> tuple[Any, Any]:
        """Logits (rows, length, vocab_size) and labels (rows, length)."""
        return ops.reshape(logits, (-1, *ops.shape(logits)[-2:])), ops.reshape(labels, (-1, ops.shape(labels)[-1]))

    @staticmethod
    def _choice_loss(scores: Any, labels: Any) -> losses.Loss:
        return losses.cross_entropy(ops.reshape(scores, (-1, ops.shape(scores)[-1])), ops.reshape(labels, (-1,)))
