"""Turns texts into rows of ids."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from tokenizers import Encoding

from tfmodels.tokenization.batch_encoding import BatchEncoding
from tfmodels.tokenization.rows import SIDES, Rows
from tfmodels.tokenization.vocabulary import one_of
from tfmodels.utils.text import did_you_mean, joined, quote, shorten
from tfmodels.utils.warn import warn

Text = str | Sequence[str]


class TextToIds(Rows):
    """Base of tokenizers: calling one on texts."""

    split_special_tokens: bool
    _lock: threading.Lock
    # Whether words that are given one by one must get a space in front.
    _words_need_spaces: ClassVar[bool] = False

    def __call__(
        self,
        text: Text | Sequence[Text] | None = None,
        text_pair: Text | Sequence[Text] | None = None,
        text_target: Text | Sequence[Text] | None = None,
        text_pair_target: Text | Sequence[Text] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        split_special_tokens: bool | None = None,
        verbose: bool = True,
        **unknown: Any,
    ) -> BatchEncoding:
        """Turn one or many texts, or pairs of texts, into model inputs.

        Args:
            text: a text, or a list of texts; with `is_split_into_words` a list of words, or a list of such lists.
            text_pair: the second text of each pair, in the same form. Pairs may also be given as tuples in `text`.
            text_target, text_pair_target: texts to be predicted; their ids are returned as "labels", or as
                "input_ids" without `text`.
            add_special_tokens: add the tokens that the model wants around texts.
            padding: True or "longest" (to the longest row), "max_length" (to `max_length`, else `model_max_length`),
                False.
            truncation: True or "longest_first" (the longer text of a pair first), "only_first", "only_second", False.
                Default: truncate if `max_length` is given without padding.
            max_length: tokens per row, special tokens included; default for truncation: `model_max_length`.
            stride: tokens that each overflowing row repeats from the row before.
            is_split_into_words: the texts are lists of words already.
            pad_to_multiple_of: make the padded length a multiple of this.
            padding_side: "left" or "right"; default: the tokenizer's.
            return_tensors: "tf" (int32), "np" (int64), "jax", or None for lists. With tensors one text gives a batch
                of one.
            return_token_type_ids: which text of a pair each token is from; default: if in `model_input_names`.
            return_attention_mask: 1 for tokens, 0 for padding; default: if in `model_input_names`.
            return_overflowing_tokens: return what was cut off as further rows, with "overflow_to_sample_mapping".
            return_special_tokens_mask: 1 for special tokens and padding.
            return_offsets_mapping: (start, end) characters of each token, as "offset_mapping".
            return_length: the number of tokens of each row, padding included, as "length".
            split_special_tokens: cut special tokens found in the text like other text (for text that is not trusted).
            verbose: warn once if a row is longer than `model_max_length`.

        Returns:
            The inputs by name; lists of lists for many texts, lists for one.

        Raises:
            ValueError: a wrong text or argument value; padding without a padding token.
            TypeError: an unknown argument.
        """
        if unknown:
            raise TypeError(_unknown_argument(type(self).__name__, next(iter(unknown))))
        if text_target is not None:
            given = locals()
            options = {name: given[name] for name in _CALL_OPTIONS}
            target = self(text_target, text_pair_target, **options)
            if text is None:
                return target
            inputs = self(text, text_pair, **options)
            inputs["labels"] = target["input_ids"]
            return inputs
        if text_pair_target is not None:
            raise ValueError("text_pair_target is the second text of a pair of targets; text_target is missing.")
        if isinstance(text, str) and is_split_into_words:
            raise ValueError("is_split_into_words=True wants a list of words, got one string.")
        if is_split_into_words and self._words_need_spaces and not self.add_prefix_space:
            raise ValueError(
                "is_split_into_words=True would join words without spaces between them; load the "
                f"{type(self).__name__} with add_prefix_space=True."
            )
        is_batch = _is_batch(text, is_split_into_words)
        inputs = self._pair_up(text, text_pair, is_batch)
        is_pair = any(_is_pair(item, is_split_into_words) for item in inputs)
        pad, truncate, max_length = self._strategies(padding, truncation, max_length, pad_to_multiple_of, verbose)
        added = self.num_special_tokens_to_add(is_pair) if add_special_tokens else 0
        if truncate:
            room = max_length - added
            if room < 0 or (room == 0 and return_overflowing_tokens):
                raise ValueError(f"max_length={max_length} leaves no room for text next to {added} special tokens.")
            if not 0 <= stride < max(room, 1):
                raise ValueError(f"stride={stride} must be from 0 to less than the room for text, {room} tokens.")
        encodings = self._encode(
            inputs,
            add_special_tokens=add_special_tokens,
            is_pretokenized=is_split_into_words,
            split_special_tokens=self.split_special_tokens if split_special_tokens is None else split_special_tokens,
            truncation=truncate and {"max_length": max_length, "stride": stride, "strategy": truncate},
            padding=pad
            and {
                "length": max_length if pad == "max_length" else None,
                "pad_to_multiple_of": pad_to_multiple_of,
                "direction": one_of("padding_side", padding_side or self.padding_side, SIDES),
            },
        )
        samples = range(len(encodings))
        if return_overflowing_tokens:
            samples = [sample for sample in samples for _ in range(1 + len(encodings[sample].overflowing))]
            encodings = [row for encoding in encodings for row in (encoding, *encoding.overflowing)]
        if verbose and not truncate and pad != "max_length":
            self._warn_if_too_long(max(map(len, encodings), default=0))

        columns = {
            "input_ids": True,
            "token_type_ids": self._wanted("token_type_ids", return_token_type_ids),
            "attention_mask": self._wanted("attention_mask", return_attention_mask),
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "length": return_length,
        }
        data: dict[str, Any] = {
            name: [_COLUMNS[name](encoding) for encoding in encodings] for name, wanted in columns.items() if wanted
        }
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = list(samples)
        elif not is_batch and return_tensors is None:
            data = {name: rows if name == "length" else rows[0] for name, rows in data.items()}
        return BatchEncoding(data, encodings, return_tensors)

    @contextlib.contextmanager
    def as_target_tokenizer(self) -> Iterator[None]:
        """Encode texts that are to be predicted, which is the same here; the older way of `text_target=`."""
        warn(
            "as_target_tokenizer() changes nothing for these tokenizers; tokenizer(text_target=...) does the same.",
            DeprecationWarning,
        )
        yield

    def encode_plus(self, text: Text, text_pair: Text | None = None, **options: Any) -> BatchEncoding:
        """Same as calling the tokenizer on one text or pair; the older name."""
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """Same as calling the tokenizer on a list of texts or of (text, text_pair) tuples; the older name."""
        return self(batch_text_or_text_pairs, **options)

    def encode(self, text: Text, text_pair: Text | None = None, **options: Any) -> Any:
        """The ids alone: `tokenizer(text, ...)["input_ids"]`."""
        return self(text, text_pair, **options)["input_ids"]

    def tokenize(self, text: Text, pair: Text | None = None, add_special_tokens: bool = False, **options: Any) -> list:
        """The tokens of a text, or of a pair, as strings."""
        return self(text, pair, add_special_tokens=add_special_tokens, **options).tokens()

    def _pair_up(self, text: Any, text_pair: Any, is_batch: bool) -> list[Any]:
        """One entry per row: a text, or a (text, text_pair) tuple."""
        if not isinstance(text, (str, list, tuple)):
            raise ValueError(f"text must be a string or a list of them, got {type(text).__name__}.")
        if text_pair is None:
            return list(text) if is_batch else [text]
        if not is_batch:
            if isinstance(text, str) != isinstance(text_pair, str):
                raise ValueError("text is one text and text_pair is a list; give both as one or both as lists.")
            return [(text, text_pair)]
        if isinstance(text_pair, str) or len(text_pair) != len(text):
            got = "one text" if isinstance(text_pair, str) else f"{len(text_pair)} texts"
            raise ValueError(f"text_pair must have one text for each of the {len(text)} of text, got {got}.")
        return list(zip(text, text_pair, strict=True))

    def _encode(
        self,
        inputs: list[Any],
        *,
        add_special_tokens: bool,
        is_pretokenized: bool,
        split_special_tokens: bool,
        truncation: dict[str, Any] | None,
        padding: dict[str, Any] | None,
    ) -> list[Encoding]:
        # Settings live in the backend: set, used and taken back as one step, so that threads may share a tokenizer.
        with self._lock:
            backend = self._tokenizer
            try:
                backend.encode_special_tokens = split_special_tokens
                backend.no_truncation()  # `set_truncation_and_padding` is for calls of the backend
                backend.no_padding()
                if truncation:
                    backend.enable_truncation(
                        **truncation, direction=one_of("truncation_side", self.truncation_side, SIDES)
                    )
                if padding:
                    backend.enable_padding(
                        **padding,
                        pad_id=self.pad_token_id,
                        pad_token=self.pad_token,
                        pad_type_id=self.pad_token_type_id,
                    )
                return backend.encode_batch(
                    inputs, is_pretokenized=is_pretokenized, add_special_tokens=add_special_tokens
                )
            except TypeError as error:
                raise ValueError(_wrong_input(inputs, is_pretokenized)) from error
            except BaseException as error:
                # The library raises plain Exception, or panics, where a text cannot be made short enough, and where
                # the parts of a tokenizer.json contradict each other.
                if type(error) is not Exception and type(error).__name__ != "PanicException":
                    raise
                reason = shorten(error)
                if truncation:
                    raise ValueError(
                        f"truncation={quote(truncation['strategy'])} cannot bring every row to max_length="
                        f"{truncation['max_length']} with stride={truncation['stride']}: {reason}."
                    ) from error
                where = self.name_or_path or type(self).__name__
                raise ValueError(f"the tokenizer of {where} cannot encode these texts: {reason}.") from error
            finally:
                backend.no_truncation()
                backend.no_padding()
                backend.encode_special_tokens = False


_CALL_OPTIONS = tuple(inspect.getfullargspec(TextToIds.__call__).kwonlyargs)

# Arguments of older versions of transformers.
_FORMER = {
    "pad_to_max_length": 'padding="max_length"',
    "truncation_strategy": "truncation=",
    "is_pretokenized": "is_split_into_words=",
    "return_tensor": "return_tensors=",
}

_COLUMNS = {
    "input_ids": lambda encoding: encoding.ids,
    "token_type_ids": lambda encoding: encoding.type_ids,
    "attention_mask": lambda encoding: encoding.attention_mask,
    "special_tokens_mask": lambda encoding: encoding.special_tokens_mask,
    "offset_mapping": lambda encoding: encoding.offsets,
    "length": len,
}


def _unknown_argument(owner: str, name: str) -> str:
    known = ("text", "text_pair", "text_target", "text_pair_target", *_CALL_OPTIONS)
    hint = f"; use {_FORMER[name]}" if name in _FORMER else did_you_mean(name, known)
    return f"{owner} got an unknown argument {quote(name)}{hint or f'; it takes {joined(known)}.'}"


def _is_batch(text: Any, is_split_into_words: bool) -> bool:
    if not is_split_into_words:
        return isinstance(text, (list, tuple))
    return isinstance(text, (list, tuple)) and bool(text) and isinstance(text[0], (list, tuple))


def _is_pair(item: Any, is_split_into_words: bool) -> bool:
    if not isinstance(item, (list, tuple)) or len(item) != 2:
        return False
    return not is_split_into_words or not isinstance(item[0], str)


def _wrong_input(inputs: list[Any], is_pretokenized: bool) -> str:
    wanted = "lists of words" if is_pretokenized else "strings"

    def is_text(value: Any) -> bool:
        if not is_pretokenized:
            return isinstance(value, str)
        return isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)

    for row, value in enumerate(inputs):
        pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_text, value))
        if not is_text(value) and not pair:
            kind = type(value).__name__
            return f"Texts must be {wanted}, or pairs of them; number {row} is {quote(str(value)[:80])} ({kind})."
    return (
        f"Texts must be {wanted} of whole characters; one holds half of a surrogate pair, as text that was read in "
        "another encoding than its own does."
    )
