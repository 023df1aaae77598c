"""Activation functions under the names that configurations use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tfmodels.kernels.gradients import with_gradient
from tfmodels.utils.text import quote


def gelu_tanh(x: Any) -> Any:
    """GELU by its tanh approximation (Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415)."""
    return keras.activations.gelu(x, approximate=True)


def gelu(x: Any) -> Any:
    """GELU by the exact normal distribution function.

    It is computed by erf: Keras takes erfc on TensorFlow, for which ONNX has no operation.
    """
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def silu(x: Any) -> Any:
    """x * sigmoid(x) (Elfwing et al., https://arxiv.org/abs/1702.03118); its gradient keeps x alone."""

    def compute(x: Any) -> tuple[Any, Callable[..., Any]]:
        def gradient(upstream: Any) -> tuple[Any]:
            share = ops.sigmoid(x)
            return (upstream * (share * (1.0 + x * (1.0 - share))),)

        return x * ops.sigmoid(x), gradient

    return with_gradient(compute, ops.convert_to_tensor(x))


def gelu_10(x: Any) -> Any:
    """GELU clipped to [-10, 10]."""
    return ops.clip(gelu(x), -10.0, 10.0)


def laplace(x: Any) -> Any:
    """Normal-like distribution function of MEGA (Ma et al., https://arxiv.org/abs/2209.10655)."""
    return 0.5 * (1.0 + ops.erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


def quick_gelu(x: Any) -> Any:
    """GELU by a scaled sigmoid."""
    return x * ops.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": gelu,
    "gelu_10": gelu_10,
    "gelu_accurate": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_python": gelu,
    "gelu_python_tanh": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "hardswish": ops.hard_silu,
    "laplace": laplace,
    "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.01),
    "linear": lambda x: x,
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "quick_gelu": quick_gelu,
    "relu": ops.relu,
    "relu2": lambda x: ops.square(ops.relu(x)),
    "relu6": ops.relu6,
    "sigmoid": ops.sigmoid,
    "silu": silu,
    "sqrtsoftplus": lambda x: ops.sqrt(ops.softplus(x)),
    "swish": silu,
    "tanh": ops.tanh,
    # Keras has these beside the names of transformers.
    "celu": ops.celu,
    "elu": ops.elu,
    "hard_sigmoid": ops.hard_sigmoid,
    "hard_tanh": ops.hard_tanh,
    "log_sigmoid": ops.log_sigmoid,
    "selu": ops.selu,
    "softplus": ops.softplus,
    "softsign": ops.softsign,
}


def get_activation(name: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The activation function of a configuration's `hidden_act`.

    Args:
        name: such as "silu", "gelu" or "gelu_new"; or the function itself, of a tensor, which no file can hold.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.

    Example:
        >>> float(get_activation("relu")(-1.0))
        0.0
    """
    if callable(name):
        return name
    if isinstance(name, str) and name in _ACTIVATIONS:
        return _ACTIVATIONS[name]
    raise ValueError(f"hidden_act={quote(name)} is unknown; it is one of {', '.join(sorted(_ACTIVATIONS))}.")


def kernel_name(activation: Callable[[Any], Any]) -> str | None:
    """The name of an activation function in `tfmodels.kernels.triton_decoding`, or None where it has none.

    Example:
        >>> kernel_name(get_activation("gelu_new")), kernel_name(get_activation("mish"))
        ('gelu_tanh', None)
    """
    return _IN_KERNELS.get(activation)


_IN_KERNELS = {silu: "silu", gelu: "gelu", gelu_tanh: "gelu_tanh", ops.relu: "relu"}
