"""Build a model without allocating its weights, then fill them one by one.

A model built the ordinary way draws random weights that loading then throws away: twice the time, and twice the memory
at its peak. Keras declares variables without values inside a `StatelessScope`, but has no public way to give such a
variable its value. This is the only module that uses Keras's private parts for that;
`tests/checkpoints/test_deferred.py` fails where a new version of Keras changes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

# Keras lists the declared variables here, so that its next symbolic call gives them values. There is no public access.
from keras.src.backend.common import global_state

from tfmodels.checkpoints.tensor_copy import to_array, to_tensor
from tfmodels.checkpoints.weight_map import WeightSlot
from tfmodels.dtypes import dtype_name

_DECLARED = "uninitialized_variables"


class DeclaredWeights:
    """The variables that were declared inside `declare_weights`."""

    def __init__(self) -> None:
        self.variables: list[Any] = []

    def drop(self, variable: Any) -> None:
        """Forget a variable that its layer has given up: it stays empty."""
        self.variables = [one for one in self.variables if one is not variable]

    def initialize_rest(self) -> None:
        """Give the variables that are still empty their initial values: new heads, the states of dropout layers."""
        for variable in self.variables:
            if is_empty(variable):
                variable._deferred_initialize()  # private: runs the variable's own initializer, late


@contextlib.contextmanager
def declare_weights() -> Iterator[DeclaredWeights]:
    """Inside, layers declare their variables without allocating them.

    Yields:
        The declared variables, complete once the block has ended.

    Example:
        >>> import keras
        >>> layer = keras.layers.Dense(2)
        >>> with declare_weights() as declared:
        ...     layer.build((None, 3))
        >>> [is_empty(variable) for variable in declared.variables]
        [True, True]
        >>> declared.initialize_rest()
        >>> layer.kernel.numpy().shape
        (3, 2)
    """
    before = list(global_state.get_global_attribute(_DECLARED) or ())
    known = {id(variable) for variable in before}
    declared = DeclaredWeights()
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield declared
    finally:
        listed = global_state.get_global_attribute(_DECLARED) or ()
        declared.variables += [variable for variable in listed if id(variable) not in known]
        # Left in Keras's list, they would be initialised a second time by the next symbolic call.
        global_state.set_global_attribute(_DECLARED, before)


def is_empty(variable: Any) -> bool:
    """Whether a variable was declared and has no value yet."""
    return variable._value is None  # private: the public `value` makes one up for an empty variable


def fill(slot: WeightSlot, values: np.ndarray) -> None:
    """Give a variable the values of a file.

    Args:
        slot: the variable, declared or with a value.
        values: an array of the slot's shape in the file, of any floating-point dtype.
    """
    variable, dtype = slot.variable, dtype_name(slot.variable.dtype)
    backend, distribution = keras.backend.backend(), keras.distribution.distribution()
    if backend == "tensorflow":
        tensor = to_tensor(values, dtype=dtype, transpose=slot.transposed)
    elif backend == "jax" and distribution is not None:
        tensor = _by_parts(slot, values, distribution)
    else:
        tensor = to_array(values, dtype=dtype, transpose=slot.transposed)
        if backend == "jax":
            import jax

            # An array of NumPy would go to the device anew at every call. On a CPU this one takes over its memory.
            tensor = jax.device_put(tensor)
    if is_empty(variable):
        variable._initialize(tensor)  # private: the tensor becomes the variable's memory, `assign` would copy it
        variable._initializer = None  # private: what Keras drops as well once a variable has its value
    else:
        variable.assign(tensor)


def _by_parts(slot: WeightSlot, values: np.ndarray, distribution: keras.distribution.Distribution) -> Any:
    """An array of JAX over the devices of a distribution: of the file each device's part alone is read.

    A part that several devices hold is read once. Of several processes, each reads the parts of its own devices.
    """
    import jax

    layout = distribution.get_variable_layout(slot.variable).backend_layout
    parts: dict[tuple[Any, ...], np.ndarray] = {}

    def part(index: tuple[slice, ...]) -> np.ndarray:
        key = tuple((one.start, one.stop) for one in index)
        if key not in parts:
            own = values[index[::-1] if slot.transposed else index]
            parts[key] = to_array(own, dtype=dtype_name(slot.variable.dtype), transpose=slot.transposed)
        return parts[key]

    shape = values.shape[::-1] if slot.transposed else values.shape
    return jax.make_array_from_callback(tuple(shape), layout, part)


def fill_packed(slot: WeightSlot, parts: dict[str, np.ndarray]) -> None:
    """Give packed weights the arrays of a file.

    Args:
        slot: of packed weights.
        parts: as `Scheme.parts` says, in the dtypes of the variables.
    """
    for name, variable in slot.packed.parts.items():
        fill(WeightSlot(variable, False), parts[name])
