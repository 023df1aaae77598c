"""generation/speculation.py: the tokens are those of plain decoding, and fewer passes are needed."""

from __future__ import annotations

import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels import AutoTokenizer, TFLlamaForCausalLM
from tfmodels.generation import speculation
from tfmodels.generation.speculation import SpeculativeDecoder, looked_up

GRAPH = {"jit_compile": False, "eos_token_id": None}
PROMPT = np.array([[5, 9, 11, 4, 5, 9, 11, 4, 5, 9]])


# Every family traces programs of its own: by default the one that is most used, with `-m slow` the others.
FAMILIES = ["llama", *(pytest.param(family, marks=pytest.mark.slow) for family in ("gpt_neo", "mpt", "gpt_neox"))]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return restless(small.make(request.param, "ForCausalLM"))


def restless(model):
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    return model


def ids_of(model, *args, **options):
    return np.asarray(model.generate(*args, **{**GRAPH, **options}))


SETTINGS = {
    "greedy": {"max_new_tokens": 16},
    "sampled": {"max_new_tokens": 16, "do_sample": True, "seed": 4, "temperature": 0.7, "repetition_penalty": 1.1},
}
SCHEDULES = {"greedy": "constant", "sampled": "heuristic"}


@pytest.fixture(params=SETTINGS)
def kind(request, model):
    """How tokens are chosen, which is code that families share: drawn for a family of caches and one of windows."""
    if request.param == "sampled" and model.config.model_type not in ("llama", "gpt_neo"):
        pytest.skip("drawn tokens go through Llama and GPT-Neo")
    return request.param


class TestSameTokens:
    def test_prompt_lookup(self, model, kind):
        settings = SETTINGS[kind]
        want = ids_of(model, PROMPT, **settings)
        got = ids_of(model, PROMPT, prompt_lookup_num_tokens=4, **settings)
        np.testing.assert_array_equal(got, want)

    @pytest.mark.quick(1)
    def test_assistant(self, model, kind):
        settings = SETTINGS[kind]
        want = ids_of(model, PROMPT, **settings)
        # Its own drafts are right where the text is greedy; a stranger's seldom are, of whatever family.
        stranger = restless(small.make("llama", "ForCausalLM", seed=1))
        for assistant in (model, stranger) if model.config.model_type == "llama" else (stranger,):
            options = {"assistant_model": assistant, "num_assistant_tokens": 3}
            options["num_assistant_tokens_schedule"] = SCHEDULES[kind]
            np.testing.assert_array_equal(ids_of(model, PROMPT, **options, **settings), want)


