"""Dense and embedding layers with a family's initialisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import backend, ops

from tfmodels.kernels import decoding
from tfmodels.kernels.gradients import with_gradient, with_whole_gradient
from tfmodels.kernels.recompute import product_of
from tfmodels.layers import few_rows
from tfmodels.layers.quantized import PackedWeights, Scheme, products_together, put_packed
from tfmodels.layers.tracking import unlocked
from tfmodels.runtime.device import has_gpu
from tfmodels.runtime.lowering import PLAIN, Lowering

_LOWEST = -3.4028235e38  # of float32


def kept_apart(x: Any) -> Any:
    """The same numbers, behind a step that changes nothing.

    Without it LiteRT's converter multiplies factors before and behind a matrix, such as a norm's, into the matrix.
    """
    return ops.maximum(x, _LOWEST)


class HasPacked(keras.layers.Layer):
    """A layer whose float variable may give way to packed weights."""

    _packed: PackedWeights | None = None
    # The attribute of Keras's layer that holds the float variable.
    whole_name: str = ""

    @property
    def packed(self) -> PackedWeights | None:
        """The packed weights in the place of the kernel or table, or None."""
        return self._packed

    def pack(self, scheme: Scheme, values: Mapping[str, Any] | None = None) -> PackedWeights:
        """Replace the float variable by packed weights; arguments as in `tfmodels.layers.quantized.put_packed`.

        Raises:
            ValueError: the weights are quantised already, or the scheme permutes or divides the inputs of a table.
        """
        if self._packed is not None or self.quantization_mode is not None:
            raise ValueError(f"{self.name} is quantised already.")
        packed = put_packed(self, getattr(self, self.whole_name), scheme, values)
        setattr(self, self.whole_name, None)
        return packed

    def _no_float(self, name: str) -> AttributeError:
        return AttributeError(
            f"{self.name} has no {name}: its weights are packed ({self._packed.scheme}); packed.dequantized() gives "
            f"their values."
        )

    def quantize(self, *arguments: Any, **options: Any) -> Any:
        if self._packed is not None:
            raise ValueError(f"{self.name} is quantised already.")
        # Keras refuses subclasses, whose `call` it could not replace; these add nothing that quantization changes.
        return super().quantize(*arguments, **{**options, "type_check": False})

    def save_own_variables(self, store: Any) -> None:
        if self._packed is None:
            super().save_own_variables(store)
        elif getattr(self, "bias", None) is not None:  # the packed weights are a layer of their own
            store["0"] = self.bias

    def load_own_variables(self, store: Any) -> None:
        if self._packed is None:
            super().load_own_variables(store)
        elif getattr(self, "bias", None) is not None:
            self.bias.assign(store["0"])


class Linear(HasPacked, keras.layers.Dense):
    """A dense layer that multiplies in the form its caller's `Lowering` asks for, with slots for what changes it.

    Attributes:
        adapter: a layer whose output is added unless its `merged` is true, or None; see `set_adapter`.
        packed: quantised weights in the place of the kernel, or None; see `pack`.
        observer: called with the inputs of every call, or None: for calibration, in eager calls.
        transposed_in_files: whether checkpoints hold the kernel as (out, in).
    """

    adapter: Any = None
    observer: Callable[[Any], None] | None = None
    transposed_in_files: bool = True
    whole_name = "_kernel"

    @property
    def kernel(self) -> Any:
        if self._packed is not None:
            raise self._no_float("kernel")
        return super().kernel

    @property
    def width(self) -> int:
        """The size of the inputs' last axis."""
        return self._packed.width if self._packed is not None else self.kernel.shape[0]

    def call(self, inputs: Any, training: bool | None = None, lowering: Lowering = PLAIN) -> Any:
        if self.observer is not None:
            self.observer(inputs)
        if type(self) is Linear and (matrices := few_rows.matrices_of(inputs, [self], lowering)) is not None:
            outputs = few_rows.products(inputs, [self], matrices)[0]
        elif self._packed is not None:
            return self._completed(inputs, self._packed.product(inputs, lowering))
        elif decoding.serves_dense(inputs, self.kernel, lowering.xla_target):
            outputs = decoding.dense(inputs, self.kernel, self.bias, target=lowering.xla_target)
        elif lowering.keeps_matrices:
            outputs = kept_apart(super().call(kept_apart(inputs), training=training))
        else:
            outputs = super().call(inputs, training=training)
            if training and self.bias is not None and has_gpu():
                outputs = with_whole_gradient(outputs)
        return self._adapted(inputs, outputs)

    def after(self, function: Callable[..., Any], *tensors: Any, training: bool | None, lowering: Lowering) -> Any:
        """The layer's outputs for `function(*tensors)`, which training on a GPU computes again instead of keeping it.

        Args:
            function: elementwise, differentiable.
            *tensors: float (batch, length, width), of one dtype.
            training, lowering: as for `call`.
        """
        recomputes = training and has_gpu() and self._is_product_of_a_program(tensors)
        matrix = few_rows.kernel_of(self) if recomputes else None
        if matrix is None:
            return self(function(*tensors), training=training, lowering=lowering)
        outputs = product_of(function, *tensors, matrix=matrix)
        if self.bias is None:
            return outputs
        return with_whole_gradient(outputs + ops.cast(self.bias, outputs.dtype))

    def _is_product_of_a_program(self, tensors: Sequence[Any]) -> bool:
        """Whether nothing but the product reads the layer's inputs, in a program: eager tapes keep what they see."""
        import tensorflow as tf

        others = (self.adapter, self.packed, self.observer, self.quantization_mode)
        casts = any(backend.standardize_dtype(x.dtype) != self.compute_dtype for x in tensors)
        return type(self) is Linear and others == (None,) * 4 and not casts and not tf.executing_eagerly()

    def quantized_call(self, inputs: Any, training: bool | None = None, lowering: Lowering = PLAIN) -> Any:
        if _is_whole(self) and decoding.serves_products(inputs, self.kernel, target=lowering.xla_target):
            outputs = _read_once(inputs, [self])[0]
        else:
            outputs = super().quantized_call(inputs, training=training)
        return self._adapted(inputs, outputs)

    def set_adapter(self, adapter: keras.layers.Layer) -> None:
        """Put a built layer beside the kernel; `tfmodels.layers.lora` says what it computes."""
        with unlocked(self):
            self.adapter = adapter

    def _completed(self, inputs: Any, products: Any) -> Any:
        """The layer's outputs, from the products with its packed weights."""
        outputs = products if self.bias is None else products + ops.cast(self.bias, products.dtype)
        return self._adapted(inputs, outputs)

    def _adapted(self, inputs: Any, outputs: Any) -> Any:
        if self.adapter is None or self.adapter.merged:
            return outputs
        return outputs + ops.cast(self.adapter(inputs), outputs.dtype)


