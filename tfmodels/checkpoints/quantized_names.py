"""Recognise weights that were quantised by another library, to say so instead of reading numbers wrongly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tfmodels.utils.text import quote

# The last parts of names that a method adds to a layer.
_MARKS = {
    "GPTQ or AWQ": ("qweight", "qzeros", "g_idx"),
    "bitsandbytes": ("absmax", "quant_map", "nested_absmax", "nested_quant_map", "SCB", "weight_format"),
    "compressed-tensors": ("weight_packed", "weight_shape", "weight_zero_point", "weight_g_idx"),
    "fp8 or compressed-tensors": ("weight_scale", "weight_scale_inv", "input_scale", "activation_scale"),
    "MLX": ("biases",),
}


# Where a configuration says how weights are quantised.
SETTINGS = ("quantization_config", "quantization", "compression_config")


def settings_of(config: Any) -> dict[str, Any]:
    """Return the part of a configuration on the quantisation of its weights, or an empty dict."""
    found = (getattr(config, name, None) for name in SETTINGS)
    return next((settings for settings in found if settings and isinstance(settings, dict)), {})


def method_of(config: Any) -> str | None:
    """The name of the method in a configuration's `quantization_config` (or MLX's `quantization`), or None."""
    for name in SETTINGS:
        settings = getattr(config, name, None)
        if settings is None or settings == {}:
            continue
        if not isinstance(settings, dict):
            return f"{name}={quote(settings, 60)}"
        method = settings.get("quant_method")
        if method is None and getattr(config, "quantization", None) == settings:  # MLX writes it under both names
            method = "MLX"
        if method is None and (settings.get("load_in_8bit") or settings.get("load_in_4bit")):
            method = "bitsandbytes"
        return method if isinstance(method, str) and len(method) <= 60 else f"{name} without a known quant_method"
    return None


def method_in(names: Iterable[str]) -> str | None:
    """The method that adds tensors of such names, or None."""
    ends = set()
    for name in names:
        parts = name.split(".")
        ends.add(parts[-1])
        if "quant_state" in parts:
            return "bitsandbytes"
    return next((method for method, marks in _MARKS.items() if not ends.isdisjoint(marks)), None)
