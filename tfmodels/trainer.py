"""What training asks of every Keras model here."""

from __future__ import annotations

from typing import Any

import keras


class TrainedModel(keras.Model):
    """A Keras model whose training step is traced once.

    Keras makes the optimizer's variables while it traces the first step, which TensorFlow then has to trace again. (So
    do metrics that are given by name; metrics that are objects have their variables.)
    """

    def make_train_function(self, force: bool = False) -> Any:
        if keras.backend.backend() == "tensorflow" and self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)
