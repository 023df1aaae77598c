"""Checkpoints that come with the package, found by name; needs neither TensorFlow nor Keras."""

from __future__ import annotations

import os
from pathlib import Path

from tfmodels.utils.text import quote

_PACKAGE = Path(__file__).parents[1]
# Where a wheel puts them, and where a checkout (also an editable install) keeps them.
_PLACES = (_PACKAGE / "_bundled", _PACKAGE.parent / "saved_models")
NAMES = ("stories260K",)


def folder(name: str) -> Path:
    """The folder of a bundled checkpoint.

    Args:
        name: one of `NAMES`.

    Returns:
        Its folder, with config.json, model.safetensors and tokenizer.model.

    Raises:
        ValueError: no checkpoint of that name is bundled.
        FileNotFoundError: the installation lacks its files.

    Example:
        >>> from tfmodels.checkpoints.bundled import folder
        >>> (folder("stories260K") / "config.json").is_file()
        True
    """
    if name not in NAMES:
        raise ValueError(f"name={quote(name)} is not a bundled checkpoint; bundled are {', '.join(NAMES)}.")
    for place in _PLACES:
        if (place / name / "config.json").is_file():
            return place / name
    raise FileNotFoundError(
        f"the bundled checkpoint {quote(name)} is missing from this installation (looked in "
        f"{' and '.join(str(place / name) for place in _PLACES)}); reinstall tfmodels."
    )


def resolve(name_or_path: str | os.PathLike) -> str | os.PathLike:
    """The folder of the bundled checkpoint of that name; any other name, or that of a folder here, stays as it is.

    Example:
        >>> from tfmodels.checkpoints.bundled import resolve
        >>> resolve("stories260K").name
        'stories260K'
        >>> resolve("some/other-model")
        'some/other-model'
    """
    if name_or_path in NAMES and not os.path.isdir(name_or_path):
        return folder(os.fspath(name_or_path))
    return name_or_path
