"""tools/bench on a CPU: its arithmetic, and a run of each benchmark on a model that is tiny."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex

import numpy as np
import pytest
import small_models as small

from tfmodels.checkpoints.reader import open_checkpoint
from tools.bench import before_after, command, cpu, report, serving
from tools.bench.command import main
from tools.bench.shapes import llama_shape, write_random

TINY = "1,16,2,1,24,50"


def test_shape_fills_in_what_is_usual():
    model_type, head, sizes = llama_shape("2,64,4")
    assert (model_type, head) == ("llama", "ForCausalLM")
    assert (sizes["num_key_value_heads"], sizes["intermediate_size"], sizes["vocab_size"]) == (4, 256, 32000)
    sizes = llama_shape(TINY)[2]
    assert (sizes["num_key_value_heads"], sizes["intermediate_size"], sizes["vocab_size"]) == (1, 24, 50)


@pytest.mark.parametrize("text", ["", "2,64", "2,64,x", "2,65,4", "1,2,2,1,2,3,4"])
def test_shape_refuses_nonsense(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"layers,hidden,heads|divisible"):
        llama_shape(text)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_checkpoint_has_the_shape(tmp_path, dtype):
    count, config = write_random(tmp_path, llama_shape(TINY), dtype)
    with open_checkpoint(tmp_path) as checkpoint:
        infos = {name: checkpoint.info(name) for name in checkpoint.names()}
    assert {info.dtype for info in infos.values()} == {dtype}
    assert infos["model.layers.0.self_attn.k_proj.weight"].shape == (8, 16)
    assert infos["lm_head.weight"].shape == (50, 16)
    assert len(infos) == 9 + 3 and (tmp_path / "model.safetensors").is_file()
    assert count == sum(int(np.prod(info.shape)) for info in infos.values())
    assert config.vocab_size == 50


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gpu", "train", "--shape", "mpnet-base"], "no model to train"),
        (["scale", "--how", "mpi"], "mpi: mirrored, mirrored-fit"),
        (["before-after", "--against", "nowhere", "--", "load"], "no tools/bench is there"),
        (["load", "--lod"], "unrecognized arguments: --lod"),
    ],
)
def test_arguments_go_where_they_belong(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def quoted_commands() -> list[str]:
    """The commands of tools/bench that BENCHMARKS.md quotes, without those of modules by themselves."""
    text = (before_after.ROOT / "BENCHMARKS.md").read_text().replace("\\\n", "")
    return re.findall(r"python -m tools\.bench ([^`#\n]*)", text)


def test_the_commands_of_the_documents_are_understood(monkeypatch):
    """Each gets to where it would measure."""
    begun = []
    for owner, name in (
        (report.Report, "run_side"),
        (before_after, "run"),
        (command, "machine"),
    ):
        monkeypatch.setattr(owner, name, lambda *arguments, name=name: begun.append(name) or 1 / 0)
    quoted = quoted_commands()
    assert len(quoted) > 15
    for arguments in quoted:
        with pytest.raises(ZeroDivisionError):
            main(shlex.split(arguments.replace("OLDER", str(before_after.ROOT))))
    assert len(begun) == len(quoted) and set(begun) == {"run_side", "run", "machine"}


def test_equal_ids_counts_up_to_the_first_difference():
    ours = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert cpu.equal_ids(ours, ours.copy()) == 1.0
    assert cpu.equal_ids(ours, np.array([[1, 2, 9, 4], [5, 6, 7, 8]])) == 0.75
    assert cpu.equal_ids(ours, ours[:, :3]) == 0.0


def test_take_turns_alternates_and_times_the_first_call_apart(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: clock[0])
    calls = []

    def action(name, first, later):
        def run():
            clock[0] += first if name not in calls else later
            calls.append(name)
            return len(calls)

        return run

    timings, results = cpu.take_turns({"a": action("a", 10, 2), "b": action("b", 20, 3)}, rounds=3)
    assert timings["a"] == cpu.Timing(10, 2, 2, 2)
    assert timings["b"] == cpu.Timing(20, 3, 3, 3)
    assert calls == list("abab" + "ab" + "ba" + "ab")
    assert results == {"a": 9, "b": 10}


def test_generate_takes_the_numbers_of_a_gguf_file(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    model = small.make("llama", "ForCausalLM", hidden_size=64, intermediate_size=96)
    path = model.export(tmp_path / "model.gguf", "gguf", tokenizer=small.byte_pairs(), quantize="q4_1").path
    made = []
    monkeypatch.setattr(cpu, "decode", lambda sides, *_: made.append(list(sides)) or ())
    main(["generate", "--model", str(path.parent), "--gguf-file", path.name, "--quantize", "gguf", "--batch", "1"])
    assert made == [["tfmodels gguf"]]


@pytest.mark.slow
def test_generate_reports_what_it_measured(tmp_path, capsys):
    arguments = ["--shape", TINY, "--batch", "2", "--max-new-tokens", "4", "--prompt-length", "5", "--rounds", "1"]
    main(["generate", *arguments, "--quantize", "int4", "--json", str(tmp_path / "out.json")])
    report = json.loads((tmp_path / "out.json").read_text())
    row, small = report["rows"]
    assert (row["side"], small["side"]) == ("tfmodels", "tfmodels int4")
    assert small["megabytes"] < 0.6 * row["megabytes"]
    assert row["tokens_per_s"] == pytest.approx(2 * 3 / (row["total_s"] - row["prefill_ms"] / 1e3))
    assert report["versions"].keys() >= {"tensorflow", "keras"}
    assert report["machine"]["cores"] >= 1
    assert "--max-new-tokens 4" in report["command"]
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.slow
def test_forward_agrees_with_its_peer(tmp_path):
    pytest.importorskip("transformers", reason="the peer is not installed")
    arguments = ["--shape", TINY, "--batch", "2", "--length", "7", "--rounds", "1", "--peer", "torch"]
    main(["forward", *arguments, "--json", str(tmp_path / "out.json")])
    ours, *peers = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert ours["side"] == "tfmodels"
    assert peers
    assert all(0 < row["max_difference"] < 1e-4 for row in peers)


@pytest.mark.slow
def test_embed_reports_both_kinds(tmp_path):
    from tfmodels import AutoTokenizer, SentenceEncoder, TFAutoModel

    model, tokenizer = (auto.from_pretrained("stories260K") for auto in (TFAutoModel, AutoTokenizer))
    SentenceEncoder(model, tokenizer).save_pretrained(tmp_path / "encoder")
    pairs = tmp_path / "pairs.csv"
    texts = [("A dog.", "A dog."), ("A dog.", "A red sun."), ("Once, a dog.", "She saw the moon and the sea.")]
    pairs.write_text(
        "".join(f'"{one}","{other}",{score}\n' for (one, other), score in zip(texts, (5, 2.5, 0), strict=True))
    )
    arguments = ["--model", str(tmp_path / "encoder"), "--texts", "5", "--batch", "2", "--length", "7,9"]
    main(["embed", *arguments, "--pairs", str(pairs), "--rounds", "1", "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["input"] for row in rows] == ["texts of mixed length", "7 ids each", "9 ids each", "pairs"]
    assert [row["rows"] for row in rows] == [5, 2, 2, 6]
    encoder = SentenceEncoder.from_pretrained(tmp_path / "encoder")
    cosines = [float(encoder.similarity(*encoder.encode(pair)[:, None])[0, 0]) for pair in texts]
    order = np.argsort(np.argsort(cosines))
    assert rows[3]["spearman"] == pytest.approx(np.corrcoef(order, [2, 1, 0])[0, 1])
    assert all(row["rows_per_s"] == pytest.approx(row["rows"] / row["s"]) for row in rows)


@pytest.mark.slow
def test_export_decodes_with_every_artefact(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the exports are not installed")
    arguments = ["--shape", "1,32,2,2,64,64", "--max-new-tokens", "4", "--prompt-length", "5", "--rounds", "1"]
    main(["export", *arguments, "--json", str(tmp_path / "out.json")])
    own, *artefacts = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert own["side"] == "in process" and [row["side"] for row in artefacts] == list(cpu.EXPORTS)
    assert all(row["ids_equal"] == 1 for row in artefacts[:2])  # float32
    assert all(row["time_ratio"] == pytest.approx(row["ms_per_token"] / own["ms_per_token"]) for row in artefacts)


@pytest.mark.slow
def test_train_takes_the_steps_that_its_peer_takes(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the peer is not installed")
    sizes = {"vocab_size": 61, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
    shape = ("gpt_neo", "ForCausalLM", {**sizes, "attention_types": [[["global", "local"], 1]]})
    monkeypatch.setitem(cpu.TRAINED, "tiny", shape)
    arguments = ["--shape", "tiny", "--batch", "2", "--length", "7", "--rounds", "1", "--peer", "torch", "--xla"]
    main(["train", *arguments, "--json", str(tmp_path / "out.json")])
    ours, xla, *peers = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (ours["side"], xla["side"]) == ("tfmodels", "tfmodels, jit_compile=True")
    assert peers[0]["side"] == "torch, 1 thread"
    # Three steps, without dropout: the first, one to warm up, and one round.
    assert len(ours["losses"]) == 3 and ours["losses"][2] < ours["losses"][0] - 0.001
    for row in (xla, *peers):
        assert row["losses"][:3] == pytest.approx(ours["losses"], rel=1e-4)
        assert row["loss_difference"] < 1e-5
        assert row["peak_gb"] > 0 and row["first_call_s"] > 0
        assert row["speed_ratio"] == pytest.approx(row["ms"] / ours["ms"])


def test_train_refuses_shapes_that_do_not_exist(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--shape", "mpnet-base,bert"])
    assert "bert: mpnet-base, gpt-neo-125m are possible" in capsys.readouterr().err


@pytest.mark.slow
def test_load_measures_memory_and_time(tmp_path):
    shape = "2,512,8,8,1024,8000"
    main(["load", "--shape", shape, "--to", "bfloat16,float32", "--rounds", "1", "--json", str(tmp_path / "j")])
    rows = json.loads((tmp_path / "j").read_text())["rows"]
    assert [row["dtype"] for row in rows] == ["bfloat16", "float32"]
    assert rows[0]["weights_gb"] * 2 == rows[1]["weights_gb"]
    for row in rows:
        assert row["peak_gb"] >= row["weights_gb"]
        assert row["load_s"] > 0
        assert row["read_s"] > 0


def test_a_server_and_its_peer_answer_the_same_load(monkeypatch):
    loads, commands = [], []

    @contextlib.contextmanager
    def started(command):
        commands.append(command)
        yield "http://there", None

    async def load(url, options, clients, requests):
        loads.append((options.name, clients, requests))
        return {"tokens_per_s": 1.0}

    monkeypatch.setattr(serving, "_started", started)
    monkeypatch.setattr(serving, "_load", load)
    monkeypatch.setattr(serving, "run_child", lambda *arguments: None)
    options = command.parser_of_all().parse_args(["serve", "--peer", "transformers", "--clients", "8"])
    rows = list(serving.run(options))
    sides = ["tfmodels", "transformers", "transformers, continuous batching"]
    assert [(row["side"], row["clients"]) for row in rows] == [(side, n) for side in sides for n in (1, 4, 8)]
    # Each side is warm before its first row; the peer's model is called by its folder.
    folder = commands[1][2]
    assert loads == [(name, *size) for name in (None, folder, folder) for size in ((2, 4), (1, 8), (4, 8), (8, 16))]
    assert commands[0][4] == folder and commands[2][:4] == ["transformers", "serve", folder, "--continuous-batching"]


def test_before_and_after_are_compared_row_by_row():
    def rows(batch, **numbers):
        return {tuple({"side": "tfmodels", "batch": batch}.get(name) for name in before_after.PLACE): numbers}

    before = [rows(1, ms=value, tokens_per_s=100.0) for value in (10.0, 12.0, 11.0)]
    after = [{**rows(1, ms=value, tokens_per_s=50.0), **rows(4, ms=1.0)} for value in (22.0, 20.0, 90.0)]
    ms, rate = before_after.compare(before, after)
    assert (ms["number"], ms["before"], ms["after"], ms["ratio"]) == ("ms", 11.0, 22.0, 2.0)
    assert ms["spread"] == pytest.approx(70 / 22)
    assert (rate["number"], rate["ratio"]) == ("tokens_per_s", 2.0)
    line = re.sub(" +", " ", before_after.lines([ms])[2])
    assert line == "| side tfmodels batch 1 | ms | 11 | 22 | 2.000 | 318.2% |"


@pytest.mark.slow
def test_before_and_after_of_the_same_checkout(tmp_path, capsys):
    command = ["forward", "--shape", TINY, "--batch", "1", "--length", "5", "--rounds", "1"]
    out = tmp_path / "out.json"
    main(["before-after", "--against", str(before_after.ROOT), "--times", "1", "--json", str(out), "--", *command])
    assert "| side tfmodels batch 1 length 5 | ms " in capsys.readouterr().out
    assert {row["number"] for row in json.loads(out.read_text())["rows"]} == {"ms", "first_call_s"}
