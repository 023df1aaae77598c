"""tools/bench/qlora.py: what it compares, on a model that is tiny."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tools.bench import qlora


@pytest.mark.slow
def test_runs_begin_alike_and_best_rates_are_compared(stories260k, tmp_path, capsys, monkeypatch):
    """A rate near nothing after a large one leaves the loss where it was before training."""
    texts = [f"Once upon a time there was a {name} called Lily." for name in ("girl", "dog", "cat", "bird")]
    (tmp_path / "texts.json").write_text(json.dumps(texts * 4))
    monkeypatch.setattr(qlora, "SCORED", 4)
    options = "--modes float32 int4-loftq --steps 3 --rates 3e-3 1e-9 --seeds 0 1 --calibration 4 --length 16"
    monkeypatch.setattr(sys, "argv", ["qlora", str(stories260k), str(tmp_path / "texts.json"), *options.split()])
    qlora.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    best = []
    for mode, (before, *runs, end) in zip(("float32", "int4-loftq"), (lines[:6], lines[6:]), strict=True):
        assert all(line.startswith(mode) for line in (before, *runs, end))
        start = re.search(r"MB, loss ([\d.]+) before training", before)[1]
        found = [re.search(r"rate (\S+), seed (\d): loss ([\d.]+)", run).groups() for run in runs]
        assert [run[:2] for run in found] == [("0.003", "0"), ("0.003", "1"), ("1e-09", "0"), ("1e-09", "1")]
        losses = [run[2] for run in found]
        assert losses[2] == losses[3] == start and float(losses[0]) < float(start)
        mean = (float(losses[0]) + float(losses[1])) / 2
        best.append(float(re.search(r"([\d.]+) after 3 steps at its best rate, 0.003", end)[1]))
        assert abs(best[-1] - mean) < 1.1e-4
    difference = float(re.search(r"\(([+-][\d.]+) % of float32's\)", lines[-1])[1])
    assert abs(difference - 100 * (best[1] / best[0] - 1)) < 0.02
