"""Control of generation from outside: stops, constraints, guidance, outputs, caches that go on."""

from __future__ import annotations

import time

import numpy as np
import pytest
import small_models as small

from tfmodels import AutoTokenizer, TFLlamaForCausalLM
from tfmodels.generation.stopping import StopStrings

PROMPT = np.array([[5, 9, 11, 4], [7, 3, 20, 6]])
GRAPH = {"jit_compile": False, "eos_token_id": None, "do_sample": False}


@pytest.fixture(scope="module")
def model():
    model = small.make("llama", "ForCausalLM")
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    return model


@pytest.fixture(scope="module")
def stories(stories260k):
    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    tokenizer.pad_token = tokenizer.unk_token
    return TFLlamaForCausalLM.from_pretrained(stories260k), tokenizer


def ids_of(model, *args, **options):
    return np.asarray(model.generate(*args, **{**GRAPH, **options}))


def log_probabilities(logits):
    logits = np.asarray(logits).astype("float64")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


class TestStops:
    def test_stop_strings(self, stories):
        model, tokenizer = stories
        prompt = tokenizer(["Once upon a time", "The cat"], padding=True, padding_side="left", return_tensors="np")
        free = ids_of(model, prompt, max_new_tokens=40, pad_token_id=0)
        texts = tokenizer.batch_decode(free, skip_special_tokens=True)
        stop = [texts[0][30:34], texts[1][40:43]]
        got = ids_of(model, prompt, max_new_tokens=40, pad_token_id=0, stop_strings=stop, tokenizer=tokenizer)
        for row, whole in zip(got, free, strict=True):
            kept = row[: np.flatnonzero(row)[-1] + 1]
            np.testing.assert_array_equal(kept, whole[: len(kept)])
            texts = [tokenizer.decode(kept[:n], skip_special_tokens=True) for n in (len(kept), len(kept) - 1)]
            found = [max(text.rfind(s) + len(s) if s in text else 0 for s in stop) for text in texts]
            assert found[0] > found[1]

    def test_a_stop_string_may_span_tokens_and_end_within_one(self, stories):
        _, tokenizer = stories
        ids = tokenizer.encode("a big cat sat", add_special_tokens=False)
        texts = [tokenizer.decode(ids[: n + 1]) for n in range(len(ids))]
        for string in ("big cat", "sat", "at sa", "bi", "dog"):
            first = next((n for n, text in enumerate(texts) if string in text), None)
            ends = [n for n in range(len(ids)) if StopStrings(tokenizer, string)([ids[: n + 1]])[0]]
            assert ends == ([] if first is None else [first]), string

    def test_stop_strings_need_a_tokenizer(self, model):
        with pytest.raises(ValueError, match="stop_strings='x' need generate"):
            model.generate(PROMPT, stop_strings="x")

    def test_criteria_of_the_users(self, model):
        free = ids_of(model, PROMPT, max_new_tokens=10)
        seen = []

        def third(ids, scores):
            seen.append(ids.shape[1])
            return np.array([ids.shape[1] == 7, False])

        got = ids_of(model, PROMPT, max_new_tokens=10, stopping_criteria=[third], pad_token_id=0)
        np.testing.assert_array_equal(got[1], free[1])
        np.testing.assert_array_equal(got[0, :7], free[0, :7])
        assert not got[0, 7:].any() and seen == list(range(5, 15))
        got = ids_of(model, PROMPT, max_new_tokens=10, stopping_criteria=[lambda ids, _: ids.shape[1] > 6])
        assert got.shape[1] == 7
        with pytest.raises(ValueError, match=r"returned shape \(3,\)"):
            ids_of(model, PROMPT, stopping_criteria=[lambda ids, _: np.ones(3)])

    @pytest.mark.slow
    def test_beams_end_where_a_criterion_says_so(self, model):
        options = {"max_new_tokens": 8, "num_beams": 2, "pad_token_id": 1}
        stop = int(ids_of(model, PROMPT, **options)[0, 5])
        want = ids_of(model, PROMPT, eos_token_id=stop, **options)
        got = ids_of(model, PROMPT, stopping_criteria=[lambda ids, _: np.asarray(ids)[:, -1] == stop], **options)
        for row, expected in zip(got, want, strict=True):
            end = 4 + [*expected[4:], stop].index(stop) + 1
            np.testing.assert_array_equal(row[:end], expected[:end])

    def test_time_is_up(self, model):
        def slow(ids, scores):
            time.sleep(0.05)
            return scores

        got = ids_of(model, PROMPT, max_new_tokens=40, max_time=0.2, logits_processor=[slow])
        assert 5 <= got.shape[1] < 44

    @pytest.mark.parametrize(
        ("error", "message", "options"),
        [
            (TypeError, "logits_processor=.*a list of functions", {"logits_processor": lambda ids, scores: scores}),
            (TypeError, "stopping_criteria=.*a list of functions", {"stopping_criteria": ["end"]}),
            (ValueError, r"returned shape \(2, 5\): \(2, \d+\)", {"logits_processor": [lambda i, s: s[:, :5]]}),
            (
                ValueError,
                r"prefix_allowed_tokens_fn returned \[9999\]",
                {"prefix_allowed_tokens_fn": lambda r, i: [9999]},
            ),
            (TypeError, "assistant_model='x': a causal language model", {"assistant_model": "x"}),
        ],
    )
    def test_what_is_no_function_or_gives_something_else(self, model, error, message, options):
        prompt = PROMPT[:1] if "assistant_model" in options else PROMPT
        with pytest.raises(error, match=message):
            ids_of(model, prompt, max_new_tokens=2, **options)


