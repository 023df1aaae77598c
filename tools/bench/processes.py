"""Benchmarks that give each side a process of its own, whose peak memory they measure: loading and training."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
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

from tools.bench.cpu import Row, take_turns
from tools.bench.shapes import DTYPES, TRAINED, llama_shape, random_ids, some_of, write_random
from tools.bench.sides import SIDES, TRAINING_SIDES, TFModelsSide
from tools.memory import peak_memory, reset_peak

ROOT = Path(__file__).parent.parent.parent


def add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        type=llama_shape,
        default=llama_shape("24,1024,16,16,4608,32000"),
        help="as in `generate` (0.5 billion parameters)",
    )
    parser.add_argument("--stored", choices=DTYPES, default="bfloat16", help="dtype of the file (%(default)s)")
    parser.add_argument(
        "--to", type=some_of(DTYPES), default=["bfloat16", "float32"], metavar="DTYPE,...", help="to load as"
    )
    parser.add_argument("--cold", action="store_true", help="drop the file from the page cache before each reading")
    # A process of its own measures one load: peak memory cannot be reset portably.
    parser.add_argument("--child", help=argparse.SUPPRESS)


def run_load(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        TFModelsSide.prepare()
        count, _ = write_random(folder, options.shape, options.stored)
        file = Path(folder) / "model.safetensors"
        sides = ["tfmodels", *([options.peer] if options.peer else [])]
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
    return json.loads(run_child("load", str(file.parent), side, dtype))


def run_child(benchmark: str, *arguments: Any) -> str:
    """The last line that a benchmark's part prints in a process of its own, or nothing."""
    command = child_command(benchmark, *arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=child_environment())
    if done.returncode:
        sys.exit(f"benchmark: {shlex.join(command)} ended with status {done.returncode}")
    return done.stdout.rstrip("\n").rpartition("\n")[2]


def child_command(benchmark: str, *arguments: Any) -> list[str]:
    return [sys.executable, "-m", "tools.bench", benchmark, "--child", json.dumps(arguments)]


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child finds this checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def load_child(folder: str, side_name: str, dtype: str) -> None:
    """Load once and print seconds, and the peak of resident memory beyond what it was after the imports."""
    side = SIDES[side_name]
    side.prepare()
    before = reset_peak()
    start = time.perf_counter()
    model = side(folder, dtype)
    seconds = time.perf_counter() - start
    grown = peak_memory() - before
    del model
    print(json.dumps({"seconds": seconds, "peak_bytes": grown}))


def add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        type=some_of(TRAINED),
        default=list(TRAINED),
        metavar="NAME,...",
        help=f"random weights of these shapes, of {', '.join(TRAINED)} (all)",
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="rows of a batch (%(default)s)")
    parser.add_argument("--length", type=int, default=128, metavar="N", help="tokens of a row (%(default)s)")
    parser.add_argument("--xla", action="store_true", help="also measure compile(..., jit_compile=True)")
    # A process of its own trains each side: what it needs at most is then its own.
    parser.add_argument("--child", help=argparse.SUPPRESS)


def run_train(options: argparse.Namespace) -> Iterator[Row]:
    """A step is forward pass, gradients and AdamW over one batch, dropout as the configuration says."""
    processes: list[tuple[str, dict[str, Any]]] = [("tfmodels", {})]
    processes += [("tfmodels", {"jit_compile": True})] if options.xla else []
    processes += [(options.peer, {})] if options.peer else []
    for shape in options.shape:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
            write_trained(folder, shape, options.batch, options.length)
            trainers = {}
            for side, compile_options in processes:
                trainer = running.enter_context(Trainer(side, folder, compile_options))
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

    def __init__(self, *arguments: Any):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": child_environment()}
        self.process = subprocess.Popen(child_command("train", *arguments), **pipes)
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
    before = reset_peak()
    with np.load(Path(folder) / "batch.npz") as file:
        batch = dict(file)
    trained = side(folder, compile_options)
    variants = trained.variants()
    print(json.dumps({"variants": list(variants), "loss": trained.loss(batch)}), flush=True)
    for line in sys.stdin:
        loss = variants[line.rstrip("\n")].step(batch)
        print(json.dumps({"loss": loss, "peak_bytes": peak_memory() - before}), flush=True)


CHILDREN: dict[str, Callable[..., None]] = {"load": load_child, "train": train_child}
