"""Reads vocabulary files; every error names the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfmodels.utils import files
from tfmodels.utils.json_files import parse_object
from tfmodels.utils.text import quote, shorten

MAX_BYTES = 512 << 20
"""Largest vocabulary file that is read; those of the largest models take some 35 MB."""
_FREE_IDS, _IDS_PER_TOKEN = 100_000, 8


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object from a file; see `tfmodels.utils.json_files.parse_object`."""
    return parse_object(read_bytes(path), str(path))


def read_text(path: str | Path) -> str:
    """Read a file of UTF-8 text."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error


def read_bytes(path: str | Path) -> bytes:
    """Read a whole file."""
    try:
        return files.read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise FileNotFoundError(f"No vocabulary file at {path}.") from None


@contextlib.contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Raise ValueError where the tokenizers library gives up on what a file holds.

    Args:
        what: what cannot be used, with the file's name, for the message.

    The library raises plain Exception, or TypeError and OverflowError for values of other kinds, and panics, which is
    a BaseException.
    """
    try:
        yield
    except (ValueError, OSError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{what} ({type(error).__name__}: {shorten(error)}).") from error


def check_ids(path: str | Path, vocabulary: dict[str, Any]) -> None:
    """Raise ValueError unless a file's ids are integers from 0 on without large gaps: backends count through them."""
    for token, index in vocabulary.items():
        if type(index) is not int or not 0 <= index < _FREE_IDS + _IDS_PER_TOKEN * len(vocabulary):
            raise ValueError(
                f"{path}: the token {quote(token)} has the id {quote(index)}; for {len(vocabulary)} tokens, integers "
                "from 0 on were expected."
            )