class TestConstraints:
    @pytest.mark.parametrize("beams", [1, 2])
    def test_only_allowed_tokens(self, model, beams):
        calls = []

        def allowed(row, ids):
            calls.append((row, len(ids)))
            return [10 + row, 20 + row]

        got = ids_of(model, PROMPT, max_new_tokens=5, num_beams=beams, prefix_allowed_tokens_fn=allowed)
        for row in range(2):
            assert set(got[row, 4:].tolist()) <= {10 + row, 20 + row}
        assert set(calls) == {(row, length) for row in range(2) for length in range(4, 9)}
        with pytest.raises(ValueError, match="allows no token after row 0"):
            ids_of(model, PROMPT, prefix_allowed_tokens_fn=lambda row, ids: [])

    @pytest.mark.parametrize("negative", [None, np.array([[8, 2, 9, 9, 30]])])
    def test_guidance(self, model, negative):
        scale, steps = 2.5, 5
        options = {"max_new_tokens": steps, "output_scores": True, "return_dict_in_generate": True, **GRAPH}
        output = model.generate(PROMPT, guidance_scale=scale, negative_prompt_ids=negative, **options)
        own = PROMPT
        other = PROMPT[:, -1:] if negative is None else np.repeat(negative, 2, axis=0)
        for step in range(steps):
            up, down = (log_probabilities(model(ids).logits[:, -1]) for ids in (own, other))
            want = scale * (up - down) + down
            np.testing.assert_allclose(output.scores[step], want, rtol=1e-4, atol=1e-4)
            token = want.argmax(-1)[:, None]
            own, other = np.concatenate([own, token], 1), np.concatenate([other, token], 1)
        np.testing.assert_array_equal(output.sequences, own)
        neutral = ids_of(model, PROMPT, max_new_tokens=steps, guidance_scale=1.0)
        np.testing.assert_array_equal(neutral, ids_of(model, PROMPT, max_new_tokens=steps))

    @pytest.mark.parametrize("negative", [[[8, 2]], [[8, 2, 9, 9, 30, 12], [1, 2, 3, 4, 5, 6]]])
    def test_guidance_shows_the_prompts_own_rows(self, model, negative):
        seen = {"processor": [], "criterion": [], "streamer": []}

        class Streamer:
            def put_prompt(self, ids):
                seen["streamer"].append(np.asarray(ids))

            put = put_prompt

            def end(self):
                pass

        def process(ids, scores):
            seen["processor"].append(np.asarray(ids))
            return scores

        def ends(ids, scores):
            seen["criterion"].append(np.asarray(ids))
            return [False] * len(PROMPT)

        options = {"guidance_scale": 2.5, "negative_prompt_ids": np.array(negative), "max_new_tokens": 4}
        want = ids_of(model, PROMPT, **options)
        for extra in ({"logits_processor": [process]}, {"stopping_criteria": [ends]}, {"streamer": Streamer()}):
            np.testing.assert_array_equal(ids_of(model, PROMPT, **options, **extra), want)
        for step in range(4):
            np.testing.assert_array_equal(seen["processor"][step], want[:, : 4 + step])
            np.testing.assert_array_equal(seen["criterion"][step], want[:, : 5 + step])
        np.testing.assert_array_equal(np.concatenate(seen["streamer"], axis=1), want)

    def test_what_does_not_go_together(self, model):
        for options, message in (
            ({"guidance_scale": 2.0, "num_beams": 2}, "guidance_scale with num_beams=2"),
            ({"output_attentions": True, "return_dict_in_generate": True, "num_beams": 2}, "output_attentions=True"),
            ({"guidance_scale": 2.0, "negative_prompt_ids": [1, 2]}, r"have shape \(2,\)"),
            ({"guidance_scale": 2.0, "negative_prompt_ids": [[99999]]}, "negative_prompt_ids hold ids from 99999 to"),
            ({"past_key_values": (), "use_cache": False}, "past_key_values need use_cache=True"),
        ):
            with pytest.raises(ValueError, match=message):
                model.generate(PROMPT, **GRAPH, **options)
        embeds = np.zeros((1, 3, model.config.hidden_size), "float32")
        for name, value in (("encoder_repetition_penalty", 1.5), ("encoder_no_repeat_ngram_size", 2)):
            with pytest.raises(ValueError, match=f"{name} needs the prompt as ids"):
                model.generate(inputs_embeds=embeds, **GRAPH, **{name: value})

    @pytest.mark.parametrize("beams", [1, 2])
    def test_a_prompt_of_embeddings_shows_new_tokens_alone(self, model, beams):
        prompt, seen, ended = {"inputs_embeds": model.get_input_embeddings()(PROMPT)}, [], []

        def process(ids, scores):
            seen.append(np.asarray(ids).shape)
            return scores

        def ends(ids, scores):
            ended.append(np.asarray(ids))
            return [False] * len(ids)

        options = {"max_new_tokens": 4, "num_beams": beams}
        want = ids_of(model, PROMPT, **options)[:, PROMPT.shape[1] :]
        got = ids_of(model, None, **prompt, logits_processor=[process], stopping_criteria=[ends], **options)
        np.testing.assert_array_equal(got, want)
        assert seen == [(2 * beams, length) for length in range(4)]
        assert [ids.shape[1] for ids in ended] == [1, 2, 3, 4] and min(ids.min() for ids in ended) >= 0

    def test_settings_count_the_new_tokens_of_a_prompt_of_embeddings(self, model):
        """As transformers 4.57.6 does: the prompt has no tokens, but `min_length` counts its columns."""
        prompt = {"inputs_embeds": model.get_input_embeddings()(PROMPT)}
        free = ids_of(model, None, **prompt, max_new_tokens=6)
        forced = ids_of(model, None, **prompt, max_new_tokens=6, forced_bos_token_id=9)
        np.testing.assert_array_equal(forced[:, 0], free[:, 0])
        assert (forced[:, 1] == 9).all() and not (free[:, 1] == 9).all()
        end = int(free[0, 0])
        for extra in ({"min_length": PROMPT.shape[1] + 3}, {"min_new_tokens": 3}):
            got = ids_of(model, None, **prompt, max_new_tokens=6, eos_token_id=end, pad_token_id=end, **extra)
            assert end not in got[0, :3]
        output = model.generate(**prompt, max_new_tokens=3, return_dict_in_generate=True, **GRAPH)
        assert output.past_key_values[0][0].shape[2] == PROMPT.shape[1] + 2

    @pytest.mark.parametrize("beams", [1, 2])
    def test_what_the_prompt_holds_is_not_said_again(self, model, beams):
        options = {"max_new_tokens": 6, "num_beams": beams}
        banned = ids_of(model, PROMPT, encoder_no_repeat_ngram_size=1, **options)[:, PROMPT.shape[1] :]
        liked = ids_of(model, PROMPT, encoder_repetition_penalty=1e6, **options)[:, PROMPT.shape[1] :]
        for prompt, others, own in zip(PROMPT, banned, liked, strict=True):
            assert not set(others) & set(prompt) and set(own) <= set(prompt)


