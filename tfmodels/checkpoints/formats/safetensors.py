"""Read `.safetensors` files (https://huggingface.co/docs/safetensors, section Format).

The layout is 8 bytes of header length, a JSON header, and the elements of all tensors back to back. The package
`safetensors` would read it too, but copies each tensor out of its mapping and keeps every page it has touched: a
model's weights then count twice while it loads. Here a tensor is a view, and its pages can be let go.

The former TensorFlow and Flax classes wrote such files too, with the names and the order of axes of their own formats;
those files are read as `tf_model.h5` and `flax_model.msgpack` are."""

from __future__ import annotations

from collections.abc import Collection
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
from tfmodels.checkpoints.formats import flax, hdf5
from tfmodels.utils.text import quote

METADATA_KEY = "__metadata__"
_FORMAT_KEY = "format"
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
        metadata = header.get(METADATA_KEY, {})
        spans: dict[str, tuple[int, int]] = {}
        infos = {}
        for name, entry in header.items():
            if name == METADATA_KEY:
                self._check_metadata(entry)
            else:
                infos[name], spans[name] = self._check_entry(name, entry)
        # By place in the file, so that reading all tensors in order reads the disk in order.
        self.tensors = {name: infos[name] for name in sorted(spans, key=lambda name: spans[name])}
        self._check_spans(spans)
        self._written_by = _writer_of(metadata.get(_FORMAT_KEY), infos)
        stored, self.tensors, self._places = self.tensors, {}, {}
        for name, info in stored.items():
            self._add(name, info, spans[name][0])
        for alias, name in metadata.items():
            # safetensors.torch.save_model writes a shared tensor once and says here which other names it has.
            if alias != _FORMAT_KEY and alias not in stored and name in stored:
                self._add(alias, stored[name], spans[name][0])

    def read(self, name: str) -> np.ndarray:
        start, shape, dtype, transposed = self._places[name]
        array = self._file.array(shape, dtype, self._data_start + start)
        return array.T if transposed else array

    def name_in_index(self, name: str) -> str:
        here = _torch_name(name, self._written_by)[0]
        if self._written_by == "tf" and here not in self.tensors:
            # The index of a TensorFlow class has the model's name in front, its shards have not.
            return hdf5.torch_name(name)
        return here

    def _add(self, stored: str, info: TensorInfo, start: int) -> None:
        name, is_kernel = _torch_name(stored, self._written_by)
        if self._written_by == "tf":
            info = info._replace(shape=hdf5.torch_shape(stored.split("/")[-1], info.shape))
        transposed = is_kernel and len(info.shape) == 2
        if name in self.tensors:
            raise CheckpointError(f"{self.path}: two tensors have names that both stand for {quote(name)}.")
        self.tensors[name] = info._replace(name=name, shape=info.shape[::-1] if transposed else info.shape)
        self._places[name] = start, info.shape, DTYPES[info.dtype], transposed

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
        where = f"{self.path}: tensor {quote(name)}"
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise CheckpointError(f"{where} must be described by dtype, shape and data_offsets.")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPE_NAMES:
            raise CheckpointError(
                f"{where} has the element type {quote(entry['dtype'])}, which cannot be read; "
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
                    f"{self.path}: tensor {quote(name)} at {start}..{stop} {fault} {before}, which ends at {reached}."
                )
            reached, before = stop, f"tensor {quote(name)}"
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


def _writer_of(stated: str | None, names: Collection[str]) -> str:
    """The library whose names a file has: "pt", "tf" or "flax"; by its metadata, or where those are silent by them."""
    if stated in ("tf", "flax"):
        return stated
    if stated != "pt":
        if any(name.endswith((".kernel", ".embedding", "/scale", "/embedding")) for name in names):
            return "flax"
        if any("/" in name or name.endswith(":0") for name in names):
            return "tf"
    return "pt"


def _torch_name(name: str, written_by: str) -> tuple[str, bool]:
    """The name in PyTorch files of a stored tensor, and whether it is a kernel, which lies transposed there."""
    if written_by == "tf":
        return hdf5.torch_name(f"model/{name}"), name.split("/")[-1].startswith("kernel")
    if written_by == "flax":
        name = name.replace(".", "/")
        return flax.torch_name(name), name.endswith("/kernel")
    return name, False
