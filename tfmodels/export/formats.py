"""The export formats, and the checks of a request that need neither a model nor TensorFlow.

A format is an entry of `FORMATS` and a module with

    check(model, options) -> None                            raises before anything expensive happens
    write(model, target, options) -> list[Signature]         writes the artefact at `target`, a path that is free
    open(path) -> Runner                                     opens an artefact to run it
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

from tfmodels.dtypes import dtype_name
from tfmodels.export.artifact import ExportOptions
from tfmodels.export.extras import check_installed
from tfmodels.export.staging import check_place
from tfmodels.utils.text import did_you_mean, joined, quote


@dataclasses.dataclass(frozen=True)
class Format:
    """An export format.

    A format without a suffix is a folder and follows TensorFlow Serving's convention: `path/<version>/`.

    Fields:
        module: dotted name of the module that writes and opens it.
        title: what people call such an artefact, with its article.
        suffix: what its files' names end with; "" for a folder.
        marker: a file that every such folder has.
        options: names of the options that it takes.
        dtypes: the dtypes that weights can have in it.
        needs: modules of the extra that have to be installed.
        extra: the extra's name.
        quantized: values of `quantize`, where it is an option.
        needs_to_quantize: a module that `quantize` needs beside them.
        backends: Keras backends that it can be written from; () for all.
        aliases: other names that people know it by.
    """

    module: str
    title: str = ""
    suffix: str = ""
    marker: str | None = None
    options: frozenset[str] = frozenset()
    dtypes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    extra: str = "export"
    quantized: tuple[str, ...] = ("int8", "int4")
    needs_to_quantize: tuple[str, ...] = ("ai_edge_quantizer",)
    backends: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import the format's module."""
        return importlib.import_module(self.module)


# The options: dtype of the weights (and, in a SavedModel, of the computation); quantize, "int8" or "int4" weights, for
# LiteRT with activations quantised on the fly, for GGUF under llama.cpp's names, too; max_length, most tokens of
# prompt and continuation together, or of a text (default: the model's context, at most 2048); tokenizer, an object or
# where to find one; and of a SavedModel: signatures ("text": strings in), version (the folder's number), jit_compile
# (whether XLA compiles `generate`; default: yes), batch_sizes (rows that `generate` decodes at a time; larger requests
# take several turns; default: 1 and 8).
_LITERT = frozenset({"dtype", "quantize", "max_length"})
FORMATS: dict[str, Format] = {
    "saved_model": Format(
        "tfmodels.export.saved_model",
        title="a SavedModel",
        marker="saved_model.pb",
        options=frozenset({"dtype", "signatures", "max_length", "version", "tokenizer", "jit_compile", "batch_sizes"}),
        dtypes=("float32", "float16", "bfloat16"),
        backends=("tensorflow",),
        aliases=("tf_saved_model",),
    ),
    "litert": Format(
        "tfmodels.export.litert",
        title="a LiteRT file",
        suffix=".tflite",
        options=_LITERT,
        dtypes=("float32", "float16"),
        needs=("ai_edge_litert",),
        backends=("tensorflow",),
    ),
    "litert_lm": Format(
        "tfmodels.export.litert_lm",
        title="a LiteRT-LM file",
        suffix=".litertlm",
        options=_LITERT | {"tokenizer"},
        dtypes=("float32", "float16"),
        needs=("litert_lm_builder", "ai_edge_litert"),
        backends=("tensorflow",),
    ),
    "onnx": Format(
        "tfmodels.export.onnx",
        title="an ONNX file",
        suffix=".onnx",
        needs=("onnx", "tf2onnx", "onnxruntime"),
        backends=("tensorflow",),
    ),
    "gguf": Format(
        "tfmodels.export.gguf",
        title="a GGUF file",
        suffix=".gguf",
        options=frozenset({"dtype", "quantize", "tokenizer"}),
        dtypes=("float32", "float16", "bfloat16"),
        needs=("gguf",),
        extra="gguf",
        quantized=("int8", "int4", "q8_0", "q4_0", "q4_1"),
        needs_to_quantize=(),
    ),
}
# Keras's formats that are not here, and what to do instead.
_ELSEWHERE = {
    "openvino": "export to 'onnx' or 'saved_model', which OpenVINO reads",
    "torch": "save_pretrained writes a checkpoint that PyTorch's classes load",
}


def format_named(name: str) -> str:
    """The format that a name stands for: its own, or one that Keras and others have for it.

    Raises:
        ValueError: there is no such format; the message names the nearest.

    Example:
        >>> format_named("tf_saved_model"), format_named("onnx")
        ('saved_model', 'onnx')
    """
    for known, entry in FORMATS.items():
        if name == known or name in entry.aliases:
            return known
    if name in _ELSEWHERE:
        raise ValueError(f"format={quote(name)} is not written by tfmodels: {_ELSEWHERE[name]}.")
    raise ValueError(
        f"format={quote(name)} is unknown; formats are {', '.join(FORMATS)}{did_you_mean(name, FORMATS) or '.'}"
    )