class TestOutputs:
    @pytest.mark.parametrize("family", ["llama", "gpt_neo"])
    def test_states_weights_and_cache(self, family):
        model = small.make(family, "ForCausalLM")
        options = {"output_attentions": True, "output_hidden_states": True}
        output = model.generate(PROMPT, max_new_tokens=3, return_dict_in_generate=True, **options, **GRAPH)
        whole = model(output.sequences[:, :-1], use_cache=True, **options)
        layers = len(model.backbone.layers)
        assert len(output.attentions) == len(output.hidden_states) == 3
        assert len(output.attentions[1]) == layers and len(output.hidden_states[1]) == layers + 1
        for step, (first, last) in enumerate([(0, 4), (4, 5), (5, 6)]):
            states, weights = output.hidden_states[step][-1], output.attentions[step][0]
            np.testing.assert_allclose(states, whole.hidden_states[-1][:, first:last], atol=1e-5)
            np.testing.assert_allclose(weights, whole.attentions[0][:, :, first:last, :last], atol=1e-5)
        bare = model.generate(
            PROMPT, max_new_tokens=3, return_dict_in_generate=True, use_cache=False, **options, **GRAPH
        )
        for step, last in enumerate([4, 5, 6]):  # each step computes all tokens anew
            states, weights = bare.hidden_states[step][-1], bare.attentions[step][0]
            np.testing.assert_allclose(states, whole.hidden_states[-1][:, :last], atol=1e-5)
            np.testing.assert_allclose(weights, whole.attentions[0][:, :, :last, :last], atol=1e-5)
        for got, want in zip(output.past_key_values, whole.past_key_values, strict=True):
            np.testing.assert_allclose(got[0], want[0], atol=1e-5)
            np.testing.assert_allclose(got[1], want[1], atol=1e-5)

    def test_a_conversation_goes_on_from_its_cache(self, model):
        options = {"return_dict_in_generate": True, "output_logits": True, **GRAPH}
        prompt = np.tile(PROMPT, (1, 6))
        mask = np.ones_like(prompt)
        mask[0, :3] = 0
        first = model.generate(prompt, attention_mask=mask, max_new_tokens=6, **options)
        longer = np.concatenate([first.sequences, PROMPT], axis=1)
        mask = np.pad(mask, ((0, 0), (0, 10)), constant_values=1)
        options["attention_mask"] = mask
        want = model.generate(longer, max_new_tokens=5, **options)
        got = model.generate(longer, past_key_values=first.past_key_values, max_new_tokens=5, **options)
        np.testing.assert_array_equal(got.sequences, want.sequences)
        np.testing.assert_allclose(np.stack(got.logits), np.stack(want.logits), atol=1e-4)
        # It is the cache that was used: another one gives other scores.
        other = tuple((key * 0, value * 0) for key, value in first.past_key_values)
        changed = model.generate(longer, past_key_values=other, max_new_tokens=1, **options)
        assert np.abs(np.asarray(changed.logits[0]) - np.asarray(want.logits[0])).max() > 1e-2
        with pytest.raises(ValueError, match="past_key_values hold 29 tokens of 2 rows; the prompt has 24"):
            model.generate(prompt, past_key_values=first.past_key_values, **GRAPH)

    @pytest.mark.slow
    def test_transition_scores(self, model):
        options = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 4, **GRAPH}
        output = model.generate(PROMPT, **options)
        got = np.asarray(model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True))
        want = log_probabilities(model(output.sequences).logits[:, 3:-1])
        want = np.take_along_axis(want, np.asarray(output.sequences)[:, 4:, None], axis=2)[:, :, 0]
        np.testing.assert_allclose(got, want, atol=1e-4)
        options |= {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.0}
        output = model.generate(PROMPT, **options)
        without = model.generate(PROMPT, **(options | {"output_scores": False}))
        assert without.scores is None and without.sequences_scores is None
        np.testing.assert_array_equal(without.beam_indices, output.beam_indices)
        got = np.asarray(model.compute_transition_scores(output.sequences, output.scores, output.beam_indices))
        np.testing.assert_allclose(got.sum(1), output.sequences_scores, atol=1e-4)
