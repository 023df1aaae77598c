"""Warnings that point to the line of the user's that caused them."""

from __future__ import annotations

import sys
import warnings

# Modules whose lines no user has written: this package, and what calls it back while it works for the user. AutoGraph
# runs a copy of a function in a module of its own.
_INNER = (__name__.partition(".")[0], "keras", "tensorflow", "jax", "contextlib", "functools")
_AUTOGRAPH = "__autograph_generated_file"


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and name as its place the first caller outside this package, Keras and the backends.

    However deep inside the package a warning arises, Python then shows the line that a user can change.

    Args:
        message: what is odd, and what happens.
        category: of the warning.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_inner(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_inner(module: str) -> bool:
    return module.partition(".")[0] in _INNER or module.startswith(_AUTOGRAPH)
