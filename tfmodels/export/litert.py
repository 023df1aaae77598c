"""LiteRT (TFLite): one `.tflite` file for phones, browsers and small boards, of builtin operators only.

Shapes are fixed, which is what LiteRT's fast kernels want, so there is a signature for each bucket of lengths; they
share the weights. A causal language model has `prefill_N`, which puts N tokens into the cache, and `decode`, which
runs one and gives its logits; the cache goes in and comes out. These are the names and shapes that LiteRT-LM expects:

    tokens int32 (1, N), input_pos int32 (N,), kv_cache_k_i, kv_cache_v_i float32 (1, kv_heads, max_length, head_dim)

Any other model has `forward_N`: input_ids and attention_mask int32 (1, N) - (1, 1, N) for multiple choice, one choice
at a time - to the model's outputs. An id of -1 is padding.

The file ends in a small zip archive, as files with TFLite metadata do (`unzip model.tflite`), with `tfmodels.json`:
what a runner has to know beside the graph. Running needs NumPy and ai-edge-litert, not TensorFlow.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.export.artifact import (
    ExportOptions,
    Runner,
    Signature,
    Tolerance,
    causal,
    context_of,
    require,
    transformer_of,
    with_dtype,
)

# dtype: of the stored weights. quantize: "int8" or "int4" weights, activations quantised on the fly. max_length: most
# tokens; default: the model's context, at most 2048.
OPTIONS = frozenset({"dtype", "quantize", "max_length"})
DTYPES = ("float32", "float16")
QUANTIZED = ("int8", "int4")
_LONGEST = 2048
# Lengths that get a signature of their own.
_BUCKETS = (16, 64, 256, 1024)
_PROPERTIES = "tfmodels.json"
_TOLERANCES = {
    "float32": Tolerance(1e-4),
    "float16": Tolerance(1e-3, 2e-2),
    "int8": Tolerance(1e-2, 0.25),
    "int4": Tolerance(1e-1, 1.0),
}
# Outputs with one number per token.
_PER_TOKEN = ("start_logits", "end_logits")


# What is asked for ---------------------------------------------------------------------------------------------------


def check(model: Any, options: ExportOptions) -> None:
    """Raise where the export cannot work, before anything expensive happens.

    Raises:
        ImportError: a package of the `export` extra is missing.
        ValueError: an option has an unknown value or does not fit the model.
    """
    from tfmodels.export.saved_model import finds_last_token
    from tfmodels.models.heads import SequenceClassificationHead

    require("ai_edge_litert", "export", "format='litert'")
    if options.dtype not in (None, *DTYPES):
        raise ValueError(f"dtype={options.dtype!r}; a LiteRT file stores {' or '.join(DTYPES)}.")
    if options.quantize not in (None, *QUANTIZED):
        raise ValueError(f"quantize={options.quantize!r}; {' or '.join(QUANTIZED)} is expected.")
    if options.quantize is not None:
        require("ai_edge_quantizer", "export", f"quantize={options.quantize!r}")
        if options.dtype is not None:
            raise ValueError(
                f"dtype={options.dtype!r} and quantize={options.quantize!r} both say how weights are stored; give one."
            )
    context = context_of(model)
    if options.max_length is not None and not 2 <= options.max_length <= context:
        raise ValueError(f"max_length={options.max_length}; this model's context allows 2 to {context} tokens.")
    if isinstance(model, SequenceClassificationHead) and finds_last_token(model) and model.config.pad_token_id is None:
        raise ValueError(
            f"{type(model).__name__} finds each row's last token by config.pad_token_id, which is None: set it before "
            f"exporting."
        )


# Signatures ----------------------------------------------------------------------------------------------------------


def buckets(max_length: int) -> tuple[int, ...]:
    """Lengths of prompts' parts that get a signature, ascending.

    Example:
        >>> buckets(300), buckets(8)
        ((16, 64, 256), (8,))
    """
    return tuple(size for size in _BUCKETS if size <= max_length) or (max_length,)


def cache_names(layers: int) -> list[tuple[str, str]]:
    """What the tensors of each layer's cache are called, keys and values.

    Example:
        >>> cache_names(1)
        [('kv_cache_k_0', 'kv_cache_v_0')]
    """
    return [(f"kv_cache_k_{layer}", f"kv_cache_v_{layer}") for layer in range(layers)]


def causal_functions(model: Any, max_length: int) -> dict[str, Any]:
    """The traced `prefill_N` and `decode` of a causal language model, by name, with a cache of `max_length`."""
    import tensorflow as tf

    from tfmodels.cache.kv import StaticCache

    # One token through the model shows the cache's shapes, whatever the family.
    shown = model(input_ids=np.zeros((1, 1), "int32"), use_cache=True, return_dict=True).past_key_values
    names = cache_names(len(shown))
    cache = {
        name: tf.TensorSpec((1, tensor.shape[1], max_length, tensor.shape[3]), tf.float32, name)
        for pair, tensors in zip(names, shown, strict=True)
        for name, tensor in zip(pair, tensors, strict=True)
    }

    def run(tokens: Any, input_pos: Any, layers: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        output = model(
            input_ids=tokens,
            position_ids=tf.expand_dims(input_pos, 0),
            past_key_values=StaticCache(layers, input_pos[0]),
            use_cache=True,
            output_attentions=False,
            output_hidden_states=False,
            logits_to_keep=1,
            return_dict=True,
            training=False,
        )
        written = {
            name: tensor[:, :, :max_length]
            for pair, tensors in zip(names, output.past_key_values.layers, strict=True)
            for name, tensor in zip(pair, tensors, strict=True)
        }
        return output.logits, written

    def prefill(tokens: Any, input_pos: Any, **cache: Any) -> dict[str, Any]:
        # Padding behind a prompt may reach beyond the cache's end, where a write would be moved to the left: it gets
        # room that is cut off again.
        spare = ((0, 0), (0, 0), (0, tokens.shape[1]), (0, 0))
        return run(tokens, input_pos, tuple((tf.pad(cache[k], spare), tf.pad(cache[v], spare)) for k, v in names))[1]

    def decode(tokens: Any, input_pos: Any, **cache: Any) -> dict[str, Any]:
        logits, written = run(tokens, input_pos, tuple((cache[k], cache[v]) for k, v in names))
        return {"logits": logits, **written}

    def traced(function: Callable, length: int) -> Any:
        tokens = tf.TensorSpec((1, length), tf.int32, "tokens")
        positions = tf.TensorSpec((length,), tf.int32, "input_pos")
        graph = tf.function(function, autograph=False)
        return graph.get_concrete_function(tokens=tokens, input_pos=positions, **cache)

    return {f"prefill_{size}": traced(prefill, size) for size in buckets(max_length)} | {"decode": traced(decode, 1)}


def forward_functions(model: Any, max_length: int) -> dict[str, Any]:
    """The traced `forward_N` of a model that does not generate, by name."""
    import tensorflow as tf

    from tfmodels.export.saved_model import forward
    from tfmodels.models.heads import MultipleChoiceHead

    axes = (1, 1) if isinstance(model, MultipleChoiceHead) else (1,)
    pad = transformer_of(model).config.pad_token_id

    def run(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        ids = tf.where(input_ids < 0, 0 if pad is None else pad, input_ids)
        return forward(model, input_ids=ids, attention_mask=attention_mask)

    def traced(length: int) -> Any:
        names = ("input_ids", "attention_mask")
        specs = {name: tf.TensorSpec((*axes, length), tf.int32, name) for name in names}
        return tf.function(run, autograph=False).get_concrete_function(**specs)

    return {f"forward_{size}": traced(size) for size in sorted({*buckets(max_length), max_length})}


@contextlib.contextmanager
def _as_litert_likes(model: Any) -> Iterator[None]:
    """Inside, the model is traced with two operations in a form that keeps the file small.

    Embeddings become EMBEDDING_LOOKUP, which reads a quantised table where GATHER could not. And the last norm's
    factors stay out of a head that is tied to the embeddings: the converter would multiply them into a second table.
    """
    import keras
    import tensorflow as tf

    def lookup_in(layer: keras.layers.Embedding) -> Callable:
        def call(inputs: Any) -> Any:
            # A function of its own each time: TensorFlow warns of one that is traced again and again.
            lookup = tf.function(lambda table, ids: tf.gather(table, ids), experimental_implements="embedding_matmul")
            ids = tf.reshape(tf.cast(inputs, tf.int32), [-1])
            return tf.reshape(lookup(tf.convert_to_tensor(layer.embeddings), ids), [*inputs.shape, layer.output_dim])

        return call

    changed: list[tuple[Any, str]] = []
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Embedding):
            layer.call = lookup_in(layer)
            changed.append((layer, "call"))
    if causal(model) and model.config.tie_word_embeddings:
        to_logits = model.to_logits
        model.to_logits = lambda hidden: to_logits(tf.maximum(hidden, tf.float32.min))  # a step that changes nothing
        changed.append((model, "to_logits"))
    try:
        yield
    finally:
        for owner, name in changed:
            delattr(owner, name)


# Writing -------------------------------------------------------------------------------------------------------------


def write(model: Any, target: Path, options: ExportOptions) -> list[Signature]:
    """Write the file."""
    model = with_dtype(model, "float32")
    max_length = options.max_length or min(context_of(model), _LONGEST)
    options.step("tracing the signatures")
    with _as_litert_likes(model):
        functions = (causal_functions if causal(model) else forward_functions)(model, max_length)
    options.step("converting to LiteRT")
    content = convert(functions, target.parent, dtype=options.dtype or "float32")
    if options.quantize is not None:
        options.step(f"quantising to {options.quantize}")
        content = quantize(content, options.quantize)
    target.write_bytes(content)
    properties = {
        "causal": causal(model),
        "max_length": max_length,
        "weights": options.quantize or options.dtype or "float32",
        "eos_token_ids": list(model.generation_config.eos_token_ids) if causal(model) else [],
    }
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(_PROPERTIES, json.dumps(properties))
    return signatures_of(target)


def convert(functions: dict[str, Any], workspace: Path, *, dtype: str = "float32") -> bytes:
    """Traced functions as a LiteRT flatbuffer.

    Args:
        functions: concrete functions by the names of their signatures.
        workspace: folder with room for all weights for a while.
        dtype: how weights are stored; "float16" becomes float32 when the file is opened.

    Raises:
        ValueError: an operator has no builtin counterpart; the message names it.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable for function in functions.values() for variable in function.graph.variables]
    with tempfile.TemporaryDirectory(dir=workspace) as folder:
        tf.saved_model.save(module, folder, signatures=functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if dtype == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        try:
            return converter.convert()
        except Exception as error:  # the converter's own class has no public name
            missing = sorted(set(re.findall(r"\btf\.([A-Z]\w+)", str(error))))
            if not missing:
                raise
            raise ValueError(
                f"the model needs {', '.join(missing)}, which LiteRT does not have as a builtin operator; files that "
                f"need TensorFlow's own operators (Flex) are not written."
            ) from error


def quantize(content: bytes, kind: str) -> bytes:
    """A LiteRT flatbuffer with quantised weights; activations are quantised on the fly, to 8 bits.

    Args:
        content: with float32 weights.
        kind: "int8", a scale for each row of a matrix; or "int4", a scale for 32 neighbours in a row, or for a row
            whose length is no multiple of that.
    """

    def part(name: str) -> Any:
        return require(f"ai_edge_quantizer.{name}", "export", f"quantize={kind!r}")

    operators, sizes = part("qtyping").TFLOperationName, part("qtyping").QuantGranularity
    recipe = part("recipe_manager").RecipeManager()
    for operator in (operators.FULLY_CONNECTED, operators.EMBEDDING_LOOKUP):
        if kind == "int8":
            recipe.add_dynamic_config(".*", operator, num_bits=8)
            continue
        recipe.add_dynamic_config(".*", operator, num_bits=4, granularity=sizes.BLOCKWISE_32)
        for name in _outputs_of_uneven(content, operator.value, 32):
            recipe.add_dynamic_config(re.escape(name), operator, num_bits=4)
    # It prints progress to both streams.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work = part("quantizer").Quantizer(bytearray(content))
        work.load_quantization_recipe(recipe.get_quantization_recipe())
        return bytes(work.quantize().quantized_model)


def _outputs_of_uneven(content: bytes, operator: str, block: int) -> set[str]:
    """Names of what an operator gives wherever its matrix has rows whose length is no multiple of `block`."""
    schema = require("ai_edge_litert.schema_py_generated", "export", "quantize='int4'")
    model = schema.Model.GetRootAs(content, 0)
    code = getattr(schema.BuiltinOperator, operator)
    found = set()
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for operation in (graph.Operators(index) for index in range(graph.OperatorsLength())):
            if model.OperatorCodes(operation.OpcodeIndex()).BuiltinCode() != code:
                continue
            if graph.Tensors(operation.Inputs(1)).ShapeAsNumpy()[-1] % block:
                found.add(graph.Tensors(operation.Outputs(0)).Name().decode())
    return found


# Running -------------------------------------------------------------------------------------------------------------


def signatures_of(path: str | os.PathLike) -> list[Signature]:
    """The signatures of a file."""
    interpreter = _interpreter(path, 1)

    def tensors(details: dict[str, Any]) -> dict[str, Any]:
        names = sorted(details, key=lambda name: (name.startswith("kv_cache_"), _number(name), name))
        return {
            name: (np.dtype(details[name]["dtype"]).name, tuple(map(int, details[name]["shape"]))) for name in names
        }

    runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}
    return [
        Signature(name, tensors(runner.get_input_details()), tensors(runner.get_output_details()))
        for name, runner in sorted(runners.items(), key=lambda item: _number(item[0]))
    ]


