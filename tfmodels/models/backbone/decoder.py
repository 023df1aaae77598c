"""`DecoderBackbone`: causal masks, positions and caches around the blocks."""

from __future__ import annotations

from typing import Any, ClassVar

from keras import ops

from tfmodels.cache import kv
from tfmodels.kernels.masks import AttentionMask, make_mask, positions_from_mask
from tfmodels.layers.columns import take_columns
from tfmodels.layers.tokens import TokenInputs
from tfmodels.models.backbone.base import Backbone
from tfmodels.models.backbone.context import BlockContext, Pass
from tfmodels.models.backbone.inputs import as_rows, check_cache, check_ids, check_inputs
from tfmodels.models.outputs import BaseModelOutput
from tfmodels.runtime.lowering import PLAIN, Lowering


class DecoderBackbone(Backbone):
    """Base of the causal families.

    A family implements `final_norm` and has `embed_tokens`; it may override `embed`, `position_context` and
    `block_context`. `step` is the forward pass, `forward` puts checks and named outputs around it.

    Fields:
        positions_skip_padding: whether positions that are not given count the tokens that are no padding, not columns.
        uses_positions: whether hidden states depend on positions; without, `position_ids` only tell packed sequences
            apart.
    """

    positions_skip_padding = False
    uses_positions = True

    input_names: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "attention_mask",
        "position_ids",
        "head_mask",
        "inputs_embeds",
        "past_key_values",
        "cache_position",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
    )

    def step(self, tokens: TokenInputs, cache: Any = None, *, lowering: Lowering = PLAIN) -> tuple[Any, Any]:
        """Run tokens after those of a cache.

        This is the pass that generation and exports trace: a plain method, without Keras's `__call__` and its checks.

        Args:
            tokens: the new tokens.
            cache: a growing cache, a `StaticCache`, or None.
            lowering: which operations to take.

        Returns:
            The last hidden states, normalised, (batch, length, hidden_size), and the cache with the new tokens, of
            the kind given (a growing one for None).

        Raises:
            ValueError: a static cache has no room for the tokens, as far as its length is known now.

        Example:
            >>> import numpy as np
            >>> from tfmodels import LlamaConfig, TFLlamaModel
            >>> config = LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_attention_heads=2,
            ...                      num_hidden_layers=1)
            >>> from tfmodels.layers.tokens import TokenInputs
            >>> backbone = TFLlamaModel(config).backbone
            >>> hidden, cache = backbone.step(TokenInputs(np.array([[1, 2, 3]])))
            >>> hidden, cache = backbone.step(TokenInputs(np.array([[4]])), cache)
            >>> tuple(hidden.shape), tuple(cache[0][0].shape)
            ((1, 1, 8), (1, 2, 4, 4))
        """
        found = self.run(tokens, cache, lowering=lowering)
        return found.hidden, kv.grown(cache, found.caches, tokens.length)

    def run(
        self,
        tokens: TokenInputs,
        cache: Any = None,
        *,
        lowering: Lowering = PLAIN,
        packed: bool = False,
        training: bool | None = None,
        head_mask: Any = None,
        return_weights: bool = False,
        output_hidden_states: bool = False,
    ) -> Pass:
        """`step` with all that the blocks give.

        Args:
            tokens, cache, lowering: as for `step`.
            packed: whether restarting positions separate sequences that share a row.
            training: as in Keras.
            head_mask: (heads,) or (layers, heads), see `spread_head_mask`.
            return_weights, output_hidden_states: whether to return attention weights, and states before each block.
        """
        length, filled = tokens.length, kv.filled_length(cache)
        kv.check_room(cache, length)
        static = isinstance(cache, kv.StaticCache)
        mask = make_mask(
            tokens.mask,
            causal=True,
            query_length=length,
            key_length=kv.room_of(cache.layers[0]) if static else filled + length,
            offset=filled,
            packed_positions=as_rows(tokens.positions) if packed else None,
        )
        mask.holders = tokens.holders
        if tokens.positions is None:
            positions, end = self.counted_positions(mask), filled + length
        else:
            positions, end = as_rows(tokens.positions), None
        self.check_positions(positions, end)
        context = self.position_context(
            BlockContext(
                mask=mask,
                positions=positions,
                cache_length=filled if static else None,
                return_weights=return_weights,
                training=training,
                implementation=self.attn_implementation,
                lowering=lowering,
            )
        )
        found = self.run_blocks(
            self.embed(tokens, context),
            context,
            past=None if cache is None else kv.layers_of(cache),
            head_mask=self.spread_head_mask(head_mask),
            output_hidden_states=output_hidden_states,
        )
        return found._replace(hidden=self.final_norm(found.hidden))

    def forward(
        self,
        *,
        input_ids: Any,
        attention_mask: Any,
        position_ids: Any,
        head_mask: Any,
        inputs_embeds: Any,
        past_key_values: Any,
        cache_position: Any,
        use_cache: bool | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        training: bool | None,
        token_type_ids: Any = None,
        lowering: Lowering = PLAIN,
    ) -> Any:
        places = {"position_ids": position_ids, "cache_position": cache_position, "token_type_ids": token_type_ids}
        check_inputs(self.config, input_ids, inputs_embeds, attention_mask, **places)
        if token_type_ids is not None:  # looked up in the embeddings of the tokens
            check_ids(token_type_ids, self.config.vocab_size, "token_type_ids")
        # Training never decodes; with a cache, restarting positions would not be seen as packed sequences.
        use_cache = self.flag("use_cache", use_cache if use_cache is not None or not training else False)
        positions = cache_position if position_ids is None else position_ids
        tokens = TokenInputs(input_ids, inputs_embeds, attention_mask, positions, token_type_ids)
        if past_key_values is not None:
            batch = (inputs_embeds if input_ids is None else input_ids).shape[0]
            check_cache(self.config, past_key_values, len(self.layers), batch)
        found = self.run(
            tokens,
            past_key_values,
            lowering=lowering,
            packed=position_ids is not None and past_key_values is None and not use_cache,
            training=training,
            head_mask=head_mask,
            return_weights=self.flag("output_attentions", output_attentions),
            output_hidden_states=self.flag("output_hidden_states", output_hidden_states),
        )
        kept = use_cache or isinstance(past_key_values, kv.StaticCache)
        output = BaseModelOutput(
            last_hidden_state=found.hidden,
            past_key_values=kv.grown(past_key_values, found.caches, tokens.length) if kept else None,
            hidden_states=(*found.states, found.hidden) if found.states else None,
            attentions=found.weights,
        )
        return output if self.flag("return_dict", return_dict) else output.to_tuple()

    def counted_positions(self, mask: AttentionMask) -> Any:
        """Positions of this call's tokens where none are given, int32 (batch or 1, length): on from those cached."""
        if not self.positions_skip_padding or mask.keys is None:
            return ops.expand_dims(ops.arange(mask.query_length, dtype="int32") + mask.offset, 0)
        return take_columns(positions_from_mask(mask.keys), mask.offset, mask.query_length)
