"""Packages of the extras: imported where they are needed, with a message that says how to install them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


def require(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an extra.

    Args:
        module: its dotted name.
        extra: the extra of setup.cfg that installs it.
        purpose: what needs it, for the message.

    Returns:
        The module.

    Raises:
        ImportError: it is not installed; the message says how to.

    Example:
        >>> require("no_such_module", "export", "format='litert'")
        Traceback (most recent call last):
            ...
        ImportError: format='litert' needs no_such_module, which is not installed: pip install 'tfmodels[export]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise ImportError(
            f"{purpose} needs {error.name}, which is not installed: pip install 'tfmodels[{extra}]'"
        ) from error


def check_installed(module: str, extra: str, purpose: str) -> None:
    """Raise what `require` would, without importing the module."""
    try:
        found = importlib.util.find_spec(module)
    except ValueError:  # sys.modules holds None for it
        found = None
    if found is None:
        raise ImportError(f"{purpose} needs {module}, which is not installed: pip install 'tfmodels[{extra}]'")