def project(inputs: Any, *layers: Linear, lowering: Lowering = PLAIN) -> list[Any]:
    """Apply several layers to the same inputs, by one kernel or loop where there is one for it.

    Args:
        inputs: (batch, length, width).
        layers: built.
        lowering: see `Lowering`.

    Returns:
        (batch, length, units) for each.

    Example:
        >>> import numpy as np
        >>> layers = [linear(units, std=1.0, use_bias=True, dtype="float32", name="layer") for units in (2, 3)]
        >>> build_all(5, *layers)
        >>> [output.shape for output in project(np.ones((1, 4, 5), "float32"), *layers)]
        [TensorShape([1, 4, 2]), TensorShape([1, 4, 3])]
    """
    matrices = few_rows.matrices_of(inputs, layers, lowering)
    if matrices is not None and all(type(layer) is Linear for layer in layers):
        return few_rows.products(inputs, layers, matrices)
    if all(type(layer) is Linear and layer.observer is None for layer in layers):
        products = products_together(inputs, [layer.packed for layer in layers], lowering)
        if products is not None:
            return [layer._completed(inputs, each) for layer, each in zip(layers, products, strict=True)]
    kinds = [(layer.compute_dtype, layer.quantization_mode, _quantizer(layer)) for layer in layers]
    quantized = all(
        type(layer) is Linear and layer.adapter is None and layer.quantization_mode == "int8" and _is_whole(layer)
        for layer in layers
    )
    alike = quantized and kinds.count(kinds[0]) == len(kinds)
    if alike and decoding.serves_products(inputs, *(layer.kernel for layer in layers), target=lowering.xla_target):
        return _read_once(inputs, layers)
    return [layer(inputs, lowering=lowering) for layer in layers]


