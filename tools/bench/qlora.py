"""Adapters trained on a float model and on quantised ones (QLoRA): loss on texts that were not seen, and memory.

    python -m tools.bench.qlora MODEL TEXTS.json --modes float32 int4-loftq --steps 60 --rates 2.5e-4 5e-4 1e-3

TEXTS.json is as for `perplexity.py`. The first 50 texts are scored, the rest train; int4 is calibrated on the first of
those. Weights are packed before the adapters, which begin at nothing (QLoRA); those of "int4-loftq" beside adapters,
which take up what that loses (LoftQ, and CLoQ with calibration). Memory is that of weights and adapters. Each mode's
loss at the rate that suits it best, the mean over seeds, is compared with that of the first mode.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tools.bench.perplexity import padded, perplexity, rows_of, texts_in

SCORED = 50
# Name of a mode -> arguments of `quantize`.
MODES: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"mode": "int8", "group_size": "channel"},
    "int4": {"mode": "int4"},
    "int4-loftq": {"mode": "int4"},
}


def batches(rows: list[np.ndarray], size: int, length: int) -> dict[str, np.ndarray]:
    """All rows of whole batches as one set of arrays, as `fit` takes it."""
    ids, labels = padded(rows[: len(rows) // size * size], length)
    return {"input_ids": ids, "attention_mask": (labels >= 0).astype(np.int32), "labels": labels}


def with_adapters(options: argparse.Namespace, mode: str, rows: list[np.ndarray]) -> Any:
    """The model of a mode, with adapters that have not learned; `rows` are there to calibrate on."""
    from tfmodels import TFAutoModelForCausalLM
    from tfmodels.training.lora import add_lora

    keras.utils.set_random_seed(0)
    model = TFAutoModelForCausalLM.from_pretrained(options.model)
    settings = dict(MODES[mode])
    if mode.startswith("int4"):
        settings |= {"group_size": options.group_size, "symmetric": not options.zeros}
        settings |= {"calibration": rows[: options.calibration] or None, "embeddings": options.embeddings}
    adapters_first = mode == "int4-loftq"
    if settings and not adapters_first:
        model.quantize(**settings)
    add_lora(model, r"_proj$", rank=options.rank, alpha=2.0 * options.rank)
    if adapters_first:
        model.quantize(**settings)
    return model


class Cosine(keras.callbacks.Callback):
    """A learning rate that falls from `peak` to nothing along half a cosine, by one compiled step for all peaks."""

    def __init__(self, peak: float, steps: int):
        super().__init__()
        self.peak, self.steps = peak, steps

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = self.peak * (1 + math.cos(math.pi * batch / self.steps)) / 2


def train(
    model: Any, beginning: list[np.ndarray], data: dict[str, np.ndarray], size: int, rate: float, seed: int
) -> None:
    """Train the adapters from their beginning on data in the order of a seed."""
    model.set_weights(beginning)
    for variable in model.optimizer.variables:
        variable.assign(ops.zeros_like(variable))
    keras.utils.set_random_seed(seed)
    schedule = Cosine(rate, len(data["labels"]) // size)
    model.fit(data, batch_size=size, callbacks=[schedule], verbose=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rates", nargs="+", type=float, default=[5e-4], help="learning rates (5e-4)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the order of the texts (0)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--length", type=int, default=256, help="most tokens of a text (256)")
    parser.add_argument("--group-size", type=int, default=32, help="inputs that share a scale, in int4 (32)")
    parser.add_argument("--zeros", action="store_true", help="a zero point for each scale, in int4")
    parser.add_argument("--calibration", type=int, default=128, help="texts int4 is calibrated on, 0 for none (128)")
    parser.add_argument("--embeddings", choices=["int8", "int4"], help="round embeddings and output layer beside int4")
    options = parser.parse_args()
    from tfmodels import AutoTokenizer

    tokenizer, texts = AutoTokenizer.from_pretrained(options.model), texts_in(options.texts)
    needed = options.steps * options.batch
    if len(texts) < SCORED + needed:
        parser.error(f"{options.texts} has {len(texts)} texts; {SCORED} to score and {needed} to train are needed.")
    scored = rows_of(tokenizer, texts[:SCORED], options.length)
    rows = rows_of(tokenizer, texts[SCORED:], options.length)
    data = batches(rows[:needed], options.batch, options.length)
    first = None
    for mode in options.modes:
        model = with_adapters(options, mode, rows)
        model.compile(keras.optimizers.Adam())
        beginning, size = model.get_weights(), model.get_memory_footprint()
        before = math.log(perplexity(model, scored, options.length))
        print(f"{mode:10} {size / 1e6:.1f} MB, loss {before:.4f} before training", flush=True)
        means = {}
        for rate in options.rates:
            losses = []
            for seed in options.seeds:
                start = time.perf_counter()
                train(model, beginning, data, options.batch, rate, seed)
                seconds = time.perf_counter() - start
                losses.append(math.log(perplexity(model, scored, options.length)))
                print(f"{mode:10} rate {rate:g}, seed {seed}: loss {losses[-1]:.4f}, {seconds:.0f} s", flush=True)
            means[rate] = float(np.mean(losses))
        best = min(means, key=means.__getitem__)
        first = means[best] if first is None else first
        print(
            f"{mode:10} {means[best]:.4f} after {options.steps} steps at its best rate, {best:g} "
            f"({100 * (means[best] / first - 1):+.2f} % of {options.modes[0]}'s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
