"""Options, device and summary of the tests that need a GPU.

    pytest -o addopts= -m gpu -n 12 tests/gpu                        # everything, in 12 processes (pytest-xdist)
    pytest -o addopts= -m gpu tests/gpu -k attention --lengths 16,100,2048
    pytest -o addopts= -m gpu tests/gpu -k "decoding and llama" --device cpu
    KERAS_BACKEND=jax pytest -o addopts= -m gpu tests/gpu/test_attention.py    # Keras's own fused attention on JAX

`-o addopts=` leaves out the options of the other tests, whose plugins a GPU machine may lack. With `--device cpu`
attention in blocks takes the place of the fused kernels and the kernels for decoding are skipped.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import keras
import pytest
from gpu.checks import Settings, run, summary

LENGTHS = {"gpu": "16,100,127,512,1000,2048,4096,8192", "cpu": "16,70"}
ON_JAX = keras.backend.backend() == "jax"


def pytest_addoption(parser):
    group = parser.getgroup("GPU tests")
    group.addoption("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: to try the tests (gpu)")
    group.addoption("--lengths", help=f"lengths of the kernels' inputs (on a GPU {LENGTHS['gpu']})")
    group.addoption("--layers", type=int, default=2, help="layers of whole models (2)")
    group.addoption("--budget", type=float, default=float("inf"), help="start no check after so many seconds")


def settings_of(config) -> Settings:
    # pytest knows these options only where tests/gpu is named on its command line.
    device = config.getoption("--device", "gpu")
    lengths = config.getoption("--lengths", None) or LENGTHS[device]
    return Settings(device, [int(length) for length in lengths.split(",")], config.getoption("--layers", 2))


def pytest_generate_tests(metafunc):
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", metafunc.module.checks(settings_of(metafunc.config)), ids=str)


def check_of(item):
    return item.callspec.params.get("check") if hasattr(item, "callspec") else None


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: getattr(check_of(item), "large", False))


@pytest.fixture(scope="session")
def settings(pytestconfig) -> Settings:
    return settings_of(pytestconfig)


@pytest.fixture(scope="session", autouse=True)
def _device(settings):
    """The device, with TF32 switched off; skips where it is missing."""
    from tfmodels.kernels import cudnn_attention

    if ON_JAX:
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    else:
        import tensorflow as tf

        if settings.device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        else:
            tf.config.experimental.enable_tensor_float_32_execution(False)
    if settings.device == "gpu" and (reason := cudnn_attention.unavailable()) is not None:
        pytest.skip(f"{reason} (--device cpu: to try the tests)")


@pytest.fixture(scope="session")
def deadline(pytestconfig) -> float:
    return time.monotonic() + pytestconfig.getoption("--budget", float("inf"))


@pytest.fixture
def holds(request, deadline, record_property):
    """Run a check, record its errors for the table and compare them with their bounds."""

    def holding(check):
        row = {"test": request.function.__name__[5:], "case": check.case, "dtype": check.dtype}
        row |= {"detail": check.detail, "good": False}
        try:
            found = run(check, deadline - time.monotonic())
            row |= {"output": found.output, "gradients": found.gradients, "good": found.good, "part": max(found.parts)}
        except ValueError as error:
            if ON_JAX and "cannot serve this call: on JAX" in str(error):
                row["good"] = True
                pytest.skip(str(error))
            raise
        except pytest.skip.Exception:
            row["good"] = True
            raise
        finally:
            record_property("gpu", row)
        assert found.good, f"{check}: {found.output}, {found.gradients}; allowed {found.allowed}; {found.note}"

    return holding


def pytest_terminal_summary(terminalreporter):
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    rows = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "gpu"]
    if rows:
        terminalreporter.section("errors against plain float32, in the Euclidean norm")
        terminalreporter.write_line(summary(rows))
