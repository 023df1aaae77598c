"""`tfmodels embed`: turn the lines of a text file into sentence vectors."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tfmodels.auto import family_of
from tfmodels.cli.common import (
    DTYPES,
    CommandError,
    add_model,
    check_backend,
    check_weights,
    load_backend,
    place_of,
    read_config,
    read_text,
    transformer_of,
)
from tfmodels.utils.files import replacing_file

HELP = "turn the lines of a text file into sentence vectors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tfmodels embed`."""
    add_model(parser)
    parser.add_argument("texts", metavar="FILE", help="UTF-8 text file, one text per line; - reads standard input")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.npy", help="where the vectors go")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts at a time (%(default)s)")
    parser.add_argument("--normalize", action="store_true", help="scale the vectors to length 1")
    parser.add_argument("--dtype", choices=(*DTYPES, "auto"), default="float32", help="of the weights (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Check everything that can be wrong without TensorFlow, then load the encoder and write the vectors."""
    if options.batch_size < 1:
        raise CommandError(f"--batch-size {options.batch_size}: a positive number was expected.")
    if options.output.suffix != ".npy" or not options.output.parent.is_dir():
        raise CommandError(f"--output {options.output}: a name ending in .npy in an existing folder was expected.")
    lines = read_lines(options.texts)
    place = place_of(options)
    check_backend()
    transformer, _ = transformer_of(place)
    family_of(read_config(transformer))
    check_weights(transformer)
    load_backend()
    import numpy as np

    from tfmodels import SentenceEncoder

    encoder = SentenceEncoder.from_pretrained(place.name, dtype=options.dtype, **place.options)
    start = time.perf_counter()
    vectors = encoder.encode(
        lines, batch_size=options.batch_size, normalize=options.normalize, show_progress=sys.stderr.isatty()
    )
    seconds = time.perf_counter() - start
    with replacing_file(options.output) as file:
        np.save(file, vectors)
    rows, width = vectors.shape
    print(f"{options.output}: {rows} vectors of {width} in {seconds:.2f} s", file=sys.stderr)


def read_lines(file: str) -> list[str]:
    """Read the lines of a UTF-8 file, or of standard input for "-"; each gets a vector, so none may be empty."""
    text = read_text(file)
    lines = text.split("\n")
    lines = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    empty = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if empty or not lines:
        raise CommandError(
            f"{file}: {f'line {empty} is empty' if empty else 'there is no text'}; every line needs one."
        )
    return lines
