"""generation/strategies/beams.py: what the recorded cases of tests/test_reference.py do not say."""

from __future__ import annotations

import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels.generation.sampling import gumbel_noise, highest

PROMPT = np.array([[5, 9, 11], [7, 3, 20]])
GRAPH = {"jit_compile": False, "eos_token_id": None}


@pytest.fixture(scope="module")
def model():
    model = small.make("llama", "ForCausalLM")
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    return model


def log_probabilities(model, sequences):
    logits = np.asarray(model(sequences).logits).astype("float64")[:, :-1]
    logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.take_along_axis(logits, sequences[:, 1:, None], axis=2)[:, :, 0]


def test_enough_beams_find_the_best_of_all_sequences(model):
    """Two tokens from as many beams as there are tokens: an exhaustive search."""
    vocabulary = model.config.vocab_size
    output = model.generate(
        PROMPT[:1],
        num_beams=vocabulary,
        num_return_sequences=5,
        max_new_tokens=2,
        output_scores=True,
        return_dict_in_generate=True,
        **GRAPH,
    )
    pairs = np.stack(np.meshgrid(np.arange(vocabulary), np.arange(vocabulary), indexing="ij"), -1).reshape(-1, 2)
    every = np.concatenate([np.repeat(PROMPT[:1], len(pairs), 0), pairs], axis=1)
    scores = log_probabilities(model, every)[:, -2:].sum(1) / 2
    best = np.argsort(-scores)[:5]
    np.testing.assert_array_equal(output.sequences, every[best])
    np.testing.assert_allclose(output.sequences_scores, scores[best], rtol=1e-5)


def test_the_returned_cache_holds_the_keys_of_each_beam(model):
    """Beams read each other's keys while they run; without ends all of them are returned, in their order."""
    output = model.generate(
        PROMPT, num_beams=3, num_return_sequences=3, max_new_tokens=7, return_dict_in_generate=True, **GRAPH
    )
    want = model(np.asarray(output.sequences)[:, :-1], use_cache=True).past_key_values
    for layer, wanted in zip(output.past_key_values, want, strict=True):
        np.testing.assert_allclose(layer[0], wanted[0], atol=1e-5)
        np.testing.assert_allclose(layer[1], wanted[1], atol=1e-5)


@pytest.mark.slow
def test_beams_and_sampling_repeat_and_do_not_depend_on_other_prompts(model):
    options = {"num_beams": 3, "do_sample": True, "max_new_tokens": 6, "num_return_sequences": 2, **GRAPH}
    one, again, other = (np.asarray(model.generate(PROMPT, seed=seed, **options)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (4, 9) and (one != other).any()
    np.testing.assert_array_equal(model.generate(PROMPT[:1], seed=1, **options), one[:2])


@pytest.mark.slow
def test_without_a_cache_and_padded_prompts_give_the_same(model):
    options = {"num_beams": 3, "max_new_tokens": 6, **GRAPH}
    want = np.asarray(model.generate(PROMPT, **options))
    np.testing.assert_array_equal(model.generate(PROMPT, use_cache=False, **options), want)
    padded, mask = np.pad(PROMPT, ((0, 0), (4, 0))), np.pad(np.ones_like(PROMPT), ((0, 0), (4, 0)))
    np.testing.assert_array_equal(np.asarray(model.generate(padded, attention_mask=mask, **options))[:, 4:], want)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "options, end",
    [(GRAPH, None), ({}, 2), ({**GRAPH, "do_sample": True}, None), ({**GRAPH, "early_stopping": True}, 2)],
)
def test_scores_that_are_no_numbers_are_an_error(options, end):
    model = small.make("llama", "ForCausalLM")
    for weight in model.trainable_weights[-1:]:
        weight.assign(np.full(weight.shape, np.nan))
    with pytest.raises(FloatingPointError, match="NaN in row 0"):
        model.generate(PROMPT, **{"num_beams": 2, "max_new_tokens": 3, **options, "eos_token_id": end})


@pytest.mark.parametrize(("size", "count"), [(4, 4), (1024, 4), (1025, 4), (5000, 7), (1100, 40)])
def test_the_highest_values_and_their_places(size, count):
    values = np.random.default_rng(size).integers(0, 9, (3, size)).astype("float32")
    values[1, 2:] = -np.inf
    scores, places = highest(tf.constant(values), count)
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(values, order, axis=1))


def test_noise_draws_from_the_distribution():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05], "float32")
    noise = gumbel_noise((20000, 4), tf.constant(3), tf.constant(0))
    _, places = highest(tf.math.log(probabilities) + noise, 2)
    counts = np.bincount(np.asarray(places)[:, 0], minlength=4)
    # 3 degrees of freedom: 16.3 once in a thousand.
    assert (((counts - 20000 * probabilities) ** 2) / (20000 * probabilities)).sum() < 16.3
    second = np.bincount(np.asarray(places)[:, 1], minlength=4) / 20000
    want = [p * sum(q / (1 - q) for j, q in enumerate(probabilities) if j != i) for i, p in enumerate(probabilities)]
    np.testing.assert_allclose(second, want, atol=0.015)
