"""ONNX: one graph for onnxruntime and whatever else reads the format, with free batch and length.

Inputs are int64 `input_ids` and `attention_mask`, and `token_type_ids` of families with several types (BERT: 0 for the
first text of a pair, 1 for the second); outputs are the model's own, float32. A causal language model takes and
gives a growing cache under the names that exports of this ecosystem have: `position_ids` (batch, new) and
`past_key_values.N.key` and `.value` (batch, key_value_heads, past, head_dim) go in, with past = 0 for a prompt;
`logits` and `present.N.key` and `.value` come out; `attention_mask` covers past and new tokens.

A static cache is not exported: the operator that writes it, XlaDynamicUpdateSlice, has no counterpart in ONNX.
"""

from __future__ import annotations

import json
import os
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfmodels.export.artifact import ExportOptions, Runner, Signature, token_types
from tfmodels.export.extras import require
from tfmodels.runtime.lowering import EXPORT
from tfmodels.utils.text import quote

# The last opset in which reductions have their axes as attributes: from 18 on, onnxruntime's symbolic shape inference
# does not see through the products of sizes that reshapes are made of.
OPSET = 17
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
    from tfmodels.export.models import check_last_token, transformer_of

    for module in ("onnx", "tf2onnx", "onnxruntime"):
        require(module, "export", _PURPOSE)
    size = 4 * model.count_params()
    if size > MOST_WEIGHTS:
        raise ValueError(
            f"{type(model).__name__} has {size / 1e9:.1f} GB of float32 weights, and an ONNX file holds at most 2 GB: "
            f"export to 'saved_model' or 'litert'."
        )
    transformer = transformer_of(model)
    if transformer.quantization is not None:
        by_keras = transformer.keras_quantization is not None
        raise ValueError(
            f"the model {'was quantised by Keras' if by_keras else 'has packed weights'} "
            f"({transformer.quantization}); an ONNX file holds float32 weights: load a float checkpoint without "
            f"quantize(), and quantise the file with onnxruntime.quantization."
        )
    check_last_token(model)


# Tracing -------------------------------------------------------------------------------------------------------------


Axes = tuple[str | None, ...]


class Traced(NamedTuple):
    """A traced function with the names that its inputs and outputs have in the file, in the file's order.

    The values of `inputs` and `outputs` are the names of each tensor's free axes, None at axes of fixed size.
    """

    function: Any
    inputs: dict[str, Axes]
    outputs: dict[str, Axes]


def trace(run: Callable[..., dict[str, Any]], specs: dict[str, Any], axes: dict[str, Axes]) -> Traced:
    """Trace a function of named tensors.

    Args:
        run: takes and returns tensors by name; the order of what it returns is the order of the file's outputs.
        specs: a `tf.TensorSpec` for each input, in order.
        axes: the names of free axes of inputs and outputs; an output that is not there gets those of `input_ids`.
    """
    import tensorflow as tf

    names: list[str] = []

    def call(*tensors: Any) -> tuple[Any, ...]:
        outputs = run(**dict(zip(specs, tensors, strict=True)))
        names[:] = outputs
        return tuple(outputs.values())

    function = tf.function(call, input_signature=list(specs.values()), autograph=False).get_concrete_function()
    outputs = {}
    for name, tensor in zip(names, function.outputs, strict=True):
        own = axes.get(name, axes["input_ids"])
        outputs[name] = tuple(
            own[axis] if size is None and axis < len(own) else None for axis, size in enumerate(tensor.shape)
        )
    return Traced(function, {name: axes[name] for name in specs}, outputs)


def forward_function(model: Any) -> Traced:
    """Trace the forward pass of a model that does not generate."""
    import tensorflow as tf

    from tfmodels.export.models import file_inputs, forward, rank_of

    rank = rank_of(model)
    names = file_inputs(model)
    specs = {name: tf.TensorSpec([None] * rank, tf.int64, name) for name in names}
    axes = ("batch", "sequence") if rank == 2 else ("batch", "choices", "sequence")
    return trace(lambda **inputs: forward(model, **inputs, lowering=EXPORT), specs, dict.fromkeys(names, axes))


def causal_function(model: Any) -> Traced:
    """Trace the forward pass of a causal language model with a growing cache."""
    import tensorflow as tf

    from tfmodels.export.cache import from_named, named, shapes_of

    shapes = shapes_of(model)

    def run(input_ids: Any, attention_mask: Any, position_ids: Any, **cache: Any) -> dict[str, Any]:
        output = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=from_named(cache, len(shapes)),
            use_cache=True,
            output_attentions=False,
            output_hidden_states=False,
            return_dict=True,
            training=False,
            lowering=EXPORT,
        )
        return {"logits": output.logits} | named(output.past_key_values, "present")

    axes = {
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "past + sequence"),
        "position_ids": ("batch", "sequence"),
    }
    specs = {name: tf.TensorSpec((None, None), tf.int64, name) for name in axes}
    for name, (heads, head_dim) in named(shapes).items():
        specs[name] = tf.TensorSpec((None, heads, None, head_dim), tf.float32, name)
        axes[name] = ("batch", None, "past", None)
    axes |= dict.fromkeys(named(shapes, "present"), ("batch", None, "past + sequence", None))
    return trace(run, specs, axes)


