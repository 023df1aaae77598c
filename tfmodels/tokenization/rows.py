"""Pads rows of ids, and checks what a call says about padding and truncation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfmodels.tokenization.batch_encoding import BatchEncoding
from tfmodels.tokenization.vocabulary import Vocabulary, one_of, to_list
from tfmodels.utils.text import quote, shorten
from tfmodels.utils.warn import warn

NO_MAX_LENGTH = int(1e30)  # model_max_length where none is known
LARGE = int(1e20)  # files write such numbers for "no limit"

_PADDING = {True: "longest", "longest": "longest", "max_length": "max_length", False: None, "do_not_pad": None}
_TRUNCATION = {
    True: "longest_first",
    "longest_first": "longest_first",
    "only_first": "only_first",
    "only_second": "only_second",
    False: None,
    None: None,
    "do_not_truncate": None,
}
SIDES = ("left", "right")


class Rows(Vocabulary):
    """Base of tokenizers: rows of ids that exist already."""

    model_max_length: int
    _warned: bool
    padding_side: str = "right"
    truncation_side: str = "right"
    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    pad_token_type_id = 0

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pad rows that were encoded before.

        input_ids, attention_mask, token_type_ids and special_tokens_mask are padded; other values are kept as they
        are.

        Args:
            encoded_inputs: one encoding (with one or many rows), or a list of encodings of one row each.
            padding: True or "longest", "max_length", False.
            max_length: length for padding="max_length"; default: `model_max_length`.
            pad_to_multiple_of: make the length a multiple of this.
            padding_side: "left" or "right"; default: the tokenizer's.
            return_attention_mask: make a mask where there is none; default: if in `model_input_names`.
            return_tensors: "tf", "np" or "jax"; default: what the ids are, which may be lists.
            verbose: warn if there is no length to pad to.

        Returns:
            The padded inputs.

        Raises:
            ValueError: there are no input_ids, rows do not fit together, or there is no padding token.
        """
        if not isinstance(encoded_inputs, Mapping):
            names = list(encoded_inputs[0]) if encoded_inputs else []
            if any(set(row) != set(names) for row in encoded_inputs):
                raise ValueError(f"All encodings to pad must have the same values; the first has {_shown(names)}.")
            encoded_inputs = {name: [row[name] for row in encoded_inputs] for name in names}
        main = self.model_input_names[0]
        if main not in encoded_inputs:
            names = _shown(encoded_inputs) or "nothing"
            raise ValueError(f"The encodings to pad have no {quote(main)}; they have {names}.")
        kind = _tensor_type(encoded_inputs[main])
        fill = {main: self.pad_token_id, "token_type_ids": self.pad_token_type_id}
        fill |= {"attention_mask": 0, "special_tokens_mask": 1}
        data = {name: to_list(values) if kind or name in fill else values for name, values in encoded_inputs.items()}
        is_batch = not data[main] or isinstance(data[main][0], list)
        if not is_batch:
            data = {name: [values] for name, values in data.items()}
        rows = data[main]
        if wrong := [name for name, values in data.items() if len(values) != len(rows)]:
            raise ValueError(f"{quote(main)} has {len(rows)} rows, but {quote(wrong[0])} has {len(data[wrong[0]])}.")
        if self._wanted("attention_mask", return_attention_mask) and "attention_mask" not in data:
            data["attention_mask"] = [[1] * len(row) for row in rows]
        pad, _, max_length = self._strategies(padding, False, max_length, pad_to_multiple_of, verbose)
        if pad:
            length = max_length if pad == "max_length" else max(map(len, rows), default=0)
            length += -length % (pad_to_multiple_of or 1)
            side = one_of("padding_side", padding_side or self.padding_side, SIDES)
            for name in fill.keys() & data.keys():
                gaps = [[fill[name]] * (length - len(row)) for row in data[name]]
                both = zip(data[name], gaps, strict=True)
                data[name] = [row + gap if side == "right" else gap + row for row, gap in both]
        if not is_batch:
            data = {name: values[0] for name, values in data.items()}
        return BatchEncoding(data, tensor_type=return_tensors or kind)

    @property
    def max_len_single_sentence(self) -> int:
        """The tokens that a text may have beside its special tokens. It follows from `model_max_length`."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @max_len_single_sentence.setter
    def max_len_single_sentence(self, value: int) -> None:
        self._check_follows("max_len_single_sentence", value)

    @property
    def max_len_sentences_pair(self) -> int:
        """The tokens that the texts of a pair may have together beside their special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    @max_len_sentences_pair.setter
    def max_len_sentences_pair(self, value: int) -> None:
        self._check_follows("max_len_sentences_pair", value)

    def _check_follows(self, name: str, value: int) -> None:
        if value != getattr(self, name):
            raise ValueError(f"{name} is {getattr(self, name)}: it follows from model_max_length; set that instead.")

    def prepare_for_model(
        self,
        ids: Sequence[int],
        pair_ids: Sequence[int] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        prepend_batch_axis: bool = False,
    ) -> BatchEncoding:
        """Make model inputs of the ids of one text or of a pair, as calling the tokenizer on the texts does.

        Args:
            ids: ids without special tokens.
            pair_ids: those of the second text.
            return_overflowing_tokens: return the ids that were cut off as "overflowing_tokens", and how many there
                were too many as "num_truncated_tokens".
            prepend_batch_axis: return tensors of one row instead of tensors without rows.
            add_special_tokens, padding, truncation, max_length, stride, pad_to_multiple_of: as for calling it.
            padding_side, return_tensors, return_token_type_ids, return_attention_mask, verbose: as for calling it.
            return_special_tokens_mask, return_length: as for calling it.

        Returns:
            The inputs by name.

        Raises:
            ValueError: arguments that do not go together; ids that cannot be cut as `truncation` says.
        """
        pad, truncate, max_length = self._strategies(padding, truncation, max_length, pad_to_multiple_of, verbose)
        if return_token_type_ids and not add_special_tokens:
            raise ValueError("return_token_type_ids=True needs add_special_tokens=True: types come with the tokens.")
        if return_overflowing_tokens and truncate == "longest_first" and pair_ids is not None:
            raise ValueError(
                'return_overflowing_tokens=True needs truncation="only_first" or "only_second" for a pair: what is '
                "cut off both texts is not one sequence."
            )
        ids, pair_ids = list(ids), None if pair_ids is None else list(pair_ids)
        added = self.num_special_tokens_to_add(pair_ids is not None) if add_special_tokens else 0
        total = len(ids) + len(pair_ids or []) + added
        overflowing: list[int] = []
        if truncate and max_length and total > max_length:
            ids, pair_ids, overflowing = self.truncate_sequences(ids, pair_ids, total - max_length, truncate, stride)
        data: dict[str, Any] = {}
        if return_overflowing_tokens:
            data["overflowing_tokens"] = overflowing
            data["num_truncated_tokens"] = total - (max_length or total)
        if add_special_tokens:
            data["input_ids"] = self.build_inputs_with_special_tokens(ids, pair_ids)
            types = self.create_token_type_ids_from_sequences(ids, pair_ids)
            special = self.get_special_tokens_mask(ids, pair_ids)
        else:
            data["input_ids"] = ids + (pair_ids or [])
            types = special = [0] * len(data["input_ids"])
        if self._wanted("token_type_ids", return_token_type_ids):
            data["token_type_ids"] = types
        if return_special_tokens_mask:
            data["special_tokens_mask"] = special
        if verbose and not truncate and pad != "max_length":
            self._warn_if_too_long(len(data["input_ids"]))
        data = dict(
            self.pad(
                data,
                padding=pad or False,
                max_length=max_length,
                pad_to_multiple_of=pad_to_multiple_of,
                padding_side=padding_side,
                return_attention_mask=return_attention_mask,
                verbose=False,
            )
        )
        if return_length:
            data["length"] = len(data["input_ids"])
        return BatchEncoding(data, tensor_type=return_tensors, prepend_batch_axis=prepend_batch_axis)

    def truncate_sequences(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: str = "longest_first",
        stride: int = 0,
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """Cut ids off one text or a pair, on the side that `truncation_side` says.

        Args:
            ids: ids of the first text.
            pair_ids: ids of the second text.
            num_tokens_to_remove: how many.
            truncation_strategy: "longest_first", "only_first" or "only_second".
            stride: ids that the overflowing ones repeat from those that stay.

        Returns:
            The ids of both texts that stay, and the overflowing ones; none of these for a pair cut longest first.

        Raises:
            ValueError: an unknown strategy, or a text with no more ids than are to be removed.
        """
        strategy = _TRUNCATION.get(getattr(truncation_strategy, "value", truncation_strategy), "")
        if strategy == "":
            raise ValueError(
                'truncation_strategy must be "longest_first", "only_first" or "only_second", '
                f"got {quote(truncation_strategy)}."
            )
        if num_tokens_to_remove <= 0 or strategy is None:
            return ids, pair_ids, []
        left = one_of("truncation_side", self.truncation_side, SIDES) == "left"

        def cut(row: list[int], count: int) -> tuple[list[int], list[int]]:
            window = min(len(row), stride + count)
            if left:
                return row[count:], row[:window]
            return row[: len(row) - count], row[len(row) - window :]

        if strategy == "longest_first" and pair_ids is not None:
            difference = len(ids) - len(pair_ids)
            first = min(abs(difference), num_tokens_to_remove)  # off the longer one, then off both in turn
            half = (num_tokens_to_remove - first) // 2
            rest = num_tokens_to_remove - first - half
            from_first, from_second = (first + half, rest) if difference > 0 else (half, first + rest)
            return cut(ids, min(from_first, len(ids)))[0], cut(pair_ids, min(from_second, len(pair_ids)))[0], []
        name, row = ("pair_ids", pair_ids) if strategy == "only_second" else ("ids", ids)
        if row is None or len(row) <= num_tokens_to_remove:
            raise ValueError(
                f"truncation_strategy={quote(strategy)} cannot remove {num_tokens_to_remove} ids: {name} has "
                f"{len(row or [])}."
            )
        kept, overflowing = cut(row, num_tokens_to_remove)
        return (ids, kept, overflowing) if strategy == "only_second" else (kept, pair_ids, overflowing)

    def _warn_if_too_long(self, longest: int) -> None:
        if longest > self.model_max_length and not self._warned:
            self._warned = True
            warn(
                f"A text has {longest} tokens, more than the {self.model_max_length} that the model is made for. "
                "truncation=True would cut it."
            )

    def _strategies(
        self, padding: Any, truncation: Any, max_length: int | None, pad_to_multiple_of: int | None, verbose: bool
    ) -> tuple[str | None, str | None, int | None]:
        """(padding, truncation, max_length) with names made plain and defaults filled in, checked."""
        padding, truncation = (getattr(value, "value", value) for value in (padding, truncation))  # enumerations
        if not _is_key(padding, _PADDING):
            raise ValueError(f'padding must be True, "longest", "max_length" or False, got {quote(padding)}.')
        if not _is_key(truncation, _TRUNCATION):
            raise ValueError(
                'truncation must be True, "longest_first", "only_first", "only_second" or False, '
                f"got {quote(truncation)}."
            )
        for name, value in (("max_length", max_length), ("pad_to_multiple_of", pad_to_multiple_of)):
            if value is not None and (not isinstance(value, (int, np.integer)) or not 0 < value < 1 << 63):
                raise ValueError(f"{name} must be a positive number of tokens, got {quote(value)}.")
        pad = _PADDING[padding]
        if max_length is not None and pad is None and truncation is None:
            truncation = True
        truncate = _TRUNCATION[truncation]
        if verbose and max_length is not None and pad == "longest" and not truncate:
            warn(
                f"max_length={quote(max_length)} has no effect with padding={quote(padding)} and no truncation; "
                'padding="max_length" pads to it.'
            )
        if max_length is None and (truncate or pad == "max_length"):
            if self.model_max_length < LARGE:
                max_length = self.model_max_length
            else:
                if verbose:
                    warn(
                        "Neither max_length nor the tokenizer's model_max_length is set: texts are neither truncated "
                        "nor padded to a maximum length."
                    )
                truncate, pad = None, "longest" if pad == "longest" else None
        if pad:
            self._check_pad_token()
            if truncate and pad_to_multiple_of is not None and max_length % pad_to_multiple_of:
                raise ValueError(
                    f"max_length={max_length} is not a multiple of pad_to_multiple_of={pad_to_multiple_of}, so rows "
                    "cannot be truncated to the one and padded to the other."
                )
        return pad, truncate, max_length

    def set_truncation_and_padding(
        self,
        padding_strategy: Any,
        truncation_strategy: Any,
        max_length: int | None,
        stride: int,
        pad_to_multiple_of: int | None,
        padding_side: str | None = None,
    ) -> None:
        """Set what `backend_tokenizer` does with the length of texts when it is called by itself.

        Calls of the tokenizer do what their own arguments say, and leave the backend without either.

        Args:
            padding_strategy: as `padding` of a call.
            truncation_strategy: as `truncation` of a call.
            max_length: tokens per row.
            stride: tokens that two parts of a text that is cut have in common.
            pad_to_multiple_of: round the length of rows up to a multiple of this.
            padding_side: "left" or "right"; None for the tokenizer's own.

        Raises:
            ValueError: an argument has a wrong value, or there is no padding token.
        """
        pad, truncate, max_length = self._strategies(
            padding_strategy, truncation_strategy, max_length, pad_to_multiple_of, verbose=False
        )
        side = one_of("padding_side", padding_side or self.padding_side, SIDES)
        with self._lock:
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            if truncate:
                self._tokenizer.enable_truncation(
                    max_length, stride=stride, strategy=truncate, direction=self.truncation_side
                )
            if pad:
                self._tokenizer.enable_padding(
                    direction=side,
                    length=max_length if pad == "max_length" else None,
                    pad_to_multiple_of=pad_to_multiple_of,
                    pad_id=self.pad_token_id,
                    pad_token=self.pad_token,
                    pad_type_id=self.pad_token_type_id,
                )

    def _check_pad_token(self) -> None:
        if self.pad_token_id is None:
            token = self.pad_token
            what = "has no padding token" if token is None else f"does not know its pad_token {quote(token)}"
            raise ValueError(
                f"Padding was asked for, but this tokenizer {what}. Use a token that it has "
                "(tokenizer.pad_token = tokenizer.eos_token) or add one "
                "(tokenizer.add_special_tokens({'pad_token': '<pad>'}), and resize the model's embeddings)."
            )

    def _wanted(self, name: str, wish: bool | None) -> bool:
        return name in self.model_input_names if wish is None else wish


def _shown(names: Iterable[Any]) -> str:
    return ", ".join(shorten(name, 50) for name in [*names][:10])


def _tensor_type(values: Any) -> str | None:
    """The `return_tensors` that gives what ids are in, or lists of them; None for lists of numbers."""
    while isinstance(values, (list, tuple)):
        values = values[0] if values else 0
    modules = {"numpy": "np", "tensorflow": "tf", "jaxlib": "jax"}
    return modules.get(type(values).__module__.split(".")[0]) if np.ndim(values) else None


def _is_key(value: Any, table: Mapping[Any, Any]) -> bool:
    return isinstance(value, (bool, str, type(None))) and value in table
