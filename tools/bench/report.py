"""Rows of measurements on a GPU: collected from the sides' processes, written as JSON and Markdown, and drawn."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tools.bench.arguments import Row, benchmark, table

Cell = tuple[str, int, int]  # what, batch, length
GPU = "attn=auto device=gpu budget=inf rounds=20 json markdown"  # the options of a report


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Report:
    """The rows measured so far, written to --json and --markdown at every new one."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.failed = options, False
        self.rows: list[Row] = []
        self.about: list[Row] = []

    def run_side(self, python: list[str], name: str, job: Row, environment: dict[str, str] | None = None) -> None:
        """Run a side in its own process and collect its rows as they come."""
        left = job["deadline"] - time.time()
        within = "" if left == float("inf") else f", for {left:.0f} s"
        say(f"{job.get('peer') or name} starts{within}")
        command = [*python, "-m", "tools.bench", "gpu", "--side", name, json.dumps(job)]
        environment = {**os.environ, **(environment or {})}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            for line in process.stdout or ():
                if line.startswith('{"about"'):
                    self.about.append(json.loads(line))
                elif line.startswith('{"side"'):
                    self.rows.append(json.loads(line))
                    say(line.rstrip())
                    self.write()
        if process.returncode:
            say(f"tools.bench: {name} {job.get('peer', '')} ended with code {process.returncode}")
            self.failed = True

    def write(self) -> None:
        found = {"command": self.options.arguments, "about": self.about, "rows": self.rows}
        for file, text in ((self.options.json, json.dumps(found, indent=1)), (self.options.markdown, self.text())):
            if file:  # whole: whoever is stopped in between leaves the one before
                part = file.with_name(file.name + ".part")
                part.write_text(text + "\n")
                part.replace(file)

    def text(self) -> str:
        lines = ["    " + shlex.join(["python", "-m", "tools.bench", *self.options.arguments]), ""]
        for side in self.about:
            versions = ", ".join(f"{name} {value}" for name, value in side.items() if name not in ("about", "device"))
            lines.append(f"- {side['about']}: {side['device']}; {versions}")
        return "\n".join([*lines, "", *tables(self.rows)])

    def finish(self) -> None:
        self.write()
        print(self.text(), flush=True)
        ours = [row for row in self.rows if row["side"] in ("tfmodels", "scale")]
        sys.exit(self.failed or any(row.get("note", "").startswith("failed") for row in ours))


def tables(rows: list[Row]) -> list[str]:
    """Markdown, a table for every shape, dtype and task; that of decode is of the milliseconds of a token."""
    lines, groups = [], {}
    for row in rows:
        groups.setdefault((row.get("what", "scale"), row["shape"], row["dtype"]), []).append(row)
    for (what, shape, dtype), own in groups.items():
        attention = dict.fromkeys(row["attention"].replace("\n", "; ") for row in own if row.get("attention"))
        lines += [f"**{what}**, {shape}, {dtype}", "", *table(compared(own)), ""]
        lines += [*(f"- attention: {text}" for text in attention), ""]
    return lines


def compared(rows: list[Row]) -> list[Row]:
    """Rows of a table with what compares them: a peer's time with ours, several devices with one.

    Efficiency is tokens per second and device against one device.
    """
    found, ours, alone = [], {}, {}
    for row in sorted(rows, key=lambda row: (row["batch"], row["length"], row["side"]) if "what" in row else ()):
        row, place = {**row, "shape": None, "dtype": None}, (row["batch"], row["length"])
        found.append(row)
        if "ms" not in row:
            continue
        row["first_call_s"] = row["first_ms"] / 1e3
        if row["side"] == "tfmodels":
            ours[place] = row["ms"]
        elif place in ours:
            row["speed_ratio"] = row["ms"] / ours[place]
        if "copy_gb_s" in row:
            row["share"] = row["read_gb_s"] / row["copy_gb_s"]
        if "devices" in row:
            row["tokens_per_s"] = 1e3 * row["batch"] * row["length"] / row["ms"]
            each = row["tokens_per_s"] / row["devices"]
            if row["devices"] == 1:
                alone[row["how"]] = each
            row["efficiency"] = each / alone[row["how"]] if row["how"] in alone else None
    return found


def plot(rows: list[Row], file: Path) -> None:
    """Speed-up over each peer against the length, a panel per task and shape."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def cell_of(row: Row) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in ("what", "shape", "dtype", "batch", "length"))

    ours = {cell_of(row): row["ms"] for row in rows if row["side"] == "tfmodels" and "ms" in row}
    panels: dict[tuple[str, ...], dict[tuple[str, int], list[tuple[int, float]]]] = {}
    for row in rows:
        if cell_of(row) in ours and row["side"] not in ("tfmodels", "scale") and "ms" in row:
            lines = panels.setdefault((row["what"], row["shape"], row["dtype"]), {})
            points = lines.setdefault((row["side"], row["batch"]), [])
            points.append((row["length"], row["ms"] / ours[cell_of(row)]))
    if not panels:
        sys.exit("tools.bench: nothing to plot: no cell of tfmodels has a peer")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.2), squeeze=False)
    for axis, (panel, lines) in zip(axes[0], panels.items(), strict=True):
        for (side, batch), points in sorted(lines.items()):
            axis.plot(*zip(*sorted(points), strict=True), marker="o", label=f"{side}, batch {batch}")
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set_ylim(bottom=0)
        axis.set(title=", ".join(panel), xlabel="length", ylabel="time of the peer / time of tfmodels")
        axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


@benchmark(
    "plot",
    "",
    {
        "files": {"type": Path, "nargs": "+", "metavar": "FILE.json"},
        "--plot": {"type": Path, "default": Path("speed_up.png"), "metavar": "FILE", "help": "(%(default)s)"},
    },
)
def run_plot(options: argparse.Namespace) -> None:
    """Draw measurements of `gpu` that --json wrote."""
    plot([row for file in options.files for row in json.loads(file.read_text())["rows"]], options.plot)
