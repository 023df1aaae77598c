"""Packed weights on their way into a LiteRT file: which have a place there, and how they are found again.

The converter takes float32 matrices. A matrix of integers times scales is known afterwards by its bytes, and the
quantiser finds integers and scales again.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from tfmodels.checkpoints.quantized.scheme import Scheme
from tfmodels.checkpoints.weight_map import walk

_GROUPS = (32, 64, 128, 256)


def check_packed(model: Any) -> None:
    """Raise ValueError where a model has packed weights that LiteRT has no place for.

    Args:
        model: a `TFPreTrainedModel`.
    """
    for path, layer in walk(model):
        packed = getattr(layer, "packed", None)
        if packed is not None and not _has_place(packed.scheme, packed.width):
            raise ValueError(
                f"{path} is quantised ({packed.scheme}, {packed.width} inputs), for which LiteRT has no place: it has "
                f"integers without zeros, in 8 bits with one scale per output, in 4 bits with one per output or per "
                f"group of {', '.join(map(str, _GROUPS))}. Load the model without quantize() and export it with "
                f'quantize="int8" or "int4".'
            )


def _has_place(scheme: Scheme, width: int) -> bool:
    if scheme.offsets or scheme.ordered or scheme.divided or scheme.values != "int":
        return False
    return scheme.group_size is None or (
        scheme.bits == 4 and scheme.group_size in _GROUPS and width % scheme.group_size == 0
    )


def digests_of(model: Any) -> dict[str, Scheme]:
    """Digests of a model's packed matrices, and their schemes."""
    packed = (getattr(layer, "packed", None) for _, layer in walk(model))
    return {digest_of(one.dequantized().T): one.scheme for one in packed if one is not None}


def digest_of(matrix: np.ndarray) -> str:
    """A text that is the same for the same numbers (out, in) alone."""
    return hashlib.sha256(np.ascontiguousarray(matrix)).hexdigest() + str(matrix.shape)
