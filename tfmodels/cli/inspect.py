"""`tfmodels inspect`: a checkpoint's architecture, parameters, memory and files, without loading a backend."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import types
from typing import Any

from tfmodels.cli.common import Place, add_model, place_of, read_config
from tfmodels.utils.text import human_bytes

HELP = "show a checkpoint's architecture, parameters, memory and files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tfmodels inspect`."""
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace) -> None:
    """Print a checkpoint's parameters, memory, files and configuration."""
    report = inspect_checkpoint(place_of(options))
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


def inspect_checkpoint(place: Place) -> dict[str, Any]:
    """Collect a report from config.json and the headers of the weights, without TensorFlow.

    Returns:
        folder (its absolute path), architecture, model_type, config (its plain values), format,
        parameters {total, parts {part: count}, head_is_tied}, memory {dtype, or "as stored": bytes of all weights},
        dtypes {dtype: {tensors, parameters, bytes}} as stored (quantised ones of GGUF files under their own names,
        such as "Q4_1", quantised layers of other files as one tensor each, such as "int4"), files [{name, bytes,
        tensors, dtypes}]. Buffers of old checkpoints are no parameters.
    """
    from tfmodels.checkpoints import hub, reader
    from tfmodels.checkpoints.quantized.methods import as_packed
    from tfmodels.checkpoints.quantized_names import SETTINGS, method_in

    gguf_file = place.options.get("gguf_file")
    try:
        folder = hub.resolve(place.name, patterns=(*hub.CONFIG_FILES, hub.WEIGHT_FILES), **place.options)
    except (OSError, ValueError):
        read_config(place)  # the same mistake, told with near names
        raise
    config = read_config(place) if gguf_file or (folder / "config.json").is_file() else {}
    parts: dict[str, int] = {}
    dtypes: dict[str, dict[str, int]] = {}
    files: dict[str, dict[str, Any]] = {}
    with reader.open_checkpoint(folder, gguf_file) as checkpoint:
        for path in checkpoint.files:
            files[path.name] = {"name": path.name, "bytes": path.stat().st_size, "tensors": 0, "dtypes": []}
        stored_bytes = 0
        for name in checkpoint.names():
            tensor = checkpoint.info(name)
            dtype, nbytes = tensor.packed or (tensor.dtype, tensor.nbytes)
            stored_bytes += nbytes
            file = files[os.path.basename(tensor.file)]
            file["tensors"] += 1
            if dtype not in file["dtypes"]:
                file["dtypes"].append(dtype)
        settings = {name: config[name] for name in SETTINGS if name in config}
        whole = as_packed(types.SimpleNamespace(**settings), checkpoint)
        # Integers are weights only where a method packed them that is not read here.
        unread = method_in(name for name in whole.names() if whole.packed(name) is None) is not None
        for name in whole.names():
            tensor = whole.info(name)
            count = math.prod(tensor.shape)
            if whole.packed(name) is None and is_buffer(name, tensor, integers=not unread):
                count = 0
            else:
                parts[part_of(name)] = parts.get(part_of(name), 0) + count
            dtype, nbytes = tensor.packed or (tensor.dtype, tensor.nbytes)
            stored = dtypes.setdefault(dtype, {"tensors": 0, "parameters": 0, "bytes": 0})
            stored["tensors"] += 1
            stored["parameters"] += count
            stored["bytes"] += nbytes
        form = checkpoint.format
    total = sum(parts.values())
    architectures = config.get("architectures") or ["?"]
    tied = "head" not in parts and bool(config.get("tie_word_embeddings"))
    return {
        "folder": os.path.abspath(folder),
        "architecture": architectures[0],
        "model_type": config.get("model_type", "?"),
        "config": {key: value for key, value in config.items() if isinstance(value, (int, float, str, bool))},
        "format": form,
        "parameters": {"total": total, "parts": parts, "head_is_tied": tied},
        "memory": {
            "as stored": stored_bytes,
            "float32": 4 * total,
            "bfloat16": 2 * total,
            "float16": 2 * total,
        },
        "dtypes": dtypes,
        "files": list(files.values()),
    }


