"""Benchmarks on a CPU; each yields rows.

Decoding, exports, forward passes and sentence vectors run here; loading and training give each side a process of its
own, whose peak memory they measure.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import itertools
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.arguments import DTYPES, add_dtype, add_number, some_of
from tools.bench.shapes import LLAMA_SIZES, TRAINED, checkpoint_of, llama_shape, random_ids, write_random
from tools.bench.sides import ENCODER_SIDES, QUANTIZED, SIDES, TRAINING_SIDES, TFModelsSide, open_sides, unit_rows
from tools.memory import peak_memory, reset_peak

SPAWN = multiprocessing.get_context("spawn")  # fresh processes
Row = dict[str, Any]
Actions = dict[Any, Callable[[], Any]]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one action: its first call, and the median, least and most of the rounds after it."""

    first: float
    median: float
    low: float
    high: float

    def row(self, name: str = "s", factor: float = 1.0) -> Row:
        """The fields of a report's row, in units called `name` of which a second has `factor`."""
        row = {name: factor * self.median, f"{name}_low": factor * self.low, f"{name}_high": factor * self.high}
        return row | {"first_call_s": self.first}


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of an action, and its result."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def take_turns(actions: Actions, rounds: int) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Time actions in alternating rounds. Returns the timings and each action's last result."""
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
    spans = {name: (statistics.median(values), min(values), max(values)) for name, values in seconds.items()}
    return {name: Timing(first[name], *span) for name, span in spans.items()}, results


def add_model(parser: argparse.ArgumentParser, prompt_length: int | None = None) -> None:
    """The arguments that choose a model and, where a prompt has a length, how much is decoded."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="folder, hub id or bundled name of a causal language model")
    which.add_argument("--shape", type=llama_shape, help=f"a random Llama: {LLAMA_SIZES}")
    add_dtype(parser)
    if prompt_length is not None:
        add_number(parser, "--prompt-length", prompt_length, "tokens per prompt")
        add_number(parser, "--max-new-tokens", 128, "exactly so many")


def add_generate(parser: argparse.ArgumentParser) -> None:
    add_model(parser, prompt_length=64)
    add_number(parser, "--batch", [1, 4], "batch sizes")
    about = "also the model with weights quantised so: int8, int4, or gguf for those that a GGUF file holds"
    parser.add_argument("--quantize", type=some_of(QUANTIZED), default=[], metavar="MODE,...", help=about)
    parser.add_argument("--gguf-file", metavar="NAME", help="a GGUF file in the folder --model, for --quantize gguf")


def add_forward(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_number(parser, "--batch", [1, 4], "batch sizes")
    add_number(parser, "--length", [16, 64, 256], "lengths")


def add_embed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="folder or hub id of a sentence-transformers model")
    add_dtype(parser)
    add_number(parser, "--texts", 512, "texts of mixed length")
    add_number(parser, "--batch", 32, "texts at a time")
    add_number(parser, "--length", [32, 128], "equal lengths")
    about = "CSV of two texts and a score a line: correlation with cosines"
    parser.add_argument("--pairs", type=Path, metavar="FILE", help=about)


def decode(
    sides: dict[str, Callable[..., Any]], ids: np.ndarray, new: int, rounds: int
) -> Iterator[tuple[str, Timing, Timing, Row]]:
    """Time one new token and `new` of them: (side, both timings, the share of ids that equal the first side's)."""
    actions = {
        (name, count): functools.partial(side, ids, count) for name, side in sides.items() for count in (1, new)
    }
    timings, results = take_turns(actions, rounds)
    first, *others = sides
    equal = {name: {"ids_equal": equal_ids(results[first, new], results[name, new])} for name in others}
    for name in sides:
        yield name, timings[name, 1], timings[name, new], equal.get(name, {})


def run_generate(options: argparse.Namespace) -> Iterator[Row]:
    """Greedy decoding of exactly --max-new-tokens tokens: the first takes prefill's time, the others decoding's."""
    new, speed, prefill = options.max_new_tokens, {}, {}
    with checkpoint_of(options) as folder:
        sides = open_sides(options, folder)
        first = next(iter(sides))
        sizes = {name: side.model.get_memory_footprint() / 1e6 for name, side in sides.items()}
        generate = {name: side.generate for name, side in sides.items()}
        for batch in options.batch:
            ids = random_ids(batch, options.prompt_length, sides[first].model.config.vocab_size)
            for name, one, every, equal in decode(generate, ids, new, options.rounds):
                speed[name], prefill[name] = batch * (new - 1) / (every.median - one.median), one.median
                row = {"side": name, "batch": batch, "megabytes": sizes[name], "prefill_ms": 1e3 * one.median}
                row |= {"tokens_per_s": speed[name], **every.row("total_s"), **equal}
                if name != first:
                    row |= {"speed_ratio": speed[first] / speed[name], "prefill_ratio": prefill[name] / prefill[first]}
                yield row


# The exported artefacts: name -> format and options.
EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "SavedModel": ("saved_model", {}),
    "LiteRT float32": ("litert", {}),
    "LiteRT int8": ("litert", {"quantize": "int8"}),
    "LiteRT int4": ("litert", {"quantize": "int4"}),
}


