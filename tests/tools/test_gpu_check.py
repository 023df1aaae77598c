"""tools/gpu_check.py on the CPU: everything but the fused kernels."""

from __future__ import annotations

import time

import pytest

from tools import gpu_check
from tools.gpu_check import Result


def run(arguments, capsys):
    """Exit code and what was printed."""
    with pytest.raises(SystemExit) as end:
        gpu_check.main(arguments)
    return end.value.code, capsys.readouterr().out


@pytest.mark.parametrize("mode", ["causal, 16 heads over 4", "bias per row", "bias + left padding", "full, holes"])
def test_blockwise_attention_in_the_place_of_the_fused(mode):
    output, gradients = gpu_check.check_kernel("float16", 70, **gpu_check.MODES[mode], implementation="blockwise")
    assert 0 < output <= 2e-3 and 0 < gradients <= 2e-3


def test_a_bound_decides():
    good = Result("kernel", "causal", "float16", "16", 1e-3, 2e-3, (2e-3, 2e-3))
    assert good.good and str(good).endswith("| ok | ")
    assert not good._replace(gradients=3e-3).good
    assert not good._replace(output=float("nan")).good
    assert not good._replace(output=None, gradients=None, allowed=()).good
    *_, causal, full = gpu_check.summary(
        [good, good._replace(detail="32", output=3e-3), good._replace(case="full")]
    ).split("\n")
    assert causal == "| kernel | causal | float16 | 2 | 3.0e-03 | 2.0e-03 | 1.50 | FAILED: 32 |"
    assert full == "| kernel | full | float16 | 1 | 1.0e-03 | 2.0e-03 | 1.00 | ok |"


def test_an_error_is_a_result():
    def broken():
        raise RuntimeError("no kernel")

    results, left = gpu_check.run_checks(
        [(beside, gpu_check.guarded(broken, "kernel", "causal", "float16", "16")) for beside in (True, False)], 2, 1e12
    )
    assert left == 0 and [r.note for r in results] == ["RuntimeError: no kernel"] * 2
    assert not any(r.good for r in results)


def test_no_check_is_started_when_time_is_up():
    assert gpu_check.run_checks([(True, lambda: 1 / 0), (False, lambda: 1 / 0)], 1, time.time()) == ([], 2)


def test_the_kernels_need_a_gpu(capsys):
    assert run(["kernels", "--device", "cpu"], capsys)[0] == "gpu_check: the kernels need a GPU"


@pytest.mark.slow
def test_reference_cases(capsys):
    code, text = run(["reference", "--device", "cpu", "--families", "mpt"], capsys)
    assert code == 0
    assert "| reference | mpt | float32 |" in text and "all that ran passed" in text


@pytest.mark.slow
def test_models(capsys):
    code, text = run(["models", "--device", "cpu", "--families", "mpt", "--layers", "1", "--threads", "2"], capsys)
    assert code == 0
    assert text.count("model | mpt | float16") == 3 and text.count("model | mpt | bfloat16") == 2


@pytest.mark.slow
def test_decoding(capsys):
    code, text = run(["decoding", "--device", "cpu", "--families", "gpt_neo,llama", "--layers", "2"], capsys)
    assert code == 0
    for family in ("gpt_neo", "llama"):
        for dtype in ("float16", "bfloat16"):
            assert f"decoding | {family} | {dtype} | left-padded" in text
