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

from tools.bench.shapes import SHAPES

Measured = dict[str, Any]
Cell = tuple[str, int, int]  # what, batch, length
ROOT = Path(__file__).resolve().parent.parent.parent


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Report:
    """What was measured so far, written out at every row.

    Args:
        command: its arguments.
        as_json, as_markdown: files, or None.
    """

    def __init__(self, command: list[str], as_json: Path | None, as_markdown: Path | None):
        self.command, self.as_json, self.as_markdown = command, as_json, as_markdown
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
        if self.as_json:
            replace(
                self.as_json, json.dumps({"command": self.command, "about": self.about, "rows": self.rows}, indent=1)
            )
        if self.as_markdown:
            replace(self.as_markdown, self.markdown())

    def markdown(self) -> str:
        lines = ["    " + shlex.join(["python", "tools/benchmark.py", "gpu", *self.command]), ""]
        for side in self.about:
            versions = ", ".join(f"{name} {value}" for name, value in side.items() if name not in ("about", "device"))
            lines.append(f"- {side['about']}: {side['device']}; {versions}")
        return "\n".join([*lines, "", *tables(self.rows)])

    def finish(self) -> None:
        self.write()
        print(self.markdown(), flush=True)
        bad = self.failed or any(row.get("note", "").startswith("failed") for row in self.rows if is_ours(row))
        sys.exit(bad)


def is_ours(row: Measured) -> bool:
    return row["side"] in ("tfmodels", "scale")


def replace(file: Path, text: str) -> None:
    """Write a file whole: whoever is stopped in between leaves the one before."""
    other = file.with_name(file.name + ".part")
    other.write_text(text + "\n")
    other.replace(file)


def tables(rows: list[Measured]) -> list[str]:
    """Markdown, a table for every shape, dtype and task."""
    lines = []
    groups = dict.fromkeys((row["shape"], row["dtype"], row.get("what", "scale")) for row in rows)
    for shape, dtype, what in groups:
        own = [row for row in rows if (row["shape"], row["dtype"], row.get("what", "scale")) == (shape, dtype, what)]
        lines += [
            f"**{what}**, {shape}, {dtype}",
            "",
            *(scale_table(own) if what == "scale" else table(own, what)),
            "",
        ]
    return lines


def markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(rows: list[Measured], what: str) -> list[str]:
    """A line per cell: our time and memory, and each peer's with the ratio to ours; then notes."""
    ours_first = sorted(dict.fromkeys(row["side"] for row in rows), key=lambda side: side != "tfmodels")
    unit = "ms/token" if what == "decode" else "ms"
    extra = {"decode": ["GB/s (of a copy's)"], "embed": ["sentences/s"]}.get(what, [])
    headings = ["batch x length"]
    for side in ours_first:
        headings += [f"{side} {unit}", *extra, "MiB", "first s"] + (["slower by"] if side != "tfmodels" else [])
    lines = [markdown_row(headings), "|" + "---|" * len(headings)]
    found = {(row["side"], row["batch"], row["length"]): row for row in rows}
    notes = {}
    for batch, length in sorted(dict.fromkeys((row["batch"], row["length"]) for row in rows)):
        ours = found.get(("tfmodels", batch, length), {})
        cells = [f"{batch} x {length}"]
        for side in ours_first:
            row = found.get((side, batch, length), {})
            if "ms" not in row:
                note = row.get("note", "-")
                cells += [note if note == "out of memory" else note.split(":")[0], "", "", *[""] * len(extra)]
                if note.startswith("failed"):
                    notes[f"{side}: {note}"] = None
            else:
                cells.append(f"{row['ms']:.2f}")
                if what == "decode":
                    cells.append(f"{row['read_gb_s']:.0f} ({100 * row['read_gb_s'] / row['copy_gb_s']:.0f} %)")
                elif what == "embed":
                    cells.append(f"{row['sentences_per_s']:.0f}")
                cells += ["-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}", f"{row['first_ms'] / 1e3:.1f}"]
            if side != "tfmodels":
                cells.append(f"{row['ms'] / ours['ms']:.2f}x" if "ms" in row and "ms" in ours else "")
        lines.append(markdown_row(cells))
    for row in rows:
        if row.get("attention"):
            notes.setdefault("attention: " + row["attention"].replace("\n", "; "), []).append(
                f"{row['batch']} x {row['length']}"
            )
        if what == "decode" and "copy_gb_s" in row:
            notes[f"{row['side']}: a copy on the device moves {row['copy_gb_s']:.0f} GB/s, read and written"] = None
        if row["at_once"] > 1:
            notes[f"first calls of tfmodels: up to {max(r['at_once'] for r in rows)} programs compiled at once"] = None
    return [*lines, "", *(f"- {text}" + (f" ({', '.join(cells)})" if cells else "") for text, cells in notes.items())]


