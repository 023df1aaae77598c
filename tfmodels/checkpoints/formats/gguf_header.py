"""Read the headers of GGUF files: metadata and the places of tensors, in one file or in several that belong together.

The library's own reader makes an array of every token, which takes seconds for a large vocabulary, and believes the
sizes that a file states.
"""

from __future__ import annotations

import array
import itertools
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfmodels.checkpoints.files import (
    MAX_DIMENSIONS,
    CheckpointError,
    CheckpointNotFoundError,
    MappedFile,
    count_elements,
)
from tfmodels.checkpoints.gguf_map import short
from tfmodels.utils.text import quote, some

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_SHARDS = 10_000
_MAX_COUNT = 1 << 24  # things of one kind in a header, or characters of a text; far beyond any real model's

# Metadata value types: number -> format of `struct`; strings and arrays are apart.
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


# Names of the files that gguf-split makes of one.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class Entry(NamedTuple):
    """A tensor as the header describes it; `shape` in NumPy's order, `start` in bytes from the file's beginning."""

    shape: tuple[int, ...]
    kind: str
    start: int
    nbytes: int


def parts(path: Path) -> list[Path]:
    """The files that belong together, by the name of one of them.

    Example:
        >>> [one.name for one in parts(Path("m-00002-of-00002.gguf"))]
        ['m-00001-of-00002.gguf', 'm-00002-of-00002.gguf']
        >>> [one.name for one in parts(Path("m.gguf"))]
        ['m.gguf']
    """
    match = _SHARD.fullmatch(path.name)
    if not match or not 1 <= int(match["number"]) <= int(match["count"]) <= _MAX_SHARDS:
        return [path]
    names = (f"{match['stem']}-{number:05d}-of-{match['count']}.gguf" for number in range(1, int(match["count"]) + 1))
    return [path.with_name(name) for name in names]


def open_headers(path: Path) -> list[Header]:
    """The headers of a file and of those that were split off with it, in their order."""
    first = Header(MappedFile(path))
    count = first.metadata.get("split.count", 1)
    if type(count) is not int or count < 0:
        raise CheckpointError(f"{path}: split.count is {short(count)}; the number of files was expected.")
    paths = parts(path)
    if count <= 1:
        if len(paths) > 1:
            raise CheckpointError(
                f"{path} is one of {len(paths)} files by its name, but not by its content (split.count is "
                f"{short(first.metadata.get('split.count'))}); rename it if it holds a whole model."
            )
        return [first]
    if len(paths) != count:
        raise CheckpointError(
            f"{path} is one of {count} files (split.count), which are found by their names, as in "
            f"model-00001-of-{count:05d}.gguf; give them back the names that gguf-split made."
        )
    absent = [one.name for one in paths if not one.is_file()]
    if absent:
        raise CheckpointNotFoundError(
            f"{path} is one of {count} files, of which {len(absent)} are not there: {some(absent)}."
        )
    headers = [first if one == path else Header(MappedFile(one)) for one in paths]
    for number, header in enumerate(headers):
        # Only the first file has to tell these. Another one that tells something else is of another model.
        for key in ("general.architecture", "split.tensors.count"):
            here, there = header.metadata.get(key), headers[0].metadata.get(key)
            if here not in (None, there):
                raise CheckpointError(
                    f"{header.file.path} and {paths[0].name} are of different models: {key} is {short(here)} in the "
                    f"one and {short(there)} in the other."
                )
        found = header.metadata.get("split.no"), header.metadata.get("split.count")
        if found != (number, count):
            raise CheckpointError(
                f"{header.file.path} should be file {number + 1} of {count}, but it says split.no = "
                f"{short(found[0])} (counted from 0) and split.count = {short(found[1])}."
            )
    return headers


def join_tensors(headers: list[Header]) -> dict[str, tuple[MappedFile, Entry]]:
    """All tensors by name, each with the file that holds it."""
    joined: dict[str, tuple[MappedFile, Entry]] = {}
    for header in headers:
        for name, entry in header.entries.items():
            if name in joined:
                both = f"{joined[name][0].path.name} and {header.file.path.name}"
                raise CheckpointError(f"{header.file.path}: tensor {quote(name)} is in two files, {both}.")
            joined[name] = header.file, entry
    promised = headers[0].metadata.get("split.tensors.count", len(joined))
    if len(headers) > 1 and promised != len(joined):
        raise CheckpointError(
            f"{headers[0].file.path} announces {short(promised)} tensors (split.tensors.count); its "
            f"{len(headers)} files hold {len(joined)}."
        )
    return joined


def gguf_library() -> Any:
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise ImportError("Reading GGUF files needs the gguf library: pip install 'tfmodels[gguf]'.") from error
    return gguf


