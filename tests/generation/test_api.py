"""Generation on real weights: the expected texts, in every mode, and what must not change them."""

import json
import threading
import types

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

from tfmodels import BatchEncoding, Engine, GenerationConfig, LlamaConfig, TFLlamaForCausalLM
from tfmodels.runtime.compile import ProgramCache

# One layer is compiled in less time; the texts of stories260K are those of five.
TINY = LlamaConfig(
    vocab_size=67,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=None,
)
GRAPH = {"jit_compile": False}  # where a test is not about XLA
PROMPT = np.array([[1, 7, 30, 12], [1, 9, 9, 44]])
STREAMER = types.SimpleNamespace(put=lambda ids: None, end=lambda: None)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    model = TFLlamaForCausalLM(TINY)
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 20 if len(weight.shape) == 2 else weight)
    return model


@pytest.fixture(scope="module")
def stories(stories260k):
    return TFLlamaForCausalLM.from_pretrained(stories260k)


@pytest.fixture(scope="module")
def expected(stories260k):
    return json.loads((stories260k / "expected_greedy.json").read_text())["cases"]


def greedy(model, ids, **options):
    return np.asarray(model.generate(ids, do_sample=False, **options))


def continuations_agree(model, cases, **options):
    for case in cases:
        got = greedy(model, [case["prompt_ids"]], max_new_tokens=case["max_new_tokens"], **options)
        assert got[0].tolist() == case["greedy_ids"]


class TestExpectedText:
    @pytest.mark.parametrize("jit_compile", [True, False], ids=["xla", "graph"])
    def test_compiled(self, stories, expected, jit_compile):
        continuations_agree(stories, expected, jit_compile=jit_compile)

    @pytest.mark.slow
    def test_eager(self, stories, expected):
        tf.config.run_functions_eagerly(True)
        try:
            continuations_agree(stories, expected[:1])
        finally:
            tf.config.run_functions_eagerly(False)

    @pytest.mark.slow
    def test_batched_with_left_padding(self, stories, expected):
        width = max(len(case["prompt_ids"]) for case in expected)
        rows = [[0] * (width - len(case["prompt_ids"])) + case["prompt_ids"] for case in expected]
        mask = [[0] * (width - len(case["prompt_ids"])) + [1] * len(case["prompt_ids"]) for case in expected]
        new = min(case["max_new_tokens"] for case in expected)
        got = greedy(stories, np.array(rows), attention_mask=np.array(mask), max_new_tokens=new)
        for row, case in zip(got, expected, strict=True):
            length = len(case["prompt_ids"]) + new
            assert row[width - len(case["prompt_ids"]) :].tolist() == case["greedy_ids"][:length]

    @pytest.mark.slow
    def test_after_saving(self, stories, expected, tmp_path):
        stories.save_pretrained(tmp_path)
        continuations_agree(TFLlamaForCausalLM.from_pretrained(tmp_path), expected)

    @pytest.mark.slow
    @pytest.mark.parametrize("jit_compile", [True, False], ids=["xla", "graph"])
    def test_stories15m(self, stories15m, jit_compile, tmp_path):
        cases = json.loads((stories15m / "expected_greedy.json").read_text())["cases"]
        model = TFLlamaForCausalLM.from_pretrained(stories15m)
        continuations_agree(model, cases, jit_compile=jit_compile)
        model.save_pretrained(tmp_path, max_shard_size="20MB")
        continuations_agree(TFLlamaForCausalLM.from_pretrained(tmp_path), cases)


