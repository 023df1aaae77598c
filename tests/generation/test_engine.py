"""generation/engine.py: every row answers as the request alone would be, whatever its neighbours do."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
import small_models as small

from tfmodels import AutoTokenizer, Engine, TFLlamaForCausalLM
from tfmodels.generation.row_settings import Kind

GRAPH = {"jit_compile": False}


def restless(family, **changes):
    model = small.make(family, "ForCausalLM", **changes)
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    model.generation_config = model.generation_config.update(eos_token_id=None, use_cache=True)
    return model


# Every family traces programs of its own: by default the one that is most used, with `-m slow` the others.
FAMILIES = ["llama", *(pytest.param(family, marks=pytest.mark.slow) for family in ("gpt_neo", "mpt", "gpt_neox"))]


@pytest.fixture(scope="module", params=FAMILIES)
def any_model(request):
    positions = {"mpt": "max_seq_len"}.get(request.param, "max_position_embeddings")
    return restless(request.param, **{positions: 64})


@pytest.fixture(scope="module")
def model():
    """One layer, which is traced and compiled in less time, for the engine's own behaviour."""
    return restless("llama", num_hidden_layers=1)


def prompts_of(model, lengths, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(3, model.config.vocab_size, length).tolist() for length in lengths]


def alone(model, prompt, **settings):
    return tuple(np.asarray(model.generate([prompt], **settings, **GRAPH))[0, len(prompt) :].tolist())


def test_rows_answer_as_alone(any_model):
    """Fewer rows than prompts, prompts of several chunks, other lengths: rows are taken up again in between."""
    model = any_model
    prompts = prompts_of(model, (3, 20, 9, 1, 17))
    engine = Engine(model, rows=2, capacity=32, prefill_chunk=16, **GRAPH)
    ids = [engine.add(prompt, max_new_tokens=4 + 2 * n) for n, prompt in enumerate(prompts)]
    answers = engine.run()
    for n, (id, prompt) in enumerate(zip(ids, prompts, strict=True)):
        assert answers[id].tokens == alone(model, prompt, max_new_tokens=4 + 2 * n)
        assert answers[id].finish_reason == "length" and answers[id].prompt == tuple(prompt)
    assert engine.pending == 0


def test_a_last_chunk_that_would_pass_the_room(model):
    """The chunks of 46 tokens end at 20, 40 and 46; filled up to 16 tokens, the last one would end at 56 of 48."""
    (prompt,) = prompts_of(model, (46,))
    engine = Engine(model, rows=1, capacity=47, prefill_chunk=20, **GRAPH)
    id = engine.add(prompt, max_new_tokens=1)
    assert engine.run()[id].tokens == alone(model, prompt, max_new_tokens=1)


def test_short_prompts_run_in_short_chunks_after_a_long_one(model, monkeypatch):
    engine = Engine(model, rows=1, capacity=120, **GRAPH)
    sizes, run = [], engine.slots.prefill
    monkeypatch.setattr(engine.slots, "prefill", lambda *given: (sizes.append(given[-1]), run(*given)))
    for prompt in prompts_of(model, (100, 5, 6)):
        engine.add(prompt, max_new_tokens=1)
        while engine.pending:
            engine.step()
    assert sizes == [128, 16, 16]


