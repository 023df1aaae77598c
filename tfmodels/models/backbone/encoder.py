"""`EncoderBackbone`: positions and masks around blocks in which every token sees all others."""

from __future__ import annotations

from typing import Any, ClassVar

from tfmodels.kernels.masks import make_mask
from tfmodels.layers.tokens import TokenInputs
from tfmodels.models.backbone.base import Backbone
from tfmodels.models.backbone.context import BlockContext
from tfmodels.models.backbone.inputs import check_inputs
from tfmodels.models.outputs import BaseModelOutputWithPooling
from tfmodels.runtime.lowering import PLAIN, Lowering


class EncoderBackbone(Backbone):
    """Base of the families in which every token sees all others.

    A family implements `positions`, `embed` and `pool`; it may override `final_norm`, `position_context` and
    `block_context`.
    """

    input_names: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "attention_mask",
        "position_ids",
        "head_mask",
        "inputs_embeds",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
    )

    def forward(
        self,
        *,
        input_ids: Any,
        attention_mask: Any,
        position_ids: Any,
        head_mask: Any,
        inputs_embeds: Any,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        training: bool | None,
        token_type_ids: Any = None,
        lowering: Lowering = PLAIN,
    ) -> Any:
        places = {"position_ids": position_ids, "token_type_ids": token_type_ids}
        check_inputs(self.config, input_ids, inputs_embeds, attention_mask, **places)
        tokens = TokenInputs(input_ids, inputs_embeds, attention_mask, types=token_type_ids)
        length = tokens.length
        positions, end = self.positions(position_ids, input_ids, length)
        self.check_positions(positions, end)
        context = self.position_context(
            BlockContext(
                mask=make_mask(attention_mask, causal=False, query_length=length, key_length=length),
                positions=positions,
                return_weights=self.flag("output_attentions", output_attentions),
                training=training,
                implementation=self.attn_implementation,
                lowering=lowering,
            )
        )
        found = self.run_blocks(
            self.embed(tokens, context),
            context,
            head_mask=self.spread_head_mask(head_mask),
            output_hidden_states=self.flag("output_hidden_states", output_hidden_states),
        )
        hidden = self.final_norm(found.hidden)
        output = BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=self.pool(hidden, lowering),
            hidden_states=(*found.states, hidden) if found.states else None,
            attentions=found.weights,
        )
        return output if self.flag("return_dict", return_dict) else output.to_tuple()

    def positions(self, position_ids: Any, input_ids: Any, length: Any) -> tuple[Any, Any]:
        """Positions of the tokens, int32 (batch or 1, length), and the one after the last, where it is known."""
        raise NotImplementedError

    def final_norm(self, hidden: Any) -> Any:
        """The last hidden states from what leaves the last block."""
        return hidden

    def pool(self, hidden: Any, lowering: Lowering) -> Any:
        """One vector per row, (batch, hidden_size), or None, from the last hidden states."""
        raise NotImplementedError
