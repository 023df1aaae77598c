"""Code in README.md and docs/ runs.

Python blocks of a page run in order, in one namespace and an empty folder, on the bundled model; shell blocks run
among the slow tests. A block that cannot run here (it needs a model of the hub, a server, Docker) has a comment before
it that says why and that readers do not see: `<!-- not run: reason -->`. Its Python still has to parse and the names
that it imports to exist; its commands still have to have the options that they are given.
"""

from __future__ import annotations

import ast
import configparser
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import tfmodels
from tfmodels.cli.main import make_parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages whose Python takes more than a few seconds.
SLOW = {"README.md", "index.md", "export.md", "generation.md", "pipelines.md", "quantization.md"}
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
# Programs that are no part of the package.
_OTHERS = {"pytest", "cat", "curl", "docker", "mkdocs", "printf"}


class Block(NamedTuple):
    """A block of code."""

    page: str
    line: int
    kind: str
    code: str
    why: str | None


def blocks(page):
    text = page.read_text()
    name = str(page.relative_to(ROOT))
    return [
        Block(name, text.count("\n", 0, found.start("code")) + 1, found["kind"], found["code"], found["why"])
        for found in _BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]


def test_every_block_is_of_a_known_kind():
    for page in PAGES:
        text = page.read_text()
        assert text.count("```") == 2 * len(blocks(page)), page
        outside = _BLOCK.sub("", text)
        assert not re.search(r"^\n    \S", outside, re.MULTILINE), f"{page.name}: use ``` instead of an indented block"
    assert {block.kind for block in ALL} <= {"python", "bash", "json", "text"}
    assert sum(block.why is None for block in ALL if block.kind == "python") > 10


# Python --------------------------------------------------------------------------------------------------------------


def pages_with_python():
    for page in PAGES:
        if any(block.kind == "python" and block.why is None for block in blocks(page)):
            marks = [pytest.mark.slow] if page.name in SLOW else []
            yield pytest.param(page, id=page.name, marks=marks)


@pytest.mark.parametrize("page", list(pages_with_python()))
def test_python(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.kind == "python" and block.why is None:
            # Lines of errors are those of the page.
            exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), names)


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.kind == "python"], ids=lambda b: f"{b.page}:{b.line}"
)
def test_imported_names_exist(block):
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "tfmodels":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block.page}:{block.line}: {alias.name}"


# Shell ---------------------------------------------------------------------------------------------------------------


def commands(code):
    """The simple commands of a shell block, as lists of words without redirections."""
    for line in re.sub(r"\\\n", " ", code).replace("\n\n", "\n").split("\n") if "{\n" not in code else [code]:
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>\n")
        words.whitespace_split, words.commenters = True, "#"
        words.whitespace = " \t\r"
        command, target = [], False
        for word in words:
            if set(word) <= set("|&;\n"):
                yield command
                command = []
            elif set(word) <= set("<>"):
                target = True
            elif target:
                target = False
            else:
                command.append(word)
        yield command


SHELL = [block for block in ALL if block.kind == "bash"]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}:{block.line}")
def test_commands_have_their_options(block):
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    found = [command for command in commands(block.code) if command]
    assert found
    for program, *arguments in found:
        if program == "tfmodels":
            parser, parsers = make_parser()
            options, unknown = parser.parse_known_args(arguments)
            assert not unknown and options.command in parsers
        elif program == "python":
            script = (ROOT / arguments[0]).read_text() + (ROOT / "examples" / "helpers.py").read_text()
            for option in arguments[1:]:
                assert not option.startswith("--") or f'"{option}"' in script, option
        elif program == "pip":
            for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
                assert set(extras.split(",")) <= set(settings["options.extras_require"])
        else:
            assert program in _OTHERS, program


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [block for block in SHELL if block.why is None], ids=lambda block: f"{block.page}:{block.line}"
)
def test_shell(block, tmp_path):
    if "--json-schema" in block.code and importlib.util.find_spec("llguidance") is None:
        pytest.skip("pip install 'tfmodels[structured]'")
    command = tmp_path / "tfmodels"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tfmodels "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# The site ------------------------------------------------------------------------------------------------------------


def test_the_reference_has_every_public_name():
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "tools" / "docs_pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    text = "\n".join(pages.reference_page(name) for name in pages.REFERENCE)
    shown = {line.rpartition(".")[2] for line in text.splitlines() if line.startswith("::: ")}
    assert set(tfmodels.__all__) <= shown
    for source in pages.PAGES:
        assert (ROOT / source).is_file()


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "BENCHMARKS.md", ROOT / "examples" / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