def scale_table(rows: list[Measured]) -> list[str]:
    """A line per way and number of devices; efficiency is tokens per second and device against one device."""
    headings = ["how", "devices", "batch x length", "ms/step", "tokens/s", "efficiency", "first s"]
    headings += ["loss differs by", "weights by", "their update by"]
    lines = [markdown_row(headings), "|" + "---|" * len(headings)]
    notes = []
    for row in rows:
        cells = [row["how"], str(row["devices"]), f"{row['batch']} x {row['length']}"]
        if "ms" not in row:
            lines.append(markdown_row([*cells, "failed", *[""] * (len(headings) - len(cells) - 1)]))
            notes.append(f"- {row['how']}, {row['devices']}: {row['note']}")
            continue
        rate = row["batch"] * row["length"] / row["ms"]
        one = next((r for r in rows if r["how"] == row["how"] and r["devices"] == 1 and "ms" in r), None)
        efficiency = rate / row["devices"] / (one["batch"] * one["length"] / one["ms"]) if one else None
        cells += [f"{row['ms']:.2f}", f"{1e3 * rate:.0f}", "" if efficiency is None else f"{100 * efficiency:.0f} %"]
        cells.append(f"{row['first_ms'] / 1e3:.1f}")
        for name in ("loss_difference", "weights_difference", "update_difference"):
            cells.append(f"{row[name]:.1e}" if name in row else "")
        lines.append(markdown_row(cells))
    return [*lines, *([""] if notes else []), *notes]


def plot(rows: list[Measured], file: Path) -> None:
    """Speed-up over each peer against the length, a panel per task and shape."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ours = {cell_of(row): row for row in rows if row["side"] == "tfmodels" and "ms" in row}
    panels: dict[tuple[str, ...], dict[tuple[str, int], list[tuple[int, float]]]] = {}
    for row in rows:
        own = ours.get(cell_of(row))
        if own and row["side"] not in ("tfmodels", "scale") and "ms" in row:
            lines = panels.setdefault((row["what"], row["shape"], row["dtype"]), {})
            lines.setdefault((row["side"], row["batch"]), []).append((row["length"], row["ms"] / own["ms"]))
    if not panels:
        sys.exit("tools.bench: nothing to plot: no cell of tfmodels has a peer")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 4.2), squeeze=False)
    for axis, (panel, lines) in zip(axes[0], panels.items(), strict=True):
        sides = sorted({side for side, _ in lines})
        batches = sorted({batch for _, batch in lines})
        for (side, batch), points in sorted(lines.items()):
            lengths, ratios = zip(*sorted(points), strict=True)
            style = ("-", "--", ":", "-.")[batches.index(batch) % 4]
            label = f"{side}, batch {batch}"
            axis.plot(lengths, ratios, style, marker="o", color=f"C{sides.index(side)}", label=label)
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_xscale("log", base=2)
        ticks = sorted({length for points in lines.values() for length, _ in points})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_ylim(bottom=0)
        axis.set(title=", ".join(panel), xlabel="length", ylabel="time of the peer / time of tfmodels")
        axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def cell_of(row: Measured) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("what", "shape", "dtype", "batch", "length"))


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=SHAPES, help="(pythia-410m; to embed mpnet-base)")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="(float16; to embed bfloat16)")
    parser.add_argument("--attn", default="auto", help="attn_implementation of tfmodels (%(default)s)")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: to try the tool (%(default)s)")
    parser.add_argument(
        "--budget", type=float, default=float("inf"), metavar="SECONDS", help="start no cell after so long (no limit)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here too")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="tools.bench plot", description="Draw measurements that --json wrote.")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--plot", type=Path, default=Path("speed_up.png"), metavar="FILE", help="(%(default)s)")
    options = parser.parse_args(arguments)
    plot([row for file in options.files for row in json.loads(file.read_text())["rows"]], options.plot)
