"""The programs of the engine's rows: a chunk of a prompt, a few tokens of several rows, a copy of a row.

They take the cache as (key, value) pairs per layer, each (rows, key_value_heads, room, head_dim), and return it anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmodels.cache import kv
from tfmodels.generation import logits_processors as proc
from tfmodels.generation.row_settings import Kind, Limits, RowSettings
from tfmodels.generation.row_text import Text, recorded
from tfmodels.generation.sampling import choose_tokens
from tfmodels.generation.sizes import Size
from tfmodels.generation.step import while_loop
from tfmodels.layers.columns import take_columns
from tfmodels.layers.tokens import TokenInputs
from tfmodels.runtime.lowering import Lowering

STEPS = 8
"""Decoding steps at most in one call of the device, which share its overhead."""

TOGETHER = 4
"""Prompts whose chunks one call runs: a matrix is read once for all of them."""


class Rows(NamedTuple):
    """The state of decoding.

    Fields:
        layers: per layer (key, value), each (rows, key_value_heads, room, head_dim).
        tokens: int32 (rows,), each row's last token, which is not in the cache yet.
        lengths: int32 (rows,), tokens in the cache.
        made: int32 (rows,), new tokens so far.
        left: int32 (rows,), new tokens still to make in this call; 0 for rows that rest.
        output: int32 (rows, steps), the tokens of this call.
        step: int32 scalar, steps of this call so far.
        text: what `Kind.EVERYTHING` knows beside, or None.
    """

    layers: Any
    tokens: Any
    lengths: Any
    made: Any
    left: Any
    output: Any
    step: Any
    text: Any = None


class RowPrograms:
    """The functions that programs are made of; they hold no cache, so that a program outlives its engine.

    Args:
        model: a causal language model.
        whole: the size of the cache.
    """

    def __init__(self, model: Any, whole: Size):
        self.model = model
        self.whole = whole

    def prefill(self, lowering: Lowering, layers: Any, chunks: Any, *, columns: int) -> tuple[Any, None]:
        """Run a chunk of each of some rows' prompts, within the rows' first `columns` slots. Returns the layers.

        Args:
            chunks: int32 (n, 2 + size), of each row its place, the first slot of its chunk, the same for all rows, and
                the chunk.
        """
        places, start, ids = chunks[:, 0], chunks[0, 1], chunks[:, 2:]
        size = ids.shape[1]
        own = kv.take_part(layers, places, columns)
        positions = start + ops.expand_dims(ops.arange(size, dtype="int32"), 0)
        tokens = TokenInputs(ids, positions=positions)
        _, cache = self.model.backbone.step(tokens, kv.StaticCache(own, start), lowering=lowering)
        written = ops.ones(places.shape, "bool")
        return kv.put_part(layers, cache.layers, places, chunks[:, 1], size, written), None

    def copy(self, lowering: Lowering, layers: Any, source: Any, target: Any) -> tuple[Any, None]:
        """Copy a row's keys and values to another row."""

        def copied(x: Any) -> Any:
            return ops.slice_update(x, (target, 0, 0, 0), _row(x, source))

        return keras.tree.map_structure(copied, layers), None

    def _choose(
        self, logits: Any, settings: RowSettings, made: Any, text: Text | None, kind: Kind, allowed: Any
    ) -> Any:
        """The next token of every row, int32 (rows,), from logits (rows, vocab_size).

        Args:
            allowed: bool (rows, vocab_size), the tokens that the rows' grammars let come; None without grammars.
            logits, settings, made, text, kind: as in `decode`.
        """
        scores, context = logits, None
        rules, warpers = kind.processors
        bound = proc.bind((*rules, *warpers), settings.processors)
        if settings.bias is not None:
            scores = scores + settings.bias
        if allowed is not None:
            scores = ops.where(allowed, scores, -np.inf)
        if text is not None:
            prompt_lengths = ops.expand_dims(text.prompt_lengths, 1)
            end = prompt_lengths + ops.expand_dims(made, 1)
            context = proc.Context(text.ids, start=0, end=end, prompt_end=prompt_lengths, attended=None)
        for processor in bound[: len(rules)]:
            scores = processor(context, scores)
        best = choose_tokens(scores, do_sample=False, seed=0, step=0)
        if not warpers:
            return best
        for processor in bound[len(rules) :]:
            scores = processor(context, scores)
        drawn = choose_tokens(scores, do_sample=True, seed=settings.seeds, step=made)
        return ops.where(settings.do_sample, drawn, best)

    def decode(
        self,
        lowering: Lowering,
        layers: Any,
        numbers: Any,
        settings: RowSettings,
        limits: Any,
        text: Text | None,
        *,
        size: Size,
        kind: Kind,
    ) -> tuple[Any, Any]:
        """Make tokens in some rows.

        Args:
            numbers: int32 (5, n), the fields `tokens`, `lengths`, `made` and `left` of `Rows`, and the rows' places.
            settings, text: of these rows.
            limits: of these rows, as `limits_of` makes them; None where no row has a grammar.
            size: n rows, and the slots that their texts need.
            kind: of settings.

        Returns:
            The layers; and the tokens (n, STEPS), how many are new (n,), and the text after them.
        """
        tokens, lengths, made, left, places = (numbers[index] for index in range(5))
        output, step = ops.zeros((size.rows, STEPS), "int32"), ops.convert_to_tensor(0, "int32")
        if size == self.whole:
            own = layers
        else:
            own = kv.take_part(layers, places, size.columns)
            # A row that rests may be longer than the part. It is written at its end then, and not put back.
            lengths = ops.minimum(lengths, size.columns - 1)
        rows = Rows(own, tokens, lengths, made, left, output, step, text)
        rows = self._loop(lowering, rows, settings, None if limits is None else Limits.of(limits, STEPS), kind)
        if size == self.whole:
            layers = rows.layers
        else:
            starts = ops.minimum(lengths, size.columns - STEPS)
            layers = kv.put_part(layers, rows.layers, places, starts, STEPS, left > 0)
        return layers, (rows.output, rows.made - made, rows.text)

    def _loop(self, lowering: Lowering, rows: Rows, settings: RowSettings, limits: Limits | None, kind: Kind) -> Rows:
        count = rows.tokens.shape[0]
        # Unpacked once: within the loop XLA would do so at every step, for each of the operations that read scores.
        allowed = None if limits is None else limits.allowed(self.model.config.vocab_size)

        def wants_more(rows: Rows) -> Any:
            return ops.any(rows.left > 0)

        def turn(rows: Rows) -> Rows:
            inputs = TokenInputs(
                ops.expand_dims(ops.maximum(rows.tokens, 0), 1), positions=ops.expand_dims(rows.lengths, 1)
            )
            cache = kv.split_rows(kv.StaticCache(rows.layers, rows.lengths), count)
            hidden, cache = self.model.backbone.step(inputs, cache, lowering=lowering)
            logits = ops.cast(self.model.to_logits(hidden, lowering)[:, -1], "float32")
            active = rows.left > 0
            chosen = self._choose(logits, settings, rows.made, rows.text, kind, allowed)
            if limits is not None:
                forced = take_columns(limits.forced, rows.step, 1)[:, 0]
                chosen = ops.where(ops.minimum(forced, chosen) >= 0, forced, chosen)  # scores may be no numbers
            tokens = ops.where(active, chosen, rows.tokens)
            ended = ops.any(ops.equal(ops.expand_dims(tokens, 1), settings.eos), axis=1)
            one = ops.cast(active, "int32")
            text = rows.text
            if text is not None:
                text = recorded(text, logits, tokens, text.prompt_lengths + rows.made, rows.step)
            return Rows(
                layers=kv.merge_rows(cache).layers,
                tokens=tokens,
                lengths=rows.lengths + one,
                made=rows.made + one,
                left=ops.where(ended, 0, rows.left - one),
                output=ops.slice_update(rows.output, (0, rows.step), ops.expand_dims(tokens, 1)),
                step=rows.step + 1,
                text=text,
            )

        merged = kv.merge_rows(kv.StaticCache(rows.layers, rows.lengths)).layers
        rows = while_loop(wants_more, turn, rows._replace(layers=merged))
        return rows._replace(layers=kv.split_rows(kv.StaticCache(rows.layers, rows.lengths), count).layers)


def _row(layer: Any, index: Any) -> Any:
    """One row of a layer, (1, ...). XLA would compile a slice anew for every index."""
    return ops.take(layer, ops.reshape(index, (1,)), axis=0)
