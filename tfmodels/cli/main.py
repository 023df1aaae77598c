"""The `tfmodels` command.

Arguments are read before anything heavy is imported, so `--help` and mistakes answer at once. A sub-command is an
entry of `COMMANDS`: a function that adds its arguments to a parser, and one that runs it. Text goes to standard
output, everything about it (statistics, errors) to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfmodels import __version__
from tfmodels.utils.text import human_bytes

DEMO_MODEL = "stories260K"
DEMO_PROMPT = "Once upon a time"
DTYPES = ("float32", "bfloat16", "float16")

# Exit codes of a shell: an error, an interrupt, and a reader that went away (128 + the signal's number).
_ERROR, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141

# What TensorFlow's libraries print while they load, before their log level can be set: lines of level I, W or E.
_LOAD_NOISE = re.compile(r"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} |.{26}: [IWE] ")


class CommandError(Exception):
    """A mistake of the user's, told in one line."""


# Quiet start ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet_load() -> Iterator[None]:
    """Keep TensorFlow's chatter off standard error while it is imported; everything else is passed on afterwards.

    The lines come from C++ before any setting holds, so the file descriptor itself is turned to a file meanwhile.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as held, os.fdopen(os.dup(2), "w") as real:
        faulthandler.enable(real)  # a library that aborts while loading still says where
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real.fileno(), 2)
            faulthandler.disable()
            held.seek(0)
            sys.stderr.writelines(line for line in held if not _LOAD_NOISE.match(line))


def load_backend() -> Any:
    """Import TensorFlow, quietly unless TF_CPP_MIN_LOG_LEVEL asks for its messages."""
    with contextlib.nullcontext() if "TF_CPP_MIN_LOG_LEVEL" in os.environ else quiet_load():
        import keras  # noqa: F401  # it loads the rest of what models need
        import tensorflow as tf
    return tf


# inspect -------------------------------------------------------------------------------------------------------------


def add_inspect(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run_inspect(options: argparse.Namespace) -> None:
    report = inspect_checkpoint(options.model, **hub_options(options))
    if options.json:
        import json

        print(json.dumps(report, indent=2))
    else:
        print_report(report)


def inspect_checkpoint(name_or_path: str, **hub_options: Any) -> dict[str, Any]:
    """What `tfmodels inspect` shows: from config.json and the headers of the weights, without TensorFlow.

    Returns:
        folder, architecture, model_type, config (its plain values), format, parameters {total, parts {part: count},
        head_is_tied}, memory {dtype: bytes of all weights}, dtypes {dtype: {tensors, parameters, bytes}} as stored,
        files [{name, bytes, tensors, dtypes}].
    """
    from tfmodels.checkpoints import hub, reader
    from tfmodels.configs.base import read_config_file

    folder = hub.resolve(name_or_path, patterns=(*hub.CONFIG_FILES, hub.WEIGHT_FILES), **hub_options)
    gguf_file = hub_options.get("gguf_file")
    has_config = gguf_file or (folder / "config.json").is_file()
    config = read_config_file(folder, gguf_file=gguf_file) if has_config else {}
    parts: dict[str, int] = {}
    dtypes: dict[str, dict[str, int]] = {}
    files: dict[str, dict[str, Any]] = {}
    with reader.open_checkpoint(folder, gguf_file) as checkpoint:
        for path in checkpoint.files:
            files[path.name] = {"name": path.name, "bytes": path.stat().st_size, "tensors": 0, "dtypes": []}
        for name in checkpoint.names():
            tensor = checkpoint.info(name)
            count = 1
            for size in tensor.shape:
                count *= size
            parts[part_of(name)] = parts.get(part_of(name), 0) + count
            stored = dtypes.setdefault(tensor.dtype, {"tensors": 0, "parameters": 0, "bytes": 0})
            stored["tensors"] += 1
            stored["parameters"] += count
            stored["bytes"] += tensor.nbytes
            file = files[os.path.basename(tensor.file)]
            file["tensors"] += 1
            if tensor.dtype not in file["dtypes"]:
                file["dtypes"].append(tensor.dtype)
        form = checkpoint.format
    total = sum(parts.values())
    architectures = config.get("architectures") or ["?"]
    tied = "head" not in parts and bool(config.get("tie_word_embeddings"))
    return {
        "folder": str(folder),
        "architecture": architectures[0],
        "model_type": config.get("model_type", "?"),
        "config": {key: value for key, value in config.items() if isinstance(value, (int, float, str, bool))},
        "format": form,
        "parameters": {"total": total, "parts": parts, "head_is_tied": tied},
        "memory": {"float32": 4 * total, "bfloat16": 2 * total, "float16": 2 * total},
        "dtypes": dtypes,
        "files": list(files.values()),
    }


def part_of(name: str) -> str:
    """The part of a model that a tensor belongs to: "embeddings", "layer 3", "head", "final norm".

    Example:
        >>> [part_of(f"{name}.weight") for name in ("model.embed_tokens", "model.layers.3.mlp.up_proj", "lm_head")]
        ['embeddings', 'layer 3', 'head']
    """
    layer = re.search(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)\.", name)
    if layer:
        return f"layer {layer[1]}"
    if re.search(r"embed_out|lm_head|score|classifier|qa_outputs|(?:^|\.)head", name):
        return "head"
    if re.search(r"embed|wte|wpe", name):
        return "embeddings"
    if re.search(r"norm|ln_f", name):
        return "final norm"
    return "other"


def print_report(report: dict[str, Any]) -> None:
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
    """Parts in order as (name, parameters, how many alike), runs of equally large layers in one entry.

    Example:
        >>> group_equal_layers({"embeddings": 9, "layer 0": 5, "layer 1": 5, "layer 2": 7, "head": 9})
        [('embeddings', 9, 1), ('layers 0-1', 5, 2), ('layer 2', 7, 1), ('head', 9, 1)]
    """
    groups: list[list[Any]] = []  # [first layer's number or None, name, count, times]
    order = {"embeddings": -1, "final norm": sys.maxsize - 1, "head": sys.maxsize, "other": sys.maxsize - 2}
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


# generate ------------------------------------------------------------------------------------------------------------


def add_generate(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("prompt", help="text to continue; - reads it from standard input")
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="tokens to add at most (%(default)s)"
    )
    parser.add_argument("--do-sample", action="store_true", help="draw tokens at random instead of the likeliest")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="below 1 safer, above 1 wilder; implies --do-sample"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest; implies --do-sample")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="draw among the likeliest that sum to P; implies --do-sample"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="makes sampling repeat itself")
    parser.add_argument("--repetition-penalty", type=float, metavar="R", help="above 1 avoids what was said")
    parser.add_argument("--dtype", choices=(*DTYPES, "auto"), default="float32", help="of the weights (%(default)s)")
    parser.add_argument("--no-jit", action="store_true", help="run as a plain graph instead of compiling with XLA")


def run_generate(options: argparse.Namespace) -> None:
    from tfmodels.generation.config import GenerationConfig

    names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "repetition_penalty")
    settings = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    settings["do_sample"] = options.do_sample or not settings.keys().isdisjoint({"temperature", "top_k", "top_p"})
    GenerationConfig().update(**settings)  # a mistake is told before anything is loaded
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    model, tokenizer = load_model(options.model, dtype=options.dtype, **hub_options(options))
    statistics = write_story(model, tokenizer, prompt, jit_compile=not options.no_jit, **settings)
    print(statistics, file=sys.stderr)


def load_model(name_or_path: str, *, dtype: str = "float32", **hub_options: Any) -> tuple[Any, Any]:
    """A causal language model and its tokenizer."""
    load_backend()
    from tfmodels import AutoTokenizer, TFAutoModelForCausalLM

    model = TFAutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype, **hub_options)
    return model, AutoTokenizer.from_pretrained(name_or_path, **hub_options)


def write_story(model: Any, tokenizer: Any, prompt: str, **settings: Any) -> str:
    """Write a prompt and its continuation to standard output as tokens arrive. Returns a line of statistics."""
    import numpy as np

    from tfmodels.generation.streamers import TextStreamer, write_to_stdout

    class Timed(TextStreamer):
        """Notes when how many tokens arrive; the prompt comes with the first of them."""

        def __init__(self, **options: Any):
            super().__init__(tokenizer, **options)
            self.arrivals: list[tuple[float, int]] = []

        def put(self, ids: Any) -> None:
            if not self.arrivals:
                write_to_stdout(prompt)
            self.arrivals.append((time.perf_counter(), np.shape(ids)[1]))
            super().put(ids)

    inputs = tokenizer([prompt], return_tensors="np")
    streamer = Timed(prompt_ids=inputs["input_ids"][0].tolist())
    start = time.perf_counter()
    model.generate(**inputs, streamer=streamer, **settings)
    write_to_stdout("\n")
    return describe_speed(start, streamer.arrivals)


def describe_speed(start: float, arrivals: list[tuple[float, int]]) -> str:
    """A line on how fast tokens came, from (time in s, tokens) of each chunk.

    The second chunk may still compile the loop, so speed is counted from its arrival on.

    Example:
        >>> describe_speed(0.0, [(1.0, 1), (3.0, 4), (3.1, 10), (3.2, 10)])
        '25 tokens in 3.20 s; first after 1.00 s (with compilation), then 100 tokens/s'
    """
    total = sum(count for _, count in arrivals)
    if not arrivals:
        return "0 tokens"
    first, last = arrivals[0][0], arrivals[-1][0]
    line = f"{total} tokens in {last - start:.2f} s; first after {first - start:.2f} s (with compilation)"
    later, seconds = sum(count for _, count in arrivals[2:]), last - arrivals[min(1, len(arrivals) - 1)][0]
    return f"{line}, then {later / seconds:,.0f} tokens/s" if later and seconds > 0 else line


# embed ---------------------------------------------------------------------------------------------------------------


def add_embed(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("texts", metavar="FILE", help="UTF-8 text file, one text per line; - reads standard input")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.npy", help="where the vectors go")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts at a time (%(default)s)")
    parser.add_argument("--normalize", action="store_true", help="scale the vectors to length 1")
    parser.add_argument("--dtype", choices=(*DTYPES, "auto"), default="float32", help="of the weights (%(default)s)")


def run_embed(options: argparse.Namespace) -> None:
    # Mistakes are told before anything is loaded.
    if options.batch_size < 1:
        raise CommandError(f"--batch-size {options.batch_size}: a positive number was expected.")
    if options.output.suffix != ".npy" or not options.output.parent.is_dir():
        raise CommandError(f"--output {options.output}: a name ending in .npy in an existing folder was expected.")
    lines = read_lines(options.texts)
    load_backend()
    import numpy as np

    from tfmodels import SentenceEncoder

    encoder = SentenceEncoder.from_pretrained(options.model, dtype=options.dtype, **hub_options(options))
    start = time.perf_counter()
    vectors = encoder.encode(
        lines, batch_size=options.batch_size, normalize=options.normalize, show_progress=sys.stderr.isatty()
    )
    seconds = time.perf_counter() - start
    temporary = options.output.with_name(f".{options.output.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.save(file, vectors)
        temporary.replace(options.output)
    finally:
        temporary.unlink(missing_ok=True)
    rows, width = vectors.shape
    print(f"{options.output}: {rows} vectors of {width} in {seconds:.2f} s", file=sys.stderr)


def read_lines(file: str) -> list[str]:
    """The lines of a UTF-8 file, or of standard input for "-": one vector belongs to each, so none may be empty."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not UTF-8 text ({error}).") from error
    lines = text.split("\n")
    lines = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    empty = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if empty or not lines:
        raise CommandError(f"{file}: " + (f"line {empty} is empty." if empty else "there is no text."))
    return lines


