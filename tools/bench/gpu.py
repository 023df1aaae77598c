"""Measure on a GPU: training and forward passes, decoding and embedding, beside transformers on PyTorch.

    python -m tools.bench gpu train,forward --batch 1,2,4 --length 512,2048 --peer eager,sdpa --compile-threads 6
    python -m tools.bench gpu decode --batch 1,4 --length 2048 --peer static-compile
    python -m tools.bench gpu embed --peer sdpa

Every side runs in a process of its own, since TensorFlow and PyTorch may need different CUDA libraries, on random
weights. A round is one synchronised call, and the median of the rounds is reported; the first call, with compilation,
is timed apart, and peak memory is the allocators' own, of the calls after the first. Rows are reported and written as
soon as a cell is measured.

train is a forward and a backward pass, gradients of all weights included; fit is that and a step of AdamW, the mean of
20 steps without a wait in between, by Keras's `fit` here and with PyTorch's fused optimizer there. decode is the time
of a token: that of --new tokens less that of one, over the difference; the bytes that it has to read, the weights and
the cached positions, are set against the rate of a copy on the same device. embed is an encoder with mean pooling, its
vectors fetched. The peer static-compile is torch.compile, and for decode transformers' static cache with it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import shlex
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tools.bench.arguments import Row, benchmark, numbers, some_of
from tools.bench.cpu import timed
from tools.bench.report import GPU, Cell, Report, say
from tools.bench.scale import jax_scale, tensorflow_scale
from tools.bench.shapes import SHAPES, inputs_of
from tools.bench.sides import Side, TFModelsSide, TorchSide

FIT_STEPS = 20  # of a round
WHAT = ("train", "fit", "forward", "decode", "embed")
PEERS = ("eager", "sdpa", "flash_attention_2", "static-compile")
# Used where no option says otherwise.
DEFAULTS = {"shape": "pythia-410m", "dtype": "float16", "batch": [1, 4], "length": [512, 2048]}
EMBED_DEFAULTS = {"shape": "mpnet-base", "dtype": "bfloat16", "batch": [64], "length": [128]}


def measure_cells(side: Side) -> None:
    """Print a row of JSON for every cell.

    Programs are compiled several at once, but nothing is compiled while something is timed: as many cells as there
    are compile threads are compiled, then measured one after the other, and so on.
    """
    job = side.job
    copied = copy_rate(side) if any(what == "decode" for what, *_ in job["cells"]) else 0.0
    tracing = threading.Lock()  # it is Python and would not be faster at once; nor would times be a program's own

    def first_call(cell: Cell) -> tuple[Callable[..., None] | None, Row]:
        """The prepared call, or None where preparing it failed, and a row about it."""
        try:
            with tracing:
                start = time.perf_counter()
                run = side.prepare(cell[0], inputs_of(*cell, side.config.vocab_size))
                attention = side.describe()
            run(*{"decode": [job["new"]], "fit": [1]}.get(cell[0], []))
            if cell[0] in ("decode", "fit"):  # they are traced when they run
                attention = side.describe()
        except side.out_of_memory:
            return None, {"note": "out of memory"}
        except Exception as error:  # one cell that fails is a row that says so
            return None, {"note": f"failed: {type(error).__name__}: {str(error)[:200]}"}
        ms = 1e3 * (time.perf_counter() - start)
        say(f"{side.name}: first call of {cell[0]} {cell[1]} x {cell[2]} took {ms / 1e3:.1f} s")
        return run, {"first_ms": ms, "attention": attention}

    def time_cell(cell: Cell, run: Callable[..., None]) -> Row:
        what, batch, length = cell
        steps = {"decode": job["new"], "fit": FIT_STEPS}.get(what, 1)
        call = functools.partial(run, steps) if what in ("decode", "fit") else run

        def median(action: Callable[[], None]) -> float:
            return 1e3 * statistics.median(timed(action)[0] for _ in range(job["rounds"]))

        side.start_counting_memory()
        try:
            call()
            if what == "decode":
                one = median(lambda: run(1))
                ms = (median(call) - one) / (steps - 1)
                rate = side.bytes_read(batch, length) / ms / 1e6
                row = {"ms": ms, "prefill_ms": one, "read_gb_s": rate, "copy_gb_s": copied}
            else:
                row = {"ms": median(call) / steps}
        except side.out_of_memory:
            return {"note": "out of memory"}
        if job["profile"]:
            print_kernels(side.kernels(call), steps, job["profile"])
        peak = side.peak_memory()
        row["peak_mib"] = None if peak is None else peak / 2**20
        return row | ({"sentences_per_s": 1e3 * batch / row["ms"]} if what == "embed" else {})

    for wave in waves(job["cells"], job["compile_threads"]):
        if time.time() >= job["deadline"]:
            say(f"{side.name}: out of time from {' '.join(map(str, wave[0]))} on")
            break
        with concurrent.futures.ThreadPoolExecutor(len(wave)) as pool:
            made = list(pool.map(first_call, wave)) if len(wave) > 1 else [first_call(wave[0])]
        for cell in wave:
            run, row = made.pop(0)
            if row.get("note") == "out of memory" and len(wave) > 1:  # the others' first calls took it
                run, row = first_call(cell)
            if run is not None:
                row |= time_cell(cell, run)
            run = None
            print_row(side.name, job, cell, row | {"at_once": len(wave), "weights_bytes": side.weights_bytes()})


def print_kernels(kernels: list[tuple[str, int, float]], steps: int, most: int) -> None:
    """Say what a call's longest kernels take of each of its steps."""
    launched, taken = sum(n for _, n, _ in kernels) / steps, sum(us for *_, us in kernels) / steps
    say(f"{launched:.1f} kernels and {taken:.1f} us a step")
    for name, launches, us in kernels[:most]:
        say(f"{us / steps:9.1f} us a step  {launches / steps:6.1f} x {us / launches:8.2f} us  {name}")


