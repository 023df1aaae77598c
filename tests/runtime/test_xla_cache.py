"""runtime/xla_cache.py: where compiled programs are kept, and that a second process compiles nothing."""

import json
import os
import subprocess
import sys

import pytest

from tfmodels.runtime import xla_cache

GENERATE = """
import json
from tfmodels import TFLlamaForCausalLM
model = TFLlamaForCausalLM.from_pretrained("stories260K")
ids = model.generate([[1, 403, 407, 261, 378]], max_new_tokens=20, do_sample=False)
print(json.dumps(ids.numpy().tolist()))
"""


def test_the_folder_is_told_to_tensorflow(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path), "TF_XLA_FLAGS": "--tf_xla_auto_jit=1"}
    folder = xla_cache.enable(environment)
    assert folder.parent == tmp_path / "tfmodels" / "xla" and folder.is_dir()
    first, directory, writable = environment["TF_XLA_FLAGS"].split()
    assert first == "--tf_xla_auto_jit=1" and directory == f"--tf_xla_persistent_cache_directory={folder}"
    assert writable == "--tf_xla_persistent_cache_read_only=false"
    # Programs for other flags are others.
    named = {"TFMODELS_XLA_CACHE": str(tmp_path / "mine"), "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}
    assert xla_cache.enable(named).parent == tmp_path / "mine"
    assert xla_cache.enable(named | {"TF_XLA_FLAGS": ""}).name != folder.name


@pytest.mark.parametrize(
    "environment",
    [
        {"TFMODELS_XLA_CACHE": "0"},
        {"TFMODELS_XLA_CACHE": "/proc/nowhere"},
        {"TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory=/my/own"},
    ],
)
def test_there_is_a_way_off(environment, tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path), **environment}
    before = dict(environment)
    assert xla_cache.enable(environment) is None
    assert environment == before and not list(tmp_path.iterdir())


def test_what_was_used_longest_ago_goes_first(tmp_path):
    for number in range(4):
        file = tmp_path / f"{number}.pb"
        file.write_bytes(b"x" * 100)
        os.utime(file, (1000 + number, 1000 + number))
    os.utime(tmp_path / "0.pb", (2000, 1000))  # read since
    xla_cache.prune(tmp_path, limit=250)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.pb", "3.pb"]


@pytest.mark.slow
def test_a_second_process_starts_warm(tmp_path):
    def generate():
        environment = {**os.environ, "TFMODELS_XLA_CACHE": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", GENERATE]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        (folder,) = tmp_path.iterdir()
        programs = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
        return json.loads(result.stdout.splitlines()[-1]), programs

    cold, written = generate()
    assert len(written) == 2  # prefill and the loop
    warm, kept = generate()
    assert warm == cold
    assert kept == written  # nothing was compiled anew, or it would have been written
