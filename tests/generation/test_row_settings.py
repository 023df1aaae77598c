"""generation/row_settings.py: settings that every row of the engine has for itself, against `generate` and theory."""

import numpy as np
import pytest
import small_models as small

from tfmodels import Engine, GenerationConfig

GRAPH = {"jit_compile": False}
EOS = 7
PROMPT = [5, 9, 2, 44, 9, 2]
# Every row has several settings; between them they have all that rows can have.
SETTINGS = [
    ([11], {"forced_bos_token_id": 33, "begin_suppress_tokens": [20], "forced_eos_token_id": [8, 9]}),
    (PROMPT, {"repetition_penalty": 1.6, "presence_penalty": 0.4, "frequency_penalty": 0.9, "suppress_tokens": [44]}),
    (PROMPT, {"no_repeat_ngram_size": 2, "bad_words_ids": [[31], [9, 2, 44], [2, 9]], "logit_bias": {17: 2, 40: -1}}),
    (
        PROMPT[:3],
        {"sequence_bias": [[[6], 3.0], [[6, 6], -8.0]], "eos_token_id": [EOS, 6], "min_new_tokens": 3}
        | {"do_sample": True, "seed": 3, "typical_p": 0.8, "epsilon_cutoff": 0.001, "eta_cutoff": 0.002},
    ),
    (PROMPT, {"eos_token_id": EOS, "min_length": 9, "exponential_decay_length_penalty": [2, 1.9]}),
    (PROMPT, {"do_sample": True, "seed": 4, "top_p": 0.9, "temperature": 1.3, "renormalize_logits": True}),
]


@pytest.fixture(scope="module")
def model():
    model = small.make("llama", "ForCausalLM")
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    model.generation_config = GenerationConfig(use_cache=True, pad_token_id=0)
    return model


@pytest.fixture(scope="module")
def answers(model):
    engine = Engine(model, rows=4, capacity=32, **GRAPH)
    ids = [
        engine.add(prompt, max_new_tokens=8, logprobs=n if n < 4 else None, **settings)
        for n, (prompt, settings) in enumerate(SETTINGS)
    ]
    found = engine.run()
    return [found[id] for id in ids]


@pytest.mark.quick(3)
@pytest.mark.parametrize("case", range(len(SETTINGS)))
def test_rows_have_the_settings_of_generate(model, answers, case):
    prompt, settings = SETTINGS[case]
    want = np.asarray(model.generate([prompt], max_new_tokens=8, **settings, **GRAPH))[0, len(prompt) :]
    assert answers[case].tokens == tuple(want.tolist())


def test_settings_decide(answers):
    """The expected answers are not what every row would have said anyway."""
    forced, penalised, banned, biased, decayed, _ = [answer.tokens for answer in answers]
    assert forced[0] == 33 and forced[-1] in (8, 9) and answers[0].finish_reason == "length"
    assert 44 not in penalised and len(set(penalised)) > 4
    pairs = list(zip([*PROMPT, *banned], [*PROMPT[1:], *banned], strict=False))
    assert len(set(pairs[len(PROMPT) :])) == len(pairs[len(PROMPT) :]) and 31 not in banned
    assert len(biased) >= 4 and len(decayed) >= 3


def test_penalties_are_those_of_the_definition(model):
    """Greedy decoding by the model's own scores, minus presence and frequency of the new tokens."""
    presence, frequency, bias = 0.3, 0.8, {12: 1.5}
    ids = list(PROMPT)
    for _ in range(6):
        scores = np.asarray(model(np.array([ids]), return_dict=True).logits)[0, -1]
        counts = np.bincount(ids[len(PROMPT) :], minlength=len(scores))
        scores = scores - presence * (counts > 0) - frequency * counts
        scores[12] += bias[12]
        ids.append(int(scores.argmax()))
    settings = {"presence_penalty": presence, "frequency_penalty": frequency, "logit_bias": bias}
    got = np.asarray(model.generate([PROMPT], max_new_tokens=6, **settings, **GRAPH))[0]
    assert got.tolist() == ids
    plain = np.asarray(model.generate([PROMPT], max_new_tokens=6, **GRAPH))[0]
    assert got.tolist() != plain.tolist()