def test_prompts_with_like_chunks_run_together(any_model, monkeypatch):
    """Four at a time, others one by one; the same tokens come, also where a last chunk would pass the room."""
    model = any_model
    prompts = prompts_of(model, (20, 5, 23, 18, 30, 30, 9, 19, 30, 2, 30))
    engine, calls = Engine(model, rows=11, capacity=31, prefill_chunk=20, **GRAPH), []
    run, wanted = engine.slots.prefill, [alone(model, prompt, max_new_tokens=1) for prompt in prompts]
    note = lambda rows, chunks, *where: (calls.append((len(rows), *where)), run(rows, chunks, *where))
    monkeypatch.setattr(engine.slots, "prefill", note)

    def answers():
        engine.forget_prompts()
        calls.clear()
        ids = [engine.add(prompt, max_new_tokens=1) for prompt in prompts]
        found = engine.run()
        return [found[id].tokens for id in ids]

    assert answers() == wanted
    assert {rows for rows, *_ in calls} == {1}  # nobody waits for a program that few prompts would use
    monkeypatch.setattr("tfmodels.generation.slots._LONGED_FOR", 0)
    assert answers() == wanted
    # Eight begin with more than 16 tokens, three with fewer, and five go on.
    assert calls == [(4, 0, 20), (1, 0, 16), (4, 0, 20), (1, 0, 16), (1, 0, 16), (4, 16, 16), (1, 16, 16)]
    monkeypatch.setattr("tfmodels.generation.slots._LONGEST_TOGETHER", 16)  # long chunks are no faster together
    assert answers() == wanted
    assert [call for call in calls if call[0] > 1] == [(4, 16, 16)]


def test_prompts_that_run_together_leave_the_others_their_turn(model, monkeypatch):
    """Between two steps of others no more tokens of prompts are run than two whole chunks hold."""
    monkeypatch.setattr("tfmodels.generation.slots._LONGED_FOR", 0)
    engine, calls = Engine(model, rows=9, capacity=80, prefill_chunk=32, **GRAPH), []
    first, *prompts = prompts_of(model, (3, *[15] * 6, *[30] * 2))
    run = engine.slots.prefill
    monkeypatch.setattr(engine.slots, "prefill", lambda *given: (calls.append((len(given[0]), given[3])), run(*given)))
    for prompt in (*prompts, *prompts):  # compiles what runs four together
        engine.add(prompt, max_new_tokens=1)
    engine.run()
    engine.forget_prompts()
    id = engine.add(first, max_new_tokens=40)
    engine.step()
    for prompt in prompts:
        engine.add(prompt, max_new_tokens=1)
    taken = []
    while engine.pending:
        calls.clear()
        events = engine.step()
        taken.append(list(calls))
        assert any(event.id == id for event in events)
    assert taken[:3] == [[(4, 16)], [(1, 16), (1, 16), (1, 32)], [(1, 32)]]


def test_every_row_has_its_own_settings(model):
    prompts = prompts_of(model, (6, 6, 6, 6))
    settings = [
        {"max_new_tokens": 8, "do_sample": True, "seed": 5, "temperature": 0.8, "top_k": 7},
        {"max_new_tokens": 5},
        {"max_new_tokens": 8, "do_sample": True, "seed": 6, "top_p": 0.7, "top_k": 0},
        {"max_new_tokens": 6, "do_sample": True, "seed": 5, "min_p": 0.02, "temperature": 1.4},
    ]
    engine = Engine(model, rows=4, capacity=32, **GRAPH)
    ids = [engine.add(prompt, **own) for prompt, own in zip(prompts, settings, strict=True)]
    answers = engine.run()
    for id, prompt, own in zip(ids, prompts, settings, strict=True):
        assert answers[id].tokens == alone(model, prompt, **own)


def test_ends_of_sequences_and_texts(stories260k):
    model, tokenizer = TFLlamaForCausalLM.from_pretrained(stories260k), AutoTokenizer.from_pretrained(stories260k)
    prompt = tokenizer.encode("Once upon a time")
    free = alone(model, prompt, max_new_tokens=16, eos_token_id=None)
    engine = Engine(model, rows=2, capacity=64, tokenizer=tokenizer, **GRAPH)
    first = engine.add(prompt, max_new_tokens=16, eos_token_id=[free[6], 9])
    text = tokenizer.decode([*prompt, *free])
    stop = text[len(tokenizer.decode(prompt)) + 8 :][:3]
    second = engine.add(prompt, max_new_tokens=16, stop_strings=stop)
    answers = engine.run()
    assert answers[first].tokens == free[: free.index(free[6]) + 1] and answers[first].finish_reason == "stop"
    tokens = answers[second].tokens
    assert tokens == free[: len(tokens)] and answers[second].finish_reason == "stop"
    assert stop in tokenizer.decode([*prompt, *tokens])[len(tokenizer.decode(prompt)) :]


