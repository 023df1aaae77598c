"""The benchmarks by name, and what their command lines and tables have in common."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tools.bench.shapes import LLAMA_SIZES, SHAPES, llama_shape

DTYPES = ("float32", "bfloat16", "float16")

Row = dict[str, Any]


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def some_of(names: Iterable[str]) -> Callable[[str], list[str]]:
    """The type of an argument that is a comma-separated list of some names."""

    def parse(text: str) -> list[str]:
        chosen = [part for part in text.split(",") if part]
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: {', '.join(names)} are possible")
        return chosen

    return parse


_GPU_DTYPE = "mixed_bfloat16, to train: weights in float32, products in bfloat16"
# Name of an option -> its help and what argparse is told beside that; a part behind a colon only tells kinds apart.
# An option that is told nothing and has a default is a number, or a list of them where the default has a comma.
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "model": ("folder, hub id or bundled name of a model", {"type": str}),
    "shape": (f"a random Llama: {LLAMA_SIZES}", {"type": llama_shape}),
    "shape:name": ("random weights of this shape", {"choices": SHAPES}),
    "dtype": ("", {"choices": DTYPES}),
    "dtype:gpu": (_GPU_DTYPE, {"choices": (*DTYPES, "mixed_bfloat16")}),
    "attn": ("attn_implementation of tfmodels", {"type": str}),
    "device": ("cpu: to try the tool", {"choices": ("gpu", "cpu")}),
    "budget": ("start no cell after so long", {"type": float, "metavar": "SECONDS"}),
    "batch": ("rows of a batch", {}),
    "length": ("tokens of a row", {}),
    "rows": ("of the engine", {}),
    "requests": ("of all clients", {}),
    "prompt-length": ("tokens per prompt", {}),
    "max-new-tokens": ("of each answer, exactly", {}),
    "peer": ("also measure this one", {"choices": ("torch",)}),
    "rounds": ("of which the median is reported", {}),
    "markdown": ("write the tables here too", {"type": Path, "metavar": "FILE"}),
    "json": ("write everything measured here too", {"type": Path, "metavar": "FILE"}),
}


def add_option(parser: Any, name: str, default: str | None = None, about: str = "") -> None:
    """Add an option of the table above, or one of numbers that is described here, to a parser or a group of it."""
    known, settings = OPTIONS.get(name, (about, {}))
    if default is not None and not settings:
        kind, metavar = (numbers, "N,...") if "," in default else (float if "." in default else int, "N")
        settings = {"type": kind, "metavar": metavar}
    shown = known if default is None else f"{known} (%(default)s)"
    parser.add_argument(f"--{name.partition(':')[0]}", default=default, help=shown.lstrip(), **settings)


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A command of the package.

    Fields:
        run: takes the parsed options. It yields rows, or reports by itself and returns None. The first line of its
            docstring, or of its module's, tells what it does.
        options: "name=default ..." of OPTIONS; of "one|other" a command line has exactly one.
        tabled: whether its rows make one table; otherwise each is printed as it comes.
        own: arguments of this command alone: name or flag -> settings of argparse, or a number's default and its help.
    """

    run: Callable[[argparse.Namespace], Iterator[Row] | None]
    options: str
    own: dict[str, dict[str, Any] | tuple[str, str]]
    tabled: bool

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        for name, settings in self.own.items():
            if isinstance(settings, dict):
                parser.add_argument(name, **settings)
            else:
                add_option(parser, name.removeprefix("--"), *settings)
        for word in self.options.split():
            names, _, default = word.partition("=")
            first, *others = names.split("|")
            group = parser.add_mutually_exclusive_group(required=True) if others else parser
            for name in (first, *others):
                add_option(group, name, default or None)


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(name: str, options: str, own: dict[str, Any] | None = None, tabled: bool = True) -> Callable[[Any], Any]:
    """Make a function the command `name`; see `Benchmark`."""

    def register(run: Any) -> Any:
        BENCHMARKS[name] = Benchmark(run, options, own or {}, tabled)
        return run

    return register


# Columns of tables, "key=heading:format|..."; the heading is the key where it is left out, as the format is for words.
COLUMNS = "side|input|how|shape|batch:d|length:d|devices:d|clients:d|requests:d|refused:d|failed:d|stored"
COLUMNS += "|dtype=loaded as|weights_gb=weights GB:.2f|megabytes=MB:,.1f|rows:d|rows_per_s=rows/s:,.1f|s:.3f"
COLUMNS += "|prefill_ms:.2f|first_token_ms:,.2f|first_token_p95_ms=95 %:,.2f|ms_per_token=ms/token:.2f"
COLUMNS += "|tokens_per_s=tokens/s:,.0f|ratio=of the engine:.2f|total_s:.3f|ms:,.2f|ms_low=least:,.2f"
COLUMNS += "|ms_high=most:,.2f|efficiency:.0%|read_gb_s=GB/s read:.0f|copy_gb_s=of a copy:.0f|share:.0%"
COLUMNS += "|sentences_per_s=sentences/s:,.0f|first_call_s:.2f|load_s:.2f|read_s:.2f|read_ratio=load / read:.2f"
COLUMNS += "|recovery_s:.2f|peak_gb=peak GB:.2f|peak_ratio=peak / weights:.2f|peak_mib=MiB:.0f"
COLUMNS += "|memory_mb=MB before:,.0f|memory_after_mb=MB after:,.0f|ids_equal:.1%|spearman:.5f|max_difference:.1e"
COLUMNS += "|loss_difference=loss differs by:.1e|weights_difference=weights by:.1e|update_difference=update by:.1e"
COLUMNS += "|time_ratio=time / in process:.2f|speed_ratio=tfmodels faster by:.2f|prefill_ratio=prefills faster by:.2f"
COLUMNS += "|at_once=compiled at once:d|note"


def table(rows: list[Row], columns: str = COLUMNS) -> list[str]:
    """Lines of Markdown, one for each row, without columns that no row has; none without rows."""
    shown = []
    for column in columns.split("|"):
        name, _, form = column.partition(":")
        key, _, heading = name.partition("=")
        if any(row.get(key) is not None for row in rows):
            values = ("" if row.get(key) is None else format(row[key], form) for row in rows)
            cells = [heading or key.replace("_", " "), *values]
            width = max(map(len, cells))
            shown.append([cell.rjust(width) if form else cell.ljust(width) for cell in cells])
    lines = ["| " + " | ".join(cells) + " |" for cells in zip(*shown, strict=True)]
    return [*lines[:1], *(re.sub(r"[^|]", "-", line) for line in lines[:1]), *lines[1:]]
