"""LiteRT (TFLite): one `.tflite` file for phones, browsers and small boards, of builtin operators only.

Shapes are fixed, which is what LiteRT's fast kernels want, so there is a signature for each bucket of lengths; they
share the weights. A causal language model has `prefill_N`, which puts N tokens into the cache, and `decode`, which
runs one and gives its logits; the cache goes in and comes out. These are the names and shapes that LiteRT-LM expects:

    tokens int32 (1, N), input_pos int32 (N,), kv_cache_k_i, kv_cache_v_i float32 (1, kv_heads, max_length, head_dim)

Any other model has `forward_N`: input_ids and attention_mask int32 (1, N) - (1, 1, N) for multiple choice, one choice
at a time - to the model's outputs. An id of -1 is padding. Families with several token types (BERT: 0 for the first
text of a pair, 1 for the second) have token_type_ids of the same shape beside them.

Packed weights keep their numbers; what the model has as floats becomes int8 beside them where `quantize` is given.

The file ends in a small zip archive, as files with TFLite metadata do (`unzip model.tflite`), with `tfmodels.json`:
facts that a runner needs beside the graph. Running needs NumPy and ai-edge-litert, not TensorFlow.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from tfmodels.export.artifact import ExportOptions, Signature
from tfmodels.export.extras import require
from tfmodels.export.litert.runner import (
    PROPERTIES,
    Forward,
    Generator,
    LiteRTRunner,
    open,
    properties_of,
    signatures_of,
)
from tfmodels.utils.text import quote

__all__ = ["Forward", "Generator", "LiteRTRunner", "check", "open", "properties_of", "signatures_of", "write"]


def check(model: Any, options: ExportOptions) -> None:
    """Raise where the export cannot work, before anything expensive happens.

    Raises:
        ImportError: a package of the `export` extra is missing.
        ValueError: an option does not fit the model, the model was quantised by Keras, or LiteRT has no place for its
            packed weights.
    """
    from tfmodels.export.litert.packed import check_packed
    from tfmodels.export.models import check_last_token, max_length_of, transformer_of

    require("ai_edge_litert", "export", "format='litert'")
    transformer = transformer_of(model)
    is_packed = transformer.packed_quantization is not None
    if options.quantize is not None or is_packed:
        require("ai_edge_quantizer", "export", f"quantize={quote(options.quantize)}")
    check_packed(transformer)
    if is_packed and options.dtype not in (None, "float32"):
        raise ValueError(
            f"dtype={quote(options.dtype)} and packed weights, whose integers the file keeps, both say how weights "
            f"are stored; leave dtype out."
        )
    quantised = transformer.keras_quantization
    if quantised is not None:
        raise ValueError(
            f"the model was quantised by Keras ({quantised}), which LiteRT's converter does not take: load it without "
            f'quantize() and export it with quantize="int8" or "int4".'
        )
    max_length_of(model, options.max_length)
    check_last_token(model)


def write(model: Any, target: Path, options: ExportOptions) -> list[Signature]:
    """Write the file."""
    from tfmodels.export.litert.convert import convert, quantize
    from tfmodels.export.litert.functions import causal_functions, forward_functions, lowering_of
    from tfmodels.export.litert.packed import packed_by_digest
    from tfmodels.export.models import causal, max_length_of, with_dtype, with_floats

    floats, stored = with_floats(model), _stored(model, options)
    kept = packed_by_digest(model, floats)
    model = with_dtype(floats, "float32")
    max_length = max_length_of(model, options.max_length)
    options.step("tracing the signatures")
    functions = (causal_functions if causal(model) else forward_functions)(model, max_length, lowering_of(kept))
    options.step("converting to LiteRT")
    content = convert(functions, target.parent, dtype=options.dtype or "float32")
    if options.quantize is not None or kept:
        options.step(f"quantising to {stored}")
        content = quantize(content, options.quantize, kept)
    target.write_bytes(content)
    properties = {
        "causal": causal(model),
        "max_length": max_length,
        "weights": stored,
        "eos_token_ids": list(model.generation_config.eos_token_ids) if causal(model) else [],
    }
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(PROPERTIES, json.dumps(properties))
    return signatures_of(target)


def _stored(model: Any, options: ExportOptions) -> str:
    """The least precise kind of a file's weights: "int4", "int8", or the name of a float dtype."""
    from tfmodels.export.models import transformer_of

    if packed := transformer_of(model).packed_quantization:
        return "int4" if "int4" in packed else "int8"  # what is not packed becomes int8 where `quantize` is given
    return options.quantize or options.dtype or "float32"
