"""Export: models as files that run without tfmodels.

`export` (also `model.export(...)` and `tfmodels export`) is the one way in. A format is an entry of `FORMATS` and a
module of this package with

    OPTIONS: frozenset[str]                                  the options that it takes
    check(model, options) -> None                            raises before anything expensive happens
    write(model, target, options) -> list[Signature]         writes the artefact at `target`, a path that is free
    open(path) -> Runner                                     opens an artefact to run it

`tfmodels.export.artifact` defines these types and the safe writing around `write`, `tfmodels.export.verify` compares
an artefact with its source.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmodels.export.artifact import ExportOptions, Signature, check_place, replacing, size_of


@dataclasses.dataclass(frozen=True)
class Format:
    """An export format: its module, what its files' names end with (nothing: it is a folder), what such a folder has.

    A folder follows TensorFlow Serving's convention: `path/<version>/`.
    """

    module: str
    suffix: str = ""
    marker: str | None = None

    def load(self) -> Any:
        """The format's module."""
        return importlib.import_module(self.module)


FORMATS: dict[str, Format] = {
    "saved_model": Format("tfmodels.export.saved_model", marker="saved_model.pb"),
    "litert": Format("tfmodels.export.litert", suffix=".tflite"),
    "litert_lm": Format("tfmodels.export.litert_lm", suffix=".litertlm"),
    "onnx": Format("tfmodels.export.onnx", suffix=".onnx"),
}


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written. `print(report)` shows it as a table.

    Fields:
        path: the file, or the folder of the version.
        format: name of the format.
        bytes: size of all of it.
        signatures: what can be called.
        verification: how it compares with its source, where that was asked for.
    """

    path: Path
    format: str
    bytes: int
    signatures: tuple[Signature, ...]
    verification: Any = None

    @property
    def largest_difference(self) -> float | None:
        """Largest difference of any output from the source's; None where it was not verified."""
        return None if self.verification is None else self.verification.largest_difference

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds of one call, see `tfmodels.export.verify.VerifyReport`; None where it was not verified."""
        return None if self.verification is None else self.verification.latency_ms

    def table(self) -> Any:
        """The report as a `rich` table."""
        from rich.table import Table

        from tfmodels.utils.text import human_bytes

        table = Table(title=str(self.path), title_justify="left", show_header=False)
        table.add_row("format", self.format)
        table.add_row("size", human_bytes(self.bytes))
        for index, signature in enumerate(self.signatures):
            inputs, outputs = (_describe(tensors) for tensors in (signature.inputs, signature.outputs))
            table.add_row("" if index else "signatures", f"{signature.name}({inputs}) -> {outputs}")
        if self.verification is None:
            table.add_row("verified", "no")
        else:
            for label, text in self.verification.rows():
                table.add_row(label, text)
        return table

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        text = StringIO()
        Console(file=text, width=100).print(self.table())
        return text.getvalue().rstrip()


def _describe(tensors: dict[str, Any], most: int = 6) -> str:
    """Names of tensors, for people: a long list is cut."""
    names = list(tensors)
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def export(
    model: Any,
    path: str | os.PathLike,
    format: str = "saved_model",
    *,
    overwrite: bool = False,
    verify: bool = False,
    on_step: Callable[[str], None] | None = None,
    **options: Any,
) -> ExportReport:
    """Write a model in a format that runs without tfmodels.

    Args:
        model: a `TFPreTrainedModel` or `SentenceEncoder`.
        path: where it goes: for "saved_model" a folder, in which the version gets a folder of its own; else a file.
        format: "saved_model", "litert", "litert_lm" or "onnx".
        overwrite: replace what is there; it stays whole until the new artefact is complete.
        verify: compare what was written with the model before it takes its place, by `tfmodels.export.verify`.
        on_step: called with a line of text whenever another step begins.
        **options: of the format; None stands for the format's default. Formats take: `dtype` (weights), `quantize`
            ("int8", "int4"), `signatures` ("text": strings in), `max_length` (tokens), `tokenizer`, `version` (of a
            SavedModel), and others that their modules describe.

    Returns:
        What was written and, for verify=True, how it compares.

    Raises:
        ValueError: an unknown format, an option that the format does not take, or one that does not fit the model.
        TypeError: an option that no format has.
        ImportError: an extra is not installed; the message names it.
        FileExistsError: something is there and `overwrite` is False.
        OSError: the place cannot be written to.
        VerificationError: the artefact's results are not the model's; nothing was written then.

    Example:
        >>> import tempfile
        >>> from tfmodels import TFLlamaForSequenceClassification, LlamaConfig
        >>> config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2, pad_token_id=0)
        >>> report = export(TFLlamaForSequenceClassification(config), tempfile.mkdtemp() + "/classifier")
        >>> report.path.name, [signature.name for signature in report.signatures]
        ('1', ['serving_default', 'serving_int64'])
    """
    from tfmodels.layers import attention

    settings = check_request(path, format, overwrite=overwrite, **options)
    settings.step = on_step or (lambda text: None)
    found, target = FORMATS[format], settings.path
    module = found.load()
    module.check(model, settings)
    with replacing(target, overwrite=overwrite, marker=found.marker) as temporary:
        settings.step(f"writing {format}")
        with attention.portable():
            signatures = module.write(model, temporary, settings)
        verification = None
        if verify:
            from tfmodels.export.verify import verify as compare

            settings.step("comparing with the model")
            verification = compare(temporary, model)
    return ExportReport(target, format, size_of(target), tuple(signatures), verification)


def check_request(path: str | os.PathLike, format: str, *, overwrite: bool = False, **options: Any) -> ExportOptions:
    """Find the mistakes of an export that can be found without its model; arguments and errors as for `export`.

    Returns:
        The format's options, with `path`, the artefact's final place.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is unknown; formats are {', '.join(FORMATS)}.")
    found = FORMATS[format]
    settings = _options(format, found.load(), options)
    settings.path = _destination(Path(path), format, found, settings)
    check_place(settings.path, overwrite=overwrite, marker=found.marker)
    return settings


def _options(format: str, module: Any, given: dict[str, Any]) -> ExportOptions:
    """All options of a format, None where not given.

    Raises:
        ValueError: an option of other formats.
        TypeError: an option of none.
    """
    for name, value in given.items():
        if name in module.OPTIONS:
            continue
        takers = [other for other, entry in FORMATS.items() if other != format and name in entry.load().OPTIONS]
        if not takers:
            raise TypeError(
                f"export got an unknown argument {name!r}; {format} takes {', '.join(sorted(module.OPTIONS))}."
            )
        if value is not None:
            raise ValueError(
                f"{name}={value!r} is no option of format={format!r}; {' and '.join(takers)} take it, {format} takes "
                f"{', '.join(sorted(module.OPTIONS))}."
            )
    return ExportOptions(**{name: given.get(name) for name in sorted(module.OPTIONS)})


def _destination(path: Path, name: str, found: Format, options: ExportOptions) -> Path:
    if found.suffix:
        if path.suffix != found.suffix:
            raise ValueError(f"path={str(path)!r}: a {name} file's name ends in {found.suffix}.")
        return path
    version = 1 if options.version is None else options.version
    if type(version) is not int or version < 0:
        raise ValueError(f"version={version!r}; a whole number of 0 or more is expected.")
    return path / str(version)


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
