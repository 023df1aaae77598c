"""SavedModel: what TensorFlow Serving, KServe, Vertex AI and TensorFlow's C API load.

Signatures of every model, all with free batch and length and named inputs and outputs:

- `serving_default`: int32 `input_ids` and `attention_mask` to the head's outputs, which are float32.
- `serving_int64`: the same for int64 inputs, as many clients send them.
- `serving_token_types`: with `token_type_ids`, for families in which they mean something.

Causal language models also have

- `prefill`: a prompt to the next token's scores and the cache, one tensor `past_key_values.N.key` or `.value` per
  layer, (batch, key_value_heads, length, head_dim).
- `decode`: further tokens with the cache so far to scores and the longer cache.
- `generate`: greedy continuation; `generate_sample`: a drawn one. The whole loop runs inside, compiled by XLA when it
  is first called, once for each of a few batch sizes and never for a new prompt, length or temperature. Inputs beside
  the prompt have defaults (`SignatureDef.defaults`); a server too old for those needs all of them.

With `signatures="text"` there are signatures that take strings, see `tfmodels.export.text`.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmodels.cache import kv
from tfmodels.dtypes import dtype_name
from tfmodels.export import serving_files
from tfmodels.export.artifact import (
    ExportOptions,
    Runner,
    Signature,
    Tolerance,
    causal,
    context_of,
    transformer_of,
    with_dtype,
)
from tfmodels.generation import logits_processors as proc
from tfmodels.generation.step import Decoder as StepDecoder
from tfmodels.generation.step import SamplingInputs, State
from tfmodels.generation.strategies import Sampling
from tfmodels.kernels import decoding
from tfmodels.kernels.masks import positions_from_mask
from tfmodels.models.heads import MultipleChoiceHead, SequenceClassificationHead

# dtype: of the weights and the computation. max_length: tokens of prompt and continuation together in `generate`, and
# of a text; default: the model's context, at most 2048. jit_compile: whether XLA compiles `generate` (default: yes).
# batch_sizes: rows that `generate` decodes at a time; larger requests go in several turns (default: 1 and 8).
# signatures: "text". tokenizer: for "text". version: the number of the folder.
OPTIONS = frozenset({"dtype", "signatures", "max_length", "version", "tokenizer", "jit_compile", "batch_sizes"})
DTYPES = ("float32", "float16", "bfloat16")
_LONGEST = 2048


def check(model: Any, options: ExportOptions) -> None:
    """Raise ValueError where a model or an option cannot be exported so."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"a SavedModel needs Keras on TensorFlow; it runs on {keras.backend.backend()}.")
    if options.dtype is not None and dtype_name(options.dtype) not in DTYPES:
        raise ValueError(f"dtype={options.dtype!r}; a SavedModel has {', '.join(DTYPES)}.")
    if options.signatures not in (None, "text"):
        raise ValueError(f'signatures={options.signatures!r}; "text" or nothing is expected.')
    if options.signatures == "text":
        from tfmodels.export import text

        text.check(model, options)
    elif options.tokenizer is not None:
        raise ValueError('a tokenizer is of use for signatures="text" only.')
    if not causal(model):
        for name in ("jit_compile", "batch_sizes"):
            if getattr(options, name) is not None:
                raise ValueError(f"{name}={getattr(options, name)!r} is of use for causal language models only.")
        if options.max_length is not None and options.signatures != "text":
            raise ValueError(
                f"max_length={options.max_length}: a SavedModel's length is free; it limits texts "
                f'(signatures="text") and what a causal language model generates.'
            )
    context = context_of(model)
    if options.max_length is not None and not 2 <= options.max_length <= context:
        raise ValueError(f"max_length={options.max_length}; this model's context allows 2 to {context} tokens.")
    sizes = options.batch_sizes
    if sizes is not None and not (sizes and all(type(size) is int and size > 0 for size in sizes)):
        raise ValueError(f"batch_sizes={sizes!r}; positive whole numbers are expected.")
    if isinstance(model, SequenceClassificationHead) and finds_last_token(model) and model.config.pad_token_id is None:
        raise ValueError(
            f"{type(model).__name__} finds each row's last token by config.pad_token_id, which is None: set it before "
            f"exporting."
        )


def finds_last_token(model: Any) -> bool:
    """Whether a sequence classifier looks for the last token that is not padding."""
    return type(model).classify is SequenceClassificationHead.classify


