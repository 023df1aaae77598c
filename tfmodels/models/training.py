"""Keras training for all models: steps compiled per batch shape, and losses that models compute themselves.

The file is long because it is the class that every model trains by, `TrainedModel`, and what heads add, `TaskModel`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.models import fit_checks, fit_data, replicas
from tfmodels.models.outputs import ModelOutput
from tfmodels.runtime.compile import ProgramCache
from tfmodels.runtime.xla_flags import warn_where_unsafe
from tfmodels.utils.files import staged
from tfmodels.utils.text import quote
from tfmodels.utils.warn import warn

# Values of `compile(loss=...)` that older scripts use to ask for the model's own loss.
_OWN_LOSS = ("auto", "auto_with_warning", "passthrough")


class TrainedModel(keras.Model):
    """A Keras model whose compiled steps are traced once per batch shape.

    XLA compiles a step of `fit`, `evaluate` or `predict` for every shape of a batch. Keras traces it for all shapes at
    once, where no fused kernel can be called as soon as rows differ in length or the last batch is smaller.

    Plain graphs are traced by Keras, except for datasets that do not tell the rank of their tensors (such as
    `from_generator` without shapes).

    Keras creates the optimizer's variables while it traces the first step, which TensorFlow then has to trace again;
    here they exist before. (Metrics given by name cause a second trace too; metrics given as objects do not.)
    """

    def compile(self, *args: Any, **options: Any) -> None:
        """Configure training; arguments as in Keras.

        `jit_compile="auto"` compiles the steps by XLA on GPUs, those of a `tf.distribute.MirroredStrategy` too.
        """
        super().compile(*args, **options)
        is_chosen = len(args) > 7 or options.get("jit_compile", "auto") != "auto"
        if is_chosen or self.run_eagerly or keras.backend.backend() != "tensorflow":
            return
        if replicas.have_own_programs(self.distribute_strategy, self.optimizer):
            self.jit_compile = True

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Private: under tf.distribute Keras builds metrics by the first batch, averaged over the replicas, which fails
        # where their parts differ in size, as those of an odd batch do. The first replica's part serves as well.
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            for _, _, steps in iterator:
                data_batch = keras.tree.map_structure(lambda x: strategy.experimental_local_results(x)[0], next(steps))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    def fit(self, x: Any = None, *args: Any, **options: Any) -> Any:
        """Train; arguments as in `keras.Model.fit`, which trains on nothing silently.

        Raises:
            ValueError: there are no data, they have no row, or a dataset turned out to have no batch.
        """
        fit_data.check_not_empty(x)
        if (validation := options.get("validation_data")) is not None:
            validation = validation[0] if isinstance(validation, tuple) else validation
            fit_data.check_not_empty(validation, "validation_data")
        history = super().fit(x, *args, **options)
        # A `train_step` of the user's own may name its results as it likes; Keras's callbacks add the learning rate.
        of_steps = [name for name in history.history if not name.startswith("val_") and name != "learning_rate"]
        if history.epoch and not of_steps:
            raise ValueError(fit_data.without_batch())
        return history

    def evaluate(self, x: Any = None, *args: Any, **options: Any) -> Any:
        """Loss and metrics on data; arguments as in `keras.Model.evaluate`, errors as in `fit`."""
        fit_data.check_not_empty(x)
        results = super().evaluate(x, *args, **options)
        if isinstance(results, (list, dict)) and not results:
            # Keras's `fit` calls this too. An error would end the training, and what it keeps of its data would stay.
            if not options.get("_use_cached_eval_dataset"):
                raise ValueError(fit_data.without_batch())
            warn(fit_data.without_batch("validation_data"))
        return results

    def predict(self, x: Any, *args: Any, **options: Any) -> Any:
        """Outputs for data; arguments as in `keras.Model.predict`, errors as in `fit`."""
        fit_data.check_not_empty(x)
        try:
            return super().predict(x, *args, **options)
        except UnboundLocalError as error:
            if "batch_outputs" not in str(error):  # the variable that Keras leaves unset without a batch
                raise
            raise ValueError(fit_data.without_batch()) from error

    def make_train_function(self, force: bool = False) -> Any:
        if keras.backend.backend() == "tensorflow" and self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        if self.optimizer is not None and (self.train_function is None or force):
            fit_checks.check_precision(self.optimizer, self.trainable_variables)
        return self._make("train", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Any:
        return self._make("test", super().make_test_function, force)

    def make_predict_function(self, force: bool = False) -> Any:
        return self._make("predict", super().make_predict_function, force)

    def _make(self, kind: str, make: Callable[..., Any], force: bool) -> Any:
        name = f"{kind}_function"
        if getattr(self, name) is None or force:
            make(force=True)
            if keras.backend.backend() == "tensorflow" and not self.run_eagerly:
                if self.jit_compile:
                    warn_where_unsafe()
                step = getattr(self, f"{kind}_step")
                if self.distribute_strategy.num_replicas_in_sync == 1:

                    def of_keras() -> Callable[[Any], Any]:
                        steps = getattr(self, name)
                        make(force=True)
                        made = getattr(self, name)
                        setattr(self, name, steps)
                        return made

                    setattr(self, name, _Steps(self, step, of_keras))
                elif self.jit_compile and kind != "predict" and replicas.are_mirrored(self.distribute_strategy):
                    setattr(self, name, replicas.ReplicaSteps(self, step))
        return getattr(self, name)

    def check_batch(self, batch: Any) -> None:
        """Raise an error where a batch holds values that no step can use; called where XLA compiles the steps."""


class _Steps:
    """The function that `fit`, `evaluate` or `predict` calls for its steps.

    Args:
        model: the model.
        step: a method of it, from a batch to outputs.
        of_keras: makes Keras's own function, which takes several steps in one program. It serves batches of known
            rank, and with XLA batches of one known shape where several steps are taken at once. Batches of other ranks
            get another: TensorFlow would trace one function for all of them, for tensors of unknown rank.
    """

    def __init__(self, model: keras.Model, step: Callable[[Any], Any], of_keras: Callable[[], Callable[[Any], Any]]):
        self.model, self.make_of_keras, self.jit_compile = model, of_keras, model.jit_compile
        self.of_keras: dict[tuple[int | None, ...], Callable[[Any], Any]] = {}
        self.step = lambda batch: model.distribute_strategy.run(step, args=(batch,))
        self.programs = ProgramCache()

    def __call__(self, batches: Any) -> Any:
        """Step through a list of batches and return all outputs, or through an iterator's and return the last."""
        import tensorflow as tf

        if isinstance(batches, tf.data.Iterator):
            # Inside a program of XLA no label or id can be an error, so batches are looked at before, one by one.
            one_by_one = self.jit_compile and self.model.steps_per_execution == 1
            if not one_by_one and _is_known(batches.element_spec, sizes=self.jit_compile):
                return self._for_ranks_of(batches.element_spec)(batches)
        elif not self.jit_compile:
            first, batches = _first_of(batches)
            return self._for_ranks_of(first)(batches)
        if isinstance(batches, list):
            first, *others = [self._take(batch) for batch in batches]
            return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), first, *others) if others else first
        return replicas.last_of_steps(self._take, batches, self.model.steps_per_execution)

    def _for_ranks_of(self, batch: Any) -> Callable[[Any], Any]:
        """Keras's function for batches of the ranks that this one, or its spec, has."""
        ranks = tuple(shape.rank for shape in _shapes(batch))
        if ranks not in self.of_keras:
            self.of_keras[ranks] = self.make_of_keras()
        return self.of_keras[ranks]

    def _take(self, batch: Any) -> Any:
        import tensorflow as tf

        # An Optional stands for a missing value, as in Keras.
        batch = tf.nest.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch)
        if self.jit_compile:
            self.model.check_batch(batch)
        return self.programs.run("step", self.step, batch, jit_compile=self.jit_compile, steady=True)


