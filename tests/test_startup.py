"""What a first import of TensorFlow and Keras prints, and what Keras knows after it."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tfmodels import startup
from tfmodels.auto import FAMILIES, public_names

ROOT = Path(__file__).parent.parent

QUIET = """
import sys, tfmodels
assert "keras" not in sys.modules and "tensorflow" not in sys.modules
tfmodels.TFLlamaModel(tfmodels.LlamaConfig(
    vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
))([[1, 2]])
import keras, tensorflow
# Nobody stands between the modules and those who look at them later.
assert "tfmodels" not in type(keras.__loader__).__module__, keras.__loader__
print("done")
"""


def test_a_model_prints_nothing_but_what_it_was_told(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != startup.LOG_LEVEL}
    command = [sys.executable, "-c", QUIET]
    done = subprocess.run(command, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def test_a_tensorflow_that_was_there_first_says_no_more():
    code = "import os, tensorflow as tf; os.write(2, b'--'); import tfmodels; tf.constant(1) + 1"
    environment = {name: value for name, value in os.environ.items() if name != startup.LOG_LEVEL}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.stderr.partition("--")[2], done.returncode) == ("", 0)


def test_noise_is_left_out_and_errors_are_kept(tmp_path, capfd):
    lines = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795875901.592612   11431 port.cc:153] oneDNN custom operations are on.",
        "W0000 00:00:1795875901.592612   11431 gpu_device.cc:1] Cannot dlopen some GPU libraries.",
        "To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild TensorFlow.",
        "E0000 00:00:1795875912.460235   11431 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)",
    ]
    kept = [
        "E0000 00:00:1795875912.460235   11431 util.cc:131] something is wrong",
        "Traceback (most recent call last):",
    ]
    with startup._held_back(2, startup._NOISE):
        os.write(2, ("\n".join([*lines, *kept]) + "\n").encode())
    assert capfd.readouterr().err == "\n".join(kept) + "\n"

    def fail():
        with startup._held_back(2, startup._NOISE):
            os.write(2, b"F0000 the last words\n")
            raise ImportError("no such library")

    with pytest.raises(ImportError, match="no such library"):
        fail()
    assert capfd.readouterr().err == "F0000 the last words\n"


@pytest.mark.parametrize("level, shown", [("0", True), ("1", True), ("2", False), ("3", False)])
def test_the_level_that_the_user_has_set_counts(monkeypatch, capfd, level, shown):
    monkeypatch.setenv(startup.LOG_LEVEL, level)
    with startup.quiet_start():
        os.write(2, b"I0000 information\nE0000 error\n")
    assert capfd.readouterr().err == "I0000 information\n" * shown + "E0000 error\n"
    assert os.environ[startup.LOG_LEVEL] == level


def test_keras_knows_every_class_by_name(monkeypatch):
    known = {}
    monkeypatch.setattr(keras.saving, "get_custom_objects", lambda: known)
    startup.register_with_keras()
    models = [name for name in public_names() if name.startswith("TF")]
    assert {f"tfmodels>{name}" for name in [*models, "SentenceEncoder"]} <= set(known)
    for name, lazy in known.items():
        assert f"tfmodels>{lazy.load().__name__}" == name == keras.saving.get_registered_name(lazy.load())
    assert len(known) == len(models) + len(FAMILIES) + 6