def write(model: Any, target: Path, options: ExportOptions) -> list[Signature]:
    """Write the folder of one version."""
    model = with_dtype(model, options.dtype)
    limit = options.max_length or min(context_of(model), _LONGEST)
    functions = forward_signatures(model)
    if causal(model):
        options.step("tracing prefill and decode")
        functions |= cache_signatures(model)
        options.step("tracing generate")
        functions |= generate_signatures(
            model, functions["prefill"], limit, batch_sizes_of(options), options.jit_compile is not False
        )
    module = tf.Module()
    if options.signatures == "text":
        from tfmodels.export import text

        options.step("tracing the text signatures")
        functions |= text.signatures(model, functions, options, module, limit)
    module.weights = _variables(functions.values())
    options.step("writing the SavedModel")
    # Defaults are saved of functions only, and only those are traced a second time.
    signatures = {
        name: function if defaults_of(function) else function.get_concrete_function()
        for name, function in functions.items()
    }
    with _without_warnings():
        tf.saved_model.save(module, str(target), signatures=signatures)
    found = signatures_of(target)
    serving_files.write(target, options.path.parent.name, example_requests(model, functions, options), found)
    return found


def example_requests(model: Any, functions: dict[str, Any], options: ExportOptions) -> dict[str, list[dict[str, Any]]]:
    """Inputs by signature, for warming up and for showing: every signature but the two of the cache."""
    ids = np.arange(5, 9, dtype="int32") % transformer_of(model).config.vocab_size
    shape = (1, 2, 4) if isinstance(model, MultipleChoiceHead) else (1, 4)
    tokens = {"input_ids": np.broadcast_to(ids, shape), "attention_mask": np.ones(shape, "int32")}
    requests = {}
    if "generate" in functions:
        for name in ("generate", "generate_sample"):
            settings = {**defaults_of(functions[name]), "max_new_tokens": np.int32(2)}
            requests[name] = [
                {**{key: np.repeat(value, rows, axis=0) for key, value in tokens.items()}, **settings}
                for rows in batch_sizes_of(options)
            ]
    if options.signatures == "text":
        from tfmodels.export import text

        requests |= text.example_requests(functions)
    requests["serving_default"] = [tokens]
    requests["serving_int64"] = [{key: value.astype("int64") for key, value in tokens.items()}]
    if "serving_token_types" in functions:
        requests["serving_token_types"] = [{**tokens, "token_type_ids": np.zeros_like(tokens["input_ids"])}]
    return requests


def batch_sizes_of(options: ExportOptions) -> list[int]:
    """Rows that `generate` decodes at a time, ascending."""
    return sorted(set(options.batch_sizes or (1, 8)))


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep TensorFlow from telling, per cache tensor, that dots in its name become underscores in Python."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _variables(functions: Any) -> list[tf.Variable]:
    """The variables that any of the functions reads, each once."""
    found: dict[int, tf.Variable] = {}
    for function in functions:
        for variable in function.get_concrete_function().graph.variables:
            found.setdefault(id(variable), variable)
    return list(found.values())


# The forward pass ----------------------------------------------------------------------------------------------------


def forward(model: Any, **inputs: Any) -> dict[str, Any]:
    """One call for inference: the outputs by name, in float32, without caches and states."""
    off = ("use_cache", "output_attentions", "output_hidden_states")
    flags = {name: False for name in off if name in model.input_names}
    if "return_dict" in model.input_names:
        flags["return_dict"] = True
    return {name: tf.cast(value, tf.float32) for name, value in model(**inputs, **flags, training=False).items()}


def input_specs(model: Any, dtype: tf.DType, *names: str) -> dict[str, tf.TensorSpec]:
    """Specifications of int inputs (batch, length), or (batch, choices, length) for multiple choice, all free."""
    rank = 3 if isinstance(model, MultipleChoiceHead) else 2
    return {name: tf.TensorSpec([None] * rank, dtype, name=name) for name in names}


def forward_signatures(model: Any) -> dict[str, Any]:
    """`serving_default` and its variants."""
    names = ("input_ids", "attention_mask")
    default = graph_function(lambda **inputs: forward(model, **inputs), input_specs(model, tf.int32, *names))

    def from_int64(**inputs: Any) -> dict[str, Any]:
        return default(**{name: tf.cast(value, tf.int32) for name, value in inputs.items()})

    functions = {
        "serving_default": default,
        "serving_int64": graph_function(from_int64, input_specs(model, tf.int64, *names)),
    }
    if "token_type_ids" in model.input_names and "token_type_ids" not in model.unused_inputs:
        specs = input_specs(model, tf.int32, *names, "token_type_ids")
        functions["serving_token_types"] = graph_function(lambda **inputs: forward(model, **inputs), specs)
    return functions


