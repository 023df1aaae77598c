"""What several families' tests share."""

import numpy as np
import pytest


@pytest.fixture
def run_dropouts():
    """A function that shows where dropouts work: a dropout of everything leaves zero there, and only in training.

    Given a model class, a configuration, ids and dropout shares, it returns the model with those dropouts, its output
    outside training, which it checks to be that of the model without them, and its output in training.
    """

    def run(model_class, config, ids, **shares):
        plain, model = model_class(config), model_class(config.replace(**shares))
        values = [np.random.default_rng(2).normal(size=weight.shape) for weight in plain.weights]
        plain.set_weights(values)
        model.set_weights(values)
        options = {"output_hidden_states": True, "output_attentions": True}
        np.testing.assert_array_equal(model(ids)[0], plain(ids)[0])
        return model, model(ids, **options), model(ids, **options, training=True)

    return run
