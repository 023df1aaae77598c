#!/usr/bin/env python
"""Measure tfmodels, and transformers with PyTorch beside it on the same weights in the same run.

    python tools/benchmark.py generate --model stories260K --peer torch
    python tools/benchmark.py forward --shape 12,768,12 --peer torch --json forward.json
    python tools/benchmark.py load --peer torch
    python tools/benchmark.py train --peer torch
    python tools/benchmark.py export --model stories260K
    python tools/benchmark.py gpu decode --peer static-compile      # everything of tools/benchmark_gpu.py

The sides take turns round by round, so that whatever else the machine does falls on both; a side's first call (with
compilation) is timed apart, and medians over the rounds are reported. The peer needs `pip install -e '.[bench]'` and
runs with one thread and with all cores, in inference mode unless it trains. To measure another thing, add an entry to
BENCHMARKS; another peer, to SIDES.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import runpy
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = ("float32", "bfloat16", "float16")
VERSIONS = ("tfmodels", "tensorflow", "keras", "numpy", "torch", "transformers")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Models --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a synthetic Llama."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    context: int = 2048

    @classmethod
    def parse(cls, text: str) -> Shape:
        """From "layers,hidden,heads[,kv_heads[,intermediate[,vocab]]]"."""
        try:
            layers, hidden, heads, *rest = (int(part) for part in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r}: layers,hidden,heads[,kv_heads[,intermediate[,vocab]]] in whole numbers was expected"
            ) from None
        usual = [heads, 4 * hidden, 32000]
        if len(rest) > len(usual) or hidden % heads:
            raise argparse.ArgumentTypeError(f"{text!r}: three to six numbers, hidden divisible by heads")
        return cls(layers, hidden, heads, *rest, *usual[len(rest) :])

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Checkpoint names and shapes."""
        narrow = self.hidden // self.heads * self.kv_heads
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden)}
        for layer in range(self.layers):
            for name, shape in {
                "self_attn.q_proj": (self.hidden, self.hidden),
                "self_attn.k_proj": (narrow, self.hidden),
                "self_attn.v_proj": (narrow, self.hidden),
                "self_attn.o_proj": (self.hidden, self.hidden),
                "mlp.gate_proj": (self.intermediate, self.hidden),
                "mlp.up_proj": (self.intermediate, self.hidden),
                "mlp.down_proj": (self.hidden, self.intermediate),
                "input_layernorm": (self.hidden,),
                "post_attention_layernorm": (self.hidden,),
            }.items():
                shapes[f"model.layers.{layer}.{name}.weight"] = shape
        return shapes | {"model.norm.weight": (self.hidden,), "lm_head.weight": (self.vocab, self.hidden)}

    def config(self, dtype: str) -> dict[str, Any]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "dtype": dtype,
        }


def write_synthetic(folder: Path, shape: Shape, dtype: str) -> None:
    """Write a checkpoint of random weights, tensor by tensor."""
    import ml_dtypes

    from tfmodels.checkpoints.writer import TensorSpec, write_checkpoint

    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    rng = np.random.default_rng(0)

    def values(size: tuple[int, ...]) -> Callable[[], np.ndarray]:
        if len(size) == 1:
            return lambda: np.ones(size, stored)
        return lambda: (rng.standard_normal(size, "float32") / math.sqrt(size[1])).astype(stored)

    tensors = ((name, TensorSpec(size, dtype), values(size)) for name, size in shape.tensors().items())
    write_checkpoint(folder, tensors, max_shard_size="100GB")
    (folder / "config.json").write_text(json.dumps(shape.config(dtype)))


@contextlib.contextmanager
def checkpoint_of(options: argparse.Namespace) -> Iterator[str]:
    """The folder or name of the model to measure: --model, or a synthetic one of --shape."""
    if options.model:
        yield options.model
        return
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic(Path(folder), options.shape, options.dtype)
        yield folder


# Sides: who runs a model ---------------------------------------------------------------------------------------------


