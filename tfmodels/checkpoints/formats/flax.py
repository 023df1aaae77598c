"""Read `flax_model.msgpack`, the weights of the former Flax models of transformers.

A file is a tree of maps in MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md); its leaves are arrays
as `flax.serialization` packs them: an extension that holds shape, dtype and elements, or, beyond a gigabyte, a map of
several such pieces. The few types that occur are read here, because the elements can then be views on the mapped file:
a MessagePack library copies every weight into memory to tell where it lies (opening a file of 195 MB took 1.6 s with
msgpack and 1 ms here). Names are handed out as the PyTorch files have them, and so are kernels: (out, in).
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmodels.checkpoints.files import (
    DTYPES,
    MAX_DIMENSIONS,
    CheckpointError,
    MappedFile,
    TensorFile,
    TensorInfo,
    count_elements,
)
from tfmodels.utils.text import quote

# Flax's name of a parameter, where it differs from PyTorch's.
_PARAMETERS = {"kernel": "weight", "embedding": "weight", "scale": "weight"}

# A value's first byte -> its kind, and how the size, or the number itself, is stored behind it.
_SIZED = {
    **{0xC4 + step: ("bytes", form) for step, form in enumerate("BHI")},
    **{0xC7 + step: ("extension", form) for step, form in enumerate("BHI")},
    **{0xCC + step: ("number", form) for step, form in enumerate("BHIQ")},
    **{0xD9 + step: ("text", form) for step, form in enumerate("BHI")},
    **{0xDC + step: ("list", form) for step, form in enumerate("HI")},
    **{0xDE + step: ("map", form) for step, form in enumerate("HI")},
}
# The first byte holds the size itself: kind -> smallest and largest such byte.
_SHORT = {"number": (0x00, 0x7F), "map": (0x80, 0x8F), "list": (0x90, 0x9F), "text": (0xA0, 0xBF)}
_TRUTH = (0xC2, 0xC3)
_SHORT_EXTENSIONS = {0xD4 + power: 1 << power for power in range(5)}

_ARRAY, _SCALAR = 1, 3  # codes of extensions
_PIECES = "__msgpack_chunked_array__"
_MAX_DEPTH = 64
# Names are made of the keys that lead to them: long ones, repeated in every leaf, would outgrow the file.
_MAX_NAME = 1024


class _Array(NamedTuple):
    """An array in the file; `start` in bytes from the file's beginning."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int


class _Tensor(NamedTuple):
    """A tensor as it is stored: in one array of its shape, or in flat pieces."""

    shape: tuple[int, ...]
    arrays: list[_Array]
    transposed: bool


