"""Benchmarks of the running process: decoding, exports, forward passes and sentence vectors; each yields rows."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.shapes import DTYPES, checkpoint_of, llama_shape, numbers, random_ids, some_of
from tools.bench.sides import ENCODER_SIDES, QUANTIZED, TFModelsSide, open_sides, unit_rows

Row = dict[str, Any]
Actions = dict[str, Callable[[], Any]]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one action: its first call, and the median, least and most of the rounds after it."""

    first: float
    median: float
    low: float
    high: float

    def row(self, name: str = "s", factor: float = 1.0) -> Row:
        """The fields of a report's row; `name` is the unit, of which a second has `factor`."""
        row = {name: factor * self.median, f"{name}_low": factor * self.low, f"{name}_high": factor * self.high}
        return row | {"first_call_s": self.first}


def take_turns(actions: Actions, rounds: int) -> tuple[dict[str, Timing], dict[str, Any]]:
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


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype("float32") - other.astype("float32")).max())


def add_model(parser: argparse.ArgumentParser, prompt_length: int | None = None) -> None:
    """The arguments that choose a model and, where a prompt has a length, how much is decoded."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="folder, hub id or bundled name of a causal language model")
    which.add_argument(
        "--shape", type=llama_shape, help="a random Llama: layers,hidden,heads[,kv_heads[,intermediate[,vocab]]]"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(%(default)s)")
    if prompt_length is not None:
        about = "tokens per prompt (%(default)s)"
        parser.add_argument("--prompt-length", type=int, default=prompt_length, metavar="N", help=about)
        parser.add_argument(
            "--max-new-tokens", type=int, default=128, metavar="N", help="exactly so many (%(default)s)"
        )


def add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=numbers, default=[1, 4], metavar="N,...", help="batch sizes (1,4)")


def add_generate(parser: argparse.ArgumentParser) -> None:
    add_model(parser, prompt_length=64)
    add_batch(parser)
    about = "also the model with weights quantised so: int8, int4, or gguf for those that a GGUF file holds"
    parser.add_argument("--quantize", type=some_of(QUANTIZED), default=[], metavar="MODE,...", help=about)
    parser.add_argument("--gguf-file", metavar="NAME", help="a GGUF file in the folder --model, for --quantize gguf")


def add_export(parser: argparse.ArgumentParser) -> None:
    add_model(parser, prompt_length=16)


def add_forward(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_batch(parser)
    parser.add_argument("--length", type=numbers, default=[16, 64, 256], metavar="N,...", help="lengths (16,64,256)")


def add_embed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="folder or hub id of a sentence-transformers model")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(%(default)s)")
    parser.add_argument("--texts", type=int, default=512, metavar="N", help="texts of mixed length (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="texts at a time (%(default)s)")
    parser.add_argument("--length", type=numbers, default=[32, 128], metavar="N,...", help="equal lengths (32,128)")
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="CSV of two texts and a score a line: correlation with cosines",
    )


def decode(generate: dict[str, Callable[..., Any]], ids: np.ndarray, new: int, rounds: int) -> Iterator[tuple]:
    """Time one new token and `new` of them.

    Yields:
        (side, timing of one, of all, {} for the first side and {"ids_equal": share of its ids} for others).
    """
    actions: Actions = {}
    for name, action in generate.items():
        actions[f"{name} 1"] = functools.partial(action, ids, 1)
        actions[f"{name} all"] = functools.partial(action, ids, new)
    timings, results = take_turns(actions, rounds)
    first, *_ = generate
    for name in generate:
        equal = {"ids_equal": equal_ids(results[f"{first} all"], results[f"{name} all"])} if name != first else {}
        yield name, timings[f"{name} 1"], timings[f"{name} all"], equal


def run_generate(options: argparse.Namespace) -> Iterator[Row]:
    """Prefill is the time of one new token, decoding the further time that all of them take."""
    new, speed, prefill = options.max_new_tokens, {}, {}
    with checkpoint_of(options) as folder:
        sides = open_sides(options, folder)
        first = next(iter(sides))
        vocab = sides[first].model.config.vocab_size
        sizes = {name: side.model.get_memory_footprint() / 1e6 for name, side in sides.items()}
        for batch in options.batch:
            ids = random_ids(batch, options.prompt_length, vocab)
            generate = {name: side.generate for name, side in sides.items()}
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
    """Greedy decoding of one row, in the process that has the model and by its exported artefacts."""
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
    with checkpoint_of(options) as folder:
        sides = open_sides(options, folder)
        vocab = sides["tfmodels"].model.config.vocab_size
        for batch in options.batch:
            for length in options.length:
                ids = random_ids(batch, length, vocab)
                actions = {name: side.forward(ids) for name, side in sides.items()}
                for name, timing, _, against in passes(actions, options.rounds):
                    head = {"side": name, "batch": batch, "length": length}
                    yield {**head, **timing.row("ms", 1e3), **against}


def passes(actions: Actions, rounds: int) -> Iterator[tuple[str, Timing, np.ndarray, Row]]:
    """Time each side: (side, timing, result, how it compares with this package)."""
    timings, results = take_turns(actions, rounds)
    ours, own = timings["tfmodels"].median, results["tfmodels"]
    for name, timing in timings.items():
        against = {}
        if name != "tfmodels":
            against = {"max_difference": largest_difference(results[name], own), "speed_ratio": timing.median / ours}
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
    """Texts of mixed length from text to vectors, single batches of equal length from ids to vectors, and --pairs."""
    sides = open_sides(options, options.model, ENCODER_SIDES)
    texts = some_texts(options.texts)
    vocab = sides["tfmodels"].model.model.config.vocab_size
    mixed = {name: functools.partial(side.encode, texts, options.batch) for name, side in sides.items()}
    kinds: dict[str, tuple[int, Actions]] = {"texts of mixed length": (len(texts), mixed)}
    for length in options.length:
        ids = random_ids(options.batch, length, vocab)
        kinds[f"{length} ids each"] = options.batch, {name: side.forward(ids) for name, side in sides.items()}
    if options.pairs:
        with options.pairs.open(newline="", encoding="utf-8") as file:
            first, second, scores = zip(*csv.reader(file), strict=True)
        pairs = {
            name: functools.partial(side.encode, [*first, *second], options.batch) for name, side in sides.items()
        }
        kinds["pairs"] = 2 * len(scores), pairs
    for kind, (rows, actions) in kinds.items():
        for name, timing, vectors, against in passes(actions, options.rounds):
            row = {"side": name, "input": kind, "rows": rows, "rows_per_s": rows / timing.median}
            row |= {**timing.row(), **against}
            yield row | ({"spearman": correlation(vectors, scores)} if kind == "pairs" else {})


def correlation(vectors: np.ndarray, scores: tuple[str, ...]) -> float:
    """Rank correlation of the cosines of pairs of texts with the scores that people gave.

    Args:
        vectors: of all first texts, then of all second ones.
        scores: of the pairs.
    """
    from scipy.stats import spearmanr

    first, second = np.split(unit_rows(vectors), 2)
    return float(spearmanr(np.sum(first * second, axis=1), [float(score) for score in scores]).statistic)
