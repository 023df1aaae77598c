"""Every reference case: outputs, caches, losses and generated ids equal to what transformers computed."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
import reference_cases as cases
import tensorflow as tf
from small_models import MORE


def parameters(*kinds):
    return [pytest.param(folder, call, id=name) for name, folder, call in cases.find(set(kinds))]


@pytest.mark.parametrize("folder, call", parameters("forward"))
def test_forward(folder, call):
    cases.run_forward(folder, call)


@pytest.mark.parametrize("folder, call", parameters("steps"))
def test_steps(folder, call):
    cases.run_steps(folder, call)


@pytest.mark.parametrize("folder, call", parameters("error"))
def test_error(folder, call):
    inputs = cases.inputs_of(folder, call, call["name"], call["inputs"])
    with pytest.raises((ValueError, TypeError)) as error:
        cases.model_of(folder, "float32")(**inputs, **call.get("kwargs", {}))
    assert len(str(error.value)) > 40


def slow_but_for_llama(chosen, quick=()):
    """Compiling is what takes the time: of the other families only the calls named `quick` run by default."""
    for parameter in chosen:
        folder, call = parameter.values
        is_slow = folder.parent.name != "llama" and (call["name"] not in quick or folder.parent.name in MORE)
        yield pytest.param(folder, call, id=parameter.id, marks=[pytest.mark.slow] if is_slow else [])


# Generation is shared code: families of shared layers go through a few calls, greedy ones and beams. Llama goes
# through every setting, and one more family through each.
FEW = ("greedy", "combo", "beam")
OTHERS = ("gpt_neox", "gpt_neo", "mpt")


def generate_cases():
    chosen = parameters("generate")
    known = [(parameter.values[0].parent.name, parameter.values[1]["name"]) for parameter in chosen]
    settings = sorted({name for _, name in known} - {*cases.COMPILED, *FEW})
    turns = {}
    for number, name in enumerate(settings):
        having = [family for family in OTHERS if (family, name) in known]
        turns[name] = having[number % len(having)] if having else None
    for parameter, (family, name) in zip(chosen, known, strict=True):
        if family in OTHERS and turns.get(name, family) != family:
            continue
        if family not in MORE or name in FEW:
            yield parameter


GENERATE = list(generate_cases())
MODEL = [p for p in parameters("forward") if p.values[0].name == "model"]


@pytest.mark.quick(10)
@pytest.mark.parametrize(
    "folder, call", list(slow_but_for_llama(GENERATE, quick=("greedy", "greedy_nocache", "combo")))
)
def test_generate(folder, call):
    cases.run_generate(folder, call)


def compiled(jit_compile):
    return lambda model: tf.function(lambda **inputs: model(**inputs), jit_compile=jit_compile)


# Of families but Llama those calls are compiled whose programs differ most.
COMPILED = ("left_pad", "embeds_mask", "mask4d", "packed_posids", "token_types")


def compilers():
    """Llama's calls as graphs and by XLA; those of the other families by XLA alone, which has the same graph."""
    for parameter in slow_but_for_llama(MODEL):
        folder, call = parameter.values
        if folder.parent.name != "llama" and call["name"] not in COMPILED:
            continue
        for jit_compile in (False, True) if folder.parent.name == "llama" else (True,):
            name = f"{parameter.id}-{'xla' if jit_compile else 'graph'}"
            yield pytest.param(folder, call, jit_compile, id=name, marks=parameter.marks)


@pytest.mark.quick(6)
@pytest.mark.parametrize("folder, call, jit_compile", list(compilers()))
def test_forward_compiled(folder, call, jit_compile):
    cases.run_forward(folder, call, compiled(jit_compile))


@functools.cache
def error_of_products(dtype):
    """How far this machine's products of a lower precision are from exact, against rounding to nearest once: 1 to 2.

    The sums of a product are taken in float32 everywhere. CPUs without AVX-512 cut the result off instead of rounding
    it: it errs by up to a unit in the last place instead of half of one, which is twice as much on the average too.
    """
    left, right = (np.random.default_rng(seed).normal(size=(64, 64)) for seed in (0, 1))
    left, right = tf.cast(left, dtype), tf.cast(right, dtype)
    exact = np.asarray(tf.cast(left, "float64")) @ np.asarray(tf.cast(right, "float64"))
    rounded = np.asarray(tf.cast(tf.cast(exact, dtype), "float64"))
    product = np.asarray(tf.cast(tf.matmul(left, right), "float64"))
    return np.linalg.norm(product - exact) / np.linalg.norm(rounded - exact)


NATIVE = [p for p in parameters("forward") if p.values[1]["name"] == "native"]


def native_errors(folder, call, **changes):
    """(name of an output, its distance from float32, the distance that the reference had), of tokens only."""
    arrays, inputs = cases.arrays_of(folder), cases.inputs_of(folder, call, "native", call["inputs"])
    output = cases.model_of(folder, call["dtype"])(**{**inputs, **changes}, **call["kwargs"])
    tokens = inputs["attention_mask"] == 1
    for key in (key for key in call["outputs"] if key.startswith("out.") and arrays[f"native.{key}"].ndim == 3):
        want = arrays[f"as_float32.{key}"][tokens]
        ours = np.linalg.norm(cases.part_of(output, key[4:])[tokens] - want)
        yield key, ours, np.linalg.norm(arrays[f"native.{key}"][tokens] - want)


@pytest.mark.parametrize("folder, call", NATIVE)
def test_lower_precision_is_as_close_to_float32_as_the_references(folder, call):
    # Both are rounding noise, of some hundred numbers. The reference's products were rounded to nearest.
    products = error_of_products(call["dtype"])
    assert products < 2.2, "products are summed in lower precision"
    for key, ours, theirs in native_errors(folder, call):
        assert ours <= 1.3 * products * theirs, key
    wrong = np.roll(cases.inputs_of(folder, call, "native", ["attention_mask"])["attention_mask"], 1, axis=-1)
    for key, ours, theirs in native_errors(folder, call, attention_mask=wrong):
        assert key == "out.hidden_states.0" or ours > 10 * products * theirs, f"{key} does not tell a wrong mask"


@pytest.mark.slow
def test_lower_precision_on_cpus_without_avx512():
    """There TensorFlow has no oneDNN kernels for 16-bit numbers, as if oneDNN were off.

    Not tried by ONEDNN_MAX_CPU_ISA=AVX2: where the CPU has AVX-512, TensorFlow 2.21 asks oneDNN for such kernels,
    and `tf.matmul` of two bfloat16 tensors ends the process.
    """
    tests = f"{__file__}::{test_lower_precision_is_as_close_to_float32_as_the_references.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", tests]
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cases.ROOT.parent.parent)
    assert result.returncode == 0 and f"{len(NATIVE)} passed" in result.stdout, result.stdout[-2000:]