# export --------------------------------------------------------------------------------------------------------------

EXPORT_FORMATS = ("saved_model", "litert", "litert_lm", "onnx")
SENTENCE_ENCODER = "SentenceEncoder"


def add_export(parser: argparse.ArgumentParser) -> None:
    from tfmodels.auto import DECODER_HEADS, ENCODER_HEADS

    add_model(parser)
    parser.add_argument("--to", required=True, choices=EXPORT_FORMATS, help="format")
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
    parser.add_argument("--quantize", choices=("int8", "int4"), help="store weights as small integers")
    parser.add_argument("--signatures", choices=("text",), help="text: the tokenizer inside, strings in")
    parser.add_argument("--max-length", type=int, metavar="N", help="most tokens, prompt and continuation together")
    parser.add_argument("--model-version", type=int, metavar="N", help="number of a SavedModel's version (1)")
    parser.add_argument("--verify", action="store_true", help="compare with the model and measure the latency")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there once the new one is complete")


def run_export(options: argparse.Namespace) -> None:
    load_backend()
    from rich.console import Console

    from tfmodels.export import check_request, export

    names = ("dtype", "quantize", "signatures", "max_length")
    settings = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.model_version is not None:
        settings["version"] = options.model_version
    try:
        check_request(options.output, options.to, overwrite=options.overwrite, **settings)
        with Console(stderr=True).status("loading the model") as status:
            model = load_for_export(options)
            if options.signatures == "text" or options.to == "litert_lm":
                from tfmodels import AutoTokenizer

                own = getattr(model, "tokenizer", None)
                settings["tokenizer"] = own or AutoTokenizer.from_pretrained(options.model, **hub_options(options))
            report = export(
                model,
                options.output,
                options.to,
                overwrite=options.overwrite,
                verify=options.verify,
                on_step=status.update,
                **settings,
            )
    except ImportError as error:
        raise CommandError(str(error)) from error
    Console().print(report.table())


