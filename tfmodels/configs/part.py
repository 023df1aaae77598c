"""Declared fields with defaults and types, filled from keyword arguments; other keys are kept apart."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import json
import math
import re
import sys
import types
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

from tfmodels.utils.plain import plain
from tfmodels.utils.text import did_you_mean, quote

MAX_INTEGER = 2**63 - 1
"""The largest integer that a field takes: what tensors hold, and far more than any size."""

_Class = TypeVar("_Class", bound=type)


def _range_of(name: str) -> tuple[float, float, str]:
    """The numbers that a field may hold, by what its name says it is, and the same in words."""
    if re.search("dropout|_pdrop", name):
        return 0, 1, "a share from 0 to 1"
    if re.search("(_eps|_epsilon|initializer_range)$", name):
        return 0, sys.float_info.max, "a number of at least 0"
    return -math.inf, math.inf, "a number"


def configuration(cls: _Class) -> _Class:
    """Turn what a class declares into fields; `ConfigPart` calls it for each of its subclasses.

    The parameters of a constructor without a body become fields, in the order in which they may be given by position,
    and the constructor of `ConfigPart` takes its place. So types, defaults and order stand in one place, which type
    checkers read as well. Annotated attributes of the class are fields given by name alone, and an attribute with the
    name of an inherited field changes its default.

    Raises:
        TypeError: a field has no default.

    Example:
        >>> class Sizes(ConfigPart):
        ...     depth: int = 2
        ...
        ...     def __init__(self, width: int = 8, height: int = 4, **kwargs): ...
        >>> Sizes(5, depth=1).to_dict()
        {'depth': 1, 'width': 5, 'height': 4}
    """
    if "__dataclass_fields__" in vars(cls):  # done when the class was made
        return cls
    own = inspect.get_annotations(cls)
    if (declared := _declared(cls)) is not None:
        del cls.__init__
        cls.positional = tuple(name for name, one in declared.items() if one.kind is not one.KEYWORD_ONLY)
        spellings = {*getattr(cls, "other_names", ()), *cls.aliases}
        for name, parameter in declared.items():
            if name not in own and name not in spellings:
                own[name] = parameter.annotation
                # One without a default is refused below, as an annotated attribute without a value is.
                default = parameter.default
                setattr(cls, name, dataclasses.MISSING if default is parameter.empty else default)
    for name, kind in _inherited(cls).items():
        if name not in own and name in vars(cls) and not hasattr(vars(cls)[name], "__get__"):
            own[name] = kind
    cls.__annotations__ = own
    for name, kind in own.items():
        mutable = isinstance(value := vars(cls).get(name), (list, dict, set))
        if mutable and "ClassVar" not in str(kind):  # each object gets one of its own
            setattr(cls, name, dataclasses.field(default_factory=functools.partial(copy.deepcopy, value)))
    cls = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.default is field.default_factory is dataclasses.MISSING:
            raise TypeError(f"{cls.__name__} declares {field.name} without a default; every field has one.")
    defaults = {
        field.name: None if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
    }
    kinds = dict.fromkeys(cls.positional, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = {**kinds, **{name: inspect.Parameter.KEYWORD_ONLY for name in defaults if name not in kinds}}
    parameters = [inspect.Parameter(name, kind, default=defaults.get(name)) for name, kind in kinds.items()]
    rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    cls.__signature__ = inspect.Signature([*parameters, rest])
    return cls


def _declared(cls: type) -> dict[str, inspect.Parameter] | None:
    """The parameters of a class's constructor without a body, or None where it has none or one with a body."""
    constructor = cls.__dict__.get("__init__")
    if constructor is None or constructor.__code__.co_names:  # a body uses names, `...` does not
        return None
    _, *parameters = inspect.signature(constructor).parameters.values()
    return {one.name: one for one in parameters if one.kind is not one.VAR_KEYWORD}


def _inherited(cls: type) -> dict[str, Any]:
    """The fields of a class's bases and their types."""
    fields = (
        one for base in reversed(cls.__mro__[1:]) if dataclasses.is_dataclass(base) for one in dataclasses.fields(base)
    )
    return {field.name: field.type for field in fields}


