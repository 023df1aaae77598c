"""Read `pytorch_model.bin` files without PyTorch and without executing their pickles.

`torch.save` has written two layouts: since 1.6 a zip archive with the object in `data.pkl` and one stored
(uncompressed) member per storage; before that five pickles in a row followed by the storages. Both are mapped, and a
tensor is a view.

Source: `torch/serialization.py`, functions `_save` and `_legacy_save`.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmodels.checkpoints.files import (
    DTYPES,
    CheckpointError,
    MappedFile,
    TensorFile,
    TensorInfo,
)
from tfmodels.checkpoints.formats.pickled_tensors import Storage, Tensor
from tfmodels.checkpoints.formats.tensor_pickle import PickleReader
from tfmodels.utils.text import quote, shorten, some

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
# The legacy layout's first bytes: the magic number as a pickle of protocol 2 and up, without the protocol's number.
_LEGACY_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP_START = b"PK\x03\x04"
# Signature, what the archive's directory says too, lengths of the name and of the extra field.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1
# A state dict's pickle takes about 200 bytes a tensor.
_MAX_PICKLE_BYTES = 256 << 20

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training scripts put the state dict beside other things."""


# The keys of an optimizer's state dict, which `torch.save` writes as optimizer.pt or optimizer.bin.
_OPTIMIZER = ("state", "param_groups")


class _Place(NamedTuple):
    """The place of a storage in the file."""

    start: int
    nbytes: int


