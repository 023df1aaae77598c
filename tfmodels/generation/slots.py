"""The engine's rows on the device: a cache with room for every row, and the two programs that fill it.

A row's tokens lie at [0, length) of its slots, whatever its neighbours do. A program that decodes writes every row's
keys and values at the row's own index. Rows that rest are written, too: at the slot after their last token, which
nothing reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmodels.cache import kv
from tfmodels.generation import logits_processors as proc
from tfmodels.generation.request import MOST_LOGPROBS
from tfmodels.generation.row_settings import Kind, RowSettings, row_settings
from tfmodels.generation.sampling import choose_tokens, highest
from tfmodels.generation.step import lowering_for, starts_as_graph, traced, while_loop
from tfmodels.layers.tokens import TokenInputs
from tfmodels.runtime.lowering import Lowering

STEPS = 8
"""Decoding steps at most in one call of the device, which share its overhead."""


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


class Text(NamedTuple):
    """The tokens of every row, and the log-probabilities of those of this call.

    Fields:
        ids: int32 (rows, columns), prompt and new tokens from column 0 on.
        prompt_lengths: int32 (rows,).
        logprobs: float32 (rows, steps), of the tokens of this call.
        top_ids, top: int32 and float32 (rows, steps, n), the most probable tokens and their log-probabilities.
    """

    ids: Any
    prompt_lengths: Any
    logprobs: Any
    top_ids: Any
    top: Any


class Decoded(NamedTuple):
    """The results of a call, as arrays.

    Fields:
        tokens: int32 (rows, columns).
        made: int (rows,), how many each row has made.
        logprobs, top_ids, top: as in `Text`; None where the kind of programs knows none.
    """

    tokens: np.ndarray
    made: np.ndarray
    logprobs: np.ndarray | None = None
    top_ids: np.ndarray | None = None
    top: np.ndarray | None = None


class Slots:
    """A cache of rows and its programs.

    Args:
        model: a causal language model.
        rows: number of rows.
        room: slots of each row.
        jit_compile: whether programs are compiled by XLA.
    """

    def __init__(self, model: Any, rows: int, room: int, jit_compile: bool = True):
        self.model = model
        self.rows = rows
        self.room = room
        self.jit_compile = jit_compile
        self.lowering = lowering_for(jit_compile)
        # Whether calls wait for XLA; otherwise plain graphs serve until it is ready.
        self.waits = True
        self.layers = self._empty()

    def _empty(self) -> Any:
        """Zeros, of the shapes that the model's own cache has."""
        cache = self.model(input_ids=np.zeros((1, 1), "int32"), use_cache=True, return_dict=True).past_key_values
        return tuple(
            tuple(_held(ops.zeros((self.rows, x.shape[1], self.room, x.shape[3]), x.dtype)) for x in pair)
            for pair in cache
        )

    @property
    def nbytes(self) -> int:
        """Memory of the cache in bytes."""
        return sum(
            int(np.prod(x.shape)) * _ITEMSIZE[keras.backend.standardize_dtype(x.dtype)]
            for pair in self.layers
            for x in pair
        )

    def _run(self, name: str, function: Callable, *arguments: Any, key: Any = ()) -> Any:
        """Run `function(lowering, *arguments)` as a program."""
        compiled, key = traced(functools.partial(function, self.lowering)), ("engine", name, key)
        if not self.waits and starts_as_graph(self.jit_compile, self.lowering):
            plain = traced(functools.partial(function, lowering_for(False)))
            return self.model.programs.run_at_once(key, compiled, plain, *arguments)
        variables = self.model.variables if keras.backend.backend() == "jax" else ()
        options = {"jit_compile": self.jit_compile, "variables": variables, "steady": True}
        return self.model.programs.run(key, compiled, *arguments, **options)

    def _update(self, name: str, function: Callable, *arguments: Any, key: Any = ()) -> Any:
        """Run a program that takes the cache and `arguments`, and returns the new cache and a result. Returns that."""
        if keras.backend.backend() != "tensorflow":
            self.layers, result = self._run(name, function, self.layers, *arguments, key=key)
            return result

        def run(lowering: Lowering, variables: Any, *arguments: Any) -> Any:
            layers = keras.tree.map_structure(lambda x: x.read_value(), variables)
            layers, result = function(lowering, layers, *arguments)
            keras.tree.map_structure(lambda x, new: x.assign(new, read_value=False), variables, layers)
            return result

        return self._run(name, run, self.layers, *arguments, key=key)

    def prefill(self, row: int, tokens: list[int], start: int, size: int) -> np.ndarray:
        """Run tokens of a prompt that stand at `start`. Returns the logits after the last, float32 (vocab_size,).

        Args:
            size: tokens that the program takes, at least as many; those beyond are written and not read.
        """
        ids = np.zeros((1, size), "int32")
        ids[0, : len(tokens)] = tokens
        scalars = [ops.convert_to_tensor(value, "int32") for value in (row, start, len(tokens) - 1)]
        return self._update("prefill", self._prefill, ops.convert_to_tensor(ids), *scalars)

    def _prefill(self, lowering: Lowering, layers: Any, ids: Any, row: Any, start: Any, last: Any) -> tuple[Any, Any]:
        own = tuple(tuple(_row(x, row) for x in pair) for pair in layers)
        positions = start + ops.expand_dims(ops.arange(ids.shape[1], dtype="int32"), 0)
        tokens = TokenInputs(ids, positions=positions)
        hidden, cache = self.model.backbone.step(tokens, kv.StaticCache(own, start), lowering=lowering)
        layers = tuple(
            tuple(ops.slice_update(x, (row, 0, 0, 0), new) for x, new in zip(pair, own_pair, strict=True))
            for pair, own_pair in zip(layers, cache.layers, strict=True)
        )
        logits = self.model.to_logits(ops.take(hidden, ops.reshape(last, (1,)), axis=1), lowering)
        return layers, ops.cast(logits[:, -1], "float32")

    def copy_row(self, source: int, target: int) -> None:
        """Copy a row's keys and values to another row."""
        scalars = [ops.convert_to_tensor(value, "int32") for value in (source, target)]
        self._update("copy", self._copy, *scalars)

    def _copy(self, lowering: Lowering, layers: Any, source: Any, target: Any) -> tuple[Any, None]:
        copied = tuple(tuple(ops.slice_update(x, (target, 0, 0, 0), _row(x, source)) for x in pair) for pair in layers)
        return copied, None

    def text(self, ids: np.ndarray, prompt_lengths: np.ndarray, steps: int) -> Text:
        """Further inputs of programs of `Kind.EVERYTHING`.

        Args:
            ids, prompt_lengths: as in `Text`.
            steps: at most of the call.
        """
        rows, most = len(ids), min(MOST_LOGPROBS, self.model.config.vocab_size)
        return Text(
            ops.convert_to_tensor(ids),
            ops.convert_to_tensor(prompt_lengths),
            logprobs=ops.zeros((rows, steps), "float32"),
            top_ids=ops.zeros((rows, steps, most), "int32"),
            top=ops.zeros((rows, steps, most), "float32"),
        )

    def choose(self, logits: Any, settings: RowSettings, kind: Kind, text: Text | None) -> Decoded:
        """Choose the first token of one row from logits (1, vocab_size)."""
        made = ops.zeros((1,), "int32")

        def run(lowering: Lowering, logits: Any, settings: RowSettings, made: Any, text: Text | None) -> Any:
            tokens = self._choose(logits, settings, made, text, kind)
            return tokens, None if text is None else _recorded(text, logits, tokens, text.prompt_lengths, 0)

        tokens, text = self._run("choose", run, logits, settings, made, text, key=kind)
        return _decoded(ops.expand_dims(tokens, 1), np.ones(1, int), text)

    def _choose(self, logits: Any, settings: RowSettings, made: Any, text: Text | None, kind: Kind) -> Any:
        """The next token of every row, int32 (rows,), from logits (rows, vocab_size)."""
        scores, context = logits, None
        rules, warpers = kind.processors
        bound = proc.bind((*rules, *warpers), settings.processors)
        if settings.bias is not None:
            scores = scores + settings.bias
        if settings.allowed is not None:
            scores = ops.where(settings.allowed, scores, -np.inf)
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

    def decode(self, counts: np.ndarray, settings: RowSettings, kind: Kind, text: Text | None) -> Decoded:
        """Make tokens in every row that does not rest.

        Args:
            counts: int32 (4, rows), the fields `tokens`, `lengths`, `made` and `left` of `Rows`; `left` is `STEPS` at
                most.
            settings: of every row.
            kind: of programs.
            text: for `Kind.EVERYTHING`, else None.
        """

        def run(
            lowering: Lowering, layers: Any, counts: Any, settings: RowSettings, text: Text | None
        ) -> tuple[Any, Any]:
            fields = [counts[index] for index in range(4)]
            output, step = ops.zeros((self.rows, STEPS), "int32"), ops.convert_to_tensor(0, "int32")
            rows = self._decode(lowering, Rows(layers, *fields, output, step, text), settings, kind)
            return rows.layers, (rows.output, rows.made - counts[2], rows.text)

        arguments = ops.convert_to_tensor(counts), settings, text
        output, made, text = self._update("decode", run, *arguments, key=kind)
        return _decoded(output, ops.convert_to_numpy(made), text)

    def _decode(self, lowering: Lowering, rows: Rows, settings: RowSettings, kind: Kind) -> Rows:
        def wants_more(rows: Rows) -> Any:
            return ops.any(rows.left > 0)

        def turn(rows: Rows) -> Rows:
            inputs = TokenInputs(
                ops.expand_dims(ops.maximum(rows.tokens, 0), 1), positions=ops.expand_dims(rows.lengths, 1)
            )
            cache = kv.split_rows(kv.StaticCache(rows.layers, rows.lengths), self.rows)
            hidden, cache = self.model.backbone.step(inputs, cache, lowering=lowering)
            logits = ops.cast(self.model.to_logits(hidden, lowering)[:, -1], "float32")
            active = rows.left > 0
            chosen = self._choose(logits, settings, rows.made, rows.text, kind)
            tokens = ops.where(active, chosen, rows.tokens)
            ended = ops.any(ops.equal(ops.expand_dims(tokens, 1), settings.eos), axis=1)
            one = ops.cast(active, "int32")
            text = rows.text
            if text is not None:
                text = _recorded(text, logits, tokens, text.prompt_lengths + rows.made, rows.step)
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
        return rows._replace(layers=kv.split_rows(kv.StaticCache(rows.layers, rows.lengths), self.rows).layers)

    def warm_up(self, sizes: Sequence[int], kinds: Iterable[Kind], columns: int, with_grammars: bool) -> None:
        """Compile programs by running them for rows that rest; row 0 is written to.

        Args:
            sizes: of the chunks of prompts.
            kinds: of settings.
            columns: of `Text.ids`.
            with_grammars: compile the programs for limited tokens, too.
        """
        vocab_size = self.model.config.vocab_size
        for size in sizes:
            logits = self.prefill(0, [0], 0, size)
        self.copy_row(0, 0)

        def given(rows: int, steps: int, kind: Kind) -> Iterator[tuple[RowSettings, Kind, Text | None]]:
            settings, text = row_settings([None] * rows, [0] * rows, kind, vocab_size), None
            if kind is Kind.EVERYTHING:
                text = self.text(np.zeros((rows, columns), "int32"), np.ones(rows, "int32"), steps)
            yield settings, kind, text
            if with_grammars:
                yield settings._replace(allowed=ops.ones((rows, vocab_size), "bool")), kind, text

        for kind in kinds:
            for arguments in given(1, 1, kind):
                self.choose(logits, *arguments)
            for arguments in given(self.rows, STEPS, kind):
                self.decode(np.zeros((4, self.rows), "int32"), *arguments)


