"""The files that hold a model's configuration: `config.json` of a folder or the hub, or a GGUF file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfmodels.checkpoints import hub
from tfmodels.checkpoints.formats import gguf
from tfmodels.utils.files import check_finished
from tfmodels.utils.json_files import read_object

CONFIG_NAME = "config.json"
# Suffixes of files that hold no configuration, though people name them for the folder.
_WEIGHTS = (".gguf", ".safetensors", ".bin", ".h5", ".msgpack", ".pt", ".pth", ".ckpt", ".model")


@contextlib.contextmanager
def errors_name(place: str | os.PathLike) -> Iterator[None]:
    """Put the place of a configuration before errors about its values, where they do not name it."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError or os.fspath(place) in str(error):
            raise
        raise ValueError(f"{os.fspath(place)}: {error}") from error


def read_config_file(place: str | os.PathLike, **hub_options: Any) -> dict[str, Any]:
    """The raw dict of a model's `config.json`, or what a GGUF file says in its place.

    Args:
        place: folder, path of a JSON file, bundled model name, hub id, or an open `hub.Source`.
        **hub_options: as of `hub.resolve`.

    Raises:
        FileNotFoundError: no configuration there.
        ValueError: broken JSON.
    """
    if gguf_file := hub_options.get("gguf_file"):
        return gguf.read_header(hub.resolve(place, patterns=(), **hub_options) / gguf_file).config
    # os.path.isfile is False for a name that no file system takes. Of a file of weights hub.resolve says what to name.
    if isinstance(place, (str, os.PathLike)) and os.path.isfile(place) and Path(place).suffix not in _WEIGHTS:
        path = Path(place)
    else:
        path = hub.resolve(place, patterns=hub.CONFIG_FILES, **hub_options) / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no {CONFIG_NAME}: is it a model folder?")
    check_finished(path.parent)
    # Old files hold settings of generation, which never stop a model from loading; `from_dict` looks at the values.
    return read_object(path, nonfinite=True)
