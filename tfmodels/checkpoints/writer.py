"""Write weights as safetensors, tensor by tensor, so that saving takes the memory of one tensor."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tfmodels.checkpoints.files import DTYPES, CheckpointError, count_elements
from tfmodels.checkpoints.formats.safetensors import DTYPE_NAMES, METADATA_KEY
from tfmodels.checkpoints.reader import INDEX_SUFFIX
from tfmodels.utils.files import Staged, staged, sync
from tfmodels.utils.json_files import write_object
from tfmodels.utils.text import quote

SINGLE_NAME = "model.safetensors"
INDEX_NAME = SINGLE_NAME + INDEX_SUFFIX
_ALIGNMENT = 8
_SHARD_NAME = re.compile(r"model(-[0-9a-f]{8})?-\d{5}-of-\d{5}\.safetensors")
_OURS = re.compile(rf"model\.safetensors(\.index\.json)?|{_SHARD_NAME.pattern}")
_TYPE_NAMES = {ours: theirs for theirs, ours in DTYPE_NAMES.items()}
_UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)},
}


class TensorSpec(NamedTuple):
    """Shape and dtype of a tensor to be written; a `TensorInfo` or a variable serves as well."""

    shape: tuple[int, ...]
    dtype: str


class HasShapeAndDtype(Protocol):
    """Anything that tells its shape and dtype."""

    shape: Any
    dtype: Any


class _Entry(NamedTuple):
    name: str
    spec: TensorSpec
    nbytes: int
    get: Callable[[], Any]


def parse_size(size: int | str) -> int:
    """Bytes in a size such as 1000, "200MB" (decimal) or "2GiB" (binary).

    >>> parse_size("5GB"), parse_size("1.5 KiB"), parse_size(12)
    (5000000000, 1536, 12)

    Raises:
        ValueError: `size` is no such text, or not above zero.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b)\s*", size, re.IGNORECASE)
        parsed = int(float(match[1]) * _UNITS.get(match[2].upper(), 0)) if match else 0
    else:
        parsed = size if type(size) is int else 0
    if parsed <= 0:
        raise ValueError(f"max_shard_size is {quote(size)}; a number of bytes, '5GB' or '200MiB' was expected.")
    return parsed


def write_checkpoint(
    folder: str | os.PathLike[str] | Staged,
    tensors: Iterable[tuple[str, HasShapeAndDtype, Callable[[], Any]]],
    max_shard_size: int | str = "5GB",
) -> list[Path]:
    """Write tensors to `model.safetensors`, or to numbered shards and their index where they take more than one file.

    Everything is written under temporary names first, so that an error (a full disk, a tensor that cannot be had)
    leaves the folder as it was. Only when all is on the disk do the files take their names, the index last; then
    safetensors files of an earlier save that are not part of this one are removed. Shards never take the names of
    those that an index in the folder names, so that the old index and its shards stay whole until the new index is
    there.

    Args:
        folder: where to write, made if needed; or a `Staged` folder, whose other files belong to the same save.
        tensors: for each tensor its name, something with its `shape` and `dtype` (float64, float32, float16, bfloat16,
            float8, an integer type or bool), and a function that returns it as an array. The function is called once,
            when the tensor is due, and its result dropped before the next: the peak is one tensor.
        max_shard_size: bytes of tensors in one file, a number or a text like "5GB" or "200MiB". A larger tensor gets a
            file of its own.

    Returns:
        The files written, the index last if there is one.

    Raises:
        ValueError: two tensors of one name, an unknown dtype, or a `max_shard_size` that is no size.
        CheckpointError: a function returned another shape or dtype than was announced.
        OSError: the disk is full or not writable.

    >>> import tempfile
    >>> zeros = lambda: np.zeros((2, 3), "float32")
    >>> spec = TensorSpec((2, 3), "float32")
    >>> files = write_checkpoint(tempfile.mkdtemp(), [("a", spec, zeros), ("b", spec, zeros)], max_shard_size=24)
    >>> [file.name for file in files]
    ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors', 'model.safetensors.index.json']
    """
    shards = _plan(tensors, parse_size(max_shard_size))
    if isinstance(folder, Staged):
        return _write_all(folder, shards)
    with staged(folder) as stage:
        return _write_all(stage, shards)


