"""Take the names of gradients out of a SavedModel that is written without the gradients."""

from __future__ import annotations

from pathlib import Path

# How TensorFlow marks an operation whose gradient is a function of its own.
_MARK = "_gradient_op_type"


def forget_gradients(folder: Path) -> None:
    """Unmark operations with gradients of their own: whoever loads the folder would be warned of each function.

    What the operations compute is made of ordinary ones, whose gradients TensorFlow then takes instead.

    Args:
        folder: of the version, just written.
    """
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.saved_model import fingerprinting_utils  # the fingerprint holds a checksum of the file

    file, found = folder / "saved_model.pb", saved_model_pb2.SavedModel()
    found.ParseFromString(file.read_bytes())
    for graph in (meta.graph_def for meta in found.meta_graphs):
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                node.attr.pop(_MARK, None)
    file.write_bytes(found.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))
