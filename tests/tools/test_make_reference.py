"""tools/make_reference: what it makes has the format of tests/reference, and is the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="references are made with PyTorch")
pytest.importorskip("transformers", reason="references are made with transformers")

from tools.make_reference.command import main
from tools.make_reference.families import FAMILIES

REFERENCE = Path(__file__).parent.parent / "reference"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    for name in ("causal_lm", "rope_dynamic", "seqcls_nopad", "weights_bin_sharded", "saved_bfloat16"):
        main([str(out), "--arch", "llama", "--case", name])
    main([str(out), "--arch", "common"])
    return out


def read(folder):
    return json.loads((folder / "meta.json").read_text()), dict(np.load(folder / "io.npz"))


@pytest.mark.parametrize(
    "name", ["causal_lm", "rope_dynamic", "seqcls_nopad", "weights_bin_sharded", "saved_bfloat16"]
)
def test_format_is_that_of_the_stored_cases(made, name):
    meta, arrays = read(made / "llama" / name)
    stored_meta, stored_arrays = read(REFERENCE / "llama" / name)
    assert meta.keys() == stored_meta.keys()
    assert {a.name for a in (made / "llama" / name).iterdir()} == {
        a.name for a in (REFERENCE / "llama" / name).iterdir()
    }
    calls = {call["name"]: call for call in meta["calls"]}
    for stored in stored_meta["calls"]:
        call = calls[stored["name"]]
        assert call["kind"] == stored["kind"]
        assert call["outputs"].keys() == stored["outputs"].keys()
        for output, spec in call["outputs"].items():
            assert spec.keys() == stored["outputs"][output].keys()
            assert len(spec["shape"]) == len(stored["outputs"][output]["shape"])
    assert {(k, v.dtype) for k, v in arrays.items()} >= {(k, v.dtype) for k, v in stored_arrays.items()}


def test_tolerances_come_from_the_noise(made):
    meta, _ = read(made / "llama" / "causal_lm")
    specs = [spec for call in meta["calls"] for spec in call["outputs"].values() if not spec.get("nonfinite")]
    assert specs
    for spec in specs:
        assert 0 <= spec["noise"] < 1e-3
        assert spec["atol"] == pytest.approx(max(1e-5, 10 * spec["noise"]), rel=0.1)


def test_the_same_seed_makes_the_same_case(made, tmp_path):
    main([str(tmp_path), "--arch", "llama", "--case", "seqcls_nopad"])
    main([str(tmp_path / "other"), "--arch", "llama", "--case", "seqcls_nopad", "--seed", "2"])
    first, again = read(made / "llama" / "seqcls_nopad"), read(tmp_path / "llama" / "seqcls_nopad")
    assert first[0] == again[0]
    assert all(np.array_equal(first[1][key], again[1][key]) for key in first[1])
    other = read(tmp_path / "other" / "llama" / "seqcls_nopad")
    assert not np.array_equal(first[1]["batch1.out.logits"], other[1]["batch1.out.logits"])


@pytest.mark.parametrize("name", ["activations", "rope_tables", "logits_processors"])
def test_tables_have_the_entries_of_the_stored_ones(made, name):
    meta, arrays = read(made / "common" / name)
    stored_meta, stored = read(REFERENCE / "common" / name)
    assert meta.keys() >= stored_meta.keys()
    assert {(key, value.shape, value.dtype) for key, value in arrays.items()} == {
        (key, value.shape, value.dtype) for key, value in stored.items()
    }
    if name == "logits_processors":
        without_notes = [
            {case: {k: v for k, v in spec.items() if k != "note"} for case, spec in both["specs"].items()}
            for both in (meta, stored_meta)
        ]
        assert without_notes[0] == without_notes[1]
    if name == "rope_tables":  # nothing random: even the numbers agree
        assert meta["specs"] == stored_meta["specs"]
        for key, value in arrays.items():
            np.testing.assert_allclose(value, stored[key], rtol=1e-6)


def test_unknown_case_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--arch", "llama", "--case", "nonsense"])
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch for arch in FAMILIES if arch != "llama"])
def test_other_families_have_the_format_of_theirs(tmp_path, arch):
    names = [case.name for case in FAMILIES[arch].cases if case.name in ("model", "qa", "token_cls")]
    main([str(tmp_path), "--arch", arch, "--case", ",".join(names)])
    for name in names:
        meta, _ = read(tmp_path / arch / name)
        stored_meta, _ = read(REFERENCE / arch / name)
        assert meta.keys() == stored_meta.keys() - {"tf_4_57"}  # what the last TensorFlow models of transformers gave
        shared = meta["tuple_order"].keys() & stored_meta["tuple_order"].keys()
        assert shared >= {"plain", "hs_attn"}
        for key in shared:
            assert meta["tuple_order"][key] == stored_meta["tuple_order"][key]
        stored_calls = {call["name"]: call for call in stored_meta["calls"]}
        shared = [call for call in meta["calls"] if call["name"] in stored_calls]
        assert len(shared) >= 3
        for call in shared:
            assert set(call.get("inputs", ())) == set(stored_calls[call["name"]].get("inputs", ()))
