"""The way in to all export formats: options, safe writing, the report, the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import small_models

from tfmodels.cli import main as cli
from tfmodels.export import FORMATS, Format, check_request, export, format_of
from tfmodels.export.artifact import Signature
from tfmodels.export.extras import require
from tfmodels.export.staging import replacing

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def toy_format(monkeypatch):
    """A format of one text file, made of the model's name."""

    def write(model, target, options):
        options.step("writing the toy")
        if options.quantize:
            target.write_text("half")
            raise OSError(28, "No space left on device")
        target.write_text(str(model))
        return [Signature("main", {"x": ("int32", (None,))}, {"y": ("float32", (None, 2))})]

    module = types.ModuleType("toy")
    module.check = lambda model, options: None
    module.write = write
    monkeypatch.setitem(sys.modules, "toy", module)
    monkeypatch.setitem(FORMATS, "toy", Format("toy", suffix=".toy", options=frozenset({"quantize"})))
    return module


def children(folder):
    return sorted(child.name for child in folder.iterdir())


def write_and_raise(path, error, **options):
    with replacing(path, overwrite=True, **options) as target:
        target.write_text("new")
        raise error


# What is asked for ---------------------------------------------------------------------------------------------------


def test_report_says_what_was_written(toy_format, tmp_path):
    steps = []
    report = export("model", tmp_path / "deep" / "a.toy", "toy", on_step=steps.append)
    assert (tmp_path / "deep" / "a.toy").read_text() == "model"
    assert (report.path, report.format, report.bytes) == (tmp_path / "deep" / "a.toy", "toy", 5)
    assert report.largest_difference is None and report.latency_ms is None
    assert "main(x) -> y" in str(report) and "5 B" in str(report)
    assert steps == ["writing toy", "writing the toy"]
    assert format_of(report.path) == "toy"


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="format='tflite' is unknown; formats are saved_model, litert"):
        export(None, tmp_path / "x", "tflite")
    with pytest.raises(ValueError, match=r"; did you mean gguf\?$"):
        export(None, tmp_path / "x", "ggfu")


def test_option_of_another_format(toy_format, tmp_path):
    with pytest.raises(ValueError, match="version=3 is no option of format='toy'; saved_model takes it"):
        export(None, tmp_path / "x.toy", "toy", version=3)
    with pytest.raises(ValueError, match="quantize='int8' is no option of format='saved_model'"):
        export(None, tmp_path / "x", "saved_model", quantize="int8")


def test_option_of_no_format(tmp_path):
    with pytest.raises(TypeError, match=r"unknown argument 'quantise'; did you mean quantize\?; saved_model takes"):
        export(None, tmp_path / "x", "saved_model", quantise="int8")
    with pytest.raises(ValueError, match="litert, litert_lm and gguf take it, onnx takes no options"):
        export(None, tmp_path / "x.onnx", "onnx", quantize="int8")


def test_wrong_suffix(toy_format, tmp_path):
    with pytest.raises(ValueError, match=r"a toy file's name ends in \.toy"):
        export(None, tmp_path / "x.bin", "toy")


def test_a_folder_that_is_named_as_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder: give format='litert', or a path without \.tflite"):
        check_request(tmp_path / "x.tflite", "saved_model")
    assert check_request(tmp_path / "x.v2", "saved_model").path == tmp_path / "x.v2" / "1"


@pytest.mark.parametrize(
    ("path", "version", "place"),
    [
        ("m", None, "m/1"),
        ("m/3", None, "m/3"),
        ("m/3", 3, "m/3"),
        ("m/3", 4, "m/3/4"),
        ("m3", None, "m3/1"),
        ("m", 7, "m/7"),
    ],
)
def test_place_of_a_version(tmp_path, path, version, place):
    assert check_request(tmp_path / path, "saved_model", version=version).path == tmp_path / place


def test_names_that_keras_has_for_formats(tmp_path):
    assert check_request(tmp_path / "x", "tf_saved_model").path == tmp_path / "x" / "1"
    with pytest.raises(ValueError, match="format='openvino' is not written by tfmodels: export to 'onnx'"):
        check_request(tmp_path / "x", "openvino")
    with pytest.raises(ValueError, match="format='torch' is not written by tfmodels: save_pretrained writes"):
        check_request(tmp_path / "x", "torch")