class TestSameIds:
    """Ways of decoding that must give the same tokens as the plain one."""

    @pytest.mark.quick(1)
    @pytest.mark.parametrize(
        "options", [{"use_cache": False}, {"jit_compile": False}, {"jit_compile": False, "use_cache": False}]
    )
    def test_modes(self, model, options):
        want = greedy(model, PROMPT, max_new_tokens=20)
        np.testing.assert_array_equal(greedy(model, PROMPT, max_new_tokens=20, **options), want)

    def test_token_by_token_through_the_model(self, model):
        ids, past = PROMPT, None
        want = greedy(model, PROMPT, max_new_tokens=6)
        new = ids
        for _ in range(6):
            output = model(new, past_key_values=past, use_cache=True)
            past = output.past_key_values
            new = np.asarray(output.logits)[:, -1:].argmax(-1)
            ids = np.concatenate([ids, new], axis=1)
        np.testing.assert_array_equal(ids, want)

    @pytest.mark.slow
    def test_embeddings_for_ids(self, model):
        want = greedy(model, PROMPT, max_new_tokens=9)[:, PROMPT.shape[1] :]
        embeds = model.get_input_embeddings()(PROMPT)
        for use_cache in (True, False):
            got = greedy(model, None, inputs_embeds=embeds, max_new_tokens=9, use_cache=use_cache)
            np.testing.assert_array_equal(got, want)

    @pytest.mark.quick(1)
    @pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
    def test_rows_do_not_depend_on_the_batch(self, model, jit_compile):
        rows = np.concatenate([PROMPT, PROMPT[::-1], PROMPT[:1]])
        options = {"max_new_tokens": 9, "jit_compile": jit_compile}
        got = greedy(model, rows, **options)
        for row, prompt in zip(got, rows, strict=True):
            np.testing.assert_array_equal(greedy(model, prompt[None], **options)[0], row)

    @pytest.mark.parametrize("padding", [1, 5, 14])
    def test_left_padding_changes_nothing(self, model, padding):
        want = greedy(model, PROMPT, max_new_tokens=9)
        padded = np.pad(PROMPT, ((0, 0), (padding, 0)))
        mask = np.pad(np.ones_like(PROMPT), ((0, 0), (padding, 0)))
        got = greedy(model, padded, attention_mask=mask, max_new_tokens=9)
        np.testing.assert_array_equal(got[:, padding:], want)
        got = greedy(model, padded, pad_token_id=0, max_new_tokens=9)  # the mask is inferred
        np.testing.assert_array_equal(got[:, padding:], want)

    def test_a_callable_that_changes_nothing(self, model):
        seen = []

        def look(ids, scores):
            seen.append(np.asarray(ids))
            return scores

        want = greedy(model, PROMPT, max_new_tokens=5)
        np.testing.assert_array_equal(greedy(model, PROMPT, max_new_tokens=5, logits_processor=[look]), want)
        for index, ids in enumerate(seen):
            np.testing.assert_array_equal(ids, want[:, : 4 + index])


class TestEnds:
    def test_rows_end_at_their_own_time(self, model):
        free = greedy(model, PROMPT, max_new_tokens=12)
        eos = int(free[0, 7])
        got = greedy(model, PROMPT, max_new_tokens=12, eos_token_id=eos, pad_token_id=0)
        for row, whole in zip(got, free, strict=True):
            new = whole[4:].tolist()
            stop = 4 + (new.index(eos) + 1 if eos in new else 12)
            np.testing.assert_array_equal(row[:stop], whole[:stop])
            assert not row[stop:].any()
        alone = greedy(model, PROMPT[:1], max_new_tokens=12, eos_token_id=[eos, 66], pad_token_id=0)
        assert alone.shape[1] == 4 + free[0, 4:].tolist().index(eos) + 1  # nothing is generated once all have ended

    def test_lengths(self, model):
        assert greedy(model, PROMPT, max_length=9, **GRAPH).shape == (2, 9)
        assert greedy(model, PROMPT, **GRAPH).shape == (2, 24)
        assert greedy(model, None, max_new_tokens=3, **GRAPH).shape == (1, 4)  # starts from bos
        eos = int(greedy(model, PROMPT, max_new_tokens=1, **GRAPH)[0, -1])
        ended = greedy(model, PROMPT[:1], max_new_tokens=8, eos_token_id=eos, min_new_tokens=3, **GRAPH)
        assert ended.shape[1] >= 4 + 4


