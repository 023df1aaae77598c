"""`PackedTensor`: the quantised weights of one layer in a file; `PackedCheckpoint`: a checkpoint that holds such."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import CheckpointError, TensorInfo
from tfmodels.checkpoints.quantized.scheme import Parts, Scheme, dequantize
from tfmodels.checkpoints.reader import Checkpoint
from tfmodels.utils.text import quote


@dataclasses.dataclass(frozen=True)
class PackedTensor:
    """The weights of one layer, which several tensors of a file hold.

    Fields:
        scheme: how they are quantised.
        shape: (out, in) of the whole matrix.
        read: gives the arrays of `scheme.parts(in, out)`; reads the file and repacks, one layer at a time.
    """

    scheme: Scheme
    shape: tuple[int, int]
    read: Callable[[], Parts]


class PackedCheckpoint:
    """A checkpoint in which each quantised layer appears as one tensor, `<layer>.weight`.

    Args:
        checkpoint: the files.
        packed: the quantised layers, by the names of their weights.
        used: names of the tensors in the files that belong to those layers, or hold nothing that is needed.
    """

    def __init__(self, checkpoint: Checkpoint, packed: Mapping[str, PackedTensor], used: set[str]) -> None:
        self._checkpoint, self._packed = checkpoint, packed
        self.folder, self.format, self.files = checkpoint.folder, checkpoint.format, checkpoint.files
        self._plain = [name for name in checkpoint.names() if name not in used]
        twice = [name for name in self._plain if name in packed]
        if twice:
            raise CheckpointError(
                f"{self.folder} holds {twice[0]} twice: quantised, and as a tensor of that name; remove one of them."
            )

    def names(self) -> list[str]:
        """Names of all tensors, quantised layers by their weights."""
        return [*self._packed, *self._plain]

    def packed(self, name: str) -> PackedTensor | None:
        """The quantised layer of that name, or None for a plain tensor."""
        return self._packed.get(name)

    def is_empty_bias(self, name: str) -> bool:
        """Whether a tensor is a quantised layer's bias of zeros, which AutoGPTQ gave to every layer."""
        layer = name.removesuffix(".bias")
        return layer != name and f"{layer}.weight" in self._packed and not np.any(self._checkpoint.read(name))

    def info(self, name: str) -> TensorInfo:
        """Shape and dtype of a tensor; the dtype of a quantised layer is its scheme's mode."""
        if (tensor := self._packed.get(name)) is None:
            return self._checkpoint.info(name)
        units, width = tensor.shape
        nbytes = sum(
            int(np.prod(shape)) * (4 if dtype.endswith("32") else 2 if dtype.endswith("16") else 1)
            for shape, dtype in tensor.scheme.parts(width, units).values()
        )
        return TensorInfo(name, tensor.shape, tensor.scheme.mode, nbytes, self.files[0].name)

    def read(self, name: str) -> np.ndarray:
        """A tensor's values; of a quantised layer the float32 matrix (out, in)."""
        if (tensor := self._packed.get(name)) is None:
            return self._checkpoint.read(name)
        return dequantize(tensor.read(), tensor.scheme, tensor.shape[1]).T


class LayerTensors:
    """The tensors of one quantised layer, checked as they are asked for.

    Args:
        checkpoint: the files.
        layer: the part before the tensors' own names.
        method: name of the method, for messages.
    """

    def __init__(self, checkpoint: Checkpoint, layer: str, method: str) -> None:
        self.checkpoint, self.layer, self.method = checkpoint, layer, method
        self._names = set(checkpoint.names())

    def name(self, part: str) -> str:
        """The whole name of one of the layer's tensors."""
        return f"{self.layer}.{part}"

    def has(self, part: str) -> bool:
        """Whether the layer has a tensor of that name."""
        return self.name(part) in self._names

    def shape(self, part: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            CheckpointError: it is not there.
        """
        self._check_there(part)
        return tuple(self.checkpoint.info(self.name(part)).shape)

    def matrix(self, part: str) -> tuple[int, int]:
        """The shape of a tensor that must be a matrix.

        Raises:
            CheckpointError: it is not there, or has another number of axes.
        """
        shape = self.shape(part)
        if len(shape) != 2:
            raise self.error(f"{self.name(part)} has the shape {shape}; a matrix was expected")
        return shape

    def dtype(self, part: str) -> str:
        """The dtype of a tensor; errors as in `shape`."""
        self._check_there(part)
        return self.checkpoint.info(self.name(part)).dtype

    def check(self, part: str, shape: Sequence[int] | Sequence[Sequence[int]], *dtypes: str) -> None:
        """Make sure of a tensor's shape, or that it is one of several, and dtype, of which "float" stands for all.

        Raises:
            CheckpointError: it is another, or the tensor is not there; the message names what was expected.
        """
        found, dtype = self.shape(part), self.dtype(part)
        shapes = [tuple(one) for one in shape] if shape and not isinstance(shape[0], int) else [tuple(shape)]
        fits = dtype in dtypes or ("float" in dtypes and "float" in dtype and not dtype.startswith("float8"))
        if found not in shapes or not fits:
            raise self.error(
                f"{self.name(part)} is {dtype} {found}; {' or '.join(dtypes)} {' or '.join(map(str, shapes))} was "
                "expected"
            )

    def read(self, part: str) -> np.ndarray:
        """A tensor's values; errors as in `shape`."""
        self._check_there(part)
        return self.checkpoint.read(self.name(part))

    def read_scales(self, part: str, dtype: str) -> np.ndarray:
        """Finite numbers in the dtype of a scheme's scales.

        Raises:
            CheckpointError: one of them is infinite or NaN.
        """
        values = np.asarray(self.read(part)).astype(np.float32)
        if not np.isfinite(values).all():
            raise self.error(f"{self.name(part)} holds numbers that are not finite")
        return values.astype(_dtype(dtype))

    def scale_dtype(self, part: str) -> str:
        """The dtype for scales: the file's own, float32 in place of any wider one."""
        dtype = self.dtype(part)
        return dtype if dtype in ("float16", "bfloat16") else "float32"

    def named_by(self, pattern: str) -> bool:
        """Whether a regular expression of the settings fits the beginning of the layer's name.

        Raises:
            CheckpointError: it is none.
        """
        try:
            return re.match(pattern, self.layer) is not None
        except re.error as error:
            raise self.error(f"the settings have {quote(pattern)}, which is no regular expression: {error}") from error

    def error(self, problem: str) -> CheckpointError:
        """An error about this layer."""
        return CheckpointError(f"{self.checkpoint.folder}: {problem} ({self.method}, layer {quote(self.layer)}).")

    def _check_there(self, part: str) -> None:
        if not self.has(part):
            raise self.error(f"the tensor {self.name(part)} is missing")


def _dtype(name: str) -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)


