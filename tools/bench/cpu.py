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


def compared(name: str, value: Callable[[], float]) -> float | None:
    """A number that compares a side with the first one; None for the first one itself."""
    return None if name in ("tfmodels", "in process") else value()


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
    """Time one new token and `new` of them: (side, timing of one, of all, share of ids equal to the first side's)."""
    actions: Actions = {}
    for name, action in generate.items():
        actions[f"{name} 1"] = functools.partial(action, ids, 1)
        actions[f"{name} all"] = functools.partial(action, ids, new)
    timings, results = take_turns(actions, rounds)
    ours = results[f"{next(iter(generate))} all"]
    for name in generate:
        equal = compared(name, functools.partial(equal_ids, ours, results[f"{name} all"]))
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
                yield {
                    "side": name,
                    "batch": batch,
                    "megabytes": sizes[name],
                    "prefill_ms": 1e3 * one.median,
                    "tokens_per_s": speed[name],
                    **every.row("total_s"),
                    "ids_equal": equal,
                    "speed_ratio": compared(name, lambda name=name: speed[first] / speed[name]),
                    "prefill_ratio": compared(name, lambda name=name: prefill[name] / prefill[first]),
                }


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
        generate, sizes = {"in process": side.generate}, {"in process": None}
        for name, (form, choices) in EXPORTS.items():
            place = Path(exported) / (name.replace(" ", "-") + FORMATS[form].suffix)
            report = side.model.export(place, format=form, max_length=options.prompt_length + new, **choices)
            generate[name], sizes[name] = FORMATS[form].load().open(report.path).generate, report.bytes
        for name, one, every, equal in decode(generate, ids, new, options.rounds):
            per_token[name] = 1e3 * (every.median - one.median) / (new - 1)
            yield {
                "side": name,
                "megabytes": sizes[name] and sizes[name] / 1e6,
                "first_token_ms": 1e3 * one.median,
                "ms_per_token": per_token[name],
                "first_call_s": every.first,
                "ids_equal": equal,
                "time_ratio": compared(name, lambda name=name: per_token[name] / per_token["in process"]),
            }


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
                for name, timing, against in passes(actions, options.rounds):
                    head = {"side": name, "batch": batch, "length": length}
                    yield {**head, **timing.row("ms", 1e3), **against}


def passes(actions: Actions, rounds: int) -> Iterator[tuple[str, Timing, Row]]:
    """Time each side: (side, timing, how it compares with this package)."""
    timings, results = take_turns(actions, rounds)
    ours, own = timings["tfmodels"].median, results["tfmodels"]
    for name, timing in timings.items():
        difference = compared(name, functools.partial(largest_difference, results[name], own))
        ratio = None if difference is None else timing.median / ours
        yield name, timing, {"max_difference": difference, "speed_ratio": ratio}


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
    """Texts of mixed length from text to vectors, then single batches of equal length from ids to vectors."""
    sides = open_sides(options, options.model, ENCODER_SIDES)
    texts = some_texts(options.texts)
    vocab = sides["tfmodels"].model.model.config.vocab_size
    mixed = {name: functools.partial(side.encode, texts, options.batch) for name, side in sides.items()}
    kinds: dict[str, tuple[int, Actions]] = {"texts of mixed length": (len(texts), mixed)}
    for length in options.length:
        ids = random_ids(options.batch, length, vocab)
        kinds[f"{length} ids each"] = options.batch, {name: side.forward(ids) for name, side in sides.items()}
    for kind, (rows, actions) in kinds.items():
        for name, timing, against in passes(actions, options.rounds):
            head = {"side": name, "input": kind, "rows": rows, "rows_per_s": rows / timing.median}
            yield {**head, **timing.row(), "spearman": None, **against}
    if options.pairs:
        yield from run_pairs(options, sides)


def run_pairs(options: argparse.Namespace, sides: dict[str, Any]) -> Iterator[Row]:
    """Rank correlation of the cosines of pairs of texts with the scores that people gave, and both sides' vectors."""
    from scipy.stats import spearmanr

    with options.pairs.open(newline="", encoding="utf-8") as file:
        first, second, scores = zip(*csv.reader(file), strict=True)
    actions = {name: functools.partial(side.encode, [*first, *second], options.batch) for name, side in sides.items()}
    timings, vectors = take_turns(actions, options.rounds)
    ours = timings["tfmodels"].median
    for name, found in vectors.items():
        cosines = np.sum(unit_rows(found[: len(first)]) * unit_rows(found[len(first) :]), axis=1)
        yield {
            "side": name,
            "input": "pairs",
            "rows": len(found),
            "rows_per_s": len(found) / timings[name].median,
            **timings[name].row(),
            "spearman": float(spearmanr(cosines, [float(score) for score in scores]).statistic),
            "max_difference": None if name == "tfmodels" else largest_difference(found, vectors["tfmodels"]),
            "speed_ratio": None if name == "tfmodels" else timings[name].median / ours,
        }
