"""Data collators: lists of tokenised rows made into batches, as the fine-tuning scripts of transformers use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmodels.models.collate import as_tensors, renamed_labels, stack
from tfmodels.models.losses import IGNORED
from tfmodels.utils.text import quote

# Collators of transformers that are not here, and what to use in their place.
_REFUSED = {
    "DataCollatorForSeq2Seq": "is for encoder-decoder models, and none of these families is one; for decoders use "
    "DataCollatorForLanguageModeling(tokenizer, mlm=False), for given labels DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask": "masks BERT's word pieces; use tfmodels.training.data.mask_tokens with word_ids",
    "DataCollatorForPermutationLanguageModeling": "is for XLNet, which is not among these families",
    "DataCollatorForSOP": "is for ALBERT, which is not among these families",
    "DataCollatorWithFlattening": "packs rows for PyTorch's flash attention; use tfmodels.training.data.pack",
}


def __getattr__(name: str) -> Any:
    if name in _REFUSED:
        raise ImportError(f"{name} {_REFUSED[name]}.")
    raise AttributeError(f"module {quote(__name__)} has no attribute {quote(name)}")


def default_data_collator(features: Sequence[Any], return_tensors: str = "np") -> dict[str, Any]:
    """Stack rows that have one shape; see `tfmodels.models.collate.stack`."""
    return stack(features, return_tensors)


@dataclasses.dataclass
class DefaultDataCollator:
    """Stacks rows that have one shape; `label` and `label_ids` become `labels`.

    Args:
        return_tensors: "np" (default) or "tf".

    Example:
        >>> DefaultDataCollator()([{"input_ids": [5, 6], "label": 1}])["labels"].tolist()
        [1]
    """

    return_tensors: str = "np"

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> dict[str, Any]:
        """The batch of a list of rows."""
        return stack(features, return_tensors or self.return_tensors)


@dataclasses.dataclass
class DataCollatorWithPadding:
    """Pads the tokenizer's columns to the longest row of each batch.

    Args:
        tokenizer: the model's; its padding token and side are used.
        padding: True or "longest", "max_length", False.
        max_length: length for padding="max_length".
        pad_to_multiple_of: make lengths a multiple of this.
        return_tensors: "np" (default) or "tf".

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> tokenizer.pad_token = tokenizer.eos_token
        >>> collate = DataCollatorWithPadding(tokenizer)
        >>> batch = collate([{"input_ids": [1, 5], "label": 0}, {"input_ids": [1, 5, 6], "label": 1}])
        >>> batch["attention_mask"].tolist(), batch["labels"].tolist()
        ([[0, 1, 1], [1, 1, 1]], [0, 1])
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "np"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        """The batch of a list of rows."""
        return as_tensors(renamed_labels(_padded(self, features)), return_tensors or self.return_tensors)


