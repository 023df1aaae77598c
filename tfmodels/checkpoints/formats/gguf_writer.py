"""Write GGUF files: the counterpart of `tfmodels.checkpoints.formats.gguf`.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` library lays the file out and rounds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.checkpoints.formats.gguf_header import gguf_library
from tfmodels.checkpoints.gguf_map import GGUFMap

# Block types that matrices are rounded to, and the dtypes that they may have instead; the number that files give each.
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}


@dataclasses.dataclass(frozen=True)
class GGUFTensor:
    """A tensor to be written.

    Fields:
        name: in the file.
        shape: (out, in) or (size,), in elements.
        kind: its type, one of `FILE_TYPES`.
        read: gives its values as floats, or, if `blocks`, as uint8 (out, bytes of a row).
        blocks: whether `read` gives blocks.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]
    blocks: bool = False


def write_gguf(path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Sequence[GGUFTensor]) -> None:
    """Write a file; memory holds one tensor at a time.

    Args:
        metadata: whole names -> bool, int, float, str, or a list of these; the architecture itself apart.

    Raises:
        ImportError: the `gguf` library is not installed.
    """
    library = gguf_library()
    writer = library.GGUFWriter(path, architecture)
    try:
        for key, value in metadata.items():
            _add(writer, key, value)
        for tensor in tensors:
            kind = library.GGMLQuantizationType[tensor.kind]
            elements, size = library.GGML_QUANT_SIZES[kind]
            rows = (*tensor.shape[:-1], tensor.shape[-1] // elements * size)
            plain = {"F32": np.float32, "F16": np.float16}.get(tensor.kind)
            shape, dtype = (tensor.shape, plain) if plain is not None else (rows, np.uint8)
            writer.add_tensor_info(tensor.name, shape, np.dtype(dtype), math.prod(rows), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            values = tensor.read()
            if not tensor.blocks:
                kind = library.GGMLQuantizationType[tensor.kind]
                values = library.quants.quantize(np.ascontiguousarray(values, np.float32), kind)
            writer.write_tensor_data(np.ascontiguousarray(values))
    finally:
        writer.close()


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))


def stored_rows(gguf_map: GGUFMap, name: str, config: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A function that puts the rows of a tensor, (out, ...), in the order that GGUF files have.

    Args:
        gguf_map: of the architecture.
        name: of the tensor in safetensors files.
        config: the model's.
    """
    layer = name.split(".")[-2]
    heads, parts = 0, 1
    for fields, count in ((gguf_map.rotated, 2), (gguf_map.fused, 3)):
        if layer in fields:
            heads, parts = getattr(config, fields[layer]), count

    def change(array: np.ndarray) -> np.ndarray:
        if parts == 2:  # the halves of each head, row by row
            pairs = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
            array = pairs.swapaxes(1, 2).reshape(array.shape)
        elif parts == 3:  # queries, keys and values of all heads, one after the other
            by_head = array.reshape(heads, 3, array.shape[0] // heads // 3, *array.shape[1:])
            array = by_head.swapaxes(0, 1).reshape(array.shape)
        return array

    return change
