"""One cache of compiled programs for generation, encoding and training, on TensorFlow and on JAX."""

from __future__ import annotations

import collections
import functools
import operator
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import keras

from tfmodels.runtime.background import Background, stand_ins
from tfmodels.runtime.fork import check_not_forked
from tfmodels.runtime.memory import trim_heap
from tfmodels.runtime.xla_flags import warn_where_unsafe
from tfmodels.utils.text import shorten
from tfmodels.utils.warn import warn

DEFAULT_LIMIT = 80

OFTEN = 4
"""A plain graph that has run so often is worth being compiled by XLA."""


class ProgramCache:
    """Functions compiled once for each combination of their arguments' shapes; the least recently used go first.

    On TensorFlow a program is a `tf.function`, on JAX a `jax.jit` over the values of the model's variables, which are
    read anew at every call: weights may change between calls, what a program computes may not.

    A copy or a pickle of a cache is empty.

    Args:
        limit: programs kept at most.

    Raises:
        ValueError: a limit below 1.

    Example:
        >>> from keras import ops
        >>> programs = ProgramCache()
        >>> double = lambda x: x * 2
        >>> [int(programs.run("double", double, ops.array(n))) for n in (3, 4)], programs.compilations
        ([6, 8], 1)
    """

    def __init__(self, limit: int = DEFAULT_LIMIT):
        if limit < 1:
            raise ValueError(f"limit={limit}: a cache keeps at least one program.")
        self.limit = limit
        self._programs: collections.OrderedDict[Any, Callable] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._dropped = 0
        self._background = Background()
        # Programs of XLA that have run, with their keys, and how often a plain graph has run for want of one.
        self._ready: set[Hashable] = set()
        self._ready_keys: frozenset[Hashable] = frozenset()
        self._traces: dict[Hashable, Callable] = {}
        self._plain_runs: dict[Hashable, int] = {}

    def run(
        self,
        key: Hashable,
        function: Callable,
        *arguments: Any,
        jit_compile: bool = True,
        variables: Sequence[keras.Variable] = (),
        any_shape: bool = False,
        steady: bool = False,
    ) -> Any:
        """Call a function as a compiled program.

        Args:
            key: says what the function computes; functions of the same key must compute the same.
            function: takes and returns nested tensors (tuples, lists, dicts, None).
            *arguments: nested tensors, or `Held` ones; a new combination of shapes and dtypes compiles a new program.
            jit_compile: compile by XLA; otherwise TensorFlow runs a plain graph (JAX compiles always).
            variables: that the function reads, needed on JAX only.
            any_shape: on TensorFlow, trace once for all sizes of the arguments, which are tensors.
            steady: the caller runs the program many times in one place, within the same `tf.device` and without
                gradients: TensorFlow then does not look its trace up at every call, which takes a millisecond.

        Returns:
            What the function returns.
        """
        check_not_forked()
        any_shape = any_shape and keras.backend.backend() == "tensorflow"
        full_key = (key, jit_compile) if any_shape else _full_key(key, arguments, jit_compile)
        if steady and (trace := self._traces.get(full_key)) is not None and _runs_traces():
            with self._lock:
                if full_key in self._programs:
                    self._programs.move_to_end(full_key)
            return trace(arguments)
        given, arguments = arguments, _opened(arguments)
        program = self._program(full_key, function, jit_compile, variables, arguments if any_shape else None)
        result = _called(program, arguments)
        if full_key not in self._ready and _count(program):  # none where functions run eagerly
            self._note_ready(full_key)
        if steady and not isinstance(program, _Jitted) and _runs_traces():
            self._traces[full_key] = _Trace(program.get_concrete_function(*arguments), given)
        return result

    def run_at_once(
        self, key: Hashable, function: Callable, plain: Callable, *arguments: Any, untraced: int = 1
    ) -> Any:
        """Call the program of XLA where it is ready; until then a plain graph, which is compiled sooner.

        First calls run the operations one by one, as even tracing a graph takes a second. XLA compiles in the
        background what has been called a few times. Where it fails, a warning says so, and plain graphs go on. On
        TensorFlow only.

        Args:
            key, *arguments: as of `run`.
            function: what XLA compiles. It is run for arguments of zeros, of variables for others of the same shape,
                and must end with them.
            plain: computes the same, as a graph.
            untraced: calls that run the operations one by one.

        Returns:
            What the functions return.
        """
        check_not_forked()
        full_key = _full_key(key, arguments, True)
        if full_key in self._ready:
            return self.run(key, function, *arguments, steady=True)
        with self._lock:
            self._plain_runs[full_key] = runs = self._plain_runs.get(full_key, 0) + 1
        if runs > untraced:
            plain = self._program((*full_key[:1], False, *full_key[2:]), plain, False)
            result = _called(plain, _opened(arguments))
        else:
            result = plain(*_opened(arguments))
        if runs == OFTEN:
            self.prepare(key, function, *arguments)
        return result

    def prepare(self, key: Hashable, function: Callable, *arguments: Any) -> None:
        """Compile a program by XLA in the background, as `run_at_once` does, whose calls take the same arguments."""
        full_key = _full_key(key, arguments, True)
        if full_key in self._ready:
            return
        self._program(full_key, function, True)
        self._background.submit(_compilation(weakref.ref(self), full_key, stand_ins(_opened(arguments))))

    def is_ready(self, key: Hashable) -> bool:
        """Whether a program of this key has run, or was compiled in the background, for arguments of any shapes."""
        return key in self._ready_keys

    def wait(self) -> None:
        """Wait until nothing is compiled in the background."""
        self._background.join()

    def _compile(self, full_key: Hashable, make_arguments: Callable[[], Any]) -> None:
        with self._lock:
            program = self._programs.get(full_key)
        if program is None:  # dropped meanwhile
            return
        try:
            _called(program, make_arguments())
        except Exception as error:
            warn(f"XLA cannot compile a program, and a plain graph goes on: {type(error).__name__}: {shorten(error)}")
            return
        self._note_ready(full_key)

    def _note_ready(self, full_key: Hashable) -> None:
        """Note that a program has run; drop the plain graph that did its work, and memory that XLA has left free."""
        with self._lock:
            self._ready.add(full_key)
            plain = (full_key[0], False, *full_key[2:])
            if plain not in self._ready:
                self._drop(plain)
            self._ready_keys = frozenset(full_key[0] for full_key in self._ready)
        if full_key[1]:
            trim_heap()

    def _drop(self, full_key: Hashable) -> None:
        self._dropped += _count(program) if (program := self._programs.pop(full_key, None)) is not None else 0
        self._ready.discard(full_key)
        self._ready_keys = frozenset(ready[0] for ready in self._ready)
        self._traces.pop(full_key, None)
        self._plain_runs.pop(full_key, None)

    def knows(self, key: Hashable, *arguments: Any, jit_compile: bool = True) -> bool:
        """Whether a program for arguments of these shapes has been traced."""
        program = self._programs.get(_full_key(key, arguments, jit_compile))
        return program is not None and _count(program) > 0

    def outputs(self, key: Hashable, function: Callable, *arguments: Any, jit_compile: bool = True) -> Any:
        """Return what `run` would as symbolic tensors; on TensorFlow only. Traces, but neither compiles nor runs."""
        program = self._program(_full_key(key, arguments, jit_compile), function, jit_compile)
        return program.get_concrete_function(*arguments).structured_outputs

    def hlo(self, key: Hashable, function: Callable, *arguments: Any) -> str:
        """Return the program that XLA is given, as text; on TensorFlow only."""
        program = self._program(_full_key(key, arguments, True), function, True)
        return program.experimental_get_compiler_ir(*arguments)(stage="hlo")

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far, dropped ones included."""
        with self._lock:
            return self._dropped + sum(map(_count, self._programs.values()))

    def __len__(self) -> int:
        return len(self._programs)

    def _program(
        self,
        full_key: Hashable,
        function: Callable,
        jit_compile: bool,
        variables: Sequence[keras.Variable] = (),
        any_shape_of: Sequence[Any] | None = None,
    ) -> Any:
        with self._lock:
            if full_key not in self._programs:
                self._programs[full_key] = _make(function, jit_compile, variables, any_shape_of)
                while len(self._programs) > self.limit:
                    self._drop(next(iter(self._programs)))
            self._programs.move_to_end(full_key)
            return self._programs[full_key]

    def __deepcopy__(self, memo: dict) -> ProgramCache:
        return ProgramCache(self.limit)

    def __reduce__(self):
        return ProgramCache, (self.limit,)


def _compilation(
    programs: weakref.ref[ProgramCache], full_key: Hashable, make_arguments: Callable[[], Any]
) -> Callable[[], None]:
    """A job that compiles a program; it keeps neither the program nor its model while it waits."""

    def compile_program() -> None:
        alive = programs()
        if alive is not None:
            alive._compile(full_key, make_arguments)

    return compile_program


class Held:
    """Nested tensors that are an argument of many calls: they are looked through once, and not at every call.

    Args:
        value: nested tensors, which stay the same objects.
    """

    def __init__(self, value: Any):
        self.value = value
        self.description = _described(value)
        self.flat = _flat(value)


def _opened(arguments: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(argument.value if isinstance(argument, Held) else argument for argument in arguments)


def _flat(arguments: Any) -> list[Any]:
    """The tensors of nested arguments as a trace takes them: variables by their handles."""
    leaves = keras.tree.flatten(arguments)
    return [getattr(leaf, "handle", leaf) for leaf in leaves if leaf is not None]


class _Trace:
    """A traced function of TensorFlow, called without the look at every argument that its own call takes.

    Args:
        concrete: the function.
        arguments: of a first call.
    """

    def __init__(self, concrete: Any, arguments: Sequence[Any]):
        self._concrete = concrete
        self._captured = concrete.captured_inputs
        kind = concrete.function_type
        expected = kind.unpack_inputs(kind.bind(*_opened(arguments)))
        flat = self._inputs(arguments)
        # Whether the tensors of arguments come in TensorFlow's order, which only different ones can tell.
        is_alike = len(flat) == len(expected) and all(map(operator.is_, flat, expected))
        self._is_flat = is_alike and len(set(map(id, flat))) == len(flat)

    def _inputs(self, arguments: Sequence[Any]) -> list[Any]:
        flat: list[Any] = []
        for argument in arguments:
            flat += argument.flat if isinstance(argument, Held) else _flat(argument)
        return flat

    def __call__(self, arguments: Sequence[Any]) -> Any:
        if not self._is_flat:
            return self._concrete(*_opened(arguments))
        return self._concrete.inference_fn.call_preflattened([*self._inputs(arguments), *self._captured])


def _full_key(key: Hashable, arguments: Any, jit_compile: bool) -> tuple[Hashable, ...]:
    return key, jit_compile, _described(arguments)


def _described(arguments: Any) -> Hashable:
    """The shapes and dtypes of nested tensors, with their structure: names, order, and which parts are None."""
    if isinstance(arguments, Held):
        return arguments.description
    if hasattr(arguments, "shape"):
        return tuple(arguments.shape), str(arguments.dtype)
    if isinstance(arguments, (list, tuple)):
        return type(arguments), tuple(map(_described, arguments))
    if isinstance(arguments, Mapping):
        return type(arguments), tuple((name, _described(part)) for name, part in arguments.items())
    return arguments


def _make(
    function: Callable, jit_compile: bool, variables: Sequence[keras.Variable], any_shape_of: Sequence[Any] | None
) -> Callable:
    if keras.backend.backend() == "jax":
        return _Jitted(function, variables)
    import tensorflow as tf

    if jit_compile:
        warn_where_unsafe()
    # An object of its own for every program: TensorFlow warns of code that is traced again and again, and tells code
    # apart by functions, but partial ones by identity.
    signature = None
    if any_shape_of is not None:
        signature = [tf.TensorSpec([None] * len(x.shape), x.dtype) for x in any_shape_of]
    function = functools.partial(_call, function)
    return tf.function(function, input_signature=signature, jit_compile=jit_compile, autograph=False)


def _call(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)


def _called(program: Callable, arguments: Sequence[Any]) -> Any:
    """Call a program; its first call traces it for descriptions of its variables.

    TensorFlow keeps the variables that a trace was made for, and their memory, until the process ends.
    """
    if not isinstance(program, _Jitted) and not _count(program) and _runs_traces():
        described = _with_descriptions(arguments)
        if described is not None:
            program.get_concrete_function(*described)
    return program(*arguments)


def _with_descriptions(arguments: Sequence[Any]) -> Any:
    """Arguments with TensorFlow's description in place of each variable; None where there is no variable."""
    import tensorflow as tf

    numbers: dict[int, int] = {}

    def described(x: Any) -> Any:
        if not isinstance(x, tf.Variable):
            return x
        spec = tf.type_spec_from_value(x)
        # The same variable has the same number, as TensorFlow gives them to the variables of a call.
        number = numbers.setdefault(id(x), len(numbers))
        return type(spec)(spec.shape, spec.dtype, spec.trainable, alias_id=number)

    result = keras.tree.map_structure(described, tuple(arguments))
    return result if numbers else None


def _runs_traces() -> bool:
    """Whether a call of a program runs what was traced: not where functions run eagerly or under a strategy."""
    import tensorflow as tf

    return not tf.config.functions_run_eagerly() and not tf.distribute.has_strategy() and tf.executing_eagerly()


def _count(program: Any) -> int:
    return program.traces if isinstance(program, _Jitted) else program.experimental_get_tracing_count()


class _Jitted:
    """A function compiled by JAX, which takes its variables' values as an argument and counts its traces."""

    def __init__(self, function: Callable, variables: Sequence[keras.Variable]):
        import jax

        self.function = function
        self.variables = list(variables)
        self.traces = 0
        self.compiled = jax.jit(self._stateless)

    def _stateless(self, values: list[Any], *arguments: Any) -> Any:
        self.traces += 1
        with keras.StatelessScope(state_mapping=list(zip(self.variables, values, strict=True))):
            return self.function(*arguments)

    def __call__(self, *arguments: Any) -> Any:
        return self.compiled([variable.value for variable in self.variables], *arguments)
