"""docs/migration.md tells the truth about names."""

import re
from pathlib import Path

import tfmodels

TEXT = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()


def rows(section):
    part = TEXT.split(f"## {section}\n")[1].split("\n## ")[0]
    return [line.strip("|").split(" | ") for line in part.splitlines() if line.startswith("| `")]


def test_every_name_said_to_be_the_same_exists():
    for old, new in rows("Names"):
        names = re.findall(r"`(\w+)`", old if "the same" in new else new)
        for name in names:
            if not name.startswith("KERAS") and name != "Fast":
                assert getattr(tfmodels, name)
    for suffix in re.findall(r"`\.\.\.(For\w+)`", TEXT):
        assert getattr(tfmodels, f"TFAutoModel{suffix}")


def test_every_family_that_is_named_has_its_classes():
    for name in re.findall(r"`(TF(?:MPNet|Llama|GPTNeoX|GPTNeo|Mpt)\w*)`", TEXT):
        assert getattr(tfmodels, name)