class FlaxFile(TensorFile):
    """One `.msgpack` file of weights.

    Args:
        path: the file.

    Raises:
        CheckpointError: no tree of arrays in MessagePack, damaged, cut short, or with sizes that contradict each
            other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        self._stored: dict[str, _Tensor] = {}
        self.tensors = {}
        self._add("", _Tree(self._file).root)

    def read(self, name: str) -> np.ndarray:
        shape, arrays, transposed = self._stored[name]
        views = [self._file.array(*array) for array in arrays]
        array = views[0] if len(views) == 1 else np.concatenate(views)
        array.flags.writeable = False
        return array.reshape(shape).T if transposed else array.reshape(shape)

    def name_in_index(self, name: str) -> str:
        return torch_name(name)

    def _add(self, path: str, node: Any) -> None:
        if len(path) > _MAX_NAME:
            raise CheckpointError(f"{self.path}: a parameter's name is longer than {_MAX_NAME}: {quote(path)}.")
        if isinstance(node, dict) and _PIECES not in node:
            for key, child in node.items():
                self._add(f"{path}/{key}" if path else key, child)
            return
        where = f"{self.path}: parameter {quote(path)}"
        if isinstance(node, _Array):
            shape, arrays = node.shape, [node]
        elif isinstance(node, dict):
            shape, arrays = _pieces(node, where)
        else:
            raise CheckpointError(f"{where} is the number {node}, not an array.")
        name, dtype = torch_name(path), arrays[0].dtype
        if name in self.tensors:
            raise CheckpointError(f"{where} is there twice, as two names that both stand for {quote(name)}.")
        transposed = len(shape) == 2 and path.split("/")[-1] == "kernel"
        nbytes = math.prod(shape) * dtype.itemsize
        self.tensors[name] = TensorInfo(name, shape[::-1] if transposed else shape, dtype.name, nbytes, self.path.name)
        self._stored[name] = _Tensor(shape, arrays, transposed)


def torch_name(path: str) -> str:
    """The name in PyTorch files of a parameter of a former Flax model.

    Args:
        path: keys that lead to it, with slashes between them.

    Example:
        >>> torch_name("model/layers/0/self_attn/q_proj/kernel")
        'model.layers.0.self_attn.q_proj.weight'
    """
    *layers, parameter = path.split("/")
    return ".".join([*layers, _PARAMETERS.get(parameter, parameter)])


def _pieces(node: dict[str, Any], where: str) -> tuple[tuple[int, ...], list[_Array]]:
    """Shape and pieces of an array that is stored in several."""
    shape, arrays = (_numbered(node.get(key)) for key in ("shape", "chunks"))
    if (
        not arrays
        or shape is None
        or not all(type(size) is int for size in shape)
        or not all(isinstance(array, _Array) and array.dtype == arrays[0].dtype for array in arrays)
        or count_elements(tuple(shape)) != sum(math.prod(array.shape) for array in arrays)
        or any(len(array.shape) != 1 for array in arrays)
    ):
        raise CheckpointError(f"{where} is stored in pieces that do not make up an array.")
    return tuple(shape), arrays


def _numbered(node: Any) -> list[Any] | None:
    """The values of a map whose keys are 0, 1, 2, ...; None for anything else."""
    keys = [str(index) for index in range(len(node))] if isinstance(node, dict) else None
    return [node[key] for key in keys] if keys is not None and set(keys) == set(node) else None


class _Tree:
    """Reads the maps and finds the arrays; every size is checked against the file before it is believed."""

    def __init__(self, file: MappedFile) -> None:
        self.file, self.at = file, 0
        kind, size = self._head()
        if kind != "map":
            raise CheckpointError(f"{file.path} is no Flax checkpoint: it begins with a {kind}, not with a map.")
        self.root = self._map(size, depth=0)
        if self.at != file.size:
            raise CheckpointError(f"{file.path} ends at byte {self.at}, but has {file.size - self.at} bytes more.")

    def _skip(self, size: int) -> int:
        """Pass over some bytes and return where they begin."""
        if size > self.file.size - self.at:
            raise CheckpointError(
                f"{self.file.path} is cut short or damaged: {size} bytes are wanted at byte {self.at} of "
                f"{self.file.size}."
            )
        self.at += size
        return self.at - size

    def _number(self, form: str) -> int:
        start = self._skip(struct.calcsize(">" + form))
        return struct.unpack(">" + form, self.file.bytes(start, self.at))[0]

    def _head(self) -> tuple[str, int]:
        """Kind and size of the next value; for a number or truth the value itself."""
        first = self._number("B")
        if first in _SIZED:
            kind, form = _SIZED[first]
            return kind, self._number(form)
        if first in _SHORT_EXTENSIONS:
            return "extension", _SHORT_EXTENSIONS[first]
        if first in _TRUTH:
            return "truth", _TRUTH.index(first)
        for kind, (smallest, largest) in _SHORT.items():
            if smallest <= first <= largest:
                return kind, first - smallest
        raise CheckpointError(
            f"{self.file.path}: byte {self.at - 1} begins a value of the type 0x{first:02x}, which has no place here."
        )

    def _expect(self, kind: str, what: str) -> int:
        at = self.at
        found, size = self._head()
        if found != kind:
            raise CheckpointError(f"{self.file.path}: {what} at byte {at} is a {found}; a {kind} was expected.")
        return size

    def _text(self, what: str) -> str:
        start = self._skip(self._expect("text", what))
        try:
            return self.file.bytes(start, self.at).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.file.path}: {what} at byte {start} is not UTF-8.") from error

    def _map(self, size: int, depth: int) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            raise CheckpointError(f"{self.file.path} has maps within maps beyond {_MAX_DEPTH}, at byte {self.at}.")
        tree: dict[str, Any] = {}
        for _ in range(size):
            key = self._text("a key")
            if key in tree:
                raise CheckpointError(f"{self.file.path}: a map has the key {quote(key)} twice.")
            at = self.at
            kind, number = self._head()
            if kind == "map":
                tree[key] = self._map(number, depth + 1)
            elif kind == "extension":
                tree[key] = self._array(number, key)
            elif kind in ("number", "truth"):
                tree[key] = number
            else:
                raise CheckpointError(
                    f"{self.file.path}: {quote(key)} at byte {at} is a {kind}, not an array or a map."
                )
        return tree

    def _array(self, size: int, key: str) -> _Array:
        where = f"{self.file.path}: array {quote(key)} at byte {self.at}"
        code = self._number("B")
        start = self._skip(size)
        end, self.at = self.at, start
        if code not in (_ARRAY, _SCALAR):
            raise CheckpointError(f"{where} is an extension with the code {code}; {_ARRAY} and {_SCALAR} can be read.")
        if self._expect("list", "an array") != 3:
            raise CheckpointError(f"{where} does not consist of shape, dtype and elements.")
        dimensions = self._expect("list", "a shape")
        if dimensions > MAX_DIMENSIONS:
            raise CheckpointError(f"{where} has {dimensions} dimensions.")
        shape = tuple(self._expect("number", "a dimension") for _ in range(dimensions))
        name = self._text("a dtype")
        if name not in DTYPES:
            raise CheckpointError(f"{where} has the element type {quote(name)}, which cannot be read.")
        nbytes, count = self._expect("bytes", "elements"), count_elements(shape)
        if count is None or count * DTYPES[name].itemsize != nbytes:
            raise CheckpointError(f"{where} has the shape {shape} of {name}, but {nbytes} bytes.")
        start = self._skip(nbytes)
        if self.at != end:
            raise CheckpointError(f"{where} should end at byte {end}, but its elements end at {self.at}.")
        return _Array(shape, DTYPES[name], start)
