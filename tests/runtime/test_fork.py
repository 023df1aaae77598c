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
data = {"input_ids": ids, "labels": ids}
model.compile("sgd", jit_compile=False)

def use():
    model(ids), model.generate(ids, max_new_tokens=2, jit_compile=False), model.fit(data, verbose=0)

calls = [
    lambda: model(ids),  # of a model that was made and not yet used
    use,
    lambda: model.generate(ids, max_new_tokens=2, jit_compile=False),
    lambda: model.fit(data, verbose=0),
    lambda: model.predict(ids, verbose=0),
    lambda: model.quantize("int8"),
    lambda: TFLlamaForCausalLM(model.config),
    lambda: TFLlamaForCausalLM.from_pretrained("stories260K"),
]
for number, call in enumerate(calls):
    if number == 1:
        use()
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_child_says_so():
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", CODE], cwd=root, timeout=300, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
