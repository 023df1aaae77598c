"""Export: models as files that run without tfmodels.

`export` (also `model.export(...)` and `tfmodels export`) is the one way in. `formats` lists the formats and checks
requests, a module per format writes and opens artefacts, `staging` puts them in place safely, and `verify` compares
them with their source.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tfmodels.export.formats import FORMATS, Format, check_request, format_named, format_of
from tfmodels.export.report import ExportReport
from tfmodels.export.staging import replacing, size_of

__all__ = ["FORMATS", "ExportReport", "Format", "check_request", "export", "format_of"]


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
        format: "saved_model", "litert", "litert_lm", "onnx" or "gguf".
        overwrite: replace what is there; it stays whole until the new artefact is complete.
        verify: compare what was written with the model before it takes its place, by `tfmodels.export.verify`.
        on_step: called with a line of text whenever another step begins.
        **options: of the format; None stands for the format's default. Formats take: `dtype` (weights), `quantize`
            ("int8", "int4"; of a GGUF file "q8_0", "q4_0" and "q4_1", too), `signatures` ("text": strings in),
            `max_length` (tokens), `tokenizer`, `version` (of a SavedModel), and others that their modules describe.

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
        ('1', ['serving_default', 'serving_int64', 'serving_lengths'])
    """
    format = format_named(format)
    settings = check_request(path, format, overwrite=overwrite, **options)
    settings.step = on_step or (lambda text: None)
    found, target = FORMATS[format], settings.path
    module = found.load()
    module.check(model, settings)
    with replacing(target, overwrite=overwrite, marker=found.marker) as temporary:
        settings.step(f"writing {format}")
        signatures = module.write(model, temporary, settings)
        verification = None
        if verify:
            from tfmodels.export.verify import verify as compare

            settings.step("comparing with the model")
            verification = compare(temporary, model)
    return ExportReport(target, format, size_of(target), tuple(signatures), verification)
