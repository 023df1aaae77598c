"""Open a folder of weights, whatever format they are in, and read them tensor by tensor."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmodels.checkpoints.files import CheckpointError, CheckpointNotFoundError, TensorFile, TensorInfo
from tfmodels.checkpoints.formats.flax import FlaxFile
from tfmodels.checkpoints.formats.gguf import Blocks, GGUFFile
from tfmodels.checkpoints.formats.hdf5 import TensorFlowFile
from tfmodels.checkpoints.formats.pytorch import PytorchFile
from tfmodels.checkpoints.formats.safetensors import SafetensorsFile
from tfmodels.utils.files import UnfinishedSaveError, check_finished, is_file_name
from tfmodels.utils.json_files import read_object
from tfmodels.utils.text import did_you_mean, quote, shorten, some

INDEX_SUFFIX = ".index.json"
_MAX_INDEX_BYTES = 100_000_000
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<total>\d+)(?P<suffix>\.\w+)")


class Format(NamedTuple):
    """A format of weights: the names of its files, and the reader of one of them."""

    name: str
    single: str
    """The file's name where all weights are in one; with `.index.json` behind it, the index of several."""
    file_class: type[TensorFile]


FORMATS = (
    Format("safetensors", "model.safetensors", SafetensorsFile),
    Format("pytorch", "pytorch_model.bin", PytorchFile),
    Format("tensorflow", "tf_model.h5", TensorFlowFile),
    Format("flax", "flax_model.msgpack", FlaxFile),
)
"""All formats, the preferred one first. A new one is a line here and a class like those named."""

# Not among those above: its files have any name, and only whoever asks for one gets it.
_GGUF = Format("gguf", "", GGUFFile)


