"""The names that a PyTorch file's pickle may use: storages, tensors and the few functions that describe them.

Nothing of torch or Python is imported or called on a file's behalf: `GLOBALS` holds the stand-in for each name,
and a name outside it is an error. `tensor_pickle` reads the pickle.

Source: `torch/serialization.py` and `torch/_utils.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tfmodels.checkpoints.files import MAX_DIMENSIONS, CheckpointError, count_elements, is_count
from tfmodels.utils.text import quote

_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
_TORCH_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
)
# Integers that Python hashes to themselves; larger ones can be made to collide, which takes quadratic time.
_MAX_KEY = 1 << 60


class StorageType(NamedTuple):
    """Stands for a class such as torch.FloatStorage."""

    dtype: str


class DtypeName(NamedTuple):
    """Stands for an object such as torch.float32."""

    dtype: str


class Storage(NamedTuple):
    """A run of elements in the file, as the pickle describes it."""

    dtype: str
    key: str
    """The name under which the file keeps the elements."""
    count: int
    """Elements in the file under that name."""
    offset: int
    """First element of this storage among them."""
    length: int
    """Elements of this storage."""


class Tensor(NamedTuple):
    """A view on a storage, as the pickle describes it. Offset and strides count elements of `dtype`."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Function(NamedTuple):
    """Stands for a function of torch or Python that the pickle may ask for; `call` is what we do instead."""

    call: Callable[..., Any]


def _rebuild_tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(dtype, DtypeName):
        raise CheckpointError("a tensor without a storage or an element type")
    shape, strides = _sizes(shape), _sizes(strides)
    if shape is None or strides is None or len(shape) != len(strides) or not _is_size(offset):
        raise CheckpointError("a tensor whose offset, shape or strides are no numbers >= 0")
    if count_elements(shape) is None:
        raise CheckpointError(f"a tensor of shape {quote(shape)}, larger than any can be")
    if metadata:
        raise CheckpointError("a conjugated or negated view of a tensor; save a copy of it instead")
    return Tensor(storage, dtype.dtype, offset, shape, strides)


def _rebuild_tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    return _rebuild_tensor_v3(storage, offset, shape, strides, grad, hooks, _dtype_of(storage), metadata)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    return _rebuild_tensor_v3(storage, offset, shape, strides, False, None, _dtype_of(storage))


def _rebuild_parameter(tensor: Any, grad: Any, hooks: Any, state: Any = None) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise CheckpointError("a parameter without a tensor")
    return tensor


def _ordered_dict(pairs: Any = None) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    if pairs is not None:  # Python 2 gives the items as a list of lists
        if not isinstance(pairs, list):
            raise CheckpointError(f"an OrderedDict made from a {type(pairs).__name__}")
        for key, value in pairs:
            set_item(made, key, value)
        # Used up, or a small file could have one long list copied over and over until memory is full.
        pairs.clear()
    return made


def _size(sizes: Any = ()) -> tuple[int, ...]:
    checked = _sizes(sizes)
    if checked is None:
        raise CheckpointError("a torch.Size that does not hold sizes")
    return checked


def _is_size(value: Any) -> bool:
    """Whether a value is a size or position that a file can have; a pickle's integers may have 65,000 bytes."""
    return is_count(value) and value < 1 << 63


def _dtype_of(storage: Any) -> DtypeName | None:
    return DtypeName(storage.dtype) if isinstance(storage, Storage) else None


def _sizes(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, (tuple, list)) and len(value) <= MAX_DIMENSIONS and all(map(_is_size, value)):
        return tuple(value)
    return None


GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Function(_ordered_dict),
    ("torch", "Size"): Function(_size),
    ("torch._utils", "_rebuild_tensor"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild_tensor_v2),
    ("torch._utils", "_rebuild_tensor_v3"): Function(_rebuild_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): Function(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(_rebuild_parameter),
    ("torch.storage", "UntypedStorage"): StorageType("uint8"),
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()},
    **{("torch", name): DtypeName(name) for name in _TORCH_DTYPES},
}


def set_item(target: dict[Any, Any], key: Any, value: Any) -> None:
    """Put an item into a dict that a pickle builds, each key once."""
    # Keys of plain types only: hashing a tuple of tuples of tuples ... takes time without bound.
    if not isinstance(key, (str, int, float, bytes, type(None))):
        raise CheckpointError(f"a dict has a key of type {type(key).__name__}")
    if isinstance(key, int) and abs(key) >= _MAX_KEY:
        raise CheckpointError(f"a dict has the key {quote(key)}, a larger integer than any state dict has")
    if key in target:
        raise CheckpointError(f"a dict has the key {quote(key)} twice")
    target[key] = value


def load_persistent(identity: Any) -> Storage:
    """Understand ("storage", type, key, location, count[, None or (view key, offset, length)])."""
    if not isinstance(identity, tuple) or not 5 <= len(identity) <= 6 or identity[0] != "storage":
        raise CheckpointError("a persistent object that is no storage of tensor elements")
    kind, key, count = identity[1], identity[2], identity[4]
    if not isinstance(kind, StorageType) or not isinstance(key, str) or not _is_size(count):
        raise CheckpointError("a storage whose type, key or size makes no sense")
    offset, length = 0, count
    if len(identity) == 6 and identity[5] is not None:
        _, offset, length = identity[5]
        if not _is_size(offset) or not _is_size(length) or offset + length > count:
            raise CheckpointError(f"a view on storage {quote(key)} that reaches beyond its {count} elements")
    return Storage(kind.dtype, key, count, offset, length)
