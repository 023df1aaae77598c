"""One call of `generate`: the compiled programs it runs in, and Python between them where that is asked for."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import random
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.generation import logits_processors as proc
from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.results import check_numbers
from tfmodels.generation.sampling import NO_NUMBER, NONE_ALLOWED
from tfmodels.generation.step import Decoder, Prompt, State, starts_as_graph
from tfmodels.generation.stopping import Stopping
from tfmodels.generation.strategies import Drawing, SamplingInputs
from tfmodels.runtime.buckets import power_of_two
from tfmodels.runtime.compile import ProgramCache
from tfmodels.runtime.device import out_of_turn

# Tokens per chunk that a streamer receives, after the first two of one: one compiled call each.
_STREAM_CHUNK = 4
_FEWEST_ENDS = 4


class Run:
    """One call of `generate`: a decoder, the values it is steered by, and the programs it runs in.

    Args:
        decoder: what to run.
        programs: the model's compiled programs.
        inputs: values that steer decoding.
        rows: of the batch; those that only fill a bucket come after them.
        new: tokens to add at most.
        at_once: do not wait for XLA where it is not ready: decode in plain graphs until it is.
        rows_per_sequence: rows that share their tokens; streamers and criteria see the first of them.
    """

    def __init__(
        self,
        decoder: Decoder,
        programs: ProgramCache,
        inputs: SamplingInputs,
        rows: int,
        new: int,
        *,
        at_once: bool = False,
        rows_per_sequence: int = 1,
    ):
        self.decoder = decoder
        self.at_once = at_once and starts_as_graph(decoder.jit_compile, decoder.lowering)
        self.programs = programs
        self.inputs = inputs
        self.rows = rows
        self.new = new
        self.rows_per_sequence = rows_per_sequence

    def _ids(self, ids: Any, start: int, end: int) -> Any:
        """Columns of the rows that streamers and stopping criteria see, of ids (batch, capacity)."""
        return ids[: self.rows : self.rows_per_sequence, start:end]

    def _call(self, name: str, *arguments: Any) -> Any:
        """Run a method of the decoder as a compiled program."""
        decoder = self.decoder
        if self.at_once:
            plain = decoder.as_graph().traced(name)
            return self.programs.run_at_once((name, decoder.key), decoder.traced(name), plain, *arguments)
        variables = decoder.model.variables if keras.backend.backend() == "jax" else ()
        options = {"jit_compile": decoder.jit_compile, "variables": variables}
        return self.programs.run((name, decoder.key), decoder.traced(name), *arguments, **options)

    def whole(self, prompt: Prompt) -> State:
        """Decode inside compiled programs from the first token to the last."""
        state = self._prefill(prompt)
        return state if self.new == 1 else self._loop(state, self.new)

    def _loop(self, state: State, until: int) -> State:
        return self._call("loop", state, self.inputs, ops.convert_to_tensor(until, "int32"))

    def _prefill(self, prompt: Prompt) -> State:
        """Run the prompt; where that has to be compiled first, compile the loop at the same time."""
        decoder, arguments = self.decoder, (prompt, self.inputs)
        if self.new == 1 or self.at_once or keras.backend.backend() != "tensorflow" or not decoder.jit_compile:
            return self._call("prefill", *arguments)
        import tensorflow as tf

        key = ("prefill", decoder.key)
        known = self.programs.knows(key, *arguments)
        if known or tf.config.functions_run_eagerly() or tf.distribute.has_strategy():
            return self._call("prefill", *arguments)

        @functools.cache
        def empty(shape: tuple[int, ...], dtype: tf.DType) -> tf.Tensor:
            return tf.zeros(shape, dtype)  # one for all layers: a second cache might not fit

        outputs = self.programs.outputs(key, decoder.traced("prefill"), *arguments)
        state = tf.nest.map_structure(lambda x: None if x is None else empty(tuple(x.shape), x.dtype), outputs)
        state = state._replace(prompt_end=tf.constant(prompt.ids.shape[1]))  # XLA compiles this number in
        # Traced here: XLA asks Python where operations come from, and would wait for the tracing.
        self.programs.outputs(("loop", decoder.key), decoder.traced("loop"), state, self.inputs, tf.constant(0))

        def compile_loop() -> None:
            with contextlib.suppress(tf.errors.ResourceExhaustedError):  # compiled it is by then
                self._loop(state, 0)

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(compile_loop)
            state_after = self._call("prefill", *arguments)
        compiled.result()
        return state_after

    def in_steps(self, prompt: Prompt, stopping: Stopping, streamer: Any = None) -> State:
        """Decode with Python between the compiled calls.

        For streamers and what may end rows from outside, and for score processors that are any Python.

        Args:
            prompt: as for `whole`.
            stopping: asked after every token where it has criteria, and for the time after every chunk.
            streamer: given the tokens of each chunk.
        """
        decoder, inputs = self.decoder, self.inputs
        by_hand = any(isinstance(processor, proc.Callback) for processor in decoder.processors)
        if stopping.criteria and decoder.strategy.ends_candidates:
            by_hand, inputs = True, inputs._replace(stop=stopping.rows)
        chunk = 1
        if by_hand:
            state = decoder.choose(*self._call("forward_prompt", prompt), inputs)
        else:
            state = self._prefill(prompt)
        sent, end = 0, int(state.prompt_end)
        if hasattr(streamer, "put_prompt"):
            ids = self._ids(ops.convert_to_numpy(prompt.ids), int(prompt.start), end)
            with out_of_turn():
                streamer.put_prompt(ids)
        while True:
            done = int(state.step)
            if stopping.criteria and inputs.stop is None:
                state = self._stopped(state, stopping, sent)
                done = int(state.step)
            if streamer is not None:
                ids = self._ids(ops.convert_to_numpy(state.ids), end + sent, end + done)
                check_numbers(decoder.model, ids, sent)
                with out_of_turn():
                    streamer.put(ids)
            sent = done
            if done >= self.new or bool(ops.all(state.finished)) or stopping.late:
                break
            if by_hand:
                state = decoder.choose(*self._call("forward_token", state), inputs)
            else:
                state = self._loop(state, min(sent + chunk, self.new))
                chunk = 1 if stopping.criteria else _STREAM_CHUNK
        if streamer is not None:
            with out_of_turn():
                streamer.end()
        return state

    def _stopped(self, state: State, stopping: Stopping, sent: int) -> State:
        """The state with the rows finished that a criterion ends; tokens beyond an end of all rows are taken back.

        Args:
            state: after one step, of which speculative decoding makes several tokens of one row.
            stopping: what is asked.
            sent: tokens generated before that step.
        """
        end = int(state.prompt_end)
        finished = ops.convert_to_numpy(state.finished).copy()
        for step in range(sent + 1, int(state.step) + 1):
            ids = self._ids(state.ids, int(state.start), end + step)
            scores = None
            if state.scores is not None:
                scores = tuple(state.scores[index, : len(ids)] for index in range(step))
            stopped = stopping.rows(ids, scores)
            finished[: self.rows] |= np.repeat(stopped, self.rows_per_sequence)
            if stopped.all():
                state = state._replace(step=ops.convert_to_tensor(step, "int32"))
                break
        return state._replace(finished=ops.convert_to_tensor(finished))


def sampling_inputs(
    config: GenerationConfig, processors: Sequence[proc.Processor], new: int, drawing: Drawing | None = None
) -> SamplingInputs:
    """The values that steer a call of `generate` for at most `new` tokens, as tensors."""
    eos = config.eos_token_ids
    # The marks end rows that have no next token; a few more, so that short lists share programs.
    eos = [*eos, NONE_ALLOWED, NO_NUMBER]
    eos += [NO_NUMBER] * (power_of_two(max(_FEWEST_ENDS, len(eos))) - len(eos))
    return SamplingInputs(
        eos=ops.convert_to_tensor(np.asarray(eos, "int32")),
        pad=ops.convert_to_tensor(config.fill_token_id, "int32"),
        seed=ops.convert_to_tensor(seed_of(config.seed), "int32"),
        processors=keras.tree.map_structure(ops.convert_to_tensor, proc.split(processors)[1]),
        limit=ops.convert_to_tensor(new, "int32"),
        drawing=drawing,
    )


def seed_of(seed: int | None) -> int:
    """A seed that fits int32: the one given, or a new one.

    A new one follows `tf.random.set_seed` where that was called, else Python's `random`, which
    `keras.utils.set_random_seed` sets.
    """
    if seed is not None:
        return seed & 0x7FFFFFFF
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph_seed, op_seed = tf.compat.v1.random.get_seed(None)
        if graph_seed is not None:
            return int(np.random.SeedSequence([graph_seed, op_seed]).generate_state(1)[0]) & 0x7FFFFFFF
    return random.randrange(2**31)