class TestSampling:
    def test_seeds(self, model):
        options = {"do_sample": True, "max_new_tokens": 12, "temperature": 1.5}
        draws = [np.asarray(model.generate(PROMPT, seed=seed, **options)) for seed in (3, 3, 4)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).any()
        for more in ({"jit_compile": False}, {"jit_compile": False, "use_cache": False}):
            np.testing.assert_array_equal(np.asarray(model.generate(PROMPT, seed=3, **options, **more)), draws[0])
        unseeded = [np.asarray(model.generate(PROMPT, **options)).tobytes() for _ in range(3)]
        assert len(set(unseeded)) > 1

    def test_return_sequences_of_one_prompt_differ(self, model):
        got = np.asarray(
            model.generate(PROMPT, do_sample=True, num_return_sequences=3, max_new_tokens=12, seed=0, **GRAPH)
        )
        assert got.shape == (6, 16)
        np.testing.assert_array_equal(got[:, :4], np.repeat(PROMPT, 3, axis=0))
        assert len({row.tobytes() for row in got[:3]}) == 3

    @pytest.mark.slow
    def test_scores_are_what_was_drawn_from(self, model):
        output = model.generate(
            PROMPT,
            do_sample=True,
            top_k=4,
            temperature=0.5,
            seed=0,
            max_new_tokens=5,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
        )
        assert len(output.scores) == len(output.logits) == 5
        for step, (scores, logits) in enumerate(zip(output.scores, output.logits, strict=True)):
            scores, logits = np.asarray(scores), np.asarray(logits)
            assert (np.isfinite(scores).sum(1) == 4).all()
            kept = np.isfinite(scores)
            np.testing.assert_allclose(scores[kept], logits[kept] / 0.5, rtol=1e-5)
            chosen = np.asarray(output.sequences)[:, 4 + step]
            assert kept[np.arange(2), chosen].all()
        whole = np.asarray(model(output.sequences).logits)[:, 3:-1]
        np.testing.assert_allclose(np.stack([np.asarray(x) for x in output.logits], 1), whole, atol=2e-4)


