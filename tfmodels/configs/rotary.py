"""`RotaryConfig`: rotary position parameters, which transformers 4 and 5 spell differently, normalised once."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from tfmodels.configs.base import ModelConfig
from tfmodels.utils.plain import plain
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

# Far beyond the share that makes sense, 1, which families judge by the sizes of their heads.
MAX_SHARE = 1000
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")

# The keys that each scaling needs, beside `rope_type`, `rope_theta` and the partial factor.
_REQUIRED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
# The length seen in pretraining belongs to these types; where it is not given it is the model's own maximum.
_WITH_ORIGINAL_LENGTH = ("yarn", "longrope", "llama3")
_POSITIVE = (
    *("factor", "rope_theta", "original_max_position_embeddings", "partial_rotary_factor", "low_freq_factor"),
    *("high_freq_factor", "attention_factor", "beta_fast", "beta_slow"),
)


class RotaryConfig(ModelConfig):
    """A configuration with rotary position embeddings.

    `rope_parameters` is the one place where they live: `{"rope_type", "rope_theta", ...}` as transformers 5 writes it.
    The 4.x spelling (`rope_theta` beside `rope_scaling`, with `type` or `rope_type`) is read too and both are written,
    so that either version loads what is saved here.

    Example:
        >>> from tfmodels.configs.rotary import RotaryConfig
        >>> old = RotaryConfig(rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
        >>> new = RotaryConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
        >>> old.rope_parameters == new.rope_parameters
        True
    """

    default_theta: ClassVar[float] = 10000.0
    # Names under which 4.x stores the base, and the rotated share of a head, beside the dict.
    theta_names: ClassVar[tuple[str, ...]] = ("rope_theta",)
    partial_names: ClassVar[tuple[str, ...]] = ("partial_rotary_factor",)
    default_partial: ClassVar[float | None] = None
    other_names: ClassVar[tuple[str, ...]] = ("rope_scaling", "rope_theta", "partial_rotary_factor")

    max_position_embeddings: int = 2048
    rope_parameters: dict[str, Any] | None = None

    @classmethod
    def normalize(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = super().normalize(values)
        # An old `rope_scaling` that is null says nothing; a dict is complete but for the base and the partial factor.
        parameters = _as_dict("rope_scaling", values.pop("rope_scaling", None))
        parameters = parameters or _as_dict("rope_parameters", values.get("rope_parameters"))
        if "type" in parameters:
            old = parameters.pop("type")
            parameters.setdefault("rope_type", old)
        for names, key in ((cls.theta_names, "rope_theta"), (cls.partial_names, "partial_rotary_factor")):
            for name in names:
                value = values.pop(name, None)
                if value is None:
                    continue
                counts = parameters.setdefault(key, _as_number(value))
                if counts != _as_number(value):
                    warn(
                        f"{name}={quote(value)} changes nothing beside rope_parameters[{quote(key)}]={quote(counts)}."
                    )
        values["rope_parameters"] = parameters
        return values

    @classmethod
    def merge(cls, values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        merged = super().merge(values, overrides)
        stored, given = cls.normalize(values)["rope_parameters"], cls.normalize(overrides)["rope_parameters"]
        if "rope_scaling" in overrides or "rope_parameters" in overrides:
            stored = {key: stored[key] for key in ("rope_theta", "partial_rotary_factor") if key in stored}
        merged["rope_parameters"] = {**stored, **given}
        return merged

    def finish(self) -> None:
        super().finish()
        parameters = self.rope_parameters
        parameters.setdefault("rope_type", "default")
        parameters.setdefault("rope_theta", self.default_theta)
        if self.default_partial is not None:
            parameters.setdefault("partial_rotary_factor", self.default_partial)
        if parameters["rope_type"] in _WITH_ORIGINAL_LENGTH:
            # A top-level value (as Phi-3 writes it) wins over the one in the dict.
            outer = self._extra.get("original_max_position_embeddings")
            if outer is not None:
                parameters["original_max_position_embeddings"] = outer
            parameters.setdefault("original_max_position_embeddings", self.max_position_embeddings)

    def validate(self) -> None:
        super().validate()
        if getattr(self, "head_dim", None) is not None:
            self.check_positive("head_dim")
        parameters = self.rope_parameters
        rope_type = parameters["rope_type"]
        if rope_type not in ROPE_TYPES:
            raise ValueError(f"rope_type={quote(rope_type)} is unknown; it is one of {', '.join(ROPE_TYPES)}.")
        missing = [key for key in _REQUIRED[rope_type] if parameters.get(key) is None]
        if rope_type == "yarn" and "factor" in parameters:
            missing = []  # an explicit null means: the ratio of the two lengths
        if missing:
            raise ValueError(
                f"rope_type={quote(rope_type)} needs {', '.join(missing)} in rope_parameters={quote(parameters)}."
            )
        for key in _POSITIVE:
            value = parameters.get(key)
            if value is not None and not (_is_number(value) and value > 0):
                raise ValueError(f"rope_parameters[{quote(key)}]={quote(value)}; a positive number was expected.")
        share = parameters.get("partial_rotary_factor")
        if share is not None and share > MAX_SHARE:
            raise ValueError(
                f"rope_parameters['partial_rotary_factor']={quote(share)}; the share of a head that is turned, up to "
                f"1, was expected."
            )
        for key in ("mscale", "mscale_all_dim"):
            if parameters.get(key) is not None and not _is_number(parameters[key]):
                raise ValueError(f"rope_parameters[{quote(key)}]={quote(parameters[key])}; a number was expected.")
        if rope_type == "llama3" and not parameters["high_freq_factor"] > parameters["low_freq_factor"]:
            raise ValueError(
                f"rope_parameters: high_freq_factor={quote(parameters['high_freq_factor'])} must be greater than "
                f"low_freq_factor={quote(parameters['low_freq_factor'])}."
            )
        if rope_type == "longrope":
            pairs = (self.rotary_dim + 1) // 2
            for key in ("short_factor", "long_factor"):
                values = parameters[key]
                if not isinstance(values, list) or not all(_is_number(value) and value > 0 for value in values):
                    raise ValueError(
                        f"rope_parameters[{quote(key)}]={quote(values)}; a list of positive numbers was expected."
                    )
                if len(values) != pairs:
                    raise ValueError(
                        f"rope_parameters[{quote(key)}] has {len(values)} values; half the rotated size of a "
                        f"head, {pairs}, was expected."
                    )

    @property
    def rotary_parameters(self) -> dict[str, dict[str, Any]]:
        """The rotary parameters by their kind: one for all layers, unless a family's layers differ."""
        return {"default": self.rope_parameters}

    @property
    def rotary_dim(self) -> int:
        """Size of the rotated part of a head. An odd one is turned as if it had one more dimension."""
        head_dim = getattr(self, "head_dim", None) or self.hidden_size // self.num_attention_heads
        return int(head_dim * (self.rope_parameters.get("partial_rotary_factor") or 1.0))

    @property
    def rope_theta(self) -> float:
        """Base of the rotary frequencies."""
        return self.rope_parameters["rope_theta"]

    @rope_theta.setter
    def rope_theta(self, value: float) -> None:
        self.rope_parameters["rope_theta"] = value

    @property
    def partial_rotary_factor(self) -> float | None:
        """Share of each head that is rotated; None for all of it."""
        return self.rope_parameters.get("partial_rotary_factor")

    @partial_rotary_factor.setter
    def partial_rotary_factor(self, value: float) -> None:
        self.rope_parameters["partial_rotary_factor"] = value

    @property
    def rope_scaling(self) -> dict[str, Any] | None:
        """The scaling as transformers 4 stores it: None for plain rotary embeddings."""
        outside = ("rope_theta", "partial_rotary_factor")
        inner = {key: value for key, value in self.rope_parameters.items() if key not in outside}
        return None if inner["rope_type"] == "default" else inner

    @rope_scaling.setter
    def rope_scaling(self, value: dict[str, Any] | None) -> None:
        self.rope_parameters = self.merge(self.to_dict(), {"rope_scaling": value})["rope_parameters"]
        RotaryConfig.finish(self)

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        values[self.theta_names[0]] = self.rope_theta
        values["rope_scaling"] = copy.deepcopy(self.rope_scaling)
        if self.rope_parameters.get("partial_rotary_factor") is not None:
            values[self.partial_names[0]] = self.rope_parameters["partial_rotary_factor"]
        return values


def _as_dict(name: str, value: Any) -> dict[str, Any]:
    """A copy of rotary parameters with plain numbers."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{name}={quote(value)}; a dict was expected, such as {{'rope_type': 'linear', 'factor': 2.0}}."
        )
    numbers = (*_POSITIVE, "mscale", "mscale_all_dim")
    return {key: _as_number(one) if key in numbers else plain(one) for key, one in value.items()}


def _as_number(value: Any) -> Any:
    """Turn text that spells a number into the number; leave anything else for `validate` to judge."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return plain(value)


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    largest = sys.float_info.max  # compared as it is: a long integer becomes no float
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest
