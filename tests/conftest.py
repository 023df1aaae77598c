"""Settings and fixtures that all tests share."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

# Before anything imports TensorFlow: its start-up lines say nothing that a test run needs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# Tests compile what they test, and leave nothing in the user's cache.
os.environ.setdefault("TFMODELS_XLA_CACHE", "0")

import pytest

try:
    import hypothesis
except ImportError:  # a machine that runs tests/gpu alone may lack it
    hypothesis = None

ROOT = Path(__file__).parent.parent
# Scripts there make the files beside them, with packages that the tests do not need.
collect_ignore_glob = ["data/*"]

if hypothesis is not None:
    # A first call may compile; time is no property of what is tested.
    hypothesis.settings.register_profile("tfmodels", deadline=None, max_examples=30)
    hypothesis.settings.load_profile("tfmodels")


def pytest_configure(config: pytest.Config) -> None:
    """Let XLA compile the default tests in half the time; slow tests run what users run, unless XLA_FLAGS is set."""
    if config.option.markexpr == "not slow and not gpu":
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases beyond the first N of a test that is marked quick(N) as slow, before markers are looked at."""
    seen: collections.Counter[str] = collections.Counter()
    for item in items:
        if (marker := item.get_closest_marker("quick")) is not None:
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] > marker.args[0]:
                item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Hide what is imported from the garbage collector, which else looks at all of TensorFlow's objects every time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def give_memory_back():
    """Return to the system what a module's models took: a process runs many modules."""
    yield
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def find_checkpoint(name: str) -> Path | None:
    """A trained checkpoint that the repository does not hold: below TFMODELS_CHECKPOINTS, else ../shared/models."""
    for place in (os.environ.get("TFMODELS_CHECKPOINTS"), ROOT.parent / "shared" / "models"):
        if place and (Path(place) / name / "config.json").is_file():
            return Path(place) / name
    return None


@pytest.fixture(scope="session")
def stories260k() -> Path:
    """The bundled checkpoint's folder."""
    return ROOT / "saved_models" / "stories260K"


@pytest.fixture(scope="session")
def stories15m() -> Path:
    """The stories15M checkpoint's folder."""
    folder = find_checkpoint("stories15M")
    if folder is None:
        pytest.skip("stories15M is not here: set TFMODELS_CHECKPOINTS to a folder that holds it")
    return folder