class TestCompilation:
    def test_new_prompts_of_a_bucket_compile_nothing(self, model):
        model.generate(PROMPT, max_new_tokens=10)
        model.generate(PROMPT, max_new_tokens=7, eos_token_id=4)  # less room
        before = model.programs.compilations
        assert before > 0
        for ids in (PROMPT[:, :2], np.tile(PROMPT, (1, 3)), PROMPT[::-1]):
            model.generate(ids, max_new_tokens=7, eos_token_id=5)
        model.generate(PROMPT, max_new_tokens=10, eos_token_id=66)
        after_eos = model.programs.compilations
        for temperature, seed in ((0.7, 1), (1.3, 2), (0.9, 3)):
            model.generate(PROMPT, max_new_tokens=9, do_sample=True, temperature=temperature, seed=seed, top_k=5)
        sampled = model.programs.compilations
        model.generate(PROMPT, max_new_tokens=9, do_sample=True, temperature=0.3, top_k=50, seed=9)
        assert model.programs.compilations == sampled
        model.generate(PROMPT[:, :3], max_new_tokens=10, eos_token_id=3)
        assert model.programs.compilations == sampled and after_eos - before <= 2

    @pytest.mark.slow
    def test_few_programs_serve_a_session(self):
        """20 calls that differ in lengths, batch, sampling and ends; every call but four finds its programs."""
        model = TFLlamaForCausalLM(LlamaConfig(**{**TINY.to_dict(), "max_position_embeddings": 512}))
        calls = [{"max_new_tokens": new, "eos_token_id": eos} for new in (64, 100, 200) for eos in (None, 4, [5, 6])]
        calls += [
            {"max_new_tokens": 8, "seed": 3, "do_sample": True, **sampling}
            for sampling in (
                {},
                {"top_p": 0.9},
                {"top_k": 0},
                {"min_p": 0.1, "temperature": 0.7},
                {"top_k": 3, "top_p": 0.8},
            )
        ]
        calls += [{"max_new_tokens": 9, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_p": None}]
        calls += [{"max_new_tokens": 5}] * 5
        for number, settings in enumerate(calls):
            ids = np.tile(PROMPT[:1], (1, 1 + number % 5))
            model.generate(ids if number % 4 else np.tile(ids, (2, 1)), pad_token_id=0, **settings)
        assert len(calls) == 20 and model.programs.compilations == 4

    @pytest.mark.parametrize(
        "settings", [{"top_p": 0.7}, {"top_k": 4, "temperature": 0.6}, {"min_p": 0.2, "top_k": 0}]
    )
    def test_a_program_for_all_sampling_draws_as_one_for_these_settings(self, model, settings):
        settings = {"do_sample": True, "seed": 7, "max_new_tokens": 10, **settings}
        shared = np.asarray(model.generate(PROMPT, **settings))
        own = model.generate(PROMPT, jit_compile=False, **settings)
        np.testing.assert_array_equal(shared, np.asarray(own))

    @pytest.mark.slow
    def test_the_loop_is_compiled_while_the_prompt_is(self, monkeypatch):
        calls = []
        run = ProgramCache.run

        def watched(programs, key, function, *arguments, **options):
            aside = threading.current_thread() is not threading.main_thread()
            calls.append((key[0], aside, *(int(until) for until in arguments[2:])))
            return run(programs, key, function, *arguments, **options)

        monkeypatch.setattr(ProgramCache, "run", watched)
        model = TFLlamaForCausalLM(TINY)
        first = greedy(model, PROMPT, max_new_tokens=8)
        assert sorted(calls[:2]) == [("loop", True, 0), ("prefill", False)] and calls[2:] == [("loop", False, 8)]
        assert model.programs.compilations == 2
        np.testing.assert_array_equal(greedy(model, PROMPT, max_new_tokens=8), first)
        assert calls[3:] == [("prefill", False), ("loop", False, 8)]

    @pytest.mark.slow
    def test_a_single_token_needs_no_loop(self):
        class Streamer:
            def put(self, ids):
                pass

            def end(self):
                pass

        # With a streamer nobody waits for a program: the first token comes from single operations.
        for options, programs in (({}, 1), ({"streamer": Streamer()}, 0)):
            model = TFLlamaForCausalLM(TINY)
            model.generate(PROMPT, max_new_tokens=1, **options)
            assert model.programs.compilations == programs

    @pytest.mark.quick(1)
    @pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError(None, None, "full"), ValueError("no program")])
    def test_what_fails_aside_is_said_unless_memory_was_short(self, error, monkeypatch):
        run = ProgramCache.run

        def failing(programs, *arguments, **options):
            if threading.current_thread() is not threading.main_thread():
                raise error
            return run(programs, *arguments, **options)

        monkeypatch.setattr(ProgramCache, "run", failing)
        model = TFLlamaForCausalLM(TINY)
        if isinstance(error, ValueError):
            with pytest.raises(ValueError, match="no program"):
                model.generate(PROMPT, max_new_tokens=8)
        else:
            assert greedy(model, PROMPT, max_new_tokens=8).shape == (2, 12)

    def test_weights_may_change_between_calls(self, model):
        before = greedy(model, PROMPT, max_new_tokens=8)
        weight = model.lm_head.kernel
        old = weight.numpy()
        try:
            weight.assign(old[:, ::-1])
            changed = greedy(model, PROMPT, max_new_tokens=8)
        finally:
            weight.assign(old)
        assert (before != changed).any()
        np.testing.assert_array_equal(greedy(model, PROMPT, max_new_tokens=8), before)