def _is_whole(layer: keras.layers.Layer) -> bool:
    """Whether the kernel or table, and where it is quantised its scale, is all that a layer multiplies with."""
    if getattr(layer, "packed", None) is not None or getattr(layer, "observer", None) is not None:
        return False
    return layer.quantization_mode is None or (layer.quantization_mode == "int8" and not layer.lora_enabled)


def is_one_product(layer: keras.layers.Layer) -> bool:
    """Whether a layer that gives logits multiplies with one float matrix and adds nothing."""
    adds = (getattr(layer, name, None) is not None for name in ("bias", "adapter", "packed", "observer"))
    return isinstance(layer, (Linear, Embedding)) and layer.quantization_mode is None and not any(adds)


def _quantizer(layer: Linear) -> dict[str, Any] | None:
    quantizer = getattr(layer, "inputs_quantizer", None)
    return quantizer and quantizer.get_config()


def _read_once(inputs: Any, layers: Sequence[Linear]) -> list[Any]:
    """`project` of layers that Keras quantised, by one kernel: scaled as Keras does it, but in float32."""
    rows, scale = inputs, 1.0
    if quantizer := getattr(layers[0], "inputs_quantizer", None):
        rows, scale = quantizer(inputs, axis=-1)
        rows, scale = ops.cast(rows, inputs.dtype), ops.cast(scale, "float32")
    outputs = []
    for layer, output in zip(layers, decoding.products(rows, [layer.kernel for layer in layers]), strict=True):
        output = output / (scale * ops.cast(layer.kernel_scale, "float32"))
        if layer.bias is not None:
            output = output + ops.cast(layer.bias, "float32")
        outputs.append(ops.cast(output, inputs.dtype))
    return outputs


def linear(
    units: int, *, std: float, use_bias: bool, dtype: Any, name: str, transposed_in_files: bool = True
) -> Linear:
    """A dense layer over the last axis, weights drawn from a normal distribution of standard deviation `std`."""
    layer = Linear(
        units,
        use_bias=use_bias,
        kernel_initializer=keras.initializers.RandomNormal(stddev=std),
        dtype=dtype,
        name=name,
    )
    layer.transposed_in_files = transposed_in_files
    return layer