class Texts(Sequence[str]):
    """An array of texts, as a list of them that takes few bytes: a vocabulary's objects take ten times its own.

    Args:
        texts: any number.

    Example:
        >>> texts = Texts(["a", "", "bc"])
        >>> len(texts), list(texts), texts[-1], texts[1:]
        (3, ['a', '', 'bc'], 'bc', ['', 'bc'])
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._joined = "".join(texts)
        self._starts = array.array("Q", itertools.accumulate(map(len, texts), initial=0))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        places = range(len(self))[index]
        if isinstance(index, slice):
            return [self[place] for place in places]
        return self._joined[self._starts[places] : self._starts[places + 1]]

    def __repr__(self) -> str:
        return repr(list(self))


class Header:
    """Reads metadata and tensor descriptions, every size checked against the file before it is believed."""

    def __init__(self, file: MappedFile) -> None:
        self.file, self.at = file, 0
        if file.bytes(0, 4) != _MAGIC:
            raise CheckpointError(
                f"{file.path} is no GGUF file: it begins with {quote(file.bytes(0, 4))}, not {_MAGIC!r}."
            )
        self.at = 4
        version = self._scalar("I")
        if version not in _VERSIONS:
            byte_order = " (in the other byte order?)" if version >= 1 << 16 else ""
            raise CheckpointError(f"{file.path} is of GGUF version {version}{byte_order}; 2 and 3 can be read.")
        tensors, pairs = self._scalar("Q"), self._scalar("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(self._count(pairs, "metadata entries", at_least=13)):
            key = self._text()
            if key in self.metadata:
                raise CheckpointError(f"{file.path}: the metadata have {quote(key)} twice.")
            self.metadata[key] = self._value(self._scalar("I"), key)
        described = [self._description() for _ in range(self._count(tensors, "tensors", at_least=24))]
        self.entries = dict(self._entries(described))

    def _bytes(self, size: int) -> bytes:
        if size > self.file.size - self.at:
            raise CheckpointError(
                f"{self.file.path} is cut short or damaged: its header asks for {size} bytes at byte {self.at} of "
                f"{self.file.size}."
            )
        self.at += size
        return self.file.bytes(self.at - size, self.at)

    def _scalar(self, kind: str) -> Any:
        return struct.unpack("<" + kind, self._bytes(struct.calcsize("<" + kind)))[0]

    def _count(self, count: int, what: str, at_least: int) -> int:
        """A number of things that take some bytes each, if a model and the rest of the file can have so many."""
        if count > _MAX_COUNT or count * at_least > self.file.size - self.at:
            raise CheckpointError(f"{self.file.path}: the header states {count} {what}, more than there can be.")
        return count

    def _text(self) -> str:
        try:
            return self._bytes(self._count(self._scalar("Q"), "characters", at_least=1)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.file.path}: text before byte {self.at} is not UTF-8.") from error

    def _value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise CheckpointError(f"{self.file.path}: {quote(key)} has the value type {kind}, which does not exist.")
        inner, count = self._scalar("I"), self._scalar("Q")
        if inner == _STRING:
            return Texts([self._text() for _ in range(self._count(count, f"texts in {quote(key)}", at_least=8))])
        if inner not in _SCALARS:
            raise CheckpointError(
                f"{self.file.path}: {quote(key)} is an array of the value type {inner}; it cannot be read."
            )
        size = struct.calcsize("<" + _SCALARS[inner])
        self._count(count, f"values in {quote(key)}", at_least=size)
        return list(struct.unpack(f"<{count}{_SCALARS[inner]}", self._bytes(count * size)))

    def _description(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of a tensor."""
        name = self._text()
        dimensions = self._scalar("I")
        if dimensions > MAX_DIMENSIONS:
            raise CheckpointError(f"{self.file.path}: tensor {quote(name)} has {dimensions} dimensions.")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        return name, shape, self._scalar("I"), self._scalar("Q")

    def _entries(self, described: list[tuple[str, tuple[int, ...], int, int]]) -> Iterator[tuple[str, Entry]]:
        library = gguf_library()
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise CheckpointError(f"{self.file.path}: general.alignment is {short(alignment)}, no power of two.")
        start = -(-self.at // alignment) * alignment
        twice = [name for name, times in Counter(name for name, *_ in described).items() if times > 1]
        if twice:
            raise CheckpointError(f"{self.file.path} has tensors twice: {some(twice)}.")
        places = []
        for name, shape, number, offset in described:
            where = f"{self.file.path}: tensor {quote(name)}"
            try:
                kind = library.GGMLQuantizationType(number)
            except ValueError as error:
                raise CheckpointError(f"{where} is stored as type {number}, which is unknown.") from error
            elements, block = library.GGML_QUANT_SIZES.get(kind, (0, 0))
            if not elements:
                raise CheckpointError(f"{where} is stored as {kind.name}, which the gguf library cannot read.")
            count = count_elements(shape)
            if count is None or not shape or shape[-1] % elements:
                raise CheckpointError(f"{where} has the shape {shape}, which none stored as {kind.name} can have.")
            nbytes = count // elements * block
            if start + offset + nbytes > self.file.size:
                raise CheckpointError(
                    f"{where} would end at byte {start + offset + nbytes} of {self.file.size}: the file is cut short "
                    f"or its header is wrong."
                )
            if offset % alignment:
                raise CheckpointError(f"{where} begins at {offset}, no multiple of the alignment, {alignment}.")
            places.append((offset, offset + nbytes, name))
            yield name, Entry(shape, kind.name, start + offset, nbytes)
        for (_, end, name), (begin, _, following) in itertools.pairwise(sorted(places)):
            if begin < end:
                raise CheckpointError(f"{self.file.path}: tensors {quote(name)} and {quote(following)} share bytes.")
            if begin - end >= alignment:  # as llama.cpp: a wrong type or shape shows like this
                raise CheckpointError(
                    f"{self.file.path}: {begin - end} bytes between the tensors {quote(name)} and {quote(following)} "
                    "belong to neither, so that the type or the shape of one of them is wrong."
                )