def layers_with(checkpoint: Checkpoint, part: str) -> list[str]:
    """The layers that have a tensor `<layer>.<part>`, in the order of the file."""
    end = f".{part}"
    return [name[: -len(end)] for name in checkpoint.names() if name.endswith(end)]


def check_group_size(size: Any, width: int, layer: LayerTensors, *, whole: bool = False) -> int | None:
    """The group size of a `Scheme` for a size in a configuration; None for one group, which -1 stands for.

    Args:
        whole: whether groups must fill the width.

    Raises:
        CheckpointError: it is no size of groups.
    """
    if size in (-1, None):
        return None
    if type(size) is not int or size < 2 or size % 2 or (whole and width % size):
        problem = f", of which {width} inputs are a multiple," if whole else ""
        raise layer.error(f"group_size={quote(size)}; -1 or an even number{problem} was expected")
    return size


def sorted_by_group(
    g_idx: np.ndarray, groups: int, group_size: int | None, width: int, layer: LayerTensors
) -> np.ndarray | None:
    """The inputs in the order of their groups, or None where they are in that order already.

    Args:
        g_idx: the group of each input, (width,).
        groups: number of groups.
        group_size: inputs in a group; None: all.

    Raises:
        CheckpointError: numbers that are no integers, a group that does not exist, or one with another number of
            inputs.
    """
    if np.asarray(g_idx).dtype.kind not in "iu":
        raise layer.error(f"g_idx holds {np.asarray(g_idx).dtype} numbers; integers were expected")
    g_idx = np.asarray(g_idx).astype(np.int64)
    if len(g_idx) and (g_idx.min() < 0 or g_idx.max() >= groups):
        raise layer.error(f"g_idx names groups {g_idx.min()} to {g_idx.max()}; there are {groups}")
    size = group_size or max(width, 1)
    expected = np.arange(width) // size
    if np.array_equal(g_idx, expected):
        return None
    order = np.argsort(g_idx, kind="stable")
    if not np.array_equal(g_idx[order], expected):
        counts = np.bincount(g_idx, minlength=groups)
        raise layer.error(
            f"g_idx puts {counts.min()} to {counts.max()} inputs into a group; {size} were expected in each"
        )
    return order.astype(np.int32)


def low_first(words: np.ndarray, bits: int, axis: int, length: int) -> np.ndarray:
    """Unsigned numbers of 2 to 8 bits from 32-bit words, low bits first, as uint8.

    Numbers whose bits are no power of two go on from one word to the next.

    Args:
        words: int32 or uint32.
        axis: along which they are packed.
        length: how many of them there are along it; further ones are padding.

    Example:
        >>> low_first(np.array([[0x21]], "int32"), 4, 1, 3).tolist()
        [[1, 2, 0]]
    """
    words = np.ascontiguousarray(np.moveaxis(words, axis, -1)).astype("<u4", copy=False)
    bytes_ = words.view(np.uint8)
    if bits == 8:
        numbers = bytes_
    elif 8 % bits:
        stream = np.unpackbits(bytes_, axis=-1, bitorder="little", count=bytes_.shape[-1] * 8 // bits * bits)
        numbers = np.packbits(stream.reshape(*stream.shape[:-1], -1, bits), axis=-1, bitorder="little")[..., 0]
    else:
        numbers = np.empty((*bytes_.shape[:-1], bytes_.shape[-1] * 8 // bits), np.uint8)
        for index in range(8 // bits):
            numbers[..., index :: 8 // bits] = (bytes_ >> np.uint8(bits * index)) & np.uint8((1 << bits) - 1)
    return np.moveaxis(numbers[..., :length], -1, axis)


def signed(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned numbers of some bits as a scheme's signed ones: 2^(bits - 1) less, int8."""
    return (numbers ^ np.uint8(128)).view(np.int8) if bits == 8 else numbers.view(np.int8) - np.int8(1 << (bits - 1))


_NAN = 0x7F  # of float8_e4m3fn, beside its sign


def float8_rows(layer: LayerTensors) -> np.ndarray:
    """The bits of a layer's float8_e4m3fn weights as int8 (in, out).

    Raises:
        CheckpointError: one of them stands for no number.
    """
    bits = np.asarray(layer.read("weight")).view(np.uint8)
    if ((bits & _NAN) == _NAN).any():
        raise layer.error(f"{layer.name('weight')} holds numbers that are not finite")
    return bits.view(np.int8).T
