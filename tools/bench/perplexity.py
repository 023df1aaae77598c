"""Perplexity of a causal language model on a list of texts: as it is, and quantised in several ways.

    python -m tools.bench.perplexity MODEL TEXTS.json --cases int8 int4 int4-calibrated

TEXTS.json holds a list of texts, or of dicts with a text. The first `--count` are scored; calibration takes others,
from number 100 on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# A case by itself: the model as it is, with keys and values in eight bits.
INT8_CACHE = "int8-cache"
# Name of a case -> arguments of `quantize`; CALIBRATION stands for rows of ids.
CALIBRATION = "texts"
CASES: dict[str, dict[str, Any]] = {
    "int8": {"mode": "int8", "group_size": "channel", "embeddings": "int8"},
    "int8-groups": {"mode": "int8", "group_size": 32, "embeddings": "int8"},
    "int4": {"mode": "int4", "group_size": 32},
    "int4-zeros": {"mode": "int4", "group_size": 32, "symmetric": False},
    "int4-calibrated": {"mode": "int4", "group_size": 32, "calibration": CALIBRATION},
    "int4-calibrated-zeros": {"mode": "int4", "group_size": 32, "symmetric": False, "calibration": CALIBRATION},
    "int4-calibrated-int8": {"mode": "int4", "group_size": 32, "calibration": CALIBRATION, "embeddings": "int8"},
}


def texts_in(path: Path) -> list[str]:
    """The texts in a JSON file: a list of strings, or of dicts with "text" or "story"; or such a list in a dict."""
    found = json.loads(path.read_text())
    found = found if isinstance(found, list) else next(iter(found.values()))
    return [one if isinstance(one, str) else one.get("text") or one["story"] for one in found]


def rows_of(tokenizer: Any, texts: Sequence[str], length: int) -> list[np.ndarray]:
    """Token ids of texts, with the token that begins a text first, cut to a length."""
    rows = []
    for text in texts:
        ids = np.asarray(tokenizer(text)["input_ids"])
        first = tokenizer.bos_token_id
        if first is not None and (not len(ids) or ids[0] != first):
            ids = np.concatenate([[first], ids])
        rows.append(ids[:length])
    return rows


def padded(rows: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and labels of rows, int32 (rows, length); labels are -100 at the padding behind them."""
    ids, labels = np.zeros((len(rows), length), np.int32), np.full((len(rows), length), -100, np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = labels[index, : len(row)] = row
    return ids, labels


def perplexity(
    model: Any, rows: Sequence[np.ndarray], length: int, batch: int = 10, *, int8_cache: bool = False
) -> float:
    """exp of the mean loss over all tokens but the first of each row; also where keys and values have eight bits."""
    import tensorflow as tf

    from tfmodels.cache import kv

    def logits_of(ids: Any) -> Any:
        if not int8_cache:
            return model(input_ids=ids).logits
        first = model(input_ids=ids[:, :1], use_cache=True)
        cache = kv.to_static(first.past_key_values, length, int8=True)
        rest = model(input_ids=ids[:, 1:], past_key_values=cache, use_cache=True)
        return tf.concat([first.logits, rest.logits], axis=1)

    signature = [tf.TensorSpec((None, length), tf.int32), tf.TensorSpec((None, length), tf.int32)]

    # Caches of a fixed size need a batch that is known.
    @tf.function(autograph=False, input_signature=None if int8_cache else signature)
    def losses(ids: Any, labels: Any) -> Any:
        logits = tf.cast(logits_of(ids)[:, :-1], tf.float32)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels[:, 1:], 0), logits)
        return tf.reduce_sum(tf.where(labels[:, 1:] >= 0, each, 0.0))

    total, count = 0.0, 0
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        total += float(losses(*map(tf.constant, padded(some, length))))
        count += sum(len(row) - 1 for row in some)
    return math.exp(total / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--count", type=int, default=50, help="texts that are scored (50)")
    parser.add_argument("--calibration", type=int, default=64, help="texts for calibration (64)")
    parser.add_argument("--length", type=int, default=256, help="most tokens of a text (256)")
    parser.add_argument("--cases", nargs="+", choices=[*CASES, INT8_CACHE], default=[*CASES, INT8_CACHE])
    options = parser.parse_args()
    from tfmodels import AutoTokenizer, TFAutoModelForCausalLM

    tokenizer, texts = AutoTokenizer.from_pretrained(options.model), texts_in(options.texts)
    scored = rows_of(tokenizer, texts[: options.count], options.length)
    seen = rows_of(tokenizer, texts[100 : 100 + options.calibration], options.length)
    whole = perplexity(TFAutoModelForCausalLM.from_pretrained(options.model), scored, options.length)
    print(f"{'as it is':24} {whole:.4f}", flush=True)
    for name in options.cases:
        model = TFAutoModelForCausalLM.from_pretrained(options.model)
        made = ""
        if name != INT8_CACHE:
            start = time.perf_counter()
            model.quantize(**{key: seen if value is CALIBRATION else value for key, value in CASES[name].items()})
            made = f"  ({time.perf_counter() - start:.0f} s to make)"
        found = perplexity(model, scored, options.length, int8_cache=name == INT8_CACHE)
        print(f"{name:24} {found:.4f} {100 * (found / whole - 1):+.2f} %{made}", flush=True)


if __name__ == "__main__":
    main()
