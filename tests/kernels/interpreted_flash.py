"""Runs fused attention with its Triton kernels in Triton's interpreter, on a CPU, against plain float32 attention.

A script for a process of its own. It writes a line of JSON per case: its name, and the relative errors of the output
and of the worst gradient.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import tensorflow as tf
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tfmodels" / "kernels"))
import triton_flash
from interpreted import let_loops_end_at_tensors  # beside this script

from tfmodels.kernels import flash_attention
from tfmodels.kernels.masks import make_mask
from tfmodels.layers import attention

LENGTH = 40


def launch(kernel, operands, results, *, grid, warps, stages, **sizes):
    """`triton_call.launch` by the interpreter."""
    tensors = [torch.from_numpy(np.array(operand)) for operand in operands]
    made = [torch.full(tuple(spec.shape), float("nan"), dtype=getattr(torch, spec.dtype.name)) for spec in results]
    getattr(triton_flash, kernel)[grid](*tensors, *made, **sizes)
    return [tf.constant(x.numpy()) for x in made]


class Drops:
    """Stands for a `keras.layers.Dropout`, whose seed is the same at each call."""

    def __init__(self, rate):
        self.rate, self.seed_generator = rate, self

    def next(self):
        return tf.constant([2**31 + 5, 7], "uint32")


def errors(*, heads=(2, 1), head_dim=16, causal=True, window=None, ahead=None, padding=None, packed=False, pairs=None,
           bias=None, rate=0.0, scale=0.25):  # fmt: skip
    """Relative errors of the output and of the worst gradient."""
    rng = np.random.default_rng(1)
    shapes = [(2, heads[0], LENGTH, head_dim), *[(2, heads[1], LENGTH, head_dim)] * 2]
    arrays = [tf.constant(rng.normal(size=shape), "float16") for shape in shapes]
    if bias is not None:
        arrays.append(tf.constant(rng.normal(size=bias), "float16"))
    upstream = tf.constant(rng.normal(size=shapes[0]), "float32")
    given, positions = None, None
    if padding is not None:
        given = np.array(padding)
    elif pairs is not None:
        given = rng.random((*pairs, LENGTH, LENGTH)) < 0.5
        given[:, :, 3] = False  # a query that sees nothing
        given = np.where(given, rng.normal(size=given.shape), -1e9).astype("float32") if pairs[1] > 1 else given
    if packed:
        positions = np.stack([np.r_[0:13, 0 : LENGTH - 13], np.r_[0:30, 0:4, 0 : LENGTH - 34]])[
            : 2 if packed == 2 else 1
        ]

    def run(arrays, implementation):
        mask = make_mask(given, causal=causal, query_length=LENGTH, key_length=LENGTH, packed_positions=positions)
        mask = mask if window is None else mask.with_window(window, ahead)
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            output, _ = attention.attend(
                *arrays[:3],
                mask=mask,
                scale=scale,
                bias=arrays[3] if len(arrays) > 3 else None,
                dropout=Drops(rate) if rate else None,
                training=True,
                implementation=implementation,
                record=paths,
            )
        return [output, *tape.gradient(output, arrays, tf.cast(upstream, output.dtype))]

    paths = []
    got = run(arrays, "flash")
    # In blocks the same weights are dropped.
    want = run([tf.cast(x, "float32") for x in arrays], "blockwise" if rate else "eager")
    assert [path.name for path in paths] == ["triton", "blockwise" if rate else "eager"]
    pairs_of = zip(got, want, strict=True)
    found = [float(tf.norm(tf.cast(g, "float32") - w) / tf.maximum(tf.norm(w), 1.0)) for g, w in pairs_of]
    return found[0], max(found[1:])


LEFT, HOLES = [[1] * LENGTH, [0] * 9 + [1] * (LENGTH - 9)], [[0, 1, 1, 0] * (LENGTH // 4), [1] * LENGTH]
CASES = {
    "dropout": {"rate": 0.3},
    "dropout, left padding": {"rate": 0.1, "padding": LEFT, "heads": (4, 2)},
    "dropout, not causal, bias": {"rate": 0.5, "causal": False, "bias": (1, 2, LENGTH, LENGTH)},
    "packed": {"packed": 1},
    "packed per row, window": {"packed": 2, "window": 11},
    "packed, not causal": {"packed": 2, "causal": False},
    "pairs": {"pairs": (2, 1)},
    "pairs of all rows": {"pairs": (1, 1), "causal": False},
    "float pairs per head": {"pairs": (1, 2)},
    "window, left padding": {"window": 7, "padding": LEFT},
    "window, holes": {"window": 20, "padding": HOLES},
    "window to both sides": {"window": 9, "ahead": 8, "causal": False, "padding": LEFT},
    "window beside a bias per row": {"window": 9, "bias": (2, 1, 1, LENGTH)},
    "negative scale, pairs": {"scale": -0.25, "pairs": (2, 1), "bias": (1, 2, LENGTH, LENGTH)},
    "scale of zero, bias": {"scale": 0.0, "bias": (1, 2, LENGTH, LENGTH)},
    "heads of 12": {"rate": 0.1, "head_dim": 12},
    "heads of 160, one for all": {"rate": 0.1, "head_dim": 160, "heads": (3, 1)},
}


def main():
    let_loops_end_at_tensors()
    flash_attention.launch, flash_attention.unavailable = launch, lambda: None
    flash_attention.tiles = lambda head_dim: (16, 32, 4) if head_dim == 12 else (32, 16, 4)
    tf.config.run_functions_eagerly(True)
    for name, options in CASES.items():
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        output, gradient = errors(**options)
        sys.stdout.write(json.dumps({"case": name, "output": output, "gradient": gradient}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
