"""Runs chat templates, which come from strangers, by jinja2: without Python in reach, without changes, within limits.

jinja2's immutable sandbox keeps a template away from Python's internals and from methods that change lists and dicts.
It has no limits of its own, so this module adds them:

- A template sees plain JSON values alone, copies of the caller's.
- Every loop item, call, operator and list that a template makes is a step. The CPU time of the thread is looked at as
  steps go by, and rendering stops after a quarter of a second (and a microsecond for each character of the input).
- What a single step makes is bounded before it is made: texts, lists and numbers have a largest size, repetition,
  padding, replacing and formatting are computed first, and a list counts with everything in it, so that neither a
  long text nor a list of lists of lists outgrows memory.
- Filters without such a bound (urlize, wordwrap, striptags, xmlattr, pprint, filesizeformat) do not exist here.
- Templates are not folded at compile time, so that nothing of them runs before the clock does.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import CodeType
from typing import Any, ClassVar

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.defaults import DEFAULT_FILTERS
from jinja2.runtime import LoopContext, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tfmodels.runtime.gc import pause_gc
from tfmodels.tokenization.template_limits import (
    ChatTemplateError,
    ChatTemplateRefused,
    Limits,
    bounded,
    counted,
)
from tfmodels.utils.text import quote

LONGEST_TEMPLATE = 200_000  # characters
MOST_TOKENS = 15_000  # words and signs of jinja2: they, not the text between them, take long to compile

_UNBOUNDED_FILTERS = ("urlize", "wordwrap", "striptags", "xmlattr", "pprint", "filesizeformat")


def render(template: str, variables: Mapping[str, Any], spans: list[tuple[int, int]] | None = None) -> str:
    """Render a chat template.

    Args:
        template: jinja2 source.
        variables: plain JSON values by name; see `plain`.
        spans: gets (start, end) characters of the text inside `{% generation %}` blocks.

    Returns:
        The text.

    Raises:
        ChatTemplateError: the template is broken, or calls `raise_exception`.
        ChatTemplateRefused: it reaches for what the sandbox keeps away, or takes too long.

    Example:
        >>> render("{% for m in messages %}<{{ m.role }}>{% endfor %}", {"messages": [{"role": "user"}]})
        '<user>'
        >>> render("{{ ''.__class__ }}", {})
        Traceback (most recent call last):
        tfmodels.tokenization.template_limits.ChatTemplateRefused: ...
    """
    try:
        code = _compile(template)
        environment = _Environment(Limits(_characters(variables)))
        compiled = jinja2.Template.from_code(environment, code, environment.make_globals(None))
        environment.spans = spans
        # A search of all of the process's objects would take longer than a template may.
        with pause_gc():
            for chunk in compiled.root_render_func(compiled.new_context(dict(variables))):
                environment.write(chunk)
        return "".join(environment.written)
    except ChatTemplateError:
        raise
    except jinja2.sandbox.SecurityError as error:
        raise ChatTemplateRefused(f"The chat template is not safe: {error}.") from error
    except jinja2.TemplateSyntaxError as error:
        raise ChatTemplateError(f"The chat template is broken at line {error.lineno}: {error.message}") from error
    except jinja2.TemplateError as error:
        raise ChatTemplateError(str(error)) from error
    except RecursionError as error:
        raise ChatTemplateRefused("The chat template is nested too deeply.") from error
    except OverflowError as error:
        raise ChatTemplateRefused(f"The chat template uses a number that is too large: {error}.") from error
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, MemoryError, SyntaxError) as error:
        raise ChatTemplateError(f"The chat template failed ({type(error).__name__}: {quote(str(error))}).") from error


def has_generation_tag(template: str) -> bool:
    """Whether a template marks what the assistant says by `{% generation %}`."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def plain(value: Any) -> Any:
    """A copy of a value made of plain JSON types alone; anything else becomes the name of its type.

    Example:
        >>> import numpy as np
        >>> plain({"a": (1, np.float32(0.5)), "image": np.zeros(3)})
        {'a': (1, 0.5), 'image': '<ndarray>'}
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    # Subclasses, enumerations among them, may have methods of their own: only the value goes in.
    for kind in (str, int, float):
        if isinstance(value, kind):
            return getattr(kind, f"__{kind.__name__}__")(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return plain(value.item())
    return f"<{type(value).__name__}>"


def _characters(value: Any) -> int:
    """Characters and values in a tree of plain values."""
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, Mapping):
        return 1 + sum(map(_characters, value)) + sum(map(_characters, value.values()))
    return 1 + sum(map(_characters, value)) if isinstance(value, (list, tuple)) else 1


@functools.lru_cache(maxsize=32)
def _compile(template: str) -> CodeType:
    if len(template) > LONGEST_TEMPLATE:
        raise ChatTemplateRefused(
            f"The chat template has {len(template)} characters; at most {LONGEST_TEMPLATE} are taken."
        )
    return _Environment(Limits(0)).compile(template)


class _Generator(CodeGenerator):
    """jinja2's compiler, which calls the limits where a template makes lists, and computes nothing itself."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible()
        return super()._output_child_to_const(node, frame, finalize)

    def visit_List(self, node: nodes.List, frame: Any) -> None:
        self._made(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:
        self._made(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:
        if node.ctx == "load":
            self._made(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _made(self, visit: Any, node: Any, frame: Any) -> None:
        self.write("environment.limits.made(")
        visit(node, frame)
        self.write(")")


class _Generation(jinja2.ext.Extension):
    """The tag `{% generation %} ... {% endgeneration %}` around what the assistant says."""

    tags: ClassVar[set[str]] = {"generation"}

    def filter_stream(self, stream: Any) -> Iterator[Any]:
        for number, token in enumerate(stream):
            if number == MOST_TOKENS:
                raise ChatTemplateRefused(f"The chat template has more than {MOST_TOKENS} words and signs.")
            yield token

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Any) -> str:
        text = caller()
        environment = self.environment
        if environment.spans is not None:
            environment.spans.append((environment.length, environment.length + len(text)))
        return text


class _Namespace(Namespace):
    """jinja2's namespace, without names that begin with an underscore, and printed without what is in it."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _Namespace._checked(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(_Namespace._checked(name), value)

    def __repr__(self) -> str:
        return "<Namespace>"

    @staticmethod
    def _checked(name: Any) -> Any:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.sandbox.SecurityError(
                f"a namespace has no attribute {quote(name)} with an underscore in front"
            )
        return name


class _NewDict:
    """The global `dict`, which makes dicts and has no attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with the ecosystem's settings, for one rendering.

    Args:
        limits: what the rendering may use.
    """

    COUNTED = "_counted"
    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, limits: Limits):
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=limits.made,
            extensions=[_Generation, jinja2.ext.loopcontrols],
        )
        self.limits = limits
        self.spans: list[tuple[int, int]] | None = None
        self.written: list[str] = []
        self.length = 0
        self.filters = {
            name: bounded(name, filter_, limits)
            for name, filter_ in DEFAULT_FILTERS.items()
            if name not in _UNBOUNDED_FILTERS
        }
        self.filters["tojson"] = self._to_json
        self.filters[self.COUNTED] = lambda values: counted(values, limits)
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self.globals["dict"] = _NewDict()
        self.globals["namespace"] = _Namespace
        del self.globals["lipsum"]

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for loop in list(source.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, self.COUNTED, [], [], None, None, lineno=loop.lineno)
        return super()._generate(source, *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if attribute.startswith("__") and not (isinstance(obj, dict) and attribute in obj):
            return self.unsafe_undefined(obj, attribute)  # whether or not there is such an attribute
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        if attribute.startswith("_"):
            raise jinja2.sandbox.SecurityError(f"it reads the attribute {quote(attribute)} of a {type(obj).__name__}")
        return super().unsafe_undefined(obj, attribute)

    def write(self, chunk: str) -> None:
        """Take a piece of the rendered text."""
        self.limits.step()
        self.length += len(chunk)
        self.limits.check(self.length)
        self.written.append(chunk)

    def concat(self, parts: Iterable[str]) -> str:
        """Join what a block, macro or capture has written; jinja2 calls it."""
        parts = list(parts)
        self.limits.check(sum(map(len, parts)))
        return "".join(parts)

    def joined(self, parts: tuple[Any, ...]) -> str:
        """The operator `~`."""
        self.limits.check(sum(map(self.limits.size, parts)))
        return self.limits.made(str_join(parts))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        limits = self.limits
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, bytes)) and isinstance(other, int):
                    limits.check(len(one) * max(other, 0))
                elif isinstance(one, (list, tuple)) and isinstance(other, int):
                    limits.check(limits.size(one) * max(other, 0))
        elif operator == "**":
            limits.count(left, right)
            if isinstance(left, int) and isinstance(right, int):
                limits.check(left.bit_length() * abs(right))
        elif operator == "%" and isinstance(left, (str, bytes)):
            limits.format(str(left), right if isinstance(right, tuple) else (right,))
        elif operator == "+":
            limits.check(limits.size(left) + limits.size(right))
        return limits.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __called: Any, *args: Any, **kwargs: Any) -> Any:
        limits = __self.limits
        if isinstance(__called, LoopContext):  # a recursive loop, over what it is called with
            for value in args:
                for _ in range(len(value) if hasattr(value, "__len__") else 1):
                    limits.step()
        # str.format comes wrapped by jinja2.
        method = getattr(__called, "__wrapped__", __called)
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, (str, bytes, int, float)):
            limits.method(owner, name, args, kwargs)
        return limits.made(super().call(__context, __called, *args, **kwargs))

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON text that keeps characters beyond ASCII and does not escape HTML, as templates in the wild expect."""
        if (isinstance(indent, int) and indent > 64) or len(str(separators or "")) > 64:
            raise ChatTemplateRefused("The chat template writes JSON with an indent of more than 64 spaces.")
        self.limits.check(self.limits.size(value))
        text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        return self.limits.made(text)


def _raise_exception(message: Any) -> None:
    raise ChatTemplateError(str(message))
