"""`tf_model.h5` as the former TensorFlow classes wrote it: names, shapes, layout."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file

NORM = re.compile(r"(LayerNorm|layer_norm|ln_\d|ln_f)\.(weight|bias)$")
CONV1D = re.compile(r"\.c_(attn|proj|fc)\.(weight|bias)$")


def former(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """The name and the array of the former classes for a tensor of a PyTorch file."""
    if NORM.search(name):
        name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
    elif CONV1D.search(name):
        value = value[None] if name.endswith("bias") else value  # a row, (1, n)
    elif re.search(r"(word_embeddings|wte)\.weight$", name):
        pass
    elif re.search(r"(position|token_type)_embeddings\.weight$|wpe\.weight$", name):
        name = name.replace(".weight", ".embeddings")
    elif name.endswith(".weight"):
        name, value = name.replace(".weight", ".kernel"), value.T
    name = re.sub(r"\b(layer|h)\.(\d+)\.", r"\1_._\2.", name)
    return re.sub(r"\.(?!_)(?<!_\.)", "/", name) + ":0", value


def as_former_file(folder: Path, keras_name: str, start: str = "") -> list[str]:
    """Put a folder's `tf_model.h5` in the place of its `model.safetensors`; the names in it.

    Args:
        folder: a folder that `save_pretrained` wrote.
        keras_name: what Keras called the former class, such as "tf_bert_model".
        start: what the former class put before the names, such as "bert.".
    """
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = []
    with h5py.File(folder / "tf_model.h5", "w") as file:
        for name, tensor in tensors.items():
            path, value = former(start + name, tensor)
            group = file.require_group(path.split("/")[0])
            group.create_dataset(f"{keras_name}/{path}", data=value)
            names.append(f"{keras_name}/{path}")
            group.attrs["weight_names"] = names[-1:]  # as groups of layers have it
    return names