def check_request(path: str | os.PathLike, format: str, *, overwrite: bool = False, **options: Any) -> ExportOptions:
    """Find the mistakes of an export that can be found without its model and TensorFlow.

    Arguments and errors are those of `tfmodels.export.export`.

    Returns:
        The format's options, with `path`, the artefact's final place.
    """
    format = format_named(format)
    found = FORMATS[format]
    settings = _options(format, found, options)
    if not os.fspath(path):  # Python takes it for the folder that it works in
        raise ValueError("path is empty; where to write was expected.")
    settings.path = _destination(Path(path), format, found, settings)
    check_place(settings.path, overwrite=overwrite, marker=found.marker)
    for module in found.needs:
        check_installed(module, found.extra, f"format={quote(format)}")
    for module in found.needs_to_quantize if settings.quantize is not None else ():
        check_installed(module, found.extra, f"quantize={quote(settings.quantize)}")
    if settings.signatures == "text":
        check_installed("tensorflow_text", "text", "signatures='text'")
    return settings


def _options(format: str, found: Format, given: dict[str, Any]) -> ExportOptions:
    """All options of a format, None where not given.

    Raises:
        ValueError: an option of other formats, or a value that no model makes right.
        TypeError: an option of none.
    """
    own = f"takes {', '.join(sorted(found.options))}" if found.options else "takes no options"
    for name, value in given.items():
        if name in found.options:
            continue
        takers = [other for other, entry in FORMATS.items() if name in entry.options]
        if not takers:
            known = {option for entry in FORMATS.values() for option in entry.options}
            raise TypeError(
                f"export got an unknown argument {quote(name)}{did_you_mean(name, known)}; {format} {own}."
            )
        if value is not None:
            take = "takes" if len(takers) == 1 else "take"
            raise ValueError(
                f"{name}={quote(value)} is no option of format={quote(format)}; {joined(takers)} {take} it, "
                f"{format} {own}."
            )
    names = sorted({option for entry in FORMATS.values() for option in entry.options})
    settings = ExportOptions(**{name: given.get(name) for name in names})
    _check_values(found, settings)
    return settings


def _check_values(found: Format, options: ExportOptions) -> None:
    """Normalise the dtype to its name, and raise ValueError for values of options that fit no model."""
    given = options.dtype
    options.dtype = given and dtype_name(given)
    if given is not None and options.dtype not in found.dtypes:
        raise ValueError(f"dtype={quote(given)}; {found.title} has {' or '.join(found.dtypes)}.")
    if options.quantize not in (None, *found.quantized):
        raise ValueError(f"quantize={quote(options.quantize)}; {' or '.join(found.quantized)} is expected.")
    if options.quantize is not None and options.dtype is not None:
        raise ValueError(
            f"dtype={quote(options.dtype)} and quantize={quote(options.quantize)} both say how weights are "
            "stored; give one."
        )
    if options.signatures not in (None, "text"):
        raise ValueError(f'signatures={quote(options.signatures)}; "text" or nothing is expected.')
    length = options.max_length
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 2):
        raise ValueError(f"max_length={quote(length)}; a whole number of 2 or more is expected.")
    sizes = options.batch_sizes
    if sizes is not None and not (
        isinstance(sizes, (tuple, list)) and sizes and all(type(size) is int and size > 0 for size in sizes)
    ):
        raise ValueError(f"batch_sizes={quote(sizes)}; positive whole numbers are expected.")


def _destination(path: Path, name: str, found: Format, options: ExportOptions) -> Path:
    """The final place of an artefact: the file, or the folder of the version.

    Raises:
        ValueError: the file's name has another suffix, or a folder's that of a file; the version is no whole number.
    """
    if found.suffix:
        if path.suffix != found.suffix:
            kind = found.title or f"a {name} file"
            raise ValueError(f"path={quote(str(path))}: {kind}'s name ends in {found.suffix}.")
        return path
    meant = next((other for other, entry in FORMATS.items() if entry.suffix and path.suffix == entry.suffix), None)
    if meant is not None:
        raise ValueError(
            f"path={quote(str(path))} is named as {FORMATS[meant].title}, and {found.title} is a folder: give "
            f"format={quote(meant)}, or a path without {path.suffix}."
        )
    version = options.version
    if version is None and path.name.isdecimal() and path.name.isascii():
        return path  # the version's own folder
    version = 1 if version is None else version
    if type(version) is not int or version < 0:
        raise ValueError(f"version={quote(version)}; a whole number of 0 or more is expected.")
    return path if path.name == str(version) else path / str(version)


def format_of(path: str | os.PathLike) -> str:
    """The name of the format that an artefact has, by its file's name.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is of no known format.

    Example:
        >>> format_of("no/such.tflite")
        Traceback (most recent call last):
            ...
        FileNotFoundError: no/such.tflite does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    for name, found in FORMATS.items():
        if path.is_dir() if found.marker else path.suffix == found.suffix:
            return name
    raise ValueError(f"{path} is no artefact of a known format: {', '.join(FORMATS)}.")
