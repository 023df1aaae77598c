"""`generate`: greedy and multinomial decoding, compiled.

There are two programs. *Prefill* runs the whole prompt and picks the first token; the *loop* holds a fixed-size cache
and a token buffer and adds one token per turn until all rows have ended. Both are compiled by XLA
(`jit_compile=False`: plain graphs; under `tf.config.run_functions_eagerly(True)` the same code runs eagerly) and kept
per model.

What avoids recompilation: prompts are padded on the left to a bucketed length, batches to a bucketed size, and the
buffers to a bucketed capacity, so only a new *bucket* compiles. Numbers (temperature, seed, limits, end-of-sequence
ids) are inputs of the programs; only what changes the program's shape (`top_k`, word lists, which processors there
are) is compiled in.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmodels.cache import kv
from tfmodels.generation import processors as proc
from tfmodels.generation.config import GenerationConfig
from tfmodels.kernels import decoding
from tfmodels.kernels.masks import positions_from_mask
from tfmodels.models.outputs import GenerateOutput
from tfmodels.runtime.compile import ByShapes
from tfmodels.runtime.gc import pause_gc
from tfmodels.runtime.shared_blocks import sharing

# Tokens per chunk that a streamer receives: one compiled call each.
_STREAM_CHUNK = 4


class Prompt(NamedTuple):
    """What prefill starts from; shapes are buckets.

    Fields:
        ids: int32 (batch, prompt), left-padded; -1 (no token) where the prompt is given as embeddings.
        embeds: (batch, prompt, hidden_size), or None.
        attended: bool (batch, capacity), False at padding, True from the prompt's end on.
        start: int32 scalar, columns before it are bucket padding.
        finished: bool (batch,), True for rows that only pad the batch.
    """

    ids: Any
    embeds: Any
    attended: Any
    start: Any
    finished: Any


class Limits(NamedTuple):
    """Numbers that steer the loop without being compiled in.

    Fields:
        eos: int32 (n,), ids that end a row (n may be 0).
        pad: int32 scalar, what rows hold after their end.
        seed: int32 scalar.
        numbers: float64 (m,), the processors' own.
    """

    eos: Any
    pad: Any
    seed: Any
    numbers: Any


class State(NamedTuple):
    """The loop's state.

    Fields:
        ids: int32 (batch, capacity), tokens so far.
        attended, start: as in `Prompt`.
        prompt_end: int32 scalar, column of the first generated token.
        position: int32 (batch,), position of the first generated token.
        cache: StaticCache with merged rows (`tfmodels.cache.kv.merge_rows`), or None when decoding without one.
        embeds: (batch, capacity, hidden_size), the prompt's, where it was given so and there is no cache; else None.
        finished: bool (batch,).
        step: int32 scalar, tokens generated so far.
        scores, logits: float32 (room, batch, vocab_size) after and before the processors, or None.
    """

    ids: Any
    attended: Any
    start: Any
    prompt_end: Any
    position: Any
    cache: Any
    embeds: Any
    finished: Any
    step: Any
    scores: Any = None
    logits: Any = None


class Program:
    """The traced functions of one kind of decoding: what is compiled in is fixed here.

    Args:
        model: a causal language model.
        processors: the processors whose numbers are replaced by inputs.
        do_sample, use_cache, keep_scores, keep_logits: as in `GenerationConfig`.
    """

    def __init__(
        self,
        model: Any,
        processors: tuple[Any, ...],
        *,
        do_sample: bool,
        use_cache: bool,
        keep_scores: bool,
        keep_logits: bool,
    ):
        self.model = model
        self.processors = processors
        self.do_sample = do_sample
        self.use_cache = use_cache
        self.keep_scores = keep_scores
        self.keep_logits = keep_logits

    # The two passes through the model -----------------------------------------------------------------------

    def forward_prompt(self, prompt: Prompt) -> tuple[State, Any]:
        """Run the prompt. Returns the state before the first token, and the logits for it, (batch, vocab_size)."""
        batch, capacity = prompt.attended.shape
        length = prompt.ids.shape[1]
        mask = prompt.attended[:, :length]
        tokens = {"input_ids": prompt.ids} if prompt.embeds is None else {"inputs_embeds": prompt.embeds}
        output = self.model(
            **tokens,
            attention_mask=mask,
            position_ids=positions_from_mask(mask),
            use_cache=self.use_cache,
            logits_to_keep=1,
            return_dict=True,
        )
        logits = ops.cast(output.logits[:, -1], "float32")
        room = capacity - length
        record = ops.zeros((room, batch, logits.shape[-1]), "float32")
        embeds = None
        if prompt.embeds is not None and not self.use_cache:
            embeds = ops.pad(prompt.embeds, ((0, 0), (0, room), (0, 0)))
        windows = self.model.backbone.cache_windows
        state = State(
            ids=ops.pad(prompt.ids, ((0, 0), (0, room))),
            attended=prompt.attended,
            start=prompt.start,
            prompt_end=ops.convert_to_tensor(length, "int32"),
            position=ops.sum(ops.cast(mask, "int32"), axis=1),
            cache=kv.merge_rows(kv.to_static(output.past_key_values, capacity, windows)) if self.use_cache else None,
            embeds=embeds,
            finished=prompt.finished,
            step=ops.convert_to_tensor(0, "int32"),
            scores=record if self.keep_scores else None,
            logits=record if self.keep_logits else None,
        )
        return state, logits

    def forward_token(self, state: State) -> tuple[State, Any]:
        """Run the last token (without a cache, everything). Returns the state and the logits for the next token."""
        if self.use_cache:
            last = state.prompt_end + state.step - 1
            output = self.model(
                input_ids=ops.slice(state.ids, (0, last), (state.ids.shape[0], 1)),
                attention_mask=state.attended,
                position_ids=ops.expand_dims(state.position + state.step - 1, 1),
                past_key_values=kv.split_rows(state.cache, state.ids.shape[0]),
                use_cache=True,
                logits_to_keep=1,
                return_dict=True,
            )
            state = state._replace(cache=kv.merge_rows(output.past_key_values))
            return state, ops.cast(output.logits[:, -1], "float32")
        end = state.prompt_end + state.step
        columns = ops.expand_dims(ops.arange(state.ids.shape[1], dtype="int32"), 0)
        mask = ops.logical_and(state.attended, columns < end)
        tokens = {"input_ids": state.ids}
        if state.embeds is not None:
            own = self.model.get_input_embeddings()(ops.maximum(state.ids, 0))
            in_prompt = ops.expand_dims(columns < state.prompt_end, 2)
            tokens = {"inputs_embeds": ops.where(in_prompt, ops.cast(state.embeds, own.dtype), own)}
        output = self.model(
            **tokens,
            attention_mask=mask,
            position_ids=positions_from_mask(mask),
            use_cache=False,
            logits_to_keep=ops.reshape(end - 1, (1,)),
            return_dict=True,
        )
        return state, ops.cast(output.logits[:, -1], "float32")

    # Choosing tokens ----------------------------------------------------------------------------------------

    def pick(self, state: State, logits: Any, limits: Limits, extra: Sequence[Callable] = ()) -> State:
        """Choose each row's next token from logits (batch, vocab_size) and write it down.

        `extra` are callables `(input_ids so far, scores) -> scores` of the user's; they run where Python can look at
        values.
        """
        end = state.prompt_end + state.step
        context = proc.Context(
            ids=state.ids, start=state.start, end=end, prompt_end=state.prompt_end, attended=state.attended
        )
        bound = proc.bind(self.processors, limits.numbers)
        first_warper = next((i for i, p in enumerate(bound) if isinstance(p, proc.WARPERS)), len(bound))
        scores = logits
        for processor in bound[:first_warper]:
            scores = processor(context, scores)
        for function in extra:
            so_far = state.ids[:, int(state.start) : int(end)]
            scores = ops.cast(ops.convert_to_tensor(function(so_far, scores)), "float32")
        for processor in bound[first_warper:]:
            scores = processor(context, scores)
        tokens = proc.select(scores, do_sample=self.do_sample, seed=limits.seed, step=state.step)
        tokens = ops.where(state.finished, limits.pad, tokens)
        ended = ops.any(ops.equal(ops.expand_dims(tokens, 1), ops.expand_dims(limits.eos, 0)), axis=1)
        return state._replace(
            ids=ops.slice_update(state.ids, (0, end), ops.expand_dims(tokens, 1)),
            finished=ops.logical_or(state.finished, ended),
            step=state.step + 1,
            scores=_record(state.scores, state.step, scores),
            logits=_record(state.logits, state.step, logits),
        )

    # The two programs ---------------------------------------------------------------------------------------

    def prefill(self, prompt: Prompt, limits: Limits) -> State:
        """Run the prompt and choose the first token."""
        state, logits = self.forward_prompt(prompt)
        return self.pick(state, logits, limits)

    def loop(self, state: State, limits: Limits, until: Any) -> State:
        """Add tokens until `until` (int32 scalar) were generated in all, or every row has ended."""

        def wants_more(*values: Any) -> Any:
            state = State(*values)
            return ops.logical_and(state.step < until, ops.logical_not(ops.all(state.finished)))

        def turn(*values: Any) -> tuple[Any, ...]:
            state, logits = self.forward_token(State(*values))
            return tuple(self.pick(state, logits, limits))

        return State(*_while(wants_more, turn, tuple(state)))


def _record(buffer: Any, step: Any, values: Any) -> Any:
    if buffer is None:
        return None
    return ops.slice_update(buffer, (step, 0, 0), ops.expand_dims(values, 0))


def _while(condition: Callable, body: Callable, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """`ops.while_loop` over a tuple in which some entries are None."""
    held = [index for index, value in enumerate(values) if value is not None]

    def spread(some: Sequence[Any]) -> list[Any]:
        full: list[Any] = [None] * len(values)
        for index, value in zip(held, some, strict=True):
            full[index] = value
        return full

    def held_of(full: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(full[index] for index in held)

    result = ops.while_loop(
        lambda *some: condition(*spread(some)), lambda *some: held_of(body(*spread(some))), held_of(values)
    )
    return tuple(spread(result))


def bucket_length(length: int) -> int:
    """The smallest of 16, 24, 32, 48, 64, 96, ... that is not below `length`.

    Example:
        >>> [bucket_length(n) for n in (1, 16, 17, 33, 100)]
        [16, 16, 24, 48, 128]
    """
    size = 16
    while size < length:
        if size + size // 2 >= length:
            return size + size // 2
        size *= 2
    return size


def bucket_batch(rows: int) -> int:
    """The smallest of 1, 2, 4, 8, 16, 24, 32, ... that is not below `rows`.

    Example:
        >>> [bucket_batch(n) for n in (1, 3, 8, 9, 17)]
        [1, 4, 8, 16, 24]
    """
    return next((size for size in (1, 2, 4, 8) if size >= rows), -(-rows // 8) * 8)


class Compiled(ByShapes):
    """A function compiled by the backend for generating, once for every combination of input shapes."""

    def __call__(self, *arguments: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            return self.function(*arguments)  # `ops.while_loop` compiles the loop's body there
        return super().__call__(*arguments)

    def _run(self, *arguments: Any) -> Any:
        with decoding.compiling() if self.jit_compile else contextlib.nullcontext(), sharing(), pause_gc():
            return super()._run(*arguments)

    def knows(self, *arguments: Any) -> bool:
        """Whether there is a program for arguments of these shapes."""
        return self._function_for(arguments).experimental_get_tracing_count() > 0

    def outputs(self, *arguments: Any) -> Any:
        """What a call would return, as symbolic tensors; traced, but neither compiled nor run."""
        return self._function_for(arguments).get_concrete_function(*arguments).structured_outputs

    @property
    def compilations(self) -> int:
        """How many programs were compiled so far."""
        return sum(function.experimental_get_tracing_count() for function in self.by_shapes.values())


class GenerationMixin:
    """Adds `generate` to a causal language model."""

    generation_config: GenerationConfig

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
            inputs: int (batch, length) token ids, also accepted as `input_ids`. Prompts of different lengths are
                padded on the left. Nothing at all starts from the beginning-of-sequence token.
            generation_config: settings that go before the model's own `generation_config`.
            attention_mask: (batch, length), 0 at padding. Left out, it is inferred where the padding token occurs in
                the prompt and does not also end sequences.
            inputs_embeds: (batch, length, hidden_size) instead of ids; the result then holds new tokens only.
            logits_processor: callables `(input_ids, scores) -> scores` with the tokens so far (batch, length) and
                scores (batch, vocab_size); they may be any Python, so decoding then returns to Python at every token.
            streamer: object with `put(ids)`, called with int32 arrays (batch, new) as tokens arrive, and `end()`.
            **kwargs: settings of `GenerationConfig` for this call (`max_new_tokens`, `do_sample`, `temperature`, ...).
                With `seed=` sampling repeats itself, without it is new every time; `jit_compile=False` runs as a plain
                graph instead of compiling by XLA.

        Returns:
            int32 (batch * num_return_sequences, length + new): prompt and continuation, rows that ended early filled
            with the padding token; or, for `return_dict_in_generate=True`, a `GenerateOutput`.

        Raises:
            TypeError: an unknown argument.
            ValueError: an empty prompt, ids outside the vocabulary, a mask of another shape, contradicting settings,
                no room for a single token.

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
        if config.num_beams != 1:
            raise ValueError(
                f"num_beams={config.num_beams}: beam search is not part of this version; use num_beams=1."
            )
        ids, mask, embeds = self._read_prompt(inputs, attention_mask, inputs_embeds, config)
        length = mask.shape[1]
        new = self._new_tokens(config, length)
        if config.num_return_sequences > 1:
            ids, mask, embeds = (
                None if array is None else np.repeat(array, config.num_return_sequences, axis=0)
                for array in (ids, mask, embeds)
            )
        rows, eos = len(ids), config.eos_token_ids
        pad = config.pad_token_id if config.pad_token_id is not None else (eos or (0,))[0]
        processors = proc.build(config, vocab_size=self.config.vocab_size, max_new_tokens=new, eos_token_ids=eos)
        _, numbers = proc.split(processors)
        limits = Limits(
            eos=ops.convert_to_tensor(np.asarray(eos, "int32")),
            pad=ops.convert_to_tensor(pad, "int32"),
            seed=ops.convert_to_tensor(_seed(config.seed), "int32"),
            numbers=ops.convert_to_tensor(np.asarray(numbers, "float64")),
        )
        program, run = self._program(processors, config)
        prompt = _to_buckets(ids, mask, embeds, new)
        if streamer is not None or logits_processor:
            state = _run_in_steps(program, run, prompt, limits, new, logits_processor or (), streamer, rows)
        else:
            state = _prefill(run, prompt, limits, new)
            if new > 1:
                state = run["loop"](state, limits, ops.convert_to_tensor(new, "int32"))
        return self._result(state, ids if embeds is None else ids[:, :0], rows, config)

    def _program(
        self, processors: tuple[proc.Processor, ...], config: GenerationConfig
    ) -> tuple[Program, dict[str, Compiled]]:
        """The compiled functions for these settings, made once per model."""
        options = {
            "do_sample": config.do_sample,
            "use_cache": config.use_cache,
            "keep_scores": config.output_scores and config.return_dict_in_generate,
            "keep_logits": config.output_logits and config.return_dict_in_generate,
        }
        programs = self.__dict__.setdefault("_programs", Programs())
        key = (proc.split(processors)[0], tuple(options.values()), config.jit_compile)
        if key not in programs.made:
            program = Program(self, processors, **options)
            functions = {
                name: Compiled(getattr(program, name), config.jit_compile)
                for name in ("prefill", "loop", "forward_prompt", "forward_token")
            }
            programs.made[key] = (program, functions)
        return programs.made[key]

    def _read_prompt(
        self, inputs: Any, attention_mask: Any, inputs_embeds: Any, config: GenerationConfig
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Prompt as (ids int32, mask bool, embeddings or None), checked."""
        if inputs is not None and inputs_embeds is not None:
            raise ValueError("give the prompt as ids or as inputs_embeds, not both.")
        embeds = None
        if inputs_embeds is not None:
            embeds = ops.convert_to_numpy(inputs_embeds)
            if embeds.ndim != 3 or embeds.shape[2] != self.config.hidden_size:
                raise ValueError(
                    f"inputs_embeds has shape {embeds.shape}; (batch, length, {self.config.hidden_size}) was expected."
                )
            ids = np.full(embeds.shape[:2], -1, "int32")
        else:
            if inputs is None:
                if config.bos_token_id is None:
                    raise ValueError("generate needs a prompt: no ids were given and bos_token_id is None.")
                inputs = [[config.bos_token_id]]
            ids = np.asarray(ops.convert_to_numpy(inputs) if ops.is_tensor(inputs) else inputs)
            if ids.ndim == 2 and ids.size and ids.dtype.kind not in "iu":
                raise ValueError(f"the prompt's ids are {ids.dtype}; integers are expected.")
            if ids.ndim != 2:
                raise ValueError(f"the prompt has shape {ids.shape}; (batch, length) of token ids is expected.")
        if 0 in ids.shape:
            raise ValueError(f"the prompt is empty (shape {ids.shape}); at least one row of one token is needed.")
        vocab_size = self.config.vocab_size
        if embeds is None and (ids.min() < 0 or ids.max() >= vocab_size):
            raise ValueError(
                f"the prompt holds ids from {ids.min()} to {ids.max()}; the vocabulary has ids 0 to {vocab_size - 1}."
            )
        ids = ids.astype("int32")
        if attention_mask is None:
            mask = np.ones(ids.shape, bool)
            pad = config.pad_token_id
            if embeds is None and pad is not None and pad not in config.eos_token_ids:
                mask = ids != pad
        else:
            mask = np.asarray(ops.convert_to_numpy(attention_mask)) != 0
            if mask.shape != ids.shape:
                raise ValueError(f"attention_mask has shape {mask.shape}; the prompt's, {ids.shape}, was expected.")
        if not mask[:, -1].all():
            warnings.warn(
                "the prompt is padded on the right: rows continue after their padding. Pad on the left for generation "
                '(tokenizer.padding_side = "left").',
                stacklevel=3,
            )
        return ids, mask, embeds

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

    def _result(self, state: State, prompt: np.ndarray, rows: int, config: GenerationConfig) -> Any:
        steps, end = int(state.step), int(state.prompt_end)
        added = state.ids[:rows, end : end + steps]
        sequences = ops.concatenate([ops.convert_to_tensor(prompt), added], axis=1)
        if not config.return_dict_in_generate:
            return sequences
        return GenerateOutput(
            sequences=sequences,
            scores=None if state.scores is None else tuple(state.scores[index, :rows] for index in range(steps)),
            logits=None if state.logits is None else tuple(state.logits[index, :rows] for index in range(steps)),
        )