def graph_function(
    function: Callable[..., dict[str, Any]], specs: dict[str, tf.TensorSpec], defaults: dict[str, Any] | None = None
) -> Any:
    """A `tf.function` of fixed specifications.

    Args:
        function: called with arguments by the names of `specs`; returns tensors by name.
        specs: of the arguments.
        defaults: values of the last arguments, which then need not be given, by name.
    """
    constants = {name: tf.constant(value, specs[name].dtype) for name, value in (defaults or {}).items()}
    if constants:
        # Saving traces a function with defaults a second time; this way it finds all of it made.
        function = graph_function(function, specs).get_concrete_function()

    def call(*arguments: Any) -> dict[str, Any]:
        return function(**dict(zip(specs, arguments, strict=True)))

    # Parameters are Python names; signatures take the names of the specs, which may hold dots.
    call.__signature__ = inspect.Signature(
        inspect.Parameter(
            name.replace(".", "_"),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=constants.get(name, inspect.Parameter.empty),
        )
        for name in specs
    )
    return tf.function(call, input_signature=list(specs.values()), autograph=False)


def defaults_of(function: Any) -> dict[str, np.ndarray]:
    """The defaults of a `graph_function`, by name."""
    parameters = inspect.signature(function.python_function).parameters.values()
    return {p.name: p.default.numpy() for p in parameters if p.default is not p.empty}


# Prefill and decode --------------------------------------------------------------------------------------------------


def cache_name(layer: int, part: int) -> str:
    """What a cache tensor is called: part 0 is the key, 1 the value.

    Example:
        >>> cache_name(2, 1)
        'past_key_values.2.value'
    """
    return f"past_key_values.{layer}.{('key', 'value')[part]}"


def run_with_cache(model: Any, ids: Any, mask: Any, past: Any = None) -> tuple[Any, Any]:
    """Run tokens after those of a growing cache, positions counted over the mask.

    Args:
        ids: int (batch, new).
        mask: (batch, past + new), nonzero for tokens.
        past: (key, value) pairs, or None.

    Returns:
        Scores of the next token, float32 (batch, vocab_size), and the longer cache.
    """
    positions = positions_from_mask(mask)
    if past is not None:
        positions = positions[:, -tf.shape(ids)[1] :]
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=past,
        use_cache=True,
        output_attentions=False,
        output_hidden_states=False,
        logits_to_keep=1,
        return_dict=True,
        training=False,
    )
    return tf.cast(output.logits[:, -1], tf.float32), output.past_key_values


