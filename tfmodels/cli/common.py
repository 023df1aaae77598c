"""Parts that sub-commands share: the model argument and its checks, loading the backend, text from pipes."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tfmodels.utils.text import did_you_mean, quote

DTYPES = ("float32", "bfloat16", "float16")
BACKENDS = ("tensorflow", "jax")


class CommandError(Exception):
    """A user's mistake, told in one line."""


def describe_error(error: Exception) -> str:
    """One line for any error: its message where it was written for users, else its type too.

    Example:
        >>> describe_error(ValueError("no such\\n  thing"))
        'no such thing'
        >>> describe_error(KeyError("x"))
        "KeyError: 'x' (--debug shows where)"
        >>> describe_error(FileNotFoundError(2, "No such file or directory", "lines.txt"))
        "No such file or directory: 'lines.txt'"
        >>> describe_error(MemoryError())
        'there is not enough memory: ask for fewer tokens or rows, or a smaller dtype (--debug shows where)'
    """
    text = " ".join(str(error).split())
    if type(error).__name__ in ("ResourceExhaustedError", "MemoryError"):  # of TensorFlow and Python
        return "there is not enough memory: ask for fewer tokens or rows, or a smaller dtype (--debug shows where)"
    if isinstance(error, OSError) and error.strerror and error.filename:  # of the system: leave its number out
        return f"{error.strerror}: {quote(error.filename)}"
    if text and isinstance(error, (CommandError, ValueError, TypeError, OSError, ImportError)):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


# The backend ---------------------------------------------------------------------------------------------------------


def backend_name() -> str:
    """The backend that Keras will load: KERAS_BACKEND, else keras.json in Keras's folder, else TensorFlow."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        found = json.loads((folder / "keras.json").read_text("utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        found = None
    return found if isinstance(found, str) else "tensorflow"


def check_backend(*allowed: str, purpose: str = "tfmodels") -> None:
    """Check Keras's backend before it is loaded.

    Args:
        allowed: names of the backends that serve the purpose; default: all that tfmodels runs on.
        purpose: what needs it, for the message.

    Raises:
        CommandError: another backend is set, or it is not installed.
    """
    name, allowed = backend_name(), allowed or BACKENDS
    if name not in allowed:
        raise CommandError(
            f"KERAS_BACKEND is {quote(name)}; {purpose} needs {' or '.join(allowed)}"
            f"{did_you_mean(name, allowed)} (set KERAS_BACKEND, or backend in keras.json)."
        )
    if importlib.util.find_spec(name) is None:
        hint = ": pip install 'tfmodels[jax]'" if name == "jax" else ""
        raise CommandError(f"KERAS_BACKEND is {quote(name)}, which is not installed{hint}.")


def load_backend() -> Any:
    """Check Keras's backend, import it and return TensorFlow; `tfmodels.startup` keeps the start quiet."""
    check_backend()
    import keras  # noqa: F401  # it loads the rest of what models need
    import tensorflow as tf

    return tf


# The model argument --------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """The place of a model: its folder or hub id, and the arguments of `from_pretrained` that find it there."""

    name: str
    options: dict[str, Any]


def add_model(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add the argument that names a model, and the options that say where to look for it.

    Args:
        parser: gets the arguments.
        more: what else the model may be, for the help.
    """
    parser.add_argument("model", help=f"folder, GGUF file, hub id, or the bundled stories260K{more}")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument("--gguf-file", metavar="NAME", help="read this GGUF file of the folder or repository")
    parser.add_argument("--local-files-only", action="store_true", help="take what was downloaded before, ask no hub")


def place_of(options: argparse.Namespace) -> Place:
    """The place that the arguments of `add_model` name; a GGUF file stands for itself in its folder.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "tiny.gguf"
        >>> file.touch()
        >>> place = place_of(argparse.Namespace(
        ...     model=str(file), revision=None, local_files_only=False, gguf_file=None))
        >>> place.name == str(file.parent), place.options
        (True, {'gguf_file': 'tiny.gguf'})
    """
    from tfmodels.checkpoints import hub

    names = ("revision", "local_files_only", "gguf_file")
    found = {name: getattr(options, name) for name in names if getattr(options, name)}
    name, found = hub.gguf_in_folder(options.model, found)
    return Place(str(name), found)


def read_config(place: Place) -> dict[str, Any]:
    """The model's configuration as its file has it."""
    from tfmodels.configs.files import read_config_file

    return read_config_file(place.name, **place.options)


def transformer_of(place: Place) -> tuple[Place, bool]:
    """The place of a model's transformer, and whether it is a sentence encoder's (it may have a folder of its own).

    Raises:
        OSError, ValueError: there is no such model, or its modules.json is damaged.
    """
    from tfmodels.checkpoints import hub
    from tfmodels.sentence.config import MODULES_NAME, read_folder

    if "gguf_file" in place.options:
        return place, False
    folder = hub.resolve(place.name, patterns=("*.json",), **place.options)
    if not (folder / MODULES_NAME).is_file():
        return place, False
    parts = (place.options.get("subfolder", ""), read_folder(folder).transformer)
    inner = "/".join(part for part in parts if part)
    return Place(place.name, {**place.options, **({"subfolder": inner} if inner else {})}), True


def check_weights(place: Place) -> None:
    """Find the model's weights and read their headers, without TensorFlow.

    Raises:
        OSError, ValueError: there are none, or a file is damaged.
    """
    from tfmodels.checkpoints import hub, reader

    folder = hub.resolve(place.name, patterns=(*hub.CONFIG_FILES, hub.WEIGHT_FILES), **place.options)
    reader.open_checkpoint(folder, place.options.get("gguf_file")).close()


# Text ----------------------------------------------------------------------------------------------------------------


def read_text(file: str) -> str:
    """The text of a UTF-8 file, or of standard input for "-".

    Raises:
        CommandError: it is not UTF-8.
        OSError: there is no such file.
    """
    name = "standard input" if file == "-" else file
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(
            f"{name} is not UTF-8 text ({error.reason} at byte {error.start}); convert it, for example by "
            f"`iconv -f latin1 -t utf-8`."
        ) from error