def test_events_join_to_the_answers_and_a_cancelled_row_is_free(model):
    prompts = prompts_of(model, (4, 5, 6))
    engine = Engine(model, rows=2, capacity=64, **GRAPH)
    ids = [engine.add(prompt, max_new_tokens=30) for prompt in prompts]
    parts = dict.fromkeys(ids, ())
    answers = {}
    for turn in range(200):
        for event in engine.step():
            parts[event.id] += event.tokens
            answers |= {event.id: event.completion} if event.completion else {}
        if turn == 1:
            assert engine.cancel(ids[0]) and not engine.cancel("nobody")
        if not engine.pending:
            break
    assert parts == {id: answers[id].tokens for id in ids}
    assert answers[ids[0]].finish_reason == "cancelled" and len(answers[ids[0]].tokens) < 30
    for n in (1, 2):
        assert answers[ids[n]].tokens == alone(model, prompts[n], max_new_tokens=30)
    waiting = [engine.add(prompts[0], max_new_tokens=2) for _ in range(3)]
    engine.cancel(waiting[2])
    assert engine.run()[waiting[2]].finish_reason == "cancelled"


def test_what_a_row_has_computed_is_used_again(any_model):
    model = any_model
    system, turns = prompts_of(model, (24, 4, 5, 3))[0], prompts_of(model, (4, 5, 3), seed=1)
    engine = Engine(model, rows=2, capacity=64, prefill_chunk=16, **GRAPH)
    prompt = list(system)
    for turn in turns:  # a conversation: every prompt begins with the last one and its answer
        prompt += turn
        id = engine.add(prompt, max_new_tokens=4)
        answer = engine.run()[id]
        assert answer.tokens == alone(model, prompt, max_new_tokens=4)
        prompt += answer.tokens
    assert engine.stats["prefix_hits"] == 2 and engine.stats["reused_tokens"] > 60 and engine.stats["cache_bytes"] > 0
    # A busy row's beginning is copied.
    ids = [engine.add([*system, *turn], max_new_tokens=9) for turn in turns]
    answers = engine.run()
    for id, turn in zip(ids, turns, strict=True):
        assert answers[id].tokens == alone(model, [*system, *turn], max_new_tokens=9)
        assert answers[id].reused >= 24


def test_many_requests_compile_nothing_new(model):
    def serve(seed):
        engine = Engine(model, rows=4, capacity=48, prefill_chunk=16, **GRAPH)
        lengths = np.random.default_rng(seed).integers(1, 40, 12)
        for n, prompt in enumerate(prompts_of(model, lengths, seed)):
            engine.add(
                prompt,
                max_new_tokens=1 + n % 8,
                do_sample=bool(n % 2),
                temperature=0.5 + n / 10 if n % 2 else 1.0,
                seed=n,
            )
        assert len(engine.run()) == 12

    serve(0)
    before = model.programs.compilations
    serve(1)
    assert model.programs.compilations == before