def run_export(options: argparse.Namespace) -> Iterator[Row]:
    """Greedy decoding of one row in process and by exported artefacts."""
    from tfmodels import GenerationConfig
    from tfmodels.export import FORMATS

    TFModelsSide.prepare()
    new, per_token = options.max_new_tokens, {}
    with checkpoint_of(options) as folder, tempfile.TemporaryDirectory() as exported:
        side = TFModelsSide(folder, options.dtype)
        side.model.generation_config = GenerationConfig(pad_token_id=0)  # no token ends the text
        ids = random_ids(1, options.prompt_length, side.model.config.vocab_size).astype("int32")
        generate, sizes = {"in process": side.generate}, {}
        for name, (form, choices) in EXPORTS.items():
            place = Path(exported) / (name.replace(" ", "-") + FORMATS[form].suffix)
            report = side.model.export(place, format=form, max_length=options.prompt_length + new, **choices)
            generate[name], sizes[name] = FORMATS[form].load().open(report.path).generate, report.bytes
        for name, one, every, equal in decode(generate, ids, new, options.rounds):
            per_token[name] = 1e3 * (every.median - one.median) / (new - 1)
            row = {"side": name, "first_token_ms": 1e3 * one.median, "ms_per_token": per_token[name]}
            row |= {"first_call_s": every.first, **equal}
            if name in sizes:
                row |= {"megabytes": sizes[name] / 1e6, "time_ratio": per_token[name] / per_token["in process"]}
            yield row


