"""The calling convention: one way to accept arguments for every model and backbone.

A class names its inputs in `input_names`; `call` is then made for it with exactly that signature, so that Keras,
`help()` and editors see the real argument names. The same arguments come as keywords, as one dict, as one list or
tuple in signature order, or as a single tensor.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from tfmodels.dtypes import dtype_name
from tfmodels.models.outputs import ModelOutput, PastKeyValues
from tfmodels.runtime.fork import check_not_forked
from tfmodels.runtime.lowering import PLAIN, Lowering
from tfmodels.runtime.outputs import one_of
from tfmodels.utils.text import did_you_mean, holds_text, quote
from tfmodels.utils.warn import warn

# A first argument of one of these types holds all inputs and is spread over the arguments.
_CONTAINERS = (Mapping, list, tuple)
# Inputs that number something: tokens, kinds of tokens, places.
_NUMBERING = ("input_ids", "token_type_ids", "position_ids")


def unpack(names: tuple[str, ...], args: tuple, kwargs: dict[str, Any], owner: str) -> dict[str, Any]:
    """Spread what a caller gave over the argument names.

    Args:
        names: accepted names in order.
        args: positional arguments; a dict, list or tuple in the first place is spread too.
        kwargs: keyword arguments.
        owner: name of the class, for messages.

    Returns:
        One value per name, None where nothing was given.

    Raises:
        TypeError: an unknown name, a name given twice, or too many values.

    Example:
        >>> unpack(("input_ids", "attention_mask"), ([1, 2],), {}, "Model")
        {'input_ids': 1, 'attention_mask': 2}
    """
    kwargs = dict(kwargs)
    first = args[0] if args else None
    if not args and isinstance(kwargs.get(names[0]), _CONTAINERS):
        first = kwargs.pop(names[0])
    given: dict[str, Any] = {}
    if isinstance(first, Mapping):
        check_names(names, first, owner)
        given.update(first)
        rest = args[1:]
        if rest:
            raise TypeError(f"{owner} was called with a dict and {len(rest)} more positional arguments; name them.")
    else:
        values = tuple(first) + args[1:] if isinstance(first, (list, tuple)) else args
        if len(values) > len(names):
            raise TypeError(
                f"{owner} takes at most {len(names)} inputs ({', '.join(names)}); {len(values)} were given."
            )
        given.update(zip(names, values, strict=False))
    check_names(names, kwargs, owner)
    for name, value in kwargs.items():
        if value is not None and given.get(name) is not None:
            raise TypeError(f"{owner} got {quote(name)} twice: by name and in the list, tuple or dict before it.")
        if value is not None or name not in given:
            given[name] = value
    return {name: given.get(name) for name in names}


def check_names(names: tuple[str, ...], given: Mapping[str, Any], owner: str) -> None:
    """Raise TypeError if `given` holds a name that is not accepted, naming those that are."""
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names, " (did you mean {!r}?)", limit=1)
            raise TypeError(f"{owner} got an unknown argument {quote(name)}{hint}; it accepts {', '.join(names)}.")


def check_dense(names: tuple[str, ...], args: tuple, kwargs: Mapping[str, Any], owner: str) -> None:
    """Check that arguments are dense tensors whose rank is known.

    Raises:
        TypeError: one is a ragged or sparse tensor, or text; the message names it and says what to give.
        ValueError: the rank of one is not known while a graph is traced.
    """
    for name, value in _by_name(names, args, kwargs).items():
        kind = type(value).__name__
        if kind == "RaggedTensor":
            raise TypeError(
                f"{owner} got a ragged tensor as {quote(name)}; give rows of one length, {name}.to_tensor(pad_id), "
                f"and an attention_mask that is 0 at the padding. (fit, evaluate and predict pad ragged tensors.)"
            )
        if kind == "SparseTensor":
            raise TypeError(f"{owner} got a sparse tensor as {quote(name)}; give tf.sparse.to_dense({name}).")
        if holds_text(value):
            raise TypeError(text_message(owner, name))
        if kind == "SymbolicTensor" and value.shape.rank is None:
            raise ValueError(
                f"{owner} got a tensor of unknown rank as {quote(name)}; say its rank, as "
                f"tf.ensure_shape({name}, (None, None)) does for two axes."
            )


def check_integers(names: tuple[str, ...], args: tuple, kwargs: Mapping[str, Any], owner: str) -> None:
    """Check that inputs that number something are integers.

    Keras would cast floats to the dtype the model computes in, where half precision has not all numbers beyond 256.
    Keras's symbols pass, as it also asks for the shapes of outputs by floats: what they stand for is checked then.

    Raises:
        TypeError: one holds floats or booleans; the message names it.
    """
    for name, value in _by_name(names, args, kwargs).items():
        if name not in _NUMBERING or keras.backend.is_keras_tensor(value):
            continue
        kind = dtype_name(getattr(value, "dtype", None))
        if kind.startswith(("float", "bfloat", "bool")):
            hint = ""
            if name == "input_ids" and "inputs_embeds" in names and "float" in kind:
                hint = "; embeddings are given as inputs_embeds, and a keras.Input of ids has dtype='int32'"
            raise TypeError(f"{owner} got {kind} numbers as {quote(name)}; integers were expected{hint}.")


def _by_name(names: tuple[str, ...], args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, as far as they tell their names or come in order."""
    first = args[0] if args else None
    listed = (*first, *args[1:]) if isinstance(first, (list, tuple)) else args
    given = dict(first) if isinstance(first, Mapping) else dict(zip(names, listed, strict=False))
    return {**given, **kwargs}


