"""Base classes of the backbones: the loop over blocks, and for decoders masks, positions and caches around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmodels.cache import kv
from tfmodels.configs.base import ModelConfig
from tfmodels.kernels.masks import AttentionMask, make_mask
from tfmodels.kernels.recompute import recompute
from tfmodels.layers.attention import AttentionPath, attend, merge_heads, resolve_implementation
from tfmodels.layers.tracking import ListsTracked
from tfmodels.models.calling import CallingConvention, value_range, values_of
from tfmodels.models.outputs import BaseModelOutput, BaseModelOutputWithPooling
from tfmodels.runtime.lowering import PLAIN, Lowering
from tfmodels.runtime.shared_blocks import TracedBlock, call_block


class TokenInputs(NamedTuple):
    """The tokens of one pass: ids, or embeddings in their place.

    Fields:
        ids: int (batch, length), or None.
        embeds: float (batch, length, hidden_size), or None.
        mask: as `attention_mask` of `tfmodels.kernels.masks.make_mask`; cached positions count as keys.
        positions: int (batch or 1, length); None counts on from the cache.
        types: int (batch, length), `token_type_ids` of the families that have them, or None.
    """

    ids: Any = None
    embeds: Any = None
    mask: Any = None
    positions: Any = None
    types: Any = None

    @property
    def length(self) -> Any:
        """Number of tokens in a row, an int or int32 scalar."""
        return ops.shape(self.ids if self.embeds is None else self.embeds)[1]


@dataclasses.dataclass
class BlockContext:
    """The inputs of every block of one pass beside the hidden states, and its way to attention.

    It is no pytree on purpose: Keras leaves it alone at layer boundaries, where it would cast every float it finds.

    Fields:
        mask: which keys each query sees.
        positions: of the tokens, int (batch or 1, length).
        rotary: cosine and sine of the positions, for families with rotary embeddings.
        bias: float scores added in every block (ALiBi, relative positions), or None.
        cache_length: int32 scalar where a static cache is written; None for growing caches.
        return_weights: whether to return attention weights.
        head_mask: factors on the attention weights of this block, or None.
        past: this block's (key, value) so far, or None.
        training: as in Keras.
        implementation: of attention, see `tfmodels.layers.attention.attend`.
        lowering: see `tfmodels.runtime.lowering.Lowering`; layers take it as an argument of their call.
        record: how each block so far computed attention, or None.
    """

    mask: AttentionMask
    positions: Any = None
    rotary: tuple[Any, Any] | None = None
    bias: Any = None
    cache_length: Any = None
    return_weights: bool = False
    head_mask: Any = None
    past: kv.LayerCache | None = None
    training: bool | None = None
    implementation: str = "auto"
    lowering: Lowering = PLAIN
    record: list[AttentionPath] | None = None

    def attend(
        self, query: Any, key: Any, value: Any, *, scale: float, dropout: Callable[..., Any]
    ) -> tuple[Any, kv.LayerCache, Any]:
        """Attention over this block's cached keys and values and the new ones.

        Args:
            query, key, value: of this pass's tokens, (batch, heads, length, head_dim).
            scale, dropout: as in `tfmodels.layers.attention.attend`.

        Returns:
            (batch, length, heads * head_dim), the (key, value) to cache, and the weights or None.
        """
        cache = kv.extend(self.past, key, value, self.cache_length)
        mask, room = self.mask, cache[0].shape[2]
        if self.cache_length is not None and room != mask.key_length:
            if query.shape[2] != 1:
                raise ValueError(
                    f"a cache that keeps {room} positions takes one token at a time; got {query.shape[2]}."
                )
            mask = mask.at_keys(kv.slot_positions(room, self.cache_length + 1))
        output, weights = attend(
            query,
            *cache,
            mask=mask,
            scale=scale,
            bias=self.bias,
            head_mask=self.head_mask,
            dropout=dropout,
            training=self.training,
            implementation=self.implementation,
            return_weights=self.return_weights,
            lowering=self.lowering,
            record=self.record,
        )
        return merge_heads(output), cache, weights


class Pass(NamedTuple):
    """The results of one pass through all blocks.

    Fields:
        hidden: (batch, length, hidden_size).
        caches: per block (key, value), or None for encoders.
        states: the hidden states *before* each block, or none.
        weights: attention weights per block, or None.
    """

    hidden: Any
    caches: tuple[kv.LayerCache | None, ...]
    states: tuple[Any, ...]
    weights: tuple[Any, ...] | None


class AttentionLog:
    """How the blocks of the last call, or of the last program traced, computed attention.

    A plain object, whose changes Keras does not track.
    """

    def __init__(self):
        self.paths: tuple[AttentionPath, ...] = ()


class Backbone(CallingConvention, ListsTracked):
    """Base of all backbones: a Keras layer that composes inside other layers and models.

    A family sets `config_class` and makes `self.layers`, its blocks. A block is called as
    `block(hidden, context=BlockContext)` and returns (hidden, (key, value), weights or None).

    Args:
        config: the family's configuration.
        attn_implementation: see `tfmodels.layers.attention.resolve_implementation`.
    """

    config_class: ClassVar[type[ModelConfig]]

    # Number of positions that the family has; None where any length works (rotary embeddings, ALiBi).
    position_limit: int | None = None
    # Per layer how many of the last positions it looks back on, None for all; the first keeps all. None: all keep all.
    cache_windows: tuple[int | None, ...] | None = None
    # Whether training recomputes blocks for the gradients instead of keeping their intermediate results.
    gradient_checkpointing: bool = False

    def __init__(self, config: ModelConfig, *, attn_implementation: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        config.validate()
        self.config = config
        self.attn_implementation = resolve_implementation(attn_implementation)
        self.attention_log = AttentionLog()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable("tfmodels")(cls)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "attn_implementation": self.attn_implementation,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Backbone:
        config = dict(config)
        return cls(cls.config_class.from_dict(config.pop("config")), **config)

    def run_blocks(
        self,
        hidden: Any,
        context: BlockContext,
        *,
        past: tuple[kv.LayerCache, ...] | None = None,
        head_mask: Any = None,
        output_hidden_states: bool = False,
    ) -> Pass:
        """Send hidden states through all blocks."""
        caches, states, weights = [], [], []
        context = dataclasses.replace(context, record=[])
        traced: list[TracedBlock] = []
        for index, block in enumerate(self.layers):
            if output_hidden_states:
                states.append(hidden)
            own = dataclasses.replace(
                self.block_context(context, index),
                head_mask=None if head_mask is None else head_mask[index],
                past=None if past is None else past[index],
            )
            if self.gradient_checkpointing and context.training:
                hidden, new_cache, block_weights = run_recomputed(block, hidden, context=own)
            else:
                hidden, new_cache, block_weights = call_block(block, hidden, context=own, traced=traced)
            caches.append(new_cache)
            weights.append(block_weights)
        self.attention_log.paths = tuple(context.record)
        return Pass(hidden, tuple(caches), tuple(states), tuple(weights) if context.return_weights else None)

    def embed(self, tokens: TokenInputs, context: BlockContext) -> Any:
        """Hidden states that enter the first block, (batch, length, hidden_size)."""
        if tokens.embeds is not None:
            return ops.cast(tokens.embeds, self.compute_dtype)
        return self.embed_tokens(tokens.ids, lowering=context.lowering)

    def block_context(self, context: BlockContext, index: int) -> BlockContext:
        """The context of block `index`: families whose blocks differ (local attention) override this."""
        return context

    def position_context(self, context: BlockContext) -> BlockContext:
        """The context with the family's terms of `context.positions` (rotary angles, ALiBi, relative positions)."""
        return context

    def check_positions(self, positions: Any, end: Any) -> None:
        """Raise ValueError where positions are known to lie outside `position_limit`.

        Args:
            positions: int (batch or 1, length), looked at only where they hold values now (eager mode).
            end: position after the last one, where that is known to be an int; else anything.
        """
        limit = self.position_limit
        if limit is None:
            return
        first, last = value_range(positions) or (0, end - 1 if isinstance(end, int) else 0)
        if first < 0 or last >= limit:
            raise ValueError(
                f"positions run from {first} to {last}; this model has positions 0 to {limit - 1} "
                f"(max_position_embeddings={limit}): shorten the input."
            )

    @property
    def longest_input(self) -> int | None:
        """Most tokens that an input can have; None where there is no such limit."""
        return self.position_limit

    def spread_head_mask(self, head_mask: Any) -> list[Any] | None:
        """Per block a (1, heads, 1, 1) factor, from a mask of shape (heads,) or (layers, heads)."""
        if head_mask is None:
            return None
        head_mask = ops.convert_to_tensor(head_mask)
        layers, heads = len(self.layers), self.config.num_attention_heads
        if tuple(head_mask.shape) not in ((heads,), (layers, heads)):
            raise ValueError(
                f"head_mask has shape {tuple(head_mask.shape)}; ({heads},) or ({layers}, {heads}) was expected."
            )
        rows = [head_mask if len(head_mask.shape) == 1 else head_mask[index] for index in range(layers)]
        return [ops.reshape(row, (1, heads, 1, 1)) for row in rows]

    def flag(self, name: str, value: bool | None) -> bool:
        """An output switch of this call, or the configuration's."""
        return bool(getattr(self.config, name) if value is None else value)