def _is_known(spec: Any, *, sizes: bool) -> bool:
    """Whether a dataset tells the rank of all its tensors, and with `sizes` every size too."""
    return all(shape.is_fully_defined() if sizes else shape.rank is not None for shape in _shapes(spec))


def _shapes(batch: Any) -> list[Any]:
    """The shapes of a batch's tensors, or of their specs."""
    import tensorflow as tf

    return [tf.TensorShape(getattr(part, "shape", None)) for part in tf.nest.flatten(batch)]


def _first_of(batches: Any) -> tuple[Any, Any]:
    """The first batch of a list or of a generator, and all of them."""
    if isinstance(batches, list):
        return batches[0], batches
    first = next(batches)
    return first, itertools.chain([first], batches)


class TaskModel(TrainedModel):
    """A model that computes its own loss from labels among its inputs.

    `compile` without a loss means that loss; `compile(loss=...)` replaces it. Data may hold labels among the inputs or
    apart, whichever of the two losses is used.
    """

    # Set by heads: names of the labels, and the output fields that a compiled loss and metrics see, in the same order.
    label_names: ClassVar[tuple[str, ...]] = ()
    main_outputs: ClassVar[tuple[str, ...]] = ("logits",)

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, loss_weights: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """Configure training; arguments as in Keras.

        Args:
            optimizer: as in Keras.
            loss: None, "auto", "passthrough", `model.compute_loss` or `model.hf_compute_loss` for the model's own
                loss; else a Keras loss on the logits, or one per output, in a list or a dict by the outputs' names.
            loss_weights: as in Keras; a dict is by the outputs' names, too.
            *args, **kwargs: as in `keras.Model.compile`.

        Raises:
            ValueError: an unknown loss, or a name that is no output's.
        """
        if self._is_own_loss(loss):
            loss = None
        loss, loss_weights = self._of_outputs("loss", loss), self._of_outputs("loss_weights", loss_weights)
        for name in loss.values() if isinstance(loss, Mapping) else (loss,):
            if isinstance(name, str):
                keras.losses.get(name)  # an unknown name is an error here, and not only at the first batch
        # Private: Keras keeps the loss of an earlier call where this one names none, which means the model's own here.
        self._compile_loss = self.loss = None
        super().compile(optimizer, loss, loss_weights, *args, **kwargs)

    def _of_outputs(self, argument: str, values: Any) -> Any:
        """An argument of `compile`, where a dict by the outputs' names is the value itself for a model with one."""
        if not isinstance(values, Mapping):
            return values
        if not set(values) <= set(self.main_outputs) or all(value is None for value in values.values()):
            raise ValueError(
                f"{argument} is a dict for {quote(list(values))}; one with values for "
                f"{' or '.join(self.main_outputs)} was expected, the outputs of {type(self).__name__}."
            )
        return values if len(self.main_outputs) > 1 else values[self.main_outputs[0]]

    @property
    def own_loss(self) -> bool:
        """Whether the model computes its own loss: none was compiled."""
        return self._compile_loss is None

    def label_classes(self, labels: Any) -> int | None:
        """The number of classes that integers in `labels` name, or None where they name none; heads override it."""
        return None

    def _is_own_loss(self, loss: Any) -> bool:
        if isinstance(loss, str):
            return loss in _OWN_LOSS
        own = (type(self).compute_loss, type(self).hf_compute_loss)
        return getattr(loss, "__self__", None) is self and getattr(loss, "__func__", None) in own

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras leaves this to classes with a `compile` of their own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    # Files ----------------------------------------------------------------------------------------------------

    def save(self, filepath: Any, overwrite: bool = True, **options: Any) -> None:
        """Write a `.keras` file, as `keras.Model.save` does; an older one stays whole until the new one is."""
        _write_whole(super().save, filepath, overwrite, options)

    def save_weights(self, filepath: Any, overwrite: bool = True, **options: Any) -> None:
        """Write a `.weights.h5` file, as `keras.Model.save_weights` does; an older one stays whole until then."""
        _write_whole(super().save_weights, filepath, overwrite, options)

    # Data -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | None = None,
        class_weight: Any = None,
        sample_weight: Any = None,
        **options: Any,
    ) -> Any:
        """Train; arguments as in `keras.Model.fit`.

        Beside what Keras takes, `x` may hold the labels, ragged tensors (padded on the way) and columns that are no
        inputs of the model (dropped with a warning). `shuffle` is True for arrays, and for datasets as they are.
        """
        if shuffle is None:
            shuffle = fit_data.can_shuffle(x)  # Keras warns where it was asked to and cannot
        if class_weight is not None and not isinstance(class_weight, Mapping):
            raise TypeError(f"class_weight={quote(class_weight)}; a dict from class numbers to weights was expected.")
        weighted = class_weight is not None or sample_weight is not None
        x, y = fit_data.prepared(self, x, y, apart=weighted)
        validation_data = fit_data.prepared_validation(self, validation_data)
        with fit_checks.errors_named(self):
            return super().fit(
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                class_weight=class_weight,
                sample_weight=sample_weight,
                **options,
            )

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Loss and metrics on data; arguments as in `keras.Model.evaluate`, data as in `fit`."""
        weighted = kwargs.get("sample_weight") is not None or (len(args) > 2 and args[2] is not None)
        x, y = fit_data.prepared(self, x, y, apart=weighted)
        with fit_checks.errors_named(self):
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Outputs for data; arguments as in `keras.Model.predict`, data as in `fit`, labels ignored."""
        x, _ = fit_data.prepared(self, x, None)
        with fit_checks.errors_named(self):
            return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any) -> Any:
        """One step; arguments as in `keras.Model.train_on_batch`, data as in `fit`."""
        weighted = sample_weight is not None or kwargs.get("class_weight") is not None or bool(args)
        x, y = fit_data.prepared(self, x, y, apart=weighted)
        with fit_checks.errors_named(self):
            return super().train_on_batch(x, y, sample_weight, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any) -> Any:
        """Loss and metrics of one batch; arguments as in `keras.Model.test_on_batch`, data as in `fit`."""
        x, y = fit_data.prepared(self, x, y, apart=sample_weight is not None)
        with fit_checks.errors_named(self):
            return super().test_on_batch(x, y, sample_weight, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Outputs for one batch, data as in `fit`, labels ignored."""
        with fit_checks.errors_named(self):
            return super().predict_on_batch(fit_data.prepared(self, x, None)[0])

    # Steps ----------------------------------------------------------------------------------------------------

    def check_batch(self, batch: Any) -> None:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        fit_checks.check_data(self, *(fit_checks.on_host(part) for part in fit_data.named(self, x, y)))

    def train_step(self, *arguments: Any) -> Any:
        *state, data = arguments
        return super().train_step(*state, self._with_labels(data))

    def test_step(self, *arguments: Any) -> Any:
        *state, data = arguments
        return super().test_step(*state, self._with_labels(data))

    def predict_step(self, *arguments: Any) -> Any:
        *state, data = arguments
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        data = keras.utils.pack_x_y_sample_weight(fit_data.as_inputs(self, x), y, sample_weight)
        result = super().predict_step(*state, data)
        outputs, *state = result if type(result) is tuple else (result,)
        if isinstance(outputs, ModelOutput) and "past_key_values" in outputs:
            # Caches of separate batches do not belong together, and nobody decodes from `predict`.
            outputs = type(outputs)((key, value) for key, value in outputs.items() if key != "past_key_values")
        return (outputs, *state) if state else outputs

    def _with_labels(self, data: Any) -> tuple[Any, Any, Any]:
        """Labels among the inputs where the model computes its own loss, apart where a loss was compiled."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = fit_data.as_inputs(self, x)
        if not self.label_names:
            return x, y, sample_weight
        if not self.own_loss:
            x, inside = fit_data.split_labels(self, x)
            return x, self._as_targets(inside if y is None else y), sample_weight
        if y is None:
            return x, y, sample_weight
        names = (*self.input_names, "training")
        if not isinstance(x, Mapping):
            x = dict(zip(names, x if isinstance(x, (list, tuple)) else (x,), strict=False))
        return {**x, **fit_data.by_label_name(self, y)}, None, sample_weight

    def _as_targets(self, y: Any) -> Any:
        """Labels in the form of the main output: alone, or a dict under the names of the outputs they belong to."""
        if isinstance(y, Mapping) and set(named := fit_data.under_label_names(self, y)) == set(self.label_names):
            y = [named[name] for name in self.label_names]
        if not isinstance(y, (list, tuple)) or len(y) != len(self.main_outputs):
            return y
        return dict(zip(self.main_outputs, y, strict=True)) if len(y) > 1 else y[0]

    def _main_output(self, y_pred: Any) -> Any:
        if not isinstance(y_pred, Mapping):
            return y_pred
        main = {name: y_pred[name] for name in self.main_outputs}
        return main if len(main) > 1 else next(iter(main.values()))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The compiled loss on the main output, or, where none was compiled, the model's own."""
        if not self.own_loss:
            return super().compute_loss(x, y, self._main_output(y_pred), sample_weight, training=training)
        if not isinstance(y_pred, Mapping) or "loss" not in y_pred:
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: give {' and '.join(self.label_names) or 'targets'} "
                f"among the inputs or as targets, or compile with a loss."
            )
        if sample_weight is not None:
            raise ValueError(
                "sample weights need compile(loss=...): the model's own loss is one number per batch. The same holds "
                "for class_weight, which Keras turns into sample weights."
            )
        loss = ops.cast(y_pred["loss"], "float32")
        if _replicas() > 1 and isinstance(x, Mapping):
            # Each replica has its part of the batch: the sum of their shares is the mean over all of it.
            own = self.loss_of(y_pred, x)
            mean_count = _mean_over_replicas(own.count)
            if len(own.count.shape) == 0:
                # The sum is the loss times the count. So a loss that needed no logits stays the only one computed.
                loss = ops.where(own.count > 0, loss, 0.0) * (own.count / mean_count)
            else:
                loss = own.mean(mean_count)
        for penalty in self.losses:
            loss = loss + ops.sum(ops.cast(penalty, "float32"))
        return _as_keras_weighs(loss / _replicas(), x)

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """The model's own loss of outputs that are there already, float32 scalar; a name of older scripts.

        Args:
            labels: as `fit` takes them.
            logits: the main output, or the outputs by name, or in their order where there are several.
        """
        if not isinstance(logits, Mapping):
            logits = logits if isinstance(logits, (list, tuple)) else (logits,)
            logits = dict(zip(self.main_outputs, logits, strict=True))
        return self.loss_of(logits, fit_data.by_label_name(self, labels)).mean()

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        if y is None:
            y = self._as_targets(fit_data.split_labels(self, x)[1])
        return super().compute_metrics(x, y, self._main_output(y_pred), sample_weight)


