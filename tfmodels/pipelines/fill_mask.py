"""Masked words of a text to the likeliest words in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.pipelines.base import Pipeline, PipelineException, Row, softmax
from tfmodels.pipelines.forward import row_of
from tfmodels.pipelines.inputs import text_of
from tfmodels.pipelines.settings import Settings, checked_tokenizer_arguments, count
from tfmodels.runtime.lowering import Lowering
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn


@dataclasses.dataclass(frozen=True)
class MaskSettings(Settings):
    """Parameters of filling masks."""

    top_k: int = 5
    targets: str | Sequence[str] | None = None
    tokenizer_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        count("top_k", self.top_k)
        checked_tokenizer_arguments(self.tokenizer_kwargs or {}, "tokenizer_kwargs")


def mask_scores(model: Any, inputs: dict[str, Any], lowering: Lowering) -> dict[str, Any]:
    """The logits (batch, masks, vocab_size) at the masks, which are the only ones that are computed."""
    inputs = dict(inputs)
    positions = inputs.pop("mask_positions")
    hidden = model.backbone(**inputs, return_dict=True, lowering=lowering).last_hidden_state
    hidden = ops.take_along_axis(hidden, ops.expand_dims(positions, 2), axis=1)
    return {"logits": ops.cast(model.to_logits(hidden, lowering), "float32")}


class FillMaskPipeline(Pipeline):
    """Says which tokens fit in place of the mask tokens of a text, by a `...ForMaskedLM` model.

    The result of a text with one mask is a list of {"score", "token", "token_str", "sequence"}, likeliest first; with
    several masks it is a list of such lists, each mask judged by itself. A list of one text gives that text's result.

    Parameters of the constructor and of calls:
        top_k: how many tokens to return for each mask.
        targets: a word or words; only these are compared. Of a word that is no token its first token stands for it,
            with a warning.
        tokenizer_kwargs: arguments of the tokenizer, such as {"truncation": True}.

    Raises of calls:
        PipelineException: a text has no mask.

    Example:
        >>> from tfmodels import pipeline  # doctest: +SKIP
        >>> pipeline("fill-mask", "microsoft/mpnet-base")("Paris is the <mask> of France.")  # doctest: +SKIP
    """

    task = "fill-mask"
    head = "ForMaskedLM"
    settings_class = MaskSettings
    compute = staticmethod(mask_scores)
    way_out = '; shorten it, or pass tokenizer_kwargs={"truncation": True}'

    def __init__(self, model: Any, tokenizer: Any = None, **options: Any):
        super().__init__(model, tokenizer, **options)
        if self.tokenizer.mask_token_id is None:
            raise PipelineException("fill-mask needs a tokenizer with a mask_token; this one has none.")
        if self.settings.targets is not None:
            self.target_ids(self.settings.targets)

    def __call__(self, inputs: Any, **parameters: Any) -> Any:
        result = super().__call__(inputs, **parameters)
        return result[0] if isinstance(inputs, list) and len(inputs) == 1 else result

    def target_ids(self, targets: str | Sequence[str]) -> np.ndarray:
        """The tokens that `targets` names, each once.

        Raises:
            ValueError: none of them is left.
        """
        vocabulary, found = self.tokenizer.get_vocab(), {}
        for target in [targets] if isinstance(targets, str) else targets:
            token = vocabulary.get(text_of(target, "targets"))
            if token is None:
                ids = self.tokenizer(target, add_special_tokens=False)["input_ids"]
                if not ids:
                    warn(f"targets: {quote(target)} makes no token and is left out.")
                    continue
                token = ids[0]
                warn(
                    f"targets: {quote(target)} is no token; {quote(self.tokenizer.convert_ids_to_tokens(token))} "
                    "stands for it."
                )
            found[int(token)] = None
        if not found:
            raise ValueError(f"targets={quote(targets)}: at least one target must be provided when passed.")
        return np.asarray(sorted(found))

    def run(self, kind: str, items: Any, settings: Any, *options: Any) -> Any:
        # What the targets stand for is looked up, and warned of, once per call.
        tokens = None if settings.targets is None else self.target_ids(settings.targets)
        return super().run(kind, items, _Call(settings, tokens), *options)

    def encode(self, item: Any, settings: Any) -> Iterable[Row]:
        if isinstance(item, (list, tuple)) and len(item) == 1:
            item = item[0]
        row = row_of(self.model, self.tokenizer(text_of(item), **(settings.given.tokenizer_kwargs or {})))
        positions = [
            index for index, token in enumerate(row.inputs["input_ids"]) if token == self.tokenizer.mask_token_id
        ]
        if not positions:
            raise PipelineException(f"No mask_token ({self.tokenizer.mask_token}) found on the input {quote(item)}.")
        row.more["mask_positions"] = positions
        return [row]

    def decode(self, item: Any, rows: Sequence[Row], outputs: Sequence[Any], settings: Any) -> Any:
        ids = np.asarray(rows[0].inputs["input_ids"])
        positions = rows[0].more["mask_positions"]
        found = []
        for position, scores in zip(positions, softmax(outputs[0]["logits"]), strict=False):
            tokens = np.arange(len(scores)) if settings.tokens is None else settings.tokens
            scores = scores[tokens]
            best = np.argsort(-scores, kind="stable")[: settings.given.top_k]
            found.append(
                [
                    self._proposal(ids, position, int(tokens[index]), float(scores[index]), single=len(positions) == 1)
                    for index in best
                ]
            )
        return found[0] if len(found) == 1 else found

    def _proposal(self, ids: np.ndarray, position: int, token: int, score: float, *, single: bool) -> dict[str, Any]:
        """A token in place of a mask. With several masks the others stay to be seen, and so do all special tokens."""
        ids = ids.copy()
        ids[position] = token
        kept = ids[ids != self.tokenizer.pad_token_id] if self.tokenizer.pad_token_id is not None else ids
        return {
            "score": score,
            "token": token,
            "token_str": self.tokenizer.decode([token]),
            "sequence": self.tokenizer.decode(kept.tolist(), skip_special_tokens=single),
        }


@dataclasses.dataclass(frozen=True)
class _Call:
    """The parameters of a call, and the tokens that its targets stand for."""

    given: MaskSettings
    tokens: np.ndarray | None
