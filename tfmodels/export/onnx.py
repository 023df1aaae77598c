"""ONNX: one graph for onnxruntime and whatever else reads the format, with free batch and length.

Inputs are int64 `input_ids` and `attention_mask`, outputs the model's own, float32. A causal language model takes and
gives a growing cache under the names that exports of this ecosystem have: `position_ids` (batch, new) and
`past_key_values.N.key` and `.value` (batch, key_value_heads, past, head_dim) go in, with past = 0 for a prompt;
`logits` and `present.N.key` and `.value` come out; `attention_mask` covers past and new tokens.

A static cache is not exported: the operator that writes it, XlaDynamicUpdateSlice, has no counterpart in ONNX.
"""

from __future__ import annotations

import json
import os
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from tfmodels.export.artifact import ExportOptions, Runner, Signature, causal, require, transformer_of, with_dtype

OPTIONS: frozenset[str] = frozenset()
OPSET = 18
# The file is one protocol buffer, which ends at 2 GiB; the graph itself takes some of it.
MOST_WEIGHTS = 2**31 - 2**26
_PROPERTIES = "tfmodels"
_PURPOSE = "format='onnx'"


def check(model: Any, options: ExportOptions) -> None:
    """Raise where the export cannot work, before anything expensive happens.

    Raises:
        ImportError: a package of the `export` extra is missing.
        ValueError: the weights do not fit into an ONNX file, or a classifier has no padding token to look for.
    """
    from tfmodels.export.saved_model import finds_last_token
    from tfmodels.models.heads import SequenceClassificationHead

    for module in ("onnx", "tf2onnx", "onnxruntime"):
        require(module, "export", _PURPOSE)
    size = 4 * model.count_params()
    if size > MOST_WEIGHTS:
        raise ValueError(
            f"{type(model).__name__} has {size / 1e9:.1f} GB of float32 weights, and an ONNX file holds at most 2 GB: "
            f"export to 'saved_model' or 'litert'."
        )
    if isinstance(model, SequenceClassificationHead) and finds_last_token(model) and model.config.pad_token_id is None:
        raise ValueError(
            f"{type(model).__name__} finds each row's last token by config.pad_token_id, which is None: set it before "
            f"exporting."
        )


# Tracing -------------------------------------------------------------------------------------------------------------


def cache_names(layers: int, prefix: str) -> list[tuple[str, str]]:
    """What the tensors of each layer's cache are called, keys and values.

    Example:
        >>> cache_names(1, "present")
        [('present.0.key', 'present.0.value')]
    """
    return [(f"{prefix}.{layer}.key", f"{prefix}.{layer}.value") for layer in range(layers)]


def _parameter(name: str) -> str:
    """The name of a cache tensor as a function's parameter has it: TensorFlow allows no dots there."""
    return name.replace(".", "_")


def forward_function(model: Any) -> Any:
    """The traced forward pass of a model that does not generate."""
    import tensorflow as tf

    from tfmodels.export.saved_model import forward
    from tfmodels.models.heads import MultipleChoiceHead

    rank = 3 if isinstance(model, MultipleChoiceHead) else 2
    specs = {name: tf.TensorSpec([None] * rank, tf.int64, name) for name in ("input_ids", "attention_mask")}
    return tf.function(lambda **inputs: forward(model, **inputs), autograph=False).get_concrete_function(**specs)


def causal_function(model: Any) -> Any:
    """The traced forward pass of a causal language model, with a growing cache."""
    import tensorflow as tf

    layers = len(model.backbone.layers)
    shown = model(input_ids=np.zeros((1, 1), "int32"), use_cache=True, return_dict=True).past_key_values
    past, present = cache_names(layers, "past_key_values"), cache_names(layers, "present")

    def run(input_ids: Any, attention_mask: Any, position_ids: Any, **cache: Any) -> dict[str, Any]:
        output = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=tuple((cache[_parameter(key)], cache[_parameter(value)]) for key, value in past),
            use_cache=True,
            output_attentions=False,
            output_hidden_states=False,
            return_dict=True,
            training=False,
        )
        longer = zip(present, output.past_key_values, strict=True)
        return {"logits": output.logits} | {
            name: tensor for pair, tensors in longer for name, tensor in zip(pair, tensors, strict=True)
        }

    specs = {
        name: tf.TensorSpec((None, None), tf.int64, name) for name in ("input_ids", "attention_mask", "position_ids")
    }
    for pair, tensors in zip(past, shown, strict=True):
        for name, tensor in zip(pair, tensors, strict=True):
            shape = (None, tensor.shape[1], None, tensor.shape[3])
            specs[_parameter(name)] = tf.TensorSpec(shape, tf.float32, _parameter(name))
    return tf.function(run, autograph=False).get_concrete_function(**specs)


# Writing -------------------------------------------------------------------------------------------------------------


def write(model: Any, target: Path, options: ExportOptions) -> list[Signature]:
    """Write the file."""
    model = with_dtype(model, "float32")
    options.step("tracing the model")
    function = (causal_function if causal(model) else forward_function)(model)
    options.step("converting to ONNX")
    pairs = cache_names(len(model.backbone.layers), "past_key_values") if causal(model) else []
    proto = convert(function, {_parameter(name): name for pair in pairs for name in pair})
    properties = {
        "causal": causal(model),
        "eos_token_ids": list(model.generation_config.eos_token_ids) if causal(model) else [],
    }
    proto.metadata_props.add(key=_PROPERTIES, value=json.dumps(properties))
    proto.graph.doc_string = f"{transformer_of(model).config.model_type}: {type(model).__name__}"
    target.write_bytes(proto.SerializeToString())
    return [_signature(proto)]