def load_for_export(options: argparse.Namespace) -> Any:
    """The checkpoint as the model that `--head` asks for, else as what it was saved as."""
    import tfmodels
    from tfmodels.auto import family_of
    from tfmodels.checkpoints import hub
    from tfmodels.configs.base import read_config_file
    from tfmodels.sentence.files import MODULES_NAME

    place, head = hub_options(options), options.head
    if head is None and not options.gguf_file:
        folder = hub.resolve(options.model, patterns=("*.json",), **place)
        if (folder / MODULES_NAME).is_file():
            head = SENTENCE_ENCODER
    if head == SENTENCE_ENCODER:
        return tfmodels.SentenceEncoder.from_pretrained(options.model, **place)
    config = read_config_file(options.model, **place)
    family = family_of(config)
    if head is None:
        saved_as = [str(name).removeprefix("TF") for name in config.get("architectures") or ()]
        head = next((head for head in family.heads if family.stem + head in saved_as), "Model")
    if head not in family.heads:
        raise CommandError(f"--head {head}: {family.stem} models have {', '.join(family.heads)}.")
    return getattr(tfmodels, f"TF{family.stem}{head}").from_pretrained(options.model, **place)


# demo ----------------------------------------------------------------------------------------------------------------


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt", default=DEMO_PROMPT, help="how the story begins (%(default)r)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=200, metavar="N", help="length of the story (%(default)s)"
    )


