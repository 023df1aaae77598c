"""Feed-forward blocks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfmodels.layers import few_rows
from tfmodels.layers.activations import get_activation, kernel_name
from tfmodels.layers.linear import build_all, linear, project
from tfmodels.layers.residual import dropped, in_parts
from tfmodels.runtime.lowering import PLAIN, Lowering


class GatedFeedForward(keras.layers.Layer):
    """down(act(gate(x)) * up(x)) (Shazeer, https://arxiv.org/abs/2002.05202).

    Args:
        hidden_size: width of input and output.
        intermediate_size: width in between.
        activation: name of the gate's activation.
        use_bias: whether the three projections have biases.
        std: standard deviation of the initial weights.
    """

    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: str, use_bias: bool, std: float, **kwargs: Any
    ):
        super().__init__(**kwargs)
        options = {"std": std, "use_bias": use_bias, "dtype": self.dtype_policy}
        self.gate_proj = linear(intermediate_size, name="gate_proj", **options)
        self.up_proj = linear(intermediate_size, name="up_proj", **options)
        self.down_proj = linear(hidden_size, name="down_proj", **options)
        self.activation = get_activation(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        build_all(input_shape[-1], self.gate_proj, self.up_proj)
        build_all(self.gate_proj.units, self.down_proj)

    def call(self, inputs: Any, training: bool | None = None, lowering: Lowering = PLAIN) -> Any:
        layers = self.gate_proj, self.up_proj
        inner = few_rows.activated(inputs, layers, kernel_name(self.activation), lowering)
        if inner is not None:
            return in_parts(self.down_proj, inner, lowering)
        gate, up = project(inputs, *layers, lowering=lowering)
        if training:
            return self.down_proj.after(self._gated, gate, up, training=training, lowering=lowering)
        return in_parts(self.down_proj, self._gated(gate, up), lowering)

    def _gated(self, gate: Any, up: Any) -> Any:
        return self.activation(gate) * up


class FusedGatedFeedForward(keras.layers.Layer):
    """down(act(gate(x)) * up(x)) with gate and up in one projection, the gate first, as ModernBERT has it.

    Args:
        hidden_size: width of input and output.
        intermediate_size: width in between.
        activation: name of the gate's activation.
        use_bias: whether the two projections have biases.
        stds: standard deviations of the initial weights of the two projections.
        names: what checkpoints call the two projections; they become this layer's attributes.
        dropout: share of the elements in between that training drops.

    Example:
        >>> import numpy as np
        >>> block = FusedGatedFeedForward(2, 3, "gelu", use_bias=False, stds=(0.02, 0.01), names=("Wi", "Wo"))
        >>> block(np.ones((1, 4, 2), "float32")).shape, block.Wi.kernel.shape
        (TensorShape([1, 4, 2]), TensorShape([2, 6]))
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        use_bias: bool,
        stds: tuple[float, float],
        *,
        names: tuple[str, str],
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.names = names
        for name, units, std in zip(names, (2 * intermediate_size, hidden_size), stds, strict=True):
            setattr(self, name, linear(units, std=std, use_bias=use_bias, dtype=self.dtype_policy, name=name))
        self.activation = get_activation(activation)
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        fused, down = (getattr(self, name) for name in self.names)
        build_all(input_shape[-1], fused)
        build_all(fused.units // 2, down)

    def call(self, inputs: Any, training: bool | None = None, lowering: Lowering = PLAIN) -> Any:
        fused, down = (getattr(self, name) for name in self.names)
        gate, up = ops.split(fused(inputs, lowering=lowering), 2, axis=-1)
        if training and self.dropout.rate > 0:
            return down(self.dropout(self._gated(gate, up), training=training), lowering=lowering)
        return down.after(self._gated, gate, up, training=training, lowering=lowering)

    def _gated(self, gate: Any, up: Any) -> Any:
        return self.activation(gate) * up


class FeedForward(keras.layers.Layer):
    """down(act(up(x))), then dropout (Vaswani et al., https://arxiv.org/abs/1706.03762, section 3.3).

    Args:
        hidden_size: width of input and output.
        intermediate_size: width in between.
        activation: name of the activation.
        use_bias: whether the two projections have biases.
        std: standard deviation of the initial weights.
        names: what checkpoints call the two projections; they become this layer's attributes.
        dropout: share of the output's elements that training drops.
        transposed_in_files: whether checkpoints hold the projections' weights as (out, in).

    Example:
        >>> import numpy as np
        >>> block = FeedForward(2, 3, "relu", use_bias=True, std=0.02, names=("c_fc", "c_proj"))
        >>> block(np.ones((1, 4, 2), "float32")).shape, block.c_proj.kernel.shape
        (TensorShape([1, 4, 2]), TensorShape([3, 2]))
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        use_bias: bool,
        std: float,
        *,
        names: tuple[str, str] = ("up_proj", "down_proj"),
        dropout: float = 0.0,
        transposed_in_files: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.names = names
        options = {"std": std, "use_bias": use_bias, "transposed_in_files": transposed_in_files}
        for name, units in zip(names, (intermediate_size, hidden_size), strict=True):
            setattr(self, name, linear(units, dtype=self.dtype_policy, name=name, **options))
        self.activation = get_activation(activation)
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        up, down = (getattr(self, name) for name in self.names)
        build_all(input_shape[-1], up)
        build_all(up.units, down)

    def call(self, inputs: Any, training: bool | None = None, lowering: Lowering = PLAIN) -> Any:
        up, down = (getattr(self, name) for name in self.names)
        inner = few_rows.activated(inputs, [up], kernel_name(self.activation), lowering)
        if inner is None and training:
            outputs = down.after(self.activation, up(inputs, lowering=lowering), training=training, lowering=lowering)
            return self.dropout(outputs, training=training)
        if inner is None:
            inner = self.activation(up(inputs, lowering=lowering))
        return dropped(self.dropout, in_parts(down, inner, lowering), training)
