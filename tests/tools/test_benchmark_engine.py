"""tools/bench/engine.py: its arithmetic, and a run on a model that is tiny."""

import json

import numpy as np
import pytest

from tools.bench import engine
from tools.bench.command import main


def test_batches_are_padded_on_the_left():
    ids, mask = engine.padded([[5, 6, 7], [8]])
    np.testing.assert_array_equal(ids, [[5, 6, 7], [0, 0, 8]])
    np.testing.assert_array_equal(mask, [[1, 1, 1], [0, 0, 1]])


@pytest.mark.slow
def test_every_measurement_runs(tmp_path, capsys):
    size = ["--requests", "4", "--prompts", "4,9", "--new", "3", "--rows", "2", "--batch", "2", "--singles", "2"]
    options = ["--model", "stories260K", "--rounds", "1"]
    main(["engine", "throughput,lookup,beams", *options, *size, "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["what"] for row in rows] == [*["throughput"] * 4, *["lookup"] * 3, "beams"]
    assert all(row["ids_equal"] for row in rows if row["what"] == "lookup")