@functools.cache
def field_types(cls: type) -> dict[str, str]:
    """The declared fields of a configuration class and their types, as they are written."""
    return {field.name: _written(field.type) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _written(kind: Any) -> str:
    """A type as source code writes it, None last.

    Example:
        >>> _written(int), _written(int | None), _written("float | None")
        ('int', 'int | None', 'float | None')
    """
    if isinstance(kind, str):
        return kind
    if get_origin(kind) in (Union, types.UnionType):
        parts = [_written(one) for one in get_args(kind) if one is not types.NoneType]
        return " | ".join([*parts, *["None"] * (types.NoneType in get_args(kind))])
    return inspect.formatannotation(kind)


class ConfigPart:
    """Base of configurations and of their parts.

    A subclass declares its fields in a constructor without a body or by annotated attributes, see `configuration`.
    Keyword arguments fill the fields. Other keys live in a dict of their own: they read as attributes where they clash
    with nothing, and are written to JSON untouched. Values that JSON or NumPy spell otherwise are read as what they
    stand for: NumPy numbers, 4096.0 for an integer, "1e-05" for a number, "true" for a switch, and null as the default
    of a number or switch.

    Args:
        *args: fields in the order of the constructor that the class declares, which is that of transformers.
        **kwargs: fields, and any other key.

    Raises:
        TypeError: too many positional arguments, or one given twice.
        ValueError: a value is no number or switch where one is expected.
    """

    # Names of the fields that may be given by position, in order.
    positional: ClassVar[tuple[str, ...]] = ()
    aliases: ClassVar[dict[str, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs = copy.deepcopy(self.by_name(args, kwargs))
        vars(self).setdefault("_extra", {})
        for field in dataclasses.fields(self):
            if field.name in vars(self) and field.name not in kwargs:
                continue  # a class of a script has set it before it calls this constructor
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            else:
                default = field.default
            setattr(self, field.name, kwargs.pop(field.name, default))
        self._extra.update({name: plain(value) for name, value in kwargs.items()})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        configuration(cls)

    def __copy__(self) -> ConfigPart:
        again = object.__new__(type(self))
        vars(again).update({**vars(self), "_extra": dict(self._extra)})
        return again

    @classmethod
    def by_name(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a constructor call, positional ones among them."""
        if len(args) > len(cls.positional):
            raise TypeError(
                f"{cls.__name__} takes {len(cls.positional)} positional arguments ({', '.join(cls.positional)}); "
                f"{len(args)} were given."
            )
        named = dict(zip(cls.positional, args, strict=False))
        for name in named:
            if name in kwargs:
                raise TypeError(f"{cls.__name__} got {quote(name)} twice: by position and by name.")
        return {**named, **kwargs}

    @classmethod
    def convert(cls, name: str, value: Any) -> Any:
        """The value that a declared field keeps."""
        kind = field_types(cls)[name]
        if not callable(value):
            value = plain(value)
        wanted = kind.removesuffix(" | None")
        if value is None and wanted == kind and kind in ("float", "bool"):
            return getattr(cls, name)  # the default
        if value is None or wanted not in ("int", "float", "bool"):
            return value
        if wanted == "bool":
            text = value.strip().lower() if isinstance(value, str) else value
            if text in ("true", "false"):
                return text == "true"
            if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
                return bool(value)
            raise ValueError(f"{name}={quote(value)} in {cls.__name__}; True or False was expected.")
        if wanted == "int":
            return cls.convert_integer(name, value)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name}={quote(value)} in {cls.__name__}; a number was expected.")
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ValueError(f"{name}={quote(value)} in {cls.__name__}; a number that fits a float was expected.")
        low, high, expected = _range_of(name)
        if not low <= value <= high:
            raise ValueError(f"{name}={quote(value)} in {cls.__name__}; {expected} was expected.")
        return value

    @classmethod
    def convert_integer(cls, name: str, value: Any) -> int:
        """The integer that a field keeps; `validate` knows which of them have to be positive."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int):
            default = getattr(cls, name, None)
            what = "an integer" if isinstance(default, int) and default <= 0 else "a positive integer"
            raise ValueError(f"{name}={quote(value)} in {cls.__name__}; {what} was expected.")
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise ValueError(f"{name}={quote(value)} in {cls.__name__}; an integer of at most 64 bits was expected.")
        return value

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            if name in type(self).aliases:
                return getattr(self, type(self).aliases[name])
            extra = self.__dict__.get("_extra", {})  # absent while a copy is made
            if name in extra:
                return extra[name]
        raise AttributeError(
            f"{type(self).__name__} has no field {quote(name)}{did_you_mean(name, field_types(type(self))) or '.'}"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        name = type(self).aliases.get(name, name)
        if name in field_types(type(self)):
            object.__setattr__(self, name, self.convert(name, value))
        elif getattr(getattr(type(self), name, None), "fset", None) is not None:  # a property that can be set
            object.__setattr__(self, name, value)
        elif hasattr(type(self), name):
            raise AttributeError(
                f"{quote(name)} is a method, constant or computed value of {type(self).__name__}: set the fields that "
                f"it follows from, or choose another name."
            )
        else:
            # A class of a script may set values before it calls the constructor of its base.
            vars(self).setdefault("_extra", {})[name] = value

    def __delattr__(self, name: str) -> None:
        if name in self._extra:
            del self._extra[name]
        else:
            object.__delattr__(self, name)

    def to_dict(self) -> dict[str, Any]:
        """Fields and other keys as a JSON-ready dict."""
        values = {name: getattr(self, name) for name in field_types(type(self))}
        values = {name: v.to_dict() if isinstance(v, ConfigPart) else copy.deepcopy(v) for name, v in values.items()}
        return {**copy.deepcopy(self._extra), **values}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    __hash__ = None

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=str)}"


configuration(ConfigPart)
