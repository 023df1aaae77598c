"""`tfmodels export`: write a model for TensorFlow Serving, LiteRT, LiteRT-LM, ONNX or llama.cpp."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tfmodels.auto import DECODER_HEADS, ENCODER_HEADS, Family, family_of
from tfmodels.cli.common import (
    DTYPES,
    CommandError,
    Place,
    add_model,
    check_backend,
    check_weights,
    load_backend,
    place_of,
    read_config,
    transformer_of,
)
from tfmodels.export.formats import FORMATS, check_request
from tfmodels.utils.text import joined

HELP = "write a model for TensorFlow Serving, LiteRT, LiteRT-LM, ONNX or llama.cpp"
SENTENCE_ENCODER = "SentenceEncoder"
_QUANTIZED = tuple(dict.fromkeys(value for entry in FORMATS.values() for value in entry.quantized))
# The options that go to the format: its name for each, and the shell's.
_OPTIONS = {
    "dtype": "--dtype",
    "quantize": "--quantize",
    "signatures": "--signatures",
    "max_length": "--max-length",
    "version": "--model-version",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tfmodels export`."""
    add_model(parser)
    parser.add_argument("--to", required=True, choices=tuple(FORMATS), help="format")
    parser.add_argument(
        *("-o", "--output"),
        required=True,
        type=Path,
        metavar="PATH",
        help="where it goes: for saved_model the folder that holds the versions, else a file",
    )
    heads = (*dict.fromkeys((*DECODER_HEADS, *ENCODER_HEADS)), SENTENCE_ENCODER)
    parser.add_argument("--head", choices=heads, help="which model to make of the checkpoint (what it was saved as)")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (float32)")
    parser.add_argument("--quantize", choices=_QUANTIZED, help="store weights as small integers")
    parser.add_argument("--signatures", choices=("text",), help="text: the tokenizer inside, strings in")
    parser.add_argument("--max-length", type=int, metavar="N", help="most tokens, prompt and continuation together")
    parser.add_argument("--model-version", type=int, metavar="N", help="number of a SavedModel's version (1)")
    parser.add_argument("--verify", action="store_true", help="compare with the model and measure the latency")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there once the new one is complete")


def run(options: argparse.Namespace) -> None:
    """Check everything that can be wrong without TensorFlow, then load the model and write it."""
    settings = settings_of(options)
    check_request(options.output, options.to, overwrite=options.overwrite, **settings)
    check_backend(*FORMATS[options.to].backends, purpose=f"--to {options.to}")
    place = place_of(options)
    family, head = check_model(place, options)
    if "tokenizer" in FORMATS[options.to].options:
        settings["tokenizer"] = find_tokenizer(
            transformer_of(place)[0], required=options.signatures == "text" or options.to == "litert_lm"
        )
    load_backend()
    from rich.console import Console

    import tfmodels
    from tfmodels.export import export

    kind = getattr(tfmodels, head if head == SENTENCE_ENCODER else family.class_name(head))
    with Console(stderr=True).status("loading the model") as status:
        model = kind.from_pretrained(place.name, **place.options)
        report = export(
            model,
            options.output,
            options.to,
            overwrite=options.overwrite,
            verify=options.verify,
            on_step=status.update,
            **settings,
        )
    Console().print(report.table())


def find_tokenizer(place: Place, *, required: bool) -> Any:
    """The model's tokenizer, to lie in the artefact; None where there is none and none is required.

    Raises:
        OSError, ValueError: there is none, or its files are damaged.
    """
    from tfmodels.tokenization import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place.name, **place.options)
    except (OSError, ValueError):
        if required:
            raise
        return None


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options for the format that were given, by its own names.

    Raises:
        CommandError: the format does not take one of them.
    """
    given = {"version" if name == "model_version" else name: value for name, value in vars(options).items()}
    settings = {name: given[name] for name in _OPTIONS if given[name] is not None}
    for name in settings.keys() - FORMATS[options.to].options:
        takers = [f"--to {other}" for other, entry in FORMATS.items() if name in entry.options]
        own = [flag for other, flag in _OPTIONS.items() if other in FORMATS[options.to].options]
        raise CommandError(
            f"{_OPTIONS[name]} {settings[name]} is no option of --to {options.to}, which takes "
            f"{', '.join(own) or 'none of its kind'}; it goes with {joined(takers)}."
        )
    return settings


def check_model(place: Place, options: argparse.Namespace) -> tuple[Family, str]:
    """Find the model's family, head and weights.

    Returns:
        The family, and the head: the one that `--head` asks for, else the one that the checkpoint was saved with.

    Raises:
        CommandError: the family has no such head, or the format takes no model with it.
        OSError, ValueError: files are missing or damaged.
    """
    transformer, encodes = transformer_of(place)
    config = read_config(transformer)
    family, head = family_of(config), options.head
    if head is None and encodes:
        head = SENTENCE_ENCODER
    if head is None:
        saved_as = [f"TF{str(name).removeprefix('TF')}" for name in config.get("architectures") or ()]
        head = next((head for head in family.heads if family.class_name(head) in saved_as), "Model")
    if head not in (*family.heads, SENTENCE_ENCODER):
        raise CommandError(f"--head {head}: {family.stem} models have {', '.join(family.heads)}.")
    if options.to in ("litert_lm", "gguf") and head != "ForCausalLM":
        raise CommandError(f"--to {options.to} takes --head ForCausalLM, not {head}; --to litert takes it.")
    check_weights(transformer)
    return family, head