class Programs:
    """A model's compiled functions, where Keras's attribute tracking, copies and pickles do not look."""

    def __init__(self):
        self.made: dict[Any, tuple[Program, dict[str, Compiled]]] = {}

    def __deepcopy__(self, memo: dict) -> Programs:
        return Programs()

    def __reduce__(self):
        return Programs, ()


def _seed(seed: int | None) -> int:
    """A seed that fits int32: the one given, or a new one that follows `keras.utils.set_random_seed`."""
    return random.randrange(2**31) if seed is None else seed & 0x7FFFFFFF


def _to_buckets(ids: np.ndarray, mask: np.ndarray, embeds: np.ndarray | None, new: int) -> Prompt:
    rows, length = ids.shape
    batch, padded = bucket_batch(rows), bucket_length(length)
    capacity = bucket_length(padded + new)
    before, below = padded - length, batch - rows

    def spread(array: np.ndarray) -> np.ndarray:
        # Rows that fill the batch repeat the last one, which keeps them free of special cases.
        array = np.concatenate([array, np.repeat(array[-1:], below, axis=0)]) if below else array
        return np.pad(array, [(0, 0), (before, 0)] + [(0, 0)] * (array.ndim - 2))

    attended = np.pad(spread(mask), ((0, 0), (0, capacity - padded)), constant_values=True)
    return Prompt(
        ids=ops.convert_to_tensor(spread(ids)),
        embeds=None if embeds is None else ops.convert_to_tensor(spread(embeds)),
        attended=ops.convert_to_tensor(attended),
        start=ops.convert_to_tensor(before, "int32"),
        finished=ops.convert_to_tensor(np.arange(batch) >= rows),
    )


