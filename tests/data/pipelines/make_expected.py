"""Writes expected.json: what the pipelines of transformers return for the calls of tests/pipeline_cases.py.

    python tests/data/pipelines/make_expected.py

Needs torch and transformers 5. Question answering is left as it is there unless transformers is 4.57, the last version
that has it: run the recipe once with each. The tests need neither.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline_cases import CASES
from pipeline_checkpoints import make_checkpoint

EXPECTED = Path(__file__).parent / "expected.json"


def plain(value: Any) -> Any:
    """Results with NumPy's numbers as Python's."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return round(value, 7) if isinstance(value, float) else value


def main() -> None:
    """Run the calls that this version of transformers has."""
    import transformers

    old = transformers.__version__.startswith("4.")
    found = json.loads(EXPECTED.read_text()) if EXPECTED.is_file() else [None] * len(CASES)
    found = (found + [None] * len(CASES))[: len(CASES)]
    with tempfile.TemporaryDirectory() as folder:
        for index, case in enumerate(CASES):
            if (case.task == "question-answering") != old:
                continue
            place = Path(folder) / case.checkpoint
            if not place.is_dir():
                make_checkpoint(case.checkpoint, place)
            pipe = transformers.pipeline(case.task, model=str(place), device="cpu", **case.options)
            found[index] = plain(pipe(*case.arguments, **case.keywords))
    EXPECTED.parent.mkdir(parents=True, exist_ok=True)
    EXPECTED.write_text("[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in found) + "\n]\n")


if __name__ == "__main__":
    main()
