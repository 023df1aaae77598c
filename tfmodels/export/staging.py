"""Writing that leaves either the old artefact or the whole new one, also when the process is killed.

An artefact is a file or a folder. It is written inside a hidden folder beside its final place (`.NAME.exporting`),
flushed to the disk, and takes its name in one step at the end: a file replaces the old one, a folder is exchanged with
it. Until then the old artefact is untouched. The next export into the same folder removes what killed ones left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_ENDING = ".exporting"


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, overwrite: bool = False, marker: str | None = None) -> Iterator[Path]:
    """Yield a path to write to; when the block ends without an error, its content becomes `path`.

    Args:
        path: where the artefact goes. Folders above it are made.
        overwrite: whether something may be there already. It stays whole until the new artefact is complete.
        marker: for an artefact that is a folder, a file that each has: a folder without it is never replaced. None
            for an artefact that is a file.

    Yields:
        A path whose last part ends as `path` does, in a folder that exists.

    Raises:
        FileExistsError: something is there and `overwrite` is False, or it is not such an artefact.
        OSError: the place cannot be written to, or another export of the same path is under way.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "model.bin"
        >>> with replacing(path) as target:
        ...     _ = target.write_bytes(b"weights")
        >>> path.read_bytes(), [child.name for child in path.parent.iterdir()]
        (b'weights', ['model.bin'])
    """
    path = Path(os.path.abspath(path))
    workspace = path.with_name(f".{path.name}{_ENDING}")
    new = workspace / f"new-{path.name}"
    if not os.path.lexists(_old(workspace)):
        _check_replaceable(path, overwrite, marker)
    made: list[Path] = []
    try:
        made = _make_parents(path.parent)
        _sweep(path.parent)
        with _locked(workspace):
            try:
                _restore(workspace)
                _empty(workspace)
                _check_replaceable(path, overwrite, marker)
                yield new
                _flush(new)
                _put(new, path, _old(workspace))
                _flush_folder(path.parent)
            finally:
                _restore(workspace)
                shutil.rmtree(workspace, ignore_errors=True)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # refused where something is in it
        raise


def _put(new: Path, path: Path, old: Path) -> None:
    """Give the new artefact its name, so that there is an artefact of that name at every moment."""
    if new.is_file() or not os.path.lexists(path):
        os.replace(new, path)
    elif not _exchange(new, path):
        # Two renames: a kill between them leaves the old artefact in the workspace, where `_restore` finds it.
        os.rename(path, old)
        os.rename(new, path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one step. Returns whether the system can do that."""
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        return libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        return libc.renamex_np(os.fsencode(one), os.fsencode(other), 2) == 0  # RENAME_SWAP
    return False


def _old(workspace: Path) -> Path:
    """The path of the old artefact while the new one takes its name, on systems without `_exchange`."""
    return workspace / f"old-{_target(workspace).name}"


def _target(workspace: Path) -> Path:
    return workspace.with_name(workspace.name[1 : -len(_ENDING)])


def _restore(workspace: Path) -> None:
    """Bring an old artefact back to a place that is empty: its export ended between two renames."""
    old, path = _old(workspace), _target(workspace)
    if os.path.lexists(old) and not os.path.lexists(path):
        os.rename(old, path)


def _sweep(folder: Path) -> None:
    """Remove the workspaces that killed exports left in a folder; those of running exports are locked."""
    if fcntl is None:  # nothing tells a running export from a killed one
        return
    for workspace in folder.glob(f".*{_ENDING}"):
        own = (_old(workspace).name, f"new-{_target(workspace).name}", "tmp")
        if workspace.is_symlink() or not workspace.is_dir():
            continue
        if not all(child.name.startswith(own) for child in workspace.iterdir()):
            continue  # nothing that an export has made
        with contextlib.suppress(OSError), _locked(workspace):
            _restore(workspace)
            shutil.rmtree(workspace, ignore_errors=True)


def check_place(path: str | os.PathLike, *, overwrite: bool = False, marker: str | None = None) -> None:
    """Raise at once what `replacing` would: something is there, or its folder cannot be written to."""
    path = Path(os.path.abspath(path))
    _check_replaceable(path, overwrite, marker)
    folder = next(parent for parent in path.parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise NotADirectoryError(f"cannot write to {path.parent}: {folder} is not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write to {path.parent}: {folder} is not writable.")


def _check_replaceable(path: Path, overwrite: bool, marker: str | None) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists already; overwrite=True replaces it.")
    if not ((path / marker).is_file() if marker else path.is_file()):
        expected = f"a folder with {marker}" if marker else "a file"
        raise FileExistsError(f"{path} exists and is not {expected}: it is not replaced by an export.")


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and those above it. Returns those that were made, the innermost first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error
    return missing


@contextlib.contextmanager
def _locked(workspace: Path) -> Iterator[None]:
    """Make the folder and hold it; the system lets go when the process ends, however it ends."""
    while True:
        try:
            workspace.mkdir(exist_ok=True)
        except OSError as error:
            raise _not_writable(workspace.parent, error) from error
        if fcntl is None:
            yield
            return
        handle = os.open(workspace, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(f"another export is writing to {workspace.parent} now (it holds {workspace}).") from None
            if not (workspace.exists() and os.path.samestat(os.stat(workspace), os.fstat(handle))):
                continue  # its holder removed it just now
            yield
            return
        finally:
            os.close(handle)


def _not_writable(folder: Path, error: OSError) -> OSError:
    return type(error)(f"cannot write to {folder}: {error.strerror or error}.")


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _flush(path: Path) -> None:
    """Flush a file or folder to the disk: some file systems report only then that there is no room."""
    for folder, _, files in os.walk(path):
        for name in files:
            _flush_file(Path(folder, name))
        _flush_folder(Path(folder))
    if path.is_file():
        _flush_file(path)


def _flush_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def size_of(path: str | os.PathLike) -> int:
    """Bytes of a file, or of all files in a folder."""
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(child.stat().st_size for child in path.rglob("*") if child.is_file())
