"""Compare the sizes that a configuration promises with a file's tensors, before anything of that size is built."""

from __future__ import annotations

import math
import re
from typing import Any

from tfmodels.checkpoints.reader import Checkpoint, CheckpointError
from tfmodels.utils.text import quote

# Sizes of tensors. Positions are no such size in families with rotary embeddings or ALiBi.
_WIDTHS = ("vocab_size", "hidden_size", "intermediate_size", "head_dim", "num_attention_heads", "num_key_value_heads")
# A configuration that is wrong by less than this factor is built; the tensors that do not fit are then named.
_FACTOR = 64
_INDEX = re.compile(r"\.(\d+)\.")
_MAX_NEW_ELEMENTS = 1 << 28


def check_sizes(config: Any, checkpoint: Checkpoint) -> None:
    """Make sure that a configuration asks for no more than its file can hold, by orders of magnitude.

    Raises:
        CheckpointError: the message names the field, its value, and what the file holds.
    """
    names = checkpoint.names()
    where = checkpoint.files[0].parent if checkpoint.files else checkpoint.folder
    layers = len({int(match[1]) for name in names if (match := _INDEX.search(f".{name}")) and len(match[1]) < 10})
    largest = max((size for name in names for size in checkpoint.info(name).shape), default=0)
    found = f"no tensor of the file has more than {largest} rows or columns"
    limits = dict.fromkeys(_WIDTHS, (largest, found))
    limits["num_hidden_layers"] = layers, f"the file has the weights of {layers} layers"
    for field, (limit, found) in limits.items():
        promised = getattr(config, field, None)
        if isinstance(promised, int) and promised > _FACTOR * max(1, limit):
            raise CheckpointError(
                f"{where}: the configuration says {name_of(config, field)}={quote(promised, 30)}; {found}."
            )


def name_of(config: Any, field: str) -> str:
    """The name that a family's own files have for a field."""
    return type(config).aliases.get(field, field)


def check_new_weights(slots: dict[str, Any], names: list[str], checkpoint: Checkpoint) -> None:
    """Make sure that weights which start at random are no larger than a model of the file's size can use.

    Raises:
        CheckpointError: the message names the weight and its shape.
    """
    stored = sum(math.prod(checkpoint.info(name).shape) for name in checkpoint.names())
    for name in names:
        if math.prod(slots[name].shape) > _FACTOR * stored + _MAX_NEW_ELEMENTS:
            raise CheckpointError(
                f"{checkpoint.files[0].parent}: {name} would be made anew with the shape {slots[name].shape}, while "
                f"the whole file holds {stored} numbers; is a size in the configuration wrong?"
            )
