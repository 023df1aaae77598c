"""The position of a training run in its data, so that an interrupted run continues with the next batch."""

from __future__ import annotations

from typing import Any

import keras


class Position(keras.callbacks.Callback):
    """Tells `batches` how many batches the model has learned from, by the optimizer's count, which backups hold.

    Give one object to `batches(..., position=position)` and to `fit(..., callbacks=[backup, position])`: after Keras's
    `BackupAndRestore`, before callbacks that end training, and without `steps_per_epoch`.

    Raises:
        ValueError: `fit` runs with an optimizer that scales losses (float16): it does not count batches that overflow.

    Example:
        >>> import keras
        >>> from tfmodels import TFLlamaForCausalLM
        >>> from tfmodels.training.data import batches
        >>> model = TFLlamaForCausalLM.from_pretrained("stories260K")
        >>> model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        >>> position = Position()
        >>> rows = batches({"input_ids": [[1, 403], [1, 9]], "labels": [[1, 403], [1, 9]]}, 1, position=position)
        >>> history = model.fit(rows, epochs=3, verbose=0, callbacks=[position])
        >>> position()
        4
    """

    def __init__(self):
        super().__init__()
        self.seen = 0
        self._ends_epoch = False

    def __call__(self) -> int:
        """Number of batches before the first one of this epoch, or of its rest after a restart."""
        return self.seen

    def _count(self) -> int:
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "LossScaleOptimizer does not count batches that overflow: train in bfloat16 or float32 to resume "
                "within an epoch, or leave Position out."
            )
        # `iterations` counts updates, of which there are fewer where gradients are accumulated.
        return int(optimizer._iterations)

    def on_train_begin(self, logs: Any = None) -> None:
        # A backup from a run that had itself been resumed may bear the wrong epoch: BackupAndRestore counts epochs
        # from 0 again until one ends.
        if self.model._initial_epoch is not None:
            self.model._initial_epoch = self._count() // self.params["steps"]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # Not read when the data is asked for: in a graph, that may be after the optimizer has counted its next step.
        self.seen = self._count()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # An epoch resumed within is short. Keras would find out by one more step, which has no data and is counted.
        rest = self.params["steps"] - self.seen % self.params["steps"]
        if batch + 1 == rest < self.params["steps"] and not self.model.stop_training:
            self._ends_epoch = self.model.stop_training = True

    def on_test_begin(self, logs: Any = None) -> None:
        self._let_go_on()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._let_go_on()

    def _let_go_on(self) -> None:
        """Continue with the next epoch; called before other callbacks may end training."""
        if self._ends_epoch:
            self._ends_epoch = self.model.stop_training = False
