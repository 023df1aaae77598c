"""Traced functions as a LiteRT flatbuffer, and its quantisation."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmodels.export.extras import require
from tfmodels.export.litert.packed import bytes_of, digest_of, lift_scales, put_numbers
from tfmodels.export.quiet import without_warnings
from tfmodels.utils.text import quote


def convert(functions: dict[str, Any], workspace: Path, *, dtype: str = "float32") -> bytes:
    """Convert traced functions to a LiteRT flatbuffer.

    Args:
        functions: concrete functions by the names of their signatures.
        workspace: folder with room for all weights for a while.
        dtype: how weights are stored; "float16" becomes float32 when the file is opened.

    Raises:
        ValueError: an operator has no builtin counterpart; the message names it.
    """
    module = tf.Module()
    module.weights = [variable for function in functions.values() for variable in function.graph.variables]
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with tempfile.TemporaryDirectory(dir=workspace) as folder, without_warnings():
        tf.saved_model.save(module, folder, signatures=functions, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(functions))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if dtype == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        try:
            return converter.convert()
        except Exception as error:  # the converter's own class has no public name
            missing = sorted(set(re.findall(r"\btf\.([A-Z]\w+)", str(error))))
            if not missing:
                raise
            raise ValueError(
                f"the model needs {', '.join(missing)}, which LiteRT does not have as a builtin operator; files that "
                f"need TensorFlow's own operators (Flex) are not written."
            ) from error


def quantize(content: bytes, kind: str | None, kept: Mapping[str, Any] | None = None) -> bytes:
    """Quantise the weights of a LiteRT flatbuffer; activations are quantised on the fly, to 8 bits.

    Args:
        content: with float32 weights.
        kind: "int8", a scale for each row of a matrix; or "int4", a scale for 32 neighbours in a row, or for a row
            whose length is no multiple of that. None: what is not `kept` stays float32.
        kept: digests of the matrices that are products of integers and scales already, and their packed weights
            (`tfmodels.export.litert.packed`): the file gets the same numbers. The others become int8 beside them.

    Raises:
        ValueError: the converter has changed a matrix that is to be kept.
    """
    kept = kept or {}
    kind = "int8" if kept and kind else kind

    def part(name: str) -> Any:
        return require(f"ai_edge_quantizer.{name}", "export", f"quantize={quote(kind)}")

    operators, sizes = part("qtyping").TFLOperationName, part("qtyping").QuantGranularity
    named = {}
    recipe = part("recipe_manager").RecipeManager()
    for operator in (operators.FULLY_CONNECTED, operators.EMBEDDING_LOOKUP):
        if kind == "int8":
            recipe.add_dynamic_config(".*", operator, num_bits=8)
        if kind == "int4":
            recipe.add_dynamic_config(".*", operator, num_bits=4, granularity=sizes.BLOCKWISE_32)
        for output, name, matrix in _matrices(content, operator.value):
            if kind == "int4" and matrix.shape[-1] % 32:
                recipe.add_dynamic_config(re.escape(output), operator, num_bits=4)
            if kept and (packed := kept.get(digest_of(matrix))) is not None:
                size = packed.scheme.group_size
                granularity = sizes[f"BLOCKWISE_{size}"] if size else sizes.CHANNELWISE
                options = {"num_bits": packed.scheme.bits, "granularity": granularity}
                recipe.add_dynamic_config(re.escape(output), operator, **options)
                named[name] = packed
    if missing := len(kept) - len({id(packed) for packed in named.values()}):
        raise ValueError(f"LiteRT's converter has changed {missing} matrices, whose integers cannot be kept.")
    # It prints progress to both streams.
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    # It divides by the scales of rows of zeros.
    with quiet[0], quiet[1], np.errstate(invalid="ignore"):
        work = part("quantizer").Quantizer(bytearray(content))
        work.load_quantization_recipe(recipe.get_quantization_recipe())
        quantized = bytearray(work.quantize().quantized_model)
    put_numbers(quantized, named)
    lift_scales(quantized)
    return bytes(quantized)


def _matrices(content: bytes, operator: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """The names of an operator's outputs and of its matrices, and the matrices (out, in)."""
    schema = require("ai_edge_litert.schema_py_generated", "export", "quantize='int4'")
    model = schema.Model.GetRootAs(content, 0)
    code = getattr(schema.BuiltinOperator, operator)
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for operation in (graph.Operators(index) for index in range(graph.OperatorsLength())):
            if model.OperatorCodes(operation.OpcodeIndex()).BuiltinCode() != code:
                continue
            tensor = graph.Tensors(operation.Inputs(1))
            shape, stored = tensor.ShapeAsNumpy(), bytes_of(content, model.Buffers(tensor.Buffer()))
            is_float = tensor.Type() == schema.TensorType.FLOAT32 and len(stored) == 4 * np.prod(shape)
            matrix = stored.view("<f4").reshape(shape) if is_float else np.zeros(shape, "int8")
            yield graph.Tensors(operation.Outputs(0)).Name().decode(), tensor.Name().decode(), matrix
