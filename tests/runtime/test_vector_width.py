"""runtime/vector_width.py: XLA is asked for wide vectors where the processor is fast with them."""

import pytest

from tfmodels.runtime.vector_width import widen

WIDE = "flags\t\t: fpu avx2 avx512f avx512_vbmi2 avx512_vnni\n"
FLAG = "--xla_cpu_prefer_vector_width"


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ({}, f"{FLAG}=512"),
        ({"XLA_FLAGS": " "}, f"{FLAG}=512"),
        ({"XLA_FLAGS": "--xla_cpu_max_isa=AVX512"}, f"--xla_cpu_max_isa=AVX512 {FLAG}=512"),
        ({"XLA_FLAGS": f"{FLAG}=128"}, None),
        ({"XLA_FLAGS": "/a/file/of/flags"}, None),
    ],
)
def test_a_flag_is_added_to_those_given(tmp_path, given, after):
    (tmp_path / "cpuinfo").write_text(WIDE)
    environment = dict(given)
    assert widen(environment, tmp_path / "cpuinfo") == (after is not None)
    assert environment == (given if after is None else {"XLA_FLAGS": after})


def test_other_processors_keep_the_width_of_xla(tmp_path):
    (tmp_path / "cpuinfo").write_text(WIDE.replace(" avx512_vbmi2", ""))
    environment = {}
    assert not widen(environment, tmp_path / "cpuinfo")
    assert not widen(environment, tmp_path / "nothing")
    assert not environment
