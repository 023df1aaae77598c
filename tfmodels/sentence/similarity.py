"""Similarities of two sets of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("...d,...d->...", _unit(left), _unit(right))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


# By the names of sentence-transformers; of distances the negative, so that more is more alike.
SIMILARITIES = {
    "cosine": _cosine,
    "dot": lambda left, right: np.einsum("...d,...d->...", left, right),
    "euclidean": lambda left, right: -np.linalg.norm(left - right, axis=-1),
    "manhattan": lambda left, right: -np.abs(left - right).sum(-1),
}


def similarity(name: str, left: Any, right: Any, *, pairwise: bool) -> np.ndarray:
    """Compare vectors.

    Args:
        name: one of `SIMILARITIES`.
        left, right: (rows, width), or one vector each.
        pairwise: compare row by row instead of every row with every other.

    Returns:
        float32 (rows of left, rows of right), or (rows,) pairwise.

    Example:
        >>> similarity("dot", [[1.0, 2.0]], [[3.0, 4.0], [0.0, 1.0]], pairwise=False).tolist()
        [[11.0, 2.0]]
    """
    left, right = (np.atleast_2d(np.asarray(vectors, "float32")) for vectors in (left, right))
    if pairwise:
        return SIMILARITIES[name](left, right)
    return np.stack([SIMILARITIES[name](row, right) for row in left]) if len(left) else np.zeros((0, len(right)))
