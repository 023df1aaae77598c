"""tools/bench on a GPU: its tables and plots, and, on the CPU, a run of everything on models that are tiny."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest

from tools.bench import gpu, report, scale
from tools.bench.command import main

CPU = ["--device", "cpu", "--dtype", "float32"]


def row(side, batch, length, what="train", **values):
    head = {"side": side, "what": what, "batch": batch, "length": length, "shape": "tiny", "dtype": "float16"}
    return {**head, "at_once": 1, "weights_bytes": 1, "first_ms": 1500.0, "peak_mib": 20.0, **values}


def lines_of(rows):
    """Lines of the tables, without the blanks that align cells."""
    return [re.sub(" +", " ", line) for line in report.tables(rows)]


def test_programs_are_compiled_so_many_at_once_and_decoding_alone():
    cells = [("decode", 1, 8), ("train", 1, 8), ("forward", 1, 8), ("train", 1, 16), ("decode", 1, 16)]
    waves = list(gpu.waves(cells, 2))
    assert waves == [[cells[1], cells[2]], [cells[3]], [cells[0]], [cells[4]]]


def test_table_compares_with_every_peer():
    rows = [
        row("torch sdpa", 4, 512, ms=30.0),
        row("torch eager", 4, 512, note="out of memory"),
        row("tfmodels", 4, 512, ms=20.0, at_once=3, attention="2 blocks: flash"),
        row("torch sdpa", 4, 128, note="failed: ImportError: no such thing"),
    ]
    title, _, headings, _, short, ours, eager, sdpa, _, attention, _ = lines_of(rows)
    assert title == "**train**, tiny, float16"
    places = "| side | batch | length | ms | first call s |"
    assert headings == f"{places} MiB | tfmodels faster by | compiled at once | note |"
    assert short == "| torch sdpa | 4 | 128 | | | 20 | | 1 | failed: ImportError: no such thing |"
    assert ours == "| tfmodels | 4 | 512 | 20.00 | 1.50 | 20 | | 3 | |"
    assert eager == "| torch eager | 4 | 512 | | | 20 | | 1 | out of memory |"
    assert sdpa == "| torch sdpa | 4 | 512 | 30.00 | 1.50 | 20 | 1.50 | 1 | |"
    assert attention == "- attention: 2 blocks: flash"


def test_table_of_decoding_says_what_share_of_the_memory_rate_was_reached():
    rows = [row("tfmodels", 1, 8, what="decode", ms=1.0, read_gb_s=1200.0, copy_gb_s=4000.0)]
    _, _, headings, _, line, *_ = lines_of(rows)
    assert headings.startswith("| side | batch | length | ms | GB/s read | of a copy | share | first call s | MiB |")
    assert line.startswith("| tfmodels | 1 | 8 | 1.00 | 1200 | 4000 | 30% | 1.50 | 20 |")


def test_table_of_several_devices():
    common = {"side": "scale", "how": "mirrored", "shape": "tiny", "dtype": "float16", "length": 10}
    rows = [
        {**common, "devices": 1, "batch": 2, "ms": 10.0, "first_ms": 1e3, "loss": 1.0},
        {**common, "devices": 2, "batch": 4, "ms": 12.5, "first_ms": 1e3, "loss": 1.0, "loss_difference": 1e-7},
        {**common, "devices": 2, "batch": 4, "how": "jax-data", "note": "failed: ValueError: no"},
    ]
    _, _, _, _, one, two, failed, *_ = lines_of(rows)
    assert one == "| scale | mirrored | 2 | 10 | 1 | 2,000 | 10.00 | 100% | 1.00 | | |"
    assert two == "| scale | mirrored | 4 | 10 | 2 | 3,200 | 12.50 | 80% | 1.00 | 1.0e-07 | |"
    assert failed == "| scale | jax-data | 4 | 10 | 2 | | | | | | failed: ValueError: no |"


def test_differences_are_relative():
    before = [np.array([3.0, 0.0]), np.array([4.0])]
    one = scale.Trained(2.0, before, [np.array([3.0, 0.0]), np.array([5.0])])
    other = scale.Trained(2.2, before, [np.array([3.0, 0.1]), np.array([5.0])])
    found = other.difference(one)
    assert found["loss_difference"] == pytest.approx(0.1)
    assert found["weights_difference"] == pytest.approx(0.1 / 34**0.5)
    assert found["update_difference"] == pytest.approx(0.1)


def test_plot_of_stored_measurements(tmp_path):
    pytest.importorskip("matplotlib", reason="pip install -e '.[examples]'")
    sides = {"tfmodels": 1.0, "torch sdpa": 1.5}
    for what in ("train", "forward"):
        rows = [
            row(side, batch, length, what=what, ms=ms * length)
            for (side, ms), batch, length in itertools.product(sides.items(), (1, 4), (128, 256))
        ]
        (tmp_path / f"{what}.json").write_text(json.dumps({"rows": rows}))
    files = [str(tmp_path / "train.json"), str(tmp_path / "forward.json")]
    main(["plot", *files, "--plot", str(tmp_path / "out.png")])
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "alone.json").write_text(json.dumps({"rows": [row("tfmodels", 1, 8, ms=1.0)]}))
    with pytest.raises(SystemExit, match="nothing to plot"):
        main(["plot", str(tmp_path / "alone.json"), "--plot", str(tmp_path / "out.png")])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train,nothing"], "nothing: train, fit, forward, decode, embed are possible"),
        (["train", "--peer", "jax"], "jax: eager, sdpa"),
        (["decode", "--dtype", "mixed_bfloat16"], "mixed_bfloat16 is for train and fit"),
        (["train", "--shape", "mpnet-base"], "no model to train"),
        (["embed", "--shape", "tiny"], "no model to embed"),
        (["forward", "--profile", "5", "--device", "cpu"], "--profile lists kernels of a GPU"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["gpu", *arguments])
    assert message in capsys.readouterr().err


def run(arguments, folder):
    """Exit code, and what --json wrote."""
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json", str(folder / "out.json"), "--markdown", str(folder / "out.md")])
    return end.value.code, json.loads((folder / "out.json").read_text())


@pytest.mark.slow
def test_several_tasks_with_a_peer(tmp_path):
    pytest.importorskip("transformers", reason="the peer is not installed")
    sizes = ["--shape", "tiny", "--batch", "1,2", "--length", "16", "--new", "3", "--rounds", "2"]
    code, found = run(
        ["gpu", "train,forward,decode", *CPU, *sizes, "--peer", "eager", "--compile-threads", "4"], tmp_path
    )
    assert code == 0
    assert {side["about"] for side in found["about"]} == {"torch eager", "tfmodels"}
    measured = {(r["side"], r["what"], r["batch"]): r for r in found["rows"]}
    assert measured.keys() == set(
        itertools.product(("tfmodels", "torch eager"), ("train", "forward", "decode"), (1, 2))
    )
    for (side, what, batch), r in measured.items():
        assert r["first_ms"] > 0
        assert r["at_once"] == (4 if side == "tfmodels" and what != "decode" else 1)
        if what != "decode":
            assert r["ms"] > 0
        else:  # a difference of times, which noise may turn around
            # Two layers with 2 x 2 x 16 numbers of a token, 16 tokens of the prompt and 1.5 of what is new.
            read = r["weights_bytes"] + 4 * 2 * 64 * batch * 17.5 - 4 * 320 * 64
            assert r["read_gb_s"] == pytest.approx(read / r["ms"] / 1e6)
            assert r["copy_gb_s"] > 0
    assert measured["tfmodels", "train", 1]["weights_bytes"] == measured["torch eager", "train", 1]["weights_bytes"]
    text = (tmp_path / "out.md").read_text()
    assert "**decode**, tiny, float32" in text and "| tfmodels    |     2 |     16 |" in text


@pytest.mark.slow
def test_embeddings_per_second_and_a_peer_that_there_is_not(tmp_path):
    pytest.importorskip("transformers", reason="the peer is not installed")
    sizes = ["--shape", "tiny-mpnet", "--batch", "3", "--length", "16", "--rounds", "2"]
    code, found = run(["gpu", "embed", *CPU, *sizes, "--peer", "eager,sdpa"], tmp_path)
    assert code == 0
    eager, sdpa, ours = found["rows"]
    assert [r["side"] for r in found["rows"]] == ["torch eager", "torch sdpa", "tfmodels"]
    assert sdpa["note"].startswith("failed: MPNetModel does not support")
    assert all(r["sentences_per_s"] == pytest.approx(3e3 / r["ms"]) for r in (eager, ours))


@pytest.mark.slow
def test_no_cell_is_started_when_time_is_up(tmp_path):
    code, found = run(["gpu", "forward", *CPU, "--shape", "tiny", "--budget", "0"], tmp_path)
    assert (code, found["rows"]) == (0, [])


@pytest.mark.slow
def test_two_devices_train_as_one_does(tmp_path):
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    sizes = ["--shape", "tiny", "--batch", "2", "--length", "16", "--rounds", "2"]
    ways = ("mirrored", "jax-model")  # one of each backend
    assert set(ways) < set(scale.HOW)
    code, found = run(["scale", *CPU, *sizes, "--how", ",".join(ways)], tmp_path)
    assert code == 0
    assert [(r["how"], r["devices"]) for r in found["rows"]] == list(itertools.product(ways, (1, 2)))
    for r in found["rows"]:
        assert r["ms"] > 0
        if r["devices"] == 2:
            assert r["loss_difference"] < 1e-5 and r["weights_difference"] < 1e-5
            assert r["update_difference"] < 1e-3
