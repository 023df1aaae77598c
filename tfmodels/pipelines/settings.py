"""The parameters of a pipeline: defaults, those of its constructor, and those of a call on top of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from tfmodels.tokenization import PreTrainedTokenizerFast
from tfmodels.utils.text import did_you_mean, quote

# Marks a field that users do not name: what `take` collects.
INNER = {"inner": True}
_Settings = TypeVar("_Settings", bound="Settings")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of the parameters of a task; a field is a parameter.

    Class attributes:
        none_counts: fields for which None is a value; for all others it means "as before".
    """

    none_counts: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The parameters that users give."""
        return tuple(field.name for field in dataclasses.fields(cls) if not field.metadata.get("inner"))

    def changed(self: _Settings, given: Mapping[str, Any], owner: str) -> _Settings:
        """A copy with other values.

        Args:
            given: parameters by name.
            owner: the pipeline's class name, for messages.

        Raises:
            TypeError: an unknown parameter.
            ValueError: a value that is none of the right ones.
        """
        known, changes = self.names(), {}
        for name, value in given.items():
            if name in known:
                if value is not None or name in self.none_counts:
                    changes[name] = value
            elif not self.take(name, value, changes):
                hint = did_you_mean(name, known) or f"; it has {', '.join(known)}."
                raise TypeError(f"{owner} got an unknown parameter {quote(name)}{hint}")
        return dataclasses.replace(self, **changes)

    def take(self, name: str, value: Any, changes: dict[str, Any]) -> bool:
        """Take a parameter that is no field. Returns whether it is known; tasks override it."""
        return False


# Arguments of a tokenizer that change the form of what it returns.
_RESULTS = {
    *("return_tensors", "return_overflowing_tokens", "return_special_tokens_mask", "return_offsets_mapping"),
    "return_length",
}


@functools.cache
def tokenizer_arguments() -> frozenset[str]:
    """The arguments of calling a tokenizer that a pipeline hands on."""
    names = frozenset(inspect.signature(PreTrainedTokenizerFast.__call__).parameters)
    return names - {"self", "text", "text_target", "text_pair_target", "verbose"} - _RESULTS


@dataclasses.dataclass(frozen=True)
class TokenizerSettings(Settings):
    """Parameters of a task that also takes the arguments of calling the tokenizer (truncation, max_length, ...)."""

    tokenizer: dict[str, Any] = dataclasses.field(default_factory=dict, metadata=INNER)

    def take(self, name: str, value: Any, changes: dict[str, Any]) -> bool:
        if name not in tokenizer_arguments():
            return False
        changes["tokenizer"] = {**self.tokenizer, **changes.get("tokenizer", {}), name: value}
        return True


def checked_tokenizer_arguments(given: Any, name: str) -> dict[str, Any]:
    """A dict of arguments of the tokenizer, given as one parameter.

    Raises:
        ValueError: it is no dict, or names something else.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}={quote(given)}; a dict of the tokenizer's arguments was expected.")
    for key in given:
        if key not in tokenizer_arguments():
            hint = did_you_mean(key, tokenizer_arguments())
            raise ValueError(f"{name} has {quote(key)}, which is no argument that the tokenizer gets here{hint}")
    return dict(given)


def count(name: str, value: Any, smallest: int = 1) -> int:
    """A parameter that is a number of things.

    Raises:
        ValueError: it is no integer, or below the smallest.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < smallest:
        raise ValueError(f"{name}={quote(value)}; an integer of at least {smallest} was expected.")
    return int(value)
