"""Checks of the inputs of a backbone."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import backend, ops

from tfmodels.cache import kv
from tfmodels.models.calling import value_range, values_of


def as_rows(position_ids: Any) -> Any:
    """Positions that a caller gave, int32 (batch or 1, length); one axis is one row for all."""
    position_ids = ops.cast(position_ids, "int32")
    return ops.expand_dims(position_ids, 0) if len(position_ids.shape) == 1 else position_ids


def check_inputs(config: Any, input_ids: Any, inputs_embeds: Any, attention_mask: Any, **places: Any) -> None:
    """Check that ids or embeddings are given, and not both, and that everything given beside them fits them.

    Sizes are compared where they are known, and values are looked at where there are some now. Inside a graph an id
    beyond the vocabulary looks up whatever the backend makes of it (an error on a CPU, zeros on a GPU, the last row
    under XLA), and NaN goes on to the outputs.

    Args:
        config: of the model; its sizes are `vocab_size`, `hidden_size` and `num_attention_heads`.
        input_ids, inputs_embeds, attention_mask: as models take them, or None.
        **places: by name, a number per token, (batch or 1, length) or (length,), or None.

    Raises:
        TypeError: embeddings hold no floats.
        ValueError: both or neither were given, a shape is wrong, ids lie outside the vocabulary, or embeddings are
            NaN.
    """
    if (input_ids is None) == (inputs_embeds is None):
        given = "both were" if input_ids is not None else "neither was"
        raise ValueError(f"exactly one of input_ids and inputs_embeds is needed; {given} given.")
    if inputs_embeds is None:
        shape = _shape(input_ids)
        if len(shape) != 2:
            raise ValueError(f"input_ids has shape {shape}; (batch, length) was expected.")
        check_ids(input_ids, config.vocab_size)
    else:
        shape = _shape(inputs_embeds)
        if len(shape) != 3 or shape[2] not in (None, config.hidden_size):
            raise ValueError(f"inputs_embeds has shape {shape}; (batch, length, {config.hidden_size}) was expected.")
        if not backend.is_float_dtype(kind := backend.standardize_dtype(inputs_embeds.dtype)):
            raise TypeError(f"inputs_embeds holds {kind} numbers; floats were expected. Ids are given as input_ids.")
        values = values_of(inputs_embeds)
        if values is not None and np.isnan(values).any():
            row, column, _ = np.argwhere(np.isnan(values))[0]
            raise ValueError(f"inputs_embeds holds NaN, first in row {row} at position {column}.")
    batch, length = shape[:2]
    for name, value in places.items():
        given = (1, length) if value is None else _shape(value)
        if len(given) not in (1, 2) or _clash((1, *given)[-2], 1, batch) or _clash(given[-1], length):
            raise ValueError(
                f"{name} has shape {given}; ({_rows(batch)}, {_size(length)}) was expected, a number for each token."
            )
    given = () if attention_mask is None else _shape(attention_mask)
    if given and _clash(given[0], 1, batch):
        raise ValueError(f"attention_mask has shape {given}; its first axis is the batch, of {_rows(batch)}.")
    if len(given) == 4 and _clash(given[1], 1, config.num_attention_heads):
        raise ValueError(
            f"attention_mask has shape {given}, read as (batch, heads, queries, keys): 1 or "
            f"{config.num_attention_heads} heads were expected."
        )


def check_cache(config: Any, past_key_values: Any, layers: int, batch: int | None) -> None:
    """Check that a cache is one of this model and of these rows.

    Raises:
        ValueError: it has another number of layers, or a tensor of it another shape.
    """
    pairs = kv.layers_of(past_key_values)
    if len(pairs) != layers:
        raise ValueError(f"past_key_values has {len(pairs)} layers; the model has {layers}.")
    if isinstance(past_key_values, kv.StaticCache):
        return
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    length = None
    for layer, pair in enumerate(pairs):
        for place, tensor in enumerate(pair):
            given = _shape(tensor)
            length = given[2] if length is None and len(given) == 4 else length
            expected = (batch, heads, length, size)
            if len(given) != 4 or any(map(_clash, given, expected)):
                raise ValueError(
                    f"past_key_values[{layer}][{place}] has shape {given}; ({', '.join(map(_size, expected))}) was "
                    f"expected: (batch, heads, length, head_dim)."
                )


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(getattr(value, "shape", ()))


def _size(size: int | None) -> str:
    return "any" if size is None else str(size)


def _rows(batch: int | None) -> str:
    return "1" if batch == 1 else f"{_size(batch)} or 1"


def _clash(given: int | None, *expected: int | None) -> bool:
    """Whether a size is none of those expected, as far as all are known."""
    return None not in (given, *expected) and given not in expected


def check_ids(input_ids: Any, vocab_size: int, name: str = "input_ids") -> None:
    """Raise ValueError where ids, the argument `name`, are known to lie outside the vocabulary."""
    lowest, highest = value_range(input_ids) or (0, 0)
    if lowest < 0 or highest >= vocab_size:
        raise ValueError(f"{name} run from {lowest} to {highest}; the vocabulary has ids 0 to {vocab_size - 1}.")
