"""Packed weights in LiteRT files: the schemes that such a file can hold, and the way their numbers get into it.

The converter takes float32 matrices, which are known by their bytes afterwards. The quantiser then makes room for
integers and scales, by rounding on its own, and the numbers of the packed weights take the place of its numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tfmodels.auto import family_of
from tfmodels.checkpoints.quantized.scheme import Scheme, unpack
from tfmodels.checkpoints.weight_map import walk
from tfmodels.export.extras import require
from tfmodels.export.models import causal

_GROUPS = (32, 64, 128, 256)


def check_packed(model: Any) -> None:
    """Raise ValueError where a model has packed weights that LiteRT has no place for.

    Args:
        model: a `TFPreTrainedModel`.
    """
    for path, layer in walk(model):
        packed = getattr(layer, "packed", None)
        if packed is not None and not _has_place(packed.scheme, packed.width):
            raise ValueError(
                f"{path} is quantised ({packed.scheme}, {packed.width} inputs), for which LiteRT has no place: it has "
                f"integers without zeros, in 8 bits with one scale per output, in 4 bits with one per output or per "
                f"group of {', '.join(map(str, _GROUPS))}. {_way_out(model)}"
            )


def _way_out(model: Any) -> str:
    """The way to a LiteRT file for a model whose packed weights have no place in one."""
    way = 'Load the float checkpoint that it was made from, and export that with quantize="int8" or "int4"'
    gguf_map = family_of(model.config).gguf_map() if causal(model) else None
    if gguf_map is None or gguf_map.settings_of is None:
        return f"{way}."
    return (
        f'{way}; or write these weights as floats, export(model, "floats.gguf", "gguf", dtype="float32", '
        'tokenizer=...), and export from_pretrained(folder, gguf_file="floats.gguf").'
    )


def _has_place(scheme: Scheme, width: int) -> bool:
    if scheme.offsets or scheme.ordered or scheme.divided or scheme.values != "int":
        return False
    return scheme.group_size is None or (
        scheme.bits == 4 and scheme.group_size in _GROUPS and width % scheme.group_size == 0
    )


def packed_by_digest(model: Any, floats: Any) -> dict[str, Any]:
    """The packed weights of a model by the digest of what they stand for, (out, in).

    Args:
        model: a `TFPreTrainedModel` or `SentenceEncoder`.
        floats: what `tfmodels.export.models.with_floats` makes of it.
    """
    twins, found = dict(walk(floats)), {}
    for path, layer in walk(model):
        if (packed := getattr(layer, "packed", None)) is not None:
            matrix = np.asarray(getattr(twins[path], twins[path].whole_name))
            found[digest_of(matrix if isinstance(layer, keras.layers.Embedding) else matrix.T)] = packed
    return found


def digest_of(matrix: np.ndarray) -> str:
    """A text that only the same numbers in the same shape have."""
    return hashlib.sha256(np.ascontiguousarray(matrix)).hexdigest() + str(matrix.shape)


def _numbers(packed: Any) -> tuple[np.ndarray, np.ndarray]:
    """Integers and scales in the file's order, (out * in,) and (out * groups,), all scales above zero.

    LiteRT's kernels take no others. Where a group's scale is negative, its integers change their sign; the one number
    that has no counterpart, -8 or -128, becomes 7 or 127.
    """
    scheme, parts = packed.scheme, packed.arrays()
    q = unpack(parts["weights"], scheme, packed.width).T.astype(np.int16)
    scales = np.ascontiguousarray(parts["scales"].T.astype(np.float32))
    signs = np.where(scales < 0, -1, 1).astype(np.int16)
    q = q.reshape(*scales.shape, -1) * signs[:, :, None]
    q = np.minimum(q, (1 << (scheme.bits - 1)) - 1).astype(np.int8)
    return q.reshape(-1), (scales * signs).reshape(-1)


def lift_scales(content: bytearray) -> None:
    """Give rows of zeros, whose scale is 0 in a quantised file, a scale that LiteRT's kernels take; in place."""
    for _, _, scales in _tensors(content):
        if scales is not None:
            scales[scales == 0] = 1.0


def _tensors(content: bytearray) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """The name of each tensor of a file, its bytes, and its scales, float32 or, of groups, float16, where they lie."""
    schema = require("ai_edge_litert.schema_py_generated", "export", "quantised weights")
    file = schema.Model.GetRootAs(content, 0)

    def stored(tensor: Any) -> np.ndarray:
        return bytes_of(content, file.Buffers(tensor.Buffer()))

    def scales_of(graph: Any, tensor: Any) -> np.ndarray | None:
        settings = tensor.Quantization()
        if settings is None:
            return None
        if settings.DetailsType() == schema.QuantizationDetails.BlockwiseQuantization:
            blocks = schema.BlockwiseQuantization()
            blocks.Init(settings.Details().Bytes, settings.Details().Pos)
            return stored(graph.Tensors(blocks.Scales())).view("<f2")
        return settings.ScaleAsNumpy() if settings.ScaleLength() else None

    for graph in (file.Subgraphs(index) for index in range(file.SubgraphsLength())):
        for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
            yield tensor.Name().decode(), stored(tensor), scales_of(graph, tensor)


def bytes_of(content: bytes | bytearray, buffer: Any) -> np.ndarray:
    """The bytes of a buffer where they lie in a file, uint8: in the flatbuffer or, of larger files, behind it."""
    if buffer.Offset() > 1:  # 0 and 1 stand for none
        return np.frombuffer(content, np.uint8, buffer.Size(), buffer.Offset())
    return buffer.DataAsNumpy() if buffer.DataLength() else np.zeros(0, np.uint8)


def put_numbers(content: bytearray, named: Mapping[str, Any]) -> None:
    """Write the integers and scales of packed weights into a quantised file, in place.

    Args:
        content: the file.
        named: name of each matrix in it -> the packed weights.

    Raises:
        ValueError: the file has no room of that shape for a matrix.
    """
    done = set()
    for name, stored, room in _tensors(content):
        packed = named.get(name)
        if packed is None:
            continue
        scheme = packed.scheme
        q, scales = _numbers(packed)
        if scheme.bits == 4:
            q = np.pad(q, (0, len(q) % 2))
            q = (q[0::2] & 15) | (q[1::2] << 4)
        for target, values in (stored, q.view(np.uint8)), (room, scales):
            if np.shape(target) != values.shape:
                raise ValueError(f"{name} of a LiteRT file has no room for the packed weights ({scheme}).")
            target[:] = values.astype(target.dtype)
        done.add(name)
    if missing := sorted(named.keys() - done):
        raise ValueError(f"the LiteRT file has no matrix called {missing[0]}, whose integers cannot be kept.")
