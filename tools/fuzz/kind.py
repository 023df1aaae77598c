"""A kind of file: how a damaged one is made, and what reads it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of file."""

    write: Callable[[random.Random, Path], None]
    """Writes a damaged file, and the good ones that belong to it, into a folder."""
    read: Callable[[Path], None]
    prepare: Callable[[], None] = lambda: None
    """Imports what `read` needs, before worker processes start."""
