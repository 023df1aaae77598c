"""The parts of Keras and TensorFlow that are not public and that the package relies on: where, and what they do.

Those of variables without values are in tests/checkpoints/test_deferred.py.
"""

import ast
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.layers.tracking import ListsTracked, unlocked, untrack
from tfmodels.runtime.sub_layers import all_layers

PACKAGE = Path(__file__).parents[1] / "tfmodels"

# File -> private attributes of Keras's and TensorFlow's objects that it uses.
ATTRIBUTES = {
    "checkpoints/deferred.py": {"_deferred_initialize", "_initialize", "_initializer", "_value"},
    "layers/tracking.py": {"_lookup_dependency", "_trackable_children", "_tracker", "_untrack_variable"},
    "models/replicas.py": {"_aggregation", "_all_reduce_sum_gradients"},
    "models/training.py": {"_compile_loss", "_maybe_symbolic_build"},
    "runtime/sub_layers.py": {"_flatten_layers"},
    "training/callbacks.py": {"_current_epoch", "_initial_epoch", "_last_batch_seen"},
    "training/data/position.py": {"_initial_epoch", "_iterations"},
}
# File -> modules outside of the public API that it imports.
MODULES = {
    "checkpoints/deferred.py": {"keras.src.backend.common"},
    "export/saved_model/gradients.py": {"tensorflow.core.protobuf", "tensorflow.python.saved_model"},
    "export/saved_model/runner.py": {"tensorflow.core.protobuf"},
    "kernels/cudnn_attention.py": {"tensorflow.compiler.tf2xla.python"},
    "kernels/decoding.py": {"tensorflow.compiler.tf2xla.python"},
    "kernels/gradients.py": {"tensorflow.python.eager"},
    "kernels/triton_call.py": {"tensorflow.compiler.tf2xla.python"},
}
PRIVATE_MODULES = re.compile(r"keras\.src|tensorflow\.(python|compiler|core)")


def trees():
    for file in PACKAGE.rglob("*.py"):
        yield file.relative_to(PACKAGE).as_posix(), ast.parse(file.read_text())


def test_contributors_are_told_of_every_file():
    guide = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    for name, attributes in ATTRIBUTES.items():
        assert all(f"`{attribute}`" in guide for attribute in attributes), name
    for name, modules in MODULES.items():
        assert all(module in guide for module in modules), name


def test_no_other_module_is_imported():
    found = {}
    for name, tree in trees():
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        if private := {module for module in imported if PRIVATE_MODULES.match(module)}:
            found[name] = private
    assert found == MODULES


def test_no_other_attribute_is_used():
    known = set().union(*ATTRIBUTES.values())
    theirs = {name for kind in (keras.Model, keras.Variable, keras.optimizers.Optimizer) for name in dir(kind)}
    theirs |= known
    found, defined = {}, {}
    for name, tree in trees():
        nodes = list(ast.walk(tree))
        functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        defined[name] = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        for node in nodes:
            if not isinstance(node, ast.Attribute) or not re.match(r"_[a-z]", node.attr) or node.attr not in theirs:
                continue
            own = node.attr in functions or node.attr in defined[name]
            if node.attr in ATTRIBUTES.get(name, ()) or not own:
                found.setdefault(name, set()).add(node.attr)
    assert found == ATTRIBUTES


def test_layers_are_found_at_every_depth():
    inner = keras.layers.Dense(1)
    outer = keras.Sequential([keras.Sequential([inner])])
    assert [type(layer).__name__ for layer in all_layers(outer)] == ["Sequential", "Sequential", "Dense"]
    assert all_layers(outer)[-1] is inner


def test_a_built_layer_takes_and_gives_up_variables():
    dense = keras.layers.Dense(1)
    dense.build((None, 2))
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        dense.extra = keras.Variable(np.zeros(1, "float32"))
    dense = keras.layers.Dense(1)
    dense.build((None, 2))
    with unlocked(dense):
        dense.extra = dense.add_weight(shape=(3,), name="extra")
        untrack(dense, dense.bias)
    assert [variable.name for variable in dense.weights] == ["kernel", "extra"]


def test_layers_in_lists_enter_checkpoints():
    layer = ListsTracked()
    layer.parts = [keras.layers.Dense(1)]
    assert layer._trackable_children()["parts-0"] is layer.parts[0]
    assert layer._lookup_dependency("parts-0") is layer.parts[0]


def test_a_loss_is_kept_under_the_name_that_compile_clears():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    assert model._compile_loss is not None


def test_callbacks_and_optimizers_count_under_these_names():
    backup = keras.callbacks.BackupAndRestore("folder")
    assert backup._current_epoch == 0 and backup._last_batch_seen == 0
    assert "_initial_epoch" in inspect.getsource(keras.callbacks.BackupAndRestore)
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    variable = keras.Variable(np.zeros(1, "float32"))
    for _ in range(3):
        optimizer.apply([np.ones(1, "float32")], [variable])
    assert (int(optimizer._iterations), int(optimizer.iterations)) == (3, 1)


def test_counters_of_replicas_know_how_they_are_brought_together():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        counter = keras.optimizers.SGD().iterations.value
    assert counter.aggregation == tf.VariableAggregation.ONLY_FIRST_REPLICA
    counter._aggregation = tf.VariableAggregation.NONE
    assert counter.aggregation == tf.VariableAggregation.NONE


def test_an_optimizer_sums_gradients_over_replicas_by_this_method():
    optimizer = keras.optimizers.SGD(1.0)
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer._all_reduce_sum_gradients = lambda pairs: [(2 * gradient, own) for gradient, own in pairs]
    optimizer.apply([tf.ones(1)], [variable])
    assert variable.numpy() == [-2.0]


def test_a_traced_function_takes_flat_tensors():
    scale = tf.Variable(2.0)
    own, other = tf.constant(3.0), tf.constant(4.0)
    traced = tf.function(lambda pair: {"sum": scale * pair["own"] + pair["other"]}).get_concrete_function(
        {"own": own, "other": other}
    )
    kind = traced.function_type
    flat = kind.unpack_inputs(kind.bind({"own": own, "other": other}))
    assert sorted(map(float, flat)) == [3.0, 4.0]
    assert float(traced.inference_fn.call_preflattened([*flat, *traced.captured_inputs])["sum"]) == 10.0


def test_a_description_of_a_variable_says_which_others_are_the_same():
    """A program traced for descriptions serves the variables; one that is traced for the same variable twice does not
    serve two."""
    one, other = tf.Variable([1.0]), tf.Variable([2.0])
    spec = tf.type_spec_from_value(one)
    first, second = (type(spec)(spec.shape, spec.dtype, spec.trainable, alias_id=number) for number in (0, 1))
    program = tf.function(lambda x, y: x.assign(y + 1.0))
    traced = program.get_concrete_function(first, second)
    program(one, other)
    assert one.numpy() == [3.0]
    assert program.get_concrete_function(one, other) is traced
    assert program.get_concrete_function(one, one) is not traced


def test_the_doors_of_tensorflow_are_there():
    from tensorflow.compiler.tf2xla.python import xla
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.eager import record

    assert {"call_target_name", "operands", "result_specs", "backend_config"} <= set(
        inspect.signature(xla.custom_call_v2).parameters
    )
    assert saved_model_pb2.SavedModel().meta_graphs is not None
    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        with tape.stop_recording():
            y = x * x
        record.record_operation("test", [y], [x], lambda upstream: [7.0 * upstream])
    assert float(tape.gradient(y, x)) == 7.0
