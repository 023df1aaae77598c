#!/usr/bin/env python
"""Assert which parts of the package may import which.

    python tools/check_layout.py [ROOT]

Reads the source with `ast` and runs nothing. Prints one line per violation; exit code 1 when there is one. The rules
are the tables below; CONTRIBUTING.md says why they hold.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_FAMILY_LINES = 350

# Modules that work without a backend: they may not import these when they are imported themselves.
BACKENDS = ("tensorflow", "keras", "jax")
WITHOUT_BACKEND = (
    "tfmodels",
    "tfmodels.config",
    "tfmodels.cli",
    "tfmodels.auto",
    "tfmodels.bundled",
    "tfmodels.checkpoints.reader",
    "tfmodels.checkpoints.writer",
    "tfmodels.checkpoints.hub",
    "tfmodels.generation.config",
    "tfmodels.generation.streamers",
    "tfmodels.tokenization.fast",
    "tfmodels.tokenization.convert",
)

# Never, in any function: the package replaces them.
NEVER = ("torch", "transformers")

# part -> parts that it may not import. A part is a package or module and everything below it.
ARROWS = {
    "tfmodels.kernels": (
        "tfmodels.layers",
        "tfmodels.families",
        "tfmodels.heads",
        "tfmodels.model",
        "tfmodels.generation",
    ),
    "tfmodels.layers": ("tfmodels.families", "tfmodels.heads", "tfmodels.model", "tfmodels.generation"),
    "tfmodels.families": ("tfmodels.families", "tfmodels.generation", "tfmodels.auto", "tfmodels.cli"),
    "tfmodels.heads": ("tfmodels.families", "tfmodels.auto"),
    "tfmodels.losses": ("tfmodels.families", "tfmodels.model"),
    "tfmodels.model": ("tfmodels.families", "tfmodels.auto"),
    "tfmodels.cache": ("tfmodels.families", "tfmodels.layers", "tfmodels.model"),
    "tfmodels.config": ("tfmodels.families", "tfmodels.layers", "tfmodels.model"),
    "tfmodels.generation": ("tfmodels.families",),
    "tfmodels.checkpoints": ("tfmodels.families", "tfmodels.generation"),
    "tfmodels.tokenization": ("tfmodels.families", "tfmodels.layers", "tfmodels.model", "tfmodels.generation"),
    "tfmodels.export": ("tfmodels.families",),
    "tfmodels.training": ("tfmodels.families",),
}


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, where, and whether importing the file runs it."""

    target: str
    line: int
    at_import: bool


def within(module: str, part: str) -> bool:
    """Whether a module is a part or lies below it."""
    return module == part or module.startswith(part + ".")


def module_name(file: Path, root: Path) -> str:
    """The dotted name of a file below the repository root."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.Module, module: str, is_package: bool) -> Iterator[Import]:
    """Every import statement of a file, `from package import name` as package.name, relative ones made absolute."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, at_import)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    package = module.split(".") if is_package else module.split(".")[:-1]
                    base = ".".join([*package[: len(package) - child.level + 1], *filter(None, [base])])
                for alias in child.names:
                    yield Import(f"{base}.{alias.name}", child.lineno, at_import)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                # Never run, but the arrows hold for types too.
                yield from visit(child, False)
            elif isinstance(child, ast.Call) and ast.unparse(child.func) in ("importlib.import_module", "__import__"):
                # A name made at run time cannot be followed; its constant beginning can.
                text = next(
                    (n.value for n in ast.walk(child) if isinstance(n, ast.Constant) and isinstance(n.value, str)), ""
                )
                yield Import(text.rstrip("."), child.lineno, at_import)
                yield from visit(child, at_import)
            else:
                is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from visit(child, at_import and not is_function)

    yield from visit(tree, True)


def check_file(file: Path, root: Path) -> Iterator[str]:
    """The violations of one file, as text."""
    where = file.relative_to(root).as_posix()
    module, is_package = module_name(file, root), file.name == "__init__.py"
    source = file.read_text(encoding="utf-8")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        yield f"{where}:{error.lineno}: does not parse: {error.msg}"
        return
    for found in imports_of(tree, module, is_package):
        at = f"{where}:{found.line}"
        for banned in NEVER:
            if within(found.target, banned):
                yield f"{at}: imports {banned}, which the package replaces"
        for part, forbidden in ARROWS.items():
            for target in forbidden if within(module, part) else ():
                if within(found.target, target) and not (is_package and module == target):
                    yield f"{at}: {part} must not import {target} (here {found.target})"
    lines = source.count("\n")
    if within(module, "tfmodels.families") and lines > MAX_FAMILY_LINES:
        yield f"{where}: {lines} lines; a family file has at most {MAX_FAMILY_LINES}: move what is shared into layers/"


def check_backends(root: Path, files: list[Path]) -> Iterator[str]:
    """Modules of `WITHOUT_BACKEND` whose import, followed through the package, reaches a backend."""
    needs: dict[str, set[str]] = {}
    for file in files:
        module = module_name(file, root)
        with contextlib.suppress(SyntaxError):  # reported by check_file
            tree = ast.parse(file.read_text(encoding="utf-8"))
            needs[module] = {i.target for i in imports_of(tree, module, file.name == "__init__.py") if i.at_import}

    def path_to_backend(module: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        for target in sorted(needs[module]):
            if any(within(target, backend) for backend in BACKENDS):
                return (*path, target)
            # `from a.b import c` runs a, a.b and, if it is a module, a.b.c.
            parts = target.split(".")
            for inner in (".".join(parts[: n + 1]) for n in range(len(parts))):
                if inner in needs and inner not in seen:
                    seen.add(inner)
                    if found := path_to_backend(inner, (*path, inner)):
                        return found
        return None

    for module in WITHOUT_BACKEND:
        seen = {module}
        if module in needs and (path := path_to_backend(module, (module,))):
            yield f"{module} must import without {path[-1].split('.')[0]}, but: {' -> '.join(path)}"


def check_packages(root: Path) -> Iterator[str]:
    """Packages of the tree that setup.cfg forgets: a wheel would lack them."""
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg", encoding="utf-8")
    listed = set(settings.get("options", "packages", fallback="").split())
    for init in sorted((root / "tfmodels").rglob("__init__.py")):
        name = module_name(init, root)
        if name not in listed:
            yield f"setup.cfg: [options] packages lacks {name}"
    for folder in sorted({file.parent for file in (root / "tfmodels").rglob("*.py")}):
        if not (folder / "__init__.py").is_file():
            yield f"{folder.relative_to(root).as_posix()}: has Python files and no __init__.py"


def check(root: Path) -> list[str]:
    """All violations below a repository root, as text."""
    files = sorted((root / "tfmodels").rglob("*.py"))
    if not files:
        return [f"{root}: holds no tfmodels/*.py"]
    problems = [problem for file in files for problem in check_file(file, root)]
    return [*problems, *check_backends(root, files), *check_packages(root)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    problems = check(parser.parse_args(arguments).root)
    print("\n".join(problems) if problems else "layout: ok")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
