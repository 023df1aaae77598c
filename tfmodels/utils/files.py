"""Read files with a bound on their size, and write them so that a reader sees the old ones or the whole new ones.

`replacing_file` and `write_text` replace one file, `staged` several that belong together. All of them write into
hidden temporaries beside the target, whose names say which process made them, so that the next writer removes what a
process left that was killed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tfmodels.utils.text import shorten

MARKER_NAME = ".unfinished-save"
"""Lies in a folder while the files of one save take their names there."""

_TEMPORARY = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{12}\.tmp", re.DOTALL)
_FILE_NAME = re.compile(r"[^/\\:\0]+")
_MAX_NAME_BYTES = 255
_DAY = 24 * 60 * 60
# Names of temporaries that this process is writing: its number alone does not say so, as numbers are used again.
_in_use: set[str] = set()


class UnfinishedSaveError(ValueError):
    """A folder's files may belong to two saves, because a process was killed while they took their names."""


def read_bytes(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        path: the file.
        limit: bytes that it may have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `path` is a folder, a pipe or a device, whose reading might never end, or the file is larger than
            `limit`.

    Example:
        >>> read_bytes("/dev/null")
        Traceback (most recent call last):
        ValueError: /dev/null is a device, not a file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise ValueError(f"{path} has {size} bytes; such a file is read up to {limit}.")
        return file.read() if limit is None else file.read(limit)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading, if it is a regular one; errors as in `read_bytes`."""
    # A pipe without a writer would make a plain open wait for ever.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        names = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
        raise ValueError(f"{path} is a {names.get(kind, 'socket')}, not a file.")
    return os.fdopen(handle, "rb")


def is_file_name(name: object) -> bool:
    """Whether a value from a file or a caller is the name of one file, without any folder, on every system.

    Example:
        >>> is_file_name("model.safetensors"), is_file_name("../model"), is_file_name("x" * 300), is_file_name(3)
        (True, False, False, False)
    """
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name) or name in (".", ".."):
        return False
    try:
        return len(name.encode("utf-8")) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        OSError: it cannot be made; the message shows the start of a path that is too long.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, shorten(path)) from None


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    The content goes to a temporary file of its own beside the target, reaches the disk, and is then renamed. After an
    error the target is what it was. A symbolic link at `path` is replaced; what it leads to is left alone.

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
    sweep(path.parent)
    with _temporary(path) as temporary:
        with open(temporary, "xb") as file:
            yield file
            sync(file)
        os.replace(temporary, path)
        sync_folder(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text in UTF-8 by `replacing_file`."""
    content = text.encode("utf-8")
    with replacing_file(path) as file:
        file.write(content)


class Staged:
    """Files that will replace those of a folder together; made by `staged`.

    Attributes:
        target: the folder whose files are replaced.
        folder: an empty folder inside it, where to write.
        last: names of files that take their places after all others, such as an index.
        obsolete: gives the names of an earlier save's files in the order in which they go. It is asked when no other
            save can add any; those that are not written again are removed once the new ones are there.
    """

    def __init__(self, target: Path, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.last: list[str] = []
        self.obsolete: Callable[[], list[str]] = list


@contextlib.contextmanager
def staged(target: str | os.PathLike[str]) -> Iterator[Staged]:
    """Write several files that replace those of a folder together, when the block ends without an error.

    They are written into a hidden folder inside the target and reach the disk; then they take their names one by one,
    while a marker file says so: after a kill at that moment readers raise `UnfinishedSaveError`, by `check_finished`,
    instead of mixing two saves. Savers into one folder wait for each other. Symbolic links are replaced, not followed.

    Args:
        target: the folder; made if needed. Files that are not written again stay.

    Yields:
        Where to write.

    Raises:
        ValueError: a file would have to be written through a symbolic link to another folder.

    Example:
        >>> import pathlib, tempfile
        >>> target = pathlib.Path(tempfile.mkdtemp())
        >>> with staged(target) as stage:
        ...     write_text(stage.folder / "a.json", "{}")
        ...     write_text(stage.folder / "b.json", "{}")
        >>> sorted(path.name for path in target.iterdir())
        ['a.json', 'b.json']
    """
    target = Path(target)
    is_new = not os.path.exists(target)
    make_folder(target)
    sweep(target)
    try:
        with _temporary(target / "save") as folder:
            folder.mkdir()
            stage = Staged(target, folder)
            yield stage
            names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
            names.sort(key=lambda name: stage.last.index(name) if name in stage.last else -1)
            for name in names:
                _check_inside(target, name)
                with open(folder / name, "rb+") as file:
                    sync(file)
            with _lock(target):
                _take_names(stage, names)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # somebody else has written into it
                target.rmdir()
        raise


def check_finished(folder: str | os.PathLike[str], patience: float = 10.0) -> None:
    """Make sure that no save into a folder is between its first and its last file.

    Args:
        folder: the folder to be read.
        patience: seconds to wait for a process that is saving.

    Raises:
        UnfinishedSaveError: the save was interrupted, or does not end.
    """
    marker = Path(folder) / MARKER_NAME
    until = time.monotonic() + patience
    while marker.is_symlink() or marker.exists():
        if time.monotonic() > until or _is_over(_owner(marker), marker):
            raise UnfinishedSaveError(
                f"A save into {folder} was interrupted while its files took their names, so they may belong to two "
                f"saves. Save there again; or delete {marker} to use the files as they are."
            )
        time.sleep(0.01)


def _owner(marker: Path) -> str:
    """The name of the temporary folder of the save that left a marker."""
    try:
        with open_regular(marker) as file:
            return file.read(300).decode("utf-8", "replace")
    except (OSError, ValueError):  # removed just now, or damaged
        return ""


def sweep(folder: Path) -> None:
    """Remove temporaries in a folder whose process has ended."""
    with contextlib.suppress(OSError):  # someone else may be sweeping, or the folder may be read-only
        for entry in os.scandir(folder):
            if _TEMPORARY.fullmatch(entry.name) and _is_over(entry.name, Path(entry.path)):
                remove(Path(entry.path))


def temporary_path(path: Path) -> Path:
    """A name for a temporary beside `path`, never used before, by which `sweep` knows when it is stale."""
    start = path.name.encode("utf-8", "replace")[:100].decode("utf-8", "ignore")
    return path.with_name(f".{start}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp")


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(file: BinaryIO) -> None:
    """Bring a file to the disk; some file systems report a full disk only here, before anything is replaced."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    temporary = temporary_path(path)
    _in_use.add(temporary.name)
    try:
        yield temporary
    finally:
        remove(temporary)
        _in_use.discard(temporary.name)


def _take_names(stage: Staged, names: Iterable[str]) -> None:
    marker = stage.target / MARKER_NAME
    # Nothing can be mixed up where there is nothing yet, nor by one file.
    names = list(names)
    obsolete = [name for name in stage.obsolete() if name not in names]
    matters = len(names) + len(obsolete) > 1
    if matters:
        with replacing_file(marker) as file:
            file.write(stage.folder.name.encode("utf-8"))
    for name in names:
        path = stage.target / name
        make_folder(path.parent)
        _check_inside(stage.target, name)
        os.replace(stage.folder / name, path)
    for folder in {(stage.target / name).parent for name in names}:
        sync_folder(folder)
    for name in obsolete:
        remove(stage.target / name)
    if matters:
        marker.unlink(missing_ok=True)
    sync_folder(stage.target)


def _check_inside(target: Path, name: str) -> None:
    for parent in Path(name).parents:
        if (target / parent).is_symlink() and parent != Path():
            raise ValueError(f"{target / parent} is a symbolic link to another folder; nothing is written through it.")


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a folder against other threads and processes; ends with the process, and leaves no file behind."""
    try:
        import fcntl
    except ImportError:  # Windows, where processes that save into one folder are not kept apart
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_over(name: str, path: Path) -> bool:
    """Whether the process that made a temporary has ended, by its name, or by its age where that says nothing."""
    match = _TEMPORARY.fullmatch(name)
    if match and match["machine"] == _machine():
        if int(match["process"]) == os.getpid():
            return name not in _in_use
        if os.name == "posix":
            return not _is_alive(int(match["process"]))
    try:
        return time.time() - path.lstat().st_mtime > _DAY
    except OSError:
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


@functools.cache
def _machine() -> str:
    """Marks the computer, and the container, within which a process number means one process."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]