def _write_whole(write: Callable[..., None], path: Any, overwrite: bool, options: dict[str, Any]) -> None:
    """Call a method of Keras that writes one file, so that the file appears complete."""
    options = {name: value for name, value in options.items() if value is not None}
    is_new_file = isinstance(path, (str, os.PathLike)) and Path(path).parent.is_dir() and not Path(path).is_dir()
    if not is_new_file or "max_shard_size" in options or (not overwrite and Path(path).exists()):
        write(path, overwrite=overwrite, **options)  # several files, a file object, a question to the user, an error
        return
    with staged(Path(path).parent) as stage:
        write(stage.folder / Path(path).name, overwrite=True, **options)


def _replicas() -> int:
    """Number of replicas that sum their losses under `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def _as_keras_weighs(loss: Any, x: Any) -> Any:
    """A replica's share of a loss, of a value such that the loss that Keras reports is the sum of the shares.

    Keras reports the mean of `replicas * share`, weighted by each replica's rows, whose number may differ. The
    gradients are those of the share.
    """
    if _replicas() == 1:
        return loss
    first = next(part for part in keras.tree.flatten(x) if part is not None)  # whose rows Keras counts
    rows = ops.cast(ops.shape(first)[0], "float32")
    weighed = loss * (_mean_over_replicas(rows) / ops.maximum(rows, 1.0))
    return loss + ops.stop_gradient(weighed - loss)


def _mean_over_replicas(value: Any) -> Any:
    """Mean of a tensor over the replicas of `tf.distribute`, each of which has its own."""
    if _replicas() == 1:
        return value
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)
