"""Measure tfmodels, and transformers with PyTorch beside it on the same weights in the same run.

    python -m tools.bench generate --model stories260K --quantize int8,int4 --peer torch
    python -m tools.bench forward --shape 12,768,12 --peer torch --json forward.json
    python -m tools.bench load | train --peer torch
    python -m tools.bench export --model stories260K

The peer needs `pip install -e '.[bench]'`. `cpu` says how the sides are compared there; `gpu`, `scale`, `engine`,
`serving`, `report` (plot) and `before_after` describe their commands. To measure another thing, write a function and
make it a `benchmark`; another peer, add it to the SIDES of `sides`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from typing import Any

from tfmodels.utils.cores import available_cores
from tools.bench import before_after, cpu, engine, gpu, report, scale, serving  # noqa: F401 - what they register
from tools.bench.arguments import BENCHMARKS, table

VERSIONS = ("tfmodels", "tensorflow", "keras", "numpy", "torch", "transformers")


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


def parser_of_all() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools.bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, benchmark in BENCHMARKS.items():
        about = benchmark.run.__doc__ or sys.modules[benchmark.run.__module__].__doc__
        kind = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=about.splitlines()[0], description=about, formatter_class=kind)
        benchmark.add_arguments(command)
    return parser


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:2] == ["gpu", "--side"]:
        gpu.measure_side(*arguments[2:])
        return
    parser = parser_of_all()
    options = parser.parse_args(arguments)
    options.arguments = arguments
    benchmark = BENCHMARKS[options.benchmark]
    try:
        measured = benchmark.run(options)
    except argparse.ArgumentTypeError as error:  # options that do not go together
        parser.error(str(error))
    if measured is None:
        return
    command = shlex.join(["python", "-m", "tools.bench", *arguments])
    about = {"command": command, "machine": machine(), "versions": versions()}
    print(f"$ {command}")
    print(", ".join(f"{key} {value}" for key, value in {**about["machine"], **about["versions"]}.items()), flush=True)
    if about["machine"].get("load_average", 0) > 0.5:
        print("Other processes are busy on this machine: the numbers below are not to be trusted.", file=sys.stderr)
    rows = []
    for row in measured:
        rows.append(row)
        if not benchmark.tabled:
            print(json.dumps(row), flush=True)
    if benchmark.tabled:
        print(*table(rows), sep="\n")
    if options.json:
        options.json.write_text(json.dumps({**about, "benchmark": options.benchmark, "rows": rows}, indent=1) + "\n")
