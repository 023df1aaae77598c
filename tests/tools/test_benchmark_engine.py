"""tools/bench/engine.py: its arithmetic, and a run on a model that is tiny."""

import json
import random

import numpy as np
import pytest

from tools.bench import engine
from tools.bench.command import main


def test_batches_are_padded_on_the_left():
    ids, mask = engine.padded([[5, 6, 7], [8]])
    np.testing.assert_array_equal(ids, [[5, 6, 7], [0, 0, 8]])
    np.testing.assert_array_equal(mask, [[1, 1, 1], [0, 0, 1]])


def test_what_requests_met_is_told_in_percentiles():
    requests = [{"first": second / 1000, "per_token": 0.002, "gap": 0.5} for second in range(101)]
    row = engine.told(requests)
    assert row["first_token_ms_p50"] == pytest.approx(50) and row["first_token_ms_p99"] == pytest.approx(99)
    assert row["per_token_ms_p99"] == pytest.approx(2) and row["longest_gap_ms_p50"] == pytest.approx(500)


def test_schemas_are_met_by_what_they_allow_and_by_nothing_else():
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 2, "maximum": 4},
            "b": {"type": "array", "items": {"enum": ["red", 7, None]}, "minItems": 1, "maxItems": 2},
            "c": {"type": "string", "maxLength": 3},
        },
    }
    good = {"a": 3, "b": ["red", None], "c": "xyz"}
    assert engine.meets(json.dumps(good), schema)
    for change in ({"a": 5}, {"a": 3.0}, {"a": True}, {"b": []}, {"b": ["blue"]}, {"c": "long"}, {"d": 1}):
        assert not engine.meets(json.dumps({**good, **change}), schema)
    assert not engine.meets('{"a": 3', schema)
    draw = random.Random(0)
    kinds = {part.get("type", "enum") for _ in range(60) for part in engine.random_schema(draw)["properties"].values()}
    assert kinds == {"object", "array", "string", "integer", "boolean", "null", "enum"}


@pytest.mark.slow
def test_every_measurement_runs(tmp_path, capsys):
    size = ["--requests", "4", "--prompts", "4,9", "--new", "3", "--rows", "2", "--batch", "2", "--singles", "2"]
    what = "throughput,poisson,chat,lookup,beams,schemas"
    options = ["--model", "stories260K", "--schemas", "3", "--rounds", "1", "--long", "20"]
    main(["engine", what, *options, *size, "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["what"] for row in rows] == [
        *["throughput"] * 4,
        *["poisson"] * 2,
        "chat",
        *["lookup"] * 3,
        "beams",
        "schemas",
    ]
    assert rows[-1]["valid"] == rows[-1]["schemas"] == 3
    assert all(row["ids_equal"] for row in rows if row["what"] == "lookup")
    assert len(rows[6]["first_token_ms_by_turn"]) == 10 and rows[6]["reused_share"] > 0.5
