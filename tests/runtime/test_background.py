"""runtime/background.py and ProgramCache.run_at_once: plain graphs serve until XLA has compiled."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tfmodels.runtime.background import Background, at_work
from tfmodels.runtime.compile import ProgramCache
from tfmodels.runtime.gc import pause_gc


class Tracer:
    """A function that counts what it was traced for and where."""

    def __init__(self, error=None):
        self.threads, self.error = [], error

    def __call__(self, x):
        self.threads.append(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        return x * 2 + 1


def test_jobs_come_in_their_order_and_the_thread_ends():
    background, done, go = Background(), [], threading.Event()
    background.submit(go.wait)
    for n in range(3):
        background.submit(lambda n=n: done.append(n))
    assert at_work() and not done
    go.set()
    background.join()
    assert done == [0, 1, 2] and not at_work()


def test_a_graph_serves_until_xla_has_compiled():
    programs, compiled, plain = ProgramCache(), Tracer(), Tracer()
    x = tf.constant([1.0, 2.0])

    def call():
        np.testing.assert_array_equal(programs.run_at_once("f", compiled, plain, x), [3, 5])

    call()
    assert programs.compilations == 0  # the first call runs the operations one by one
    for _ in range(2):
        call()
    assert not compiled.threads and len(plain.threads) == 2  # a few calls are not worth it
    call()
    programs.wait()
    assert compiled.threads == ["tfmodels-compile"]
    before = len(plain.threads), len(compiled.threads)
    call()
    np.testing.assert_array_equal(programs.run("f", compiled, x), [3, 5])
    assert (len(plain.threads), len(compiled.threads)) == before and programs.compilations == 2
    # A program that `run` has compiled is used at once.
    longer = tf.ones(3)
    programs.run("f", compiled, longer)
    programs.run_at_once("f", compiled, plain, longer)
    assert len(plain.threads) == 2


def test_rare_calls_run_their_operations_one_by_one():
    programs, compiled, plain = ProgramCache(), Tracer(), Tracer()
    programs._background.submit = lambda job: None  # XLA is never ready
    for _ in range(9):
        np.testing.assert_array_equal(programs.run_at_once("f", compiled, plain, tf.ones(2), untraced=6), [3, 3])
    assert len(plain.threads) == 7 and programs.compilations == 1


def test_the_collector_rests_until_the_last_thread_has_traced():
    begun, leave = threading.Event(), threading.Event()

    def other():
        with pause_gc():
            begun.set()
            leave.wait()

    thread = threading.Thread(target=other)
    assert gc.isenabled()
    with pause_gc():
        thread.start()
        begun.wait()
    try:
        assert not gc.isenabled()
    finally:
        leave.set()
        thread.join()
    assert gc.isenabled()


def test_what_ran_eagerly_is_not_ready():
    programs, compiled, plain = ProgramCache(), Tracer(), Tracer()
    tf.config.run_functions_eagerly(True)
    try:
        programs.run("f", compiled, tf.ones(2), steady=True)
    finally:
        tf.config.run_functions_eagerly(False)
    programs.run_at_once("f", compiled, plain, tf.ones(2))
    assert len(plain.threads) == 1


def test_steady_calls_run_the_trace():
    programs, function, state = ProgramCache(), Tracer(), tf.Variable([1.0])

    def add(variable, x):
        variable.assign_add(x, read_value=False)
        return x

    for n in range(3):
        x = tf.constant([float(n)])
        np.testing.assert_array_equal(programs.run("f", function, x, steady=True), [2 * n + 1])
        programs.run("add", add, state, x, steady=True)
    other = tf.Variable([0.0])
    programs.run("add", add, other, tf.ones(1), steady=True)
    assert len(function.threads) == 1 and programs.compilations == 2
    np.testing.assert_array_equal(state, [4])
    np.testing.assert_array_equal(other, [1])


def test_variables_keep_their_values():
    programs, state = ProgramCache(), tf.Variable([1.0, 1.0])

    def add(variable, x):
        variable.assign_add(x, read_value=False)
        return x

    for _ in range(5):
        programs.run_at_once("add", add, add, state, tf.constant([1.0, 2.0]))
    programs.wait()
    np.testing.assert_array_equal(state, [6, 11])
    programs.run_at_once("add", add, add, state, tf.constant([1.0, 2.0]))
    np.testing.assert_array_equal(state, [7, 13])


def test_what_xla_cannot_compile_goes_on_as_a_graph():
    programs, plain = ProgramCache(), Tracer()
    x = tf.constant([1.0])

    def call():
        for _ in range(6):
            programs.run_at_once("f", Tracer(ValueError("bad shape")), plain, x)
        programs.wait()

    with pytest.warns(UserWarning, match="XLA cannot compile a program, and a plain graph goes on: .*bad shape"):
        call()
    np.testing.assert_array_equal(programs.run_at_once("f", plain, plain, x), [3])


def test_a_job_that_waits_keeps_no_program():
    programs, blocked = ProgramCache(), threading.Event()
    programs._background.submit(blocked.wait)
    function = Tracer()
    for _ in range(4):
        programs.run_at_once("f", function, Tracer(), tf.constant([1.0]))
    alive, background = weakref.ref(function), programs._background
    del programs, function
    gc.collect()
    assert alive() is None
    blocked.set()
    background.join()


def test_exit_waits_for_the_job_at_work_and_drops_the_others():
    code = (
        "import time\n"
        "from tfmodels.runtime.background import Background\n"
        "background = Background()\n"
        "for name in 'ab':\n"
        "    background.submit(lambda name=name: (time.sleep(0.5), print(name, flush=True)))\n"
        "time.sleep(0.1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.split() == ["a"]
