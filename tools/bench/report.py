"""Rows of measurements on a GPU: collected from the sides' processes, written as JSON and Markdown, and drawn."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tools.bench import ROOT
from tools.bench.arguments import DTYPES, add_json, add_number
from tools.bench.shapes import SHAPES

Measured = dict[str, Any]
Cell = tuple[str, int, int]  # what, batch, length


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Report:
    """What was measured so far, written out at every row.

    Args:
        command: its arguments.
        options: those of `add_common`; --json and --markdown are written.
    """

    def __init__(self, command: list[str], options: argparse.Namespace):
        self.command, self.options = command, options
        self.rows: list[Measured] = []
        self.about: list[Measured] = []
        self.failed = False

    def run_side(self, python: list[str], name: str, job: Measured, environment: dict[str, str] | None = None) -> None:
        """Run a side in its own process and collect its rows as they come."""
        say(f"{name} {job.get('peer', '')}: {job['deadline'] - time.time():.0f} s to start cells in")
        arguments = [*python, str(ROOT / "tools" / "benchmark.py"), "gpu", "--side", name, json.dumps(job)]
        environment = {**os.environ, **(environment or {})}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
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
        found = {"command": self.command, "about": self.about, "rows": self.rows}
        for file, text in ((self.options.json, json.dumps(found, indent=1)), (self.options.markdown, self.text())):
            if file:  # whole: whoever is stopped in between leaves the one before
                part = file.with_name(file.name + ".part")
                part.write_text(text + "\n")
                part.replace(file)

    def text(self) -> str:
        lines = ["    " + shlex.join(["python", "tools/benchmark.py", "gpu", *self.command]), ""]
        for side in self.about:
            versions = ", ".join(f"{name} {value}" for name, value in side.items() if name not in ("about", "device"))
            lines.append(f"- {side['about']}: {side['device']}; {versions}")
        return "\n".join([*lines, "", *tables(self.rows)])

    def finish(self) -> None:
        self.write()
        print(self.text(), flush=True)
        ours = [row for row in self.rows if row["side"] in ("tfmodels", "scale")]
        sys.exit(self.failed or any(row.get("note", "").startswith("failed") for row in ours))


def tables(rows: list[Measured]) -> list[str]:
    """Markdown, a table for every shape, dtype and task."""
    lines, groups = [], {}
    for row in rows:
        groups.setdefault((row.get("what", "scale"), row["shape"], row["dtype"]), []).append(row)
    for (what, shape, dtype), own in groups.items():
        made = scale_table(own) if what == "scale" else table(own, what)
        lines += [f"**{what}**, {shape}, {dtype}", "", *made, ""]
    return lines


def markdown(headings: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table."""
    first, *others = ("| " + " | ".join(cells) + " |" for cells in (headings, *rows))
    return [first, "|" + "---|" * len(headings), *others]


def table(rows: list[Measured], what: str) -> list[str]:
    """A line per cell: our time and memory, and each peer's with the ratio to ours; then notes."""
    sides = sorted(dict.fromkeys(row["side"] for row in rows), key=lambda side: side != "tfmodels")
    extra = {"decode": ["GB/s (of a copy's)"], "embed": ["sentences/s"]}.get(what, [])
    headings = ["batch x length"]
    for side in sides:
        headings += [f"{side} {'ms/token' if what == 'decode' else 'ms'}", *extra, "MiB", "first s"]
        headings += ["slower by"] if side != "tfmodels" else []
    found = {(row["side"], row["batch"], row["length"]): row for row in rows}
    lines, notes = [], {}
    for batch, length in sorted({(row["batch"], row["length"]) for row in rows}):
        ours = found.get(("tfmodels", batch, length), {})
        cells = [f"{batch} x {length}"]
        for side in sides:
            row = found.get((side, batch, length), {})
            note = row.get("note", "-")
            cells += measured_cells(row, what) if "ms" in row else [note.split(":")[0], "", "", *[""] * len(extra)]
            if note.startswith("failed"):
                notes[f"{side}: {note}"] = []
            if side != "tfmodels":
                cells.append(f"{row['ms'] / ours['ms']:.2f}x" if "ms" in row and "ms" in ours else "")
        lines.append(cells)
    for row in rows:
        if row.get("attention"):
            cells = notes.setdefault("attention: " + row["attention"].replace("\n", "; "), [])
            cells.append(f"{row['batch']} x {row['length']}")
        if what == "decode" and "copy_gb_s" in row:
            notes[f"{row['side']}: a copy on the device moves {row['copy_gb_s']:.0f} GB/s, read and written"] = []
        if row["at_once"] > 1:
            most = max(one["at_once"] for one in rows)
            notes[f"first calls of tfmodels: up to {most} programs compiled at once"] = []
    told = [f"- {text}" + (f" ({', '.join(cells)})" if cells else "") for text, cells in notes.items()]
    return [*markdown(headings, lines), "", *told]


