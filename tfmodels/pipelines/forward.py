"""Rows of tokens through a model, as compiled programs over batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmodels.kernels import decoding
from tfmodels.runtime.buckets import bucket_batch, bucket_length
from tfmodels.runtime.device import has_gpu
from tfmodels.runtime.gc import pause_gc
from tfmodels.runtime.lowering import PLAIN, Lowering

# From a model, its inputs by name and a lowering to outputs by name, float32 with the rows first.
Compute = Callable[[Any, dict[str, Any], Lowering], dict[str, Any]]


@dataclasses.dataclass
class Row:
    """Tokens that the model reads at once: a text, or a part of a long one.

    Fields:
        inputs: lists of integers of one length by the model's names; "input_ids" and "attention_mask" are there.
        note: what the task needs to read the outputs.
        more: further integers for the program, whose length is not that of the tokens.
    """

    inputs: dict[str, list[int]]
    note: Any = None
    more: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


def row_of(model: Any, encoding: Mapping[str, Any], note: Any = None) -> Row:
    """A row of what a tokenizer returned for one text, without what the model does not take."""
    names = [name for name in encoding if name in model.input_names]
    inputs = {name: [int(value) for value in encoding[name]] for name in names}
    inputs.setdefault("attention_mask", [1] * len(inputs["input_ids"]))
    return Row(inputs, note)


def run_rows(model: Any, key: Any, compute: Compute, rows: Sequence[Row], pad_id: int) -> list[dict[str, np.ndarray]]:
    """The outputs of rows.

    Rows are padded on the right, where no model reads. With a GPU, programs are compiled by XLA for a few sizes;
    elsewhere one graph serves all sizes.

    Args:
        model: the model.
        key: says what `compute` computes.
        compute: see `Compute`.
        rows: a batch of rows with the same inputs.
        pad_id: the padding token.

    Returns:
        For each row its part of every output, padding included.
    """
    jit = has_gpu()
    count, length = len(rows), max(1, *map(len, rows))
    # Each size is a program of its own there; but a model that cannot tell padding gets none.
    if (jit or keras.backend.backend() == "jax") and not reads_one_row(model):
        limit = model.backbone.longest_input
        length = bucket_length(length) if limit is None else min(bucket_length(length), limit)
        count = bucket_batch(count)
    names = [*rows[0].inputs, *rows[0].more]
    arrays = {name: np.zeros((count, length), "int32") for name in rows[0].inputs}
    arrays["input_ids"][:] = pad_id
    for name in rows[0].more:
        arrays[name] = np.zeros((count, max(len(row.more[name]) for row in rows)), "int32")
    for index, row in enumerate(rows):
        for name, values in (*row.inputs.items(), *row.more.items()):
            arrays[name][index, : len(values)] = values
    lowering = decoding.for_xla() if jit else PLAIN

    def program(*tensors: Any) -> dict[str, Any]:
        with pause_gc():
            return compute(model, dict(zip(names, tensors, strict=True)), lowering)

    outputs = model.programs.run(
        (key, *names),
        program,
        *(ops.convert_to_tensor(arrays[name]) for name in names),
        jit_compile=jit,
        variables=model.variables if keras.backend.backend() == "jax" else (),
        any_shape=not jit,
    )
    outputs = {name: ops.convert_to_numpy(value) for name, value in outputs.items()}
    return [{name: value[index] for name, value in outputs.items()} for index in range(len(rows))]


def reads_one_row(model: Any) -> bool:
    """Whether the model cannot tell padding from text, so that rows go through it one by one."""
    return model.finds_last_token and model.config.pad_token_id is None


def call_model(model: Any, inputs: dict[str, Any], lowering: Lowering) -> Any:
    """The model's output without a cache, which a pipeline has no use for."""
    if reads_one_row(model):  # and has to see from the shape that there is one
        inputs = {name: ops.reshape(value, (1, -1)) for name, value in inputs.items()}
    if "use_cache" in model.input_names:
        inputs = {**inputs, "use_cache": False}
    return model(**inputs, return_dict=True, lowering=lowering)


def logits(model: Any, inputs: dict[str, Any], lowering: Lowering) -> dict[str, Any]:
    """The computation of a model whose output is `logits`."""
    return {"logits": ops.cast(call_model(model, inputs, lowering).logits, "float32")}
