"""What training asks of every Keras model here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfmodels.runtime.compile import ProgramCache


class TrainedModel(keras.Model):
    """A Keras model whose steps are traced for the shapes they are compiled for, and a first one only once.

    XLA compiles a step of `fit`, `evaluate` or `predict` for every shape of a batch. Keras traces it for all shapes at
    once, where no fused kernel can be called: rows of different lengths or a last batch with fewer rows suffice.

    Keras makes the optimizer's variables while it traces the first step, which TensorFlow then has to trace again. (So
    do metrics that are given by name; metrics that are objects have their variables.)
    """

    def make_train_function(self, force: bool = False) -> Any:
        if keras.backend.backend() == "tensorflow" and self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return self._make("train", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Any:
        return self._make("test", super().make_test_function, force)

    def make_predict_function(self, force: bool = False) -> Any:
        return self._make("predict", super().make_predict_function, force)

    def _make(self, kind: str, make: Callable[..., Any], force: bool) -> Any:
        name = f"{kind}_function"
        if getattr(self, name) is None or force:
            make(force=True)
            if keras.backend.backend() == "tensorflow" and self._compiles_for_one_device():
                setattr(self, name, _Steps(self, getattr(self, f"{kind}_step"), getattr(self, name)))
        return getattr(self, name)

    def _compiles_for_one_device(self) -> bool:
        return self.jit_compile and not self.run_eagerly and self.distribute_strategy.num_replicas_in_sync == 1


class _Steps:
    """What takes a model's steps, in place of the function that Keras made for that.

    Args:
        model: the model.
        step: a method of it, from a batch to outputs.
        of_keras: takes several steps in one program, for batches of one known shape.
    """

    def __init__(self, model: keras.Model, step: Callable[[Any], Any], of_keras: Callable[[Any], Any]):
        self.model, self.of_keras = model, of_keras
        self.step = lambda batch: model.distribute_strategy.run(step, args=(batch,))
        self.programs = ProgramCache()

    def __call__(self, batches: Any) -> Any:
        """Take steps over a list of batches, and give all outputs; or over an iterator's next ones, and the last's."""
        import tensorflow as tf

        if isinstance(batches, list):
            first, *others = [self._take(batch) for batch in batches]
            return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), first, *others) if others else first
        if isinstance(batches, tf.data.Iterator) and _is_known(batches.element_spec):
            return self.of_keras(batches)
        taken = [self._take(batch) for _, batch in zip(range(self.model.steps_per_execution), batches, strict=False)]
        if not taken:
            raise StopIteration
        return taken[-1]

    def _take(self, batch: Any) -> Any:
        import tensorflow as tf

        # As in Keras, an Optional stands for nothing.
        batch = tf.nest.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch)
        return self.programs.run("step", self.step, batch)


def _is_known(spec: Any) -> bool:
    import tensorflow as tf

    return all(tf.TensorShape(getattr(part, "shape", None)).is_fully_defined() for part in tf.nest.flatten(spec))