def equal_ids(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The share of positions, rows counted up to their first difference, where two results hold the same ids."""
    if ours.shape != theirs.shape:
        return 0.0
    return float(np.cumprod(ours == theirs, axis=1).mean())


def run_forward(options: argparse.Namespace) -> Iterator[Row]:
    """One pass over whole sequences."""
    with checkpoint_of(options) as folder:
        sides = open_sides(options, folder)
        vocab = sides["tfmodels"].model.config.vocab_size
        for batch, length in itertools.product(options.batch, options.length):
            ids = random_ids(batch, length, vocab)
            actions = {name: side.forward(ids) for name, side in sides.items()}
            for name, timing, _, against in passes(actions, options.rounds):
                yield {"side": name, "batch": batch, "length": length, **timing.row("ms", 1e3), **against}


def passes(actions: Actions, rounds: int) -> Iterator[tuple[str, Timing, np.ndarray, Row]]:
    """Time each side: (side, timing, result, how it compares with this package)."""
    timings, results = take_turns(actions, rounds)
    ours, own = timings["tfmodels"].median, results["tfmodels"].astype("float32")
    for name, timing in timings.items():
        against = {}
        if name != "tfmodels":
            difference = float(np.abs(results[name].astype("float32") - own).max())
            against = {"max_difference": difference, "speed_ratio": timing.median / ours}
        yield name, timing, results[name], against


# English in which every tokenizer finds words; the speed does not depend on the meaning.
WORDS = """a the of and to in is was that it for on are as with his they at be this from have or by one had not but
what all were when we there can an your which their said if do will each about how up out them then she many some so
these would other into has more her two like him see time could no make than first been its who now people my made
over did down only way find use may water long little very after words called just where most know""".split()  # noqa: SIM905


def some_texts(count: int) -> list[str]:
    """Texts of 3 to 90 words, short ones more often."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(math.log(3), math.log(90), count)).astype(int)
    return [" ".join(rng.choice(WORDS, length)) for length in lengths]


def run_embed(options: argparse.Namespace) -> Iterator[Row]:
    """Sentence vectors of texts of mixed length, of batches of ids of equal length, and of --pairs."""
    sides = open_sides(options, options.model, ENCODER_SIDES)
    vocab = sides["tfmodels"].model.model.config.vocab_size

    def encoding(texts: list[str]) -> tuple[int, Actions]:
        return len(texts), {name: functools.partial(side.encode, texts, options.batch) for name, side in sides.items()}

    kinds = {"texts of mixed length": encoding(some_texts(options.texts))}
    for length in options.length:
        ids = random_ids(options.batch, length, vocab)
        kinds[f"{length} ids each"] = options.batch, {name: side.forward(ids) for name, side in sides.items()}
    if options.pairs:
        with options.pairs.open(newline="", encoding="utf-8") as file:
            first, second, scores = zip(*csv.reader(file), strict=True)
        kinds["pairs"] = encoding([*first, *second])
    for kind, (rows, actions) in kinds.items():
        for name, timing, vectors, against in passes(actions, options.rounds):
            row = {"side": name, "input": kind, "rows": rows, "rows_per_s": rows / timing.median}
            row |= {**timing.row(), **against}
            yield row | ({"spearman": correlation(vectors, scores)} if kind == "pairs" else {})


def correlation(vectors: np.ndarray, scores: tuple[str, ...]) -> float:
    """Rank correlation of people's scores of pairs with cosines of vectors: of all first texts, then of all second."""
    from scipy.stats import spearmanr

    first, second = np.split(unit_rows(vectors), 2)
    return float(spearmanr(np.sum(first * second, axis=1), [float(score) for score in scores]).statistic)


def add_load(parser: argparse.ArgumentParser) -> None:
    usual = llama_shape("24,1024,16,16,4608,32000")
    parser.add_argument("--shape", type=llama_shape, default=usual, help="as in `generate` (0.5 billion parameters)")
    add_dtype(parser, "--stored", "bfloat16", "dtype of the file")
    to = ["bfloat16", "float32"]
    parser.add_argument("--to", type=some_of(DTYPES), default=to, metavar="DTYPE,...", help="to load as")


def run_load(options: argparse.Namespace) -> Iterator[Row]:
    """Load a synthetic checkpoint in a fresh process: time and peak memory over imports."""
    with tempfile.TemporaryDirectory() as folder:
        TFModelsSide.prepare()
        count, _ = write_random(folder, options.shape, options.stored)
        sides = ["tfmodels", *([options.peer] if options.peer else [])]
        reads, loads = [], {(side, dtype): [] for side in sides for dtype in options.to}
        for _ in range(options.rounds):
            # Into fresh memory, as a loader has to at least.
            reads.append(timed((Path(folder) / "model.safetensors").read_bytes)[0])
            for key, runs in loads.items():
                runs.append(run_child(load_once, folder, *key))
        read = statistics.median(reads)
        for (side, dtype), runs in loads.items():
            seconds, peak = (statistics.median(values) for values in zip(*runs, strict=True))
            weights = count * (4 if dtype == "float32" else 2)
            row = {"side": side, "stored": options.stored, "dtype": dtype, "parameters": count}
            row |= {"weights_gb": weights / 1e9, "peak_gb": peak / 1e9, "peak_ratio": peak / weights}
            yield row | {"load_s": seconds, "read_s": read, "read_ratio": seconds / read}


def run_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a process of its own. Returns its result."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=SPAWN) as process:
        return process.submit(function, *arguments).result()


def load_once(folder: str, side_name: str, dtype: str) -> tuple[float, int]:
    """Seconds of loading, and the peak of resident memory beyond what it was after the imports."""
    side = SIDES[side_name]
    side.prepare()
    before = reset_peak()
    seconds, _ = timed(lambda: side(folder, dtype))
    return seconds, peak_memory() - before


def add_train(parser: argparse.ArgumentParser) -> None:
    about = f"random weights of these shapes, of {', '.join(TRAINED)} (all)"
    parser.add_argument("--shape", type=some_of(TRAINED), default=list(TRAINED), metavar="NAME,...", help=about)
    add_number(parser, "--batch", 8, "rows of a batch")
    add_number(parser, "--length", 128, "tokens of a row")
    parser.add_argument("--xla", action="store_true", help="also measure compile(..., jit_compile=True)")


def run_train(options: argparse.Namespace) -> Iterator[Row]:
    """A training step, float32: forward pass, gradients and AdamW; dropout as the configuration says."""
    processes: list[tuple[str, dict[str, Any]]] = [("tfmodels", {})]
    processes += [("tfmodels", {"jit_compile": True})] if options.xla else []
    processes += [(options.peer, {})] if options.peer else []
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
            write_trained(folder, shape, options.batch, options.length)
            trainers = {}
            for side, compile_options in processes:
                trainer = Trainer(running, side, folder, TRAINED[shape][1], compile_options)
                trainers |= dict.fromkeys(trainer.variants, trainer)
            actions = {name: functools.partial(trainer.step, name) for name, trainer in trainers.items()}
            timings, _ = take_turns(actions, options.rounds)
            ours = trainers["tfmodels"]
            for name, timing in timings.items():
                trainer = trainers[name]
                row = {"side": name, "shape": shape, "batch": options.batch, "length": options.length}
                # The losses are of all steps, those of the trainer's other variants included.
                row |= {**timing.row("ms", 1e3), "peak_gb": trainer.peak_bytes / 1e9, "losses": trainer.losses}
                if trainer is not ours:
                    row["loss_difference"] = abs(trainer.loss / ours.loss - 1)
                    row["speed_ratio"] = timing.median / timings["tfmodels"].median
                yield row


def write_trained(folder: str, shape: str, batch: int, length: int) -> None:
    """Write a checkpoint of random weights, and beside it a batch for its head."""
    TFModelsSide.prepare()
    _, config = write_random(folder, TRAINED[shape])
    ids = random_ids(batch, length, config.vocab_size)
    labels = ids if TRAINED[shape][1] == "ForCausalLM" else np.arange(batch) % config.num_labels
    np.savez(Path(folder) / "batch.npz", input_ids=ids, attention_mask=np.ones_like(ids), labels=labels)


class Trainer:
    """A side in a process of its own, which takes a step each time it is asked to."""

    def __init__(self, running: contextlib.ExitStack, *arguments: Any):
        self.process = running.enter_context(concurrent.futures.ProcessPoolExecutor(1, mp_context=SPAWN))
        self.variants, self.loss = self.process.submit(begin_training, *arguments).result()
        self.losses: list[float] = []

    def step(self, variant: str) -> None:
        loss, self.peak_bytes = self.process.submit(take_step, variant).result()
        self.losses.append(loss)


_TRAINING: dict[str, Any] = {}  # of a Trainer's process: what goes on there


def begin_training(side_name: str, folder: str, *settings: Any) -> tuple[list[str], float]:
    """The side's variants, and the loss before training."""
    side = TRAINING_SIDES[side_name]
    side.prepare()
    before = reset_peak()
    with np.load(Path(folder) / "batch.npz") as file:
        batch = dict(file)
    trained = side(folder, *settings)
    _TRAINING.update(variants=trained.variants(), batch=batch, before=before)
    return list(_TRAINING["variants"]), trained.loss(batch)


def take_step(variant: str) -> tuple[float, int]:
    """The loss, and the peak of resident memory beyond what it was after the imports."""
    loss = _TRAINING["variants"][variant].step(_TRAINING["batch"])
    return loss, peak_memory() - _TRAINING["before"]
