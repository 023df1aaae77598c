"""Open a SavedModel and run it with TensorFlow alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmodels.export.artifact import Runner, Signature, Tolerance
from tfmodels.export.extras import require
from tfmodels.export.quiet import without_warnings

# Facts that a runner needs and the graph does not hold.
PROPERTIES_FILE = "assets.extra/tfmodels.json"


def signatures_of(path: str | os.PathLike) -> list[Signature]:
    """The signatures of a SavedModel folder, from its file alone."""

    def tensors(infos: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        return {
            name: (
                tf.as_dtype(info.dtype).name,
                tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
            )
            for name, info in sorted(infos.items(), key=lambda item: _order(item[0]))
        }

    signatures = signature_defs(path)
    names = sorted(
        (name for name in signatures if not name.startswith("__")), key=lambda n: (n != "serving_default", n)
    )
    return [Signature(name, tensors(signatures[name].inputs), tensors(signatures[name].outputs)) for name in names]


def signature_defs(path: str | os.PathLike) -> Any:
    """Read the signature definitions of a SavedModel folder, protocol buffers by name."""
    from tensorflow.core.protobuf import saved_model_pb2

    found = saved_model_pb2.SavedModel()
    found.ParseFromString((Path(path) / "saved_model.pb").read_bytes())
    return found.meta_graphs[0].signature_def


def _order(name: str) -> tuple[Any, ...]:
    """Sorts tensors: the prompt first, caches last and by number."""
    first = ("input_ids", "attention_mask", "logits")
    parts = tuple(int(part) if part.isdigit() else 0 for part in name.split("."))
    return (name.startswith("past_key_values"), first.index(name) if name in first else len(first), parts, name)


# Half types promise as much as their precision allows.
_HALF_TOLERANCE = {"float16": Tolerance(1e-3, 2e-2), "bfloat16": Tolerance(1e-2, 1e-1)}


# Activations of quantised layers are rounded to int8 on the fly: where one lies between two steps, another order of
# summing, in the last bit of float32, moves it by a whole step, 1/127 of the largest in its row.
_QUANTISED_TOLERANCE = Tolerance(1e-3, 5e-2)


class SavedModelRunner(Runner):
    """A SavedModel, loaded by TensorFlow alone; with text signatures by TensorFlow Text, too.

    Args:
        folder: of the version.

    Raises:
        ImportError: a signature takes strings, and tensorflow-text is not installed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.declared = signatures_of(folder)
        if any(dtype == "string" for signature in self.declared for dtype, _ in signature.inputs.values()):
            # Importing it registers the operators of the tokenizer in the graph.
            require("tensorflow_text", "text", f"{folder} (its text signatures)")
        with without_warnings():
            self.module = tf.saved_model.load(str(folder))
        self.signatures = self.module.signatures
        # Sessions and servers fill these in, functions that were loaded in Python do not.
        self.defaults = {
            name: {key: tf.make_ndarray(value) for key, value in definition.defaults.items()}
            for name, definition in signature_defs(folder).items()
        }
        self.generates = "generate" in self.signatures
        properties = {}
        if (folder / PROPERTIES_FILE).is_file():  # exports of earlier versions have none
            properties = json.loads((folder / PROPERTIES_FILE).read_text("utf-8"))
        self.capacity = properties.get("capacity")
        stored = {variable.dtype.name for variable in self.module.weights}
        half = stored & set(_HALF_TOLERANCE)
        quantised = properties.get("quantization")
        self.exact_ids = not half and not quantised
        if quantised:
            self.tolerance = _QUANTISED_TOLERANCE
        if half:
            self.tolerance = _HALF_TOLERANCE[half.pop()]

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        typed = "token_type_ids" in inputs and "serving_token_types" in self.signatures
        name = signature or ("serving_token_types" if typed else "serving_default")
        function = self.signatures[name]
        specs = function.structured_input_signature[1]
        # In Python, arguments have underscores where the signature's names have dots.
        given = {key.replace(".", "_"): value for key, value in {**self.defaults[name], **inputs}.items()}
        output = function(**{key: tf.constant(value, specs[key].dtype) for key, value in given.items()})
        return {key: value.numpy() for key, value in output.items()}

    def generate(self, ids: np.ndarray, max_new_tokens: int) -> np.ndarray:
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "max_new_tokens": max_new_tokens}
        return self.run(inputs, "generate")["sequences"]


def open(path: str | os.PathLike) -> SavedModelRunner:
    """Open an exported SavedModel.

    Args:
        path: the folder of a version, or the one above, of which the highest version is taken.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = Path(path)
    if not (folder / "saved_model.pb").is_file():
        versions = [child for child in folder.glob("*/saved_model.pb") if child.parent.name.isdecimal()]
        if not versions:
            raise FileNotFoundError(f"{folder} holds no saved_model.pb, nor does a version in it.")
        folder = max(versions, key=lambda file: int(file.parent.name)).parent
    return SavedModelRunner(folder)
