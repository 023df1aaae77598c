"""Inputs of pipelines: one input, a list of inputs, or a stream of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfmodels.utils.text import quote

ONE, LIST, STREAM = "one", "list", "stream"


def read_inputs(inputs: Any) -> tuple[str, Any]:
    """The form of the inputs, ONE, LIST or STREAM, and the inputs themselves.

    Args:
        inputs: a text or a dict (one input); a list, tuple, array, or column of a table (a list); a generator, an
            iterator, a `tf.data.Dataset`, or any other iterable (a stream).

    Raises:
        ValueError: something else.

    Example:
        >>> read_inputs("a"), read_inputs(("a", "b"))
        (('one', 'a'), ('list', ['a', 'b']))
    """
    if isinstance(inputs, (str, Mapping)):
        return ONE, inputs
    if _is_tf_dataset(inputs):
        return STREAM, _tf_items(inputs)
    if hasattr(inputs, "numpy") and hasattr(inputs, "shape"):  # a tensor of texts
        inputs = inputs.numpy()
        if isinstance(inputs, bytes):
            return ONE, inputs.decode()
    if hasattr(inputs, "tolist") and hasattr(inputs, "shape"):  # an array, a column of pandas
        items = _texts(inputs.tolist())
        return (ONE, items) if isinstance(items, str) else (LIST, items)
    if isinstance(inputs, (bytes, bytearray)) or (not isinstance(inputs, Iterable) and not _is_column(inputs)):
        raise ValueError(f"inputs={quote(inputs)}; a text, a list of texts or an iterator over texts was expected.")
    if isinstance(inputs, (list, tuple)) or _is_column(inputs):
        return LIST, list(inputs)
    return STREAM, inputs


def _is_column(inputs: Any) -> bool:
    return hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")


def _is_tf_dataset(inputs: Any) -> bool:
    return hasattr(inputs, "element_spec") and hasattr(inputs, "as_numpy_iterator")


def _tf_items(dataset: Any) -> Iterator[Any]:
    """The texts of a `tf.data.Dataset`, whose elements may be batches."""
    for element in dataset.as_numpy_iterator():
        element = _texts(element)
        if isinstance(element, Mapping) and any(isinstance(value, list) for value in element.values()):
            lengths = {len(value) for value in element.values() if isinstance(value, list)}
            for index in range(min(lengths)):
                yield {name: value[index] if isinstance(value, list) else value for name, value in element.items()}
        elif isinstance(element, list):
            yield from element
        else:
            yield element


def _texts(value: Any) -> Any:
    """Bytes, as TensorFlow holds text, as text; arrays as lists."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Mapping):
        return {name: _texts(item) for name, item in value.items()}
    if hasattr(value, "tolist"):
        return _texts(value.tolist())
    return [_texts(item) for item in value] if isinstance(value, (list, tuple)) else value


def text_of(value: Any, what: str = "text") -> str:
    """The value, which must be a text.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{what}={quote(value)}; a text (str) was expected.")
    return value