def cache_signatures(model: Any) -> dict[str, Any]:
    """`prefill` and `decode`."""

    def outputs(logits: Any, cache: Any) -> dict[str, Any]:
        return {"logits": logits} | {
            cache_name(layer, part): tensor for layer, pair in enumerate(cache) for part, tensor in enumerate(pair)
        }

    def prefill(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        return outputs(*run_with_cache(model, input_ids, attention_mask))

    layers = len(model.backbone.layers)

    def decode(input_ids: Any, attention_mask: Any, **cache: Any) -> dict[str, Any]:
        past = tuple(tuple(cache[cache_name(layer, part)] for part in (0, 1)) for layer in range(layers))
        return outputs(*run_with_cache(model, input_ids, attention_mask, past))

    specs = input_specs(model, tf.int32, "input_ids", "attention_mask")
    functions = {"prefill": graph_function(prefill, specs)}
    made = functions["prefill"].get_concrete_function().structured_outputs
    caches = {}
    for name in (cache_name(layer, part) for layer in range(layers) for part in (0, 1)):
        _, heads, _, head_dim = made[name].shape
        caches[name] = tf.TensorSpec((None, heads, None, head_dim), made[name].dtype, name=name)
    functions["decode"] = graph_function(decode, {**specs, **caches})
    return functions


# Generation ----------------------------------------------------------------------------------------------------------


def generate_signatures(
    model: Any, prefill: Any, capacity: int, batch_sizes: list[int], jit_compile: bool
) -> dict[str, Any]:
    """`generate` and `generate_sample`.

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
        kept = tf.where(top_k > 0, top_k, model.config.vocab_size)
        numbers = tf.stack([tf.cast(number, tf.float64) for number in (temperature, kept, top_p)])
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
        self.decoder = StepDecoder(model, sampling, processors)
        self.jit_compile = jit_compile
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
        attended = tf.pad(mask != 0, room, constant_values=True)
        state = State(
            ids=tf.ensure_shape(tf.pad(ids, room), (rows, self.capacity)),
            attended=tf.ensure_shape(attended, (rows, self.capacity)),
            start=tf.constant(0),
            prompt_end=length,
            position=tf.reduce_sum(tf.cast(mask != 0, tf.int32), axis=1),
            cache=kv.merge_rows(self._static_cache(rows, output, length)),
            embeds=None,
            finished=filler,
            step=tf.constant(0),
        )
        logits = tf.ensure_shape(output["logits"], (rows, self.model.config.vocab_size))
        ids, steps = self._decode(state, logits, inputs, new)
        # From the prompt's end on, with room for what the prompt took.
        return tf.ensure_shape(tf.pad(ids[:, length:], [[0, 0], [0, length]]), (rows, self.capacity)), steps

    def _static_cache(self, rows: int, output: dict[str, Any], length: Any) -> kv.StaticCache:
        """The prompt's cache with room for all positions; the prompt's length is known at run time only."""

        def fit(tensor: Any, room: int) -> Any:
            if room < self.capacity:
                # Slots that nothing was written to take any position: no query sees them.
                tensor = tf.gather(tensor, tf.maximum(kv.slot_positions(room, length), 0), axis=2)
            else:
                tensor = tf.pad(tensor, [[0, 0], [0, 0], [0, room - length], [0, 0]])
            return tf.ensure_shape(tensor, (rows, tensor.shape[1], room, tensor.shape[3]))

        backbone = self.model.backbone
        windows = backbone.cache_windows or [None] * len(backbone.layers)
        layers = tuple(
            tuple(fit(output[cache_name(layer, part)], min(self.capacity, window or self.capacity)) for part in (0, 1))
            for layer, window in enumerate(windows)
        )
        return kv.StaticCache(layers, length)

    def _all_tokens(self, state: State, logits: Any, inputs: SamplingInputs, until: Any) -> tuple[Any, Any]:
        """Choose the first token, then decode on; compiled for its shapes, whatever the numbers."""
        with decoding.compiling(portable=True) if self.jit_compile else contextlib.nullcontext():
            state = self.decoder.loop(self.decoder.choose(state, logits, inputs), inputs, until)
        return state.ids, state.step


# Running -------------------------------------------------------------------------------------------------------------


def signatures_of(path: str | os.PathLike) -> list[Signature]:
    """The signatures of a SavedModel folder, from its file alone."""

    def tensors(infos: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        return {
            name: (
                tf.as_dtype(info.dtype).name,
                tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
            )
            for name, info in sorted(infos.items(), key=lambda item: _order(item[0]))
        }

    signatures = _signature_defs(path)
    names = sorted(
        (name for name in signatures if not name.startswith("__")), key=lambda n: (n != "serving_default", n)
    )
    return [Signature(name, tensors(signatures[name].inputs), tensors(signatures[name].outputs)) for name in names]


def _signature_defs(path: str | os.PathLike) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    found = saved_model_pb2.SavedModel()
    found.ParseFromString((Path(path) / "saved_model.pb").read_bytes())
    return found.meta_graphs[0].signature_def


def _order(name: str) -> tuple[Any, ...]:
    """Sorts tensors: the prompt first, caches last and by number."""
    first = ("input_ids", "attention_mask", "logits")
    parts = tuple(int(part) if part.isdigit() else 0 for part in name.split("."))
    return (name.startswith("past_key_values"), first.index(name) if name in first else len(first), parts, name)


# Half types promise what their precision allows.
_HALF_TOLERANCE = {"float16": Tolerance(1e-3, 2e-2), "bfloat16": Tolerance(1e-2, 1e-1)}


class SavedModelRunner(Runner):
    """A SavedModel, loaded by TensorFlow alone."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.module = tf.saved_model.load(str(folder))
        self.signatures = self.module.signatures
        # Sessions and servers fill these in, functions that were loaded in Python do not.
        self.defaults = {
            name: {key: tf.make_ndarray(value) for key, value in definition.defaults.items()}
            for name, definition in _signature_defs(folder).items()
        }
        self.generates = "generate" in self.signatures
        stored = {variable.dtype.name for variable in self.module.weights}
        half = stored & set(_HALF_TOLERANCE)
        self.exact_ids = not half
        if half:
            self.tolerance = _HALF_TOLERANCE[half.pop()]

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        name = signature or "serving_default"
        function = self.signatures[name]
        specs = function.structured_input_signature[1]
        # In Python, arguments have underscores where the signature's names have dots.
        given = {key.replace(".", "_"): value for key, value in {**self.defaults[name], **inputs}.items()}
        output = function(**{key: tf.constant(value, specs[key].dtype) for key, value in given.items()})
        return {key: value.numpy() for key, value in output.items()}

    def generate(self, ids: np.ndarray, max_new_tokens: int) -> np.ndarray:
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "max_new_tokens": max_new_tokens}
        return self.run(inputs, "generate")["sequences"]


def open(path: str | os.PathLike) -> SavedModelRunner:
    """Open an exported SavedModel.

    Args:
        path: the folder of a version, or the one above, of which the highest version is taken.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = Path(path)
    if not (folder / "saved_model.pb").is_file():
        versions = [child for child in folder.glob("*/saved_model.pb") if child.parent.name.isdecimal()]
        if not versions:
            raise FileNotFoundError(f"{folder} holds no saved_model.pb, nor does a version in it.")
        folder = max(versions, key=lambda file: int(file.parent.name)).parent
    return SavedModelRunner(folder)
