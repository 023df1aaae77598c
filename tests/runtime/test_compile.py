"""runtime/compile.py: what is compiled anew, what is kept, and what copies hold."""

from __future__ import annotations

import copy
import ctypes
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfmodels.runtime.compile import OFTEN, Held, ProgramCache


def double(x):
    return {"twice": x["it"] * 2}


@pytest.mark.parametrize("steady", [False, True])
def test_structures_of_the_same_shapes_have_their_own_programs(steady):
    programs, one, zero = ProgramCache(), tf.ones(()), tf.zeros(())

    def first(parts):
        return next(iter(parts.values())) if isinstance(parts, dict) else parts[0]

    cases = [({"a": one, "b": zero}, 1), ([zero, one], 0), ((one, zero), 1), ({"b": one, "c": zero}, 1)]
    for parts, want in cases + cases:
        assert float(programs.run("first", first, parts, jit_compile=False, steady=steady)) == want


@pytest.mark.parametrize("jit_compile", [False, True])
def test_held_arguments_share_the_program_of_others(jit_compile):
    """Variables, dicts and parts that are None, held or not, in every call after the first, too."""
    programs, weight = ProgramCache(), tf.Variable(3.0)
    captured = tf.Variable(100.0)

    def combined(variables, parts, x):
        variables[0].assign_add(1.0)
        return {"sum": variables[0] * x + parts["a"] - parts["b"] + captured, "none": parts["none"]}

    def run(one, two, three):
        return programs.run("combined", combined, one, two, three, jit_compile=jit_compile, steady=True)

    parts = {"b": tf.constant(1.0), "a": tf.constant(20.0), "none": None}
    held = Held((weight,)), Held(parts)
    for turn in range(6):
        result = run(*(held if turn % 2 else ((weight,), parts)), tf.constant(float(turn)))
        assert result["none"] is None and float(result["sum"]) == (4 + turn) * turn + 119
    assert programs.compilations == 1
    # Other tensors of the same shapes, one of them twice; and a variable that changes meanwhile.
    twice = tf.constant(5.0)
    captured.assign(0.0)
    assert float(run(held[0], {"b": twice, "a": twice, "none": None}, tf.constant(0.0))["sum"]) == 0
    assert float(run(held[0], {"b": twice, "a": tf.constant(6.0), "none": None}, tf.constant(0.0))["sum"]) == 1
    assert programs.compilations == 1


def test_a_program_for_each_shape_dtype_and_key():
    programs = ProgramCache()
    for value in (np.ones(2), np.zeros(2), np.ones(3), np.ones(2, "int32")):
        np.testing.assert_array_equal(programs.run("double", double, {"it": tf.constant(value)})["twice"], 2 * value)
    assert programs.compilations == len(programs) == 3
    programs.run("other", double, {"it": tf.constant(np.ones(2))}, jit_compile=False)
    assert programs.compilations == 4 and not programs.knows("third", {"it": tf.constant(1)})


def test_the_least_recently_used_program_goes():
    programs = ProgramCache(limit=2)
    one, two, three = (tf.ones(size) for size in (1, 2, 3))
    for x in (one, two, one, three):
        programs.run("neg", tf.negative, x)
    assert len(programs) == 2 and programs.compilations == 3
    programs.run("neg", tf.negative, one)
    assert programs.compilations == 3
    programs.run("neg", tf.negative, two)
    assert programs.compilations == 4


def test_a_plain_graph_goes_when_xla_is_ready():
    programs, x = ProgramCache(), tf.ones(3)
    for _ in range(OFTEN):
        programs.run_at_once("neg", tf.negative, tf.negative, x)
    programs.wait()
    assert len(programs) == 1 and programs.compilations == 2
    for _ in range(OFTEN):
        np.testing.assert_array_equal(programs.run_at_once("neg", tf.negative, tf.negative, x), -x)
    assert len(programs) == 1 and programs.compilations == 2


def test_a_plain_graph_that_was_asked_for_stays():
    programs, x = ProgramCache(), tf.ones(3)
    for jit_compile in (False, True, False):
        programs.run("neg", tf.negative, x, jit_compile=jit_compile)
    assert len(programs) == programs.compilations == 2


