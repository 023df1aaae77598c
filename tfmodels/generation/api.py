"""`generate`: the method that causal language models have.

What avoids recompilation: prompts are padded on the left to a bucketed length, batches to a bucketed size, and the
buffers to a bucketed capacity, so only a new *bucket* compiles. Numbers and token ids (temperature, seed, limits,
end-of-sequence ids) are inputs of the programs; only what changes the program's shape (which processors there are) is
compiled in. `jit_compile=False` runs plain graphs; under `tf.config.run_functions_eagerly(True)` the same code runs
eagerly.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.generation import logits_processors as proc
from tfmodels.generation.config import FILE_NAME, GenerationConfig
from tfmodels.generation.prompt import Prompts, read_prompts, to_buckets
from tfmodels.generation.step import Decoder, Prompt, State
from tfmodels.generation.strategies import BeamSearch, Sampling, SamplingInputs, Strategy, beams
from tfmodels.models.outputs import GenerateOutput
from tfmodels.runtime.buckets import power_of_two
from tfmodels.runtime.compile import ProgramCache
from tfmodels.utils.files import Staged

# Tokens per chunk that a streamer receives: one compiled call each.
_STREAM_CHUNK = 4


class GenerationMixin:
    """Adds `generate` and its settings to a causal language model."""

    generation_config: GenerationConfig

    def make_head(self) -> None:
        super().make_head()
        self.generation_config = GenerationConfig.from_model_config(self.config)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "generation_config": self.generation_config.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        settings = config.pop("generation_config", None)
        model = super().from_config(config, custom_objects)
        if settings is not None:
            model.generation_config = GenerationConfig.from_dict(settings)
        return model

    def after_loading(self, folder: Any) -> None:
        super().after_loading(folder)
        if (folder / FILE_NAME).is_file():
            stored = GenerationConfig.from_pretrained(folder)
            self.generation_config = stored.with_defaults(self.generation_config)

    def write_files(self, stage: Staged, max_shard_size: str | int = "5GB") -> None:
        super().write_files(stage, max_shard_size)
        self.generation_config.save_pretrained(stage.folder)

    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        *,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        logits_processor: Sequence[Callable] | None = None,
        streamer: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Continue prompts.

        Args:
            inputs: int (batch, length) token ids, also accepted as `input_ids`, or what a tokenizer returned. Prompts
                of different lengths are padded on the left. Nothing starts from the beginning-of-sequence token.
            generation_config: settings that go before the model's own `generation_config`.
            attention_mask: (batch, length), 0 at padding. Left out, it is inferred where the padding token occurs in
                the prompt and does not also end sequences.
            inputs_embeds: (batch, length, hidden_size) instead of ids; the result then holds new tokens only.
            logits_processor: callables `(input_ids, scores) -> scores` with the tokens so far (batch, length) and
                scores (batch, vocab_size); they may be any Python, so decoding then returns to Python at every token.
            streamer: object with `put(ids)`, called with int32 arrays (batch, new) as tokens arrive, and `end()`.
            **kwargs: settings of `GenerationConfig` for this call (`max_new_tokens`, `do_sample`, `temperature`, ...).
                With `seed=` sampling repeats itself. Without it, it is new every time, but repeats after
                `tf.random.set_seed` or `keras.utils.set_random_seed`. `jit_compile=False` runs as a plain graph
                instead of compiling by XLA.

        Returns:
            int32 (batch * num_return_sequences, length + new): prompt and continuation, rows that ended early filled
            with the padding token; or, for `return_dict_in_generate=True`, a `GenerateOutput`.

        Raises:
            TypeError: an unknown argument, or a symbolic tensor.
            ValueError: an empty prompt, ids outside the vocabulary, a mask of another shape, contradicting settings,
                no room for a single token.
            FloatingPointError: the model's scores are NaN.

        Example:
            >>> from tfmodels import TFLlamaForCausalLM
            >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
            >>> model.generate([[1, 403, 407, 261, 378]], max_new_tokens=4).numpy().tolist()
            [[1, 403, 407, 261, 378, 432, 383, 286, 261]]
        """
        if "input_ids" in kwargs:
            if inputs is not None:
                raise TypeError("generate got the prompt twice: as `inputs` and as `input_ids`.")
            inputs = kwargs.pop("input_ids")
        config = self.generation_config
        if generation_config is not None:
            config = generation_config.with_defaults(config)
        config = config.update(**kwargs)
        if config.num_beams > 1 and streamer is not None:
            raise ValueError(
                f"streamer with num_beams={config.num_beams}: the first tokens are known when the search ends; use "
                "num_beams=1 to stream."
            )
        prompts = read_prompts(inputs, attention_mask, inputs_embeds, config=config, model_config=self.config)
        length = prompts.ids.shape[1]
        new = self._new_tokens(config, length)
        if config.num_beams == 1:
            prompts = prompts.repeat(config.num_return_sequences)
        processors = proc.build(
            config,
            vocab_size=self.config.vocab_size,
            max_new_tokens=new,
            eos_token_ids=config.eos_token_ids,
            callbacks=logits_processor or (),
        )
        decoder = Decoder(
            self,
            strategy_of(config),
            processors,
            use_cache=config.use_cache,
            keep_scores=config.output_scores and config.return_dict_in_generate,
            keep_logits=config.output_logits and config.return_dict_in_generate,
            jit_compile=config.jit_compile,
        )
        run = Run(decoder, self.programs, sampling_inputs(config, processors, new), len(prompts.ids), new)
        prompt = to_buckets(prompts, new)
        if streamer is not None or logits_processor:
            state = run.in_steps(prompt, streamer)
        else:
            state = run.whole(prompt)
        return self._result(state, prompts, config)

    @property
    def programs(self) -> ProgramCache:
        """The compiled programs of `generate`."""
        if self._programs is None:
            self._programs = ProgramCache()
        return self._programs

    def _new_tokens(self, config: GenerationConfig, length: int) -> int:
        """How many tokens to add at most."""
        context = self.config.max_position_embeddings
        new = config.new_tokens(length, context if length < context else None)
        if length + new > context:
            message = f"prompt of {length} plus {new} new tokens exceed max_position_embeddings={context}"
            if self.backbone.position_limit is not None and length + new > self.backbone.position_limit:
                raise ValueError(f"{message}, and this model has no positions beyond; shorten one of the two.")
            warnings.warn(f"{message}: text beyond what the model was trained for may be poor.", stacklevel=3)
        return new

    def _result(self, state: State, prompts: Prompts, config: GenerationConfig) -> Any:
        rows, steps, end = len(prompts.ids), int(state.step), int(state.prompt_end)
        if config.num_beams > 1:
            return self._beam_result(state, prompts, config)
        added = state.ids[:rows, end : end + steps]
        self._check_numbers(added)
        prompt = prompts.ids if prompts.embeds is None else prompts.ids[:, :0]
        sequences = ops.concatenate([ops.convert_to_tensor(prompt), added], axis=1)
        if not config.return_dict_in_generate:
            return sequences
        return GenerateOutput(sequences=sequences, **_records(state, rows))

    def _beam_result(self, state: State, prompts: Prompts, config: GenerationConfig) -> Any:
        rows, returned = len(prompts.ids), config.num_return_sequences
        # As in the reference, a padding id of 0 does not count here.
        fill = config.pad_token_id or (config.eos_token_ids or (-1,))[0]
        added, scores, origins = (
            part[:rows, :returned].reshape(rows * returned, *part.shape[2:])
            for part in beams.results(state.carry, int(state.prompt_end), fill)
        )
        length = int((origins >= 0).sum(axis=1).max())
        added = added[:, :length]
        self._check_numbers(np.where(origins[:, :length] >= 0, added, 0))
        prompt = np.repeat(prompts.ids if prompts.embeds is None else prompts.ids[:, :0], returned, axis=0)
        sequences = ops.convert_to_tensor(np.concatenate([prompt, added], axis=1).astype("int32"))
        if not config.return_dict_in_generate:
            return sequences
        return GenerateOutput(
            sequences=sequences,
            sequences_scores=ops.convert_to_tensor(scores) if config.output_scores else None,
            beam_indices=ops.convert_to_tensor(origins[:, :length]) if config.output_scores else None,
            **_records(state, rows * config.num_beams),
        )

    def _check_numbers(self, added: Any) -> None:
        added = np.asarray(ops.convert_to_numpy(added))
        if (added < 0).any():
            row, step = np.argwhere(added < 0)[0]
            raise FloatingPointError(
                f"the model's scores are NaN in row {row} at new token {step}: the weights hold NaN, or "
                f"{self.compute_dtype} overflows (load with dtype='float32' or 'bfloat16')."
            )


