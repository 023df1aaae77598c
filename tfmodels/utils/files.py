"""Write files so that a reader sees the old file or the whole new one."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    The content goes to a temporary file of its own beside the target, reaches the disk, and is then renamed. After an
    error the target is what it was.

    Args:
        path: the target; its folder exists.

    Yields:
        The temporary file, open for writing bytes.

    Example:
        >>> import pathlib, tempfile
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "settings.json"
        >>> with replacing_file(target) as file:
        ...     _ = file.write(b"{}")
        >>> target.read_bytes()
        b'{}'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            # Some file systems report a full disk only here, and it must be known before the target is replaced.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text in UTF-8 by `replacing_file`."""
    with replacing_file(path) as file:
        file.write(text.encode("utf-8"))
