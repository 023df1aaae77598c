"""Names of element types and Keras dtype policies, as users write them."""

from __future__ import annotations

from typing import Any

from tfmodels.utils.text import quote

COMPUTE_DTYPES = ("float32", "bfloat16", "float16", "float64", "mixed_bfloat16", "mixed_float16")


def dtype_name(dtype: Any) -> str:
    """Name of a dtype given as a string, NumPy, TensorFlow or torch dtype.

    Example:
        >>> import numpy as np
        >>> dtype_name("torch.bfloat16"), dtype_name(np.float16), dtype_name(np.dtype("float32"))
        ('bfloat16', 'float16', 'float32')
    """
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return name.rsplit(".", 1)[-1]


def to_policy(dtype: Any) -> Any:
    """Return the Keras dtype policy for a dtype, its name, or a policy; None stays None.

    Raises:
        ValueError: no model can compute in this dtype.

    Example:
        >>> to_policy("mixed_bfloat16").compute_dtype
        'bfloat16'
    """
    import keras

    if dtype is None or isinstance(dtype, keras.DTypePolicy):
        return dtype
    name = dtype_name(dtype)
    if name not in COMPUTE_DTYPES:
        raise ValueError(
            f"dtype={quote(dtype)} is not for computing; use float32, bfloat16, float16, mixed_bfloat16 or "
            "mixed_float16."
        )
    return keras.DTypePolicy(name)
