"""cuDNN's fused attention inside programs that XLA compiles for an NVIDIA GPU, for TensorFlow and for JAX.

On JAX it is Keras's own (`keras.ops.dot_product_attention`). TensorFlow offers no operation for it, but XLA's GPU
compiler knows cuDNN's kernels as custom calls, and TensorFlow can emit a custom call. The scores are never written to
memory, forward or backward, so that memory grows with the length and not with its square. What can run, and the calls'
configuration, are plain functions of shapes; only `attention` needs a GPU.

Source:
    Dao, https://arxiv.org/abs/2307.08691;
    https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html.
"""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple

import keras
from keras import ops

from tfmodels.kernels.gradients import under_xla
from tfmodels.kernels.over_devices import over_devices
from tfmodels.runtime import device as nvidia
from tfmodels.runtime.xla_flags import warn_where_unsafe

DTYPES = ("float16", "bfloat16")
_ELEMENT_TYPES = {"float16": "F16", "bfloat16": "BF16"}
_MAX_HEAD_DIM = 128
_HEAD_DIM_STEP = 8

# Score of a masked key where a bias is added: far below any other score, and finite in float16.
MASKED = -30000.0


class Kind(NamedTuple):
    """The settings of an attention that are compiled into its kernel.

    Fields:
        scale: factor on the scores.
        causal: no key after the query.
        window: only the last `window` keys up to the query; None for all.
        bias: whether a bias is added to the scores.
        padded: whether some positions are padding.
    """

    scale: float
    causal: bool = False
    window: int | None = None
    bias: bool = False
    padded: bool = False

    @property
    def mask_type(self) -> str:
        """cuDNN's name of the mask."""
        if self.padded:
            return "PADDING_CAUSAL" if self.causal else "PADDING"
        return "CAUSAL" if self.causal else "NO_MASK"


@functools.cache
def unavailable() -> str | None:
    """The reason for which the kernels cannot run in this process, or None."""
    if keras.backend.backend() == "jax":
        return _unavailable_on_jax()
    if keras.backend.backend() != "tensorflow":
        return f"flash attention needs Keras on TensorFlow or JAX, and this is {keras.backend.backend()}"
    reason = nvidia.missing()
    return None if reason is None else f"flash attention needs {reason}"


def _unavailable_on_jax() -> str | None:
    import jax

    if not nvidia.on_gpu():
        return "flash attention needs a GPU, and JAX sees none"
    probe = jax.ShapeDtypeStruct((1, 8, 1, _HEAD_DIM_STEP), "float16")
    try:
        jax.eval_shape(lambda x: ops.dot_product_attention(x, x, x, flash_attention=True), probe)
    except (ImportError, RuntimeError, ValueError, NotImplementedError) as error:
        return f"flash attention cannot run under this JAX: {error}"
    return None


def unsuitable(query: Any, key: Any, dtype: str) -> str | None:
    """The reason for which the kernels cannot take tensors of these shapes, or None.

    Args:
        query: shape (batch, heads, queries, head_dim), None where a size is unknown.
        key: shape (batch, key_value_heads, keys, head_dim), likewise.
        dtype: of both.

    Example:
        >>> unsuitable((2, 4, 9, 64), (2, 4, 9, 64), "bfloat16")
        >>> unsuitable((2, 4, 9, 64), (2, 4, 9, 64), "float32")
        'flash attention computes in float16 or bfloat16, not in float32'
    """
    if dtype not in DTYPES:
        return f"flash attention computes in {' or '.join(DTYPES)}, not in {dtype}"
    sizes = (*query, *key)
    if not all(isinstance(size, int) for size in sizes):
        return (
            "flash attention needs shapes that are known when the program is traced (drop_remainder=True in batches)"
        )
    if query[2] != key[2]:
        return f"flash attention serves as many queries as keys, not {query[2]} and {key[2]}"
    if query[3] > _MAX_HEAD_DIM:
        return f"flash attention serves up to {_MAX_HEAD_DIM} numbers per head, not {query[3]}"
    return None


