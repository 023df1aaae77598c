"""Checks of the data of `fit`, `evaluate` and `predict`, and errors of their steps in words.

A step is a graph, which sees no values while it is traced: out of range, a label or an id ends it with an error of the
backend, or, compiled by XLA, gives NaN. So arrays are looked at before, and so are batches of datasets where XLA
compiles the steps; elsewhere the backend's error is put into words.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from keras import ops

from tfmodels.models.backbone.inputs import check_ids
from tfmodels.models.calling import check_integers, holds_objects, text_message, values_of
from tfmodels.models.losses import IGNORED, check_classes
from tfmodels.utils.text import holds_text, quote
from tfmodels.utils.warn import warn

_BAD_LABEL = re.compile(r"Received a label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)")
_BAD_ID = re.compile(r"indices\[[\d,]+\] = (-?\d+) is not in \[0, (\d+)\)")


def check_precision(optimizer: Any, variables: Iterable[Any]) -> None:
    """Warn where Adam, or one of its kind, does not work in the dtype of the weights that it trains.

    Keras computes its rates and moments in that dtype.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    rate, epsilon = (getattr(optimizer, name, None) for name in ("beta_2", "epsilon"))
    if rate is None or epsilon is None:
        return
    dtypes, name, problem = {variable.dtype for variable in variables}, type(optimizer).__name__, None
    if "bfloat16" in dtypes and float(ops.cast(rate, "bfloat16")) == 1:
        dtype, problem = "bfloat16", f"beta_2={rate:g} is 1 in bfloat16, so that no step changes a weight"
    elif "float16" in dtypes and epsilon < np.finfo("float16").tiny:
        dtype, problem = "float16", f"epsilon={epsilon:g} is too small for float16, in which weights become useless"
    if problem:
        warn(f"{name}'s {problem}; dtype='mixed_{dtype}' trains weights of float32 and computes in {dtype}.")


def check_data(model: Any, inputs: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    """Check what is known of data: specs of a dataset, or arrays, whose values are looked at.

    Args:
        model: a `TaskModel`.
        inputs, labels: by name.

    Raises:
        TypeError: text in place of numbers, or ids that are no integers.
        ValueError: ids beyond the vocabulary, or labels beyond the classes where the model computes its own loss.
    """
    for name, value in (*inputs.items(), *labels.items()):
        if holds_text(value):
            raise TypeError(text_message(type(model).__name__, name))
        if holds_objects(value):
            raise TypeError(f"{type(model).__name__} got objects such as None as {quote(name)}; give numbers.")
    check_integers((), (), inputs, type(model).__name__)
    ids = values_of(inputs.get("input_ids"))
    if ids is not None:
        check_ids(ids, model.config.vocab_size)
    given = values_of(labels.get("labels"))
    classes = model.label_classes(given) if given is not None and model.own_loss else None
    if classes is not None and given.dtype.kind in "iuf":
        given = given[given != IGNORED]
        check_classes((int(np.min(given)), int(np.max(given))) if given.size else None, classes)


def on_host(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors among some whose values can be read without waiting for a device."""
    return {name: value for name, value in tensors.items() if "CPU" in str(getattr(value, "device", "CPU")).upper()}


@contextlib.contextmanager
def errors_named(model: Any) -> Iterator[None]:
    """Say in words which label or id ended a step; other errors pass.

    Raises:
        ValueError: a label beyond the classes, or an id beyond the vocabulary.
    """
    try:
        yield
    except Exception as error:
        label, token = _BAD_LABEL.search(str(error)), _BAD_ID.search(str(error))
        if label:
            hint = f"{IGNORED} is for positions that do not count"
            if not model.own_loss:
                hint = (
                    f"for {IGNORED} compile SparseCategoricalCrossentropy(ignore_class={IGNORED}), or no loss at all"
                )
            raise ValueError(
                f"labels hold {label[1]}; classes are numbered in [0, {label[2]}), and {hint}."
            ) from error
        if token and int(token[2]) == model.config.vocab_size:
            raise ValueError(f"input_ids hold {token[1]}; the vocabulary has ids 0 to {int(token[2]) - 1}.") from error
        raise