def test_wrong_drafts_are_given_up_and_right_ones_are_not(monkeypatch):
    model, new, checks = restless(small.make("llama", "ForCausalLM")), 24, []
    want = ids_of(model, PROMPT, max_new_tokens=new)
    text = np.pad(want[0], (0, 8))

    def check(decoder, state, end):
        checks.append(int(end))
        return run(decoder, state, end)

    run = SpeculativeDecoder._check
    monkeypatch.setattr(SpeculativeDecoder, "_check", check)
    tf.config.run_functions_eagerly(True)
    try:
        for error, most in ((0, new // 5 + 1), (1, 1)):
            checks.clear()
            drafts = (text + error) % model.config.vocab_size

            def look_up(ids, start, end, *_, drafts=drafts):
                seen = int(end) - int(np.ravel(start)[0])
                return drafts[seen : seen + 4].astype("int32")

            monkeypatch.setattr(speculation, "looked_up", look_up)
            got = ids_of(model, PROMPT, max_new_tokens=new, prompt_lookup_num_tokens=4)
            np.testing.assert_array_equal(got, want)
            assert 1 <= len(checks) <= most, checks
            assert error or len(checks) >= new // 5
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.slow
def test_ends_and_limits():
    model = restless(small.make("llama", "ForCausalLM"))
    free = ids_of(model, PROMPT, max_new_tokens=12)
    for new in (1, 2, 5):
        np.testing.assert_array_equal(
            ids_of(model, PROMPT, max_new_tokens=new, prompt_lookup_num_tokens=4), free[:, : 10 + new]
        )
    end = int(free[0, 15])
    want = ids_of(model, PROMPT, max_new_tokens=12, eos_token_id=end)
    options = {"max_new_tokens": 12, "assistant_model": model}
    np.testing.assert_array_equal(ids_of(model, PROMPT, eos_token_id=end, **options), want)
    stopped = ids_of(model, PROMPT, stopping_criteria=[lambda ids, _: ids.shape[1] >= 13], **options)
    np.testing.assert_array_equal(stopped, free[:, :13])
    output = model.generate(
        PROMPT, output_scores=True, output_logits=True, return_dict_in_generate=True, **GRAPH, **options
    )
    want = np.asarray(model(free).logits)[:, 9:-1]
    np.testing.assert_allclose(np.stack(output.logits, axis=1), want, atol=1e-4)


@pytest.mark.slow
def test_compiled_on_a_text_that_repeats_itself(stories260k):
    model, tokenizer = TFLlamaForCausalLM.from_pretrained(stories260k), AutoTokenizer.from_pretrained(stories260k)
    prompt = [tokenizer.encode("Lily and Tom went to the park. They played with a ball. Lily and Tom went")]
    want = np.asarray(model.generate(prompt, max_new_tokens=24, do_sample=False))
    options = {"max_new_tokens": 24, "do_sample": False}
    np.testing.assert_array_equal(model.generate(prompt, prompt_lookup_num_tokens=4, **options), want)
    np.testing.assert_array_equal(model.generate(prompt, assistant_model=model, **options), want)


@pytest.mark.parametrize(
    "text, tokens, ngram, want",
    [
        ([1, 2, 3, 1, 2], 3, 2, [3, 1, 2]),
        ([1, 2, 3, 4, 2], 2, 2, [3, 4]),  # one token matches, two do not
        ([1, 2, 3, 4, 5], 2, 2, [-2, -2]),
        ([7, 7], 3, 1, [7, -2, -2]),
        ([7], 2, 2, [-2, -2]),
    ],
)
def test_what_is_looked_up(text, tokens, ngram, want):
    ids = np.full((1, 12), 7, "int32")
    ids[0, 2 : 2 + len(text)] = text
    import tensorflow as tf

    assert looked_up(tf.constant(ids), 2, 2 + len(text), tokens, ngram).numpy().tolist() == want


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompt_lookup_num_tokens": 2, "num_beams": 2}, "prompt_lookup_num_tokens is for a single sequence"),
        ({"prompt_lookup_num_tokens": 2, "inputs": np.repeat(PROMPT, 2, 0)}, "got 2 rows"),
        ({"prompt_lookup_num_tokens": 2, "use_cache": False}, "needs use_cache=True"),
        ({"num_assistant_tokens_schedule": "often"}, "num_assistant_tokens_schedule='often'"),
    ],
)
def test_what_does_not_go_together(options, message):
    model = small.make("llama", "ForCausalLM")
    with pytest.raises(ValueError, match=message):
        model.generate(**{"inputs": PROMPT, **GRAPH, **options})


def test_the_vocabularies_must_be_one(stories260k):
    model = small.make("llama", "ForCausalLM")
    with pytest.raises(ValueError, match="assistant_model has a vocabulary of 512 tokens"):
        model.generate(PROMPT, assistant_model=TFLlamaForCausalLM.from_pretrained(stories260k))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def markov_chain(seed, size=6):
    """A model whose next token depends on the last one alone, and the probabilities, (size, size)."""
    config = TFLlamaForCausalLM.config_class(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
    )
    model, draw = TFLlamaForCausalLM(config), np.random.default_rng(seed)
    for weight in model.weights:
        silent = any(name in weight.path for name in ("o_proj", "down_proj"))
        if len(weight.shape) == 2:
            weight.assign(np.zeros(weight.shape) if silent else draw.normal(size=weight.shape) * 0.3)
    return model, softmax(np.asarray(model(np.arange(size)[:, None]).logits, "float64")[:, 0])


def strangeness(counts, probabilities):
    """Standard deviations by which a chi-square statistic of transitions exceeds its mean (Wilson and Hilferty)."""
    expected = probabilities * counts.sum(axis=1, keepdims=True)
    assert expected.min() >= 5
    freedom = counts.shape[0] * (counts.shape[1] - 1)
    ratio = ((counts - expected) ** 2 / expected).sum() / freedom
    return (ratio ** (1 / 3) - 1 + 2 / (9 * freedom)) / np.sqrt(2 / (9 * freedom))


@pytest.mark.slow
@pytest.mark.parametrize("drafts", ["assistant", "lookup"])
def test_drafts_leave_the_distribution_as_it_is(drafts):
    """Tokens sampled with drafts follow the model's own probabilities; a tenth of the drafter's would be noticed."""
    model, own = markov_chain(3)
    drafter, other = markov_chain(4)
    options = {"assistant_model": drafter, "num_assistant_tokens": 3}
    if drafts == "lookup":
        options = {"prompt_lookup_num_tokens": 3}
    counts = np.zeros(own.shape)
    for seed in range(7):
        ids = ids_of(model, [[seed % 6]], seed=seed, max_new_tokens=900, do_sample=True, top_k=0, **options)[0]
        np.add.at(counts, (ids[:-1], ids[1:]), 1)
    assert counts.sum() == 7 * 900
    assert abs(strangeness(counts, own)) < 3
    assert strangeness(counts, 0.9 * own + 0.1 * other) > 4
