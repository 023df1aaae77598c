"""The signatures `generate` and `generate_sample` of a SavedModel: whole loops inside the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfmodels.cache import kv
from tfmodels.export.cache import from_named, static_cache
from tfmodels.export.saved_model.functions import graph_function, input_specs
from tfmodels.generation import logits_processors as proc
from tfmodels.generation.step import Decoder as StepDecoder
from tfmodels.generation.step import State
from tfmodels.generation.strategies import Sampling
from tfmodels.generation.strategies.base import SamplingInputs
from tfmodels.kernels import decoding
from tfmodels.runtime.lowering import EXPORT


def generate_signatures(
    model: Any, prefill: Any, capacity: int, batch_sizes: list[int], jit_compile: bool
) -> dict[str, Any]:
    """Make `generate` and `generate_sample`.

    Prompts run as they are, by `prefill`, a plain graph that takes any shape. The loop, where nearly all the time
    goes, has fixed shapes: a cache of `capacity` positions and one of a few batch sizes.
    """
    config = model.generation_config
    eos = config.eos_token_ids
    pad = config.fill_token_id
    prompt = input_specs(model, tf.int32, "input_ids", "attention_mask")
    specs = {
        **prompt,
        "max_new_tokens": tf.TensorSpec((), tf.int32, name="max_new_tokens"),
        "eos_token_id": tf.TensorSpec((None,), tf.int32, name="eos_token_id"),
    }
    defaults = {"max_new_tokens": min(128, capacity - 1), "eos_token_id": np.asarray(eos, "int32")}
    sampling = {"temperature": (1.0, tf.float32), "top_k": (0, tf.int32), "top_p": (1.0, tf.float32)}
    sampling["seed"] = (0, tf.int32)
    sampling_specs = {name: tf.TensorSpec((), dtype, name=name) for name, (_, dtype) in sampling.items()}

    greedy = Decoder(model, prefill, (), capacity, batch_sizes, pad, jit_compile)
    processors = (proc.Temperature(1.0), proc.TopK(1), proc.TopP(1.0))
    drawing = Decoder(model, prefill, processors, capacity, batch_sizes, pad, jit_compile)

    def generate(input_ids: Any, attention_mask: Any, max_new_tokens: Any, eos_token_id: Any) -> dict[str, Any]:
        numbers = tf.zeros((0,), tf.float64)
        return {"sequences": greedy(input_ids, attention_mask, max_new_tokens, eos_token_id, tf.constant(0), numbers)}

    def generate_sample(
        *, temperature: Any, top_k: Any, top_p: Any, seed: Any, input_ids: Any, attention_mask: Any, **limits: Any
    ) -> dict[str, Any]:
        # Comparisons with NaN are false: it fails each of these checks.
        checks = [
            tf.debugging.Assert(
                (temperature >= 0) & (temperature < np.inf), ["temperature must be 0 or more, not", temperature]
            ),
            tf.debugging.Assert((top_p > 0) & (top_p <= 1), ["top_p must be above 0 and at most 1, not", top_p]),
            tf.debugging.Assert(top_k >= 0, ["top_k must be 0 (all tokens) or more, not", top_k]),
        ]
        with tf.control_dependencies(checks):
            greedy_instead = tf.equal(temperature, 0)
        kept = tf.where(top_k > 0, top_k, model.config.vocab_size)
        kept, heat = tf.where(greedy_instead, 1, kept), tf.where(greedy_instead, 1.0, temperature)
        numbers = tf.stack([tf.cast(number, tf.float64) for number in (heat, kept, top_p)])
        return {
            "sequences": drawing(
                input_ids, attention_mask, limits["max_new_tokens"], limits["eos_token_id"], seed, numbers
            )
        }

    return {
        "generate": graph_function(generate, specs, defaults),
        "generate_sample": graph_function(
            generate_sample,
            {**specs, **sampling_specs},
            {**defaults, **{name: value for name, (value, _) in sampling.items()}},
        ),
    }


class Decoder:
    """A way of decoding, as graph functions.

    Args:
        model: a causal language model.
        prefill: its function of that name.
        processors: of the scores; with some, tokens are drawn, with none the likeliest are taken.
        capacity: most tokens of prompt and continuation.
        batch_sizes: rows at a time, ascending.
        pad: id that fills rows that ended.
        jit_compile: whether XLA compiles the loop.
    """

    def __init__(
        self,
        model: Any,
        prefill: Any,
        processors: tuple[Any, ...],
        capacity: int,
        batch_sizes: list[int],
        pad: int,
        jit_compile: bool,
    ):
        self.model = model
        self.prefill = prefill
        self.capacity = capacity
        self.batch_sizes = batch_sizes
        self.pad = tf.constant(pad, tf.int32)
        sampling = Sampling(do_sample=bool(processors))
        lowering = decoding.for_xla(portable=True, reuse=False) if jit_compile else EXPORT
        self.decoder = StepDecoder(model, sampling, processors, lowering=lowering)
        self._decode = tf.function(self._all_tokens, autograph=False, jit_compile=jit_compile)

    def __call__(self, ids: Any, mask: Any, new: Any, eos: Any, seed: Any, numbers: Any) -> Any:
        """Continue prompts.

        Args:
            ids, mask: int32 (batch, length).
            new: int32 scalar, tokens to add at most.
            eos: int32 (n,), ids that end a row.
            seed: int32 scalar.
            numbers: float64, of the processors.

        Returns:
            int32 (batch, length + added).
        """
        length = tf.shape(ids)[1]
        complaint = f"the prompt must have 1 to {self.capacity - 1} tokens (max_length={self.capacity} of this export)"
        checks = [
            tf.debugging.assert_less(length, self.capacity, message=complaint),
            tf.debugging.assert_positive(tf.size(ids), message="the prompt is empty"),
            tf.debugging.assert_positive(new, message="max_new_tokens must be positive"),
            tf.debugging.assert_non_negative(ids, message="ids must not be negative"),
            tf.debugging.assert_less(ids, self.model.config.vocab_size, message="ids lie beyond the vocabulary"),
        ]
        with tf.control_dependencies(checks):
            ids, new = tf.identity(ids), tf.minimum(new, self.capacity - length)
        inputs = SamplingInputs(eos, self.pad, seed, proc.Inputs(numbers))
        index = tf.reduce_sum(tf.cast(tf.shape(ids)[0] > self.batch_sizes[:-1], tf.int32))
        turns = [lambda rows=rows: self._in_turns(rows, ids, mask, new, inputs) for rows in self.batch_sizes]
        added = tf.switch_case(index, turns) if len(turns) > 1 else turns[0]()
        numbers = tf.debugging.assert_non_negative(
            added, message="the scores are NaN: weights hold NaN, or the float type overflows"
        )
        with tf.control_dependencies([numbers]):
            added = tf.identity(added)
        return tf.concat([ids, added], axis=1)

    def _in_turns(self, rows: int, ids: Any, mask: Any, new: Any, inputs: SamplingInputs) -> Any:
        """Decode `rows` rows at a time; the last turn is filled by repeating the last row."""
        batch = tf.shape(ids)[0]
        turns = -(-batch // rows)
        chosen = tf.minimum(tf.range(turns * rows), batch - 1)

        def one(turn: Any) -> tuple[Any, Any]:
            here = turn * rows + tf.range(rows)
            take = tf.gather(chosen, here)
            # A draw belongs to a row of its turn: every turn has a seed of its own, the first one the caller's.
            own = inputs._replace(seed=inputs.seed + turn * 7919)
            return self._one_turn(rows, tf.gather(ids, take), tf.gather(mask, take), here >= batch, new, own)

        kinds = (tf.TensorSpec((rows, self.capacity), tf.int32), tf.TensorSpec((), tf.int32))
        tokens, steps = tf.map_fn(one, tf.range(turns), fn_output_signature=kinds, parallel_iterations=1)
        columns = tf.range(self.capacity) < tf.reshape(steps, (-1, 1, 1))
        tokens = tf.reshape(tf.where(columns, tokens, inputs.pad), (turns * rows, self.capacity))
        return tokens[:batch, : tf.reduce_max(steps)]

    def _one_turn(
        self, rows: int, ids: Any, mask: Any, filler: Any, new: Any, inputs: SamplingInputs
    ) -> tuple[Any, Any]:
        """The new tokens, (rows, capacity), and how many there are."""
        length = tf.shape(ids)[1]
        room = [[0, 0], [0, self.capacity - length]]
        output = self.prefill(ids, mask)
        grown = from_named(
            {name: tf.ensure_shape(tensor, (rows, *tensor.shape[1:])) for name, tensor in output.items()},
            len(self.model.backbone.layers),
        )
        attended = tf.pad(mask != 0, room, constant_values=True)
        state = State(
            ids=tf.ensure_shape(tf.pad(ids, room), (rows, self.capacity)),
            attended=tf.ensure_shape(attended, (rows, self.capacity)),
            start=tf.constant(0),
            prompt_end=length,
            position=tf.reduce_sum(tf.cast(mask != 0, tf.int32), axis=1),
            cache=kv.merge_rows(static_cache(self.model, grown, self.capacity, length)),
            embeds=None,
            finished=filler,
            step=tf.constant(0),
        )
        logits = tf.ensure_shape(output["logits"], (rows, self.model.config.vocab_size))
        ids, steps = self._decode(state, logits, inputs, new)
        # From the prompt's end on, with room for what the prompt took.
        return tf.ensure_shape(tf.pad(ids[:, length:], [[0, 0], [0, length]]), (rows, self.capacity)), steps

    def _all_tokens(self, state: State, logits: Any, inputs: SamplingInputs, until: Any) -> tuple[Any, Any]:
        """Choose the first token, then decode on; compiled for its shapes, whatever the numbers."""
        state = self.decoder.loop(self.decoder.choose(state, logits, inputs), inputs, until)
        return state.ids, state.step
