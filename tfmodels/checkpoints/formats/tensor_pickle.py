"""Read the pickle inside a PyTorch file without executing it.

A pickle is a program for a small stack machine that may call any importable function, so unpickling a downloaded file
means running its author's code. Here `pickletools` decodes the instructions and this module carries out those few that
build dicts, tuples and descriptions of tensors. Names of functions are looked up in a table of our own: nothing is
ever imported or called on the file's behalf, and a name outside the table is an error.

`pickle.Unpickler` with a closed `find_class` executes nothing either, but it lets a small file do harm in ways that
cannot be closed from outside: a memo index of 2**31 - 1 makes it allocate gigabytes, a dict whose key is a tuple of
shared tuples makes it hash for ever, it takes one key twice, sets attributes (BUILD) of whatever it has made, and
never counts its instructions. `tests/checkpoints/formats/test_tensor_pickle.py` holds these cases.

The file is long because the machine is one idea: its state, its limits and one short method for each instruction.

Source: `torch/serialization.py` and `torch/_utils.py` for what PyTorch writes; PEP 307 and PEP 3154 for pickle itself.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

from tfmodels.checkpoints.files import MAX_DIMENSIONS, CheckpointError, count_elements, is_count
from tfmodels.utils.text import quote, shorten

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
_TORCH_DTYPES = {
    name: name
    for name in (
        *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
    )
}
# Longest single string or line that a state dict's pickle may hold, far above any name of a tensor.
_MAX_STRING = 1 << 16
_FIRST_LINE = 128
# A tensor takes some 60 instructions and 200 bytes, and makes one dict.
_MAX_INSTRUCTIONS = 1_000_000
_BYTES_PER_CONTAINER = 16
_FREE_CONTAINERS = 10_000
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


class _Function(NamedTuple):
    """Stands for a function of torch or Python that the pickle may ask for; `call` is what we do instead."""

    call: Callable[..., Any]


_MARK = object()
"""Marks the start of a list of items on the stack."""


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
            _set_item(made, key, value)
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


_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Function(_ordered_dict),
    ("torch", "Size"): _Function(_size),
    ("torch._utils", "_rebuild_tensor"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor_v2),
    ("torch._utils", "_rebuild_tensor_v3"): _Function(_rebuild_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): _Function(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_rebuild_parameter),
    ("torch.storage", "UntypedStorage"): StorageType("uint8"),
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()},
    **{("torch", name): DtypeName(dtype) for name, dtype in _TORCH_DTYPES.items()},
}

_CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


class PickleReader:
    """Reads pickles that follow each other in a buffer.

    Args:
        buffer: read-only bytes.
        start: where the first pickle begins.
        what: what the pickles are, for error messages ("pytorch_model.bin: its data.pkl").
    """

    def __init__(self, buffer: memoryview, start: int, what: str) -> None:
        self._source = _Source(buffer, start)
        self._machine = _Machine(len(buffer) - start)
        self._what = what

    @property
    def position(self) -> int:
        """Where the last pickle that was read ends."""
        return self._source.position

    def read(self) -> Any:
        """Interpret one pickle.

        Returns:
            The value it builds, out of dicts, lists, tuples, strings, numbers, `Tensor`, `Storage`, `StorageType` and
            `DtypeName`.

        Raises:
            CheckpointError: the pickle is damaged, or asks for anything but tensors in plain containers.
        """
        try:
            return self._machine.run(self._source)
        except CheckpointError as error:
            raise CheckpointError(f"{self._what} cannot be read: {error}") from error.__cause__
        # What a damaged program provokes: an empty stack, an unknown memo entry, an argument too many, and so on; a
        # warning of a bad escape in a text, where warnings are errors.
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, RecursionError, Warning) as error:
            raise CheckpointError(f"{self._what} is damaged ({type(error).__name__}: {shorten(error)}).") from error


class _Source:
    """The part of a file object that `pickletools` reads from, with a limit on what one instruction may carry."""

    def __init__(self, buffer: memoryview, position: int) -> None:
        self._buffer = buffer
        self.position = position

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        if count > _MAX_STRING:
            raise CheckpointError(f"an instruction at byte {self.position} carries {count} bytes")
        return self._take(bytes(self._buffer[self.position : self.position + count]))

    def readline(self) -> bytes:
        size = _FIRST_LINE  # lines are short, and copying more for each would take long
        while True:
            part = bytes(self._buffer[self.position : self.position + size])
            line, newline, _ = part.partition(b"\n")
            if newline or size >= _MAX_STRING or len(part) < size:
                return self._take(line + newline)
            size *= 8

    def _take(self, taken: bytes) -> bytes:
        self.position += len(taken)
        return taken


class _Machine:
    """Carries out instructions; what all pickles of a file may cost together is bounded by the file's size.

    Args:
        size: bytes of the file's pickles.
    """

    def __init__(self, size: int) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._instructions = 0
        self._containers = _FREE_CONTAINERS + size // _BYTES_PER_CONTAINER

    def run(self, source: _Source) -> Any:
        self._stack, self._memo = [], {}
        for opcode, argument, position in pickletools.genops(source):
            name = opcode.name
            self._instructions += 1
            if self._instructions > _MAX_INSTRUCTIONS:
                raise CheckpointError(f"it has more than {_MAX_INSTRUCTIONS} instructions, which no state dict needs")
            if name == "STOP":
                return self._stack.pop()
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _INSTRUCTIONS:
                _INSTRUCTIONS[name](self, argument)
            else:
                raise CheckpointError(
                    f"the instruction {name} at byte {position} has no use in a file of tensors and is refused"
                )
        raise CheckpointError("it has no end")

    def _nothing(self, argument: Any) -> None:
        pass

    def _mark(self, argument: Any) -> None:
        self._stack.append(_MARK)

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _pop(self, argument: Any) -> None:
        self._stack.pop()

    def _discard_to_mark(self, argument: Any) -> None:
        self._pop_to_mark()

    def _duplicate(self, argument: Any) -> None:
        self._stack.append(self._stack[-1])

    def _memoize(self, argument: Any) -> None:
        self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]

    def _recall(self, argument: Any) -> None:
        self._stack.append(self._memo[argument])

    def _count_container(self) -> None:
        self._containers -= 1
        if self._containers < 0:
            raise CheckpointError("it makes more lists and dicts than a file of its size needs")

    def _empty_dict(self, argument: Any) -> None:
        self._count_container()
        self._stack.append({})

    def _empty_list(self, argument: Any) -> None:
        self._count_container()
        self._stack.append([])

    def _dict(self, argument: Any) -> None:
        items = self._pop_to_mark()
        self._empty_dict(argument)
        self._set_pairs(items)

    def _list(self, argument: Any) -> None:
        self._count_container()
        self._stack.append(self._pop_to_mark())

    def _tuple(self, argument: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _tuple1(self, argument: Any) -> None:
        self._last(1)

    def _tuple2(self, argument: Any) -> None:
        self._last(2)

    def _tuple3(self, argument: Any) -> None:
        self._last(3)

    def _last(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(items[::-1]))

    def _append(self, argument: Any) -> None:
        item = self._stack.pop()
        self._container(list).append(item)

    def _appends(self, argument: Any) -> None:
        items = self._pop_to_mark()
        self._container(list).extend(items)

    def _set_one(self, argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _set_item(self._container(dict), key, value)

    def _set_many(self, argument: Any) -> None:
        self._set_pairs(self._pop_to_mark())

    def _set_pairs(self, items: list[Any]) -> None:
        target = self._container(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set_item(target, key, value)

    def _container(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise CheckpointError(f"items for a {kind.__name__} are put into a {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _global(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")  # pickletools joins the two lines by a space
        self._push_global(module, name)

    def _stack_global(self, argument: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._push_global(module, name)

    def _push_global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointError("a global whose name is no text")
        if (module, name) not in _GLOBALS:
            raise CheckpointError(
                f"it asks for the global {shorten(f'{module}.{name}')}, which no file of tensors needs. Nothing was "
                "executed; if you trust the file, load it in PyTorch and save its state dict alone, best as "
                "safetensors."
            )
        self._stack.append(_GLOBALS[module, name])

    def _reduce(self, argument: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise CheckpointError(f"it calls a {type(function).__name__}, which is no function")
        self._count_container()
        self._stack.append(function.call(*arguments))

    def _build(self, argument: Any) -> None:
        # Attributes, such as the `_metadata` of a state dict: they say nothing of the weights.
        self._stack.pop()
        if not isinstance(self._stack[-1], (dict, Tensor)):
            raise CheckpointError(f"it sets attributes of a {type(self._stack[-1]).__name__}")

    def _persistent(self, argument: Any) -> None:
        self._stack.append(_load_persistent(self._stack.pop()))


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine._nothing,
    "FRAME": _Machine._nothing,
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._discard_to_mark,
    "DUP": _Machine._duplicate,
    "PUT": _Machine._memoize,
    "BINPUT": _Machine._memoize,
    "LONG_BINPUT": _Machine._memoize,
    "MEMOIZE": _Machine._memoize,
    "GET": _Machine._recall,
    "BINGET": _Machine._recall,
    "LONG_BINGET": _Machine._recall,
    "EMPTY_DICT": _Machine._empty_dict,
    "EMPTY_LIST": _Machine._empty_list,
    "DICT": _Machine._dict,
    "LIST": _Machine._list,
    "TUPLE": _Machine._tuple,
    "TUPLE1": _Machine._tuple1,
    "TUPLE2": _Machine._tuple2,
    "TUPLE3": _Machine._tuple3,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_one,
    "SETITEMS": _Machine._set_many,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}


def _set_item(target: dict[Any, Any], key: Any, value: Any) -> None:
    # Keys of plain types only: hashing a tuple of tuples of tuples ... takes time without bound.
    if not isinstance(key, (str, int, float, bytes, type(None))):
        raise CheckpointError(f"a dict has a key of type {type(key).__name__}")
    if isinstance(key, int) and abs(key) >= _MAX_KEY:
        raise CheckpointError(f"a dict has the key {quote(key)}, a larger integer than any state dict has")
    if key in target:
        raise CheckpointError(f"a dict has the key {quote(key)} twice")
    target[key] = value


def _load_persistent(identity: Any) -> Storage:
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
