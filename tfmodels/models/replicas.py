"""Training steps under `tf.distribute.MirroredStrategy`, with a program of XLA for each GPU.

Keras compiles the steps of all replicas as one program, which XLA cannot place on several devices; so it leaves XLA
off under a strategy. Here each replica has a program of its own, traced once per batch shape. It holds the whole step:
the sums of the gradients over the replicas and the optimizer's update too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras

from tfmodels.runtime.compile import ProgramCache

PART_BYTES = 32 * 2**20
"""Bytes of gradients that replicas sum at a time; XLA puts smaller sums together again, up to about as many."""


def last_of_steps(take: Callable[[Any], Any], batches: Any, count: int) -> Any:
    """The outputs of the last of at most `count` steps over an iterator's batches.

    Raises:
        StopIteration: no batch is left.
    """
    taken = [take(batch) for _, batch in zip(range(count), batches, strict=False)]
    if not taken:
        raise StopIteration
    return taken[-1]


def are_mirrored(strategy: Any) -> bool:
    """Whether a strategy has several replicas, all of this process, which `ReplicaSteps` serves."""
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MirroredStrategy) and strategy.num_replicas_in_sync > 1


def have_own_programs(strategy: Any, optimizer: Any) -> bool:
    """Whether XLA can compile a step of every replica: they are GPUs of one process.

    TensorFlow has no sum over replicas inside a program of XLA for CPUs. The loss scaling of mixed_float16 decides on
    all replicas together whether a step counts, which a program of one replica cannot.
    """
    if not are_mirrored(strategy):
        return False
    gpus = all("GPU" in device.upper() for device in strategy.extended.worker_devices)
    return gpus and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


class ReplicaSteps:
    """The function that `fit` and `evaluate` call for their steps on several replicas.

    Batches that give each replica the same shape run as programs of XLA where `have_own_programs`, others as plain
    graphs: a last batch may leave a replica without a row.

    Args:
        model: the model, compiled with `jit_compile`.
        step: a method of it, from a replica's part of a batch to outputs.
    """

    def __init__(self, model: keras.Model, step: Callable[[Any], Any]):
        import tensorflow as tf

        self.model, self.strategy = model, model.distribute_strategy
        self.step = lambda part: _mean_over_replicas(step(part))
        self.compiled_step = tf.function(self.step, jit_compile=True, autograph=False)
        self.uses_xla = have_own_programs(self.strategy, model.optimizer)
        self.programs = ProgramCache()
        if model.optimizer is not None:
            _sum_in_parts(model.optimizer)
            if self.uses_xla:
                _let_replicas_count(model.optimizer)

    def __call__(self, batches: Any) -> Any:
        """Step through an iterator's batches and return the outputs of the last."""
        return last_of_steps(self._take, batches, self.model.steps_per_execution)

    def _take(self, batch: Any) -> Any:
        import tensorflow as tf

        def part_of(replica: int, value: Any) -> Any:
            # An Optional stands for a missing value, as in Keras.
            part = self.strategy.experimental_local_results(value)[replica]
            return None if isinstance(part, tf.experimental.Optional) else part

        replicas = range(self.strategy.num_replicas_in_sync)
        parts = [tf.nest.map_structure(functools.partial(part_of, replica), batch) for replica in replicas]
        shapes = [[part.shape for part in tf.nest.flatten(own) if part is not None] for own in parts]
        if self.uses_xla and all(own == shapes[0] for own in shapes):
            for own in parts:
                self.model.check_batch(own)
            return self.programs.run("compiled", self._compiled, parts, jit_compile=False, steady=True)
        return self.programs.run("plain", self._plain, parts, jit_compile=False)

    def _compiled(self, parts: list[Any]) -> Any:
        return self._on_replicas(self.compiled_step, parts)

    def _plain(self, parts: list[Any]) -> Any:
        return self._on_replicas(self.step, parts)

    def _on_replicas(self, step: Callable[[Any], Any], parts: list[Any]) -> Any:
        import tensorflow as tf

        def own_step() -> Any:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return step(parts[tf.get_static_value(replica)])

        outputs = self.strategy.run(own_step)
        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], outputs)


def _mean_over_replicas(outputs: Any) -> Any:
    """The mean of what the replicas return, as Keras reports it.

    Each replica computes it: a copy from one GPU to another would wait for the step to end before the next can start.
    """
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return tf.nest.map_structure(lambda value: context.all_reduce(tf.distribute.ReduceOp.MEAN, value), outputs)


def _sum_in_parts(optimizer: keras.optimizers.Optimizer) -> None:
    """Let an optimizer sum gradients over the replicas in parts of `PART_BYTES`, those of the last layers first.

    Keras asks for one sum of all gradients, for which TensorFlow lays them side by side: it cannot begin before the
    backward pass has ended. A part's sum needs its own gradients alone, and can run beside what is left of that pass.
    """
    import tensorflow as tf

    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a loss scaling
    # Private: Keras has no door for the options of its sum. A method of the instance takes the class's place.
    of_keras = type(optimizer)._all_reduce_sum_gradients

    def reduce(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        pairs, context = list(pairs), tf.distribute.get_replica_context()
        if context is None or any(gradient is None for gradient, _ in pairs):
            return of_keras(optimizer, pairs)
        options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=PART_BYTES)
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [gradient for gradient, _ in pairs], options)
        return [(gradient, variable) for gradient, (_, variable) in zip(summed, pairs, strict=True)]

    optimizer._all_reduce_sum_gradients = reduce


def _let_replicas_count(optimizer: keras.optimizers.Optimizer) -> None:
    """Let each replica write its own copy of the optimizer's counters, which stay equal since all take every step."""
    import tensorflow as tf

    for variable in optimizer.variables:
        value = variable.value
        if getattr(value, "aggregation", None) == tf.VariableAggregation.ONLY_FIRST_REPLICA:
            # Private: the first replica would send its counter to the others, which a program of XLA cannot.
            value._aggregation = tf.VariableAggregation.NONE
