"""Measure tfmodels, and transformers with PyTorch beside it on the same weights in the same run.

    python -m tools.bench generate --model stories260K --quantize int8,int4 --peer torch
    python -m tools.bench forward --shape 12,768,12 --peer torch --json forward.json
    python -m tools.bench load | train --peer torch
    python -m tools.bench export --model stories260K

On a CPU the sides take turns round by round, so that whatever else the machine does falls on both; a side's first call
(with compilation) is timed apart, and medians over the rounds are reported. The peer needs `pip install -e '.[bench]'`
and runs with one thread and with all cores, in inference mode unless it trains. To measure another thing, add an entry
to BENCHMARKS; another peer, to the SIDES of `sides`. The modules `serving`, `gpu`, `scale`, `engine`, `report` (plot)
and `before_after` describe the other commands.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tfmodels.utils.cores import available_cores
from tools.bench import before_after, cpu, engine, gpu, report, scale, serving
from tools.bench.arguments import add_json, add_number
from tools.bench.cpu import Row

VERSIONS = ("tfmodels", "tensorflow", "keras", "numpy", "torch", "transformers")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark: its arguments, a function that yields rows and tells what they are, and the columns of the table.

    Fields:
        columns: "key=heading:format|..." ; the heading is the key where it is left out, as the format is for words.
            Rows may lack keys.
        peer: whether --peer torch is possible.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Iterator[Row]]
    columns: str
    peer: bool = True

    def shown(self, rows: list[Row]) -> list[tuple[str, str, str]]:
        """Key, heading and format of the columns that have values."""
        found = []
        for column in self.columns.split("|"):
            name, _, form = column.partition(":")
            key, _, heading = name.partition("=")
            if any(row.get(key) is not None for row in rows):
                found.append((key, heading or key.replace("_", " "), form))
        return found


FASTER = "speed_ratio=tfmodels is faster by:.2f"
BENCHMARKS = {
    "load": Benchmark(
        cpu.add_load,
        cpu.run_load,
        "side|stored|dtype=loaded as|weights_gb=weights GB:.2f|peak_gb=peak GB:.2f"
        "|peak_ratio=peak / weights:.2f|load_s:.2f|read_s:.2f|read_ratio=load / read:.2f",
    ),
    "forward": Benchmark(
        cpu.add_forward,
        cpu.run_forward,
        "side|batch:d|length:d|ms:.2f|ms_low=least:.2f|ms_high=most:.2f|first_call_s:.2f|max_difference:.1e|" + FASTER,
    ),
    "embed": Benchmark(
        cpu.add_embed,
        cpu.run_embed,
        "side|input|rows:d|rows_per_s=rows/s:,.1f|s:.3f|first_call_s:.2f|spearman:.5f|max_difference:.1e|" + FASTER,
    ),
    "export": Benchmark(
        functools.partial(cpu.add_model, prompt_length=16),
        cpu.run_export,
        "side|megabytes=MB:,.1f|first_token_ms:.2f|ms_per_token=ms/token:.2f|first_call_s:.2f|ids_equal:.1%"
        "|time_ratio=time / in process:.2f",
        peer=False,
    ),
    "generate": Benchmark(
        cpu.add_generate,
        cpu.run_generate,
        "side|batch:d|megabytes=MB:,.0f|prefill_ms:.2f|tokens_per_s=tokens/s:,.0f|total_s:.3f|first_call_s:.2f|ids_equal:.1%"
        "|speed_ratio=tfmodels decodes faster by:.2f|prefill_ratio=prefills faster by:.2f",
    ),
    "serve": Benchmark(
        serving.add_arguments,
        serving.run,
        "side|clients:d|requests:d|refused:d|failed:d|tokens_per_s=tokens/s:,.0f|ratio=of the engine:.2f"
        "|first_token_ms=first token ms:,.0f|first_token_p95_ms=95 %:,.0f|recovery_s:.2f|memory_mb=MB before:,.0f"
        "|memory_after_mb=MB after:,.0f",
        peer=False,
    ),
    "train": Benchmark(
        cpu.add_train,
        cpu.run_train,
        "side|shape|batch:d|length:d|ms:,.0f|ms_low=least:,.0f|ms_high=most:,.0f|first_call_s:.1f|peak_gb=peak GB:.2f"
        "|loss_difference:.0e|" + FASTER,
    ),
}
# Modules with a command of their own.
OTHERS = {"gpu": gpu, "scale": scale, "engine": engine, "plot": report, "before-after": before_after}


def machine() -> dict[str, Any]:
    """The machine's properties that the numbers depend on."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as cpuinfo:
        processor = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    found = {"processor": processor, "cores": available_cores(), "system": platform.platform()}
    found["python"] = platform.python_version()
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
    columns = benchmark.shown(rows)
    for _, heading, form in columns:
        table.add_column(heading, justify="right" if form else "left")
    for row in rows:
        table.add_row(*("" if row.get(key) is None else format(row[key], form) for key, _, form in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def parser_of_all() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools.bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, benchmark in BENCHMARKS.items():
        about = benchmark.run.__doc__.splitlines()[0]
        command = commands.add_parser(name, help=about, description=about)
        benchmark.add_arguments(command)
        if benchmark.peer:
            command.add_argument("--peer", choices=("torch",), help="also measure this one")
        add_number(command, "--rounds", 5)
        add_json(command)
    for name, module in OTHERS.items():
        commands.add_parser(name, help=module.__doc__.splitlines()[0], add_help=False)
    return parser


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in OTHERS:
        OTHERS[arguments[0]].main(arguments[1:])
        return
    options = parser_of_all().parse_args(arguments)
    benchmark = BENCHMARKS[options.benchmark]
    about = {"command": shlex.join(["tools/benchmark.py", *arguments]), "machine": machine(), "versions": versions()}
    print(f"$ {about['command']}")
    print(", ".join(f"{key} {value}" for key, value in {**about["machine"], **about["versions"]}.items()), flush=True)
    if about["machine"].get("load_average", 0) > 0.5:
        print("Other processes are busy on this machine: the numbers below are not to be trusted.", file=sys.stderr)
    rows = list(benchmark.run(options))
    show(benchmark, rows)
    if options.json:
        options.json.write_text(json.dumps({**about, "benchmark": options.benchmark, "rows": rows}, indent=1) + "\n")
