"""Benchmarks on a CPU.

The sides take turns round by round, so that whatever else the machine does falls on both. A side's first call (with
compilation) is timed apart, and medians over the rounds are reported. The peer runs with one thread and with all
cores. Loading and training give each side a process of its own, whose peak memory they measure.
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
import multiprocessing.managers
import operator
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.arguments import DTYPES, Row, benchmark, some_of
from tools.bench.shapes import TRAINED, checkpoint_of, inputs_of, random_ids, write_random
from tools.bench.sides import ENCODER_SIDES, QUANTIZED, SIDES, Batch, TFModelsSide, open_sides, unit_rows
from tools.memory import peak_memory, reset_peak

SPAWN = multiprocessing.get_context("spawn")  # fresh processes
Actions = dict[Any, Callable[[], Any]]

_QUANTIZE = "also the model with weights quantised so: int8, int4, or gguf for those that a GGUF file holds"
_PAIRS = "CSV of two texts and a score a line: correlation with cosines"


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
    seconds, results = alternate(actions, rounds)
    spans = {name: (statistics.median(values), min(values), max(values)) for name, values in seconds.items()}
    return {name: Timing(first[name], *span) for name, span in spans.items()}, results


def alternate(actions: Actions, rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of actions in each round, and their last results."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    results = {}
    for turn in range(rounds):
        # Every other round goes backwards: being first is no advantage.
        for name in list(actions)[:: 1 if turn % 2 == 0 else -1]:
            elapsed, results[name] = timed(actions[name])
            seconds[name].append(elapsed)
    return seconds, results


def decode(sides: dict[str, Callable[[int], Any]], new: int, rounds: int) -> Iterator[tuple[str, Timing, Timing, Row]]:
    """Time one new token and `new` of them: (side, both timings, the share of ids that equal the first side's)."""
    actions = {(name, count): functools.partial(side, count) for name, side in sides.items() for count in (1, new)}
    timings, results = take_turns(actions, rounds)
    first, *others = sides
    equal = {name: {"ids_equal": equal_ids(results[first, new], results[name, new])} for name in others}
    for name in sides:
        yield name, timings[name, 1], timings[name, new], equal.get(name, {})


@benchmark(
    "generate",
    "model|shape dtype=float32 prompt-length=64 max-new-tokens=128 batch=1,4 peer rounds=5 json",
    {
        "--quantize": {"type": some_of(QUANTIZED), "default": [], "metavar": "MODE,...", "help": _QUANTIZE},
        "--gguf-file": {"metavar": "NAME", "help": "a GGUF file in the folder --model, for --quantize gguf"},
    },
)
def run_generate(options: argparse.Namespace) -> Iterator[Row]:
    """Greedy decoding of exactly --max-new-tokens tokens: the first takes prefill's time, the others decoding's."""
    new, speed, prefill = options.max_new_tokens, {}, {}
    with checkpoint_of(options) as folder:
        sides = open_sides(options, folder)
        for batch in options.batch:
            given = inputs_of("decode", batch, options.prompt_length, sides[0].model.config.vocab_size)
            generate, sizes = {}, {}
            for side in sides:
                own = side.variants(side.prepare("decode", given))
                generate |= own
                sizes |= dict.fromkeys(own, side.weights_bytes() / 1e6)
            for name, one, every, equal in decode(generate, new, options.rounds):
                first = next(iter(generate))
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


@benchmark(
    "export",
    "model|shape dtype=float32 prompt-length=16 max-new-tokens=128 rounds=5 json",
)
def run_export(options: argparse.Namespace) -> Iterator[Row]:
    """Greedy decoding of one row in process and by exported artefacts."""
    from tfmodels import GenerationConfig
    from tfmodels.export import FORMATS

    TFModelsSide.load_libraries()
    new, per_token = options.max_new_tokens, {}
    with checkpoint_of(options) as folder, tempfile.TemporaryDirectory() as exported:
        side = TFModelsSide(folder, options.dtype)
        side.model.generation_config = GenerationConfig(pad_token_id=0)  # no token ends the text
        given = inputs_of("decode", 1, options.prompt_length, side.model.config.vocab_size)
        generate, sizes = {"in process": side.prepare("decode", given)}, {}
        for name, (form, choices) in EXPORTS.items():
            place = Path(exported) / (name.replace(" ", "-") + FORMATS[form].suffix)
            report = side.model.export(place, format=form, max_length=options.prompt_length + new, **choices)
            opened, ids = FORMATS[form].load().open(report.path), given["input_ids"].astype("int32")
            generate[name], sizes[name] = functools.partial(opened.generate, ids), report.bytes
        for name, one, every, equal in decode(generate, new, options.rounds):
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


@benchmark(
    "forward",
    "model|shape dtype=float32 batch=1,4 length=16,64,256 peer rounds=5 json",
)
def run_forward(options: argparse.Namespace) -> Iterator[Row]:
    """One pass over whole sequences."""
    with checkpoint_of(options) as folder:
        sides = open_sides(options, folder)
        vocab = sides[0].model.config.vocab_size
        for batch, length in itertools.product(options.batch, options.length):
            actions = prepared(sides, "forward", batch, length, vocab)
            for name, timing, _, against in passes(actions, options.rounds):
                yield {"side": name, "batch": batch, "length": length, **timing.row("ms", 1e3), **against}


def prepared(sides: list[Any], what: str, *sizes: int) -> Actions:
    """Actions of sides on random inputs; the first call of each prepares it."""
    actions, given = {}, inputs_of(what, *sizes)
    for side in sides:
        make = functools.cache(functools.partial(side.prepare, what, given))
        actions |= side.variants(lambda make=make: make()())
    return actions


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


@benchmark(
    "embed",
    "dtype=float32 batch=32 length=32,128 peer rounds=5 json",
    {
        "--model": {"required": True, "help": "folder or hub id of a sentence-transformers model"},
        "--texts": ("512", "texts of mixed length"),
        "--pairs": {"type": Path, "metavar": "FILE", "help": _PAIRS},
    },
)
def run_embed(options: argparse.Namespace) -> Iterator[Row]:
    """Sentence vectors of texts of mixed length, of batches of ids of equal length, and of --pairs."""
    sides = open_sides(options, options.model, ENCODER_SIDES)
    vocab = sides[0].model.model.config.vocab_size

    def encoding(texts: list[str]) -> tuple[int, Actions]:
        own = [side.variants(functools.partial(side.encode, texts, options.batch)) for side in sides]
        return len(texts), functools.reduce(operator.or_, own)

    kinds = {"texts of mixed length": encoding(some_texts(options.texts))}
    for length in options.length:
        kinds[f"{length} ids each"] = options.batch, prepared(sides, "embed", options.batch, length, vocab)
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


@benchmark(
    "load",
    "shape=24,1024,16,16,4608,32000 peer rounds=5 json",
    {
        "--stored": {"choices": DTYPES, "default": "bfloat16", "help": "dtype of the file (%(default)s)"},
        "--to": {"type": some_of(DTYPES), "default": "bfloat16,float32", "metavar": "DTYPE,...", "help": "to load as"},
    },
)
def run_load(options: argparse.Namespace) -> Iterator[Row]:
    """Load a synthetic checkpoint in a fresh process: time and peak memory over imports."""
    with tempfile.TemporaryDirectory() as folder:
        TFModelsSide.load_libraries()
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
    side.load_libraries()
    before = reset_peak()
    seconds, _ = timed(lambda: side(folder, dtype))
    return seconds, peak_memory() - before


@benchmark(
    "train",
    "batch=8 length=128 peer rounds=5 json",
    {
        "--shape": {"type": some_of(TRAINED), "default": [*TRAINED], "metavar": "NAME,...", "help": ",".join(TRAINED)},
        "--xla": {"action": "store_true", "help": "also measure compile(..., jit_compile=True)"},
    },
)
def run_train(options: argparse.Namespace) -> Iterator[Row]:
    """A training step, float32: forward pass, gradients and AdamW; dropout as the configuration says."""
    processes: list[tuple[str, dict[str, Any]]] = [("tfmodels", {})]
    processes += [("tfmodels", {"jit_compile": True})] if options.xla else []
    processes += [(options.peer, {})] if options.peer else []
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
            TFModelsSide.load_libraries()
            _, config = write_random(folder, TRAINED[shape])
            ids = random_ids(options.batch, options.length, config.vocab_size)
            labels = ids if TRAINED[shape][1] == "ForCausalLM" else np.arange(len(ids)) % config.num_labels
            batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": labels}
            trainers = {}
            for side, compile_options in processes:
                manager = running.enter_context(Trainers(ctx=SPAWN))
                trainer = manager.Trainer(side, folder, TRAINED[shape][1], batch, compile_options)
                trainers |= dict.fromkeys(trainer.variants(), trainer)
            actions = {name: functools.partial(trainer.step, name) for name, trainer in trainers.items()}
            timings, _ = take_turns(actions, options.rounds)
            ours = trainers["tfmodels"].measured()
            for name, timing in timings.items():
                row = {"side": name, "shape": shape, "batch": options.batch, "length": options.length}
                row |= {**timing.row("ms", 1e3), **trainers[name].measured()}
                if trainers[name] is not trainers["tfmodels"]:
                    row["loss_difference"] = abs(row["first_loss"] / ours["first_loss"] - 1)
                    row["speed_ratio"] = timing.median / timings["tfmodels"].median
                yield row


class Trainer:
    """A side that takes a step each time it is asked to."""

    def __init__(self, side_name: str, folder: str, head: str, batch: Batch, compile_options: dict[str, Any]):
        SIDES[side_name].load_libraries()
        self.before = reset_peak()
        side = SIDES[side_name](folder, "float32", head)
        side.name += "".join(f", {key}={value}" for key, value in compile_options.items())
        self.first_loss, self.losses = side.loss(batch), []
        self.steps = side.variants(side.prepare("fit", batch, **compile_options))

    def variants(self) -> list[str]:
        return list(self.steps)

    def step(self, variant: str) -> None:
        self.losses.append(float(self.steps[variant]()))

    def measured(self) -> Row:
        """The loss before training and after each step of all variants; the peak of memory beyond the imports."""
        peak = peak_memory() - self.before
        return {"peak_gb": peak / 1e9, "first_loss": self.first_loss, "losses": self.losses}


class Trainers(multiprocessing.managers.BaseManager):
    """A process of its own for a trainer."""


Trainers.register("Trainer", Trainer)
