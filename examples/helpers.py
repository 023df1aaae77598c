"""What several examples need: common options, data, a tokenizer that can pad, a learning rate, a plot."""

from __future__ import annotations

import argparse
import importlib.util
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tfmodels  # before Keras, so that TensorFlow starts without its log

DATA = Path(__file__).parent / "data"


def options_of(description: str, arguments: list[str] | None, **defaults: Any) -> argparse.Namespace:
    """Options of an example; `defaults` are its own, under the options' names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stories260K", help="folder, hub id, or the bundled stories260K (default)")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--max-length", type=int, help="tokens that a text is cut to")
    parser.add_argument("--limit", type=int, help="use so many texts only")
    parser.add_argument("--plot", metavar="PNG", help="draw the losses; needs matplotlib (the extra 'examples')")
    parser.set_defaults(**defaults)
    options = parser.parse_args(arguments)
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install '.[examples]'")
    return options


def read_lines(name: str, limit: int | None = None) -> list[str]:
    """Lines of a file in examples/data."""
    with lzma.open(DATA / f"{name}.xz", "rt", encoding="utf-8") as file:
        return file.read().splitlines()[:limit]


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer; where it has no padding token, texts end in padding of end-of-sequence tokens."""
    tokenizer = tfmodels.AutoTokenizer.from_pretrained(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def warmed_up(learning_rate: float, steps: int) -> Any:
    """A rate that rises over the first tenth of the steps and falls to zero over the rest."""
    import keras

    warm_up = max(1, steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=learning_rate, warmup_steps=warm_up
    )


def plot_losses(history: Mapping[str, Sequence[float]], path: str | None) -> None:
    """Draw the losses of `fit(...).history` over epochs into an image; nothing without a path."""
    if path is None:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    for name in ("loss", "val_loss"):
        if name in history:
            axes.plot(range(1, len(history[name]) + 1), history[name], marker="o", label=name)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend()
    figure.savefig(path)
    pyplot.close(figure)
    print(f"losses drawn into {path}")