class Checkpoint:
    """The weights of a folder, opened by `open_checkpoint`; a context manager.

    Headers are read and checked on opening, weights only when asked for. Arrays that `read` returned stay valid after
    `close`.

    Attributes:
        folder: the folder that was opened.
        format: the `name` of one of `FORMATS`.
        files: the weight files, in the order in which they are best read.
    """

    def __init__(self, folder: Path, format_name: str, files: list[TensorFile]) -> None:
        self.folder = folder
        self.format = format_name
        self.files = [file.path for file in files]
        self._holders = {name: file for file in files for name in file.tensors}
        self._read_last: TensorFile | None = None

    def names(self) -> list[str]:
        """Names of all tensors, in the order in which they lie in the files: reading in this order is fastest."""
        return list(self._holders)

    def info(self, name: str) -> TensorInfo:
        """Shape, dtype, size and file of a tensor, from the header.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        return self._holder(name).tensors[name]

    def read(self, name: str) -> np.ndarray:
        """Read one tensor.

        Args:
            name: one of `names()`.

        Returns:
            A read-only array of the shape and dtype that `info` tells (`ml_dtypes` for bfloat16 and float8). It is a
            view on the mapped file: elements come from the disk when they are touched, and cost no memory beyond the
            system's page cache. Pages of the tensor read before count no longer as memory of this process; that array
            stays valid and would be read again from the page cache. A view from a `.bin` file may be non-contiguous,
            as the tensor was when it was saved, and its elements need not be aligned.

        Raises:
            CheckpointError: there is no tensor of that name, or the checkpoint was closed.
        """
        file = self._holder(name)
        self._turn_to(file)
        return file.read(name)

    def blocks(self, name: str) -> Blocks | None:
        """A quantised matrix of a GGUF file as it lies there, see `GGUFFile.blocks`; None for all other tensors.

        Pages count as this process's memory as long as those of an array from `read` do.

        Raises:
            CheckpointError: there is no tensor of that name, or the checkpoint was closed.
        """
        file = self._holder(name)
        blocks = file.blocks(name) if isinstance(file, GGUFFile) else None
        if blocks is None:
            return None

        def read() -> np.ndarray:
            self._turn_to(file)
            return blocks.read()

        return blocks._replace(read=read)

    def _turn_to(self, file: TensorFile) -> None:
        """Let go of the pages of the tensor that was read last; the next one is of `file`."""
        if self._read_last is not None:
            self._read_last.release()
        self._read_last = file

    def close(self) -> None:
        """Let go of the files. Closing twice does no harm."""
        for file in set(self._holders.values()):
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {self.folder}: {self.format}, {len(self._holders)} tensors in {len(self.files)} files>"

    def _holder(self, name: str) -> TensorFile:
        if name not in self._holders:
            raise CheckpointError(
                f"{self.folder} has no tensor {quote(name)} among its {len(self._holders)}"
                + did_you_mean(name, self._holders, "; close to it is {!r}.", limit=1)
            )
        return self._holders[name]


def choose_formats(
    use_safetensors: bool | None = None, from_pt: bool = False, from_tf: bool = False, from_flax: bool = False
) -> tuple[str, ...]:
    """The formats that the arguments of a `from_pretrained` allow, in the order in which they are looked for.

    Args:
        use_safetensors: True for safetensors alone, False for any other format.
        from_pt, from_tf, from_flax: whose format to read, `pytorch_model.bin`, `tf_model.h5` or `flax_model.msgpack`;
            where there is no such file, a safetensors file.

    Raises:
        ValueError: more than one of the formats is asked for.

    Example:
        >>> choose_formats(from_pt=True), choose_formats(use_safetensors=True)
        (('pytorch', 'safetensors'), ('safetensors',))
    """
    sources = {"pytorch": from_pt, "tensorflow": from_tf, "flax": from_flax}
    chosen = [name for name, wanted in sources.items() if wanted]
    if len(chosen) > 1:
        raise ValueError(
            f"from_pt={quote(from_pt)}, from_tf={quote(from_tf)}, from_flax={quote(from_flax)}: at most one of "
            "them is True."
        )
    names = (*chosen, "safetensors") if chosen else tuple(kind.name for kind in FORMATS)
    if use_safetensors:
        return ("safetensors",)
    return tuple(name for name in names if name != "safetensors") if use_safetensors is False else names


def file_names(kind: Format, variant: str | None = None) -> tuple[str, str]:
    """The names of a format's single file and of its index.

    Raises:
        ValueError: `variant` is no part of a file's name.

    Example:
        >>> file_names(FORMATS[0], "fp16")
        ('model.fp16.safetensors', 'model.safetensors.index.fp16.json')
    """
    if variant is None:
        return kind.single, kind.single + INDEX_SUFFIX
    if not isinstance(variant, str) or not re.fullmatch(r"[\w-]{1,64}", variant, re.ASCII):
        raise ValueError(f"variant={quote(variant)}; a word such as 'fp16' in the names of files was expected.")
    stem, suffix = os.path.splitext(kind.single)
    return f"{stem}.{variant}{suffix}", f"{kind.single}.index.{variant}.json"


def open_checkpoint(
    folder: str | os.PathLike[str],
    gguf_file: str | None = None,
    *,
    formats: Sequence[str] | None = None,
    variant: str | None = None,
) -> Checkpoint:
    """Open the weights in a folder.

    Looked for, in this order: `model.safetensors`; shards named by `model.safetensors.index.json`;
    `pytorch_model.bin`; shards named by `pytorch_model.bin.index.json`; `tf_model.h5` and `flax_model.msgpack`, each
    with its index in the same way. Only headers are read. PyTorch files need no PyTorch, and nothing in them is
    executed.

    An index must agree with its shards: every shard there, every tensor in the shard the index names, no tensor in two
    shards, no shard of the same numbering left out. Tensors in a shard that the index does not name are read as well.

    Args:
        folder: a local folder.
        gguf_file: name of a GGUF file in it to read instead; needs the `gguf` library.
        formats: names of `FORMATS` to look for, in this order, see `choose_formats`; None for all.
        variant: the variant in the names of the files, as "fp16" in `model.fp16.safetensors`.

    Returns:
        The open checkpoint, to be used in a `with` statement.

    Raises:
        CheckpointNotFoundError: the folder, its weights or one of the shards is not there; also a FileNotFoundError.
        CheckpointError: a file is damaged, contradicts itself, or holds what cannot be read.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from tfmodels.checkpoints.writer import TensorSpec, write_checkpoint
        >>> folder = tempfile.mkdtemp()
        >>> scale = ("scale", TensorSpec((2,), "float16"), lambda: np.array([1, 2], "float16"))
        >>> _ = write_checkpoint(folder, [scale])
        >>> with open_checkpoint(folder) as checkpoint:
        ...     print(checkpoint.format, checkpoint.names(), checkpoint.info("scale").dtype, checkpoint.read("scale"))
        safetensors ['scale'] float16 [1. 2.]
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file; name the folder that holds it" if folder.exists() else "does not exist"
        raise CheckpointNotFoundError(f"The checkpoint folder {folder} {problem}.")
    _check_finished(folder)
    if gguf_file is not None:
        if not is_file_name(gguf_file):
            raise CheckpointError(f"gguf_file={quote(gguf_file)}; the name of a file in {folder} was expected.")
        return Checkpoint(folder, _GGUF.name, [_open_file(_GGUF, folder / gguf_file)])
    kinds = kinds_of(formats)
    for kind in kinds:
        single, index = file_names(kind, variant)
        if (folder / single).exists():
            return Checkpoint(folder, kind.name, [_open_file(kind, folder / single)])
        if (folder / index).exists():
            return _open_sharded(folder, kind, folder / index)
    raise CheckpointNotFoundError(
        _nothing_found(folder, [name for kind in kinds for name in file_names(kind, variant)])
    )


