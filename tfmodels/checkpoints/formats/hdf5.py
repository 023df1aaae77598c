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
_LIST = "_._"  # stands between a list's name and an index in the names of Keras layers


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
        try:
            with h5py.File(path, "r") as file:
                datasets: list[Any] = []
                file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
                for dataset in sorted(datasets, key=lambda dataset: dataset.id.get_offset() or 0):
                    self._add(dataset, nested=_is_nested(file, dataset.name))
        except CheckpointError:
            raise
        # h5py reports damage by whichever of these the broken place leads to.
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged, cut short, or no HDF5 file ({shorten(error)}).") from error

    def read(self, name: str) -> np.ndarray:
        offset, shape, dtype, transposed = self._places[name]
        array = self._file.array(shape, dtype, offset)
        return array.T if transposed else array

    def name_in_index(self, name: str) -> str:
        return torch_name(name)

    def _add(self, dataset: Any, nested: bool) -> None:
        path = dataset.name.strip("/")
        name = torch_name(path.split("/", 1)[1] if nested else f"/{path}")
        where, shape, dtype = f"{self.path}: weight {quote(path)}", tuple(dataset.shape or ()), dataset.dtype
        if dtype.name not in DTYPES:
            raise CheckpointError(f"{where} has the element type {dtype}, which cannot be read.")
        count = count_elements(shape)
        if count is None:
            raise CheckpointError(f"{where} has the shape {shape}, which no tensor can have.")
        offset, nbytes = dataset.id.get_offset(), count * dtype.itemsize
        if nbytes and (offset is None or dataset.external):
            raise CheckpointError(f"{where} is not stored as one plain block in the file, without compression.")
        if nbytes and offset + nbytes > self._file.size:
            raise CheckpointError(
                f"{self.path} is cut short: weight {quote(path)} ends at byte {offset + nbytes} of {self._file.size}."
            )
        transposed = len(shape) == 2 and path.split("/")[-1].startswith("kernel")
        info = TensorInfo(name, shape[::-1] if transposed else shape, dtype.name, nbytes, self.path.name)
        # Embeddings that a head shares with the model are stored with both.
        if self.tensors.setdefault(name, info) != info:
            raise CheckpointError(f"{where} is there twice, of shape {self.tensors[name].shape} and {info.shape}.")
        self._places.setdefault(name, (offset or 0, shape, dtype, transposed))


def _is_nested(file: Any, path: str) -> bool:
    """Whether a dataset lies in a top-level layer's group, rather than directly in a shard."""
    return any(key.startswith("weight_names") for key in file[path.strip("/").split("/")[0]].attrs)


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
    return ".".join([*layers, _PARAMETERS.get(parameter, parameter)])