def convert(function: Any, renamed: dict[str, str]) -> Any:
    """A traced function as an ONNX model.

    Args:
        function: a concrete function with named arguments that returns a dict of tensors.
        renamed: what inputs are called in the file, where it is not the argument's name.

    Raises:
        ValueError: an operator has no counterpart; the message names it.
    """
    import tensorflow as tf

    loader, graphs, optimizer = (
        require(f"tf2onnx.{name}", "export", _PURPOSE) for name in ("tf_loader", "tfonnx", "optimizer")
    )
    inputs = [tensor.name for tensor in function.inputs if tensor.dtype != tf.resource]
    outputs = [tensor.name for tensor in function.outputs]
    plain = {name: name.removesuffix(":0") for name in inputs}
    names = {tensor: renamed.get(name, name) for tensor, name in plain.items()}
    names |= dict(zip(outputs, sorted(function.structured_outputs), strict=True))
    frozen = loader.from_function(function, inputs, outputs)
    # Not all of tf2onnx's: `BackToBackOptimizer` joins reshapes of which the second copies a size of the first.
    passes = ("TransposeOptimizer", "ConstFoldOptimizer", "MergeDuplicatedNodesOptimizer", "IdentityOptimizer")
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        converted = graphs.process_tf_graph(
            graph,
            opset=OPSET,
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename=names,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
        converted = optimizer.optimize_graph(
            converted, catch_errors=False, optimizers=OrderedDict((name, getattr(optimizer, name)) for name in passes)
        )
    proto = converted.make_model("exported by tfmodels")
    _check_operators(proto)
    return proto


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Erfc, which ONNX does not have, as 1 - Erf."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    one = graph.make_const(f"{name}/one", np.ones((), "float32"))
    erf = graph.make_node("Erf", node.input, shapes=shapes, dtypes=dtypes)
    inputs = [one.output[0], erf.output[0]]
    graph.make_node("Sub", inputs, name=name, outputs=node.output, shapes=shapes, dtypes=dtypes)


def _check_operators(proto: Any) -> None:
    """Raise ValueError for operators that were left as they were."""
    known = require("onnx", "export", _PURPOSE).defs
    missing = Counter(
        node.op_type for node in proto.graph.node if node.domain == "" and not known.has(node.op_type, OPSET, "")
    )
    if missing:
        raise ValueError(f"the model needs {', '.join(sorted(missing))}, which ONNX has no operator for.")


def _signature(proto: Any) -> Signature:
    onnx = require("onnx", "export", _PURPOSE)

    def tensors(infos: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        return {
            info.name: (
                onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).name,
                tuple(dim.dim_value or None for dim in info.type.tensor_type.shape.dim),
            )
            for info in infos
        }

    return Signature("model", tensors(proto.graph.input), tensors(proto.graph.output))


# Running -------------------------------------------------------------------------------------------------------------


class OnnxRunner(Runner):
    """An ONNX file in onnxruntime, on the CPU.

    Args:
        path: a file that this module wrote.

    Raises:
        ValueError: it is another kind of file.
    """

    def __init__(self, path: str | os.PathLike):
        runtime = require("onnxruntime", "export", "running a .onnx file")
        self.session = runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
        properties = self.session.get_modelmeta().custom_metadata_map.get(_PROPERTIES)
        if properties is None:
            raise ValueError(f"{path} was not written by tfmodels: its metadata have no {_PROPERTIES!r}.")
        properties = json.loads(properties)
        self.generates = properties["causal"]
        self.eos_token_ids = tuple(properties["eos_token_ids"])
        self._outputs = [output.name for output in self.session.get_outputs()]
        self._caches = {
            tensor.name: (tensor.shape[1], tensor.shape[3])
            for tensor in self.session.get_inputs()
            if tensor.name.startswith("past_key_values.")
        }

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        if signature not in (None, "model"):
            raise ValueError(f"signature={signature!r}; an ONNX file has one, 'model'.")
        ids = np.asarray(inputs["input_ids"], "int64")
        mask = np.asarray(inputs.get("attention_mask", np.ones_like(ids)), "int64")
        if not self.generates:
            return self._call({"input_ids": ids, "attention_mask": mask})
        return {"logits": self._step(ids, mask, np.arange(ids.shape[1]), self._empty(len(ids)))[0]}

    def generate(self, ids: np.ndarray, max_new_tokens: int) -> np.ndarray:
        ids = np.asarray(ids, "int64")
        cache, new = self._empty(len(ids)), ids
        for _ in range(max_new_tokens):
            start = ids.shape[1] - new.shape[1]
            logits, cache = self._step(new, np.ones_like(ids), np.arange(start, ids.shape[1]), cache)
            new = logits[:, -1:].argmax(axis=-1)
            ids = np.concatenate([ids, new], axis=1)
            if new[0, 0] in self.eos_token_ids:
                break
        return ids

    def _empty(self, batch: int) -> dict[str, np.ndarray]:
        return {name: np.zeros((batch, heads, 0, size), "float32") for name, (heads, size) in self._caches.items()}

    def _step(
        self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, cache: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Scores of new tokens (batch, new, vocab_size), and the cache with them."""
        position_ids = np.broadcast_to(positions.astype("int64"), ids.shape)
        outputs = self._call({"input_ids": ids, "attention_mask": mask, "position_ids": position_ids, **cache})
        return outputs["logits"], {name: outputs[name.replace("past_key_values", "present")] for name in cache}

    def _call(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self.session.run(None, inputs), strict=True))


def open(path: str | os.PathLike) -> OnnxRunner:
    """Open a file that this module wrote."""
    return OnnxRunner(path)
