"""MkDocs hook: pages of the documentation that are not files below docs/.

BENCHMARKS.md and its like become pages as they are, with their links turned to pages of the site. The reference has a
page per part of the package, made of the public names in `tfmodels/__init__.py`, which is parsed and not imported.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# Files of the repository and the pages that they become.
PAGES = {
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "examples/data/README.md": "examples_data.md",
    "benchmarks/h100_pythia-410m.png": "images/h100_pythia-410m.png",
}
# Pages of the reference: title, the modules whose public names it has, and what else it shows.
REFERENCE: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "models": ("Models and Auto classes", ("auto", "models", "cache"), ("tfmodels.generation.api.GenerationMixin",)),
    "configurations": ("Configurations", ("configs",), ("tfmodels.configs.decoder.DecoderConfig",)),
    "families": ("Families", ("families",), ()),
    "generation": ("Generation", ("generation",), ("tfmodels.generation.request.Completion",)),
    "tokenization": ("Tokenizers", ("tokenization",), ()),
    "pipelines": ("Pipelines", ("pipelines",), ()),
    "sentence": ("Sentence vectors", ("sentence",), ()),
    "training": (
        "Training",
        ("training",),
        (
            "tfmodels.training.data",
            "tfmodels.training.distribution",
            "tfmodels.training.lora",
            "tfmodels.training.metrics",
        ),
    ),
    "export": ("Export", ("export",), ("tfmodels.export",)),
    "serving": (
        "Serving",
        (),
        ("tfmodels.serving.application", "tfmodels.serving.models", "tfmodels.serving.worker"),
    ),
    "visualize": ("Attention masks", ("visualize",), ()),
}
# Classes whose methods are their bases', which are no part of the reference.
WITH_INHERITED = ("tfmodels.tokenization.PreTrainedTokenizerFast", "tfmodels.models.base.TFPreTrainedModel")


def public_names() -> dict[str, list[str]]:
    """The public names by the module that has them."""
    source = ast.parse((ROOT / "tfmodels" / "__init__.py").read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    found: dict[str, list[str]] = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom) and node.module != "tfmodels":
            found.setdefault(node.module or "", []).extend(alias.name for alias in node.names)
    return found


def reference_page(name: str) -> str:
    """A page of the reference, in mkdocstrings' Markdown."""
    title, parts, others = REFERENCE[name]
    shown = [
        f"{module}.{public}"
        for module, names in public_names().items()
        for public in names
        if module.split(".")[1] in parts
    ]
    entries = [
        f"::: {path}" + ("\n    options: {inherited_members: true}" if path in WITH_INHERITED else "")
        for path in dict.fromkeys([*shown, *others])
    ]
    return "\n\n".join([f"# {title}", *entries]) + "\n"


def on_config(config: Any) -> Any:
    """List the reference's pages in the navigation."""
    pages = [{title: f"reference/{name}.md"} for name, (title, *_) in REFERENCE.items()]
    config.nav = [{"Reference": pages} if "Reference" in entry else entry for entry in config.nav]
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for name in REFERENCE:
        files.append(File.generated(config, f"reference/{name}.md", content=reference_page(name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository into links to their pages."""
    here = {target: source for source, target in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def turned(match: re.Match[str]) -> str:
        path, mark, anchor = match[2].partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
        if not path or "://" in match[2] or not (ROOT / target).exists():
            return match[0]
        place = PAGES.get(target, target.removeprefix("docs/"))
        return f"{match[1]}({posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')}{mark}{anchor})"

    return re.sub(r"(\[[^\]]*\])\(([^)\s]+)\)", turned, markdown)
