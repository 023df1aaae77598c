"""Plain Python values from NumPy, TensorFlow and JAX ones, for settings that are compared and written as JSON."""

from __future__ import annotations

from typing import Any


def plain(value: Any) -> Any:
    """Turn tensors, arrays and NumPy scalars, also inside lists and dicts, into plain Python values.

    Example:
        >>> import numpy as np
        >>> plain({"size": np.int64(3), "ids": (np.array([1, 2]),)})
        {'size': 3, 'ids': [[1, 2]]}
    """
    if isinstance(value, (str, bytes, type)):
        return value
    if hasattr(value, "numpy"):
        value = value.numpy()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