class Embedding(HasPacked, keras.layers.Embedding):
    """An embedding table with the gradients that PyTorch's has.

    The gradient of the table is one dense tensor. TensorFlow's own lists a row once for every time it was looked up,
    and Keras's optimizers square these parts one by one, so that Adam takes wrong steps for tokens that occur twice.

    Args:
        padding_id: the row that does not learn from being looked up, `padding_idx` in PyTorch; None for none.
        scale: factor on the rows that are looked up, in the dtype of computation; `unembed` takes rows without it.

    Example:
        >>> import numpy as np
        >>> import tensorflow as tf
        >>> table = Embedding(3, 1, padding_id=0)
        >>> with tf.GradientTape() as tape:
        ...     total = tf.reduce_sum(table(np.array([[0, 2, 2]])))
        >>> tape.gradient(total, table.embeddings.value).numpy().tolist()
        [[0.0], [0.0], [2.0]]
    """

    whole_name = "_embeddings"

    def __init__(self, *arguments: Any, padding_id: int | None = None, scale: float = 1.0, **options: Any):
        super().__init__(*arguments, **options)
        self.padding_id = padding_id
        self.scale = scale

    @property
    def embeddings(self) -> Any:
        if self._packed is not None:
            raise self._no_float("embeddings")
        return super().embeddings

    def pack(self, scheme: Scheme, values: Mapping[str, Any] | None = None) -> PackedWeights:
        if scheme.ordered or scheme.divided:
            raise ValueError(
                f"{self.name} is a table of embeddings, which takes no {scheme}: its rows have no inputs."
            )
        return super().pack(scheme, values)

    def call(self, inputs: Any, lowering: Lowering = PLAIN) -> Any:
        return self._scaled(self._look_up(inputs, lowering))

    def _scaled(self, rows: Any) -> Any:
        return rows if self.scale == 1 else rows * ops.cast(self.scale, rows.dtype)

    def _look_up(self, inputs: Any, lowering: Lowering) -> Any:
        # Files of tokens often hold uint16, by which TensorFlow looks nothing up.
        is_index = backend.standardize_dtype(inputs.dtype) in ("int32", "int64")
        ids = inputs if is_index else ops.cast(inputs, "int32")
        if self._packed is not None:
            return self._packed.rows(ids, self.compute_dtype)
        if lowering.target == "litert":
            return _litert_lookup(self.embeddings, ids)
        size, dim = self.embeddings.shape
        padding_id = self.padding_id  # a gradient that knew the layer would keep its weights as long as its graph

        def take(table: Any) -> tuple[Any, Callable[..., Any]]:
            def gradient(upstream: Any) -> tuple[Any]:
                if padding_id is not None:
                    upstream = ops.where(ops.expand_dims(ops.equal(ids, padding_id), -1), 0, upstream)
                upstream = ops.reshape(upstream, (-1, dim))
                return (ops.segment_sum(upstream, ops.reshape(ids, (-1,)), num_segments=size),)

            return ops.take(table, ids, axis=0), gradient

        # The reshape reads the variable here: inside of `take` it must be a tensor.
        return ops.cast(with_gradient(take, ops.reshape(self.embeddings, (size, dim))), self.compute_dtype)

    def quantized_call(self, inputs: Any, lowering: Lowering = PLAIN) -> Any:
        return self._scaled(super().quantized_call(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding_id": self.padding_id, "scale": self.scale}


def _litert_lookup(table: Any, ids: Any) -> Any:
    """Rows of a table by the operation EMBEDDING_LOOKUP, which reads a quantised table where GATHER could not."""
    import tensorflow as tf

    # A function of its own each time: TensorFlow warns of one that is traced again and again.
    lookup = tf.function(lambda table, ids: tf.gather(table, ids), experimental_implements="embedding_matmul")
    rows = lookup(tf.convert_to_tensor(table), tf.reshape(tf.cast(ids, tf.int32), [-1]))
    return tf.reshape(rows, [*ids.shape, table.shape[1]])


def embedding(
    size: int, dim: int, *, std: float, dtype: Any, name: str, padding_id: int | None = None, scale: float = 1.0
) -> Embedding:
    """An embedding table (size, dim), drawn from a normal distribution of standard deviation `std`."""
    options = {"embeddings_initializer": keras.initializers.RandomNormal(stddev=std), "dtype": dtype, "name": name}
    return Embedding(size, dim, padding_id=padding_id, scale=scale, **options)


def unembed(hidden: Any, table: keras.layers.Embedding, lowering: Lowering = PLAIN) -> Any:
    """Score hidden states against every row of an embedding table: the language-model head of tied checkpoints.

    Args:
        hidden: (batch, length, dim).
        table: embedding layer (size, dim).
        lowering: see `Lowering`.

    Returns:
        (batch, length, size), in the dtype of `hidden`.
    """
    target = lowering.xla_target
    if getattr(table, "packed", None) is not None:
        return table.packed.product(hidden, lowering)
    if lowering.target == "litert":
        # Else there would be a second table.
        hidden = kept_apart(hidden)
    if table.quantization_mode and _is_whole(table) and decoding.serves_table(hidden, table.embeddings, target):
        return decoding.table_scores(hidden, table.embeddings, table.embeddings_scale, target=target)
    # A quantised table dequantises its own rows, so they are looked up through the layer.
    rows = table(ops.arange(table.input_dim)) / table.scale if table.quantization_mode else table.embeddings
    embeddings = ops.cast(rows, hidden.dtype)
    if decoding.serves_table(hidden, embeddings, target):
        return decoding.table_scores(hidden, embeddings, target=target)
    if backend.backend() == "tensorflow" and backend.standardize_dtype(hidden.dtype) in ("bfloat16", "float16"):
        import tensorflow as tf

        # TensorFlow's einsum sums 16-bit numbers in 16 bits on CPUs without AVX-512, its products always in float32.
        return tf.matmul(hidden, embeddings, transpose_b=True)
    product = ops.einsum("btd,vd->btv", hidden, embeddings)
    return kept_apart(product) if lowering.keeps_matrices else product


def build_all(width: int, *layers: keras.layers.Layer | None) -> None:
    """Build layers whose input's last axis is `width`; None is passed over."""
    for layer in layers:
        if layer is not None:
            layer.build((None, None, width))
