"""runtime/xla_flags.py: flags of XLA that make wrong numbers are found and told of once."""

import warnings

import numpy as np
import pytest

from tfmodels.runtime import compile, xla_flags

FLAG = "--xla_gpu_command_buffer_scheduling_mode"


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("", None),
        (f"{FLAG}=SERIALIZE", None),
        (f"{FLAG}=CONCURRENT", f"{FLAG}=CONCURRENT"),
        (f"--xla_gpu_autotune_level=2  {FLAG}=concurrent", f"{FLAG}=concurrent"),
        (f"--xla_gpu_autotune_level=2 '{FLAG}=CONCURRENT'", f"{FLAG}=CONCURRENT"),
        (f"{FLAG}=CONCURRENT {FLAG}=SERIALIZE", None),  # the last one counts
        (f"{FLAG}_of_mine=CONCURRENT", None),
        (f"--xla_gpu_autotune_level=2 '{FLAG}=CONCURRENT", None),
    ],
)
def test_which_flags_are_known(flags, found, tmp_path):
    assert xla_flags.unsafe_flag({"XLA_FLAGS": flags}) == found
    if flags:
        (tmp_path / "flags.txt").write_text(flags.replace(" ", "\n"))
        assert xla_flags.unsafe_flag({"XLA_FLAGS": str(tmp_path / "flags.txt")}) == found


def test_a_process_is_warned_once_and_on_a_gpu_only(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{FLAG}=CONCURRENT")
    assert xla_flags.unsafe_flag({"XLA_FLAGS": "/nowhere/flags"}) is None
    for has_gpu in (False, True):
        monkeypatch.setattr(xla_flags, "has_gpu", lambda has_gpu=has_gpu: has_gpu)
        xla_flags.warn_where_unsafe.cache_clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number in (1, 2):
                programs = compile.ProgramCache()
                assert programs.run("double", lambda x: x * 2, np.float32(number), jit_compile=True) == 2 * number
        told = [str(warning.message) for warning in caught if FLAG in str(warning.message)]
        assert len(told) == int(has_gpu)
    assert "wrong logits on a GPU" in told[0]
    xla_flags.warn_where_unsafe.cache_clear()