def run_demo(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, highlight=False)
    console.print(f"tfmodels {__version__}: loading TensorFlow and the bundled model {DEMO_MODEL} ...", style="dim")
    tf = load_backend()
    started = time.perf_counter()
    model, tokenizer = load_model(DEMO_MODEL)
    console.print(
        f"{type(model).__name__}, {model.count_params():,} parameters, in {time.perf_counter() - started:.2f} s\n",
        style="dim",
    )
    statistics = write_story(model, tokenizer, options.prompt, max_new_tokens=options.max_new_tokens, do_sample=False)
    console.print(f"\n{statistics}\n", style="dim")

    new, inputs = 24, tokenizer([options.prompt], return_tensors="np")
    table = Table(title=f"{new} greedy tokens, three ways", title_justify="left")
    for column, justify in (("way", "left"), ("first call", "right"), ("again", "right"), ("ids", "left")):
        table.add_column(column, justify=justify)
    rows = {}
    for way, eagerly, jit in (("eager", True, False), ("graph", False, False), ("XLA", False, True)):
        seconds = []
        tf.config.run_functions_eagerly(eagerly)
        try:
            for _ in range(2):
                start = time.perf_counter()
                ids = model.generate(**inputs, max_new_tokens=new, do_sample=False, jit_compile=jit).numpy().tolist()
                seconds.append(time.perf_counter() - start)
        finally:
            tf.config.run_functions_eagerly(False)
        rows[way] = ids
        table.add_row(way, *(f"{s:.3f} s" for s in seconds), "the same" if ids == rows["eager"] else "different")
    Console(highlight=False).print(table)
    if any(ids != rows["eager"] for ids in rows.values()):
        raise CommandError("eager, graph and XLA wrote different tokens; please report this with your versions.")


# The command ---------------------------------------------------------------------------------------------------------


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="folder, hub id, or the bundled stories260K")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument("--gguf-file", metavar="NAME", help="read this GGUF file of the folder or repository")
    parser.add_argument("--local-files-only", action="store_true", help="take what was downloaded before, ask no hub")


def hub_options(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `from_pretrained` for the hub, those that were given."""
    names = ("revision", "local_files_only", "gguf_file")
    given = {name: getattr(options, name) for name in names}
    return {name: value for name, value in given.items() if value}


# name: (help, adds its arguments, runs it)
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], None]]] = {
    "demo": ("write a story with the bundled model and compare eager, graph and XLA", add_demo, run_demo),
    "embed": ("turn the lines of a text file into sentence vectors", add_embed, run_embed),
    "export": ("write a model for TensorFlow Serving, LiteRT, LiteRT-LM or ONNX", add_export, run_export),
    "generate": ("continue a text, printing it as it is written", add_generate, run_generate),
    "inspect": ("show a checkpoint's architecture, parameters, memory and files", add_inspect, run_inspect),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tfmodels", description="Transformer models as native Keras 3 models.")
    parser.add_argument("--version", action="version", version=f"tfmodels {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (help_text, add_arguments, _) in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        add_arguments(command)
        command.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 after one line on standard error."""
    options = make_parser().parse_args(arguments)
    try:
        COMMANDS[options.command][2](options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed its end. What is still buffered has nowhere to go, also at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        if options.debug or os.environ.get("TFMODELS_DEBUG", "") not in ("", "0"):
            raise
        print(f"tfmodels {options.command}: error: {describe_error(error)}", file=sys.stderr)
        return _ERROR
    return 0


def describe_error(error: Exception) -> str:
    """One line for any error: its message where it was written for users, else its type too.

    Example:
        >>> describe_error(ValueError("no such\\n  thing"))
        'no such thing'
        >>> describe_error(KeyError("x"))
        "KeyError: 'x' (--debug shows where)"
    """
    text = " ".join(str(error).split())
    if text and isinstance(error, (CommandError, ValueError, TypeError, OSError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


if __name__ == "__main__":
    sys.exit(main())
