"""Hooks around the first import of TensorFlow and Keras in a process that has imported tfmodels.

TensorFlow's start-up lines are kept off the terminal and its compiled programs on disk, and Keras is told where this
package's classes are, so that `keras.models.load_model` finds them. `import tfmodels` itself loads neither of the two.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from tfmodels.runtime import vector_width, xla_cache

# Set by people who want another amount of TensorFlow's log: "0" all, "1" no information, "2" errors, "3" nothing.
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_NVIDIA = "/proc/driver/nvidia"
# Lines that say nothing is wrong: information and warnings, and the failed search for a GPU that is not there.
_NOISE = re.compile(
    rb"^([IW]\d{4} |WARNING: All log messages before absl|To enable the following instructions|E\d{4} .*cuInit)"
)


class _Hooks(importlib.abc.MetaPathFinder):
    """Runs functions around the import of modules.

    Args:
        around: module name -> context manager that the import runs in.
        after: module name -> function called once the module is there.
    """

    def __init__(
        self,
        around: Mapping[str, Callable[[], contextlib.AbstractContextManager]],
        after: Mapping[str, Callable[[], None]],
    ):
        self.around, self.after = around, after
        self._searching = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if self._searching or (fullname not in self.around and fullname not in self.after):
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _HookedLoader(spec.loader, self.around.get(fullname), self.after.get(fullname))
        return spec


class _HookedLoader(importlib.abc.Loader):
    """A module's own loader, with a context around it and a function after it."""

    def __init__(self, loader: Any, around: Callable | None, after: Callable | None):
        self.loader, self.around, self.after = loader, around, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is known by its own loader, as if nobody had been in between.
        module.__loader__ = module.__spec__.loader = self.loader
        with self.around() if self.around else contextlib.nullcontext():
            self.loader.exec_module(module)
        if self.after:
            self.after()


def install() -> None:
    """Have TensorFlow start quietly, and Keras know this package's classes, whichever is imported first."""
    if any(isinstance(finder, _Hooks) for finder in sys.meta_path):
        return
    if sys.modules.get("keras") is not None:  # None is how an import is forbidden
        register_with_keras()
    if sys.modules.get("tensorflow") is not None:
        vector_width.widen()  # XLA reads it at the first program
        quiet_rest()
    sys.meta_path.insert(0, _Hooks({"tensorflow": around_tensorflow}, {"keras": register_with_keras}))


# Keras ----------------------------------------------------------------------------------------------------------


class LazyClass:
    """Stands for a class of this package in Keras's list of classes, and imports it when a file needs it."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def load(self) -> type:
        """The class; importing its module puts the class itself into Keras's list."""
        return getattr(importlib.import_module(self.module), self.name)

    def from_config(self, config: dict[str, Any], **options: Any) -> Any:
        """Make an object of the class; Keras calls this."""
        return self.load().from_config(config, **options)


def register_with_keras() -> None:
    """Put every class that `.keras` files may name into Keras's list of classes."""
    import keras

    from tfmodels.auto import FAMILIES

    known = keras.saving.get_custom_objects()
    modules = {
        "tfmodels.sentence.encoder": ["SentenceEncoder"],
        "tfmodels.training.metrics": ["MaskedAccuracy", "Perplexity", "EntityF1"],
        "tfmodels.training.optimizers": ["WarmUp", "AdamWeightDecay"],
    }
    for family in FAMILIES.values():
        models = [*map(family.class_name, family.heads), *(name for name in family.others if name.startswith("TF"))]
        modules[f"tfmodels.families.{family.module}"] = [*models, f"{family.stem}Backbone"]
    for module, names in modules.items():
        for name in names:
            known.setdefault(f"tfmodels>{name}", LazyClass(module, name))


# TensorFlow -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def around_tensorflow() -> Iterator[None]:
    """Import TensorFlow quietly, after setting how XLA compiles programs and where they are kept."""
    vector_width.widen()
    xla_cache.enable()  # programs of different flags lie in different folders
    with quiet_start():
        yield


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Inside, TensorFlow's start-up lines are held back; errors among them are printed at the end.

    Nothing is held back where `TF_CPP_MIN_LOG_LEVEL` asks for information or warnings ("0" or "1"); at "2" and "3"
    TensorFlow itself prints some of these lines. Where it is not set, the log of TensorFlow's C++ parts stays off for
    the rest of the process, error lines included: what fails raises, and XLA's cache and oneDNN write error lines of
    several hundred characters where nothing is wrong.
    """
    if os.environ.setdefault(LOG_LEVEL, "3") not in ("2", "3"):
        yield
        return
    with _held_back(2, _NOISE):
        yield
        if not os.path.exists(_NVIDIA):
            # TensorFlow looks for a GPU at the first operation otherwise, and reports an error that it found none.
            sys.modules["tensorflow"].config.list_physical_devices()


def quiet_rest() -> None:
    """Quiet what a TensorFlow that was imported before this package has not said yet: its failed search for a GPU.

    The search is brought forward to here, where its error is held back. TensorFlow's import has set the level "1"
    where the user has set none.
    """
    if os.environ.get(LOG_LEVEL, "1") != "0" and not os.path.exists(_NVIDIA):
        with _held_back(2, _NOISE):
            sys.modules["tensorflow"].config.list_physical_devices()


@contextlib.contextmanager
def _held_back(descriptor: int, noise: re.Pattern[bytes]) -> Iterator[None]:
    """Collect what is written to a file descriptor, and write it there at the end without the lines of noise."""
    try:
        kept = os.dup(descriptor)
    except OSError:  # closed, as in services without a terminal
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), descriptor)
        try:
            yield
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)
            file.seek(0)
            for line in file:
                if not noise.match(line):
                    os.write(descriptor, line)
