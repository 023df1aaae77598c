"""Read and write JSON objects; every JSON file of the package goes through here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tfmodels.utils.files import write_text
from tfmodels.utils.text import quote


def parse_object(text: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object from untrusted bytes.

    Args:
        text: UTF-8.
        what: what the text is, for messages ("model.safetensors: the header").

    Raises:
        ValueError: it is not UTF-8, not JSON, nested too deeply, not an object, or says one key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in pairs:
            if key in value:
                raise ValueError(f"{what} has the key {quote(key)} twice.")
            value[key] = item
        return value

    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{what} is not valid JSON: it is not UTF-8 text ({error.reason} at byte {error.start})."
        ) from error
    try:
        value = json.loads(decoded, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{what} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except RecursionError as error:
        raise ValueError(f"{what} is not valid JSON: it is nested too deeply.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{what} holds a JSON {type(value).__name__}; an object was expected.")
    return value


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as in `parse_object`; the message names the file.
    """
    return parse_object(Path(path).read_bytes(), str(path))


def write_object(path: str | os.PathLike[str], value: Any, *, sort_keys: bool = False) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    write_text(path, json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False) + "\n")
