"""Optimizers and learning rates that fine-tuning needs beyond Keras's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tfmodels.utils.text import quote

# How older scripts call the scale and offset of a norm. The families here name their norms otherwise.
_NORM_NAMES = ("LayerNorm", "layer_norm", "layernorm")
_NORM = re.compile(r"norm|(^|/)ln_")


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and the backend's random numbers; the same as `keras.utils.set_random_seed`.

    Example:
        >>> set_seed(0)
    """
    keras.utils.set_random_seed(seed)


class GradientAccumulator:
    """Sums the gradients of several batches, for training loops of one's own on TensorFlow.

    Under `tf.distribute` each replica has its own sums. `fit` needs none of this: optimizers of Keras take
    `gradient_accumulation_steps`.

    Raises:
        ValueError: at a call, other gradients than before; at reading, nothing was summed yet.
        NotImplementedError: Keras runs on another backend.

    Example:
        >>> accumulator = GradientAccumulator()
        >>> for batch in ([1.0, 2.0], [3.0, 4.0]):
        ...     accumulator([keras.ops.convert_to_tensor(batch), None])
        >>> int(accumulator.step), accumulator.gradients[0].numpy().tolist()
        (2, [4.0, 6.0])
        >>> accumulator.reset()
        >>> int(accumulator.step)
        0
    """

    def __init__(self) -> None:
        if keras.backend.backend() != "tensorflow":
            raise NotImplementedError(
                "GradientAccumulator is for loops with tf.GradientTape; on other backends optimizers take "
                "gradient_accumulation_steps."
            )
        self._gradients: list[Any] = []
        self._steps: Any = None

    @property
    def step(self) -> Any:
        """Number of batches that were added, int64."""
        import tensorflow as tf

        if self._steps is None:
            self._steps = tf.Variable(
                tf.constant(0, tf.int64),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
        return self._steps.value()

    @property
    def gradients(self) -> list[Any]:
        """The sums on this replica, None where a variable had no gradient."""
        if not self._gradients:
            raise ValueError("no gradients yet: call the accumulator with those of a batch first.")
        return [None if total is None else total.value() for total in self._gradients]

    def __call__(self, gradients: Sequence[Any]) -> None:
        """Add the gradients of a batch, one a variable, None where there is none."""
        import tensorflow as tf

        if not self._gradients:
            _ = self.step  # makes the counter
            self._gradients = [
                None
                if gradient is None
                else tf.Variable(
                    tf.zeros_like(gradient),
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.NONE,
                )
                for gradient in gradients
            ]
        if len(gradients) != len(self._gradients):
            raise ValueError(
                f"{len(gradients)} gradients were given; {len(self._gradients)} were expected, as before."
            )
        for total, gradient in zip(self._gradients, gradients, strict=True):
            if (total is None) != (gradient is None):
                raise ValueError("a variable has a gradient in one batch and none in another: the sum would be wrong.")
            if total is not None:
                total.assign_add(tf.convert_to_tensor(gradient))
        self._steps.assign_add(1)

    def reset(self) -> None:
        """Begin again from zero."""
        if self._gradients:
            self._steps.assign(0)
            for total in self._gradients:
                if total is not None:
                    total.assign(ops.zeros_like(total))


def decay_matrices_only(
    optimizer: keras.optimizers.Optimizer, model: keras.layers.Layer
) -> keras.optimizers.Optimizer:
    """Keep weight decay away from norms and biases, that is from every weight with fewer than two axes.

    Args:
        optimizer: with `weight_decay` set, and not yet used.
        model: a built model or layer that it will train.

    Returns:
        The same optimizer.

    Raises:
        ValueError: the optimizer decays nothing, has been built already, or the model has no weights yet.

    Example:
        >>> import keras
        >>> from tfmodels.training.optimizers import decay_matrices_only
        >>> dense = keras.layers.Dense(2)
        >>> dense.build((None, 3))
        >>> optimizer = decay_matrices_only(keras.optimizers.AdamW(1e-3, weight_decay=0.1), dense)
        >>> [optimizer._use_weight_decay(weight) for weight in (dense.kernel, dense.bias)]
        [True, False]
    """
    if not optimizer.weight_decay:
        raise ValueError(
            f"{type(optimizer).__name__} has weight_decay={quote(optimizer.weight_decay)}: nothing to exclude."
        )
    if optimizer.built:
        raise ValueError(f"{type(optimizer).__name__} has been used already; exclude weights before the first step.")
    if not model.weights:
        raise ValueError(f"{model.name} has no weights yet: build it, or call it once, before.")
    optimizer.exclude_from_weight_decay(var_list=[w for w in model.trainable_weights if len(w.shape) < 2])
    return optimizer


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises to `initial_learning_rate` and then follows another schedule.

    Args:
        initial_learning_rate: the rate at the end of the warm-up.
        decay_schedule_fn: the schedule after it, a function of the steps since.
        warmup_steps: steps of the warm-up, at least 1.
        power: of the rise; 1 is linear.
        name: as in Keras.

    Raises:
        ValueError: `warmup_steps` is below 1.

    Example:
        >>> rate = WarmUp(0.4, keras.optimizers.schedules.PolynomialDecay(0.4, 10, 0.0), warmup_steps=4)
        >>> [round(float(rate(step)), 3) for step in (0, 1, 4, 9, 14)]
        [0.0, 0.1, 0.4, 0.2, 0.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_schedule_fn: Callable[[Any], Any],
        warmup_steps: int,
        power: float = 1.0,
        name: str | None = None,
    ):
        super().__init__()
        if warmup_steps < 1:
            raise ValueError(f"warmup_steps={quote(warmup_steps)}; at least 1 was expected.")
        self.initial_learning_rate = initial_learning_rate
        self.decay_schedule_fn = decay_schedule_fn
        self.warmup_steps = warmup_steps
        self.power = power
        self.name = name

    def __call__(self, step: Any) -> Any:
        done = ops.cast(step, "float32") / self.warmup_steps
        rising = self.initial_learning_rate * ops.power(ops.minimum(done, 1.0), self.power)
        return ops.where(done < 1.0, rising, self.decay_schedule_fn(ops.maximum(step - self.warmup_steps, 0)))

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_schedule_fn": keras.saving.serialize_keras_object(self.decay_schedule_fn),
            "warmup_steps": self.warmup_steps,
            "power": self.power,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        config = dict(config)
        config["decay_schedule_fn"] = keras.saving.deserialize_keras_object(config["decay_schedule_fn"])
        return cls(**config)


class AdamWeightDecay(keras.optimizers.AdamW):
    """Adam with decoupled weight decay, under the arguments of transformers' optimizer of this name.

    Args:
        learning_rate: a float or a schedule.
        beta_1, beta_2, epsilon, amsgrad, name, **kwargs: as in `keras.optimizers.AdamW`.
        weight_decay_rate: each step takes learning rate x this share off a weight.
        include_in_weight_decay: parts of variable paths that always decay.
        exclude_from_weight_decay: parts of variable paths that do not, unless included. "LayerNorm" and "layer_norm"
            stand for every norm, however a family calls it.

    Source:
        Loshchilov and Hutter, https://arxiv.org/abs/1711.05101.

    Example:
        >>> optimizer = AdamWeightDecay(1e-3, weight_decay_rate=0.01, exclude_from_weight_decay=["LayerNorm", "bias"])
        >>> optimizer.weight_decay
        0.01
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay_rate: float = 0.0,
        include_in_weight_decay: Sequence[str] | None = None,
        exclude_from_weight_decay: Sequence[str] | None = None,
        name: str = "AdamWeightDecay",
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate,
            weight_decay=weight_decay_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            name=name,
            **kwargs,
        )
        self.weight_decay_rate = weight_decay_rate
        self.included = tuple(include_in_weight_decay or ())
        self.excluded = tuple(exclude_from_weight_decay or ())

    def build(self, variables: Sequence[Any]) -> None:
        if not self.built:
            kept = [variable for variable in variables if not self._decays(variable.path)]
            if kept:
                self.exclude_from_weight_decay(var_list=kept)
        super().build(variables)

    def _decays(self, path: str) -> bool:
        if any(_is_named(part, path) for part in self.included):
            return True
        return not any(_is_named(part, path) for part in self.excluded)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("weight_decay", None)
        return {
            **config,
            "weight_decay_rate": self.weight_decay_rate,
            "include_in_weight_decay": list(self.included) or None,
            "exclude_from_weight_decay": list(self.excluded) or None,
        }


def _is_named(part: str, path: str) -> bool:
    """Whether a variable's path has a part; the names of norms in older scripts fit every norm."""
    return part in path or (part in _NORM_NAMES and _NORM.search(path.lower()) is not None)


def create_optimizer(
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int,
    min_lr_ratio: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    adam_clipnorm: float | None = None,
    adam_global_clipnorm: float | None = None,
    weight_decay_rate: float = 0.0,
    power: float = 1.0,
    include_in_weight_decay: Sequence[str] | None = None,
) -> tuple[keras.optimizers.Optimizer, keras.optimizers.schedules.LearningRateSchedule]:
    """Adam with a warm-up and a polynomial decay of its learning rate, and with weight decay where asked for.

    Args:
        init_lr: the learning rate after the warm-up.
        num_train_steps: all steps of the training, the warm-up's included.
        num_warmup_steps: steps over which the rate rises from 0; 0 for none.
        min_lr_ratio: the last learning rate, as a share of `init_lr`.
        adam_beta1, adam_beta2, adam_epsilon, adam_clipnorm, adam_global_clipnorm: of Adam.
        weight_decay_rate: 0 for none; norms and biases do not decay.
        power: of the decay; 1 is linear.
        include_in_weight_decay: parts of variable paths that decay although they belong to a norm or bias.

    Returns:
        The optimizer and its learning rate schedule.

    Raises:
        ValueError: not more training steps than warm-up steps.

    Example:
        >>> optimizer, schedule = create_optimizer(2e-5, num_train_steps=100, num_warmup_steps=10)
        >>> [float(f"{float(schedule(step)):.2e}") for step in (0, 5, 10, 55, 100)]
        [0.0, 1e-05, 2e-05, 1e-05, 0.0]
    """
    if num_train_steps <= num_warmup_steps or num_warmup_steps < 0:
        raise ValueError(
            f"num_train_steps={quote(num_train_steps)} and num_warmup_steps={quote(num_warmup_steps)}; more "
            f"training steps than warm-up steps were expected."
        )
    schedule = keras.optimizers.schedules.PolynomialDecay(
        init_lr, num_train_steps - num_warmup_steps, init_lr * min_lr_ratio, power=power
    )
    if num_warmup_steps:
        schedule = WarmUp(init_lr, schedule, num_warmup_steps)
    settings = {
        "beta_1": adam_beta1,
        "beta_2": adam_beta2,
        "epsilon": adam_epsilon,
        "clipnorm": adam_clipnorm,
        "global_clipnorm": adam_global_clipnorm,
    }
    if weight_decay_rate > 0:
        optimizer = AdamWeightDecay(
            schedule,
            weight_decay_rate=weight_decay_rate,
            include_in_weight_decay=include_in_weight_decay,
            exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"],
            **settings,
        )
    else:
        optimizer = keras.optimizers.Adam(schedule, **settings)
    return optimizer, schedule


for _class in (WarmUp, AdamWeightDecay):
    keras.saving.register_keras_serializable("tfmodels")(_class)
