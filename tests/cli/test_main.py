"""cli.py: what a person at a terminal sees, and how fast."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tfmodels import __version__
from tfmodels.cli import main as cli

ROOT = Path(__file__).parents[2]
EXPECTED = json.loads((ROOT / "saved_models" / "stories260K" / "expected_greedy.json").read_text())


def run(*arguments, python=("-m", "tfmodels.cli"), **options):
    """The command in a process of its own, as a shell would run it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, *python, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, **options)


# Start-up ------------------------------------------------------------------------------------------------------------


def test_help_answers_at_once():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = run("--help")
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert all(command in done.stdout for command in cli.COMMANDS)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["inspect", "stories260K"]])
def test_commands_that_do_without_a_backend(arguments):
    code = f"import sys; from tfmodels.cli.main import main\ntry: main({arguments})\nexcept SystemExit: pass\n"
    code += "print({'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules), file=sys.stderr)"
    done = run(code, python=("-c",))
    assert done.stderr.strip().splitlines()[-1] == "set()"


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"tfmodels {__version__}\n"


def test_quiet_load_drops_chatter_and_keeps_the_rest():
    code = """
import os
from tfmodels.cli.main import quiet_load
with quiet_load():
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
    os.write(2, b"I0000 00:00:1795384537.494877   10488 port.cc:153] oneDNN custom operations are on.\\n")
    os.write(2, b"2026-01-02 03:04:05.678901: I tensorflow/core/util/port.cc:153] oneDNN\\n")
    os.write(2, b"ImportWarning: something real\\n")
os.write(2, b"after\\n")
"""
    assert run(code, python=("-c",)).stderr == "ImportWarning: something real\nafter\n"


def test_quiet_load_passes_errors_on():
    code = """
import os
from tfmodels.cli.main import quiet_load
with quiet_load():
    os.write(2, b"why\\n")
    import nowhere
"""
    done = run(code, python=("-c",))
    assert done.stderr.startswith("why\n")
    assert "No module named 'nowhere'" in done.stderr


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inspect", "/no/such/folder"], "/no/such/folder"),
        (["inspect", "bad name?"], "bad name?"),
        (["generate", "stories260K", "x", "--max-new-tokens", "-3"], "max_new_tokens=-3"),
        (["generate", "stories260K", "x", "--max-new-tokens", "0"], "max_new_tokens=0"),
        (["generate", "stories260K", "x", "--top-p", "1.5"], "top_p=1.5"),
        (["generate", "/no/such/folder", "x"], "/no/such/folder"),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments, expected, capsys, monkeypatch):
    monkeypatch.delenv("TFMODELS_DEBUG", raising=False)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"tfmodels {arguments[0]}: error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["inspect"], ["generate", "stories260K", "x", "--top-k", "many"]]
)
def test_wrong_usage_is_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: tfmodels" in capsys.readouterr().err


