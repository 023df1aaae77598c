"""The time and the sizes that a chat template may use, and the errors of those that want more."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jinja2
import jinja2.sandbox

from tfmodels.utils.text import quote

SECONDS = 0.25  # CPU time of a rendering, for an input of no length
LARGEST = 250_000  # characters of a text, values in a list: what a template may make beside its input
LARGEST_NUMBER = 100_000  # of an argument that says how often, how wide or how many
LARGEST_INTEGER = 4096  # bits

_UNBOUNDED_METHODS = ("translate", "maketrans", "striptags", "unescape", "to_bytes")
_WIDTH = re.compile(r"\d{6,}")


class ChatTemplateError(jinja2.TemplateError, ValueError):
    """A chat template cannot be rendered: it is broken, or it raised an error itself."""


class ChatTemplateRefused(ChatTemplateError, jinja2.sandbox.SecurityError):
    """A chat template tried to leave the sandbox, or did not end within its limits."""


class Limits:
    """The time and the sizes that one rendering may use.

    Args:
        size: characters of the input.
    """

    def __init__(self, size: int):
        self.largest = LARGEST + 4 * size
        self.most = 400 * self.largest
        self.seconds = SECONDS + size * 1e-6
        self.started = time.thread_time(), time.perf_counter()
        self.steps = self.next_look = 0
        self.total = 0
        # Of lists and dicts by id. They are kept, so that no other object gets the id of one that is gone.
        self.sizes: dict[int, tuple[Any, int]] = {}

    def step(self, weight: int = 1) -> None:
        """Count a step, and look at the clock now and then."""
        self.steps += weight
        if self.steps >= self.next_look:
            self.next_look = self.steps + 64
            used = time.thread_time() - self.started[0]
            # On a busy machine the thread waits more than it runs: then a part of its time must do.
            waited = time.perf_counter() - self.started[1] > 3 * self.seconds
            if used > self.seconds or (waited and used > self.seconds / 5):
                raise ChatTemplateRefused(
                    f"The chat template took more than {self.seconds:.2f} seconds: it loops too often, or never ends."
                )

    def check(self, size: int) -> None:
        """Check a size before something of it is made."""
        if size > self.largest:
            raise ChatTemplateRefused(
                f"The chat template makes a value of size {size}; at most {self.largest} may be."
            )

    def size(self, value: Any) -> int:
        """Characters and values in a value, everything inside it counted as often as it is there."""
        if isinstance(value, (str, bytes)):
            return len(value) + 1
        if isinstance(value, int):
            return 1 + value.bit_length() // 8
        if not isinstance(value, (list, tuple, dict)):
            return 1
        known = self.sizes.get(id(value))
        if known is None:
            parts = value if not isinstance(value, dict) else [*value, *value.values()]
            known = self.sizes[id(value)] = (value, 1 + sum(map(self.size, parts)))
            self._add(8 * len(parts))
        return known[1]

    def made(self, value: Any) -> Any:
        """The value, which a step has made, if it is not too large."""
        if isinstance(value, int) and value.bit_length() > LARGEST_INTEGER:
            raise ChatTemplateRefused(f"The chat template makes a number of {value.bit_length()} bits.")
        size = self.size(value)
        self.step(1 + size // 256)
        self.check(size)
        if isinstance(value, (str, bytes)):
            self._add(size)
        return value

    def count(self, *values: Any) -> None:
        """Check arguments that may say how often or how wide."""
        for value in values:
            if isinstance(value, (int, float)) and abs(value) > LARGEST_NUMBER:
                raise ChatTemplateRefused(f"The chat template uses the number {quote(value, 40)} as an argument.")

    def format(self, template: str, arguments: Iterable[Any]) -> None:
        """Check a format, whose widths and precisions come from it or from the arguments."""
        if _WIDTH.search(template):
            raise ChatTemplateRefused("The chat template formats text with a width of six digits or more.")
        arguments = list(arguments)
        self.count(*arguments)
        fields = template.count("%") + template.count("{")
        longest = max([0, *map(int, re.findall(r"\d+", template))])
        if "*" in template or re.search(r"\{[^}]*\{", template):  # widths among the arguments
            longest = max([longest, *(abs(value) for value in arguments if isinstance(value, int))])
        self.check(len(template) + fields * (1 + longest + sum(map(self.size, arguments))))

    def method(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Check what a method of a text or a number would make."""
        values = [*args, *kwargs.values()]
        if name in _UNBOUNDED_METHODS:
            raise ChatTemplateRefused(f"Chat templates have no method {name}.")
        self.count(*values)
        if not isinstance(owner, (str, bytes)):
            return
        self.step(1 + len(owner) // 256)
        if name == "replace" and len(args) > 1:
            self.check(len(owner) + (owner.count(args[0]) if args[0] else len(owner) + 1) * self.size(args[1]))
        elif name == "join" and args:
            self.check(sum(map(self.size, args[0])) + len(owner) * len(args[0]))
        elif name in ("format", "format_map"):
            self.format(str(owner), values)
        elif name == "expandtabs":
            self.check(len(owner) * max([8, *values]))

    def _add(self, size: int) -> None:
        self.total += size
        if self.total > self.most:
            raise ChatTemplateRefused("The chat template makes more texts and lists than it may.")


class Counted:
    """An iterable of which every item that is taken is a step."""

    def __init__(self, values: Any, limits: Limits):
        self._values = values
        self._limits = limits

    def __iter__(self) -> Iterator[Any]:
        for value in self._values:
            self._limits.step()
            yield value


class CountedSized(Counted):
    def __len__(self) -> int:
        return len(self._values)


def counted(values: Any, limits: Limits) -> Counted:
    return (CountedSized if hasattr(values, "__len__") else Counted)(values, limits)


def bounded(name: str, run: Callable[..., Any], limits: Limits) -> Callable[..., Any]:
    """A filter of jinja2 with its arguments and its result checked."""
    first = 1 if hasattr(run, "jinja_pass_arg") else 0  # some take the context or the environment first

    @functools.wraps(run)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        before, value, given = args[:first], args[first], args[first + 1 :]
        limits.step(1 + (len(value) // 256 if isinstance(value, str) else 0))
        limits.count(*given, *kwargs.values())
        if hasattr(value, "__next__"):
            value = Counted(value, limits)
        if name == "join":
            value = [*value]
            joint = str(given[0] if given else kwargs.get("d", ""))
            limits.check(sum(map(limits.size, value)) + len(joint) * len(value))
        elif name == "replace":
            limits.method(str(value), name, tuple(map(str, given)), kwargs)
        elif name == "indent":
            width = given[0] if given else kwargs.get("width", 4)
            limits.check(
                len(str(value)) + (1 + str(value).count("\n")) * (width if isinstance(width, int) else len(width))
            )
        elif name == "format":
            limits.format(str(value), [*given, *kwargs.values()])
        elif name == "sum" and not isinstance(kwargs.get("start", given[1] if len(given) > 1 else 0), (int, float)):
            raise ChatTemplateRefused("The filter sum adds numbers alone in a chat template.")
        return limits.made(run(*before, value, *given, **kwargs))

    return bounded
