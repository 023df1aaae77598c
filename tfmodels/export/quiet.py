"""What TensorFlow tells of an export that works, kept off the terminal."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keep TensorFlow from telling what is as it should be.

    When it writes: per cache tensor, that dots in its name become underscores in Python. When it reads or
    converts: per function, that it has no gradient.
    """
    logger = logging.getLogger("absl")

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger.addFilter(is_error)  # not by the logger's level, which others set meanwhile
    try:
        yield
    finally:
        logger.removeFilter(is_error)