class TestStreaming:
    def test_chunks_join_to_the_result(self, model):
        class Collector:
            chunks, ended = [], False

            def put(self, ids):
                self.chunks.append(ids)

            def end(self):
                self.ended = True

        collector = Collector()
        want = greedy(model, PROMPT, max_new_tokens=11)
        got = greedy(model, PROMPT, max_new_tokens=11, streamer=collector)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(np.concatenate(collector.chunks, axis=1), want[:, 4:])
        assert collector.ended and len(collector.chunks) > 2


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"inputs": np.zeros((1, 0), int)}, ValueError, r"the prompt is empty \(shape \(1, 0\)\)"),
        ({"inputs": [1, 2]}, ValueError, r"the prompt has shape \(2,\); \(batch, length\)"),
        ({"inputs": [[1.5]]}, ValueError, "input_ids hold float64 numbers; integers were expected"),
        ({"inputs": [[67]]}, ValueError, "ids from 67 to 67; the vocabulary has ids 0 to 66"),
        ({"inputs": [[-1]]}, ValueError, "the vocabulary has ids 0 to 66"),
        ({"inputs": [[1]], "attention_mask": [[1, 1]]}, ValueError, r"attention_mask has shape \(1, 2\)"),
        ({"inputs": [[1]], "input_ids": [[1]]}, TypeError, "twice"),
        ({"inputs": [[1]], "inputs_embeds": np.zeros((1, 1, 16))}, ValueError, "not both"),
        ({"inputs_embeds": np.zeros((1, 1, 15))}, ValueError, r"\(batch, length, 16\) was expected"),
        ({"inputs": [[1]], "max_new_tokens": 0}, ValueError, "max_new_tokens=0"),
        ({"inputs": [[1]], "max_new_tokens": -3}, ValueError, "max_new_tokens=-3"),
        ({"inputs": PROMPT, "max_length": 4}, ValueError, "no room"),
        ({"inputs": [[1]], "max_new_token": 3}, TypeError, "max_new_token.*did you mean max_new_tokens"),
        ({"inputs": [[1]], "num_beams": 2, "streamer": STREAMER}, ValueError, "streamer with num_beams=2"),
        ({"inputs": [[1]], "temperature": -1.0, "do_sample": True}, ValueError, "temperature=-1"),
    ],
)
def test_bad_input(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.generate(**arguments)


def test_questionable_input_warns(model):
    with pytest.warns(UserWarning, match="padded on the right"):
        model.generate(PROMPT, attention_mask=np.array([[1, 1, 1, 1], [1, 1, 1, 0]]), max_new_tokens=1, **GRAPH)
    with pytest.warns(UserWarning, match="prompt of 60 plus 10 new tokens exceed max_position_embeddings=64"):
        model.generate(np.ones((1, 60), int), max_new_tokens=10, **GRAPH)


def test_settings_come_from_the_call_then_the_config_then_the_model(model, tmp_path):
    own = model.generation_config
    try:
        model.generation_config = GenerationConfig(max_new_tokens=3, eos_token_id=66)
        assert greedy(model, PROMPT).shape[1] == 7
        assert greedy(model, PROMPT, generation_config=GenerationConfig(max_new_tokens=5)).shape[1] == 9
        assert (
            greedy(model, PROMPT, generation_config=GenerationConfig(max_new_tokens=5), max_new_tokens=2).shape[1] == 6
        )
        model.save_pretrained(tmp_path)
        assert TFLlamaForCausalLM.from_pretrained(tmp_path).generation_config.max_new_tokens == 3
    finally:
        model.generation_config = own


class TestPrompts:
    def test_what_a_tokenizer_returns(self, model):
        mask = np.array([[0, 1, 1, 1], [1, 1, 1, 1]])
        want = greedy(model, PROMPT, attention_mask=mask, max_new_tokens=4)
        batch = BatchEncoding({"input_ids": PROMPT, "attention_mask": mask, "token_type_ids": 0 * mask})
        np.testing.assert_array_equal(greedy(model, batch, max_new_tokens=4), want)
        np.testing.assert_array_equal(greedy(model, {**batch}, max_new_tokens=4), want)
        with pytest.raises(ValueError, match="input_ids is missing"):
            model.generate({"attention_mask": mask})

    def test_token_types_change_nothing(self, model):
        want = greedy(model, PROMPT, max_new_tokens=3, **GRAPH)
        again = TFLlamaForCausalLM(TINY)
        again.set_weights(model.get_weights())
        with pytest.warns(UserWarning, match="has no use for token_type_ids"):
            got = greedy(again, PROMPT, token_type_ids=np.zeros_like(PROMPT), max_new_tokens=3, **GRAPH)
        np.testing.assert_array_equal(got, want)

    def test_sparse_ids_are_named(self, model):
        with pytest.raises(TypeError, match=r"the prompt is a sparse tensor.*to_dense"):
            model.generate(tf.sparse.from_dense(PROMPT))

    def test_a_prompt_of_a_batch_is_one_text(self, model):
        want = model.generate_batch([PROMPT[1].tolist()], max_new_tokens=2, jit_compile=False)[0].tokens
        assert model.generate_batch([PROMPT[1:]], max_new_tokens=2, jit_compile=False)[0].tokens == want
        for prompts in (PROMPT[0].tolist(), [PROMPT], PROMPT[None]):  # ids of one text; two rows as one prompt
            with pytest.raises(ValueError, match=r"prompts\[0\]=.*the token ids of one text, of shape \(length,\)"):
                model.generate_batch(prompts, max_new_tokens=2, jit_compile=False)

    def test_a_graph_of_the_users_is_told_what_to_do(self, model):
        with pytest.raises(TypeError, match=r"symbolic tensor.*model\.export"):
            tf.function(model.generate)(tf.constant(PROMPT))
        with pytest.raises(TypeError, match=r"symbolic tensor.*model\.export"):
            tf.function(lambda ids: model.generate_batch([ids[0]]))(tf.constant(PROMPT))
        # Constants are known in a graph, but what generate makes of them would not leave it.
        for call in (model.generate, model.generate_batch):
            with pytest.raises(TypeError, match=r"inside of a tf\.function.*model\.export"):
                tf.function(lambda call=call: call(np.asarray(PROMPT)), autograph=False)()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_assistant_tokens": 3, "assistant_confidence_threshold": 0.3}, "used with assistant_model only"),
        ({"negative_prompt_ids": PROMPT}, "negative_prompt_ids: used with guidance_scale only"),
        ({"max_matching_ngram_size": 3}, "max_matching_ngram_size: used with prompt_lookup_num_tokens only"),
        ({"early_stopping": True}, "early_stopping: used with num_beams above 1 only"),
    ],
)
def test_what_is_named_in_vain_is_told(model, options, message):
    with pytest.warns(UserWarning, match=message):
        model.generate(PROMPT, max_new_tokens=1, jit_compile=False, **options)


