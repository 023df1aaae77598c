"""`tfmodels demo`: write a story with the bundled model and compare eager, graph and XLA decoding."""

from __future__ import annotations

import argparse
import time

from tfmodels import __version__
from tfmodels.cli.common import CommandError, Place, load_backend
from tfmodels.cli.generate import check_model, load_model, write_story

HELP = "write a story with the bundled model and compare eager, graph and XLA"
MODEL = "stories260K"
PROMPT = "Once upon a time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tfmodels demo`."""
    parser.add_argument("--prompt", default=PROMPT, help="how the story begins (%(default)r)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=200, metavar="N", help="length of the story (%(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """Write a story, then compare eager, graph and XLA decoding."""
    from rich.console import Console
    from rich.table import Table

    place = Place(MODEL, {})
    console = Console(stderr=True, highlight=False)
    console.print(f"tfmodels {__version__}: loading TensorFlow and the bundled model {MODEL} ...", style="dim")
    tokenizer = check_model(place)
    tf = load_backend()
    started = time.perf_counter()
    model = load_model(place)
    console.print(
        f"{type(model).__name__}, {model.count_params():,} parameters, in {time.perf_counter() - started:.2f} s",
        style="dim",
    )
    console.print("tracing the model; XLA compiles it while the text comes ...\n", style="dim")
    statistics = write_story(model, tokenizer, options.prompt, max_new_tokens=options.max_new_tokens, do_sample=False)
    console.print(f"\n{statistics}\n", style="dim")

    new, inputs = 24, tokenizer([options.prompt], return_tensors="np")
    console.print("the same in three ways, twice each; the first call of a way compiles ...\n", style="dim")
    table = Table(title=f"{new} greedy tokens, three ways", title_justify="left")
    for column, justify in (("way", "left"), ("first call", "right"), ("again", "right"), ("ids", "left")):
        table.add_column(column, justify=justify)
    rows = {}
    for way, eagerly, jit in (("eager", True, False), ("graph", False, False), ("XLA", False, True)):
        seconds = []
        tf.config.run_functions_eagerly(eagerly)
        try:
            for _ in range(2):
                start = time.perf_counter()
                ids = model.generate(**inputs, max_new_tokens=new, do_sample=False, jit_compile=jit).numpy().tolist()
                seconds.append(time.perf_counter() - start)
        finally:
            tf.config.run_functions_eagerly(False)
        rows[way] = ids
        table.add_row(way, *(f"{s:.3f} s" for s in seconds), "the same" if ids == rows["eager"] else "different")
    Console(highlight=False).print(table)
    if any(ids != rows["eager"] for ids in rows.values()):
        raise CommandError("eager, graph and XLA wrote different tokens; please report this with your versions.")
