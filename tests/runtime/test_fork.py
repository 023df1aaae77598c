"""runtime/fork.py: a forked child says what is wrong instead of hanging."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
import numpy as np
from tfmodels import TFLlamaForCausalLM
model = TFLlamaForCausalLM.from_pretrained("stories260K")
ids = np.array([[1, 403, 407]])
model(ids), model.generate(ids, max_new_tokens=2, jit_compile=False)
for call in (lambda: model(ids), lambda: model.generate(ids, max_new_tokens=2, jit_compile=False)):
    child = os.fork()
    if not child:
        try:
            call()
        except RuntimeError as error:
            os._exit(7 if "was forked from process" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
model(ids)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_child_says_so():
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", CODE], cwd=root, timeout=300, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