def print_row(side: str, job: Row, cell: Cell, row: Row) -> None:
    what, batch, length = cell
    head = {"side": side, "what": what, "shape": job["shape"], "dtype": job["dtype"], "batch": batch, "length": length}
    print(json.dumps(head | row), flush=True)


def waves(cells: list[Cell], threads: int) -> Iterator[list[Cell]]:
    """Cells to compile at once; decoding, which traces several programs by itself, alone."""
    together = [cell for cell in cells if cell[0] != "decode"]
    for start in range(0, len(together), threads):
        yield together[start : start + threads]
    for cell in cells:
        if cell[0] == "decode":
            yield [cell]


def copy_rate(side: Side) -> float:
    """GB/s of a copy on the device, bytes read and bytes written."""
    size, times = (2**30, 20) if side.gpu else (2**26, 5)
    run = side.copier(size)
    run(2)
    return statistics.median(2 * size * times / timed(lambda: run(times))[0] / 1e9 for _ in range(5))


def measure_torch(job: Row) -> None:
    try:
        side = TorchSide.of_job(job)
    except (ImportError, ValueError) as error:  # not every model has every attention, nor every machine
        for cell in job["cells"]:
            print_row("torch " + job["peer"], job, cell, {"note": f"failed: {str(error)[:200]}", "at_once": 1})
    else:
        measure_cells(side)


def measure_side(name: str, job: str) -> None:
    """Measure a side, in the process that `Report.run_side` starts."""
    SIDES[name](json.loads(job))


SIDES: dict[str, Callable[[Row], None]] = {
    "tfmodels": lambda job: measure_cells(TFModelsSide.of_job(job)),
    "torch": measure_torch,
    "tensorflow": tensorflow_scale,
    "jax": jax_scale,
}


@benchmark(
    "gpu",
    f"shape:name dtype:gpu {GPU}",
    {
        "what": {"type": some_of(WHAT), "help": f"{', '.join(WHAT)}, comma-separated"},
        "--batch": {"type": numbers, "metavar": "N,...", "help": "(1,4; to embed 64)"},
        "--length": {"type": numbers, "metavar": "N,...", "help": "(512,2048; to embed 128)"},
        "--new": ("128", "tokens to decode"),
        "--quantize": {"choices": ("int8", "int4"), "help": "tfmodels with packed weights; not to train"},
        "--group": {
            "default": "channel",
            "metavar": "N",
            "help": "inputs that share a scale (%(default)s: all of an output)",
        },
        "--profile": ("0", "also print tfmodels' so many longest kernels"),
        "--peer": {"type": some_of(PEERS), "default": [], "metavar": "NAME,...", "help": ", ".join(PEERS)},
        "--compile-threads": ("1", "programs of tfmodels to compile at once"),
        "--torch-python": {"default": sys.executable, "help": "command of the interpreter that has PyTorch"},
    },
)
def run_gpu(options: argparse.Namespace) -> None:
    for name, value in (EMBED_DEFAULTS if "embed" in options.what else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    chosen, causal = set(options.what), SHAPES[options.shape][1] == "ForCausalLM"
    unfit = [name for name in options.what if name != "forward" and (name == "embed") == causal]
    for wrong, why in (
        (options.quantize and chosen & {"train", "fit"}, "packed weights are not trained"),
        (
            options.dtype == "mixed_bfloat16" and chosen - {"train", "fit"},
            "--dtype mixed_bfloat16 is for train and fit",
        ),
        (options.profile and options.device == "cpu", "--profile lists kernels of a GPU: leave it out on a CPU"),
        (unfit, f"{options.shape} is no model to {', '.join(unfit)}"),
    ):
        if wrong:
            raise argparse.ArgumentTypeError(why)
    cells = [(what, batch, length) for length in options.length for batch in options.batch for what in options.what]
    report = Report(options)
    # Peers come first and have their part of the time each: they rarely need it, and compiling takes what is left.
    end = time.time() + options.budget
    ours: Row = {**vars(options), "json": None, "markdown": None, "cells": cells, "deadline": end}
    for index, peer in enumerate(options.peer):
        left = (end - time.time()) / (len(options.peer) + 1 - index)
        theirs = {**ours, "profile": 0, "peer": peer, "compile_threads": 1, "deadline": time.time() + left}
        report.run_side(shlex.split(options.torch_python), "torch", theirs)
    report.run_side([sys.executable], "tfmodels", ours)
    report.finish()
