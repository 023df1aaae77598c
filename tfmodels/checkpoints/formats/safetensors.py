"""Read `.safetensors` files (https://huggingface.co/docs/safetensors, section Format).

The layout is 8 bytes of header length, a JSON header, and the elements of all tensors back to back. The package
`safetensors` would read it too, but copies each tensor out of its mapping and keeps every page it has touched: a
model's weights then count twice while it loads. Here a tensor is a view, and its pages can be let go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import (
    DTYPES,
    CheckpointError,
    MappedFile,
    TensorFile,
    TensorInfo,
    count_elements,
    is_count,
    parse_json_object,
)

METADATA_KEY = "__metadata__"
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""The format's names of element types, and ours."""


class SafetensorsFile(TensorFile):
    """One `.safetensors` file.

    Args:
        path: the file.

    Raises:
        CheckpointError: the header is damaged or contradicts the file: every byte must belong to exactly one tensor.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        self._data_start, header = self._read_header()
        spans: dict[str, tuple[int, int]] = {}
        infos = {}
        for name, entry in header.items():
            if name == METADATA_KEY:
                self._check_metadata(entry)
            else:
                infos[name], spans[name] = self._check_entry(name, entry)
        self._starts = {name: start for name, (start, _) in spans.items()}
        # By place in the file, so that reading all tensors in order reads the disk in order.
        self.tensors = {name: infos[name] for name in sorted(spans, key=lambda name: spans[name])}
        self._check_spans(spans)

    def read(self, name: str) -> np.ndarray:
        info = self.tensors[name]
        return self._file.array(info.shape, DTYPES[info.dtype], self._data_start + self._starts[name])

    def _read_header(self) -> tuple[int, dict[str, Any]]:
        size = self._file.size
        if size < 8:
            raise CheckpointError(f"{self.path} is cut short: {size} bytes cannot hold a safetensors header.")
        length = int.from_bytes(self._file.bytes(0, 8), "little")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{self.path} announces a header of {length} bytes, over the format's limit of {MAX_HEADER_BYTES}; "
                "this is no safetensors file, or its first bytes are damaged."
            )
        if 8 + length > size:
            raise CheckpointError(
                f"{self.path} is cut short: its header should be {length} bytes long, "
                f"but only {size - 8} bytes follow the length."
            )
        return 8 + length, parse_json_object(self._file.bytes(8, 8 + length), f"{self.path}: the header")

    def _check_metadata(self, metadata: Any) -> None:
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise CheckpointError(f"{self.path}: {METADATA_KEY} must be an object of strings.")

    def _check_entry(self, name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
        where = f"{self.path}: tensor {name!r}"
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise CheckpointError(f"{where} must be described by dtype, shape and data_offsets.")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPE_NAMES:
            raise CheckpointError(
                f"{where} has the element type {entry['dtype']!r}, which cannot be read; "
                f"readable are {', '.join(DTYPE_NAMES)}."
            )
        if not isinstance(shape, list) or not all(map(is_count, shape)):
            raise CheckpointError(f"{where} has a shape that is no list of sizes >= 0.")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
            raise CheckpointError(f"{where} has data_offsets that are no pair of positions >= 0.")
        start, stop = offsets
        count = count_elements(tuple(shape))
        if count is None:
            raise CheckpointError(f"{where} has a shape no tensor can have ({len(shape)} dimensions).")
        dtype = DTYPES[DTYPE_NAMES[entry["dtype"]]]
        nbytes = count * dtype.itemsize
        if stop - start != nbytes:
            raise CheckpointError(
                f"{where}: shape {tuple(shape)} of {dtype.name} takes {nbytes} bytes, "
                f"but its data_offsets {start}..{stop} span {stop - start}."
            )
        return TensorInfo(name, tuple(shape), dtype.name, nbytes, self.path.name), (start, stop)

    def _check_spans(self, spans: dict[str, tuple[int, int]]) -> None:
        reached, before = 0, "the header"
        for name in self.tensors:
            start, stop = spans[name]
            if start != reached:
                fault = "overlaps" if start < reached else "leaves unused bytes after"
                raise CheckpointError(
                    f"{self.path}: tensor {name!r} at {start}..{stop} {fault} {before}, which ends at {reached}."
                )
            reached, before = stop, f"tensor {name!r}"
        available = self._file.size - self._data_start
        if reached > available:
            raise CheckpointError(
                f"{self.path} is cut short: its tensors take {reached} bytes after the header, "
                f"but there are {available}; {before} is not whole."
            )
        if reached < available:
            raise CheckpointError(
                f"{self.path} has {available - reached} bytes behind its last tensor that belong to none."
            )