def test_broken_weights_are_one_line(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    assert cli.main(["inspect", str(tmp_path)]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_debug_shows_where(monkeypatch):
    with pytest.raises(FileNotFoundError):
        cli.main(["inspect", "/no/such/folder", "--debug"])
    monkeypatch.setenv("TFMODELS_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        cli.main(["inspect", "/no/such/folder"])


def test_surprises_name_their_type(monkeypatch, capsys):
    def surprise(options):
        raise RuntimeError("first\nsecond")

    monkeypatch.setitem(cli.COMMANDS, "demo", ("x", cli.add_demo, surprise))
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == "tfmodels demo: error: RuntimeError: first second (--debug shows where)\n"


def test_interrupt(monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "demo", ("x", cli.add_demo, interrupt))
    assert cli.main(["demo"]) == 130


def test_reader_that_goes_away():
    code = f"""
import subprocess, sys
writer = subprocess.Popen([sys.executable, "-c", '''
import sys
from tfmodels.cli import main as cli
def write(options):
    while True:
        print("word " * 1000)
cli.COMMANDS["demo"] = ("x", cli.add_demo, write)
sys.exit(cli.main(["demo"]))
'''], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd={str(ROOT)!r})
writer.stdout.read(100)
writer.stdout.close()
print(writer.wait(60), writer.stderr.read())
"""
    assert run(code, python=("-c",)).stdout == "141 b''\n"


# inspect -------------------------------------------------------------------------------------------------------------


def test_inspect_json(capsys):
    assert cli.main(["inspect", "stories260K", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["architecture"] == "LlamaForCausalLM"
    assert report["format"] == "safetensors"
    # embeddings, 5 layers of attention (q, k, v, o), feed-forward and two norms, the last norm; the head is tied
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 172 + 2 * 64
    assert report["parameters"]["parts"] == {
        "embeddings": 512 * 64,
        **{f"layer {index}": layer for index in range(5)},
        "final norm": 64,
    }
    assert report["parameters"]["total"] == 512 * 64 + 5 * layer + 64 == 260032
    assert report["parameters"]["head_is_tied"] is True
    assert report["memory"] == {"float32": 4 * 260032, "bfloat16": 2 * 260032, "float16": 2 * 260032}
    assert report["files"] == [{"name": "model.safetensors", "bytes": 1044992, "tensors": 47, "dtypes": ["float32"]}]
    assert report["config"]["hidden_size"] == 64


def test_inspect_sharded_and_mixed_dtypes(tmp_path, capsys):
    parts = {
        "model-00001-of-00002.safetensors": {"model.embed_tokens.weight": np.zeros((10, 4), "float32")},
        "model-00002-of-00002.safetensors": {
            "model.layers.0.mlp.up_proj.weight": np.zeros((8, 4), "float16"),
            "lm_head.weight": np.zeros((10, 4), "float16"),
        },
    }
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / name)
    weight_map = {tensor: name for name, tensors in parts.items() for tensor in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (tmp_path / "config.json").write_text(
        '{"architectures": ["XForY"], "model_type": "x", "tie_word_embeddings": true}'
    )
    assert cli.main(["inspect", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == {
        "total": 112,
        "parts": {"embeddings": 40, "layer 0": 32, "head": 40},
        "head_is_tied": False,
    }
    assert report["dtypes"] == {
        "float32": {"tensors": 1, "parameters": 40, "bytes": 160},
        "float16": {"tensors": 2, "parameters": 72, "bytes": 144},
    }
    assert [(file["name"], file["tensors"]) for file in report["files"]] == [
        (name, len(t)) for name, t in parts.items()
    ]


def test_inspect_table(capsys):
    assert cli.main(["inspect", "stories260K"]) == 0
    text = capsys.readouterr().out
    for expected in (
        "LlamaForCausalLM",
        "layers 0-4, each",
        "45,440",
        "260,032",
        "1.04 MB",
        "520.06 kB",
        "rms_norm_eps",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gpt_neox.layers.11.attention.dense.weight", "layer 11"),
        ("transformer.h.2.ln_1.weight", "layer 2"),
        ("transformer.blocks.7.norm_1.weight", "layer 7"),
        ("encoder.layer.0.attention.attn.q.weight", "layer 0"),
        ("embed_out.weight", "head"),
        ("score.weight", "head"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("transformer.wte.weight", "embeddings"),
        ("embeddings.LayerNorm.weight", "embeddings"),
        ("transformer.ln_f.bias", "final norm"),
        ("pooler.dense.weight", "other"),
    ],
)
def test_part_of(name, part):
    assert cli.part_of(name) == part


# generate and demo ---------------------------------------------------------------------------------------------------


def test_generate_writes_the_text_as_expected(capsys):
    case = EXPECTED["cases"][0]
    arguments = ["generate", "stories260K", case["prompt"], "--max-new-tokens", str(case["max_new_tokens"])]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == case["text"] + "\n"
    assert "tokens/s" in captured.err


def test_generate_from_standard_input_samples_again_with_the_same_seed(capsys, monkeypatch):
    texts = []
    for seed in ("7", "7", "8"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("Once upon a time"))
        arguments = ["--max-new-tokens", "40", "--temperature", "1.2", "--seed", seed, "--no-jit"]
        assert cli.main(["generate", "stories260K", "-", *arguments]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("Once upon a time") for text in texts)


@pytest.mark.slow
def test_demo_in_a_fresh_process(tmp_path):
    done = run("demo", "--max-new-tokens", "40", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("Once upon a time, ")
    assert [line.count("the same") for line in done.stdout.splitlines() if " s " in line] == [1, 1, 1]
    # Nothing but the demo's own lines: TensorFlow's start-up chatter is kept away.
    assert [line for line in done.stderr.splitlines() if "cc:" in line or "WARNING" in line] == []


def test_describe_speed_of_few_tokens():
    assert cli.describe_speed(0.0, []) == "0 tokens"
    assert "tokens/s" not in cli.describe_speed(0.0, [(1.0, 1)])
    assert "tokens/s" not in cli.describe_speed(0.0, [(1.0, 1), (2.0, 4)])


# embed ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder_folder(tmp_path):
    """A small sentence encoder, as sentence-transformers stores one."""
    from tfmodels import AutoTokenizer, SentenceEncoder, TFAutoModel

    model, tokenizer = (auto.from_pretrained("stories260K") for auto in (TFAutoModel, AutoTokenizer))
    SentenceEncoder(model, tokenizer).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_embed(encoder_folder, tmp_path, capsys, monkeypatch):
    from tfmodels import SentenceEncoder

    lines = ["Once upon a time", "a", "there was a little girl"]
    (tmp_path / "texts.txt").write_text("\r\n".join(lines) + "\r\n")
    output = tmp_path / "vectors.npy"
    assert cli.main(["embed", str(encoder_folder), str(tmp_path / "texts.txt"), "-o", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3 vectors of 64 in" in captured.err
    expected = SentenceEncoder.from_pretrained(encoder_folder).encode(lines)
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    command = ["embed", str(encoder_folder), "-", "-o", str(output), "--normalize", "--batch-size", "2"]
    assert cli.main(command) == 0
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(output), unit, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "texts.txt", "vectors.npy"]


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        (b"", [], "there is no text"),
        (b"a\n\nb\n", [], "line 2 is empty"),
        (b"\xff\xfe", [], "is not UTF-8 text"),
        (None, [], "No such file"),
        (b"a", ["--batch-size", "0"], "--batch-size 0: a positive number"),
        (b"a", ["-o", "vectors.txt"], "a name ending in .npy in an existing folder"),
        (b"a", ["-o", "/nowhere/vectors.npy"], "a name ending in .npy in an existing folder"),
    ],
)
def test_embed_mistakes(tmp_path, capsys, text, more, message):
    if text is not None:
        (tmp_path / "texts.txt").write_bytes(text)
    output = tmp_path / "vectors.npy"
    output.write_bytes(b"kept")
    assert cli.main(["embed", "stories260K", str(tmp_path / "texts.txt"), "-o", str(output), *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tfmodels embed: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert output.read_bytes() == b"kept"
