"""Read `tf_model.h5`, the weights of the former TensorFlow models of transformers, in HDF5.

A file has one group per top-level layer; below it lie the weights under their Keras paths, which begin with the
model's own name. Shards have no such groups. Names are handed out as the PyTorch files have them, and so are kernels:
(out, in). What else HDF5 can hold (data in other files, compressed or virtual data) is refused: no such checkpoint
has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import DTYPES, CheckpointError, MappedFile, TensorFile, TensorInfo, count_elements
from tfmodels.utils.text import quote, shorten

# Keras's name of a variable, where it differs from PyTorch's.
_PARAMETERS = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias"}
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_NAME = 1024
_MAX_DEPTH = 64
# A dataset takes some 500 bytes and a group 1000, and most datasets lie in three groups of their own.
_FREE_ITEMS, _BYTES_PER_ITEM = 10_000, 64
# Places and sizes in bits of the sign, the exponent (2) and the mantissa (2).
_BFLOAT16_FIELDS = (15, 7, 8, 0, 7)
_LIST = "_._"  # stands between a list's name and an index in the names of Keras layers
_RENAMED = "___"  # stands before the name in PyTorch files of a layer that was called otherwise


class TensorFlowFile(TensorFile):
    """One `.h5` file of weights. Its structure is read by h5py, the elements are views on the mapped file.

    Args:
        path: the file.

    Raises:
        CheckpointError: not HDF5, damaged, cut short, or with weights that are not stored as plain blocks in the file.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        self._file = MappedFile(path)
        self._places: dict[str, tuple[int, tuple[int, ...], np.dtype, bool]] = {}
        self.tensors = {}
        self._check_start()
        try:
            with h5py.File(path, "r") as file:
                datasets = self._walk(file)
                nested = {name: _is_nested(file[name]) for name in {_layer(dataset) for dataset in datasets}}
                for dataset in sorted(datasets, key=lambda dataset: dataset.id.get_offset() or 0):
                    self._add(dataset, nested=nested[_layer(dataset)])
        except CheckpointError:
            raise
        # h5py reports damage by whichever of these the broken place leads to.
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, SystemError) as error:
            raise CheckpointError(f"{path} is damaged, cut short, or no HDF5 file ({shorten(error)}).") from error

    def read(self, name: str) -> np.ndarray:
        offset, shape, dtype, transposed = self._places[name]
        array = self._file.array(shape, dtype, offset)
        return array.T if transposed else array

    def name_in_index(self, name: str) -> str:
        return torch_name(name)

    def _check_start(self) -> None:
        """Refuse a file with a driver of its own, which no weights have: a wrong address of one hangs the library.

        Source: the HDF5 file format specification, section Superblock.
        """
        start = self._file.bytes(0, 64)
        if not start.startswith(_SIGNATURE):
            found = quote(start[:8])
            raise CheckpointError(f"{self.path} is damaged, cut short, or no HDF5 file: it begins with {found}.")
        version = start[8] if len(start) > 8 else 0
        driver = {0: 48, 1: 52}.get(version)
        if driver is not None and start[driver : driver + 8] != b"\xff" * 8:
            raise CheckpointError(f"{self.path} is damaged, or is no plain HDF5 file: it names a driver block.")

    def _walk(self, file: Any) -> list[Any]:
        """The datasets of a file; links that lead elsewhere, and trees larger than the file can need, are refused."""
        import h5py

        seen = 0

        def problem(name: str | bytes, link: Any) -> str | None:  # h5py does not survive an exception from here
            nonlocal seen
            seen += 1
            if not isinstance(link, (h5py.HardLink, h5py.SoftLink)):
                return f"{quote(name)} is a link out of the file, which no weights need."
            if seen > _FREE_ITEMS + self._file.size // _BYTES_PER_ITEM:
                return "there are more groups and weights than a file of its size needs."
            if len(name) > _MAX_NAME or name.count(b"/" if isinstance(name, bytes) else "/") > _MAX_DEPTH:
                return f"the name {quote(name)} is longer than that of any weight."
            return None

        found = file.visititems_links(problem)
        if found is not None:
            raise CheckpointError(f"{self.path}: {found}")
        datasets: list[Any] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        return datasets

    def _add(self, dataset: Any, nested: bool) -> None:
        path = dataset.name.strip("/")
        name = torch_name(path.split("/", 1)[1] if nested else f"/{path}")
        where, shape = f"{self.path}: weight {quote(path)}", tuple(dataset.shape or ())
        if dataset.dtype.name not in DTYPES:
            raise CheckpointError(f"{where} has the element type {shorten(dataset.dtype)}, which cannot be read.")
        dtype = _stored_dtype(dataset)
        if dtype is None:
            raise CheckpointError(
                f"{where} is stored in a layout of its own, other than that of {dataset.dtype.name}."
            )
        count = count_elements(shape)
        if count is None:
            raise CheckpointError(f"{where} has the shape {quote(shape)}, which no tensor can have.")
        offset, nbytes = dataset.id.get_offset(), count * dtype.itemsize
        if nbytes and (offset is None or dataset.external):
            raise CheckpointError(f"{where} is not stored as one plain block in the file, without compression.")
        if nbytes and offset + nbytes > self._file.size:
            raise CheckpointError(
                f"{self.path} is cut short: weight {quote(path)} ends at byte {offset + nbytes} of {self._file.size}."
            )
        parameter = path.split("/")[-1]
        shape = torch_shape(parameter, shape)
        transposed = len(shape) == 2 and parameter.startswith("kernel")
        info = TensorInfo(name, shape[::-1] if transposed else shape, dtype.name, nbytes, self.path.name)
        # Embeddings that a head shares with the model are stored with both.
        if self.tensors.setdefault(name, info) != info:
            raise CheckpointError(f"{where} is there twice, of shape {self.tensors[name].shape} and {info.shape}.")
        first = self._places.setdefault(name, (offset or 0, shape, dtype, transposed))[0]
        if not np.array_equal(*(self._file.array((nbytes,), np.dtype("uint8"), at or 0) for at in (first, offset))):
            raise CheckpointError(f"{where} is there twice, with different values: remove the wrong one.")


