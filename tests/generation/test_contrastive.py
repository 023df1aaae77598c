"""generation/contrastive.py against the definition: every candidate is run with the whole text."""

from __future__ import annotations

import numpy as np
import pytest
import small_models as small

from tfmodels import Engine

IDS = np.random.default_rng(2).integers(3, 60, (2, 7))
MASK = np.array([[1] * 7, [0, 0, 0, 1, 1, 1, 1]])
GRAPH = {"jit_compile": False, "eos_token_id": None, "attention_mask": MASK}


@pytest.fixture(scope="module", params=["llama", pytest.param("gpt_neo", marks=pytest.mark.slow)])
def model(request):
    model = small.make(request.param, "ForCausalLM")
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    return model


def searched(model, ids, mask, new, alpha, count):
    """Contrastive search of one row, as Su et al. define it."""
    ids = ids[mask == 1].tolist()
    for _ in range(new):
        output = model(np.array([ids]), output_hidden_states=True)
        logits = np.asarray(output.logits, "float64")[0, -1]
        said = np.asarray(output.hidden_states[-1], "float64")[0]
        powers = np.exp(logits - logits.max())
        best = np.argsort(-logits, kind="stable")[:count]
        values = []
        for token in best:
            hidden = np.asarray(model(np.array([[*ids, token]]), output_hidden_states=True).hidden_states[-1])[0, -1]
            likeness = said @ hidden / np.linalg.norm(said, axis=1) / np.linalg.norm(hidden)
            values.append((1 - alpha) * powers[token] / powers.sum() - alpha * likeness.max())
        ids.append(int(best[np.argmax(values)]))
    return ids[-new:]


@pytest.mark.quick(1)
@pytest.mark.parametrize("alpha, count", [(0.6, 4), (0.2, 3)])
def test_tokens_are_those_of_the_definition(model, alpha, count):
    options = {"penalty_alpha": alpha, "top_k": count, "max_new_tokens": 6}
    got = np.asarray(model.generate(IDS, **options, **GRAPH))[:, 7:]
    want = [searched(model, ids, mask, 6, alpha, count) for ids, mask in zip(IDS, MASK, strict=True)]
    np.testing.assert_array_equal(got, want)
    assert (got != np.asarray(model.generate(IDS, max_new_tokens=6, **GRAPH))[:, 7:]).any()


def test_ends_streams_and_processors(model):
    options = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 6, **GRAPH}
    want = np.asarray(model.generate(IDS, **options))
    pieces = []

    class Streamer:
        def put(self, ids):
            pieces.append(np.asarray(ids))

        def end(self):
            pieces.append(None)

    model.generate(IDS, streamer=Streamer(), **options)
    np.testing.assert_array_equal(np.concatenate(pieces[:-1], axis=1), want[:, 7:])
    ended = np.asarray(model.generate(IDS, **{**options, "eos_token_id": int(want[0, 9]), "pad_token_id": 0}))
    length = want[0, 7:].tolist().index(want[0, 9]) + 1
    np.testing.assert_array_equal(ended[0, 7 : 7 + length], want[0, 7 : 7 + length])
    assert not ended[0, 7 + length :].any()
    banned = np.asarray(model.generate(IDS, suppress_tokens=[int(want[0, 7])], **options))
    assert banned[0, 7] != want[0, 7]
    output = model.generate(IDS, output_scores=True, return_dict_in_generate=True, **options)
    np.testing.assert_array_equal(output.sequences, want)
    assert len(output.scores) == 6 and output.scores[0].shape == (2, model.config.vocab_size)


def test_what_does_not_go_together():
    model = small.make("llama", "ForCausalLM")
    for options, message in (
        ({"use_cache": False}, r"penalty_alpha=0.5 \(contrastive search\) with use_cache=False"),
        ({"prompt_lookup_num_tokens": 2}, "with prompt_lookup_num_tokens"),
        ({"assistant_model": model}, "with assistant_model"),
        ({"penalty_alpha": 1.5}, "penalty_alpha=1.5: it should be a number from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(IDS, **{"penalty_alpha": 0.5, "top_k": 4, **options})
    with pytest.warns(UserWarning, match="penalty_alpha: used with do_sample=False and num_beams=1 only"):
        model.generate(IDS, penalty_alpha=0.5, do_sample=True, max_new_tokens=1, jit_compile=False)
    engine = Engine(model, rows=1, capacity=16, jit_compile=False)
    with pytest.raises(ValueError, match="penalty_alpha=0.5 is not a setting of the engine's rows"):
        engine.add([5], penalty_alpha=0.5)
    model.generation_config = model.generation_config.update(penalty_alpha=0.5)  # as from a file
    assert engine.add([5], do_sample=True, max_new_tokens=2) == 0


@pytest.mark.slow
def test_compiled(model):
    options = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 6, **GRAPH}
    want = model.generate(IDS, **options)
    np.testing.assert_array_equal(model.generate(IDS, **{**options, "jit_compile": True}), want)
