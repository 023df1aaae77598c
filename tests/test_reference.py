"""Every reference case: outputs, caches, losses and generated ids equal to what transformers computed."""

import numpy as np
import pytest
import reference_cases as cases
import tensorflow as tf


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
        is_slow = folder.parent.name != "llama" and call["name"] not in quick
        yield pytest.param(folder, call, id=parameter.id, marks=[pytest.mark.slow] if is_slow else [])


GENERATE = parameters("generate")
MODEL = [p for p in parameters("forward") if p.values[0].name == "model"]


@pytest.mark.parametrize("folder, call", slow_but_for_llama(GENERATE, quick=("greedy", "greedy_nocache", "combo")))
def test_generate(folder, call):
    cases.run_generate(folder, call)


def compiled(jit_compile):
    return lambda model: tf.function(lambda **inputs: model(**inputs), jit_compile=jit_compile)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("folder, call", slow_but_for_llama(MODEL))
def test_forward_compiled(folder, call, jit_compile):
    cases.run_forward(folder, call, compiled(jit_compile))


@pytest.mark.parametrize("folder, call", [p for p in parameters("forward") if p.values[1]["name"] == "native"])
def test_lower_precision_is_as_close_to_float32_as_the_references(folder, call):
    arrays, inputs = cases.arrays_of(folder), cases.inputs_of(folder, call, "native", call["inputs"])
    output = cases.model_of(folder, call["dtype"])(**inputs, **call["kwargs"])
    tokens = inputs["attention_mask"] == 1
    for key in (key for key in call["outputs"] if key.startswith("out.") and arrays[f"native.{key}"].ndim == 3):
        want = arrays[f"as_float32.{key}"][tokens]
        ours = np.linalg.norm(cases.part_of(output, key[4:])[tokens] - want)
        theirs = np.linalg.norm(arrays[f"native.{key}"][tokens] - want)
        assert ours <= 1.3 * theirs, key  # both are rounding noise, of some hundred numbers