def broken(model):
    model = TFLlamaForCausalLM.from_config(model.get_config())
    model.lm_head.kernel.assign(np.full(model.lm_head.kernel.shape, np.nan))
    return model


@pytest.mark.quick(1)
@pytest.mark.parametrize("options", [GRAPH, {}, {"do_sample": True}, {"use_cache": False}])
def test_scores_that_are_no_numbers_are_an_error(model, options):
    with pytest.raises(FloatingPointError, match=r"scores are NaN in row 0 at new token 0: .* float32 overflows\.$"):
        broken(model).generate(PROMPT, max_new_tokens=3, **options)


@pytest.mark.parametrize("set_seed", [tf.random.set_seed, keras.utils.set_random_seed])
def test_sampling_repeats_after_a_seed_was_set(model, set_seed):
    draws = []
    for seed in (5, 5, 6):
        set_seed(seed)
        draws += [np.asarray(model.generate(PROMPT, do_sample=True, max_new_tokens=12)).tolist() for _ in range(2)]
    assert draws[:2] == draws[2:4] and draws[0] != draws[1] and draws[0] != draws[4]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_bias_of_minus_infinity_bans_as_a_bad_word_does(model, beams):
    free = np.asarray(model.generate(PROMPT, max_new_tokens=6, num_beams=beams))
    words = [[int(free[0, 4])], [int(token) for token in free[1, 4:6]]]
    options = {"max_new_tokens": 6, "num_beams": beams, "return_dict_in_generate": True, "output_scores": True}
    banned = model.generate(PROMPT, bad_words_ids=words, **options)
    biased = model.generate(PROMPT, sequence_bias=[[word, -np.inf] for word in words], **options)
    assert not np.array_equal(free, banned.sequences)
    np.testing.assert_array_equal(biased.sequences, banned.sequences)
    np.testing.assert_array_equal(np.stack(biased.scores), np.stack(banned.scores))


@pytest.mark.slow
def test_lists_of_tokens_are_inputs_and_few_programs_are_kept(model):
    model = TFLlamaForCausalLM.from_config(model.get_config())
    for words, bias in (([[3]], {(1, 2): 1.0}), ([[5]], {(9, 2): -3.0})):
        model.generate(PROMPT, max_new_tokens=4, suppress_tokens=words[0], bad_words_ids=words, sequence_bias=bias)
    assert model.programs.compilations == 2
    model.programs.limit = 2
    model.generate(PROMPT, max_new_tokens=4)
    assert len(model.programs) == 2 and model.programs.compilations == 4


