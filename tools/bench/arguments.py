"""Kinds of options that the benchmarks' command lines share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")


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


def add_number(parser: argparse.ArgumentParser, name: str, default: int | list[int], about: str = "") -> None:
    """Add an option that is a whole number, or a comma-separated list of them where its default is one."""
    kind, metavar = (numbers, "N,...") if isinstance(default, list) else (int, "N")
    shown = str(default).strip("[]").replace(" ", "")
    parser.add_argument(name, type=kind, default=default, metavar=metavar, help=f"{about} ({shown})".lstrip())


def add_dtype(
    parser: argparse.ArgumentParser, name: str = "--dtype", default: str = "float32", about: str = ""
) -> None:
    parser.add_argument(name, choices=DTYPES, default=default, help=f"{about} ({default})".lstrip())


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here too")