def write_tensors(
    path: str | os.PathLike[str], tensors: Iterable[tuple[str, HasShapeAndDtype, Callable[[], Any]]]
) -> None:
    """Write tensors to one new safetensors file; arguments and errors as in `write_checkpoint`."""
    (entries,) = _plan(tensors, math.inf)
    _write_file(Path(path), entries)


def _write_all(stage: Staged, shards: list[list[_Entry]]) -> list[Path]:
    names = [SINGLE_NAME] if len(shards) == 1 else _shard_names(len(shards), _earlier(stage.target))
    for name, entries in zip(names, shards, strict=True):
        _write_file(stage.folder / name, entries)
    if len(shards) > 1:
        names.append(INDEX_NAME)
        _write_index(stage.folder / INDEX_NAME, dict(zip(names, shards, strict=False)))
    stage.last.append(names[-1])
    stage.obsolete = functools.partial(_earlier, stage.target)
    return [stage.target / name for name in names]


def _earlier(folder: Path) -> list[str]:
    """Names of the weights in a folder, in the order in which they can be removed.

    What a reader looks for first goes first, or it would find an index whose shards are gone.
    """
    names = sorted(path.name for path in folder.iterdir() if _OURS.fullmatch(path.name))
    return sorted(names, key=lambda name: (name != SINGLE_NAME, name != INDEX_NAME))


def _shard_names(count: int, earlier: list[str]) -> list[str]:
    """Names of shards: the usual ones, or ones with a mark of their own where the folder has shards already."""
    mark = f"-{uuid.uuid4().hex[:8]}" if any(_SHARD_NAME.fullmatch(name) for name in earlier) else ""
    return [f"model{mark}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _plan(tensors: Iterable[tuple[str, HasShapeAndDtype, Callable[[], Any]]], limit: float) -> list[list[_Entry]]:
    """Fill shards in the order given."""
    shards: list[list[_Entry]] = [[]]
    filled, seen = 0, set()
    for name, spec, get in tensors:
        if name in seen or name == METADATA_KEY:
            raise ValueError(f"The tensor name {quote(name)} is {'given twice' if name in seen else 'reserved'}.")
        seen.add(name)
        shape = tuple(int(size) for size in spec.shape)
        dtype = _dtype_name(spec.dtype)
        count = count_elements(shape)
        if dtype not in _TYPE_NAMES or count is None:
            raise ValueError(
                f"Tensor {quote(name)} of shape {shape} and dtype {dtype} cannot be written; "
                f"dtypes are {', '.join(DTYPES)}."
            )
        nbytes = count * DTYPES[dtype].itemsize
        if shards[-1] and filled + nbytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(_Entry(name, TensorSpec(shape, dtype), nbytes, get))
        filled += nbytes
    # Wide types first, as the reference writer does: every tensor then starts at a multiple of its element size.
    return [sorted(shard, key=lambda entry: -DTYPES[entry.spec.dtype].itemsize) for shard in shards]


def _dtype_name(dtype: Any) -> str:
    """Name of a dtype given as text, by NumPy, or by TensorFlow (whose dtypes have a `name` too)."""
    if isinstance(dtype, str):
        return dtype
    return dtype.name if hasattr(dtype, "name") else np.dtype(dtype).name


def _write_file(path: Path, entries: list[_Entry]) -> None:
    header: dict[str, Any] = {METADATA_KEY: {"format": "pt"}}
    position = 0
    for name, spec, nbytes, _ in entries:
        header[name] = {
            "dtype": _TYPE_NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [position, position + nbytes],
        }
        position += nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for entry in entries:
            file.write(_elements(entry))
        sync(file)


def _elements(entry: _Entry) -> memoryview:
    """The tensor's bytes in the file's order: row-major, little-endian."""
    array = np.asarray(entry.get())
    if array.shape != entry.spec.shape or array.dtype.name != entry.spec.dtype:
        raise CheckpointError(
            f"Tensor {quote(entry.name)} was announced as {entry.spec.dtype} {entry.spec.shape}, "
            f"but is {array.dtype.name} {array.shape}."
        )
    array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    # As bytes, since half types that are not NumPy's own have no buffer interface.
    return memoryview(array.reshape(-1).view(np.uint8))


def _write_index(path: Path, shards: dict[str, list[_Entry]]) -> None:
    index = {
        "metadata": {"total_size": sum(entry.nbytes for entries in shards.values() for entry in entries)},
        "weight_map": dict(sorted((entry.name, file) for file, entries in shards.items() for entry in entries)),
    }
    write_object(path, index)