def measured_cells(row: Measured, what: str) -> list[str]:
    """A side's time, rate, memory and first call."""
    cells = [f"{row['ms']:.2f}"]
    if what == "decode":
        cells.append(f"{row['read_gb_s']:.0f} ({100 * row['read_gb_s'] / row['copy_gb_s']:.0f} %)")
    elif what == "embed":
        cells.append(f"{row['sentences_per_s']:.0f}")
    return [*cells, "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}", f"{row['first_ms'] / 1e3:.1f}"]


def scale_table(rows: list[Measured]) -> list[str]:
    """A line per way and number of devices; efficiency is tokens per second and device against one device."""
    headings = ["how", "devices", "batch x length", "ms/step", "tokens/s", "efficiency", "first s"]
    headings += ["loss differs by", "weights by", "their update by"]
    lines, notes, alone = [], [], {}
    for row in rows:
        cells = [row["how"], str(row["devices"]), f"{row['batch']} x {row['length']}"]
        if "ms" not in row:
            lines.append([*cells, "failed", *[""] * (len(headings) - 4)])
            notes.append(f"- {row['how']}, {row['devices']}: {row['note']}")
            continue
        rate = row["batch"] * row["length"] / row["ms"]
        if row["devices"] == 1:
            alone.setdefault(row["how"], rate)
        efficiency = f"{100 * rate / row['devices'] / alone[row['how']]:.0f} %" if row["how"] in alone else ""
        cells += [f"{row['ms']:.2f}", f"{1e3 * rate:.0f}", efficiency, f"{row['first_ms'] / 1e3:.1f}"]
        for name in ("loss_difference", "weights_difference", "update_difference"):
            cells.append(f"{row[name]:.1e}" if name in row else "")
        lines.append(cells)
    return [*markdown(headings, lines), *([""] if notes else []), *notes]


def plot(rows: list[Measured], file: Path) -> None:
    """Speed-up over each peer against the length, a panel per task and shape."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def cell_of(row: Measured) -> tuple[Any, ...]:
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


def add_common(parser: argparse.ArgumentParser, rounds: str) -> None:
    parser.add_argument("--shape", choices=SHAPES, help="(pythia-410m; to embed mpnet-base)")
    about = "(float16; to embed bfloat16); mixed_bfloat16, to train: weights in float32, products in bfloat16"
    parser.add_argument("--dtype", choices=(*DTYPES, "mixed_bfloat16"), help=about)
    parser.add_argument("--attn", default="auto", help="attn_implementation of tfmodels (%(default)s)")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: to try the tool (%(default)s)")
    about = "start no cell after so long (no limit)"
    parser.add_argument("--budget", type=float, default=math.inf, metavar="SECONDS", help=about)
    add_number(parser, "--rounds", 20, rounds)
    add_json(parser)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here too")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="tools.bench plot", description="Draw measurements that --json wrote.")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--plot", type=Path, default=Path("speed_up.png"), metavar="FILE", help="(%(default)s)")
    options = parser.parse_args(arguments)
    plot([row for file in options.files for row in json.loads(file.read_text())["rows"]], options.plot)