def test_disable_compile_runs_a_plain_graph(model, monkeypatch):
    compiled = []
    run = ProgramCache.run

    def watched(programs, *arguments, jit_compile=True, **options):
        compiled.append(jit_compile)
        return run(programs, *arguments, jit_compile=jit_compile, **options)

    monkeypatch.setattr(ProgramCache, "run", watched)
    model.generate(PROMPT, max_new_tokens=2, disable_compile=True)
    assert compiled and not any(compiled)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("assistant_tokenizer", object(), "drafts of another tokenizer would go through text"),
        ("head_mask", [[1, 1]], "it runs all heads"),
        ("encoder_outputs", [[1.0]], "give the prompt as input_ids"),
        ("custom_generate", "some/folder", "no code of a repository is ever run"),
        ("use_model_defaults", False, "settings that are not given are the model's"),
        ("logits_to_keep", 1, None),
        ("cache_position", [0, 1], None),
        ("trust_remote_code", True, None),
    ],
)
def test_arguments_of_other_models_pass_or_say_what_to_do(model, name, value, message):
    settings = {"max_new_tokens": 1, "jit_compile": False}
    if message is not None:
        with pytest.raises(ValueError, match=f"generate does not take {name}=.*: {message}"):
            model.generate(PROMPT[:1], **settings, **{name: value})
    want = model.generate(PROMPT[:1], **settings)
    got = model.generate(PROMPT[:1], **settings, **{name: value if message is None else None})
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name, value", [("head_mask", [[1, 0]]), ("token_type_ids", [[0, 0, 0, 0]])])
def test_a_dict_may_ask_for_no_more_than_keywords(name, value):
    model = small.make("gpt_neo", "ForCausalLM")
    settings = {"max_new_tokens": 2, "jit_compile": False}
    for call in (
        lambda given: model.generate(PROMPT[:1], **{name: given}, **settings),
        lambda given: model.generate({"input_ids": PROMPT[:1], name: given}, **settings),
    ):
        with pytest.raises(ValueError, match=f"generate does not take {name}=.*call the model with {name}"):
            call(value)
        np.testing.assert_array_equal(call(None), model.generate(PROMPT[:1], **settings))


def test_misspelt_arguments_and_what_is_no_streamer(model):
    with pytest.raises(TypeError, match="unknown generation setting position_id; did you mean position_ids"):
        model.generate(PROMPT, position_id=[[0]])
    with pytest.raises(TypeError, match=r"^streamer=5: an object with put\(ids\) and end\(\) was expected\.$"):
        model.generate(PROMPT[:1], streamer=5)
    with pytest.warns(UserWarning, match="^generate has no use for length and word_ids of the prompt, which change"):
        model.generate({"input_ids": PROMPT[:1], "length": [2], "word_ids": [0]}, max_new_tokens=1, jit_compile=False)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "seed": 0}, {"penalty_alpha": 0.6, "top_k": 4}])
def test_banning_every_token_is_an_error(model, settings, jit_compile):
    everything = list(range(model.config.vocab_size))
    settings = {**settings, "max_new_tokens": 3, "jit_compile": jit_compile}
    with pytest.raises(ValueError, match="^no token may come in row 0 at new token 0: suppress_tokens, bad_words_ids"):
        model.generate(PROMPT, suppress_tokens=everything, **settings)


@pytest.mark.parametrize("banned", [False, True])
def test_streamers_get_tokens_alone(model, banned):
    """The third token cannot come."""
    calls = []
    streamer = types.SimpleNamespace(put=lambda ids: calls.append(ids.tolist()), end=lambda: calls.append("end"))

    def spoiled(input_ids, scores):
        bad = -np.inf if banned else np.nan
        return scores + (bad if input_ids.shape[1] == 6 else 0)

    settings = {"max_new_tokens": 5, "jit_compile": False, "logits_processor": [spoiled]}
    with pytest.raises(ValueError if banned else FloatingPointError, match="in row 0 at new token 2: "):
        model.generate(PROMPT[:1], streamer=streamer, **settings)
    assert len(calls) == 3 and min(calls[0][0] + calls[1][0]) >= 0 and calls[-1] == "end"


def test_a_request_that_bans_every_token_ends_alone(model):
    engine = Engine(model, rows=2, capacity=16, jit_compile=False)
    banned = engine.add(PROMPT[0], suppress_tokens=list(range(model.config.vocab_size)), max_new_tokens=2)
    free = engine.add(PROMPT[0], max_new_tokens=2, eos_token_id=None)
    answers = engine.run()
    assert answers[banned].finish_reason == "error" and "all of them are banned" in str(answers[banned].error)
    assert answers[free].finish_reason == "length"