def is_buffer(name: str, tensor: Any, *, integers: bool = True) -> bool:
    """Whether a tensor that is not packed is none of the model's parameters, but what PyTorch kept beside them.

    Args:
        name: in the file.
        tensor: its `TensorInfo`.
        integers: whether all integers and booleans are such, as position ids and causal masks are.
    """
    if re.search(r"\brotary_emb\.|\.masked_bias$", name):
        return True
    if re.search(r"\.(attn|attention)\.bias$", name) and len(tensor.shape) == 4:  # a causal mask, of floats too
        return True
    return integers and tensor.packed is None and re.match(r"u?int|bool", tensor.dtype) is not None


def part_of(name: str) -> str:
    """Name the part of a model that a tensor belongs to: "embeddings", "layer 3", "head", "pooler", "final norm".

    Example:
        >>> [part_of(f"{name}.weight") for name in ("model.embed_tokens", "model.layers.3.mlp.up_proj", "lm_head")]
        ['embeddings', 'layer 3', 'head']
    """
    layer = re.search(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)\.", name)
    if layer:
        return f"layer {layer[1]}"
    if re.search(r"embed_out|lm_head|score|classifier|qa_outputs|(?:^|\.)head", name):
        return "head"
    if "pooler" in name:
        return "pooler"
    if re.search(r"embed|wte|wpe", name):
        return "embeddings"
    if re.search(r"norm|ln_f", name):
        return "final norm"
    return "other"


def print_report(report: dict[str, Any]) -> None:
    """Print what `inspect_checkpoint` found as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    total = report["parameters"]["total"]
    console.print(f"[bold]{report['architecture']}[/]  (model_type {report['model_type']}, {report['format']})")
    console.print(report["folder"], style="dim", soft_wrap=True)

    def table(title: str, *columns: str) -> Table:
        result = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            result.add_column(column, justify="left" if index == 0 else "right")
        return result

    parameters = table("Parameters", "part", "parameters", "share")
    for part, count, times in group_equal_layers(report["parameters"]["parts"]):
        label = f"{part}, each" if times > 1 else part
        parameters.add_row(label, f"{count:,}", f"{times * count / max(total, 1):.1%}")
    if report["parameters"]["head_is_tied"]:
        parameters.add_row("head (the embeddings)", "0", "0.0%")
    parameters.add_section()
    parameters.add_row("total", f"{total:,}", "")
    memory = table("Memory for the weights", "dtype", "size")
    for dtype, size in report["memory"].items():
        memory.add_row(dtype, human_bytes(size))
    files = table("Files", "file", "size", "tensors", "dtypes")
    for file in report["files"]:
        files.add_row(file["name"], human_bytes(file["bytes"]), str(file["tensors"]), ", ".join(file["dtypes"]))
    settings = table("Configuration", "field", "value")
    for key, value in sorted(report["config"].items()):
        settings.add_row(key, str(value))
    for item in (parameters, memory, files, settings):
        console.print(item)


def group_equal_layers(parts: dict[str, int]) -> list[tuple[str, int, int]]:
    """List parts in order as (name, parameters, how many alike), with runs of equally large layers as one entry.

    Example:
        >>> group_equal_layers({"embeddings": 9, "layer 0": 5, "layer 1": 5, "layer 2": 7, "head": 9})
        [('embeddings', 9, 1), ('layers 0-1', 5, 2), ('layer 2', 7, 1), ('head', 9, 1)]
    """
    groups: list[list[Any]] = []  # [first layer's number or None, name, count, times]
    last = ("other", "final norm", "pooler", "head")
    order = {"embeddings": -1} | {name: sys.maxsize - len(last) + place for place, name in enumerate(last)}
    for name, count in sorted(parts.items(), key=lambda item: order.get(item[0], number_of(item[0]))):
        number = number_of(name)
        last = groups[-1] if groups else None
        if last and number >= 0 and last[0] is not None and last[2] == count and last[0] + last[3] == number:
            last[3] += 1
        else:
            groups.append([number if number >= 0 else None, name, count, 1])
    return [(name if n == 1 else f"layers {first}-{first + n - 1}", count, n) for first, name, count, n in groups]


def number_of(part: str) -> int:
    """The number of a part called "layer N", else -1."""
    return int(part.split()[1]) if part.startswith("layer ") else -1