@pytest.mark.parametrize("version", [-1, "1", 1.0])
def test_version_is_a_number(tmp_path, version):
    with pytest.raises(ValueError, match="version="):
        check_request(tmp_path / "x", "saved_model", version=version)


def test_missing_extra_is_named():
    with pytest.raises(ImportError, match=r"quantize='int8' needs no_such, .*pip install 'tfmodels\[export\]'"):
        require("no_such.module", "export", "quantize='int8'")


def test_a_broken_extra_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import what_it_lacks")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_lacks"):
        require("broken_extra", "export", "this")


def test_artefacts_are_told_by_their_names(tmp_path):
    with pytest.raises(FileNotFoundError):
        format_of(tmp_path / "x.onnx")
    (tmp_path / "x.bin").touch()
    with pytest.raises(ValueError, match="no artefact of a known format"):
        format_of(tmp_path / "x.bin")
    assert format_of(tmp_path) == "saved_model"


# Where it goes -------------------------------------------------------------------------------------------------------


def test_existing_target_is_refused(toy_format, tmp_path):
    path = tmp_path / "a.toy"
    path.write_text("old")
    with pytest.raises(FileExistsError, match="exists already; overwrite=True replaces it"):
        export("new", path, "toy")
    assert path.read_text() == "old"
    export("new", path, "toy", overwrite=True)
    assert path.read_text() == "new" and children(tmp_path) == ["a.toy"]


def test_failure_leaves_the_old_artefact(toy_format, tmp_path):
    path = tmp_path / "a.toy"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        export("new", path, "toy", overwrite=True, quantize="int8")
    assert path.read_text() == "old" and children(tmp_path) == ["a.toy"]


def test_failure_leaves_no_new_folders(toy_format, tmp_path):
    with pytest.raises(OSError, match="No space left"):
        export("new", tmp_path / "b" / "c" / "a.toy", "toy", quantize="int8")
    assert children(tmp_path) == []


