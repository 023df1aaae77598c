"""Reads vocabulary files; every error names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfmodels.utils.json_files import parse_object


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object from a file; see `tfmodels.utils.json_files.parse_object`."""
    return parse_object(read_bytes(path), str(path))


def read_text(path: str | Path) -> str:
    """Read a file of UTF-8 text."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}.") from error


def read_bytes(path: str | Path) -> bytes:
    """Read a whole file."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"No vocabulary file at {path}.") from None
