"""What all export formats share: their interface's types, and writing that leaves either the old file or the new one.

An artefact is a file or a folder. It is written inside a hidden folder beside its final place (`.NAME.exporting`),
flushed to the disk, and takes its name by a rename at the end. Whatever happens before that, also a kill, leaves what
was there; what a killed export left behind is removed by the next one of the same path.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

# name of a tensor -> its dtype's name and its shape, None where a dimension is free
Tensors = dict[str, tuple[str, tuple[int | None, ...]]]


class Signature(NamedTuple):
    """One callable of an artefact: its name, its inputs and its outputs."""

    name: str
    inputs: Tensors
    outputs: Tensors


class ExportOptions(SimpleNamespace):
    """What an export was asked for: an attribute for each of the format's `OPTIONS`, None where it was not given.

    Beside them: `path`, where the artefact will be in the end, and `step(text)`, which tells whoever watches what is
    being done now.
    """


class Tolerance(NamedTuple):
    """How far an artefact's numbers may lie from the source's: `absolute + relative * (largest source value)`."""

    absolute: float
    relative: float = 0.0


class Runner:
    """An artefact that was opened to run, whatever its format.

    Attributes:
        tolerance: what verification accepts where nobody says otherwise.
        max_length: most tokens of an input, or of prompt and continuation together; None where only the model limits.
        generates: whether `generate` works.
        padding: whether rows may hold padding.
        exact_ids: whether greedy ids must be the source's, token by token.
    """

    # Graphs sum in another order than eager calls, and float32 rounds large numbers more: the second number is for
    # logits far above 1.
    tolerance: Tolerance = Tolerance(1e-5, 5e-6)
    max_length: int | None = None
    generates: bool = False
    padding: bool = True
    exact_ids: bool = True

    def run(self, inputs: dict[str, np.ndarray], signature: str | None = None) -> dict[str, np.ndarray]:
        """Run a forward pass.

        Args:
            inputs: by the model's names: `input_ids`, `attention_mask`, ..., int (batch, length) of any size up to
                `max_length`; padding to the shapes that the artefact has is the runner's work.
            signature: which one; None for the main one.

        Returns:
            Arrays by the names of the model's outputs, with the shapes that the model gives.
        """
        raise NotImplementedError

    def generate(self, ids: np.ndarray, max_new_tokens: int) -> np.ndarray:
        """Continue one prompt greedily.

        Args:
            ids: int (1, length).
            max_new_tokens: tokens to add.

        Returns:
            int (1, length + new): fewer than `max_new_tokens` where an end-of-sequence token came.
        """
        raise NotImplementedError


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


# Writing -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, overwrite: bool = False, marker: str | None = None) -> Iterator[Path]:
    """Inside, write to the path that is yielded; when the block ends well, what was written there becomes `path`.

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
    workspace = path.with_name(f".{path.name}.exporting")
    new, old = workspace / f"new-{path.name}", workspace / f"old-{path.name}"
    if not os.path.lexists(old):
        _check_replaceable(path, overwrite, marker)
    made: list[Path] = []
    try:
        made = _make_parents(path.parent)
        with _locked(workspace):
            try:
                if os.path.lexists(old) and not os.path.lexists(path):
                    os.rename(old, path)  # an export was killed between its two last steps
                _empty(workspace)
                _check_replaceable(path, overwrite, marker)
                yield new
                _flush(new)
                if os.path.lexists(path):
                    os.rename(path, old)
                os.rename(new, path)
                _flush_folder(path.parent)
            finally:
                if os.path.lexists(old) and not os.path.lexists(path):
                    os.rename(old, path)
                shutil.rmtree(workspace, ignore_errors=True)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # refused where something is in it
        raise


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
        raise FileExistsError(
            f"{path} exists already; ask for overwriting (overwrite=True, --overwrite) to replace it."
        )
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
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None
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
    """Bring a file or folder to the disk: some file systems report only then that there is no room."""
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


# Models --------------------------------------------------------------------------------------------------------------


def causal(model: Any) -> bool:
    """Whether a model is a causal language model: it has caches and generates."""
    from tfmodels.generation.sample import GenerationMixin

    return isinstance(model, GenerationMixin)


def transformer_of(model: Any) -> Any:
    """The `TFPreTrainedModel` of a model: itself, or what a `SentenceEncoder` holds."""
    return model if hasattr(model, "backbone") else model.model


def context_of(model: Any) -> int:
    """Most tokens that a model takes, or was trained for where its positions have no end."""
    inner = transformer_of(model)
    return inner.backbone.longest_input or inner.config.max_position_embeddings


def with_dtype(model: Any, dtype: Any) -> Any:
    """The model with weights and computation of another dtype: a copy, or itself where there is nothing to change.

    Args:
        model: a `TFPreTrainedModel` or `SentenceEncoder`.
        dtype: "float32", "float16", "bfloat16" or None, which changes nothing.
    """
    import keras

    from tfmodels.dtypes import to_policy

    policy = to_policy(dtype)
    if policy is None or policy.name == model.dtype_policy.name:
        return model
    config = model.get_config()
    inner = config if transformer_of(model) is model else config["model"]["config"]
    inner["dtype"] = keras.saving.serialize_keras_object(policy)
    copy = type(model).from_config(config)
    for own, source in zip(copy.variables, model.variables, strict=True):
        own.assign(keras.ops.cast(source.value, own.dtype))
    if causal(model):
        copy.generation_config = model.generation_config
    return copy
