"""XLA's cache of compiled programs on disk, so that a second process compiles nothing that a first one did.

TensorFlow reads where the cache is from the environment when it starts. The folder is bounded, and every kind of
machine has one of its own: a program for one processor may fail on another.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator, MutableMapping
from pathlib import Path

VARIABLE = "TFMODELS_XLA_CACHE"
"""Environment variable: a folder for the cache, or `0` for none."""

LIMIT = 2**30
"""Bytes that the programs of one kind of machine take at most; those used longest ago go first."""

_FLAGS = "TF_XLA_FLAGS"
# Lines of /proc that say what a processor or a GPU can do.
_FACTS = ("model", "flags", "features", "cpu implementer", "cpu part")
_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tf-nightly")


def enable(environment: MutableMapping[str, str] = os.environ) -> Path | None:
    """Tell TensorFlow, before it starts, to keep compiled programs.

    Nothing changes where `TF_XLA_FLAGS` names a folder already, or where the folder cannot be written.

    Args:
        environment: of the process.

    Returns:
        The folder, or None where there is none.
    """
    choice = environment.get(VARIABLE, "")
    flags, version = environment.get(_FLAGS, ""), _version()
    if choice in ("0", "off", "false") or "persistent_cache_directory" in flags or version is None:
        return None
    base = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(choice or Path(base, "tfmodels", "xla")) / _machine(version, environment.get("XLA_FLAGS", ""))
    if any(character.isspace() for character in str(folder)):  # which would split the flag
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    prune(folder)
    named = f"--tf_xla_persistent_cache_directory={folder} --tf_xla_persistent_cache_read_only=false"
    environment[_FLAGS] = f"{flags} {named}".strip()
    return folder


def prune(folder: Path, limit: int = LIMIT) -> None:
    """Remove the files used longest ago until a folder holds at most `limit` bytes."""
    files = sorted(_files(folder))
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= limit:
            return
        with contextlib.suppress(OSError):  # another process removes it, too
            os.unlink(path)
        total -= size


def _files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """When each file was used last, its size and path."""
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.is_file(follow_symlinks=False):
                    yield max(status.st_atime, status.st_mtime), status.st_size, entry.path


def _version() -> str | None:
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _machine(*parts: str) -> str:
    """A name for this kind of machine: its processor, its GPUs and `parts`."""
    facts = [*parts, platform.machine(), platform.processor()]
    for path in ("/proc/cpuinfo", *sorted(map(str, Path("/proc/driver/nvidia/gpus").glob("*/information")))):
        with contextlib.suppress(OSError):
            lines = set(Path(path).read_text(errors="replace").splitlines())
            facts += sorted(line for line in lines if line.lower().startswith(_FACTS))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