def _records(state: State, rows: int) -> dict[str, Any]:
    """Scores and logits of each step, where they were kept."""
    records = {"scores": state.scores, "logits": state.logits}
    return {
        name: None if record is None else tuple(record[index, :rows] for index in range(int(state.step)))
        for name, record in records.items()
    }


def strategy_of(config: GenerationConfig) -> Strategy:
    """The strategy that the settings ask for."""
    if config.num_beams == 1:
        return Sampling(config.do_sample)
    return BeamSearch(
        rows=config.num_beams,
        ends=len(config.eos_token_ids),
        do_sample=config.do_sample,
        length_penalty=config.length_penalty,
        early_stopping=config.early_stopping,
    )


class Run:
    """One call of `generate`: a decoder, the values it is steered by, and the programs it runs in.

    Args:
        decoder: what to run.
        programs: the model's compiled programs.
        inputs: values that steer decoding.
        rows: of the batch; those that only fill a bucket come after them.
        new: tokens to add at most.
    """

    def __init__(self, decoder: Decoder, programs: ProgramCache, inputs: SamplingInputs, rows: int, new: int):
        self.decoder = decoder
        self.programs = programs
        self.inputs = inputs
        self.rows = rows
        self.new = new

    def _call(self, name: str, *arguments: Any) -> Any:
        """Run a method of the decoder as a compiled program."""
        decoder = self.decoder
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
        if self.new == 1 or keras.backend.backend() != "tensorflow" or not decoder.jit_compile:
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

    def in_steps(self, prompt: Prompt, streamer: Any) -> State:
        """Decode with Python between the compiled calls: for streamers, and for processors that are any Python."""
        decoder = self.decoder
        by_hand = any(isinstance(processor, proc.Callback) for processor in decoder.processors)
        if by_hand:
            state = decoder.choose(*self._call("forward_prompt", prompt), self.inputs)
        else:
            state = self._prefill(prompt)
        sent, end = 0, int(state.prompt_end)
        while True:
            done = int(state.step)
            if streamer is not None:
                streamer.put(ops.convert_to_numpy(state.ids)[: self.rows, end + sent : end + done])
            sent = done
            if done >= self.new or bool(ops.all(state.finished)):
                break
            if by_hand:
                state = decoder.choose(*self._call("forward_token", state), self.inputs)
            else:
                state = self._loop(state, min(sent + _STREAM_CHUNK, self.new))
        if streamer is not None:
            streamer.end()
        return state


def sampling_inputs(config: GenerationConfig, processors: Sequence[proc.Processor], new: int) -> SamplingInputs:
    """The values that steer a call of `generate` for at most `new` tokens, as tensors."""
    eos = config.eos_token_ids
    # At least one -1, which ends rows whose scores are no numbers.
    eos = [*eos, *[-1] * (power_of_two(len(eos) + 1) - len(eos))]
    return SamplingInputs(
        eos=ops.convert_to_tensor(np.asarray(eos, "int32")),
        pad=ops.convert_to_tensor(config.fill_token_id, "int32"),
        seed=ops.convert_to_tensor(seed_of(config.seed), "int32"),
        processors=keras.tree.map_structure(ops.convert_to_tensor, proc.split(processors)[1]),
        limit=ops.convert_to_tensor(new, "int32"),
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
