"""generation/row.py through the engine: text and stop strings, and what goes wrong in one request alone."""

import numpy as np
import pytest

from tfmodels import AutoTokenizer, Engine, EngineFull, TFLlamaForCausalLM

GRAPH = {"jit_compile": False}


@pytest.fixture(scope="module")
def model(stories260k):
    return TFLlamaForCausalLM.from_pretrained(stories260k)


@pytest.fixture(scope="module")
def tokenizer(stories260k):
    return AutoTokenizer.from_pretrained(stories260k)


def engine_of(model, tokenizer, rows=2, **options):
    return Engine(model, rows=rows, capacity=64, tokenizer=tokenizer, **options, **GRAPH)


def follow(engine):
    """The pieces of text of every request and the answers, by id."""
    pieces, answers = {}, {}
    while engine.pending:
        for event in engine.step():
            pieces.setdefault(event.id, []).append(event.text)
            answers |= {event.id: event.completion} if event.completion else {}
    return pieces, answers


def test_text_continues_the_prompt_and_ends_before_a_stop_string(model, tokenizer):
    prompt = tokenizer.encode("Once upon a time")
    engine = engine_of(model, tokenizer)
    free = engine.add(prompt, max_new_tokens=24)
    whole = engine.run()[free]
    assert "Once upon a time" + whole.text == tokenizer.decode([*prompt, *whole.tokens], skip_special_tokens=True)
    stop = whole.text[12:19]
    cut = engine.add(prompt, max_new_tokens=24, stop_strings=[stop, "never there"])
    other = engine.add(prompt, max_new_tokens=24)
    # Held back as the beginning of a stop string, and told at the end.
    unfinished = engine.add(prompt, max_new_tokens=5, stop_strings=tokenizer.decode(whole.tokens[:5]) + "x")
    pieces, answers = follow(engine)
    assert answers[cut].text == whole.text[:12] and answers[cut].finish_reason == "stop"
    assert answers[other].text == whole.text
    ids = [*prompt, *whole.tokens[:5]]
    assert "Once upon a time" + answers[unfinished].text == tokenizer.decode(ids, skip_special_tokens=True)
    for id, answer in answers.items():
        assert "".join(pieces[id]) == answer.text
    assert len(pieces[other]) > 2
    assert all(piece == "" for piece in pieces[unfinished][:-1])


def test_without_a_tokenizer_there_is_no_text(model):
    engine = engine_of(model, None)
    engine.add([1, 403], max_new_tokens=2)
    pieces, answers = follow(engine)
    assert set(pieces[0]) == {None} and answers[0].text is None and answers[0].error is None


def test_a_full_engine_says_so_and_goes_on(model, tokenizer):
    engine = engine_of(model, tokenizer, rows=1, max_waiting=2)
    ids = [engine.add([1, 403], max_new_tokens=3) for _ in range(3)]  # one for the row that is free
    with pytest.raises(EngineFull, match="3 requests wait for 1 rows, and max_waiting is 2"):
        engine.add([1, 403], max_new_tokens=3)
    engine.step()
    assert len(engine.run()) + 1 >= len(ids)
    assert engine.add([1, 403], max_new_tokens=1) is not None
    with pytest.raises(ValueError, match="max_waiting=-1"):
        engine_of(model, tokenizer, max_waiting=-1)


class Failing:
    """A tokenizer that cannot read one token."""

    def __init__(self, tokenizer, token):
        self.tokenizer, self.token = tokenizer, token

    def decode(self, ids, **options):
        if self.token in ids:
            raise RuntimeError(f"token {self.token} is broken")
        return self.tokenizer.decode(ids, **options)


def test_an_error_in_one_request_leaves_the_others(model, tokenizer):
    prompt = tokenizer.encode("Once upon a time")
    want = np.asarray(model.generate([prompt], max_new_tokens=8, **GRAPH))[0, len(prompt) :].tolist()
    other = [1, 403, 407]
    engine = engine_of(model, Failing(tokenizer, want[4]))
    bad, good = engine.add(prompt, max_new_tokens=8), engine.add(other, max_new_tokens=4)
    _, answers = follow(engine)
    assert answers[bad].finish_reason == "error" and answers[bad].error == f"RuntimeError: token {want[4]} is broken"
    assert answers[good].finish_reason == "length" and answers[good].error is None
    # A stop string makes the tokenizer read the prompt, before there is a row.
    engine = engine_of(model, Failing(tokenizer, 499))
    bad, good = engine.add([1, 499], stop_strings="x"), engine.add(other, max_new_tokens=4)
    answers = engine.run()
    assert answers[bad].finish_reason == "error" and answers[bad].tokens == () and "is broken" in answers[bad].error
    assert len(answers[good].tokens) == 4 and engine.pending == 0


def test_an_error_of_a_grammar_ends_its_request(model, tokenizer, monkeypatch):
    pytest.importorskip("llguidance")
    from tfmodels.generation.structured import Matcher

    engine = engine_of(model, tokenizer)
    pattern = {"type": "regex", "regex": "[a-z ]+"}
    bad = engine.add([1, 403], max_new_tokens=6, response_format=pattern)
    good = engine.add([1, 403, 407], max_new_tokens=6)
    calls = []

    upcoming = Matcher.upcoming

    def twice(self, *arguments):
        calls.append(self)
        if len(calls) > 2:
            raise RuntimeError("no mask")
        return upcoming(self, *arguments)

    monkeypatch.setattr(Matcher, "upcoming", twice)
    answers = engine.run()
    assert answers[bad].finish_reason == "error" and answers[bad].error == "RuntimeError: no mask"
    assert 0 < len(answers[bad].tokens) < 6 and len(answers[good].tokens) == 6


def test_a_capacity_beyond_the_training_warns(model):
    with pytest.warns(UserWarning, match="capacity=600 is beyond max_position_embeddings=512") as told:
        Engine(model, rows=1, capacity=600, **GRAPH)
    assert told[0].filename == __file__