def run_recomputed(
    block: keras.layers.Layer, hidden: Any, *, context: BlockContext
) -> tuple[Any, kv.LayerCache | None, Any]:
    """Call a block so that its gradients are computed from its inputs, by calling it again."""
    # What gradients may flow into goes in as an argument; what they do not flow into, the block just sees.
    differentiable = {
        name: getattr(context, name) for name in ("bias", "head_mask") if getattr(context, name) is not None
    }
    context.mask.make_whole()  # now, outside of the function that is run twice
    # Both runs have to drop the same: they start from the same random states.
    states = [generator.state for generator in random_generators(block)]
    seeds = [ops.copy(ops.convert_to_tensor(state)) for state in states]

    def run(hidden: Any, *rest: Any) -> Any:
        own = dataclasses.replace(context, **dict(zip(differentiable, rest, strict=True)))
        with keras.StatelessScope(state_mapping=list(zip(states, seeds, strict=True))):
            output, cache, weights = block(hidden, context=own)
        return tuple(tensor for tensor in (output, *(cache or ()), weights) if tensor is not None)

    output, *others = recompute(run, hidden, *differentiable.values())
    for generator in random_generators(block):
        generator.next()
    weights = others.pop() if context.return_weights else None
    return output, tuple(others) or None, weights


def random_generators(layer: keras.layers.Layer) -> list[keras.random.SeedGenerator]:
    """The random states that the dropouts in a layer draw from."""
    dropouts = (inner for inner in layer._flatten_layers() if isinstance(inner, keras.layers.Dropout))
    return [dropout.seed_generator for dropout in dropouts if dropout.rate > 0]


