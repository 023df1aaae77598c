"""Open and run LiteRT files with NumPy and ai-edge-litert, without TensorFlow."""

from __future__ import annotations

import json
import os
import zipfile
from typing import Any

import numpy as np

from tfmodels.export.artifact import Runner, Signature, Tolerance, token_types
from tfmodels.export.extras import require
from tfmodels.utils.cores import available_cores
from tfmodels.utils.text import quote

# The file in the zip archive at a file's end.
PROPERTIES = "tfmodels.json"
_TOLERANCES = {
    "float32": Tolerance(1e-4),
    "float16": Tolerance(1e-3, 2e-2),
    "int8": Tolerance(1e-2, 0.25),
    "int4": Tolerance(1e-1, 1.0),
}
# Outputs with one number per token.
_PER_TOKEN = ("start_logits", "end_logits")


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
    """Read the number at a name's end, a signature's length or a tensor's layer; 0 for other names.

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
    """Read what a file says about itself: `causal`, `max_length`, `weights` (how they are stored), `eos_token_ids`.

    Raises:
        ValueError: it is not a file that this module wrote.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(PROPERTIES))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} was not written by tfmodels: it holds no {PROPERTIES}.") from error


class LiteRTRunner(Runner):
    """A file that is open to run, of either kind.

    Args:
        path: a file that this module wrote.
        num_threads: of the interpreter; default: one per core that this process may use, at most 4.

    Raises:
        ValueError: it is another kind of file.
    """

    def __init__(self, path: str | os.PathLike, num_threads: int | None = None):
        properties = properties_of(path)
        self.max_length = self.capacity = properties["max_length"]
        self.weights = properties["weights"]
        self.eos_token_ids = tuple(properties["eos_token_ids"])
        self.tolerance = _TOLERANCES[properties["weights"]]
        self.exact_ids = properties["weights"] == "float32"
        self.interpreter = _interpreter(path, num_threads or min(4, available_cores()))
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
        details = runner.get_input_details()
        axes = tuple(details["input_ids"]["shape"])
        room = (0, size - length)
        others = {"attention_mask": mask, **token_types(inputs, ids.shape, "token_type_ids" in details)}
        found: dict[str, list[np.ndarray]] = {}
        for index, row in enumerate(ids.reshape(-1, length)):
            outputs = runner(
                input_ids=np.pad(row, room, constant_values=-1).reshape(axes),
                **{
                    name: np.pad(values.reshape(-1, length)[index], room).reshape(axes).astype("int32")
                    for name, values in others.items()
                },
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
            raise ValueError(f"signature={quote(signature)}; a causal model's logits come from 'decode'.")
        ids = np.asarray(inputs["input_ids"], "int32")
        token_types(inputs, ids.shape, False)
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