@dataclasses.dataclass
class DataCollatorForTokenClassification:
    """Pads the tokenizer's columns, and a label per token beside them.

    Args:
        tokenizer, padding, max_length, pad_to_multiple_of, return_tensors: as in `DataCollatorWithPadding`.
        label_pad_token_id: fills up labels; -100 is what losses leave out.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> tokenizer.pad_token = tokenizer.eos_token
        >>> collate = DataCollatorForTokenClassification(tokenizer)
        >>> rows = [{"input_ids": [1, 5], "labels": [-100, 2]}, {"input_ids": [1, 5, 6], "labels": [-100, 0, 1]}]
        >>> collate(rows)["labels"].tolist()
        [[-100, -100, 2], [-100, 0, 1]]
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "np"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        """The batch of a list of rows."""
        name = next((name for name in ("label", "labels") if name in features[0]), None)
        bare = [{key: value for key, value in row.items() if key != name} for row in features]
        batch = dict(_padded(self, bare))
        if name is not None:
            length = len(batch["input_ids"][0])
            batch["labels"] = [self._filled(row[name], length) for row in features]
        return as_tensors(batch, return_tensors or self.return_tensors)

    def _filled(self, labels: Sequence[int], length: int) -> list[int]:
        labels, rest = list(labels), [self.label_pad_token_id] * (length - len(labels))
        return rest + labels if self.tokenizer.padding_side == "left" else labels + rest


@dataclasses.dataclass
class DataCollatorForLanguageModeling:
    """Pads rows and makes their labels, for causal or masked language models.

    Args:
        tokenizer: the model's.
        mlm: True hides tokens and asks for them (masked language models); False asks for every token (causal ones,
            whose models shift the labels themselves).
        mlm_probability: share of the tokens to ask for.
        mask_replace_prob: share of those that become the mask.
        random_replace_prob: share of those that become another token; the rest stay.
        pad_to_multiple_of: make lengths a multiple of this.
        tf_experimental_compile: of older scripts; tokens are drawn by NumPy, where there is nothing to compile.
        return_tensors: "np" (default) or "tf".
        seed: makes the choice repeat; None draws from NumPy's global generator, which `set_seed` sets.

    Raises:
        ValueError: `mlm` with a tokenizer that has no mask token; shares outside 0 to 1, or beyond 1 together.

    Source:
        Devlin et al., https://arxiv.org/abs/1810.04805.

    Example:
        >>> from tfmodels import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("stories260K")
        >>> tokenizer.pad_token = tokenizer.eos_token
        >>> collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        >>> collate([{"input_ids": [1, 5, 6]}])["labels"].tolist()
        [[1, 5, 6]]
    """

    tokenizer: Any
    mlm: bool = True
    mlm_probability: float | None = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    pad_to_multiple_of: int | None = None
    tf_experimental_compile: bool = False
    return_tensors: str = "np"
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.mlm:
            return
        if self.tokenizer.mask_token is None:
            raise ValueError(
                "This tokenizer does not have a mask token, which masked language modeling needs; pass mlm=False to "
                "train a causal language model."
            )
        for name in ("mlm_probability", "mask_replace_prob", "random_replace_prob"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name}={quote(value)}; a share from 0 to 1 was expected.")
        if self.mask_replace_prob + self.random_replace_prob > 1:
            raise ValueError(
                f"mask_replace_prob={self.mask_replace_prob} and random_replace_prob={self.random_replace_prob} are "
                f"more than 1 together."
            )
        self._generator = None if self.seed is None else np.random.default_rng(self.seed)

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> dict[str, Any]:
        """The batch of a list of rows: dicts with `input_ids`, or the ids alone."""
        rows = [row if isinstance(row, Mapping) else {"input_ids": row} for row in features]
        rows = [{key: value for key, value in row.items() if key != "labels"} for row in rows]
        padded = self.tokenizer.pad(rows, pad_to_multiple_of=self.pad_to_multiple_of)
        batch = as_tensors(padded, "np")
        special = batch.pop("special_tokens_mask", None)
        if self.mlm:
            batch["input_ids"], batch["labels"] = self._masked(batch["input_ids"], special)
        else:
            labels = batch["input_ids"].copy()
            if self.tokenizer.pad_token_id is not None:
                labels[labels == self.tokenizer.pad_token_id] = IGNORED
            batch["labels"] = labels
        return as_tensors(batch, return_tensors or self.return_tensors)

    def _masked(self, ids: np.ndarray, special: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Input ids with some hidden, and labels that ask for those."""
        if special is None:
            special = np.isin(ids, self.tokenizer.all_special_ids)
        draw = np.random.random if self._generator is None else self._generator.random
        asked = (draw(ids.shape) < self.mlm_probability) & ~special.astype(bool)
        kind = draw(ids.shape)
        others = (draw(ids.shape) * len(self.tokenizer)).astype(ids.dtype)
        hidden = np.where(
            kind < self.mask_replace_prob,
            self.tokenizer.mask_token_id,
            np.where(kind < self.mask_replace_prob + self.random_replace_prob, others, ids),
        )
        return np.where(asked, hidden, ids), np.where(asked, ids, IGNORED)


@dataclasses.dataclass
class DataCollatorForMultipleChoice:
    """Pads the choices of all rows to one length, (batch, choices, length).

    Args:
        tokenizer, padding, max_length, pad_to_multiple_of, return_tensors: as in `DataCollatorWithPadding`.

    Raises:
        ValueError: rows with different numbers of choices.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "np"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        """The batch of a list of rows, whose columns have a list per choice, and a label each or none."""
        name = next((name for name in ("label", "labels") if name in features[0]), None)
        counts = {len(row["input_ids"]) for row in features}
        if len(counts) > 1:
            raise ValueError(f"rows have {sorted(counts)} choices; the same number was expected.")
        (choices,) = counts
        flat = [
            {key: value[choice] for key, value in row.items() if key != name}
            for row in features
            for choice in range(choices)
        ]
        batch = as_tensors(_padded(self, flat), "np")
        batch = {key: value.reshape(len(features), choices, *value.shape[1:]) for key, value in batch.items()}
        if name is not None:
            batch["labels"] = [row[name] for row in features]
        return as_tensors(batch, return_tensors or self.return_tensors)


def _padded(collator: Any, features: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The rows of a collator's batch, padded by its tokenizer, as lists."""
    return collator.tokenizer.pad(
        features,
        padding=collator.padding,
        max_length=collator.max_length,
        pad_to_multiple_of=collator.pad_to_multiple_of,
    )
