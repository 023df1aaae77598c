"""Keep TensorFlow's warnings about an export that works off the terminal."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Drop TensorFlow's warnings, and keep its errors.

    An export that works brings two kinds. Writing warns for each cache tensor that dots in its name become underscores
    in Python; reading and converting warn for each function that it has no gradient.
    """
    logger = logging.getLogger("absl")

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger.addFilter(is_error)  # not by the logger's level, which others set meanwhile
    try:
        yield
    finally:
        logger.removeFilter(is_error)