def _recorded(text: Text, logits: Any, tokens: Any, columns: Any, step: Any) -> Text:
    """The text with one token more per row, at each row's own column, and the log-probabilities there."""
    logs = ops.log_softmax(logits, axis=-1)
    logs = ops.where(ops.isnan(logs), -np.inf, logs)
    own = ops.take_along_axis(logs, ops.expand_dims(ops.maximum(tokens, 0), 1), axis=1)
    top, top_ids = highest(logs, text.top.shape[2])
    is_new = ops.arange(text.ids.shape[1], dtype="int32") == ops.expand_dims(columns, 1)
    return text._replace(
        ids=ops.where(is_new, ops.expand_dims(tokens, 1), text.ids),
        logprobs=ops.slice_update(text.logprobs, (0, step), own),
        top_ids=ops.slice_update(text.top_ids, (0, step, 0), ops.expand_dims(top_ids, 1)),
        top=ops.slice_update(text.top, (0, step, 0), ops.expand_dims(top, 1)),
    )


def _decoded(tokens: Any, made: np.ndarray, text: Text | None) -> Decoded:
    records = () if text is None else (text.logprobs, text.top_ids, text.top)
    return Decoded(ops.convert_to_numpy(tokens), made, *map(ops.convert_to_numpy, records))


_ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def _held(layer: Any) -> Any:
    """A part of the cache as programs take it: on TensorFlow a variable, whose memory XLA writes in place."""
    if keras.backend.backend() != "tensorflow":
        return layer
    import tensorflow as tf

    return tf.Variable(layer, trainable=False)


def _row(layer: Any, index: Any) -> Any:
    """One row of a layer, (1, ...). XLA would compile a slice anew for every index."""
    return ops.take(layer, ops.reshape(index, (1,)), axis=0)
