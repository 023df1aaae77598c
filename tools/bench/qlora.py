"""Adapters trained on a float model and on quantised ones (QLoRA): loss on texts that were not seen, and memory.

    python -m tools.bench.qlora MODEL TEXTS.json --modes float32 int4-loftq --steps 100

TEXTS.json is as for `perplexity.py`. The first 50 texts are scored, the rest train; int4 is calibrated on the first of
those. Weights are packed before the adapters, which begin at nothing (QLoRA); those of "int4-loftq" beside adapters,
which take up what that loses (LoftQ, and CLoQ with calibration). Memory is that of weights and adapters.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tools.bench.perplexity import padded, perplexity, rows_of, texts_in

SCORED = 50
# Name of a mode -> arguments of `quantize`.
MODES: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"mode": "int8", "group_size": "channel"},
    "int4": {"mode": "int4", "group_size": 32},
    "int4-loftq": {"mode": "int4", "group_size": 32},
}


def batches(rows: list[np.ndarray], size: int, length: int) -> dict[str, np.ndarray]:
    """All rows of whole batches as one set of arrays, as `fit` takes it."""
    ids, labels = padded(rows[: len(rows) // size * size], length)
    return {"input_ids": ids, "attention_mask": (labels >= 0).astype(np.int32), "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--length", type=int, default=256, help="most tokens of a text (256)")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate (1e-3)")
    parser.add_argument("--calibration", type=int, default=128, help="texts int4 is calibrated on, 0 for none (128)")
    parser.add_argument("--embeddings", choices=["int8", "int4"], help="round embeddings and output layer beside int4")
    options = parser.parse_args()
    from tfmodels import AutoTokenizer, TFAutoModelForCausalLM
    from tfmodels.training.lora import add_lora

    tokenizer, texts = AutoTokenizer.from_pretrained(options.model), texts_in(options.texts)
    needed = options.steps * options.batch
    if len(texts) < SCORED + needed:
        parser.error(f"{options.texts} has {len(texts)} texts; {SCORED} to score and {needed} to train are needed.")
    scored = rows_of(tokenizer, texts[:SCORED], options.length)
    rows = rows_of(tokenizer, texts[SCORED:], options.length)
    seen, calibration = rows[:needed], rows[: options.calibration] or None
    whole = None
    for mode in options.modes:
        keras.utils.set_random_seed(0)
        model = TFAutoModelForCausalLM.from_pretrained(options.model)
        settings = dict(MODES[mode])
        if mode.startswith("int4"):
            settings |= {"calibration": calibration, "embeddings": options.embeddings}
        adapters_first = mode == "int4-loftq"
        if settings and not adapters_first:
            model.quantize(**settings)
        add_lora(model, r"_proj$", rank=options.rank, alpha=2.0 * options.rank)
        if adapters_first:
            model.quantize(**settings)
        before, size = math.log(perplexity(model, scored, options.length)), model.get_memory_footprint()
        rate = keras.optimizers.schedules.CosineDecay(options.rate, options.steps)
        model.compile(keras.optimizers.Adam(rate))
        start = time.perf_counter()
        model.fit(batches(seen, options.batch, options.length), batch_size=options.batch, verbose=0)
        seconds, after = time.perf_counter() - start, math.log(perplexity(model, scored, options.length))
        whole = after if whole is None else whole
        print(
            f"{mode:10} {size / 1e6:6.1f} MB, loss {before:.4f} before and {after:.4f} after {options.steps} steps "
            f"({100 * (after / whole - 1):+.2f} % of {options.modes[0]}'s), {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
