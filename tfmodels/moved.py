"""Imports of names that have moved or do not exist.

Old module names still import: `import tfmodels.config` finds `tfmodels.configs.base`. A name that the package does not
have raises an error that names the right one, as `from tfmodels import LlamaForCausalLM` does.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from tfmodels.utils.text import quote

# Old module -> the one that holds its names now.
MOVED = {
    "tfmodels.bundled": "tfmodels.checkpoints.bundled",
    "tfmodels.export.serving_files": "tfmodels.export.saved_model.serving_files",
    "tfmodels.export.text": "tfmodels.export.saved_model.text",
    "tfmodels.calling": "tfmodels.models.calling",
    "tfmodels.config": "tfmodels.configs.base",
    "tfmodels.heads": "tfmodels.models.heads",
    "tfmodels.losses": "tfmodels.models.losses",
    "tfmodels.model": "tfmodels.models.base",
    "tfmodels.outputs": "tfmodels.models.outputs",
    "tfmodels.sentence.files": "tfmodels.sentence.config",
    "tfmodels.sentence_encoder": "tfmodels.sentence.encoder",
    "tfmodels.sentence_files": "tfmodels.sentence.config",
    "tfmodels.trainer": "tfmodels.models.training",
    "tfmodels.training.embeddings": "tfmodels.models.vocabulary",
}


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module of `MOVED` where it is now; both names then stand for one module object.

    Args:
        hint: what to use in place of a name that the package does not have, or "".
    """

    def __init__(self, hint: Callable[[str], str]) -> None:
        self.hint = hint

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in MOVED:
            return importlib.machinery.ModuleSpec(fullname, self)
        package, _, name = fullname.rpartition(".")
        # `from tfmodels import name` looks for a module last, and would then tell nothing but that there is none.
        if package == "tfmodels" and not name.startswith("_") and (hint := self.hint(name)):
            raise ImportError(f"cannot import name {quote(name)} from 'tfmodels'{hint}", name=package)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # The import system reads the result from sys.modules once this has run.
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def install(hint: Callable[[str], str]) -> None:
    """Let Python ask `MovedModules` after its own finders."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules(hint))
