"""The types that all export formats share: signatures, options, tolerances, and artefacts that are open to run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from tfmodels.utils.text import quote

# name of a tensor -> its dtype's name and its shape, None where a dimension is free
Tensors = dict[str, tuple[str, tuple[int | None, ...]]]


class Signature(NamedTuple):
    """One callable of an artefact: its name, its inputs and its outputs."""

    name: str
    inputs: Tensors
    outputs: Tensors


class ExportOptions(SimpleNamespace):
    """The options of an export: an attribute for each option of any format, None where it was not given.

    Beside them: `path`, the artefact's final place, and `step(text)`, which tells whoever watches what is being done.
    """


class Tolerance(NamedTuple):
    """Allowed difference of an artefact from its source: `absolute + relative * (largest source value)`."""

    absolute: float
    relative: float = 0.0


def token_types(inputs: dict[str, np.ndarray], shape: tuple[int, ...], wanted: bool) -> dict[str, np.ndarray]:
    """The token types that a file is called with.

    Args:
        inputs: of a `Runner`.
        shape: of the ids; a file that wants types and is given none gets type 0.
        wanted: whether the file has the input.

    Returns:
        int64 `token_type_ids` by name, or nothing for a file without.

    Raises:
        ValueError: types other than 0 were given for a file without.

    Example:
        >>> token_types({}, (1, 3), True)
        {'token_type_ids': array([[0, 0, 0]])}
    """
    given = inputs.get("token_type_ids")
    types = np.zeros(shape, "int64") if given is None else np.asarray(given, "int64")
    if wanted:
        return {"token_type_ids": types}
    if types.any():
        raise ValueError(
            f"token_type_ids={quote(types)}; this file has no such input: leave them out, or export the model again "
            f"where it tells types apart."
        )
    return {}


class Runner:
    """An artefact that was opened to run, whatever its format.

    Attributes:
        tolerance: what verification accepts where nobody says otherwise.
        max_length: most tokens of an input; None where only the model limits them.
        capacity: most tokens of prompt and continuation together in `generate`; None where only the model limits them.
        generates: whether `generate` works.
        padding: whether rows may hold padding.
        exact_ids: whether greedy ids must be the source's, token by token.
    """

    # Graphs sum in another order than eager calls, and float32 rounds large numbers more: the second number is for
    # logits far above 1.
    tolerance: Tolerance = Tolerance(1e-5, 5e-6)
    max_length: int | None = None
    capacity: int | None = None
    generates: bool = False
    padding: bool = True
    exact_ids: bool = True

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        """Run a forward pass.

        Args:
            inputs: by the model's names: `input_ids`, `attention_mask`, ..., int (batch, length) of any size up to
                `max_length`; padding to the shapes that the artefact has is the runner's work.
            signature: which one; None for the main one.

        Returns:
            Arrays by the names of the model's outputs, with the shapes that the model gives.
        """
        raise NotImplementedError

    def generate(self, ids: np.ndarray, max_new_tokens: int) -> np.ndarray:
        """Continue one prompt greedily.

        Args:
            ids: int (1, length).
            max_new_tokens: tokens to add.

        Returns:
            int (1, length + new): fewer than `max_new_tokens` where an end-of-sequence token came.
        """
        raise NotImplementedError
