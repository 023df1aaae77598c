"""tests/gpu on the CPU: bounds, memory, time and the table of errors."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from gpu.checks import Check, Found, relative_error, run, summary

ROOT = Path(__file__).parent.parent.parent
GOOD = {"test": "attention", "case": "causal", "dtype": "float16", "detail": "16", "good": True}
GOOD |= {"output": 1e-3, "gradients": 2e-3, "part": 1.0}


def check(measure, **options):
    return Check("causal", "float16", "16", measure, **options)


def test_a_bound_decides():
    assert Found(1e-3, 2e-3, (2e-3, 2e-3)).good
    assert not Found(1e-3, 3e-3, (2e-3, 2e-3)).good
    assert not Found(float("nan"), None, (2e-3,)).good
    assert relative_error([3.0, 4.0], [3.0, 5.0]) == pytest.approx(1 / 34**0.5)
    assert relative_error([float("nan")], [1.0]) == float("inf")


def test_the_table_has_the_worst_of_each_case_and_dtype():
    rows = [GOOD, {**GOOD, "detail": "32", "output": 3e-3, "part": 1.5, "good": False}, {**GOOD, "case": "full"}]
    broken = {"test": "models", "case": "mpt", "dtype": "float16", "detail": "whole", "good": False}
    _, _, causal, full, failed = summary([*rows, broken]).split("\n")
    assert causal == "| attention | causal | float16 | 2 | 3.0e-03 | 2.0e-03 | 1.50 | FAILED: 32 |"
    assert full == "| attention | full | float16 | 1 | 1.0e-03 | 2.0e-03 | 1.00 | ok |"
    assert failed == "| models | mpt | float16 | 1 | - | - | - | FAILED: whole |"


def test_checks_that_take_much_memory_wait_for_each_other():
    def inner():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            small = pool.submit(run, check(lambda: Found(0.0, None, (1.0,))), 100)
            assert small.result(timeout=60).good
        large = threading.Thread(target=run, args=(check(lambda: done.append("second"), large=True), 100))
        large.start()
        started.append(large)
        large.join(0.2)
        done.append("first")
        return Found(0.0, None, (1.0,))

    done, started = [], []
    assert run(check(inner, large=True), 100).good
    started[0].join(60)
    assert done == ["first", "second"]


def test_what_a_check_raises_is_raised_and_no_check_starts_when_time_is_up():
    with pytest.raises(ZeroDivisionError):
        run(check(lambda: 1 / 0), 100)
    with pytest.raises(pytest.skip.Exception, match="no time is left"):
        run(check(lambda: 1 / 0), -1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "device, words",
    [
        ("cpu", ["| models | mpt | float16 | 1 |", "| reference_cases | mpt | float32 | 1 |", "2 passed"]),
        ("gpu", ["2 skipped", "flash attention needs"]),
    ],
)
def test_the_whole_on_a_machine_without_a_gpu(device, words):
    if device == "gpu":
        from tfmodels.kernels import cudnn_attention

        if cudnn_attention.unavailable() is None:
            pytest.skip("there is a GPU here")
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-m", "gpu", "tests/gpu", "-rs", "--layers", "1"]
    command += ["--device", device, "-k", "mpt and (float16-whole or heads_3)", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert all(word in done.stdout for word in words), done.stdout