class PytorchFile(TensorFile):
    """One `.bin` (or `.pt`, `.pth`) file that `torch.save` wrote from a state dict.

    The top level must be a dict from names to tensors, or the state of a training run with one such dict in it, best
    under "state_dict", "model_state_dict", "model" or "module".

    Args:
        path: the file.

    Raises:
        CheckpointError: the file is damaged, or holds anything but tensors; nothing in it is ever executed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        start = self._file.bytes(0, 16)
        if start.startswith(_ZIP_START):
            content, places = self._open_zip()
        elif start[:1] == b"\x80" and start[2:].startswith(_LEGACY_START):
            content, places = self._open_legacy()
        else:
            raise CheckpointError(
                f"{path} is no PyTorch file: it starts with {quote(start)}, neither a zip archive nor the older "
                "layout."
            )
        self._tensors = self._state_dict(content)
        infos = {name: self._describe(name, tensor, places) for name, tensor in self._tensors.items()}
        self._starts = {
            name: places[tensor.storage.key].start + _first_byte(tensor) for name, tensor in self._tensors.items()
        }
        # By place in the file, so that reading all tensors in order reads the disk in order.
        self.tensors = {name: infos[name] for name in sorted(infos, key=self._starts.__getitem__)}

    def read(self, name: str) -> np.ndarray:
        info, tensor = self.tensors[name], self._tensors[name]
        dtype = DTYPES[info.dtype]
        if info.nbytes == 0:  # its place need not be inside the file
            return np.frombuffer(b"", dtype).reshape(info.shape)
        # Sizes of 1 may come with any stride; it is never used, and must not overflow.
        sizes = zip(info.shape, tensor.strides, strict=True)
        strides = tuple(stride * dtype.itemsize if size > 1 else 0 for size, stride in sizes)
        return self._file.array(info.shape, dtype, self._starts[name], strides)

    def _open_zip(self) -> tuple[Any, dict[str, _Place]]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        # zipfile lets several kinds of error out when the directory is damaged.
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError, struct.error) as error:
            raise CheckpointError(f"{self.path} is a damaged or cut zip archive ({shorten(error)}).") from error
        by_name = {member.filename: member for member in members}
        if len(by_name) < len(members):
            raise CheckpointError(f"{self.path}: its zip archive has two members of one name.")
        pickles = [name for name in by_name if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(
                f"{self.path} is a zip archive with {len(pickles)} members called data.pkl; torch.save writes one."
            )
        root = pickles[0].removesuffix("data.pkl")
        if root + "constants.pkl" in by_name:
            raise CheckpointError(f"{self.path} is a TorchScript program, not weights; save its state dict instead.")
        if root + "byteorder" in by_name:
            place = self._member(by_name[root + "byteorder"])
            order = self._file.bytes(place.start, place.start + min(place.nbytes, 16))
            if order != b"little":
                raise CheckpointError(
                    f"{self.path} is stored in byte order {quote(order)}; only b'little' can be read."
                )
        place = self._member(by_name[pickles[0]])
        if place.nbytes > _MAX_PICKLE_BYTES:
            raise CheckpointError(f"{self.path}: its data.pkl has {place.nbytes} bytes, which no state dict takes.")
        content = PickleReader(
            self._file.memory()[: place.start + place.nbytes], place.start, f"{self.path}: its data.pkl"
        ).read()
        prefix = root + "data/"
        storages = {name.removeprefix(prefix): member for name, member in by_name.items() if name.startswith(prefix)}
        return content, {key: self._member(member) for key, member in storages.items()}

    def _member(self, member: zipfile.ZipInfo) -> _Place:
        where = f"{self.path}: its member {quote(member.filename)}"
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise CheckpointError(f"{where} is compressed or encrypted, which torch.save never does; save it again.")
        header = self._file.bytes(member.header_offset, member.header_offset + _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_ZIP_START):
            raise CheckpointError(f"{where} is not where the archive's directory says.")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if member.compress_size != member.file_size or start + member.file_size > self._file.size:
            raise CheckpointError(f"{where} reaches beyond the end of the file, or its sizes contradict each other.")
        return _Place(start, member.file_size)

    def _open_legacy(self) -> tuple[Any, dict[str, _Place]]:
        pickles = PickleReader(self._file.memory(), 0, f"{self.path}: its pickle")
        magic, version, system = pickles.read(), pickles.read(), pickles.read()
        if magic != _LEGACY_MAGIC or version != _LEGACY_VERSION or not isinstance(system, dict):
            raise CheckpointError(
                f"{self.path} is of version {quote(version)} of PyTorch's older layout; 1001 is known."
            )
        if system.get("little_endian") is not True:
            raise CheckpointError(f"{self.path} is not stored little-endian, which alone can be read.")
        content, keys = pickles.read(), pickles.read()
        storages = {storage.key: storage for storage in _storages(content)}
        places = {}
        position = pickles.position
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise CheckpointError(f"{self.path}: its list of storages is damaged.")
        for key in keys:
            if key not in storages:
                raise CheckpointError(f"{self.path}: storage {quote(key)} belongs to no tensor.")
            count = int.from_bytes(self._file.bytes(position, position + 8), "little")
            if count != storages[key].count:
                raise CheckpointError(
                    f"{self.path}: storage {quote(key)} should have {storages[key].count} elements, "
                    f"but the file has {count} there, or ends before."
                )
            places[key] = _Place(position + 8, count * DTYPES[storages[key].dtype].itemsize)
            position = places[key].start + places[key].nbytes
            if position > self._file.size:
                raise CheckpointError(f"{self.path} is cut short inside storage {quote(key)}.")
        return content, places

    def _state_dict(self, content: Any) -> dict[str, Tensor]:
        if isinstance(content, dict):
            content = self._inner_dict(content)
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.path} holds a {type(content).__name__}; a dict of tensors was expected.")
        others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
        if others:
            raise CheckpointError(f"{self.path} holds other things among its tensors: {some(others)}.")
        if not all(isinstance(name, str) for name in content):
            raise CheckpointError(f"{self.path} holds tensors whose names are no text.")
        return content

    def _inner_dict(self, content: dict[Any, Any]) -> dict[Any, Any]:
        """The state dict in a file of a training run, which holds other things beside it; else `content` itself."""
        # Each value once: a small file can have one large dict under many keys.
        distinct = {id(value): value for value in content.values()}
        state_dicts = {key for key, value in distinct.items() if _is_state_dict(value)}
        inner = [key for key, value in content.items() if id(value) in state_dicts]
        chosen = [key for key in inner if key in _WRAPPERS] or inner
        if len(chosen) == 1:
            return content[chosen[0]]
        if len(chosen) > 1:
            raise CheckpointError(
                f"{self.path} holds several dicts of tensors, {some(map(str, chosen))}; save the one that is the "
                f"model's state dict alone."
            )
        if content and not any(isinstance(value, Tensor) for value in content.values()):
            what = "an optimizer's state" if set(_OPTIMIZER) <= set(content) else "no tensors at its top level"
            raise CheckpointError(
                f"{self.path} holds {what}, but the keys {some(map(str, content))}; a state dict, or one under "
                f"{' or '.join(_WRAPPERS)}, was expected."
            )
        return content

    def _describe(self, name: str, tensor: Tensor, places: dict[str, _Place]) -> TensorInfo:
        where, storage = f"{self.path}: tensor {quote(name)}", tensor.storage
        if storage.key not in places:
            raise CheckpointError(f"{where} lies in storage {quote(storage.key)}, which the file does not have.")
        itemsize, place = DTYPES[tensor.dtype].itemsize, places[storage.key]
        if place.nbytes != storage.count * DTYPES[storage.dtype].itemsize:
            raise CheckpointError(
                f"{where}: storage {quote(storage.key)} should be {storage.count} elements of {storage.dtype}, "
                f"but takes {place.nbytes} bytes in the file."
            )
        count = math.prod(tensor.shape)
        if count:
            last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
            available = storage.length * DTYPES[storage.dtype].itemsize
            if (tensor.offset + last + 1) * itemsize > available:
                raise CheckpointError(
                    f"{where} of shape {tensor.shape}, strides {tensor.strides} and offset {tensor.offset} "
                    f"reaches beyond its storage of {available} bytes."
                )
        return TensorInfo(name, tensor.shape, tensor.dtype, count * itemsize, self.path.name)


def _first_byte(tensor: Tensor) -> int:
    """Offset of a tensor in the file's copy of its storage."""
    storage = tensor.storage
    return storage.offset * DTYPES[storage.dtype].itemsize + tensor.offset * DTYPES[tensor.dtype].itemsize


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(item, Tensor) for item in value.values())


def _storages(content: Any) -> Iterator[Storage]:
    """The storages of all tensors in a pickle, those beside the state dict included; each container once."""
    pending, seen = [content], set()
    while pending:
        item = pending.pop()
        if isinstance(item, Tensor):
            yield item.storage
        elif isinstance(item, Storage):
            yield item
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            pending.extend(item.values() if isinstance(item, dict) else item)
