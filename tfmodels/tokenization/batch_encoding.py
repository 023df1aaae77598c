"""The dict of model inputs that tokenizers return, which also knows where each token came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optree
from tokenizers import Encoding

from tfmodels.utils.text import quote


class CharSpan(NamedTuple):
    """Characters `start` up to, not including, `end`."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens `start` up to, not including, `end`."""

    start: int
    end: int


class BatchEncoding(dict):
    """Model inputs by name ("input_ids", "attention_mask", ...), readable as attributes too.

    It is a dict, so `model(**encoding)` and `model(encoding)` both work. Where it comes from a tokenizer it also maps
    between tokens, words and characters. The mapping methods take a batch index first; with one text it may be left
    out.

    Args:
        data: the values by name.
        encodings: one `tokenizers.Encoding` per row, or None where the values have no text behind them.
        tensor_type: "tf", "np" or "jax" turns the values into tensors, None leaves them as lists.
        prepend_batch_axis: put every value into a batch of one before it becomes a tensor.

    Raises:
        ValueError: the rows have different lengths and cannot be one tensor, or the tensor type is unknown.

    Example:
        >>> batch = BatchEncoding({"input_ids": [[1, 2], [3, 4]]}, tensor_type="np")
        >>> batch.input_ids.shape, batch["input_ids"].dtype
        ((2, 2), dtype('int64'))
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        encodings: Sequence[Encoding] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
    ):
        super().__init__(data or {})
        self._encodings = None if encodings is None else list(encodings)
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(
            f"BatchEncoding has no attribute or value {quote(name)}; its values are {', '.join(self)}."
        )

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self._known_encodings()[key]

    @property
    def data(self) -> dict[str, Any]:
        """The values by name: the encoding itself, which is a dict. Setting it replaces the values."""
        return self

    @data.setter
    def data(self, values: Mapping[str, Any]) -> None:
        values = dict(values)
        self.clear()
        self.update(values)

    def convert_to_tensors(self, tensor_type: Any = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Turn the values into tensors, in place.

        Args:
            tensor_type: "tf" (integers become int32), "np" (int64), "jax" (JAX's default integer), or None for no
                change.
            prepend_batch_axis: put every value into a batch of one first.

        Returns:
            The encoding itself.

        Raises:
            ValueError: the rows have different lengths, or the tensor type is unknown.
            ImportError: "jax" where JAX is not installed.
        """
        if tensor_type is None:
            return self
        tensor_type = getattr(tensor_type, "value", tensor_type)  # some name it by a member of an enumeration
        if tensor_type not in ("tf", "np", "jax"):
            raise ValueError(
                f'return_tensors must be "tf", "np" or None, got {quote(tensor_type)}; "jax" works where JAX is '
                'installed, and torch.from_numpy makes PyTorch tensors of what "np" gives.'
            )
        for name, value in self.items():
            self[name] = _tensor(name, [value] if prepend_batch_axis else value, tensor_type)
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Return the encoding as it is: TensorFlow and JAX move inputs to the device that computes.

        Args:
            device: a device's name or number, such as "cuda" or 0.
            non_blocking: there is nothing to wait for.

        Returns:
            The encoding itself.

        Raises:
            ValueError: `device` is no device, such as a dtype.
        """
        if not isinstance(device, (str, int)) and not hasattr(device, "type") and not hasattr(device, "platform"):
            raise ValueError(f'device must name a device, such as "cuda" or 0; got {quote(device)}.')
        return self

    # -----------------------------------------------------------------------------------------------------------------
    # From tokens to text and back

    @property
    def encodings(self) -> list[Encoding] | None:
        """The library's own result per row, None where there is no text behind the values."""
        return self._encodings

    @property
    def is_fast(self) -> bool:
        """Whether the mapping methods can be used."""
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for single texts, 2 for pairs, None if unknown."""
        return self._encodings[0].n_sequences if self._encodings else None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row."""
        return self[batch_index].tokens

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Per token: 0 for the first text, 1 for the second, None for special tokens and padding."""
        return self[batch_index].sequence_ids

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Per token: the index of its word in the text (or in the list of words given), None for special tokens."""
        return self[batch_index].word_ids

    def words(self, batch_index: int = 0) -> list[int | None]:
        """The older name of `word_ids`."""
        return self.word_ids(batch_index)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Which text of a pair a token belongs to."""
        encoding, index = self._locate(batch_or_token_index, token_index)
        return encoding.token_to_sequence(_from_start(index, encoding))

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The word a token belongs to, None for special tokens."""
        encoding, index = self._locate(batch_or_token_index, token_index)
        return encoding.token_to_word(_from_start(index, encoding))

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters of the text that a token stands for, None for special tokens."""
        encoding, index = self._locate(batch_or_token_index, token_index)
        span = encoding.token_to_chars(_from_start(index, encoding))
        return None if span is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word, None if it has none."""
        encoding, index = self._locate(batch_or_word_index, word_index)
        span = encoding.word_to_tokens(index, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """The characters of a word."""
        encoding, index = self._locate(batch_or_word_index, word_index)
        span = encoding.word_to_chars(index, sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that stands for a character of the text, None for a space that no token holds."""
        encoding, index = self._locate(batch_or_char_index, char_index)
        return encoding.char_to_token(index, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word a character belongs to."""
        encoding, index = self._locate(batch_or_char_index, char_index)
        return encoding.char_to_word(index, sequence_index)

    def _known_encodings(self) -> list[Encoding]:
        if self._encodings is None:
            raise ValueError(
                "This BatchEncoding has no text behind it: it was not made by calling a tokenizer on text."
            )
        return self._encodings

    def _locate(self, first: int, second: int | None) -> tuple[Encoding, int]:
        return (self[0], first) if second is None else (self[first], second)


def _from_start(index: int, encoding: Encoding) -> int:
    return index if index >= 0 else len(encoding) + index


def _tensor(name: str, value: Any, tensor_type: str) -> Any:
    try:
        array = np.asarray(value)
    except ValueError:
        array = None  # rows of different lengths
    if array is None or array.dtype == object:
        raise ValueError(
            f"The rows of {quote(name)} have different lengths and cannot be one tensor. "
            "Ask for padding=True, and for truncation=True where texts are too long."
        )
    if array.size == 0 or np.issubdtype(array.dtype, np.integer):
        array = array.astype(np.int64 if tensor_type == "np" else np.int32)
    elif tensor_type != "np" and array.dtype == np.float64:
        array = array.astype(np.float32)
    if tensor_type == "np":
        return array
    if tensor_type == "jax":
        try:
            import jax.numpy as jnp
        except ImportError as error:
            raise ImportError('return_tensors="jax" needs JAX, which is not installed: pip install jax.') from error
        return jnp.asarray(array)
    import tensorflow as tf  # only here: everything else about text works without it

    return tf.constant(array)


# Keras only looks into dict subclasses that it is told about.
optree.register_pytree_node(
    BatchEncoding,
    lambda batch: (list(batch.values()), tuple(batch), tuple(batch)),
    lambda names, values: BatchEncoding(dict(zip(names, values, strict=True))),
    namespace="keras",
)