@pytest.mark.slow
def test_nothing_is_compiled_after_the_warm_up(stories260k):
    """Prompts of all lengths, settings of all kinds, beginnings that are copied, and answers with a grammar."""
    model, tokenizer = TFLlamaForCausalLM.from_pretrained(stories260k), AutoTokenizer.from_pretrained(stories260k)
    engine = Engine(model, rows=5, capacity=90, prefill_chunk=40, tokenizer=tokenizer, **GRAPH)
    engine.warm_up()
    before = model.programs.compilations
    draw = np.random.default_rng(5)
    settings = [
        {},
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "seed": 3},
        {"repetition_penalty": 1.2, "eos_token_id": [2, 5, 7]},
        {"logprobs": 3, "do_sample": True, "frequency_penalty": 0.3},
        {"response_format": {"type": "regex", "regex": "[a-z]{2,4}"}, "eos_token_id": 2},
        {"response_format": {"type": "json_object"}, "do_sample": True, "logit_bias": {"5": 2.0}, "eos_token_id": 2},
    ]
    for n, length in enumerate(draw.integers(1, 80, 60)):
        prompt = draw.integers(3, 512, length).tolist()
        engine.add([*([7] * 20 if n % 3 else []), *prompt][:80], max_new_tokens=1 + n % 6, **settings[n % 6])
    answers = engine.run()
    assert len(answers) == 60 and engine.stats["prefix_hits"] > 5
    assert not any(answer.error for answer in answers.values())
    assert model.programs.compilations == before
    with pytest.raises(RuntimeError, match="warm_up is for an engine that has served nothing yet"):
        engine.warm_up()


def test_one_program_stands_in_for_those_that_are_not_compiled(stories260k):
    """After a warm-up for greedy requests the first one with penalties, draws or a grammar compiles nothing."""
    pytest.importorskip("llguidance")
    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    model = restless("llama", vocab_size=len(tokenizer), num_hidden_layers=1)
    engine = Engine(model, rows=2, capacity=48, prefill_chunk=16, tokenizer=tokenizer, **GRAPH)
    engine.warm_up([Kind.GREEDY], grammars=False)
    before, prompt, got = model.programs.compilations, [1, 403, 407], {}
    settings = [
        {"repetition_penalty": 1.3},
        {"do_sample": True, "seed": 3},
        {"response_format": {"type": "regex", "regex": "[a-z]{4}"}, "eos_token_id": 2},
        {},
    ]
    ids = [engine.add(prompt, max_new_tokens=6, **one) for one in settings]
    while engine.pending:
        got |= {event.id: event.completion for event in engine.step() if event.completion}
    assert model.programs.compilations == before
    assert re.fullmatch("[a-z]{4}", got[ids[2]].text)
    for id, one in zip(ids, settings, strict=True):
        if "response_format" not in one:
            assert got[id].tokens == alone(model, prompt, max_new_tokens=6, **one)


@pytest.mark.slow
def test_a_few_programs_serve_everything_while_others_are_compiled(stories260k):
    """After a warm-up no request waits: neither for its kind of settings nor for its length of prompts."""
    model = TFLlamaForCausalLM.from_pretrained(stories260k)
    engine = Engine(model, rows=2, capacity=80, prefill_chunk=64, jit_compile=True)
    jobs = []
    model.programs._background.submit = jobs.append
    engine.warm_up()
    # Chunks of 16 and of 64 tokens, a row's copy, tokens of every kind, and a number of each weight.
    assert model.programs.compilations == 5
    requests = [
        (length, settings)
        for length in (1, 10, 25, 60)
        for settings in ({}, {"do_sample": True, "seed": length, "top_k": 0}, {"repetition_penalty": 1.3})
    ]

    def answers():
        ids, got = [engine.add([7] * length, max_new_tokens=4, **own) for length, own in requests], {}
        while engine.pending:
            got |= {event.id: event.completion for event in engine.step() if event.completion}
        return [got[id].tokens for id in ids]

    want = [alone(model, [7] * length, max_new_tokens=4, **own) for length, own in requests]
    before = model.programs.compilations
    assert answers() == want
    assert model.programs.compilations == before
    for job in jobs:
        job()
    before = model.programs.compilations
    assert answers() == want
    assert model.programs.compilations == before


def test_threads(model):
    prompts = prompts_of(model, (3, 8, 5, 12))
    want = [alone(model, prompt, max_new_tokens=6) for prompt in prompts]
    engine = Engine(model, rows=2, capacity=32, **GRAPH)
    got = {}

    def client(n):
        got[n] = engine.add(prompts[n], max_new_tokens=6)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = engine.run()
    assert [answers[got[n]].tokens for n in range(4)] == want