class TFModelsSide:
    """This package."""

    name = "tfmodels"

    @staticmethod
    def prepare() -> None:
        from tfmodels.cli.main import load_backend

        load_backend()
        import tfmodels.auto  # noqa: F401  # imports belong to no measurement

    def __init__(self, folder: str, dtype: str):
        from tfmodels import TFAutoModelForCausalLM

        self.model = TFAutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

    def variants(self) -> dict[str, TFModelsSide]:
        """What is measured of this side, by name."""
        return {self.name: self}

    def generate(self, ids: np.ndarray, new: int) -> np.ndarray:
        mask = np.ones_like(ids)
        return self.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False
        ).numpy()

    def forward(self, ids: np.ndarray) -> Callable[[], np.ndarray]:
        """A forward pass compiled for these ids, to be called again and again."""
        import tensorflow as tf

        compiled = tf.function(
            lambda ids: self.model(input_ids=ids, use_cache=False).logits, jit_compile=True, reduce_retracing=False
        )
        given = tf.constant(ids, tf.int32)
        return lambda: compiled(given).numpy()


class TorchSide:
    """transformers on PyTorch, with its defaults.

    It is measured with one thread and with all cores: small models are faster with one, and on a machine with other
    work PyTorch's threads wait for each other. Compare with whichever is faster.
    """

    name = "torch"
    threads: int

    @staticmethod
    def prepare() -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        try:
            import torch
            import transformers
        except ImportError as error:
            sys.exit(f"benchmark: --peer torch: {error}; run pip install -e '.[bench]'")
        torch.set_num_threads(cores())
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()

    def __init__(self, folder: str, dtype: str):
        import torch
        from transformers import AutoModelForCausalLM

        from tfmodels.checkpoints import bundled

        self.torch = torch
        where = str(bundled.resolve(folder))
        self.model = AutoModelForCausalLM.from_pretrained(where, dtype=getattr(torch, dtype)).eval()

    def variants(self) -> dict[str, TorchSide]:
        """What is measured of this side, by name."""
        found = {}
        for threads in sorted({1, cores()}):
            side = copy.copy(self)
            side.threads = threads
            found[f"{self.name}, {threads} thread{'s' if threads > 1 else ''}"] = side
        return found

    def generate(self, ids: np.ndarray, new: int) -> np.ndarray:
        given = self.torch.from_numpy(ids)
        settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        self.torch.set_num_threads(self.threads)
        with self.torch.inference_mode():
            return self.model.generate(given, attention_mask=self.torch.ones_like(given), **settings).numpy()

    def forward(self, ids: np.ndarray) -> Callable[[], np.ndarray]:
        """A forward pass for these ids."""
        given = self.torch.from_numpy(ids)

        def run() -> np.ndarray:
            self.torch.set_num_threads(self.threads)
            with self.torch.inference_mode():
                return self.model(given, use_cache=False).logits.float().numpy()

        return run


class TFModelsEncoderSide(TFModelsSide):
    """This package's `SentenceEncoder`."""

    def __init__(self, folder: str, dtype: str):
        from tfmodels import SentenceEncoder

        self.model = SentenceEncoder.from_pretrained(folder, dtype=dtype)

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        return self.model.encode(texts, batch_size=batch, normalize=True)

    def forward(self, ids: np.ndarray) -> Callable[[], np.ndarray]:
        """Vectors of rows of ids without padding."""
        import tensorflow as tf

        run = tf.function(lambda ids, mask: self.model(input_ids=ids, attention_mask=mask).sentence_embedding)
        given = tf.constant(ids, tf.int32)
        return lambda: unit_rows(run(given, tf.ones_like(given)).numpy())


class TorchEncoderSide(TorchSide):
    """sentence-transformers on PyTorch, with its defaults."""

    @staticmethod
    def prepare() -> None:
        TorchSide.prepare()
        try:
            import sentence_transformers  # noqa: F401  # imports belong to no measurement
        except ImportError as error:
            sys.exit(f"benchmark: --peer torch: {error}; run pip install -e '.[bench]'")

    def __init__(self, folder: str, dtype: str):
        import torch
        from sentence_transformers import SentenceTransformer

        self.torch = torch
        options = {"dtype": getattr(torch, dtype)}
        self.model = SentenceTransformer(folder, device="cpu", model_kwargs=options).eval()

    def encode(self, texts: list[str], batch: int) -> np.ndarray:
        self.torch.set_num_threads(self.threads)
        return self.model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    def forward(self, ids: np.ndarray) -> Callable[[], np.ndarray]:
        given = {"input_ids": self.torch.from_numpy(ids), "attention_mask": self.torch.ones(ids.shape, dtype=int)}

        def run() -> np.ndarray:
            self.torch.set_num_threads(self.threads)
            with self.torch.inference_mode():
                return unit_rows(self.model(dict(given))["sentence_embedding"].float().numpy())

        return run


