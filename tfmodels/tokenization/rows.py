"""Pads rows of ids, and checks what a call says about padding and truncation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmodels.tokenization.batch_encoding import BatchEncoding
from tfmodels.tokenization.vocabulary import Vocabulary, one_of, to_list

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
            return_tensors: "tf", "np" or None.
            verbose: warn if there is no length to pad to.

        Returns:
            The padded inputs.

        Raises:
            ValueError: there are no input_ids, rows do not fit together, or there is no padding token.
        """
        if not isinstance(encoded_inputs, Mapping):
            names = list(encoded_inputs[0]) if encoded_inputs else []
            if any(set(row) != set(names) for row in encoded_inputs):
                raise ValueError(f"All encodings to pad must have the same values; the first has {', '.join(names)}.")
            encoded_inputs = {name: [row[name] for row in encoded_inputs] for name in names}
        data = {name: to_list(values) for name, values in encoded_inputs.items()}
        main = self.model_input_names[0]
        if main not in data:
            raise ValueError(f"The encodings to pad have no {main!r}; they have {', '.join(data) or 'nothing'}.")
        is_batch = not data[main] or isinstance(data[main][0], list)
        if not is_batch:
            data = {name: [values] for name, values in data.items()}
        rows = data[main]
        if wrong := [name for name, values in data.items() if len(values) != len(rows)]:
            raise ValueError(f"{main!r} has {len(rows)} rows, but {wrong[0]!r} has {len(data[wrong[0]])}.")
        if self._wanted("attention_mask", return_attention_mask) and "attention_mask" not in data:
            data["attention_mask"] = [[1] * len(row) for row in rows]
        pad, _, max_length = self._strategies(padding, False, max_length, pad_to_multiple_of, verbose)
        if pad:
            length = max_length if pad == "max_length" else max(map(len, rows), default=0)
            length += -length % (pad_to_multiple_of or 1)
            fill = {main: self.pad_token_id, "token_type_ids": self.pad_token_type_id}
            fill |= {"attention_mask": 0, "special_tokens_mask": 1}
            side = one_of("padding_side", padding_side or self.padding_side, SIDES)
            for name in fill.keys() & data.keys():
                gaps = [[fill[name]] * (length - len(row)) for row in data[name]]
                both = zip(data[name], gaps, strict=True)
                data[name] = [row + gap if side == "right" else gap + row for row, gap in both]
        if not is_batch:
            data = {name: values[0] for name, values in data.items()}
        return BatchEncoding(data, tensor_type=return_tensors)

    def _strategies(
        self, padding: Any, truncation: Any, max_length: int | None, pad_to_multiple_of: int | None, verbose: bool
    ) -> tuple[str | None, str | None, int | None]:
        """(padding, truncation, max_length) with names made plain and defaults filled in, checked."""
        if padding not in _PADDING:
            raise ValueError(f'padding must be True, "longest", "max_length" or False, got {padding!r}.')
        if truncation not in _TRUNCATION:
            raise ValueError(
                f'truncation must be True, "longest_first", "only_first", "only_second" or False, got {truncation!r}.'
            )
        for name, value in (("max_length", max_length), ("pad_to_multiple_of", pad_to_multiple_of)):
            if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
                raise ValueError(f"{name} must be a positive number of tokens, got {value!r}.")
        pad = _PADDING[padding]
        if max_length is not None and pad is None and truncation is None:
            truncation = True
        truncate = _TRUNCATION[truncation]
        if verbose and max_length is not None and pad == "longest" and not truncate:
            warnings.warn(
                f"max_length={max_length} has no effect with padding={padding!r} and no truncation; "
                'padding="max_length" pads to it.',
                stacklevel=3,
            )
        if max_length is None and (truncate or pad == "max_length"):
            if self.model_max_length < LARGE:
                max_length = self.model_max_length
            else:
                if verbose:
                    warnings.warn(
                        "Neither max_length nor the tokenizer's model_max_length is set: texts are neither truncated "
                        "nor padded to a maximum length.",
                        stacklevel=3,
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

    def _check_pad_token(self) -> None:
        if self.pad_token_id is None:
            token = self.pad_token
            what = "has no padding token" if token is None else f"does not know its pad_token {token!r}"
            raise ValueError(
                f"Padding was asked for, but this tokenizer {what}. Use a token that it has "
                "(tokenizer.pad_token = tokenizer.eos_token) or add one "
                "(tokenizer.add_special_tokens({'pad_token': '<pad>'}), and resize the model's embeddings)."
            )

    def _wanted(self, name: str, wish: bool | None) -> bool:
        return name in self.model_input_names if wish is None else wish
