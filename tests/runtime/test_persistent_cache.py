"""XLA's own cache of compiled programs: a second process compiles nothing."""

import json
import os
import subprocess
import sys

import pytest

GENERATE = """
import json
from tfmodels import TFLlamaForCausalLM
model = TFLlamaForCausalLM.from_pretrained("stories260K")
ids = model.generate([[1, 403, 407, 261, 378]], max_new_tokens=20, do_sample=False)
print(json.dumps(ids.numpy().tolist()))
"""


@pytest.mark.slow
def test_a_second_process_starts_warm(tmp_path):
    flags = f"--tf_xla_persistent_cache_directory={tmp_path} --tf_xla_persistent_cache_read_only=false"

    def generate():
        environment = {**os.environ, "TF_XLA_FLAGS": flags, "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", GENERATE]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        programs = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
        return json.loads(result.stdout.splitlines()[-1]), programs

    cold, written = generate()
    assert len(written) == 2  # prefill and the loop
    warm, kept = generate()
    assert warm == cold
    assert kept == written  # nothing was compiled anew, or it would have been written