class TFModelsTrainingSide(TFModelsSide):
    """This package, trained as its users do: `compile` with an optimizer, then batches."""

    def __init__(self, folder: str, compile_options: dict[str, Any]):
        import keras

        import tfmodels

        keras.utils.set_random_seed(0)
        self.model = getattr(tfmodels, f"TF{architecture_of(folder)}").from_pretrained(folder)
        self.model.compile(keras.optimizers.AdamW(LEARNING_RATE, weight_decay=0.01), **compile_options)
        self.name = ", ".join([self.name, *(f"{key}={value}" for key, value in compile_options.items())])

    def loss(self, batch: dict[str, np.ndarray]) -> float:
        return float(self.model(**batch, training=False).loss)

    def step(self, batch: dict[str, np.ndarray]) -> float:
        return float(self.model.train_on_batch(batch))


class TorchTrainingSide(TorchSide):
    """transformers on PyTorch in the usual loop, with the fused AdamW that transformers' Trainer takes."""

    def __init__(self, folder: str, compile_options: dict[str, Any]):
        import torch
        import transformers

        torch.manual_seed(0)
        self.torch = torch
        self.model = getattr(transformers, architecture_of(folder)).from_pretrained(folder, dtype=torch.float32)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)

    def loss(self, batch: dict[str, np.ndarray]) -> float:
        self.model.eval()
        with self.torch.inference_mode():
            return self.model(**self.tensors(batch)).loss.item()

    def step(self, batch: dict[str, np.ndarray]) -> float:
        self.torch.set_num_threads(self.threads)
        self.model.train()
        loss = self.model(**self.tensors(batch)).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def tensors(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: self.torch.from_numpy(values) for name, values in batch.items()}


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def architecture_of(folder: str) -> str:
    """The class that a checkpoint is of, as PyTorch calls it."""
    return json.loads((Path(folder) / "config.json").read_text())["architectures"][0].removeprefix("TF")


# This package first, then the peers.
SIDES: dict[str, Any] = {"tfmodels": TFModelsSide, "torch": TorchSide}
ENCODER_SIDES: dict[str, Any] = {"tfmodels": TFModelsEncoderSide, "torch": TorchEncoderSide}
TRAINING_SIDES: dict[str, Any] = {"tfmodels": TFModelsTrainingSide, "torch": TorchTrainingSide}


def sides_of(options: argparse.Namespace) -> list[Any]:
    sides = BENCHMARKS[options.benchmark].sides
    return [sides[name] for name in ("tfmodels", getattr(options, "peer", None)) if name]


