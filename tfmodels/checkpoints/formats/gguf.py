"""Read GGUF files: weights, configuration and the tokenizer's tables, all in one file.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Weights are handed out under the names and in the
order of rows that safetensors files have; quantised ones are turned into float32 by the `gguf` library, tensor by
tensor.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmodels.checkpoints.files import (
    DTYPES,
    CheckpointError,
    CheckpointNotFoundError,
    TensorFile,
    TensorInfo,
)
from tfmodels.checkpoints.formats.gguf_header import gguf_library, join_tensors, open_headers, parts
from tfmodels.checkpoints.gguf_map import GGUFMap, GGUFSettings
from tfmodels.utils.text import quote, shorten

# Dtypes of elements that are not quantised: ggml's name -> ours.
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}

# The module whose `gguf_maps` gives the `GGUFMap` of each architecture. It is looked up by name when a file is opened:
# readers import neither the registry nor a family.
_REGISTRY = "tfmodels.auto"


class Blocks(NamedTuple):
    """A quantised matrix: the name of its type, and a function that gives uint8 (rows, blocks, bytes of a block)."""

    kind: str
    read: Callable[[], np.ndarray]


class GGUFFile(TensorFile):
    """A model in one `.gguf` file, or in several that were split off one.

    Args:
        path: the file, or any of the several.

    Attributes:
        metadata: the file's keys and values; arrays as lists, those of texts as `Texts`.

    Raises:
        ImportError: the `gguf` library is not installed.
        CheckpointNotFoundError: one of the several files is not there.
        CheckpointError: not GGUF, damaged, cut short, with lying sizes, of another architecture, quantised in a way
            that cannot be read, or files that do not belong together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        headers = open_headers(path)
        self._files = [header.file for header in headers]
        self.metadata = headers[0].metadata
        self._stored = join_tensors(headers)
        self._map = _map_of(self.metadata, path)
        self.config = self._map.config(GGUFSettings(self._map, self.metadata, self._stored, self._elements, str(path)))
        self._entries: dict[str, str] = {}
        self.tensors = {}
        for stored, (file, entry) in self._stored.items():
            if stored in self._map.settings:
                continue
            name = self._map.stored_name(stored)
            if name is None:
                raise CheckpointError(
                    f"{path}: tensor {quote(stored)} belongs to no {self._map.family} model that can be read."
                )
            heads, count = self._heads(name)
            if heads and (not entry.shape or entry.shape[0] % (count * heads)):
                rows = entry.shape[0] if entry.shape else "no"
                raise CheckpointError(f"{path}: tensor {quote(stored)} has {rows} rows for {heads} heads.")
            dtype = _PLAIN.get(entry.kind, "float32")
            nbytes = math.prod(entry.shape) * DTYPES[dtype].itemsize
            shape = entry.shape[::-1] if name.endswith(self._map.turned) else entry.shape
            packed = None if entry.kind in _PLAIN else (entry.kind, entry.nbytes)
            self.tensors[name] = TensorInfo(name, shape, dtype, nbytes, file.path.name, packed)
            self._entries[name] = stored

    def _heads(self, name: str) -> tuple[int, int]:
        """Number of heads of a projection whose rows are reordered, and the parts of a head; 0 for other tensors."""
        layer = name.split(".")[-2]
        for fields, count in ((self._map.rotated, 2), (self._map.fused, 3)):
            if layer in fields:
                return self.config[fields[layer]], count
        return 0, 1

    def _reordered(self, name: str, array: np.ndarray) -> np.ndarray:
        """A tensor with its rows in the order of safetensors files."""
        heads, count = self._heads(name)
        if not heads:
            return array
        return _unpermute(array, heads) if count == 2 else _by_head(array, heads)

    def read(self, name: str) -> np.ndarray:
        array = self._reordered(name, self._elements(self._entries[name]))
        for end, added in self._map.shifted.items():
            if name.endswith(end):
                array = array - array.dtype.type(added)
        if name.endswith(self._map.turned):
            array = array.T
        array.flags.writeable = False
        return array

    def blocks(self, name: str) -> Blocks | None:
        """The blocks of a quantised matrix as they lie in the file, rows in the order of safetensors files.

        Returns:
            None for a tensor that is not quantised, is no matrix, or is turned or shifted in files.
        """
        file, entry = self._stored[self._entries[name]]
        changed = name.endswith(self._map.turned) or any(name.endswith(end) for end in self._map.shifted)
        if entry.kind in _PLAIN or len(entry.shape) != 2 or 0 in entry.shape or changed:
            return None
        library = gguf_library()
        elements, size = library.GGML_QUANT_SIZES[library.GGMLQuantizationType[entry.kind]]
        shape = (entry.shape[0], entry.shape[1] // elements, size)

        def read() -> np.ndarray:
            return self._reordered(name, file.array(shape, np.dtype(np.uint8), entry.start))

        return Blocks(entry.kind, read)

    def release(self) -> None:
        for file in self._files:
            file.release()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _elements(self, stored: str) -> np.ndarray:
        """The values of a tensor by its name in the file."""
        file, entry = self._stored[stored]
        if entry.kind in _PLAIN:
            return file.array(entry.shape, DTYPES[_PLAIN[entry.kind]], entry.start)
        if 0 in entry.shape:
            return np.zeros(entry.shape, np.float32)
        library = gguf_library()
        kind = library.GGMLQuantizationType[entry.kind]
        elements, block = library.GGML_QUANT_SIZES[kind]
        rows = (*entry.shape[:-1], entry.shape[-1] // elements * block)
        try:
            values = library.quants.dequantize(file.array(rows, np.dtype(np.uint8), entry.start), kind)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{file.path} has tensors quantised as {entry.kind}, which the gguf library cannot read."
            ) from error
        except (ValueError, IndexError, TypeError) as error:
            raise CheckpointError(f"{file.path}: {entry.kind} weights cannot be read ({shorten(error)}).") from error
        return np.ascontiguousarray(values, np.float32).reshape(entry.shape)


def _map_of(metadata: dict[str, Any], path: Path) -> GGUFMap:
    architecture, known = metadata.get("general.architecture"), importlib.import_module(_REGISTRY).gguf_maps()
    if not isinstance(architecture, str) or architecture not in known:
        raise CheckpointError(
            f"{path} holds a {quote(architecture)} model; only {' and '.join(map(repr, known))} can be read from GGUF."
        )
    return known[architecture]


def read_header(path: Path) -> GGUFFile:
    """A file's header, read once while the file does not change: configuration and tokenizer come from it too.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointError: as for `GGUFFile`.
    """
    try:
        status = [(one.stat().st_mtime_ns, one.stat().st_size) for one in {path, *filter(Path.exists, parts(path))}]
    except OSError as error:
        raise CheckpointNotFoundError(f"There is no GGUF file {shorten(path)}.") from error
    return _read_header(path, tuple(sorted(status)))


@functools.lru_cache(maxsize=2)
def _read_header(path: Path, status: tuple[tuple[int, int], ...]) -> GGUFFile:
    return GGUFFile(path)


def _unpermute(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection in the order of safetensors files.

    llama.cpp turns neighbouring dimensions of a head together, and stores the rows so that they are neighbours;
    elsewhere the first half of a head turns with the second.
    """
    pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def _by_head(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a fused projection, stored by queries, keys and values, head by head."""
    parts = array.reshape(3, heads, array.shape[0] // heads // 3, *array.shape[1:])
    return parts.swapaxes(0, 1).reshape(array.shape)