class DecoderBackbone(Backbone):
    """Base of the causal families.

    A family implements `final_norm` and has `embed_tokens`; it may override `embed`, `position_context` and
    `block_context`. `step` is the forward pass, `forward` puts checks and named outputs around it.
    """

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
            key_length=ops.shape(cache.layers[0][0])[2] if static else filled + length,
            offset=filled,
            packed_positions=as_rows(tokens.positions) if packed else None,
        )
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
        exactly_one_input(input_ids, inputs_embeds, self.config.vocab_size)
        # Training never decodes; with a cache, restarting positions would not be seen as packed sequences.
        use_cache = self.flag("use_cache", use_cache if use_cache is not None or not training else False)
        if past_key_values is not None and len(kv.layers_of(past_key_values)) != len(self.layers):
            raise ValueError(
                f"past_key_values has {len(kv.layers_of(past_key_values))} layers; the model has {len(self.layers)}."
            )
        positions = cache_position if position_ids is None else position_ids
        tokens = TokenInputs(input_ids, inputs_embeds, attention_mask, positions, token_type_ids)
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
        return ops.expand_dims(ops.arange(mask.query_length, dtype="int32") + mask.offset, 0)


class EncoderBackbone(Backbone):
    """Base of the families in which every token sees all others.

    A family implements `positions`, `embed` and `pool`; it may override `position_context` and `block_context`.
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
        lowering: Lowering = PLAIN,
    ) -> Any:
        exactly_one_input(input_ids, inputs_embeds, self.config.vocab_size)
        tokens = TokenInputs(input_ids, inputs_embeds, attention_mask)
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
        output = BaseModelOutputWithPooling(
            last_hidden_state=found.hidden,
            pooler_output=self.pool(found.hidden, lowering),
            hidden_states=(*found.states, found.hidden) if found.states else None,
            attentions=found.weights,
        )
        return output if self.flag("return_dict", return_dict) else output.to_tuple()

    def positions(self, position_ids: Any, input_ids: Any, length: Any) -> tuple[Any, Any]:
        """Positions of the tokens, int32 (batch or 1, length), and the one after the last, where it is known."""
        raise NotImplementedError

    def pool(self, hidden: Any, lowering: Lowering) -> Any:
        """One vector per row, (batch, hidden_size), or None, from the last hidden states."""
        raise NotImplementedError


def as_rows(position_ids: Any) -> Any:
    """Positions that a caller gave, int32 (batch or 1, length); one axis is one row for all."""
    position_ids = ops.cast(position_ids, "int32")
    return ops.expand_dims(position_ids, 0) if len(position_ids.shape) == 1 else position_ids


def exactly_one_input(input_ids: Any, inputs_embeds: Any, vocab_size: int) -> None:
    """Check that ids or embeddings are given, and not both.

    Values are looked at where there are some now. Inside a graph an id beyond the vocabulary looks up whatever the
    backend makes of it (an error on a CPU, zeros on a GPU, the last row under XLA), and NaN goes on to the outputs.

    Raises:
        ValueError: both or neither were given, the rank is wrong, ids lie outside the vocabulary, or embeddings are
            NaN.
    """
    if (input_ids is None) == (inputs_embeds is None):
        given = "both" if input_ids is not None else "neither"
        raise ValueError(f"exactly one of input_ids and inputs_embeds is needed; {given} was given.")
    if inputs_embeds is not None:
        if len(inputs_embeds.shape) != 3:
            raise ValueError(
                f"inputs_embeds has shape {tuple(inputs_embeds.shape)}; (batch, length, hidden_size) was expected."
            )
        values = values_of(inputs_embeds)
        if values is not None and np.isnan(values).any():
            row, column, _ = np.argwhere(np.isnan(values))[0]
            raise ValueError(f"inputs_embeds holds NaN, first in row {row} at position {column}.")
        return
    if len(input_ids.shape) != 2:
        raise ValueError(f"input_ids has shape {tuple(input_ids.shape)}; (batch, length) was expected.")
    lowest, highest = value_range(input_ids) or (0, 0)
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(f"input_ids run from {lowest} to {highest}; the vocabulary has ids 0 to {vocab_size - 1}.")
