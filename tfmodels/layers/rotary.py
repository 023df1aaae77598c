"""Rotary position embeddings and their scalings for longer contexts.

Everything is a function of the call's own positions: nothing is remembered between calls, eager and compiled code
agree.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from tfmodels.configs.rotary import RotaryConfig
from tfmodels.kernels import decoding
from tfmodels.runtime.lowering import PLAIN, Lowering


class RotaryEmbedding:
    """Angles of a configuration's rotary parameters.

    Args:
        config: its `rotary_parameters`, head size and `max_position_embeddings` are used.
        kind: which of them, in families whose layers differ.

    Source:
        Su et al., https://arxiv.org/abs/2104.09864. Scalings: linear and dynamic (NTK-aware), as published by their
        authors on Reddit (kaiokendev, bloc97, emozilla); yarn, Peng et al., https://arxiv.org/abs/2309.00071;
        longrope, Ding et al., https://arxiv.org/abs/2402.13753; llama3, as released with Llama 3.1.

    Example:
        >>> import numpy as np
        >>> from tfmodels.configs.rotary import RotaryConfig
        >>> rotary = RotaryEmbedding(RotaryConfig(head_dim=4))
        >>> cos, sin = rotary(np.array([[0, 1]]))
        >>> np.allclose(cos[0, 0], [[1.0, 1.0], [np.cos(1.0), np.cos(0.01)]])
        True
    """

    def __init__(self, config: RotaryConfig, kind: str = "default"):
        self.parameters = config.rotary_parameters[kind]
        self.dim = config.rotary_dim
        self.max_length = config.max_position_embeddings
        self.scale = 1.0  # multiplies cosine and sine
        rope_type = self.parameters["rope_type"]
        self.exponents = np.arange(0, self.dim, 2, dtype=np.float64) / self.dim
        getattr(self, f"_init_{rope_type}")(1.0 / float(self.parameters["rope_theta"]) ** self.exponents)

    def _init_default(self, plain: np.ndarray) -> None:
        self.frequencies = plain

    _init_dynamic = _init_default

    def _init_linear(self, plain: np.ndarray) -> None:
        self.frequencies = plain / self.parameters["factor"]

    def _init_llama3(self, plain: np.ndarray) -> None:
        p = self.parameters
        length, low, high = p["original_max_position_embeddings"], p["low_freq_factor"], p["high_freq_factor"]
        turns = length * plain / (2 * math.pi)  # full turns within the original context
        blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
        self.frequencies = (1 - blend) * plain / p["factor"] + blend * plain

    def _init_yarn(self, plain: np.ndarray) -> None:
        p = self.parameters
        length = p["original_max_position_embeddings"]
        factor = p["factor"] if p.get("factor") is not None else self.max_length / length
        self.scale = p.get("attention_factor")
        if self.scale is None:
            mscale, all_dim = p.get("mscale"), p.get("mscale_all_dim")
            if mscale and all_dim:
                self.scale = _yarn_scale(factor, mscale) / _yarn_scale(factor, all_dim)
            else:
                self.scale = _yarn_scale(factor, 1.0)

        def dimension(turns: float) -> float:
            return self.dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(p["rope_theta"]))

        first, last = dimension(p.get("beta_fast") or 32), dimension(p.get("beta_slow") or 1)
        if p.get("truncate", True):
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, self.dim - 1)
        if first == last:
            last += 0.001
        interpolate = np.clip((np.arange(len(plain)) - first) / (last - first), 0.0, 1.0)
        self.frequencies = plain / factor * interpolate + plain * (1 - interpolate)

    def _init_longrope(self, plain: np.ndarray) -> None:
        p = self.parameters
        length = p["original_max_position_embeddings"]
        factor = p["factor"] if p.get("factor") is not None else self.max_length / length
        self.scale = p.get("attention_factor")
        if self.scale is None:
            self.scale = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(length))
        self.frequencies = plain / np.asarray(p["short_factor"], np.float64)
        self.long_frequencies = plain / np.asarray(p["long_factor"], np.float64)

    def inverse_frequencies(self, length: Any) -> Any:
        """Angle per position of each rotated pair.

        Args:
            length: highest position of the call plus one, an int or int32 scalar; it matters to "dynamic" (beyond the
                model's maximum the base grows with it) and to "longrope" (beyond the original length the long factors
                hold).

        Returns:
            float32 (rotary_dim / 2,).
        """
        short = ops.convert_to_tensor(self.frequencies, "float32")
        kind = self.parameters["rope_type"]
        if kind == "longrope":
            long = ops.convert_to_tensor(self.long_frequencies, "float32")
            return ops.where(length > self.parameters["original_max_position_embeddings"], long, short)
        if kind == "dynamic":
            factor = self.parameters["factor"]
            reach = ops.maximum(ops.cast(length, "float32"), float(self.max_length)) / self.max_length
            growth = ops.power(factor * reach - (factor - 1), self.dim / (self.dim - 2))
            return short * ops.power(growth, -ops.convert_to_tensor(self.exponents, "float32"))
        return short

    def __call__(self, positions: Any, lowering: Lowering = PLAIN) -> tuple[Any, Any]:
        """Cosine and sine for positions.

        Args:
            positions: int (batch or 1, length).
            lowering: see `Lowering`.

        Returns:
            Two float32 tensors (batch or 1, 1, length, rotary_dim / 2).
        """
        frequencies = self.inverse_frequencies(ops.max(positions, initial=0) + 1)  # rows of no tokens have no longest
        angles = ops.expand_dims(ops.cast(positions, "float32"), 2) * frequencies
        angles = ops.expand_dims(angles, 1)
        cos, sin = ops.cos(angles) * self.scale, ops.sin(angles) * self.scale
        return (decoding.computed_once(cos), decoding.computed_once(sin)) if lowering.target == "cpu" else (cos, sin)


def _yarn_scale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def rotate(x: Any, cos: Any, sin: Any) -> Any:
    """Turn the first `2 * cos.shape[-1]` dimensions of each head; pairs are (i, i + half), the rest stays.

    Args:
        x: (batch, heads, length, head_dim).
        cos, sin: (batch or 1, 1, length, pairs).

    Returns:
        As `x`.
    """
    cos, sin = ops.cast(cos, x.dtype), ops.cast(sin, x.dtype)
    pairs = cos.shape[-1]
    first, second, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return ops.concatenate(turned + ([rest] if rest.shape[-1] else []), axis=-1)