def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    scale: float,
    causal: bool = False,
    window: int | None = None,
    bias: Any = None,
    keys: Any = None,
) -> Any:
    """Attention by cuDNN, with gradients for all float arguments; in eager, graph and XLA code.

    cuDNN takes rows that have their tokens first. Where `keys` is given they are brought into that order and back; on
    JAX keys and window become a mask of pairs instead, which is all that Keras hands on.

    Args:
        query: float16 or bfloat16 (batch, heads, length, head_dim).
        key, value: likewise (batch, key_value_heads, length, head_dim); heads is a multiple of key_value_heads.
        scale: factor on the scores.
        causal: no key after the query.
        window: only the last `window` keys up to the query, itself included; with `causal` only.
        bias: (batch or 1, heads, length, length), added to the scaled scores; in the dtype of `query`.
        keys: bool (batch, length), False at padding, which may be anywhere; not with a window, which counts padding,
            nor with a bias, which can mask by itself (`MASKED`).

    Returns:
        (batch, heads, length, head_dim) in the dtype of `query`; zeros where `keys` is False.

    Raises:
        ValueError: shapes or settings that cuDNN does not serve.
        RuntimeError: it cannot run in this process.
    """
    problem = unsuitable(query.shape, key.shape, keras.backend.standardize_dtype(query.dtype))
    if problem is None and window is not None and not causal:
        problem = "a window needs causal=True"
    if problem is None and keys is not None and (window is not None or bias is not None):
        problem = "keys cannot be combined with a window or a bias"
    if problem is not None:
        raise ValueError(problem)
    if unavailable() is not None:
        raise RuntimeError(unavailable())
    if keras.backend.backend() == "jax":
        return _by_keras(query, key, value, scale=scale, causal=causal, window=window, bias=bias, keys=keys)
    import tensorflow as tf

    kind = Kind(float(scale), causal, window, bias is not None, keys is not None)
    head_dim = query.shape[3]
    room = -head_dim % _HEAD_DIM_STEP
    # cuDNN reads (batch, length, heads, head_dim).
    operands = [tf.transpose(x, (0, 2, 1, 3)) for x in (query, key, value)]
    if room:
        operands = [tf.pad(x, ((0, 0), (0, 0), (0, 0), (0, room))) for x in operands]
    operands += [] if bias is None else [tf.cast(bias, query.dtype)]
    output = tf.transpose(_function(kind)(*operands, *([] if keys is None else [keys])), (0, 2, 1, 3))
    return output[..., :head_dim] if room else output


def _by_keras(
    query: Any, key: Any, value: Any, *, scale: float, causal: bool, window: int | None, bias: Any, keys: Any
) -> Any:
    """`attention` by `keras.ops.dot_product_attention`, which takes (batch, length, heads, head_dim)."""
    batch, _, length, head_dim = query.shape
    mask = None
    if window is not None:
        own, other = ops.arange(length)[:, None], ops.arange(length)[None]
        mask = ops.expand_dims(ops.logical_and(other <= own, other > own - window), (0, 1))
    elif keys is not None:
        keys = ops.cast(keys, "bool")
        mask = ops.broadcast_to(keys[:, None, None, :], (batch, 1, length, length))
    room = ((0, 0), (0, 0), (0, 0), (0, -head_dim % _HEAD_DIM_STEP))
    query, key, value = (ops.pad(ops.transpose(x, (0, 2, 1, 3)), room) for x in (query, key, value))
    compute = functools.partial(ops.dot_product_attention, scale=scale, is_causal=causal, flash_attention=True)
    # JAX partitions the kernel's operands and rejects some layouts of all but the plain case.
    is_plain = bias is None and mask is None and query.shape[2] == key.shape[2]
    if keras.distribution.distribution() is None or is_plain:
        output = compute(query, key, value, bias=bias, mask=mask)
    else:
        output = over_devices(compute, query, key, value, bias=bias, mask=mask)
    output = ops.transpose(output[..., :head_dim], (0, 2, 1, 3))
    return output if keys is None else ops.where(keys[:, None, :, None], output, ops.zeros((), output.dtype))


@functools.cache
def _function(kind: Kind) -> Any:
    """The differentiable function of tensors (batch, length, heads, head_dim)."""
    warn_where_unsafe()
    return under_xla(functools.partial(_forward, kind), functools.partial(_backward, kind))


def _forward(kind: Kind, *operands: Any) -> tuple[Any, Any]:
    """Output (batch, length, heads, head_dim), and the softmax's statistics that the gradients need."""
    import tensorflow as tf

    rows = _Rows(operands[-1]) if kind.padded else None
    query, key, value = (rows.pack(x) if rows else x for x in operands[:3])
    bias = operands[3:4] if kind.bias else ()
    batch, length, heads, head_dim = query.shape
    output, statistics = _call(
        kind,
        [query, key, value, *bias, *(rows.lengths if rows else ())],
        [
            tf.TensorSpec((batch, heads, length, head_dim), query.dtype),
            tf.TensorSpec((batch, heads, length), tf.float32),
        ],
        backward=False,
    )
    output = tf.transpose(output, (0, 2, 1, 3))
    return rows.unpack(output) if rows else output, statistics


def _backward(kind: Kind, *operands: Any) -> list[Any]:
    """Gradients of query, key, value and bias, and none of keys."""
    import tensorflow as tf

    *operands, output, statistics, upstream = operands
    rows = _Rows(operands[-1]) if kind.padded else None
    query, key, value, output, upstream = (rows.pack(x) if rows else x for x in (*operands[:3], output, upstream))
    bias = operands[3:4] if kind.bias else ()
    flows = _call(
        kind,
        [query, key, value, statistics, upstream, *bias, output, *(rows.lengths if rows else ())],
        # Of query, key and value (batch, heads, length, head_dim).
        [
            *(tf.TensorSpec([x.shape[axis] for axis in (0, 2, 1, 3)], x.dtype) for x in (query, key, value)),
            *(tf.TensorSpec(term.shape, term.dtype) for term in bias),
        ],
        backward=True,
    )
    turned = [tf.transpose(flow, (0, 2, 1, 3)) for flow in flows[:3]]
    return [*(rows.unpack(flow) if rows else flow for flow in turned), *flows[3:], *[None] * kind.padded]


