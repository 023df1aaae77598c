"""The `tfmodels` command: what a person at a terminal sees, and what is loaded before it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tfmodels import __version__
from tfmodels.cli import demo
from tfmodels.cli import main as cli

ROOT = Path(__file__).parents[2]


def run(*arguments, python=("-m", "tfmodels"), environment=None, **options):
    """Run the command in a process of its own, as a shell would."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, *python, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, **options)


@pytest.mark.parametrize("module", ["tfmodels", "tfmodels.cli"])
def test_the_command_is_a_module_too(module):
    done = run("inspect", "stories260K", "--json", python=("-m", module))
    assert done.returncode == 0
    assert json.loads(done.stdout)["model_type"] == "llama"


# Start-up ------------------------------------------------------------------------------------------------------------


NOT_HEAVY = """
import sys
from tfmodels.cli.main import main
try:
    code = main({arguments!r})
except SystemExit as stop:
    code = stop.code
heavy = {{'tensorflow', 'keras', 'jax', 'torch', 'ai_edge_litert', 'onnx', 'tensorflow_text'}}
print(code, heavy & set(sys.modules), file=sys.stderr)
"""


def without_a_backend(*arguments, **environment):
    """Run a command that must not load a backend. Returns its exit code and what it wrote to standard error."""
    code = NOT_HEAVY.format(arguments=list(map(str, arguments)))
    done = run(code, python=("-c",), environment=environment)
    *told, last = done.stderr.strip().splitlines()
    code, _, loaded = last.partition(" ")
    assert loaded == "set()", done.stderr
    return int(code), "\n".join(told), done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["inspect", "stories260K"]])
def test_commands_that_do_without_a_backend(arguments):
    code, _, out = without_a_backend(*arguments)
    assert code == 0 and out


def test_mistakes_are_told_before_a_backend_loads(tmp_path):
    """One process for all of them: each is one line, names what is wrong and what is right."""
    (tmp_path / "there.onnx").touch()
    (tmp_path / "empty").mkdir()
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text('{"model_type": "mpnet", "architectures": ["MPNetForMaskedLM"]}')
    stories = ROOT / "saved_models" / "stories260K"
    export = ["export", stories]
    cases = [
        (["generate", "storis260K", "x", "--local-files-only"], "did you mean the bundled checkpoint 'stories260K'?"),
        (["generate", tmp_path / "encodr", "x"], f"did you mean {encoder}?"),
        (["generate", tmp_path / "empty", "x"], "holds no config.json"),
        (["generate", stories, "x", "--top-k", "-2"], "--top-k -2"),
        (["generate", encoder, "x"], "MPNet models do not generate text"),
        (["embed", encoder, tmp_path / "none.txt", "-o", tmp_path / "x.npy"], "none.txt"),
        ([*export, "--to", "onnx", "-o", tmp_path / "there.onnx"], "exists already"),
        ([*export, "--to", "onnx", "-o", tmp_path / "x.tflite"], "an ONNX file's name ends in .onnx"),
        ([*export, "--to", "onnx", "-o", tmp_path / "x.onnx", "--quantize", "int8"], QUANTIZE),
        (
            [*export, "--to", "saved_model", "-o", tmp_path / "x", "--model-version", "-1"],
            "--model-version -1; a whole",
        ),
        (
            [*export, "--to", "saved_model", "-o", tmp_path / "x", "--max-length", "1"],
            "--max-length 1; a whole number",
        ),
        (
            [*export, "--to", "litert", "-o", tmp_path / "x.tflite", "--dtype", "bfloat16"],
            "--dtype bfloat16; a LiteRT",
        ),
        ([*export, "--to", "saved_model", "-o", tmp_path / "x", "--head", "ForMaskedLM"], "Llama models have Model"),
        (["export", encoder, "--to", "litert_lm", "-o", tmp_path / "x.litertlm"], "takes --head ForCausalLM, not"),
        (["export", encoder, "--to", "onnx", "-o", tmp_path / "x.onnx"], "No weights in"),
        (["export", tmp_path / "no", "--to", "saved_model", "-o", tmp_path / "x"], "There is no folder"),
    ]
    code = "import sys, io, contextlib, json\nfrom tfmodels.cli.main import main\nfound = []\n"
    code += f"for arguments in {[list(map(str, arguments)) for arguments, _ in cases]!r}:\n"
    code += "    with contextlib.redirect_stderr(io.StringIO()) as told: code = main(arguments)\n"
    code += "    found.append((code, told.getvalue()))\n"
    code += "print(json.dumps([found, sorted({'tensorflow', 'keras', 'jax'} & set(sys.modules))]))"
    done = run(code, python=("-c",))
    found, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    for (status, told), (arguments, message) in zip(found, cases, strict=True):
        assert status == 2 and told.count("\n") == 1, (arguments, told)
        assert message in told, (arguments, told)


QUANTIZE = (
    "--quantize int8 is no option of --to onnx, which takes none of its kind; it goes with --to litert, "
    "--to litert_lm and --to gguf."
)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"KERAS_BACKEND": "torch"}, "KERAS_BACKEND is 'torch'; tfmodels needs tensorflow or jax"),
        ({"KERAS_BACKEND": "tensorflwo"}, "did you mean tensorflow?"),
    ],
)
def test_backend_is_checked_first(environment, message):
    code, told, _ = without_a_backend("generate", "stories260K", "x", **environment)
    assert code == 2 and message in told


