"""`Backbone`, the base of decoders and encoders: the loop over blocks, plain or recomputed for the gradients."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.cache import kv
from tfmodels.configs.base import ModelConfig
from tfmodels.kernels.recompute import recompute
from tfmodels.layers.attention import resolve_implementation
from tfmodels.layers.residual import whole
from tfmodels.layers.tokens import TokenInputs
from tfmodels.layers.tracking import ListsTracked
from tfmodels.models.backbone.context import AttentionLog, BlockContext, Pass
from tfmodels.models.calling import CallingConvention, value_range
from tfmodels.runtime.shared_blocks import TracedBlock, call_block
from tfmodels.runtime.sub_layers import all_layers


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
    # For each layer the number of last positions that it looks back on, None for all; the first keeps all. None where
    # all layers keep all.
    cache_windows: tuple[int | None, ...] | None = None
    # Whether training recomputes blocks for the gradients instead of keeping their intermediate results.
    gradient_checkpointing: bool = False
    # Called with the hidden states and the context of every block, or None: for calibration, in eager calls.
    block_observer: Callable[[Any, BlockContext], None] | None = None

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
                states.append(whole(hidden))
            own = dataclasses.replace(
                self.block_context(context, index),
                head_mask=None if head_mask is None else head_mask[index],
                past=None if past is None else past[index],
            )
            if self.block_observer is not None:
                self.block_observer(hidden, own)
            if self.gradient_checkpointing and context.training:
                hidden, new_cache, block_weights = run_recomputed(block, hidden, context=own)
            else:
                hidden, new_cache, block_weights = call_block(block, hidden, context=own, traced=traced)
            caches.append(new_cache)
            weights.append(block_weights)
        self.attention_log.note(context.record, training=context.training)
        return Pass(whole(hidden), tuple(caches), tuple(states), tuple(weights) if context.return_weights else None)

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
    # Tensors that need gradients are arguments of the recomputed function; the block reads all others from `context`.
    differentiable = {
        name: getattr(context, name) for name in ("bias", "head_mask") if getattr(context, name) is not None
    }
    context.mask.make_whole()  # now, outside of the function that is run twice
    # Both runs start from the same random states, so that their dropouts drop the same.
    states = [generator.state for generator in random_generators(block)]
    seeds = [ops.copy(ops.convert_to_tensor(state)) for state in states]
    trained = [ops.convert_to_tensor(variable.value) for variable in block.trainable_variables]
    count = len(trained)
    find = _reference(block)

    def run(hidden: Any, *rest: Any) -> Any:
        block = find()
        own = dataclasses.replace(context, **dict(zip(differentiable, rest[count:], strict=True)))
        variables = [*block.trainable_variables, *(generator.state for generator in random_generators(block))]
        with keras.StatelessScope(state_mapping=list(zip(variables, [*rest[:count], *seeds], strict=True))):
            output, cache, weights = block(hidden, context=own)
        return tuple(tensor for tensor in (output, *(cache or ()), weights) if tensor is not None)

    output, *others = recompute(run, hidden, *trained, *differentiable.values())
    for generator in random_generators(block):
        generator.next()
    weights = others.pop() if context.return_weights else None
    return output, tuple(others) or None, weights


def _reference(block: keras.layers.Layer) -> Callable[[], keras.layers.Layer]:
    """A function that returns the block.

    In a graph it refers to it weakly: TensorFlow keeps the graphs of functions that others call, gradients included,
    and the block would keep its weights. Outside of graphs the block lives as long as the tape that needs it.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.executing_eagerly():
            found = weakref.ref(block)
            return lambda: found()
    return lambda: block


def random_generators(layer: keras.layers.Layer) -> list[keras.random.SeedGenerator]:
    """The random states that the dropouts in a layer draw from."""
    dropouts = (inner for inner in all_layers(layer) if isinstance(inner, keras.layers.Dropout))
    return [dropout.seed_generator for dropout in dropouts if dropout.rate > 0]