def _call(kind: Kind, operands: list[Any], results: list[Any], *, backward: bool) -> list[Any]:
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    query, key = operands[:2]
    workspace = tf.TensorSpec((0,), tf.uint8)  # XLA finds room for it
    *tensors, _ = xla.custom_call_v2(
        call_target(kind, backward=backward),
        operands,
        [*results, workspace],
        backend_config=backend_config(kind, query.shape, key.shape, query.dtype.name, backward=backward),
    )
    for tensor, result in zip(tensors, results, strict=True):
        tensor.set_shape(result.shape)
    return tensors


class _Rows:
    """Rows whose tokens are brought to their beginning, in order, and back."""

    def __init__(self, keys: Any):
        import tensorflow as tf

        self.order = tf.argsort(tf.cast(tf.logical_not(keys), tf.int32), axis=1, stable=True)
        self.places = tf.argsort(self.order, axis=1)
        self.keys = keys
        # The same number for queries and keys; a row of padding alone keeps one, as none is no attention.
        count = tf.maximum(tf.reduce_sum(tf.cast(keys, tf.int32), axis=1), 1)
        self.lengths = (count, count)

    def pack(self, x: Any) -> Any:
        import tensorflow as tf

        return tf.gather(x, self.order, axis=1, batch_dims=1)

    def unpack(self, x: Any) -> Any:
        import tensorflow as tf

        # cuDNN leaves arbitrary values at padding.
        x = tf.gather(x, self.places, axis=1, batch_dims=1)
        return tf.where(self.keys[:, :, tf.newaxis, tf.newaxis], x, tf.zeros((), x.dtype))


# Configuration ---------------------------------------------------------------------------------------------------


def call_target(kind: Kind, *, backward: bool) -> str:
    """The name under which XLA knows the call.

    Example:
        >>> call_target(Kind(1.0, bias=True), backward=True)
        '__cudnn$fmhaScaleBiasSoftmaxBackward'
    """
    return "__cudnn$fmha" + ("ScaleBias" if kind.bias else "") + "Softmax" + ("Backward" if backward else "")


# The products of attention, over query and key (batch, length, heads, head_dim) and scores (batch, heads, queries,
# keys): name -> contracted axis of the left and of the right operand, and which of them are scores.
_PRODUCTS = {
    False: {"bmm1": (3, 3, False), "bmm2": (3, 1, True)},
    True: {
        "bmm1_grad_gemm1": (2, 1, True),
        "bmm1_grad_gemm2": (3, 1, True),
        "bmm2_grad_gemm1": (2, 1, True),
        "bmm2_grad_gemm2": (3, 3, False),
    },
}


def backend_config(kind: Kind, query: Any, key: Any, dtype: str, *, backward: bool) -> str:
    """The call's configuration as XLA reads it, JSON.

    Args:
        query, key: shapes (batch, length, heads, head_dim).
        dtype: "float16" or "bfloat16".

    Example:
        >>> import json
        >>> text = backend_config(Kind(0.5, causal=True), (1, 9, 4, 8), (1, 9, 2, 8), "bfloat16", backward=False)
        >>> json.loads(text)["cudnn_fmha_backend_config"]["mask_type"]
        'CAUSAL'
    """
    batch, length, heads, _ = query
    config = {
        "algorithm": {
            "algo_id": "0",
            "math_type": "TENSOR_OP_MATH",
            "tuning_knobs": {"17": "1", "24": "0"},
            "is_cudnn_frontend": True,
            "workspace_size": "0",
        },
        "fmha_scale": kind.scale,
        "dropout_rate": 0.0,
        "intermediate_tensor_shape": {
            "element_type": _ELEMENT_TYPES[dtype],
            "dimensions": [str(size) for size in (batch, heads, length, key[1])],
            "tuple_shapes": [],
            "layout": {
                "dim_level_types": [],
                "dim_unique": [],
                "dim_ordered": [],
                "minor_to_major": ["3", "2", "1", "0"],
                "tiles": [],
                "element_size_in_bits": "0",
                "memory_space": "0",
                "index_primitive_type": "PRIMITIVE_TYPE_INVALID",
                "pointer_primitive_type": "PRIMITIVE_TYPE_INVALID",
                "dynamic_shape_metadata_prefix_bytes": "0",
            },
            "is_dynamic_dimension": [False] * 4,
        },
        "seed": 42,
        "is_flash_attention": True,
        "mask_type": kind.mask_type,
        "sliding_window_length": kind.window or 0,
        "max_seg_per_batch": 1,
        "is_paged_attention": False,
    }
    for name, (left, right, scores) in _PRODUCTS[backward].items():
        config[f"{name}_dot_dimension_numbers"] = {
            "lhs_contracting_dimensions": [str(left)],
            "rhs_contracting_dimensions": [str(right)],
            "lhs_batch_dimensions": ["0", "1"] if scores else ["0", "2"],
            "rhs_batch_dimensions": ["0", "2"],
        }
    return json.dumps({"operation_queue_id": "0", "cudnn_fmha_backend_config": config})
