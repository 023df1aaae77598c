"""Read the pickle inside a PyTorch file without executing it.

A pickle is a program for a small stack machine that may call any importable function, so unpickling a downloaded file
means running its author's code. Here `pickletools` decodes the instructions and this module carries out those few that
build dicts, tuples and descriptions of tensors. Names of functions are looked up in the table of `pickled_tensors`:
nothing is ever imported or called on the file's behalf, and a name outside the table is an error.

`pickle.Unpickler` with a closed `find_class` executes nothing either, but it lets a small file do harm in ways that
cannot be closed from outside: a memo index of 2**31 - 1 makes it allocate gigabytes, a dict whose key is a tuple of
shared tuples makes it hash for ever, it takes one key twice, sets attributes (BUILD) of whatever it has made, and
never counts its instructions. `tests/checkpoints/formats/test_tensor_pickle.py` holds these cases.

Source: PEP 307 and PEP 3154.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.formats.pickled_tensors import GLOBALS, Function, Tensor, load_persistent, set_item
from tfmodels.utils.text import shorten

# Longest single string or line that a state dict's pickle may hold, far above any name of a tensor.
_MAX_STRING = 1 << 16
_FIRST_LINE = 128
# A tensor takes some 60 instructions and 200 bytes, and makes one dict.
_MAX_INSTRUCTIONS = 1_000_000
_BYTES_PER_CONTAINER = 16
_FREE_CONTAINERS = 10_000

_MARK = object()
"""Marks the start of a list of items on the stack."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
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
        """The end of the last pickle that was read."""
        return self._source.position

    def read(self) -> Any:
        """Interpret one pickle.

        Returns:
            The value it builds, out of dicts, lists, tuples, strings, numbers, and what `pickled_tensors` describes.

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
        set_item(self._container(dict), key, value)

    def _set_many(self, argument: Any) -> None:
        self._set_pairs(self._pop_to_mark())

    def _set_pairs(self, items: list[Any]) -> None:
        target = self._container(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(target, key, value)

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
        if (module, name) not in GLOBALS:
            raise CheckpointError(
                f"it asks for the global {shorten(f'{module}.{name}')}, which no file of tensors needs. Nothing was "
                "executed; if you trust the file, load it in PyTorch and save its state dict alone, best as "
                "safetensors."
            )
        self._stack.append(GLOBALS[module, name])

    def _reduce(self, argument: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Function) or not isinstance(arguments, tuple):
            raise CheckpointError(f"it calls a {type(function).__name__}, which is no function")
        self._count_container()
        self._stack.append(function.call(*arguments))

    def _build(self, argument: Any) -> None:
        # Attributes, such as the `_metadata` of a state dict: they say nothing of the weights.
        self._stack.pop()
        if not isinstance(self._stack[-1], (dict, Tensor)):
            raise CheckpointError(f"it sets attributes of a {type(self._stack[-1]).__name__}")

    def _persistent(self, argument: Any) -> None:
        self._stack.append(load_persistent(self._stack.pop()))


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