def test_one_trace_for_any_shape():
    programs = ProgramCache()
    for size in (2, 3, 4):
        programs.run("neg", tf.negative, tf.ones(size), jit_compile=False, any_shape=True)
    assert programs.compilations == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda programs: pickle.loads(pickle.dumps(programs))])
def test_copies_are_empty(copied):
    programs = ProgramCache(limit=3)
    programs.run("neg", tf.negative, tf.ones(1))
    assert len(copied(programs)) == 0 and copied(programs).limit == 3


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit=0"):
        ProgramCache(limit=0)


@pytest.mark.slow  # another process
def test_a_second_generate_compiles_nothing_on_jax():
    pytest.importorskip("jax", reason="pip install -e '.[jax]'")
    code = (
        "import logging, sys\n"
        "from tfmodels import TFLlamaForCausalLM\n"
        "model = TFLlamaForCausalLM.from_pretrained('stories260K')\n"
        "import jax\n"
        "ids = [[1, 403, 407, 261, 378]]\n"
        "first = model.generate(ids, max_new_tokens=4).tolist()\n"
        "compiled = model.programs.compilations\n"
        "jax.config.update('jax_log_compiles', True)\n"
        "for _ in range(2):\n"
        "    print('AGAIN', file=sys.stderr)\n"
        "    assert model.generate(ids, max_new_tokens=4).tolist() == first\n"
        "assert model.programs.compilations == compiled == 2\n"
        "assert first == [[1, 403, 407, 261, 378, 432, 383, 286, 261]]\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # The code around the two programs (padding, slices of the result) is compiled once, too.
    assert "Compiling" not in result.stderr.split("AGAIN")[-1]


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def added(variables, x):
    for variable in variables:
        variable.assign_add(tf.fill(variable.shape, x), read_value=False)
    return [variable.read_value()[0] for variable in variables]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("steady", [False, True])
def test_variables_of_a_call_are_told_apart(jit_compile, steady):
    """A program for other variables of the same shapes is the same one; one for the same variable twice is another."""
    programs = ProgramCache()
    for twice in (False, True, False, True):
        one, other = (tf.Variable(tf.fill(3, x), trainable=False) for x in (10.0, 20.0))
        variables = [one, one if twice else other]
        got = programs.run(("add", twice), added, variables, tf.constant(1.0), jit_compile=jit_compile, steady=steady)
        want = [12.0, 12.0] if twice else [11.0, 21.0]
        assert list(map(float, got)) == want and [float(x[0]) for x in variables] == want
    assert programs.compilations == 2


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("way", ["run", "steady", "plain", "prepare"])
def test_a_program_does_not_keep_the_variables_of_its_first_call(way):
    size, kept = 1 << 26, []

    def call():
        programs, variable = ProgramCache(), tf.Variable(tf.zeros(size // 4), trainable=False)
        arguments = ("add", added, [variable], tf.constant(2.0))
        if way == "prepare":
            programs.prepare(*arguments)
            programs.wait()
        else:
            programs.run(*arguments, jit_compile=way != "plain", steady=way == "steady")
        assert programs.compilations == 1
        kept.append(programs)

    call()
    before = resident()
    for _ in range(4):
        call()
    assert resident() - before < 2 * size


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc gives memory back on demand")
def test_free_memory_is_given_back_after_a_compilation():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size, count = 10_000, 20_000
    parts = [libc.malloc(ctypes.c_size_t(size)) for _ in range(count)]
    for part in parts:
        ctypes.memset(part, 1, size)
    for part in parts[:-1]:  # the last one keeps glibc from giving back the others by itself
        libc.free(ctypes.c_void_p(part))
    programs, before = ProgramCache(), resident()
    programs.run("double", lambda x: x * 2, tf.ones(3), jit_compile=False)
    plain = resident()
    programs.run("double", lambda x: x * 2, tf.ones(3))
    libc.free(ctypes.c_void_p(parts[-1]))
    assert before - plain < size * count / 4 < plain - resident()