def _prefill(run: dict[str, Compiled], prompt: Prompt, limits: Limits, new: int) -> State:
    """Run the prompt; where that has to be compiled first, so has the loop if it is wanted, and it is meanwhile."""
    prefill, loop = run["prefill"], run["loop"]
    if new == 1 or keras.backend.backend() != "tensorflow" or not prefill.jit_compile:
        return prefill(prompt, limits)
    import tensorflow as tf

    if prefill.knows(prompt, limits) or tf.config.functions_run_eagerly() or tf.distribute.has_strategy():
        return prefill(prompt, limits)

    @functools.cache
    def empty(shape: tuple[int, ...], dtype: tf.DType) -> tf.Tensor:
        return tf.zeros(shape, dtype)  # one for all layers: a second cache might not fit

    outputs = prefill.outputs(prompt, limits)
    state = tf.nest.map_structure(lambda x: None if x is None else empty(tuple(x.shape), x.dtype), outputs)
    state = state._replace(prompt_end=tf.constant(prompt.ids.shape[1]))  # XLA compiles this number in
    no_token = (state, limits, tf.constant(0))
    loop.outputs(*no_token)  # traced here: XLA asks Python where operations come from, and would wait for the tracing

    def compile_loop() -> None:
        with contextlib.suppress(tf.errors.ResourceExhaustedError):  # compiled it is by then
            loop(*no_token)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        compiled = pool.submit(compile_loop)
        state = prefill(prompt, limits)
    compiled.result()
    return state


def _run_in_steps(
    program: Program,
    run: dict[str, Compiled],
    prompt: Prompt,
    limits: Limits,
    new: int,
    extra: Sequence[Callable],
    streamer: Any,
    rows: int,
) -> State:
    """Decode with Python between the compiled calls: for streamers, and for processors that are any Python."""

    def more() -> State:
        if extra:
            next_state, logits = run["forward_token"](state)
            return program.pick(next_state, logits, limits, extra)
        return run["loop"](state, limits, ops.convert_to_tensor(min(sent + _STREAM_CHUNK, new), "int32"))

    if extra:
        state = program.pick(*run["forward_prompt"](prompt), limits, extra)
    else:
        state = _prefill(run, prompt, limits, new)
    sent, end = 0, int(state.prompt_end)
    while True:
        done = int(state.step)
        if streamer is not None:
            streamer.put(ops.convert_to_numpy(state.ids)[:rows, end + sent : end + done])
        sent = done
        if done >= new or bool(ops.all(state.finished)):
            break
        state = more()
    if streamer is not None:
        streamer.end()
    return state