def test_interrupt_leaves_the_old_artefact(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(path, KeyboardInterrupt)
    assert path.read_text() == "old" and children(tmp_path) == ["a"]


def test_foreign_folder_is_never_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    for marker, message in (("saved_model.pb", r"is not a folder with saved_model\.pb"), (None, "is not a file")):
        with pytest.raises(FileExistsError, match=message):
            write_and_raise(tmp_path / "a", AssertionError, marker=marker)
    assert (tmp_path / "a" / "thesis.txt").read_text() == "years of work"


def test_place_that_cannot_be_written_to(toy_format, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="cannot write to"):
        export("new", tmp_path / "file" / "a.toy", "toy")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_folder_without_write_permission(toy_format, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="is not writable"):
        export("new", tmp_path / "locked" / "a.toy", "toy")


def test_two_exports_of_one_path(tmp_path):
    pytest.importorskip("fcntl")
    with replacing(tmp_path / "a") as target:
        target.write_text("first")
        with pytest.raises(OSError, match="another export is writing"), replacing(tmp_path / "a"):
            pass
    assert (tmp_path / "a").read_text() == "first"


# Kills ---------------------------------------------------------------------------------------------------------------

# Stops for good at a given step of the export, having told so.
KILLED = """
import os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tfmodels.export import staging as module

def stop(*arguments):
    print("here", flush=True)
    time.sleep(60)

rename, exchange = os.rename, module._exchange
if {step!r} == "before the exchange":
    module._exchange = stop
if {step!r} == "after the exchange":
    module._exchange = lambda one, other: exchange(one, other) and stop()
if {step!r} == "between two renames":
    module._exchange = lambda one, other: False
    os.rename = lambda a, b: stop() if Path(a).name.startswith("new-") else rename(a, b)
with module.replacing({path!r}, overwrite=True, marker="saved_model.pb") as target:
    target.mkdir()
    (target / "saved_model.pb").write_text("new")
    if {step!r} == "writing":
        stop()
"""


STEPS = ["writing", "before the exchange", "after the exchange", "between two renames"]


@pytest.mark.parametrize("step", STEPS)
def test_kill_leaves_a_whole_artefact(tmp_path, step):
    path = tmp_path / "1"
    path.mkdir()
    (path / "saved_model.pb").write_text("old")
    code = KILLED.format(root=str(ROOT), path=str(path), step=step)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    assert all(name == "1" or name.startswith(".") for name in children(tmp_path))
    whole = "new" if step == "after the exchange" else "old"
    if step != "between two renames":  # of systems that cannot exchange; the next export restores it
        assert (path / "saved_model.pb").read_text() == whole
    # The next export into the folder finds the artefact in its place, and cleans what the dead process left.
    with pytest.raises(OSError, match="fails too"):
        write_and_raise(tmp_path / "2", OSError("fails too"), marker="saved_model.pb")
    assert (path / "saved_model.pb").read_text() == whole and children(tmp_path) == ["1"]


def test_a_running_export_is_not_cleaned_away(tmp_path):
    pytest.importorskip("fcntl")
    with replacing(tmp_path / "a") as target:
        target.write_text("first")
        with replacing(tmp_path / "b") as other:
            other.write_text("second")
    assert children(tmp_path) == ["a", "b"] and (tmp_path / "a").read_text() == "first"


def test_folders_of_others_are_not_cleaned_away(tmp_path):
    (tmp_path / ".notes.exporting").mkdir()
    (tmp_path / ".notes.exporting" / "thesis.txt").touch()
    with replacing(tmp_path / "a") as target:
        target.write_text("new")
    assert (tmp_path / ".notes.exporting" / "thesis.txt").exists()


@pytest.mark.slow
def test_killed_export_of_a_model(tmp_path):
    """A real export is killed once variables are being written; the version that was there still serves."""
    from tfmodels.export import saved_model

    model = small_models.make("mpnet", "ForTokenClassification")
    folder = tmp_path / "tagger"
    export(model, folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "import small_models\n"
        "print('ready', flush=True)\n"
        f"small_models.make('mpnet', 'ForTokenClassification', seed=1).export({str(folder)!r}, overwrite=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not any(folder.glob(".1.exporting/new-1/*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    after = {file: file.read_bytes() for file in (folder / "1").rglob("*") if file.is_file()}
    assert after == before
    assert all(name == "1" or name.startswith(".") for name in children(folder))
    inputs = small_models.inputs_of("mpnet", "ForTokenClassification")
    assert saved_model.open(folder).run(inputs)["logits"].shape == (2, 5, 3)
    export(model, folder, version=2)
    export(model, folder, overwrite=True)
    assert children(folder) == ["1", "2"]


# The command ---------------------------------------------------------------------------------------------------------


def saved(tmp_path):
    small_models.make("mpnet", "ForTokenClassification").save_pretrained(tmp_path / "checkpoint")
    return str(tmp_path / "checkpoint")


def test_command(tmp_path, capsys):
    output = tmp_path / "served"
    arguments = [
        "export",
        saved(tmp_path),
        "--to",
        "saved_model",
        "-o",
        str(output),
        "--model-version",
        "7",
        "--verify",
    ]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "serving_default(input_ids, attention_mask) -> logits" in out
    assert "largest difference" in out and "latency" in out
    assert (output / "7" / "saved_model.pb").is_file()
    assert cli.main(arguments) == 2
    assert "exists already" in capsys.readouterr().err


def test_command_makes_the_head_that_is_asked_for(tmp_path, capsys):
    output = str(tmp_path / "served")
    assert cli.main(["export", saved(tmp_path), "--to", "saved_model", "-o", output, "--head", "Model"]) == 0
    assert "last_hidden_state" in capsys.readouterr().out
    code = cli.main(["export", saved(tmp_path), "--to", "saved_model", "-o", output + "2", "--head", "ForCausalLM"])
    assert code == 2 and "MPNet models have Model, ForMaskedLM" in capsys.readouterr().err


def test_command_puts_the_tokenizer_beside_the_model(tmp_path):
    output = tmp_path / "served" / "7"
    arguments = ["export", "stories260K", "--to", "saved_model", "-o", str(output), "--head", "Model"]
    assert cli.main(arguments) == 0
    assert (output / "saved_model.pb").is_file()
    assert (output / "assets.extra" / "tokenizer" / "tokenizer.json").is_file()
    assert 'Tokenizer.from_file("assets.extra/tokenizer/tokenizer.json")' in (output / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quantize", "int8"], "--quantize int8 is no option of --to saved_model"),
        (["--max-length", "99"], "--max-length 99"),
        (["--model-version", "-1"], "--model-version -1"),
    ],
)
def test_command_tells_mistakes(tmp_path, capsys, arguments, message):
    code = cli.main(["export", saved(tmp_path), "--to", "saved_model", "-o", str(tmp_path / "x"), *arguments])
    assert code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