def test_export_from_another_backend(tmp_path):
    arguments = ("export", "stories260K", "--to", "saved_model", "-o", tmp_path / "x")
    code, told, _ = without_a_backend(*arguments, KERAS_BACKEND="jax")
    assert code == 2 and "KERAS_BACKEND is 'jax'; --to saved_model needs tensorflow" in told


def test_missing_extra_is_named_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    assert cli.main(["export", "stories260K", "--to", "onnx", "-o", str(tmp_path / "x.onnx")]) == 2
    assert "--to onnx needs tf2onnx, which is not installed: pip install" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"tfmodels {__version__}\n"


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inspect", "/no/such/folder"], "/no/such/folder"),
        (["inspect", "bad name?"], "bad name?"),
        (["generate", "stories260K", "x", "--max-new-tokens", "-3"], "--max-new-tokens -3"),
        (["generate", "stories260K", "x", "--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["generate", "stories260K", "x", "--top-p", "1.5"], "--top-p 1.5"),
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
    ("arguments", "told"),
    [
        (["embed", "m", "lines.txt", "--ouput", "v.npy"], "-o/--output; --ouput is no option; did you mean --output?"),
        (["export", "m", "--to=onnx", "--outptu=x"], "-o/--output; --outptu is no option; did you mean --output?"),
        (["embed", "m", "--batch", "2"], "FILE, -o/--output (tfmodels"),  # the start of an option stands for it
    ],
)
def test_a_misspelt_option_that_is_required_is_named(arguments, told, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert f"required: {told}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["inspect"], ["generate", "stories260K", "x", "--top-k", "many"]]
)
def test_wrong_usage_is_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("tfmodels") and told.count("\n") == 1 and "--help shows the usage)" in told


def test_an_empty_prompt_is_told(tmp_path, capsys):
    assert cli.main(["generate", str(tmp_path / "none"), ""]) == 2
    assert capsys.readouterr().err.startswith("the prompt is empty: the text begins where the model's texts begin\n")


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

    monkeypatch.setitem(cli.COMMANDS, "demo", cli.Command("x", demo.add_arguments, surprise))
    assert cli.main(["demo"]) == 2
    assert capsys.readouterr().err == "tfmodels demo: error: RuntimeError: first second (--debug shows where)\n"


def test_interrupt(monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "demo", cli.Command("x", demo.add_arguments, interrupt))
    assert cli.main(["demo"]) == 130


def test_reader_that_goes_away():
    code = f"""
import subprocess, sys
writer = subprocess.Popen([sys.executable, "-c", '''
import sys
from tfmodels.cli import demo, main as cli
def write(options):
    while True:
        print("word " * 1000)
cli.COMMANDS["demo"] = cli.Command("x", demo.add_arguments, write)
sys.exit(cli.main(["demo"]))
'''], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd={str(ROOT)!r})
writer.stdout.read(100)
writer.stdout.close()
print(writer.wait(60), writer.stderr.read())
"""
    assert run(code, python=("-c",)).stdout == "141 b''\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["genrate", "stories260K", "x"], "did you mean generate?"),
        (["export", "stories260K", "--to", "savedmodel", "-o", "x"], "did you mean saved_model?"),
        (["generate", "stories260K", "x", "--temprature", "1"], "did you mean --temperature?"),
        (["generate", "stories260K", "x", "--max-new-token=1", "--seeed=2"], "did you mean --seed?"),
    ],
)
def test_near_names_are_suggested(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top_p=1.5; up to 1", "--top-p 1.5; up to 1"),
        ("max_new_tokens=-3: positive", "--max-new-tokens -3: positive"),
        ('dtype="int8"; no', "--dtype int8; no"),
        ("pass overwrite=True", "pass --overwrite"),
        ("a exists already; overwrite=True replaces it", "a exists already; --overwrite replaces it"),
        ("the tokenizer's version=3", "the tokenizer's --model-version 3"),
        ("no_max_length=3 is another word", "no_max_length=3 is another word"),
    ],
)
def test_errors_are_written_in_shell_words(text, expected):
    flags = {"top_p": "--top-p", "max_new_tokens": "--max-new-tokens", "dtype": "--dtype", "overwrite": "--overwrite"}
    flags |= {"model_version": "--model-version", "max_length": "--max-length"}
    assert cli.in_shell_words(text, flags) == expected


def test_a_warning_is_one_line_in_shell_words(capsys, monkeypatch):
    def run(options):
        for _ in range(2):  # settings are checked before the model is loaded, and by the model
            warnings.warn("top_k: used with do_sample=True only", stacklevel=2)

    monkeypatch.setitem(cli.COMMANDS, "generate", cli.COMMANDS["generate"]._replace(run=run))
    assert cli.main(["generate", "stories260K", "x"]) == 0
    assert capsys.readouterr().err == "tfmodels generate: warning: top_k: used with --do-sample only\n"
    with pytest.warns(UserWarning, match="do_sample=True only"):  # Python's own, with the place in the code
        cli.main(["generate", "stories260K", "x", "--debug"])


@pytest.mark.slow
def test_demo_in_a_fresh_process(tmp_path):
    done = run("demo", "--max-new-tokens", "40", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("Once upon a time, ")
    assert [line.count("the same") for line in done.stdout.splitlines() if " s " in line] == [1, 1, 1]
    # Nothing but the demo's own lines: TensorFlow's start-up chatter is kept away.
    assert [line for line in done.stderr.splitlines() if "cc:" in line or "WARNING" in line] == []
