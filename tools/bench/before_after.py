"""Measure this checkout and another one in turns, and compare them row by row.

    python -m tools.bench before-after --against ../older -- generate --model stories15M --batch 1,4 --rounds 3
    python -m tools.bench before-after --against ../older --times 2 -- gpu decode --batch 1 --length 2048

Each checkout's own tools/bench runs as a process with --json, as often as --times says, the older one first
every other time. The medians of their rows are compared: a ratio above 1 means that this checkout is slower.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.bench import ROOT
from tools.bench.arguments import benchmark, table

# Fields that say which row of a report a row is.
PLACE = ("what", "how", "side", "shape", "stored", "dtype", "input", "devices", "batch", "length")
# Fields that are compared, smaller ones being better; those of `RATES` are turned over.
TIMES = ("ms", "prefill_ms", "first_token_ms", "ms_per_token", "total_s", "load_s", "first_call_s", "first_ms")
RATES = ("tokens_per_s", "rows_per_s")
MEMORY = ("peak_gb", "peak_mib")

Rows = dict[tuple[Any, ...], dict[str, float]]


@benchmark(
    "before-after",
    "json",
    {
        "--against": {"type": Path, "required": True, "metavar": "FOLDER", "help": "the other, older checkout"},
        "--times": ("3", "runs of each"),
        "command": {"nargs": argparse.REMAINDER, "metavar": "-- BENCHMARK ...", "help": "of this package"},
    },
)
def before_after(options: argparse.Namespace) -> None:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise argparse.ArgumentTypeError("say which benchmark is to run: -- generate --model stories15M, for example")
    if not (options.against / "tools" / "bench").is_dir():
        raise argparse.ArgumentTypeError(f"--against {options.against}: no tools/bench is there")
    folders = {"before": options.against.resolve(), "after": ROOT}
    runs: dict[str, list[Rows]] = {name: [] for name in folders}
    for number in range(options.times):
        for name in list(folders)[:: 1 if number % 2 == 0 else -1]:
            print(f"{name}, {number + 1} of {options.times}", file=sys.stderr, flush=True)
            runs[name].append(run(folders[name], command))
    rows = compare(runs["before"], runs["after"])
    print(f"$ {shlex.join(command)}", *lines(rows), sep="\n")
    if options.json:
        options.json.write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n")


def run(checkout: Path, command: list[str]) -> Rows:
    """Rows of numbers that a checkout's own benchmark measures, by their place."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        line = [sys.executable, "-m", "tools.bench", *command, "--json", str(file)]
        done = subprocess.run(line, cwd=checkout, stdout=subprocess.DEVNULL, check=False)
        if done.returncode or not file.is_file():
            sys.exit(f"tools.bench: {shlex.join(command)} of {checkout} ended with status {done.returncode}")
        rows = json.loads(file.read_text())["rows"]
    compared = (*TIMES, *RATES, *MEMORY)
    return {
        tuple(row.get(name) for name in PLACE): {name: row[name] for name in compared if row.get(name) is not None}
        for row in rows
    }


def compare(before: list[Rows], after: list[Rows]) -> list[dict[str, Any]]:
    """A row for each number that both checkouts measured, with the medians over the runs and their ratio."""
    found = []
    for place, name in ((place, name) for place, numbers in after[0].items() for name in numbers):
        old, new = ([rows[place][name] for rows in runs if name in rows.get(place, ())] for runs in (before, after))
        if not old or not new:
            continue
        medians = statistics.median(old), statistics.median(new)
        ratio = medians[0] / medians[1] if name in RATES else medians[1] / medians[0]
        spread = max((max(values) - min(values)) / statistics.median(values) for values in (old, new))
        row = {key: value for key, value in zip(PLACE, place, strict=True) if value is not None}
        row |= {"number": name, "before": medians[0], "after": medians[1], "ratio": ratio, "spread": spread}
        found.append(row)
    return found


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown; the spread is that of the runs of one checkout, and ratios within it mean nothing."""
    shown = [{**row, "row": " ".join(f"{name} {row[name]}" for name in PLACE if name in row)} for row in rows]
    columns = "row|number|before:.4g|after:.4g|ratio=ratio, above 1 slower:.3f|spread:.1%"
    return table(shown, columns)
