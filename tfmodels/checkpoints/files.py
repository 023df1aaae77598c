"""The parts that all weight formats share: errors, tensor descriptions, and files mapped into memory."""

from __future__ import annotations

import math
import mmap
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tfmodels.utils.files import open_regular
from tfmodels.utils.json_files import parse_object

DTYPES: dict[str, np.dtype] = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in (
        *(np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
        *(np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8, np.bool_),
    )
}
"""The element types that weights may have, by name. Half and smaller floats beyond NumPy's own are `ml_dtypes`."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_DIMENSIONS = 32
_MAX_ELEMENTS = 1 << 48


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message names the file and what is wrong with it."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A folder, or a file that belongs to a checkpoint, is not there."""


class TensorInfo(NamedTuple):
    """The description of one tensor in a checkpoint's header."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """A key of `DTYPES`, such as "float32" or "bfloat16"."""
    nbytes: int
    """Size of the tensor's elements in bytes."""
    file: str
    """Name of the file, inside the checkpoint's folder, that holds the elements."""
    packed: tuple[str, int] | None = None
    """The type that the file itself has elements in, and their bytes there, where that is none of `DTYPES`."""


class TensorFile(ABC):
    """One file of weights. A further format is a subclass of this and a line in `reader.FORMATS`."""

    path: Path
    tensors: dict[str, TensorInfo]
    """The file's tensors in the order in which they are best read."""
    _file: MappedFile

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Read and check the header; no weights are read."""

    @abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Return one of `tensors` as a read-only array."""

    def release(self) -> None:
        """Stop counting the pages that were read as this process's memory; arrays handed out stay valid."""
        self._file.release()

    def close(self) -> None:
        """Let go of the file; arrays handed out stay valid."""
        self._file.close()

    def name_in_index(self, name: str) -> str:
        """The name here of a tensor that an index of shards calls `name`."""
        return name


class MappedFile:
    """A file mapped into memory, read-only, which hands out NumPy views.

    A view costs no memory beyond the page cache and keeps the mapping alive by itself, so closing this object while
    views are in use is safe. The operating system kills a process that touches a mapped page of a file cut short since
    it was opened; replace a checkpoint's files by renaming, as `write_checkpoint` does, never by writing into them.

    Args:
        path: file to map.

    Raises:
        CheckpointError: the file is empty, or is a Git-LFS pointer in place of the weights.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            opened = open_regular(path)
        except ValueError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        with opened as file:
            self.size = os.fstat(file.fileno()).st_size
            if self.size == 0:
                raise CheckpointError(f"{path} is empty (0 bytes).")
            self._map: mmap.mmap | None = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.bytes(0, len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(
                f"{path} is a Git-LFS pointer of {self.size} bytes, not the weights themselves. "
                "Run `git lfs install` and `git lfs pull` in the repository, or download the file again."
            )

    def bytes(self, start: int, stop: int) -> bytes:
        """Copy the bytes [start, stop), as far as the file has them."""
        return self._open()[start:stop]

    def memory(self) -> memoryview:
        """The whole file as a read-only buffer."""
        return memoryview(self._open())

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype, offset: int, strides: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """View elements from byte `offset` on as a read-only array; `strides` in bytes, row-major by default."""
        return np.ndarray(shape, dtype, self._open(), offset, strides)

    def release(self) -> None:
        """Drop the mapped pages from this process; they stay in the page cache and come back when touched."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Forget the mapping; it ends with the last view on it."""
        self._map = None

    def _open(self) -> mmap.mmap:
        if self._map is None:
            raise CheckpointError(f"{self.path} was closed; read tensors before the checkpoint is closed.")
        return self._map


def count_elements(shape: tuple[int, ...]) -> int | None:
    """Number of elements of a tensor, or None where `shape` cannot belong to one that exists.

    >>> count_elements((3, 4)), count_elements(()), count_elements((2, -1)), count_elements((0, 1 << 60))
    (12, 1, None, None)
    """
    if len(shape) > MAX_DIMENSIONS or any(not 0 <= size <= _MAX_ELEMENTS for size in shape):
        return None
    # A tensor without elements must still have strides that fit, so empty dimensions count as one here.
    if math.prod(size or 1 for size in shape) > _MAX_ELEMENTS:
        return None
    return math.prod(shape)


def is_count(value: Any) -> bool:
    """Whether `value` is an int >= 0 (and not a bool, which Python counts among the ints)."""
    return type(value) is int and value >= 0


def parse_json_object(text: bytes, what: str) -> dict[str, Any]:
    """`tfmodels.utils.json_files.parse_object`, as a CheckpointError where it raises."""
    try:
        return parse_object(text, what)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