def test_generate_batch(model):
    prompts = prompts_of(model, (3, 8, 5))
    answers = model.generate_batch(prompts, max_new_tokens=5, rows=2, show_progress=True, **GRAPH)
    assert [answer.tokens for answer in answers] == [alone(model, prompt, max_new_tokens=5) for prompt in prompts]
    assert model.generate_batch([]) == []
    with pytest.raises(ValueError, match=r"the prompt is text, .*Once.*tokenizer\(text\)"):
        model.generate(["Once"], max_new_tokens=2)
    for wrong, message in (
        ("Once", r"prompts\[1\] is text, 'Once'; token ids were expected"),
        ([], r"prompts\[1\]=\[\]: a list of token ids from 0 to"),
        ([10**6], r"prompts\[1\]=\[1000000\]: a list of token ids from 0 to"),
        (5, r"prompts\[1\]=5: the token ids of one text"),
        ([5] * 16, r"prompts\[1\] of 16 tokens leaves no room for a new one within capacity=16"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate_batch([[5], wrong], max_new_tokens=2, capacity=16, **GRAPH)


def test_bad_requests_leave_the_engine_at_work(model):
    engine = Engine(model, rows=1, capacity=16, **GRAPH)
    good = engine.add([5, 6], max_new_tokens=3, id="a")
    for arguments, options, error, message in (
        (([],), {}, ValueError, r"prompt=\[\]"),
        (([10**6],), {}, ValueError, "token ids from 0 to"),
        (("Once upon",), {}, ValueError, "the prompt is text, 'Once upon'; token ids were expected"),
        ((["Once upon"],), {}, ValueError, r"the prompt is text, \['Once upon'\]"),
        (([5] * 16,), {}, ValueError, "no room for a new one within capacity=16"),
        (([5],), {"id": "a"}, ValueError, "id='a' is in use"),
        (([5],), {"id": [1]}, TypeError, r"id=\[1\]: a hashable value, such as a number or a text, was expected"),
        (([5],), {"num_beams": 2}, ValueError, "num_beams=2 is not a setting of the engine's rows"),
        (([5],), {"stop_strings": ["x"]}, ValueError, "tokenizer"),
        (([5],), {"temprature": 2.0}, TypeError, "did you mean temperature"),
    ):
        with pytest.raises(error, match=message):
            engine.add(*arguments, **options)
    assert engine.run()[good].tokens == alone(model, [5, 6], max_new_tokens=3)
    for size, message in (({"rows": 0}, "rows=0: .* at least 1"), ({"capacity": 1}, "capacity=1: .* at least 2")):
        with pytest.raises(ValueError, match=message):
            Engine(model, **size)
    engine = Engine(model, rows=1, capacity=2, **GRAPH)
    assert engine.add([5]) == 0 and len(engine.run()[0].tokens) == 1


@pytest.mark.parametrize("tokenizer", [5, "stories260K", {}])
def test_what_is_no_tokenizer_is_refused(model, tokenizer):
    for call in (
        lambda: Engine(model, tokenizer=tokenizer),
        lambda: model.generate_batch([[5]], tokenizer=tokenizer),
        lambda: model.generate([[5]], tokenizer=tokenizer, stop_strings="a", max_new_tokens=1, **GRAPH),
    ):
        with pytest.raises(TypeError, match=f"tokenizer={re.escape(repr(tokenizer))}: a tokenizer was expected"):
            call()


def test_scores_that_are_no_numbers_end_a_row():
    model = restless("llama")
    model.lm_head.kernel.assign(model.lm_head.kernel * np.nan)
    answer = model.generate_batch([[5, 6]], max_new_tokens=3, **GRAPH)[0]
    assert answer.finish_reason == "error" and answer.tokens == ()


def test_first_tokens_are_told_before_others_follow(model, monkeypatch):
    """One token, then several at a time; a prompt that comes later changes no other tokens."""
    monkeypatch.setattr("tfmodels.generation.pace._LONGEST_PAUSE", 1e9)  # whatever else the machine does
    prompts = prompts_of(model, (5, 7))
    engine = Engine(model, rows=2, capacity=64, **GRAPH)
    ids, told = [engine.add(prompts[0], max_new_tokens=20)], {}
    while engine.pending:
        for event in engine.step():
            told.setdefault(event.id, []).append(event.tokens)
        if len(told[ids[0]]) == 2 and len(ids) == 1:
            ids.append(engine.add(prompts[1], max_new_tokens=12))
    assert [len(tokens) for tokens in told[ids[0]]] == [1, 8, 1, 8, 2]
    assert [len(tokens) for tokens in told[ids[1]]] == [1, 8, 3]
    for id, prompt, new in zip(ids, prompts, (20, 12), strict=True):
        assert sum(told[id], ()) == alone(model, prompt, max_new_tokens=new)


def test_steps_do_not_wait_for_xla():
    model = restless("llama", num_hidden_layers=1)
    prompts = prompts_of(model, (9,) * 7)
    want = [alone(model, prompt, max_new_tokens=10, eos_token_id=None) for prompt in prompts]
    engine, got = Engine(model, rows=1, capacity=32), {}
    for prompt in prompts[:5]:  # some calls later XLA compiles in the background
        engine.add(prompt, max_new_tokens=10, eos_token_id=None)
    while engine.pending:
        got |= {event.id: event.completion.tokens for event in engine.step() if event.completion}
    model.programs.wait()
    compiled = model.programs.compilations
    last = [engine.add(prompt, max_new_tokens=10, eos_token_id=None) for prompt in prompts[5:]]
    answers = engine.run()
    assert model.programs.compilations == compiled
    assert [*got.values(), *(answers[id].tokens for id in last)] == want


def test_few_rows_and_short_texts_have_programs_of_their_own(monkeypatch):
    """Programs of every part of the cache make the tokens of `generate`, and leave other rows as they are."""
    monkeypatch.setattr("tfmodels.generation.slots._LONGED_FOR", 0)
    model = small.make("llama", "ForCausalLM", max_position_embeddings=2048, num_hidden_layers=1)
    model.generation_config = model.generation_config.update(eos_token_id=None)
    prompts = prompts_of(model, (5, 30, 4, 7, 3, 9, 6, 270))
    engine, taken = Engine(model, rows=8, capacity=2040, **GRAPH), []
    decode = engine.slots.decode
    engine.slots.decode = lambda *given: taken.append(given[3]) or decode(*given)

    def answers(some, new):
        ids = [engine.add(prompt, max_new_tokens=new) for prompt in some]
        texts = dict.fromkeys(ids, ())
        while engine.pending:
            for event in engine.step():
                texts[event.id] += event.tokens
        for prompt, text in zip(some, texts.values(), strict=True):
            assert text == alone(model, prompt, max_new_tokens=new)

    answers(prompts[1:2], 12)  # one row, its text in the first part of the slots
    answers(prompts[2:5], 9)  # three rows and one that rests
    assert set(taken) == {(1, 256), (4, 256)}
    answers([prompts[1][:20], *prompts[2:6]], 9)  # begins like a row that rested meanwhile
    assert engine.stats["prefix_hits"] == 1 and taken[-1].rows == 8
    answers(prompts[7:], 3)
    assert taken[-1].columns == engine.slots.room


def test_rows_that_rest_may_be_longer_than_the_part_that_a_program_reads(monkeypatch):
    monkeypatch.setattr("tfmodels.generation.slots._LONGED_FOR", 0)
    model = small.make("llama", "ForCausalLM", max_position_embeddings=2048, num_hidden_layers=1)
    model.generation_config = model.generation_config.update(eos_token_id=None)
    long, *short = prompts_of(model, (300, 5, 4))
    engine, taken = Engine(model, rows=3, capacity=2040, **GRAPH), []
    engine.add(long, max_new_tokens=3)
    engine.run()
    decode = engine.slots.decode
    engine.slots.decode = lambda *given: taken.append(given[3]) or decode(*given)
    ids, got = [engine.add(prompt, max_new_tokens=9) for prompt in short], {}
    while engine.pending:
        got |= {event.id: event.completion.tokens for event in engine.step() if event.completion}
    assert (3, 256) in taken
    assert [got[id] for id in ids] == [alone(model, prompt, max_new_tokens=9) for prompt in short]
    again = engine.add([*long, 5], max_new_tokens=3)
    answer = engine.run()[again]
    assert answer.reused >= 300 and answer.tokens == alone(model, [*long, 5], max_new_tokens=3)


def test_xla_compiles_for_fewer_rows_in_the_background():
    model = restless("llama", num_hidden_layers=1)
    prompts = prompts_of(model, (6,) * 4)
    want = alone(model, prompts[3], max_new_tokens=48, eos_token_id=None)
    engine = Engine(model, rows=3, capacity=64)
    for prompt in prompts[:3]:
        engine.add(prompt, max_new_tokens=6, eos_token_id=None)
    engine.run()  # compiles for all rows

    def alone_in_steps():
        id, tokens = engine.add(prompts[3], max_new_tokens=48, eos_token_id=None), ()
        while engine.pending:
            tokens += sum((event.tokens for event in engine.step() if event.id == id), ())
        return tokens

    decode, taken = engine.slots.decode, []
    engine.slots.decode = lambda *given: taken.append(given[3].rows) or decode(*given)
    first = alone_in_steps()
    assert taken[0] == 3
    model.programs.wait()
    compiled = model.programs.compilations
    assert alone_in_steps() == first == want
    assert taken[-1] == 1 and model.programs.compilations == compiled


def test_compiled(model):
    prompts = prompts_of(model, (3, 18))
    answers = model.generate_batch(prompts, max_new_tokens=12, rows=2)
    assert [answer.tokens for answer in answers] == [alone(model, prompt, max_new_tokens=12) for prompt in prompts]


def test_prompts_are_forgotten_on_demand_and_where_one_frozen_matrix_changed():
    model = restless("llama")
    model.trainable = False
    engine, prompt = Engine(model, rows=1, capacity=64, jit_compile=False), [1, *range(20, 50)]

    def reused():
        engine.add(prompt, max_new_tokens=2)
        with pytest.raises(RuntimeError, match="1 requests wait or are worked on"):
            engine.forget_prompts()
        (answer,) = engine.run().values()
        return answer.reused

    kernel = model.backbone.layers[1].self_attn.v_proj.kernel
    assert [reused(), reused()] == [0, 30]
    kernel.assign(-kernel)
    assert [reused(), reused()] == [0, 30]
    engine.forget_prompts()
    assert [reused(), reused()] == [0, 30]


@pytest.mark.quick(1)
@pytest.mark.parametrize("change", ["all", "adapters"])
def test_other_weights_make_rows_forget_prompts(change):
    from tfmodels.training.lora import add_lora

    model = restless("llama")
    engine, prompt = Engine(model, rows=2, capacity=96, jit_compile=False), [1, *range(20, 50)]

    def answer(engine):
        id = engine.add(prompt, max_new_tokens=8)
        return engine.run()[id].tokens

    first = answer(engine)
    assert answer(engine) == first and engine.stats["reused_tokens"] == 30
    if change == "adapters":
        add_lora(model, rank=2, targets=r"q_proj")
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(
            np.asarray(weight)
            + rng.standard_normal(weight.shape) * (0.3 * np.std(weight) + 0.5 * (change == "adapters"))
        )
    fresh = answer(Engine(model, rows=2, capacity=96, jit_compile=False))
    assert fresh != first
    assert answer(engine) == fresh and engine.stats["reused_tokens"] == 30
