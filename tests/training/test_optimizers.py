"""Which weights an optimizer decays."""

import keras
import numpy as np
import pytest
import small_models as small

from tfmodels.training.optimizers import (
    AdamWeightDecay,
    GradientAccumulator,
    WarmUp,
    create_optimizer,
    decay_matrices_only,
    set_seed,
)


@pytest.mark.parametrize("name", ["llama", "mpnet"])
def test_norms_and_biases_do_not_decay(name):
    model = small.make(name, "ForTokenClassification")
    # Without gradients, decay alone moves weights: by (1 - rate * decay) each step.
    optimizer = decay_matrices_only(keras.optimizers.AdamW(0.1, weight_decay=0.5), model)
    before = [np.asarray(weight) + 0.0 for weight in model.trainable_weights]
    optimizer.apply([np.zeros(weight.shape, "float32") for weight in model.trainable_weights], model.trainable_weights)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        is_vector = any(part in weight.path for part in ("norm", "bias")) and "relative" not in weight.path
        np.testing.assert_allclose(weight, old if is_vector else old * 0.95, rtol=1e-5, err_msg=weight.path)


def test_what_cannot_be_excluded():
    model = small.make("llama", "Model")
    with pytest.raises(ValueError, match="Adam has weight_decay=None: nothing to exclude"):
        decay_matrices_only(keras.optimizers.Adam(), model)
    with pytest.raises(ValueError, match="has no weights yet"):
        decay_matrices_only(keras.optimizers.AdamW(), keras.layers.Dense(3))
    optimizer = keras.optimizers.AdamW()
    optimizer.build(model.trainable_weights)
    with pytest.raises(ValueError, match="has been used already"):
        decay_matrices_only(optimizer, model)


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


class TestCreateOptimizer:
    def test_the_rate_rises_and_falls_in_straight_lines(self):
        optimizer, schedule = create_optimizer(1e-3, num_train_steps=110, num_warmup_steps=10, min_lr_ratio=0.1)
        # Warm-up to 1e-3 over 10 steps; then to 1e-4 over the 100 that remain.
        want = [0.0, 5e-4, 1e-3, 1e-3 - 0.5 * 9e-4, 1e-4, 1e-4]
        assert rates(schedule, [0, 5, 10, 60, 110, 500]) == pytest.approx(want, rel=1e-5)
        assert type(optimizer) is keras.optimizers.Adam and optimizer.epsilon == 1e-8
        _, flat = create_optimizer(1e-3, num_train_steps=10, num_warmup_steps=0, power=2.0)
        assert rates(flat, [0, 5, 10]) == pytest.approx([1e-3, 0.25e-3, 0.0], abs=1e-9)

    @pytest.mark.parametrize("name", small.SMALL)
    def test_norms_and_biases_do_not_decay(self, name):
        model = small.make(name, "ForTokenClassification")
        optimizer, _ = create_optimizer(0.1, 10, 0, weight_decay_rate=0.5, adam_global_clipnorm=1.0)
        assert isinstance(optimizer, AdamWeightDecay) and optimizer.global_clipnorm == 1.0
        before = [np.asarray(weight) + 0.1 for weight in model.trainable_weights]
        for weight, value in zip(model.trainable_weights, before, strict=True):
            weight.assign(value)
        zeros = [np.zeros(weight.shape, "float32") for weight in model.trainable_weights]
        optimizer.apply(zeros, model.trainable_weights)
        for old, weight in zip(before, model.trainable_weights, strict=True):
            kept = len(weight.shape) == 1 or "bias" in weight.path
            np.testing.assert_allclose(weight, old if kept else old * 0.95, rtol=1e-5, err_msg=weight.path)

    def test_what_is_included_decays_after_all(self):
        model = small.make("llama", "ForTokenClassification")
        optimizer, _ = create_optimizer(0.1, 10, 0, weight_decay_rate=0.5, include_in_weight_decay=["score"])
        optimizer.build(model.trainable_variables)
        decays = {weight.path: optimizer._use_weight_decay(weight) for weight in model.trainable_variables}
        assert [value for path, value in decays.items() if path.endswith("score/bias")] == [True]
        assert not any(value for path, value in decays.items() if "norm" in path)

    def test_more_training_than_warm_up(self):
        with pytest.raises(ValueError, match="num_train_steps=5 and num_warmup_steps=5"):
            create_optimizer(1e-3, 5, 5)
        with pytest.raises(ValueError, match="warmup_steps=0; at least 1"):
            WarmUp(1e-3, keras.optimizers.schedules.CosineDecay(1e-3, 5), 0)

    def test_it_goes_through_files(self, tmp_path):
        model = small.make("llama", "ForSequenceClassification")
        optimizer, _ = create_optimizer(0.1, 20, 4, weight_decay_rate=0.5)
        model.compile(optimizer, run_eagerly=True)
        data = ({"input_ids": np.ones((2, 3), int)}, np.array([0, 1]))
        model.fit(*data, epochs=3, verbose=0)
        model.save(tmp_path / "model.keras")
        other = keras.models.load_model(tmp_path / "model.keras")
        assert type(other.optimizer) is AdamWeightDecay and other.optimizer.excluded == optimizer.excluded
        assert type(other.optimizer._learning_rate) is WarmUp
        losses = [one.fit(*data, epochs=2, verbose=0).history["loss"] for one in (model, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_seed_makes_weights_repeat():
    found = []
    for seed in (5, 5, 6):
        set_seed(seed)
        found.append((np.random.random(), np.asarray(keras.random.normal((3,))).tolist()))
    assert found[0] == found[1] != found[2]


class TestGradientAccumulator:
    """As tests/optimization/test_optimization_tf.py of transformers 4 describes it."""

    def test_it_adds_up_and_begins_again(self):
        accumulator = GradientAccumulator()
        with pytest.raises(ValueError, match="no gradients yet"):
            _ = accumulator.gradients
        for values in ([1.0, 2.0], [-2.0, 1.0], [-1.0, 2.0]):
            accumulator([keras.ops.convert_to_tensor(values), None])
        with pytest.raises(ValueError, match="1 gradients were given; 2 were expected"):
            accumulator([keras.ops.convert_to_tensor([1.0, 1.0])])
        with pytest.raises(ValueError, match="a gradient in one batch and none in another"):
            accumulator([None, None])
        assert int(accumulator.step) == 3
        total, nothing = accumulator.gradients
        np.testing.assert_allclose(total, [-2.0, 5.0])
        assert nothing is None
        accumulator.reset()
        assert int(accumulator.step) == 0
        np.testing.assert_allclose(accumulator.gradients[0], [0.0, 0.0])

    def test_a_loop_of_ones_own(self):
        """Two halves of a batch move the weights as the whole does."""
        import tensorflow as tf

        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        dense.build((None, 2))
        inputs = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
        accumulator = GradientAccumulator()

        @tf.function
        def add(part):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(dense(part) ** 2)
            accumulator(tape.gradient(loss, dense.trainable_variables))

        add(inputs[:2])
        add(inputs[2:])
        expected = 2 * inputs.numpy().T @ (inputs.numpy() @ np.ones((2, 1), "float32"))
        np.testing.assert_allclose(accumulator.gradients[0], expected)
        assert int(accumulator.step) == 2
