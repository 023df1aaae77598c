"""Begin a new architecture: `python -m tools.new_family NAME --like llama` writes all that a family consists of.

It copies the family file that the new one resembles, under the new names, adds the line to the registry and the names
to the package, and writes a test and the recipe of the reference cases. What makes the architecture its own comes
after that: CONTRIBUTING.md, "Add an architecture", says how.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

TEST = '''"""{stem}: what the reference cases do not reach."""

import numpy as np
import small_models

from tfmodels import {stem}Config

IDS = np.random.default_rng(0).integers(3, 61, (2, 9))


def test_files(tmp_path):
    model = small_models.make("{name}", "Model")
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(type(model).from_pretrained(tmp_path)(IDS)[0], model(IDS)[0])


def test_defaults_of_the_configuration():
    assert {stem}Config().model_type == "{name}"
'''


def stem_of(name: str) -> str:
    """The stem of the class names of an architecture.

    Example:
        >>> stem_of("tiny_llama")
        'TinyLlama'
    """
    return "".join(part.capitalize() for part in name.split("_"))


def renamed(text: str, old: tuple[str, str], new: tuple[str, str]) -> str:
    """Text with one architecture's name and stem of class names in the place of another's."""
    text = re.sub(rf"\b{old[0]}\b", new[0], text)
    return re.sub(rf"(?<![a-zA-Z]){old[1]}(?=[A-Z]|\b)|(?<=TF){old[1]}", new[1], text)


def insert(path: Path, before: str, addition: str) -> None:
    """Put lines before the only line of a file that begins with some text."""
    text = path.read_text()
    places = [match.start() for match in re.finditer(rf"^{re.escape(before)}", text, re.MULTILINE)]
    if len(places) != 1:
        raise SystemExit(f"new_family: {path} has {len(places)} lines that begin with {before!r}; 1 was expected.")
    path.write_text(text[: places[0]] + addition + text[places[0] :])


def entry_of(path: Path, name: str) -> str:
    """The lines of an architecture's entry in a dict of a file."""
    lines = path.read_text().splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines) if line.startswith(f'    "{name}": ')), None)
    if start is None:
        raise SystemExit(f"new_family: {path} has no entry {name!r}.")
    end = next(n for n in range(start + 1, len(lines)) if re.match(r'    "|}|    #', lines[n]))
    return "".join(lines[start:end])


def write_family(root: Path, name: str, like: str, stem: str) -> list[Path]:
    """Write a family below a checkout; the files that were made or changed."""
    from tfmodels.auto import FAMILIES

    if like not in FAMILIES:
        raise SystemExit(f"new_family: --like {like}: there are {', '.join(FAMILIES)}.")
    if name in FAMILIES or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SystemExit(f"new_family: {name!r} is taken, or is no name such as tiny_llama.")
    family = FAMILIES[like]
    registry, public = root / "tfmodels" / "auto.py", root / "tfmodels" / "__init__.py"
    small, recipes = root / "tests" / "small_models.py", root / "tools" / "make_reference" / "families.py"
    source = root / "tfmodels" / "families" / f"{family.module}.py"
    made, test = source.with_name(f"{name}.py"), root / "tests" / "families" / f"test_{name}.py"

    def ours(text: str) -> str:
        """Text of the other family under the new names."""
        for head, there in family.named.items():
            if not there.startswith(family.stem):  # as Gemma3ForCausalLM among classes of Gemma3Text
                text = text.replace(there, stem + head)
        return renamed(text, (like, family.stem), (name, stem))

    docstring = (
        f'"""{stem}, begun as a copy of {family.stem}: say here what it is, where it is from, what it covers."""'
    )
    made.write_text(re.sub(r'\A""".*?"""', lambda _: docstring, ours(source.read_text()), flags=re.DOTALL))
    tokenizer = f'"{family.tokenizer}"'
    parts = [ours(part) for part in entry_of(registry, like).split(tokenizer)]
    line = re.sub(r',\s*gguf="\w+"', "", tokenizer.join(parts)).replace(f'"{family.module}"', f'"{name}"')
    insert(registry, f'    "{like}": ', line)
    head = f"    from tfmodels.families.{family.module} import"
    names = re.search(rf"^{re.escape(head)} \(\n.*?^    \)\n", public.read_text(), re.MULTILINE | re.DOTALL)
    insert(public, head, ours(names[0].replace(f".{family.module} ", f".{name} ")))
    insert(small, f'    "{like}": ', entry_of(small, like).replace(f'"{like}": ', f'"{name}": ', 1))
    # Llama's own cases are of everything that decoders share.
    few = f'    "{name}": Family(FEW, *few_decoder_cases({{}})),\n'
    insert(recipes, f'    "{like}": ', few if like == "llama" else ours(entry_of(recipes, like)))
    test.write_text(TEST.format(name=name, stem=stem))
    return [made, registry, public, small, recipes, test]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="the model_type, such as tiny_llama")
    parser.add_argument("--like", required=True, help="the model_type of the family that it resembles")
    parser.add_argument("--stem", help="of the class names; by default TinyLlama for tiny_llama")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent, help="the checkout to write into")
    options = parser.parse_args(arguments)
    paths = write_family(options.root, options.name, options.like, options.stem or stem_of(options.name))
    for path in paths:
        print(path.relative_to(options.root))
    print(
        "now say what makes it its own, run ruff format, then: "
        f"python -m tools.make_reference tests/reference --arch {options.name}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