# Writing -------------------------------------------------------------------------------------------------------------


def write(model: Any, target: Path, options: ExportOptions) -> list[Signature]:
    """Write the file."""
    from tfmodels.export.models import causal, transformer_of, with_dtype

    model = with_dtype(model, "float32")
    options.step("tracing the model")
    traced = (causal_function if causal(model) else forward_function)(model)
    options.step("converting to ONNX")
    proto = convert(traced)
    properties = {
        "causal": causal(model),
        "eos_token_ids": list(model.generation_config.eos_token_ids) if causal(model) else [],
    }
    proto.metadata_props.add(key=_PROPERTIES, value=json.dumps(properties))
    proto.graph.doc_string = f"{transformer_of(model).config.model_type}: {type(model).__name__}"
    target.write_bytes(proto.SerializeToString(deterministic=True))
    return [_signature(proto)]


def convert(traced: Traced) -> Any:
    """Convert a traced function to an ONNX model.

    Raises:
        ValueError: an operator has no counterpart; the message names it.
    """
    import tensorflow as tf

    loader, graphs, optimizer = (
        require(f"tf2onnx.{name}", "export", _PURPOSE) for name in ("tf_loader", "tfonnx", "optimizer")
    )
    inputs = [tensor.name for tensor in traced.function.inputs if tensor.dtype != tf.resource]
    outputs = [tensor.name for tensor in traced.function.outputs]
    names = dict(zip((*inputs, *outputs), (*traced.inputs, *traced.outputs), strict=True))
    frozen = loader.from_function(traced.function, inputs, outputs)
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
    _put_in_order(proto.graph, traced)
    _sort_nodes(proto.graph)
    _rename(proto.graph)
    return proto


def _put_in_order(graph: Any, traced: Traced) -> None:
    """Order a graph's inputs and outputs as the function has them, and name their free axes."""
    for tensors, axes in ((graph.input, traced.inputs), (graph.output, traced.outputs)):
        found = {tensor.name: tensor for tensor in tensors}
        ordered = [found[name] for name in axes]
        for tensor in ordered:
            for dim, axis in zip(tensor.type.tensor_type.shape.dim, axes[tensor.name], strict=True):
                if axis is not None:
                    dim.dim_param = axis
        del tensors[:]
        tensors.extend(ordered)


def _sort_nodes(graph: Any) -> None:
    """Order nodes by the outputs they lead to: the converter's order of independent nodes changes between runs."""
    makers = {output: node for node in graph.node for output in node.output}
    done: dict[int, Any] = {}
    waiting = [(makers[output.name], False) for output in reversed(graph.output) if output.name in makers]
    while waiting:
        node, complete = waiting.pop()
        if complete:
            done.setdefault(id(node), node)
        elif id(node) not in done:
            waiting.append((node, True))
            waiting += [(makers[name], False) for name in reversed(node.input) if name in makers]
    nodes = [type(node).FromString(node.SerializeToString()) for node in done.values()]
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(graph: Any) -> None:
    """Name nodes and inner tensors by their place in the graph: the converter's names count its calls."""
    kept = {tensor.name for tensor in (*graph.input, *graph.output)}
    names: dict[str, str] = {name: name for name in ("", *kept)}
    weights = {weight.name: weight for weight in graph.initializer}
    read = dict.fromkeys(name for node in graph.node for name in node.input)
    used = [weights[name] for name in read if name in weights]
    for number, weight in enumerate(used):
        names.setdefault(weight.name, f"weight_{number}")
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        for part, output in enumerate(node.output):
            names.setdefault(output, f"{node.name}:{part}")
    for weight in used:
        weight.name = names[weight.name]
    del graph.initializer[:]
    graph.initializer.extend(used)
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for info in graph.value_info:
        info.name = names.get(info.name, info.name)


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
            raise ValueError(f"{path} was not written by tfmodels: its metadata have no {quote(_PROPERTIES)}.")
        properties = json.loads(properties)
        self.generates = properties["causal"]
        self.eos_token_ids = tuple(properties["eos_token_ids"])
        self._inputs = [tensor.name for tensor in self.session.get_inputs()]
        self._outputs = [output.name for output in self.session.get_outputs()]
        self._caches = {
            tensor.name: (tensor.shape[1], tensor.shape[3])
            for tensor in self.session.get_inputs()
            if tensor.name.startswith("past_key_values.")
        }

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        if signature not in (None, "model"):
            raise ValueError(f"signature={quote(signature)}; an ONNX file has one, 'model'.")
        ids = np.asarray(inputs["input_ids"], "int64")
        mask = np.asarray(inputs.get("attention_mask", np.ones_like(ids)), "int64")
        types = token_types(inputs, ids.shape, "token_type_ids" in self._inputs)
        if not self.generates:
            return self._call({"input_ids": ids, "attention_mask": mask, **types})
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