def torch_shape(parameter: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the axis that biases of TensorFlow's GPT-2 have in front.

    Example:
        >>> torch_shape("bias:0", (1, 8)), torch_shape("kernel:0", (1, 8))
        ((8,), (1, 8))
    """
    return shape[1:] if parameter.startswith("bias") and len(shape) == 2 and shape[0] == 1 else shape


def _stored_dtype(dataset: Any) -> np.dtype | None:
    """The element type of the bytes in the file, which may differ from the one that h5py converts them to.

    HDF5 describes numbers bit by bit. bfloat16 has no type of its own there, and h5py would read it as float32.

    Returns:
        The type, or None for one that NumPy does not have.
    """
    import h5py

    stored = dataset.id.get_type()
    if stored.equal(h5py.h5t.py_create(dataset.dtype, logical=True)):
        return dataset.dtype
    is_small_float = stored.get_class() == h5py.h5t.FLOAT and stored.get_size() == 2
    if is_small_float and (stored.get_fields(), stored.get_ebias()) == (_BFLOAT16_FIELDS, 127):
        return DTYPES["bfloat16"] if stored.get_order() == h5py.h5t.ORDER_LE else None
    return None


def _layer(dataset: Any) -> str:
    """The name of the top-level group that a dataset lies in, or its own."""
    return dataset.name.strip("/").split("/")[0]


def _is_nested(item: Any) -> bool:
    """Whether an item of the top level is a layer's group, rather than a part of a weight's path as in shards.

    Keras stores a long list of names in several attributes that it numbers.
    """
    return "weight_names" in item.attrs or "weight_names0" in item.attrs


def torch_name(name: str) -> str:
    """The name in PyTorch files of a weight of a former TensorFlow model.

    Args:
        name: path of the variable, the model's own name first.

    Example:
        >>> torch_name("tfmp_net_model/mpnet/encoder/layer_._0/attention/attn/q/kernel:0")
        'mpnet.encoder.layer.0.attention.attn.q.weight'
    """
    _, slash, inner = name.removesuffix(":0").partition("/")
    *layers, parameter = (inner if slash else name.removesuffix(":0")).replace(_LIST, "/").split("/")
    layers = [layer.split(_RENAMED)[-1] for layer in layers]
    return ".".join([*layers, _PARAMETERS.get(parameter, parameter)])
