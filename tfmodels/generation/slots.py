"""The engine's rows on the device: a cache with room for every row, and the two programs that fill it.

A row's tokens lie at [0, length) of its slots, whatever its neighbours do. A program that decodes writes every row's
keys and values at the row's own index. Rows that rest are written, too: at the slot after their last token, which
nothing reads.

Where few rows have work, or their texts are short, a smaller program decodes: it copies its part of the cache, makes a
few tokens there, and writes what is new back (`tfmodels.generation.sizes`).
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.cache.int8 import rounded
from tfmodels.generation.row_programs import STEPS, TOGETHER, RowPrograms
from tfmodels.generation.row_settings import Kind, limits_of, row_settings
from tfmodels.generation.row_text import Decoded, Text, decoded_of, start_text
from tfmodels.generation.sizes import Size, column_counts, decode_sizes, fitting
from tfmodels.generation.step import lowering_for, starts_as_graph, traced
from tfmodels.runtime.compile import OFTEN, Held
from tfmodels.runtime.device import host_tensor
from tfmodels.runtime.lowering import Lowering

# A plain graph is traced for a size, and a program for several prompts compiled, that would have served so often.
_LONGED_FOR = 8 * OFTEN
# Longer chunks are no faster together, and the scores of their attention take four times the memory.
_LONGEST_TOGETHER = 512
# A prompt calls its program once: to trace a graph takes longer than the operations of several prompts, one by one.
_UNTRACED = 2 * OFTEN


class Slots:
    """A cache of rows, and the programs that fill it.

    Args:
        model: a causal language model.
        rows: number of rows.
        room: slots of each row.
        jit_compile: whether programs are compiled by XLA.
        int8: keep keys and values in eight bits.
    """

    def __init__(self, model: Any, rows: int, room: int, jit_compile: bool = True, *, int8: bool = False):
        self.model = model
        self.rows = rows
        self.room = room
        self.jit_compile = jit_compile
        self.int8 = int8
        self.lowering = lowering_for(jit_compile)
        # Whether calls wait for XLA; otherwise plain graphs serve until it is ready.
        self.waits = True
        self.layers = self._empty()
        # TensorFlow's variables stay the same; elsewhere every call gives new arrays.
        self._held = Held(self.layers) if keras.backend.backend() == "tensorflow" else None
        self.sizes = decode_sizes(rows, room)
        self.whole = self.sizes[-1]
        self._programs = RowPrograms(model, self.whole)
        # How often a program would have served better than the one that was there.
        self._wishes: collections.Counter[Any] = collections.Counter()

    def _empty(self) -> Any:
        """Zeros, of the shapes that the model's own cache has."""
        cache = self.model(input_ids=np.zeros((1, 1), "int32"), use_cache=True, return_dict=True).past_key_values
        cache = tuple(tuple(rounded(x) if self.int8 else x for x in pair) for pair in cache)
        return keras.tree.map_structure(
            lambda x: _held(ops.zeros((self.rows, x.shape[1], self.room, x.shape[3]), x.dtype)), cache
        )

    @property
    def nbytes(self) -> int:
        """Memory of the cache in bytes."""
        return sum(
            int(np.prod(x.shape)) * _ITEMSIZE[keras.backend.standardize_dtype(x.dtype)]
            for x in keras.tree.flatten(self.layers)
        )

    def _key(self, name: str, key: Any) -> Any:
        return "engine", name, self.whole, self.int8, key

    def _starts_as_graph(self) -> bool:
        return not self.waits and starts_as_graph(self.jit_compile, self.lowering)

    def _run(self, name: str, function: Callable, *arguments: Any, key: Any = ()) -> Any:
        """Run `function(lowering, *arguments)` as a program."""
        compiled, key = traced(functools.partial(function, self.lowering)), self._key(name, key)
        if self._starts_as_graph():
            plain = traced(functools.partial(function, lowering_for(False)))
            untraced = 1 if name == "decode" else _UNTRACED
            return self.model.programs.run_at_once(key, compiled, plain, *arguments, untraced=untraced)
        variables = self.model.variables if keras.backend.backend() == "jax" else ()
        options = {"jit_compile": self.jit_compile, "variables": variables, "steady": True}
        return self.model.programs.run(key, compiled, *arguments, **options)

    def _update(self, name: str, function: Callable, *arguments: Any, key: Any = ()) -> Any:
        """Run a program that takes the cache and `arguments`, and returns the new cache and a result. Returns that."""
        if keras.backend.backend() != "tensorflow":
            self.layers, result = self._run(name, function, self.layers, *arguments, key=key)
            return result
        return self._run(name, _in_variables(function), self._held, *arguments, key=key)

    def _chosen(self, name: str, sizes: Sequence[Size], key: Any, prepare: Callable[[Size], None]) -> Size:
        """The best size of a program that is there; what would be better is compiled when it was missed often.

        Args:
            name, key: of the program; its whole key is the size and `key`.
            sizes: that serve, the best first.
            prepare: compiles a size in the background.
        """
        best, largest = sizes[0], sizes[-1]
        ready = next((size for size in sizes if self._is_ready(name, (size, key))), None)
        if self.waits:
            # One program for texts of all lengths saves the wait for another.
            return ready or max(size for size in sizes if size.rows == best.rows)
        if ready != best:
            if self._is_missed(name, best, key):
                prepare(best)
            # A plain graph is traced while everybody waits.
            if self._wishes[name, best, key] > _LONGED_FOR and not self.jit_compile:
                return best
        return ready or largest

    def chunk_size(self, sizes: Sequence[int]) -> int:
        """The size of the program that runs a chunk of a prompt.

        Where the best one is still compiled in the background, a larger one stands in.

        Args:
            sizes: that hold the chunk, the best first.
        """
        if not self._starts_as_graph():
            return sizes[0]
        places = [Size(1, columns) for columns in column_counts(self.room)]
        able = (size for size in sizes if any(self._is_ready("prefill", (place, size)) for place in places))
        ready = next(able, sizes[0])
        if ready != sizes[0] and self._is_missed("chunk", self.whole, sizes[0]):
            self._prepare_prefill(sizes[0], Size(1, self.room))
        return ready

    def runs_together(self, size: int) -> bool:
        """Whether chunks of so many tokens are run `TOGETHER` at a time; call it where there are as many.

        They go one by one until there is a program for it, by `warm_up`, or as it was missed so often that it is worth
        its compilation.
        """
        part = Size(TOGETHER, self.room)
        if size > _LONGEST_TOGETHER:
            return False
        if self._is_ready("prefill", (part, size)):
            return True
        self._wishes["together", part, size] += 1
        missed = self._wishes["together", part, size] - TOGETHER * _LONGED_FOR
        if missed == 0 and self._starts_as_graph():
            self._prepare_prefill(size, part)
        return self.waits and missed > 0

    def prefill(self, rows: Sequence[int], chunks: Sequence[Sequence[int]], start: int, size: int) -> None:
        """Run chunks of prompts that stand at `start`.

        Args:
            rows: of the cache, one or `TOGETHER` different ones.
            chunks: of each row the ids.
            start: the slot of each chunk's first token.
            size: tokens that the program takes of each, at least as many; those beyond are written and not read.
        """
        parts = [Size(len(rows), count) for count in column_counts(self.room) if count >= start + size]
        part = self._chosen("prefill", parts, size, lambda part: self._prepare_prefill(size, part))
        self._run_prefill(rows, chunks, start, size, part)

    def _prefill_of(self, size: int, part: Size) -> tuple[Callable, Any]:
        """The program that runs so many tokens of some prompts within a part of the cache, and its key."""
        return functools.partial(self._programs.prefill, columns=part.columns), (part, size)

    def _run_prefill(
        self, rows: Sequence[int], chunks: Sequence[Sequence[int]], start: int, size: int, part: Size
    ) -> None:
        numbers = np.zeros((len(rows), 2 + size), "int32")
        numbers[:, 0], numbers[:, 1] = rows, start
        for of_row, chunk in zip(numbers, chunks, strict=True):
            of_row[2 : 2 + len(chunk)] = chunk
        function, key = self._prefill_of(size, part)
        self._update("prefill", function, host_tensor(numbers), key=key)

    def _prepare_prefill(self, size: int, part: Size) -> None:
        function, key = self._prefill_of(size, part)
        self._prepare("prefill", function, ops.zeros((part.rows, 2 + size), "int32"), key=key)

    def _prepare(self, name: str, function: Callable, *arguments: Any, key: Any) -> None:
        """Compile a program of `_update` in the background, on TensorFlow."""
        compiled = traced(functools.partial(_in_variables(function), self.lowering))
        self.model.programs.prepare(self._key(name, key), compiled, self.layers, *arguments)

    def copy_row(self, source: int, target: int) -> None:
        """Copy a row's keys and values to another row."""
        scalars = [host_tensor(value, "int32") for value in (source, target)]
        self._update("copy", self._programs.copy, *scalars)

    def program_for(self, rows: int, columns: int, kind: Kind, limited: bool) -> tuple[Size, Kind, bool]:
        """The size, the kind and the limits of the program that decodes so many rows within so many slots.

        Where none of this kind is there and nobody wants to wait for it, one that can do more stands in.

        Args:
            rows, columns: at least 1.
            kind: of settings.
            limited: whether grammars limit some rows.
        """
        sizes = fitting(self.sizes, rows, min(columns, self.room))
        if not self.waits:
            kind, limited = self._variant(sizes, kind, limited)
        size = self._chosen("decode", sizes, (kind, limited), lambda size: self._prepare_decode(size, kind, limited))
        return size, kind, limited

    def _variant(self, sizes: Sequence[Size], kind: Kind, limited: bool) -> tuple[Kind, bool]:
        """The simplest kind and limits that do what is asked for and that some program is there for."""
        able = [(more, has) for more in Kind for has in (False, True) if more.value >= kind.value and has >= limited]
        ready = next((one for one in able if any(self._is_ready("decode", (size, one)) for size in sizes)), able[0])
        if ready != able[0] and self._is_missed("decode", sizes[0], able[0]):
            self._prepare_decode(sizes[0], kind, limited)
        if self.jit_compile or self._wishes["decode", sizes[0], able[0]] <= _LONGED_FOR:
            return ready
        return able[0]

    def _is_ready(self, name: str, key: Any) -> bool:
        return self.model.programs.is_ready(self._key(name, key))

    def _is_missed(self, name: str, size: Size, key: Any) -> bool:
        """Count a call that a program would have served better; whether it is to be compiled in the background now."""
        self._wishes[name, size, key] += 1
        return self._wishes[name, size, key] == OFTEN and self._starts_as_graph()

    def decode(
        self,
        places: np.ndarray,
        counts: np.ndarray,
        settings: Held,
        size: Size,
        kind: Kind,
        limits: Any,
        text: Text | None,
    ) -> Decoded:
        """Make tokens in every row that does not rest.

        Args:
            places: int32 (n,), the rows, each once; all of them in order for the program of all rows and slots.
            counts: int32 (4, n), the fields `tokens`, `lengths`, `made` and `left` of `Rows`; `left` is `STEPS` at
                most.
            settings: `RowSettings` of these rows.
            size: of the program; n rows.
            kind: of programs.
            limits: of these rows, as `limits_of` makes them; None where no row has a grammar.
            text: for `Kind.EVERYTHING`, else None.
        """
        function, key = self._decode_of(size, kind, limits is not None)
        numbers = host_tensor(np.concatenate([counts, places[None]]), "int32")
        output, made, text = self._update("decode", function, numbers, settings, limits, text, key=key)
        return decoded_of(output, made, text)

    def _decode_of(self, size: Size, kind: Kind, limited: bool) -> tuple[Callable, Any]:
        """The program that decodes, and its key."""
        return functools.partial(self._programs.decode, size=size, kind=kind), (size, (kind, limited))

    def _prepare_decode(self, size: Size, kind: Kind, limited: bool) -> None:
        function, key = self._decode_of(size, kind, limited)
        numbers = ops.zeros((5, size.rows), "int32")
        self._prepare("decode", function, numbers, *self._neutral(size.rows, kind, limited), key=key)

    def warm_up(self, sizes: Iterable[int], kinds: Iterable[Kind], with_grammars: bool, *, wait: bool) -> None:
        """Compile programs by running them for rows that rest; the first rows are written to.

        One that can do everything in all rows and slots, and two sizes of chunks, serve every request and come first.
        The others follow in the background where that is possible and nobody waits; elsewhere, of the smaller ones,
        only those for short texts, as they are waited for.

        Args:
            sizes: of the chunks of prompts.
            kinds: of settings.
            with_grammars: compile the programs of these kinds for limited tokens, too.
            wait: compile the others here: in the background each takes the memory of a second cache meanwhile.
        """
        variants = [(kind, limited) for kind in kinds for limited in ([False, True] if with_grammars else [False])]
        can_follow, sizes = starts_as_graph(self.jit_compile, self.lowering), sorted(sizes)
        chunks = [(1, size) for size in sizes]
        if self.rows >= TOGETHER:
            chunks += [(TOGETHER, size) for size in sizes if size <= _LONGEST_TOGETHER]
        first = [(1, sizes[0]), (1, sizes[-1])] if can_follow and not wait else chunks
        for count, size in first:
            self._run_prefill(range(count), [[0]] * count, 0, size, Size(count, self.room))
        self.copy_row(0, 0)
        self._run_resting(self.whole, Kind.EVERYTHING, True)
        fewest = column_counts(self.room)[0]
        for size in self.sizes:
            for kind, limited in variants:
                if can_follow and not wait:
                    self._prepare_decode(size, kind, limited)
                elif can_follow or size.columns == fewest or size == self.whole:
                    self._run_resting(size, kind, limited)
        for count, size in chunks:
            if (count, size) not in first:
                self._prepare_prefill(size, Size(count, self.room))

    def _run_resting(self, size: Size, kind: Kind, limited: bool) -> None:
        counts = np.zeros((4, size.rows), "int32")
        settings, limits, text = self._neutral(size.rows, kind, limited)
        self.decode(np.arange(size.rows), counts, settings, size, kind, limits, text)

    def _neutral(self, rows: int, kind: Kind, limited: bool) -> tuple[Held, Any, Text | None]:
        """Settings, limits and text of rows that rest."""
        vocab_size = self.model.config.vocab_size
        settings, text = Held(row_settings([None] * rows, [0] * rows, kind, vocab_size)), None
        limits = limits_of([None] * rows, STEPS, vocab_size) if limited else None
        if kind is Kind.EVERYTHING:
            text = start_text(np.zeros((rows, self.room), "int32"), np.ones(rows, "int32"), STEPS, vocab_size)
        return settings, limits, text


_ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


def _held(layer: Any) -> Any:
    """A part of the cache as programs take it: on TensorFlow a variable, whose memory XLA writes in place."""
    if keras.backend.backend() != "tensorflow":
        return layer
    import tensorflow as tf

    return tf.Variable(layer, trainable=False)


def _in_variables(function: Callable) -> Callable:
    """A program of `Slots._update` that reads and writes TensorFlow's variables."""

    def run(lowering: Lowering, variables: Any, *arguments: Any) -> Any:
        layers = keras.tree.map_structure(lambda x: x.read_value(), variables)
        layers, result = function(lowering, layers, *arguments)
        keras.tree.map_structure(lambda x, new: x.assign(new, read_value=False), variables, layers)
        return result

    return run