def holds_objects(value: Any) -> bool:
    """Whether an array holds Python's objects."""
    return getattr(getattr(value, "dtype", None), "kind", "") == "O"


def text_message(owner: str, name: str) -> str:
    """The message of an error where text came as the input `name`."""
    if name in ("labels", "start_positions", "end_positions"):
        what = "give class numbers, as model.config.label2id has them" if name == "labels" else "give token numbers"
    else:
        what = "make numbers of it first, tokenizer(texts, padding=True, return_tensors='tf')"
    return f"{owner} got text as {quote(name)}; {what}."


class OutputShapes(dict):
    """Shapes of a model's outputs by name; a Keras layer that takes them for one shape is told what to do."""

    def __init__(self, owner: str, shapes: Mapping[str, Any]):
        super().__init__(shapes)
        self.owner = owner

    def __missing__(self, key: Any) -> Any:
        if isinstance(key, str):
            raise KeyError(key)
        raise TypeError(f"{self.owner} gives several outputs by name, {one_of(self)}.")

    def __getitem__(self, key: Any) -> Any:
        return self.__missing__(key) if isinstance(key, slice) else super().__getitem__(key)


class CallingConvention:
    """Mixin for `keras.Layer` classes: makes `call` from `input_names` and hands `forward` one value per name.

    `training` is always accepted last. So is `lowering`, by name only: `forward` gets it where it is not the plain one
    (see `tfmodels.runtime.lowering.Lowering`), and hands it on to the layers.
    """

    input_names: ClassVar[tuple[str, ...]] = ()
    # Those of `input_names` that existing scripts give and that mean nothing to the architecture: `forward` does not
    # get them.
    unused_inputs: ClassVar[tuple[str, ...]] = ()
    # Names that existing scripts give: dropped with one warning per object, where they are none of `input_names`.
    ignored_inputs: ClassVar[tuple[str, ...]] = ()
    told_of_ignored: bool = False

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        names = cls.input_names + ("training",)

        def call(self, *args, lowering=PLAIN, **kwargs):
            given = unpack(names, args, kwargs, type(self).__name__)
            given = {name: value for name, value in given.items() if name not in self.unused_inputs}
            return self.forward(**given) if lowering is PLAIN else self.forward(**given, lowering=lowering)

        parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        parameters += [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for n in names]
        parameters += [inspect.Parameter("lowering", inspect.Parameter.KEYWORD_ONLY, default=PLAIN)]
        call.__signature__ = inspect.Signature(parameters)
        call.__doc__ = f"Run the model. Accepts {', '.join(names)}."
        call.__qualname__ = f"{cls.__qualname__}.call"
        cls.call = call

    def __call__(self, *args: Any, lowering: Lowering = PLAIN, **kwargs: Any) -> Any:
        check_not_forked()
        names = self.input_names + ("training",)
        kwargs = self._without_ignored(kwargs)
        check_names(names, kwargs, type(self).__name__)
        check_dense(names, args, kwargs, type(self).__name__)
        kwargs = {name: typed_in(value) for name, value in kwargs.items()}
        flags = {}
        # Keras refuses flags next to tensors, inside a dict or list as well as positionally: they travel as keywords.
        if args and isinstance(args[0], Mapping):
            given = self._without_ignored(args[0])
            flags = {name: value for name, value in given.items() if value is None or isinstance(value, (bool, int))}
            tensors = {name: typed_in(value) for name, value in given.items() if name not in flags}
            check_names(names, flags, type(self).__name__)
            args = (tensors, *args[1:])
        elif args and typed_in(args[0]) is not args[0]:
            args = (typed_in(args[0]), *args[1:])
        elif args:
            values = (*args[0], *args[1:]) if isinstance(args[0], (list, tuple)) else args
            values = self.without_token_types(values)
            flags = {name: value for name, value in zip(names, values, strict=False) if isinstance(value, (bool, int))}
            if flags or len(values) > 1:
                args = ([None if isinstance(value, (bool, int)) else typed_in(value) for value in values],)
        for name in flags:
            if name in kwargs:
                raise TypeError(f"{type(self).__name__} got {quote(name)} twice: by name and in what came before.")
        if isinstance(self, keras.Model):  # what a backbone gets of its model are floats where Keras asks for shapes
            check_integers(names, args, kwargs, type(self).__name__)
        if lowering is not PLAIN:
            kwargs["lowering"] = lowering
        return super().__call__(*args, **{**flags, **kwargs})

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        # Traces `call`; Keras would make it from `compute_output_shape`, which knows no dtypes.
        return super(keras.layers.Layer, self).compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shapes of the outputs, by their names.

        Args:
            input_shape: of `input_ids`, or a dict or list of shapes, as inputs are given.

        Raises:
            NotImplementedError: no shape is given.

        Example:
            >>> from tfmodels import LlamaConfig, TFLlamaModel
            >>> config = LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_attention_heads=2,
            ...                      num_hidden_layers=1, use_cache=False)
            >>> dict(TFLlamaModel(config).compute_output_shape((None, 5)))
            {'last_hidden_state': (None, 5, 8)}
        """
        if input_shape is None:
            raise NotImplementedError(f"{type(self).__name__} needs the shape of its inputs to tell its outputs'.")
        if isinstance(input_shape, Mapping):
            given = dict(input_shape)
        elif all(size is None or isinstance(size, int) for size in input_shape):
            given = {self.input_names[0]: input_shape}
        else:
            given = dict(zip(self.input_names, input_shape, strict=False))
        check_names(self.input_names, given, type(self).__name__)
        tensors = {
            name: keras.KerasTensor(shape, dtype="float32" if name == "inputs_embeds" else "int32")
            for name, shape in given.items()
            if shape is not None
        }
        outputs = self.compute_output_spec(**tensors)
        if not isinstance(outputs, ModelOutput):
            return keras.tree.map_structure(lambda tensor: tensor.shape, outputs)
        shapes = {
            name: keras.tree.map_structure(lambda tensor: tensor.shape, value) for name, value in outputs.items()
        }
        return OutputShapes(type(self).__name__, shapes)

    def _without_ignored(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments given by name, without `ignored_inputs`."""
        ignored = {*self.ignored_inputs} - {*self.input_names}
        left_out = sorted(name for name in ignored if given.get(name) is not None)
        if left_out and not self.told_of_ignored:
            self.told_of_ignored = True
            warn(f"{type(self).__name__} has no use for {', '.join(left_out)}, which change nothing.")
        return {
            name: value.pairs if isinstance(value, PastKeyValues) else value
            for name, value in given.items()
            if name not in ignored
        }

    def without_token_types(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """A list of inputs whose third entry is no token types: old documents gave `[ids, mask, token_type_ids]`."""
        values = tuple(value.pairs if isinstance(value, PastKeyValues) else value for value in values)
        place = 2
        if self.input_names[place : place + 1] != ("position_ids",) or len(values) <= place or values[place] is None:
            return values
        third = values_of(typed_in(values[place]))
        if third is None:
            # Decoders had no token types in lists.
            typed = "token_type_ids" in self.ignored_inputs and "past_key_values" not in self.input_names
            if typed and not keras.backend.is_keras_tensor(values[place]):
                warn(
                    f"{type(self).__name__} reads the third entry of a list of inputs as position_ids; give "
                    f"token_type_ids by name."
                )
            return values
        # Positions of more than two tokens go beyond 1.
        types = third.dtype.kind in "iub" and third.ndim == 2 and third.shape[1] > 2 and third.min() >= 0
        if not types or third.max() > 1:
            return values
        warn(
            f"{type(self).__name__} takes (input_ids, attention_mask, position_ids, ...) in a list; the third entry "
            f"holds 0 and 1 only, so it is taken for token_type_ids, which change nothing."
        )
        return (*values[:place], None, *values[place + 1 :])


def typed_in(value: Any) -> Any:
    """Python lists of numbers, as one types them in, and columns of pandas, as an array; anything else as it is.

    Arrays and columns of Python lists and numbers (dtype object) count as lists.

    Raises:
        ValueError: rows of different lengths.

    Example:
        >>> typed_in([[5, 9], [7, 1]]).shape
        (2, 2)
    """
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if holds_objects(value) and all(isinstance(row, (list, np.ndarray, numbers.Real)) for row in value):
        value = [row.tolist() if isinstance(row, np.ndarray) else row for row in value]
    if isinstance(value, list) and value and all(isinstance(row, (numbers.Real, list)) for row in value):
        try:
            return np.asarray(value)
        except ValueError as error:
            lengths = [len(row) for row in value if isinstance(row, list)]
            raise ValueError(
                f"rows of {min(lengths, default=0)} to {max(lengths, default=0)} values make no array: pad them, as "
                f"tokenizer(texts, padding=True) does, or give a tf.RaggedTensor to fit."
            ) from error
    return value


def values_of(tensor: Any) -> np.ndarray | None:
    """The values of a tensor that Python can look at now, or None.

    None in a graph, except for constants from outside of it, and for a tensor without elements.
    """
    known = isinstance(tensor, np.ndarray) or (ops.is_tensor(tensor) and hasattr(tensor, "numpy"))
    return np.asarray(tensor) if known and 0 not in tensor.shape else None


def value_range(tensor: Any) -> tuple[int, int] | None:
    """Least and largest element of an integer tensor, or None where `values_of` it is.

    Example:
        >>> import numpy as np
        >>> value_range(np.array([[3, 7]]))
        (3, 7)
    """
    values = values_of(tensor)
    return None if values is None else (int(values.min()), int(values.max()))