def test_logprobs_are_of_the_models_own_distribution(model, answers):
    for case in (1, 2, 3):
        answer, prompt = answers[case], SETTINGS[case][0]
        ids = np.array([[*prompt, *answer.tokens]])
        logits = np.asarray(model(ids, return_dict=True).logits)[0, len(prompt) - 1 : -1].astype("float64")
        want = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        assert [one.token for one in answer.logprobs] == list(answer.tokens)
        for place, one in enumerate(answer.logprobs):
            assert one.logprob == pytest.approx(want[place, one.token], abs=1e-4)
            order = np.argsort(-want[place], kind="stable")[:case]
            assert [token for token, _ in one.top] == order.tolist()
            np.testing.assert_allclose([value for _, value in one.top], want[place, order], atol=1e-4)
    assert [one.top for one in answers[0].logprobs] == [()] * 8
    assert answers[4].logprobs is None


def test_events_carry_logprobs(model):
    engine = Engine(model, rows=1, capacity=32, **GRAPH)
    engine.add(PROMPT, max_new_tokens=6, logprobs=2)
    told = []
    while engine.pending:
        for event in engine.step():
            assert len(event.tokens) == len(event.logprobs)
            told += event.logprobs
            answer = event.completion
    assert tuple(told) == answer.logprobs and len(told) == 6


def test_three_kinds_of_programs_serve_all_settings(model):
    """After one request of each kind, no setting compiles anything."""

    def serve(*settings):
        engine = Engine(model, rows=2, capacity=32, **GRAPH)
        for n, own in enumerate(settings):
            engine.add(PROMPT[: 1 + n % 6], max_new_tokens=6, **own)
            engine.run()

    start = model.programs.compilations
    serve({}, {"do_sample": True, "seed": 1}, {"logprobs": 0})
    first = model.programs.compilations
    assert first - start <= 8  # a chunk of the prompt, a copy; per kind a first token and the others
    serve(*(settings for _, settings in SETTINGS), {"logprobs": 20}, {"top_k": 3, "do_sample": True, "seed": 2})
    assert model.programs.compilations == first


def test_bad_settings_are_refused(model):
    engine = Engine(model, rows=1, capacity=16, max_waiting=1, **GRAPH)
    for options, message in (
        ({"logprobs": 21}, "logprobs=21: an integer from 0 to 20"),
        ({"logit_bias": {61: 1.0}}, "logit_bias has token ids"),
        ({"logit_bias": {5: float("nan")}}, "a dict {token id: bias} of finite numbers"),
        ({"logit_bias": [5]}, "a dict {token id: bias}"),
        ({"presence_penalty": "much"}, "presence_penalty='much': it should be a finite number"),
        ({"num_return_sequences": 2, "do_sample": True}, "num_return_sequences=2 .* add the prompt several times"),
        ({"guidance_scale": 1.5}, "guidance_scale=1.5 is not a setting of the engine's rows"),
        ({"encoder_repetition_penalty": 1.5}, "encoder_repetition_penalty=1.5 is not a setting of the engine's rows"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens=3 is not"),
        ({"use_cache": False}, "use_cache=False .* rows always keep a cache"),
        ({"return_dict_in_generate": True}, "ask for logprobs"),
        ({"jit_compile": True}, "jit_compile=True is not a setting of one request"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.add([5], **options)
    assert engine.pending == 0


def test_settings_of_a_file_that_leave_the_tokens_alone_pass(model):
    stored = GenerationConfig.from_dict({"return_dict_in_generate": True, "output_scores": True, "use_cache": False})
    answer = model.generate_batch([PROMPT], stored, max_new_tokens=2, **GRAPH)[0]
    assert len(answer.tokens) == 2


def test_logit_bias_of_json():
    """JSON has texts as keys."""
    config = GenerationConfig.from_dict({"logit_bias": {"5": 1, "7": -2.5}})
    assert config.logit_bias == {5: 1.0, 7: -2.5}
    assert GenerationConfig.from_dict(config.to_dict()) == config
