"""The parts of Keras that are not public and that building without weights needs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state

from tfmodels.checkpoints import deferred
from tfmodels.checkpoints.weight_map import slots_of

LISTED = "uninitialized_variables"


def make():
    layer = keras.layers.Dense(3, name="dense")
    with deferred.declare_weights() as declared:
        layer.build((None, 2))
    return layer, declared


def test_contract_with_keras():
    """Fails where a new Keras no longer declares, lists or fills variables in the way that this package relies on."""
    before = list(global_state.get_global_attribute(LISTED) or ())
    with keras.StatelessScope(initialize_variables=False):
        variable = keras.Variable("zeros", shape=(2,))
    listed = global_state.get_global_attribute(LISTED)
    global_state.set_global_attribute(LISTED, list(before))
    message = f"Keras {keras.__version__} has changed what tfmodels/checkpoints/deferred.py builds on: "
    assert listed and listed[-1] is variable, message + "declared variables are not in its list"
    assert hasattr(variable, "_value") and variable._value is None, message + "a declared variable has no empty _value"
    assert variable._initializer is not None, message + "a declared variable has no _initializer"
    variable._deferred_initialize()
    assert isinstance(variable._value, tf.Variable), message + "_deferred_initialize makes no value"
    with keras.StatelessScope(initialize_variables=False):
        other = keras.Variable("zeros", shape=(2,))
    global_state.set_global_attribute(LISTED, list(before))
    other._initialize(tf.constant([1.0, 2.0]))
    assert np.asarray(other).tolist() == [1.0, 2.0], message + "_initialize does not take the value"


def test_nothing_is_allocated_and_nothing_is_left_in_the_list():
    before = list(global_state.get_global_attribute(LISTED) or ())
    layer, declared = make()
    assert [deferred.is_empty(variable) for variable in declared.variables] == [True, True]
    assert list(global_state.get_global_attribute(LISTED) or ()) == before
    inputs = keras.Input((2,))  # a symbolic call initialises whatever is in the list
    deferred.fill(slots_of(layer)["weight"], np.arange(6, dtype="float16").reshape(3, 2))
    assert deferred.is_empty(layer.bias)
    declared.initialize_rest()
    outputs = keras.Model(inputs, layer(inputs))(np.array([[1.0, 10.0]]))
    assert np.asarray(outputs).tolist() == [[10.0, 32.0, 54.0]]


def test_the_list_is_restored_after_an_error():
    before = list(global_state.get_global_attribute(LISTED) or ())

    def build():
        with deferred.declare_weights():
            keras.layers.Dense(3).build((None, 2))
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        build()
    assert list(global_state.get_global_attribute(LISTED) or ()) == before


def test_a_variable_that_has_a_value_is_assigned():
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    memory = layer.kernel._value
    deferred.fill(slots_of(layer)["weight"], np.ones((3, 2), "float32"))
    assert layer.kernel._value is memory and np.asarray(layer.kernel).tolist() == [[1.0] * 3] * 2