def _number(name: str) -> int:
    """What a name ends in: a signature's length, a tensor's layer; 0 for other names.

    Example:
        >>> _number("prefill_64"), _number("decode")
        (64, 0)
    """
    last = name.rpartition("_")[2]
    return int(last) if last.isdigit() else 0


def _interpreter(path: str | os.PathLike, threads: int) -> Any:
    return require("ai_edge_litert.interpreter", "export", "running a .tflite file").Interpreter(
        model_path=os.fspath(path), num_threads=threads
    )


def properties_of(path: str | os.PathLike) -> dict[str, Any]:
    """What a file says about itself: `causal`, `max_length`, `weights` (how they are stored), `eos_token_ids`.

    Raises:
        ValueError: it is not a file that this module wrote.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(_PROPERTIES))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} was not written by tfmodels: it holds no {_PROPERTIES}.") from error


class LiteRTRunner(Runner):
    """What both kinds of files have in common when they run.

    Args:
        path: a file that this module wrote.
        num_threads: of the interpreter; default: one per processor, at most 4.

    Raises:
        ValueError: it is another kind of file.
    """

    def __init__(self, path: str | os.PathLike, num_threads: int | None = None):
        properties = properties_of(path)
        self.max_length = properties["max_length"]
        self.eos_token_ids = tuple(properties["eos_token_ids"])
        self.tolerance = _TOLERANCES[properties["weights"]]
        self.exact_ids = properties["weights"] == "float32"
        self.interpreter = _interpreter(path, num_threads or min(4, os.cpu_count() or 1))
        self.sizes = sorted(_number(name) for name in self.interpreter.get_signature_list() if name != "decode")

    def check_length(self, tokens: int, what: str) -> None:
        """Raise ValueError for no tokens, or more than the file has room for."""
        if not 0 < tokens <= self.max_length:
            raise ValueError(f"{what} is {tokens} tokens long; this file takes 1 to {self.max_length}.")


class Forward(LiteRTRunner):
    """A file with `forward_N`, run row by row, each in the smallest signature that it fits."""

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        ids = np.asarray(inputs["input_ids"], "int32")
        mask = np.asarray(inputs.get("attention_mask", np.ones_like(ids)), "int32")
        length = ids.shape[-1]
        self.check_length(length, "the input")
        size = _number(signature) if signature else next(size for size in self.sizes if size >= length)
        runner = self.interpreter.get_signature_runner(f"forward_{size}")
        axes = tuple(runner.get_input_details()["input_ids"]["shape"])
        room = (0, size - length)
        found: dict[str, list[np.ndarray]] = {}
        for row, kept in zip(ids.reshape(-1, length), mask.reshape(-1, length), strict=True):
            outputs = runner(
                input_ids=np.pad(row, room, constant_values=-1).reshape(axes),
                attention_mask=np.pad(kept, room).reshape(axes),
            )
            for name, values in outputs.items():
                per_token = values.ndim == 3 or name in _PER_TOKEN
                found.setdefault(name, []).append(values[0, :length] if per_token else values[0])
        # Choices were rows of their own, each with one score.
        return {
            name: np.stack(rows).reshape(*ids.shape[:-1], *(rows[0].shape if ids.ndim == 2 else ()))
            for name, rows in found.items()
        }


class Generator(LiteRTRunner):
    """Decodes with a causal language model's file, by NumPy and ai-edge-litert alone.

    Example:
        >>> import tempfile
        >>> from tfmodels import TFLlamaForCausalLM
        >>> from tfmodels.export import export
        >>> path = tempfile.mkdtemp() + "/stories.tflite"
        >>> _ = export(TFLlamaForCausalLM.from_pretrained("stories260K"), path, "litert", max_length=64)
        >>> Generator(path).generate([[1, 403, 407, 261]], max_new_tokens=4).tolist()
        [[1, 403, 407, 261, 378, 432, 383, 286]]
    """

    generates = True
    padding = False

    def __init__(self, path: str | os.PathLike, num_threads: int | None = None):
        super().__init__(path, num_threads)
        # `decode` is the file's first graph, which runs without a signature's runner: that would copy the whole cache
        # twice at every token, and forbids looking at the interpreter's own memory as long as it lives.
        decode = self.interpreter.get_signature_runner("decode")
        inputs, outputs = decode.get_input_details(), decode.get_output_details()
        del decode
        self.interpreter.allocate_tensors()
        self._inputs = {name: self.interpreter.tensor(found["index"]) for name, found in inputs.items()}
        self._outputs = {name: self.interpreter.tensor(found["index"]) for name, found in outputs.items()}
        self._caches = [name for name in inputs if name.startswith("kv_cache_")]

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        """The logits of every position, decoded one by one. Rows must not be padded: `decode` takes no mask."""
        if signature not in (None, "decode"):
            raise ValueError(f"signature={signature!r}; a causal model's logits come from 'decode'.")
        ids = np.asarray(inputs["input_ids"], "int32")
        if not np.all(inputs.get("attention_mask", 1)):
            raise ValueError("attention_mask has zeros; a causal model's .tflite file takes rows without padding.")
        self.check_length(ids.shape[1], "the input")
        rows = []
        for row in ids:
            self._prefill(row[:0])
            rows.append([self._decode(token, position) for position, token in enumerate(row)])
        return {"logits": np.asarray(rows)}

    def generate(
        self, ids: np.ndarray, max_new_tokens: int, *, temperature: float = 0.0, seed: int | None = None
    ) -> np.ndarray:
        """Continue one prompt.

        Args:
            ids: int (1, length), at least one token.
            max_new_tokens: tokens to add; prompt and continuation have to fit `max_length`.
            temperature: 0 takes the likeliest token; above, tokens are drawn, the more evenly the higher it is.
            seed: makes draws repeat themselves.

        Returns:
            int (1, length + new): fewer than `max_new_tokens` where an end-of-sequence token came, which is the last.

        Raises:
            ValueError: a shape, length or temperature that cannot be.
        """
        ids = np.asarray(ids, "int32")
        if ids.ndim != 2 or len(ids) != 1:
            raise ValueError(f"ids has shape {ids.shape}; (1, length) is expected.")
        if temperature < 0:
            raise ValueError(f"temperature={temperature}; 0 or more is expected.")
        self.check_length(ids.shape[1], "the prompt")
        self.check_length(ids.shape[1] + max_new_tokens, "the prompt with max_new_tokens")
        random = np.random.default_rng(seed)
        tokens = ids[0].tolist()
        # The last token is left to `decode`, which alone gives logits.
        self._prefill(ids[0, :-1])
        for position in range(len(tokens) - 1, len(tokens) - 1 + max_new_tokens):
            scores = self._decode(tokens[-1], position)
            if temperature > 0:
                scores = scores / temperature + random.gumbel(size=scores.shape)
            tokens.append(int(scores.argmax()))
            if tokens[-1] in self.eos_token_ids:
                break
        return np.asarray([tokens])

    def _prefill(self, ids: np.ndarray) -> None:
        """Put a prompt, int32 (length,), and nothing else into the cache."""
        cache = {name: np.zeros_like(self._inputs[name]()) for name in self._caches}
        start = 0
        while start < len(ids):
            left = len(ids) - start
            size = max((size for size in self.sizes if size <= left), default=self.sizes[0])
            part = ids[start : start + size]
            room = (0, size - len(part))
            # Padding repeats the last position; what it writes is hidden from the prompt and overwritten later.
            positions = np.pad(np.arange(start, start + len(part), dtype="int32"), room, mode="edge")
            prefill = self.interpreter.get_signature_runner(f"prefill_{size}")
            cache = prefill(tokens=np.pad(part, room)[None], input_pos=positions, **cache)
            del prefill
            start += len(part)
        for name, values in cache.items():
            self._inputs[name]()[...] = values

    def _decode(self, token: int, position: int) -> np.ndarray:
        """Scores (vocab_size,) of the token after the one at `position`, which joins the cache."""
        self._inputs["tokens"]()[...] = token
        self._inputs["input_pos"]()[...] = position
        self.interpreter.invoke()
        for name in self._caches:
            self._inputs[name]()[...] = self._outputs[name]()
        return self._outputs["logits"]()[0, 0].copy()


def open(path: str | os.PathLike) -> LiteRTRunner:
    """Open a file that this module wrote: a `Generator` for a causal language model, else a `Forward`."""
    return Generator(path) if properties_of(path)["causal"] else Forward(path)