def kinds_of(formats: Sequence[str] | None) -> list[Format]:
    """The formats of these names, in this order; all for None."""
    by_name = {kind.name: kind for kind in FORMATS}
    return [by_name[name] for name in (by_name if formats is None else formats)]


def _check_finished(folder: Path) -> None:
    try:
        check_finished(folder)
    except UnfinishedSaveError as error:
        raise CheckpointError(str(error)) from error


def _open_file(kind: Format, path: Path) -> TensorFile:
    try:
        return kind.file_class(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {shorten(error)}") from error


def _open_sharded(folder: Path, kind: Format, index_path: Path) -> Checkpoint:
    weight_map = _read_index(index_path)
    shards = sorted(set(weight_map.values()))
    absent = [shard for shard in shards if not (folder / shard).exists()]
    if absent:
        raise CheckpointNotFoundError(
            f"{folder} lacks {len(absent)} of the {len(shards)} shards that {index_path.name} names: {some(absent)}."
        )
    left_out = _left_out(folder, shards)
    if left_out:
        raise CheckpointError(
            f"{folder} has shards that {index_path.name} does not name: {some(left_out)}. "
            "The index belongs to other weights, or is not whole."
        )
    files = [_open_file(kind, folder / shard) for shard in shards]
    holders: dict[str, str] = {}
    for file in files:
        for name in file.tensors:
            if name in holders:
                both = f"{holders[name]} and {file.path.name}"
                raise CheckpointError(f"{folder}: tensor {quote(name)} is in two shards, {both}.")
            holders[name] = file.path.name
    by_name = dict(zip(shards, files, strict=True))
    for name, shard in weight_map.items():
        name = by_name[shard].name_in_index(name)
        if holders.get(name) != shard:
            where = f"in {holders[name]}" if name in holders else "in none"
            raise CheckpointError(f"{index_path} says that tensor {quote(name)} is in {shard}, but it is {where}.")
    return Checkpoint(folder, kind.name, files)


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map: Any = read_object(path, limit=_MAX_INDEX_BYTES).get("weight_map")
    except (OSError, ValueError) as error:
        raise CheckpointError(shorten(error)) from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no weight_map, an object from tensor names to file names.")
    for name, shard in weight_map.items():
        # The folder's own files only: an index must not make the reader open files elsewhere.
        if not is_file_name(shard):
            raise CheckpointError(
                f"{path}: the file of tensor {quote(name)} is {quote(shard)}; a file's name without any folder was "
                "expected."
            )
    return weight_map


def _left_out(folder: Path, shards: list[str]) -> list[str]:
    """Files numbered like the index's shards, and out of as many, that the index does not name."""
    series = {(match["stem"], match["total"], match["suffix"]) for match in map(_SHARD.fullmatch, shards) if match}
    found = []
    for path in folder.iterdir():
        match = _SHARD.fullmatch(path.name)
        if match and (match["stem"], match["total"], match["suffix"]) in series and path.name not in shards:
            found.append(path.name)
    return found


def _nothing_found(folder: Path, looked_for: list[str]) -> str:
    present = [path.name for path in folder.iterdir()]
    shards = [name for name in present if _SHARD.fullmatch(name)]
    message = f"No weights in {folder}: looked for {', '.join(looked_for)}; "
    if shards:
        return message + f"there are shards ({some(shards, 3)}), but no index that names them."
    return message + (f"there are {some(present, 10)}." if present else "the folder is empty.")
