"""layers/columns.py: columns from a place on that a program is told."""

import numpy as np
import tensorflow as tf

from tfmodels.layers.columns import take_columns


def test_one_program_serves_every_place():
    """XLA writes the value of an input into a program that needs it to be constant, as a slice's start."""
    x = tf.constant(np.arange(12).reshape(2, 6))

    @tf.function(jit_compile=True)
    def some(x, first):
        return take_columns(x, first, 2)

    programs = [some.experimental_get_compiler_ir(x, tf.constant(first))(stage="hlo") for first in (0, 3)]
    assert programs[0] == programs[1]
    np.testing.assert_array_equal(some(x, tf.constant(3)), [[3, 4], [9, 10]])