def open_sides(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The sides' variants by name, each with the model of a folder."""
    return {
        name: variant for side in sides_of(options) for name, variant in side(folder, options.dtype).variants().items()
    }


# Timing --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one action: its first call, and the median, least and most of the rounds after it."""

    first: float
    median: float
    low: float
    high: float


def take_turns(actions: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Time actions in alternating rounds. Returns the timings and each action's last result."""

    def timed(action: Callable[[], Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        result = action()
        return time.perf_counter() - start, result

    first = {name: timed(action)[0] for name, action in actions.items()}
    for action in actions.values():
        action()  # caches and thread pools are warm after the second call
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    results = {}
    for number in range(rounds):
        # Every other round goes backwards: being first is no advantage.
        for name in list(actions)[:: 1 if number % 2 == 0 else -1]:
            elapsed, results[name] = timed(actions[name])
            seconds[name].append(elapsed)
    timings = {
        name: Timing(first[name], statistics.median(values), min(values), max(values))
        for name, values in seconds.items()
    }
    return timings, results


def random_ids(batch: int, length: int, vocab: int) -> np.ndarray:
    # Ids below 3 are special tokens as a rule.
    return np.random.default_rng(batch * 1000 + length).integers(3, vocab, (batch, length))


# The benchmarks: each yields rows ------------------------------------------------------------------------------------


Row = dict[str, Any]


def add_generate(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--batch", type=numbers, default=[1, 4], metavar="N,...", help="batch sizes (1,4)")
    parser.add_argument("--prompt-length", type=int, default=64, metavar="N", help="tokens per prompt (%(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="exactly so many (%(default)s)")


def run_generate(options: argparse.Namespace) -> Iterator[Row]:
    """Prefill is the time of one new token, decoding the further time that all of them take."""
    new = options.max_new_tokens
    with checkpoint_of(options) as folder:
        sides = open_sides(options, folder)
        vocab = sides["tfmodels"].model.config.vocab_size
        for batch in options.batch:
            ids = random_ids(batch, options.prompt_length, vocab)
            actions: dict[str, Callable[[], Any]] = {}
            for name, side in sides.items():
                actions[f"{name} 1"] = functools.partial(side.generate, ids, 1)
                actions[f"{name} all"] = functools.partial(side.generate, ids, new)
            timings, results = take_turns(actions, options.rounds)
            ours, speed = results["tfmodels all"], {}
            for name in sides:
                one, every = timings[f"{name} 1"], timings[f"{name} all"]
                speed[name] = batch * (new - 1) / (every.median - one.median)
                yield {
                    "side": name,
                    "batch": batch,
                    "prefill_ms": 1e3 * one.median,
                    "tokens_per_s": speed[name],
                    "total_s": every.median,
                    "total_s_low": every.low,
                    "total_s_high": every.high,
                    "first_call_s": every.first,
                    "ids_equal": None if name == "tfmodels" else equal_ids(ours, results[f"{name} all"]),
                    "speed_ratio": None if name == "tfmodels" else speed["tfmodels"] / speed[name],
                    "prefill_ratio": None if name == "tfmodels" else one.median / timings["tfmodels 1"].median,
                }


def add_export(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--prompt-length", type=int, default=16, metavar="N", help="tokens of the prompt (%(default)s)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="exactly so many (%(default)s)")


# What is exported: name -> format and options.
EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "SavedModel": ("saved_model", {}),
    "LiteRT float32": ("litert", {}),
    "LiteRT int8": ("litert", {"quantize": "int8"}),
    "LiteRT int4": ("litert", {"quantize": "int4"}),
}


def run_export(options: argparse.Namespace) -> Iterator[Row]:
    """Greedy decoding of one row, in the process that has the model and by what is exported of it."""
    from tfmodels import GenerationConfig
    from tfmodels.export import FORMATS

    new = options.max_new_tokens
    with checkpoint_of(options) as folder, tempfile.TemporaryDirectory() as exported:
        side = TFModelsSide(folder, options.dtype)
        side.model.generation_config = GenerationConfig(pad_token_id=0)  # no token ends the text
        ids = random_ids(1, options.prompt_length, side.model.config.vocab_size).astype("int32")
        room = options.prompt_length + new
        generate, sizes = {"in process": side.generate}, {"in process": None}
        for name, (form, choices) in EXPORTS.items():
            place = Path(exported) / (name.replace(" ", "-") + FORMATS[form].suffix)
            report = side.model.export(place, format=form, max_length=room, **choices)
            generate[name], sizes[name] = FORMATS[form].load().open(report.path).generate, report.bytes
        actions: dict[str, Callable[[], Any]] = {}
        for name, action in generate.items():
            actions[f"{name} 1"] = functools.partial(action, ids, 1)
            actions[f"{name} all"] = functools.partial(action, ids, new)
        timings, results = take_turns(actions, options.rounds)
        ours, per_token = results["in process all"], {}
        for name in generate:
            one, every = timings[f"{name} 1"], timings[f"{name} all"]
            per_token[name] = 1e3 * (every.median - one.median) / (new - 1)
            yield {
                "side": name,
                "megabytes": sizes[name] and sizes[name] / 1e6,
                "first_token_ms": 1e3 * one.median,
                "ms_per_token": per_token[name],
                "first_call_s": every.first,
                "ids_equal": None if name == "in process" else equal_ids(ours, results[f"{name} all"]),
                "time_ratio": None if name == "in process" else per_token[name] / per_token["in process"],
            }


def equal_ids(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The share of positions, rows counted up to their first difference, where two results hold the same ids."""
    if ours.shape != theirs.shape:
        return 0.0
    return float(np.cumprod(ours == theirs, axis=1).mean())


def add_forward(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--batch", type=numbers, default=[1, 4], metavar="N,...", help="batch sizes (1,4)")
    parser.add_argument("--length", type=numbers, default=[16, 64, 256], metavar="N,...", help="lengths (16,64,256)")


def run_forward(options: argparse.Namespace) -> Iterator[Row]:
    with checkpoint_of(options) as folder:
        sides = open_sides(options, folder)
        vocab = sides["tfmodels"].model.config.vocab_size
        for batch in options.batch:
            for length in options.length:
                ids = random_ids(batch, length, vocab)
                timings, results = take_turns(
                    {name: side.forward(ids) for name, side in sides.items()}, options.rounds
                )
                ours = timings["tfmodels"].median
                for name, timing in timings.items():
                    difference = np.abs(results[name].astype("float32") - results["tfmodels"].astype("float32"))
                    yield {
                        "side": name,
                        "batch": batch,
                        "length": length,
                        "ms": 1e3 * timing.median,
                        "ms_low": 1e3 * timing.low,
                        "ms_high": 1e3 * timing.high,
                        "first_call_s": timing.first,
                        "max_difference": None if name == "tfmodels" else float(difference.max()),
                        "speed_ratio": None if name == "tfmodels" else timing.median / ours,
                    }


def add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        type=Shape.parse,
        default=Shape.parse("24,1024,16,16,4608,32000"),
        help="as in `generate` (0.5 billion parameters)",
    )
    parser.add_argument("--stored", choices=DTYPES, default="bfloat16", help="dtype of the file (%(default)s)")
    parser.add_argument("--to", type=dtypes, default=["bfloat16", "float32"], metavar="DTYPE,...", help="to load as")
    parser.add_argument("--cold", action="store_true", help="drop the file from the page cache before each reading")
    # A process of its own measures one load: peak memory cannot be reset portably.
    parser.add_argument("--child", help=argparse.SUPPRESS)


def run_load(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic(Path(folder), options.shape, options.stored)
        file = Path(folder) / "model.safetensors"
        count = sum(math.prod(size) for size in options.shape.tensors().values())
        sides = [side.name for side in sides_of(options)]
        reads, loads = [], {(side, dtype): [] for side in sides for dtype in options.to}
        for _ in range(options.rounds):
            reads.append(read_seconds(file, options.cold))
            for key, runs in loads.items():
                runs.append(measure_load(file, *key, options.cold))
        read = statistics.median(reads)
        for (side, dtype), runs in loads.items():
            seconds = statistics.median(run["seconds"] for run in runs)
            peak = statistics.median(run["peak_bytes"] for run in runs)
            weights = count * (4 if dtype == "float32" else 2)
            yield {
                "side": side,
                "stored": options.stored,
                "dtype": dtype,
                "page_cache": "cold" if options.cold else "warm",
                "parameters": count,
                "weights_gb": weights / 1e9,
                "peak_gb": peak / 1e9,
                "peak_ratio": peak / weights,
                "load_s": seconds,
                "read_s": read,
                "read_ratio": seconds / read,
            }


def read_seconds(file: Path, cold: bool) -> float:
    """Seconds to read a whole file into fresh memory, which a loader has to do at least."""
    if cold:
        drop_from_cache(file)
    start = time.perf_counter()
    file.read_bytes()
    return time.perf_counter() - start


def drop_from_cache(file: Path) -> None:
    """Make the next reading of a file go to the disk."""
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_load(file: Path, side: str, dtype: str, cold: bool) -> dict[str, float]:
    """Seconds and peak memory of loading a file's folder in a fresh process."""
    if cold:
        drop_from_cache(file)
    command = [sys.executable, __file__, "load", "--child", json.dumps([str(file.parent), side, dtype])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"benchmark: loading with {side} as {dtype} failed")
    return json.loads(done.stdout.splitlines()[-1])


def load_child(folder: str, side_name: str, dtype: str) -> None:
    """Load once and print seconds, and the peak of resident memory beyond what it was after the imports."""
    side = SIDES[side_name]
    side.prepare()
    reset_peak()
    before = memory_of("VmRSS")
    start = time.perf_counter()
    model = side(folder, dtype)
    seconds = time.perf_counter() - start
    peak = memory_of("VmHWM") - before
    del model
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def reset_peak() -> None:
    """Set the process's peak of resident memory to what it holds now."""
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")


def memory_of(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))


LEARNING_RATE = 1e-4

# What is trained: model_type, head, and what differs from the configuration's defaults.
TRAINED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mpnet-base": ("mpnet", "ForSequenceClassification", {}),
    "gpt-neo-125m": (
        "gpt_neo",
        "ForCausalLM",
        {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "attention_types": [[["global", "local"], 6]]},
    ),
}


def add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        type=trained_shapes,
        default=list(TRAINED),
        metavar="NAME,...",
        help=f"random weights of these shapes, of {', '.join(TRAINED)} (all)",
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="rows of a batch (%(default)s)")
    parser.add_argument("--length", type=int, default=128, metavar="N", help="tokens of a row (%(default)s)")
    parser.add_argument("--xla", action="store_true", help="also measure compile(..., jit_compile=True)")
    # A process of its own trains each side: what it needs at most is then its own.
    parser.add_argument("--child", help=argparse.SUPPRESS)


def trained_shapes(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(TRAINED):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: {', '.join(TRAINED)} are possible")
    return names


def run_train(options: argparse.Namespace) -> Iterator[Row]:
    """A step is forward pass, gradients and AdamW over one batch, dropout as the configuration says."""
    processes: list[tuple[str, dict[str, Any]]] = [(side.name, {}) for side in sides_of(options)]
    if options.xla:
        processes.insert(1, ("tfmodels", {"jit_compile": True}))
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
            write_trained(Path(folder), shape, options.batch, options.length)
            trainers = {}
            for side, compile_options in processes:
                trainer = running.enter_context(Trainer(side, folder, compile_options))
                trainers |= dict.fromkeys(trainer.variants, trainer)
            actions = {name: functools.partial(trainer.step, name) for name, trainer in trainers.items()}
            timings, _ = take_turns(actions, options.rounds)
            ours = trainers["tfmodels"].loss
            for name, timing in timings.items():
                trainer = trainers[name]
                yield {
                    "side": name,
                    "shape": shape,
                    "batch": options.batch,
                    "length": options.length,
                    "ms": 1e3 * timing.median,
                    "ms_low": 1e3 * timing.low,
                    "ms_high": 1e3 * timing.high,
                    "first_call_s": timing.first,
                    "peak_gb": trainer.peak_bytes / 1e9,
                    "losses": trainer.losses,  # of all steps, those of its other variants included
                    "loss_difference": None if name == "tfmodels" else abs(trainer.loss / ours - 1),
                    "speed_ratio": None if name == "tfmodels" else timing.median / timings["tfmodels"].median,
                }


def write_trained(folder: Path, shape: str, batch: int, length: int) -> None:
    """Write a checkpoint of random weights, and beside it a batch for its head."""
    import keras

    import tfmodels.auto

    model_type, head, changes = TRAINED[shape]
    config = tfmodels.AutoConfig.for_model(model_type, **changes)
    keras.utils.set_random_seed(0)
    family = tfmodels.auto.family_of(config)
    family.load(f"TF{family.stem}{head}")(config).save_pretrained(folder)
    ids = random_ids(batch, length, config.vocab_size)
    labels = ids if head == "ForCausalLM" else np.arange(batch) % config.num_labels
    np.savez(folder / "batch.npz", input_ids=ids, attention_mask=np.ones_like(ids), labels=labels)


class Trainer:
    """A side in a process of its own, which takes a step each time it is asked to."""

    def __init__(self, *arguments: Any):
        command = [sys.executable, __file__, "train", "--child", json.dumps(arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.losses: list[float] = []
        self.peak_bytes = 0

    def __enter__(self) -> Trainer:
        started = self.answer()
        self.variants, self.loss = started["variants"], started["loss"]
        return self

    def __exit__(self, *exception: Any) -> None:
        self.process.terminate()
        self.process.wait()

    def step(self, variant: str) -> None:
        self.process.stdin.write(variant + "\n")
        self.process.stdin.flush()
        done = self.answer()
        self.losses.append(done["loss"])
        self.peak_bytes = done["peak_bytes"]

    def answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"benchmark: {shlex.join(self.process.args)} ended with status {self.process.wait()}")
        return json.loads(line)


def train_child(side_name: str, folder: str, compile_options: dict[str, Any]) -> None:
    """Print the loss before training; then take a step for each variant read, and print loss and peak memory."""
    side = TRAINING_SIDES[side_name]
    side.prepare()
    reset_peak()
    before = memory_of("VmRSS")
    with np.load(Path(folder) / "batch.npz") as file:
        batch = dict(file)
    trained = side(folder, compile_options)
    variants = trained.variants()
    print(json.dumps({"variants": list(variants), "loss": trained.loss(batch)}), flush=True)
    for line in sys.stdin:
        loss = variants[line.rstrip("\n")].step(batch)
        print(json.dumps({"loss": loss, "peak_bytes": memory_of("VmHWM") - before}), flush=True)


CHILDREN: dict[str, Callable[..., None]] = {"load": load_child, "train": train_child}


# The table of benchmarks ---------------------------------------------------------------------------------------------


# English in which every tokenizer finds words; what it says does not matter for speed.
WORDS = """a the of and to in is was that it for on are as with his they at be this from have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my made
over did down only way find use may water long little very after words called just where most know""".split()  # noqa: SIM905


def some_texts(count: int) -> list[str]:
    """Texts of 3 to 90 words, short ones more often."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(math.log(3), math.log(90), count)).astype(int)
    return [" ".join(rng.choice(WORDS, length)) for length in lengths]


def add_embed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="folder or hub id of a sentence-transformers model")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(%(default)s)")
    parser.add_argument("--texts", type=int, default=512, metavar="N", help="texts of mixed length (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="texts at a time (%(default)s)")
    parser.add_argument("--length", type=numbers, default=[32, 128], metavar="N,...", help="equal lengths (32,128)")


def run_embed(options: argparse.Namespace) -> Iterator[Row]:
    """Texts of mixed length from text to vectors, then single batches of equal length from ids to vectors."""
    sides = open_sides(options, options.model)
    texts = some_texts(options.texts)
    vocab = sides["tfmodels"].model.model.config.vocab_size
    kinds: dict[str, tuple[int, dict[str, Callable[[], Any]]]] = {
        "texts of mixed length": (
            len(texts),
            {name: functools.partial(side.encode, texts, options.batch) for name, side in sides.items()},
        )
    }
    for length in options.length:
        ids = random_ids(options.batch, length, vocab)
        kinds[f"{length} ids each"] = options.batch, {name: side.forward(ids) for name, side in sides.items()}
    for kind, (rows, actions) in kinds.items():
        timings, results = take_turns(actions, options.rounds)
        ours = timings["tfmodels"].median
        for name, timing in timings.items():
            peer = None if name == "tfmodels" else timing.median / ours
            yield {
                "side": name,
                "input": kind,
                "rows": rows,
                "rows_per_s": rows / timing.median,
                "s": timing.median,
                "s_low": timing.low,
                "s_high": timing.high,
                "first_call_s": timing.first,
                "max_difference": None if peer is None else float(np.abs(results[name] - results["tfmodels"]).max()),
                "speed_ratio": peer,
            }


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What can be measured: its arguments, a function that yields rows, and the columns shown of them."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Iterator[Row]]
    # key of the row, heading, format
    columns: tuple[tuple[str, str, str], ...]
    sides: dict[str, Any] = dataclasses.field(default_factory=lambda: SIDES)


BENCHMARKS = {
    "load": Benchmark(
        "load a synthetic checkpoint in a fresh process: time and peak memory over imports",
        add_load,
        run_load,
        (
            ("side", "side", ""),
            ("stored", "stored", ""),
            ("dtype", "loaded as", ""),
            ("page_cache", "page cache", ""),
            ("weights_gb", "weights GB", ".2f"),
            ("peak_gb", "peak GB", ".2f"),
            ("peak_ratio", "peak / weights", ".2f"),
            ("load_s", "load s", ".2f"),
            ("read_s", "read s", ".2f"),
            ("read_ratio", "load / read", ".2f"),
        ),
    ),
    "forward": Benchmark(
        "one pass over whole sequences",
        add_forward,
        run_forward,
        (
            ("side", "side", ""),
            ("batch", "batch", "d"),
            ("length", "length", "d"),
            ("ms", "ms", ".2f"),
            ("ms_low", "least", ".2f"),
            ("ms_high", "most", ".2f"),
            ("first_call_s", "first call s", ".2f"),
            ("max_difference", "max difference", ".1e"),
            ("speed_ratio", "tfmodels is faster by", ".2f"),
        ),
    ),
    "embed": Benchmark(
        "sentence vectors of texts of mixed length, and of batches of equal length",
        add_embed,
        run_embed,
        (
            ("side", "side", ""),
            ("input", "input", ""),
            ("rows", "rows", "d"),
            ("rows_per_s", "rows/s", ",.1f"),
            ("s", "s", ".3f"),
            ("first_call_s", "first call s", ".2f"),
            ("max_difference", "max difference", ".1e"),
            ("speed_ratio", "tfmodels is faster by", ".2f"),
        ),
        ENCODER_SIDES,
    ),
    "export": Benchmark(
        "greedy decoding in process and by exported artefacts",
        add_export,
        run_export,
        (
            ("side", "side", ""),
            ("megabytes", "MB", ",.1f"),
            ("first_token_ms", "first token ms", ".2f"),
            ("ms_per_token", "ms/token", ".2f"),
            ("first_call_s", "first call s", ".2f"),
            ("ids_equal", "ids equal", ".1%"),
            ("time_ratio", "time / in process", ".2f"),
        ),
        {"tfmodels": TFModelsSide},
    ),
    "generate": Benchmark(
        "greedy decoding of exactly --max-new-tokens tokens",
        add_generate,
        run_generate,
        (
            ("side", "side", ""),
            ("batch", "batch", "d"),
            ("prefill_ms", "prefill ms", ".2f"),
            ("tokens_per_s", "tokens/s", ",.0f"),
            ("total_s", "total s", ".3f"),
            ("first_call_s", "first call s", ".2f"),
            ("ids_equal", "ids equal", ".1%"),
            ("speed_ratio", "tfmodels decodes faster by", ".2f"),
            ("prefill_ratio", "prefills faster by", ".2f"),
        ),
    ),
    "train": Benchmark(
        "a training step: forward pass, gradients and AdamW, float32",
        add_train,
        run_train,
        (
            ("side", "side", ""),
            ("shape", "shape", ""),
            ("batch", "batch", "d"),
            ("length", "length", "d"),
            ("ms", "ms", ",.0f"),
            ("ms_low", "least", ",.0f"),
            ("ms_high", "most", ",.0f"),
            ("first_call_s", "first call s", ".1f"),
            ("peak_gb", "peak GB", ".2f"),
            ("loss_difference", "loss difference", ".0e"),
            ("speed_ratio", "tfmodels is faster by", ".2f"),
        ),
        TRAINING_SIDES,
    ),
}


# The command ---------------------------------------------------------------------------------------------------------


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def dtypes(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(DTYPES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: {', '.join(DTYPES)} are possible")
    return names


def add_model(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="folder, hub id or bundled name of a causal language model")
    which.add_argument(
        "--shape", type=Shape.parse, help="a random Llama: layers,hidden,heads[,kv_heads[,intermediate[,vocab]]]"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(%(default)s)")


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as cpuinfo:
        processor = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    found = {
        "processor": processor,
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    with contextlib.suppress(OSError):
        found["load_average"] = round(os.getloadavg()[0], 1)
        found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return found


def versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def show(benchmark: Benchmark, rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    columns = [column for column in benchmark.columns if any(row[column[0]] is not None for row in rows)]
    for _, heading, form in columns:
        table.add_column(heading, justify="right" if form else "left")
    for row in rows:
        table.add_row(*("" if row[key] is None else format(row[key], form) for key, _, form in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(name, help=benchmark.help, description=benchmark.help)
        benchmark.add_arguments(command)
        if peers := [side for side in benchmark.sides if side != "tfmodels"]:
            command.add_argument("--peer", choices=peers, help="also measure this one")
        command.add_argument("--rounds", type=int, default=5, metavar="N", help="(%(default)s)")
        command.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here too")
    commands.add_parser("gpu", help="on a GPU: see tools/benchmark_gpu.py", add_help=False)
    options, others = parser.parse_known_args(arguments)
    if options.benchmark == "gpu":
        runpy.run_path(str(Path(__file__).with_name("benchmark_gpu.py")))["main"](others)
        return
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if getattr(options, "child", None):
        CHILDREN[options.benchmark](*json.loads(options.child))
        return

    benchmark = BENCHMARKS[options.benchmark]
    command_line = shlex.join([Path(sys.argv[0]).as_posix(), *(sys.argv[1:] if arguments is None else arguments)])
    report = {"command": command_line, "machine": machine(), "versions": versions()}
    print(f"$ {report['command']}")
    print(
        ", ".join(f"{key} {value}" for key, value in {**report["machine"], **report["versions"]}.items()), flush=True
    )
    if report["machine"].get("load_average", 0) > 0.5:
        print("Other processes are busy on this machine: the numbers below are not to be trusted.", file=sys.stderr)
    if options.benchmark not in CHILDREN:
        for side in sides_of(options):
            side.prepare()
    rows = list(benchmark.run(options))
    show(benchmark, rows)
    if options.json:
        options.json.write_text(json.dumps({**report, "benchmark": options.benchmark, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
