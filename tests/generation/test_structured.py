"""generation/structured.py: whatever the model would write, the answer meets its format."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models as small

from tfmodels import AutoTokenizer, Engine
from tfmodels.generation.structured import Grammar, compute_masks

pytest.importorskip("llguidance", reason="pip install -e '.[structured]'")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        "fine": {"type": "boolean"},
    },
    "required": ["name", "age", "tags", "fine"],
    "additionalProperties": False,
}
# No space between tokens: an untrained model at a high temperature would write nothing else.
SCHEMA = {"type": "json_schema", "json_schema": {"schema": {**PERSON, "x-guidance": {"whitespace_flexible": False}}}}
SETTINGS = {"max_new_tokens": 80, "do_sample": True, "temperature": 1.0, "top_k": 0, "eos_token_id": 2}


@pytest.fixture(scope="module")
def stories(stories260k):
    """A model of one layer, whose texts only a grammar gives a form, and a tokenizer of stories."""
    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    model = small.make("llama", "ForCausalLM", vocab_size=len(tokenizer), num_hidden_layers=1)
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    return model, tokenizer


def check(text):
    value = json.loads(text)
    assert set(value) == set(PERSON["properties"]) and len(value["name"]) <= 6 and 0 <= value["age"] <= 120
    assert type(value["fine"]) is bool and len(value["tags"]) <= 2 and set(value["tags"]) <= {"a", "b"}


def test_a_schema_is_met_by_every_row(stories):
    model, tokenizer = stories
    prompt = np.array([tokenizer.encode("Once upon a time")] * 4)
    got = model.generate(prompt, response_format=SCHEMA, tokenizer=tokenizer, seed=1, jit_compile=False, **SETTINGS)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in np.asarray(got)[:, prompt.shape[1] :]]
    assert len(set(texts)) > 1
    for text in texts:
        check(text)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_regular_expression(stories, beams):
    model, tokenizer = stories
    prompt = np.array([tokenizer.encode("The date is")])
    options = {"response_format": {"type": "regex", "regex": "[0-9]{4}-(0[1-9]|1[0-2])"}, "tokenizer": tokenizer}
    got = model.generate(prompt, num_beams=beams, max_new_tokens=20, eos_token_id=2, jit_compile=False, **options)
    text = tokenizer.decode(np.asarray(got)[0, prompt.shape[1] :], skip_special_tokens=True).strip()
    assert re.fullmatch("[0-9]{4}-(0[1-9]|1[0-2])", text)


@pytest.mark.parametrize("regex", [" (yes|no)", "[a-z]{3} [a-z]{3}", "(a|b)  c", "(cat|dog) "])
def test_spaces_that_must_come(stories, regex):
    """The tokenizer strips spaces at the end of a text, and makes one of several."""
    model, tokenizer = stories
    prompt = tokenizer.encode("Once upon")
    options = {"response_format": {"type": "regex", "regex": regex}, "max_new_tokens": 16, "eos_token_id": 2}
    got = np.asarray(model.generate([prompt], tokenizer=tokenizer, jit_compile=False, **options))[0, len(prompt) :]
    engine = Engine(model, rows=1, capacity=64, tokenizer=tokenizer, jit_compile=False)
    id = engine.add(prompt, **options)
    answer = engine.run()[id]
    assert answer.finish_reason == "stop"
    for tokens in (got, answer.tokens):
        pieces = tokenizer.convert_ids_to_tokens([token for token in np.asarray(tokens).tolist() if token > 2])
        text = re.sub("<0x(..)>", lambda byte: chr(int(byte[1], 16)), "".join(pieces))
        assert re.fullmatch(regex, text.replace("\u2581", " "))


def test_rows_of_the_engine_have_formats_of_their_own(stories):
    model, tokenizer = stories
    engine = Engine(model, rows=3, capacity=160, tokenizer=tokenizer, jit_compile=False)
    prompt = tokenizer.encode("Once upon a time")
    ids = [engine.add(prompt, response_format=SCHEMA, seed=seed, **SETTINGS) for seed in range(2)]
    free = engine.add(prompt, max_new_tokens=12)
    answers = engine.run()
    for id in ids:
        assert answers[id].finish_reason == "stop"
        check(tokenizer.decode(answers[id].tokens, skip_special_tokens=True))
    want = np.asarray(model.generate([prompt], max_new_tokens=12, jit_compile=False))[0, len(prompt) :]
    assert list(answers[free].tokens) == want.tolist()


def test_tokens_that_must_come_are_taken_together(stories260k):
    """The matcher returns all forced tokens at once, and then the mask that single steps give."""
    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    options = {"tokenizer": tokenizer, "vocab_size": 512, "eos_token_ids": (2,)}
    grammar = Grammar({"type": "regex", "regex": "<<<!!!([#]|[$])"}, **options)
    together, single = grammar.matcher(), grammar.matcher()
    forced, words = together.upcoming(100, 4)
    assert len(forced) == 4
    for token in forced:
        assert np.flatnonzero(single.allowed()).tolist() == [token]
        single.advance(token)
        together.advance(token)
    more, words = together.upcoming(96, 7)
    assert len(more) == 2
    for token in more:
        single.advance(token)
    allowed = np.unpackbits(words.view(np.uint8), bitorder="little")[:512]
    np.testing.assert_array_equal(allowed.astype(bool), single.allowed())
    assert allowed.sum() > 1
    # Forced tokens that were not made yet are told again.
    again = together.upcoming(96, 7)
    assert again[0] == more and again[1].tolist() == words.tolist()


def test_every_answer_of_a_grammar_begins_anew(stories260k):
    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    options = {"tokenizer": tokenizer, "vocab_size": 512, "eos_token_ids": (2,)}
    grammar = Grammar({"type": "regex", "regex": "[ab]"}, **options)
    first = grammar.matcher()
    begin = np.flatnonzero(first.allowed()).tolist()
    assert {tokenizer.decode([token]).strip() for token in begin} == {"a", "b"}
    first.advance(begin[0])
    assert np.flatnonzero(first.allowed()).tolist() == [2]
    assert np.flatnonzero(grammar.matcher().allowed()).tolist() == begin


@pytest.mark.parametrize("vocab_size", [512, 515, 544])
def test_words_of_any_vocabulary(stories260k, vocab_size):
    options = {
        "tokenizer": AutoTokenizer.from_pretrained(stories260k),
        "vocab_size": vocab_size,
        "eos_token_ids": (2,),
    }
    matcher = Grammar({"type": "regex", "regex": "[a-z]+"}, **options).matcher()
    forced, words = matcher.upcoming(100, 7)
    assert forced == () and len(words) == -(-vocab_size // 32)
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)
    np.testing.assert_array_equal(bits[:vocab_size], matcher.allowed())
    assert not bits[vocab_size:].any()


@pytest.mark.parametrize("vocab_size", [512, 515, 544])
def test_masks_of_several_answers(stories260k, vocab_size):
    """Masks that one call computes are those that each answer computes for itself, whatever became of the others."""
    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    options = {"tokenizer": tokenizer, "vocab_size": vocab_size, "eos_token_ids": (2,)}

    def answers():
        regex = Grammar({"type": "regex", "regex": "[ab]x*"}, **options).matcher()
        schema, closing = (Grammar(SCHEMA, **options).matcher() for _ in range(2))
        whole = Grammar({"type": "regex", "regex": "[ab]"}, **options).matcher()
        broken = Grammar({"type": "regex", "regex": "[ab]+"}, **options).matcher()
        forced = Grammar({"type": "regex", "regex": "[ab]<<<!!!([#]|[$])"}, **options).matcher()
        for matcher in (regex, schema, closing, whole, forced):
            matcher.advance(int(np.flatnonzero(matcher.allowed())[0]))
        whole.advance(2)
        broken.advance(int(np.flatnonzero(~broken.allowed())[-1]))
        return [(regex, 100), (schema, 100), (closing, 8), (whole, 100), (broken, 100), (forced, 100)]

    several, each = answers(), answers()
    compute_masks(matcher for matcher, _ in several)
    for (one, left), (other, _) in zip(several, each, strict=True):
        (forced, words), (want, want_words) = one.upcoming(left, 7), other.upcoming(left, 7)
        assert forced == want and words.tolist() == want_words.tolist()


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("schema", "least"),
    [
        ({"type": "object", "minProperties": 1, "additionalProperties": {"enum": [1]}}, 1),
        ({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "minProperties": 2}, 2),
        ({"type": "object", "properties": {"minProperties": {"enum": [2]}}, "minProperties": 1,
          "required": ["minProperties"]}, 1),
        ({"type": "object", "properties": {"a": {"const": {"minProperties": 5}}}, "required": ["a"]}, 1),
        ({"type": "object", "minProperties": 2, "additionalProperties": {"enum": [1]}}, 2),
    ],
)  # fmt: skip
def test_counts_of_keys_are_kept_to(stories, schema, least):
    model, tokenizer = stories
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    options = {"response_format": form, "tokenizer": tokenizer, "jit_compile": False, "max_new_tokens": 48}
    prompt = [tokenizer.encode("Once upon a time")] * 4
    rows = np.asarray(model.generate(np.array(prompt), do_sample=True, seed=1, eos_token_id=2, **options))
    for row in rows[:, len(prompt[0]) :]:
        pairs = json.loads(tokenizer.decode(row, skip_special_tokens=True), object_pairs_hook=list)
        assert len(pairs) >= least


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_masks_in_a_forked_process(stories260k):
    program = """
import os, sys
from tfmodels import AutoTokenizer
from tfmodels.generation.structured import Grammar, compute_masks
options = {"tokenizer": AutoTokenizer.from_pretrained(sys.argv[1]), "vocab_size": 512, "eos_token_ids": (2,)}
grammar = Grammar({"type": "regex", "regex": "[ab]x*"}, **options)
def words():
    matchers = [grammar.matcher() for _ in range(2)]
    for matcher in matchers:
        matcher.advance(int(matcher.allowed().argmax()))
    compute_masks(matchers)
    return [matcher.upcoming(9, 3)[1].tolist() for matcher in matchers]
want = words()
child = os.fork()
if child == 0:
    os._exit(0 if words() == want else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", program, str(stories260k)]
    assert subprocess.run(command, env=environment, check=False).returncode == 0


def test_the_engine_answers_as_generate_does(stories):
    """The engine takes what the grammar forces in one call, `generate` asks before every token."""
    model, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    engine = Engine(model, rows=3, capacity=160, tokenizer=tokenizer, jit_compile=False)
    ids = [engine.add(prompt, response_format=SCHEMA, seed=seed, **SETTINGS) for seed in range(3)]
    answers = engine.run()
    for seed, id in enumerate(ids):
        options = {"response_format": SCHEMA, "tokenizer": tokenizer, "seed": seed, "jit_compile": False}
        want = np.asarray(model.generate([prompt], **options, **SETTINGS))[0, len(prompt) :]
        assert list(answers[id].tokens) == want.tolist()


def test_a_grammar_of_another_vocabulary_is_refused(stories):
    model, tokenizer = stories
    engine = Engine(model, rows=2, capacity=32, tokenizer=tokenizer, jit_compile=False)
    options = {"tokenizer": tokenizer, "eos_token_ids": (2,)}
    form = {"type": "regex", "regex": "[a-z]+"}
    with pytest.raises(ValueError, match=r"^response_format=Grammar\(vocab_size=600\): .*512 tokens was expected\.$"):
        engine.add([1, 403], response_format=Grammar(form, vocab_size=600, **options))
    good = engine.add([1, 403], response_format=Grammar(form, vocab_size=512, **options), max_new_tokens=3)
    answers = engine.run()
    assert list(answers) == [good] and len(answers[good].tokens) == 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"response_format": {"type": "yaml"}}, "a dict with type .* was expected"),
        ({"response_format": "json"}, "a dict with type .* was expected"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "was expected"),
        ({"response_format": {"type": "json_object"}, "tokenizer": None}, "needs tokenizer="),
        ({"response_format": {"type": "json_object"}, "eos_token_id": None}, "needs an eos_token_id"),
        ({"response_format": {"type": "regex", "regex": "(a"}}, "cannot be met"),
        ({"response_format": {"type": "regex", "regex": r"[^\s\S]"}}, "cannot be met: no token can begin it"),
        ({"response_format": {"type": "grammar", "grammar": "start: a\na: a"}}, "cannot be met: no token can"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"type": "string", "minLength": 5, "maxLength": 2}},
                }
            },
            "cannot be met.*Unsatisfiable",
        ),
        ({"response_format": {"type": "regex", "regex": "(?=a)b"}}, "(?s)is not supported: .*look-around"),
    ],
)
def test_what_cannot_be_met(stories, options, message):
    model, tokenizer = stories
    with pytest.raises(ValueError, match=message):
        model.generate([[1, 2]], **{"tokenizer": tokenizer, "eos_token_id": 2, **options})


@pytest.mark.parametrize(
    "schema, message",
    [
        ({"type": "object", "properties": {"a": {"not": {}}}}, 'the keyword "not", not supported here: leave it out'),
        ({"dependentSchemas": {}, "minContains": 1}, 'keywords "dependentSchemas", "minContains", .* leave them out'),
        ({"type": "string", "format": "word"}, """the "format" 'word', not supported here: say it as a "pattern"."""),
        ({"oneOf": [{"type": "string"}, {"minLength": 1}]}, 'uses "oneOf" where .*, not supported here: say "anyOf"'),
        ({"$ref": "http://a.b/c"}, """refers to 'http://a.b/c', and nothing is fetched: .* into "\\$defs"."""),
        ({"type": "string", "pattern": r"\bfoo"}, "is not supported: lookarounds"),
    ],
)
def test_schemas_that_are_not_supported_name_the_part(stories, schema, message):
    _, tokenizer = stories
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    with pytest.raises(ValueError, match=message) as caught:
        Grammar(form, tokenizer=tokenizer, vocab_size=512, eos_token_ids=(2,))
    assert "cannot be met" not in str(caught.value)


def test_an_answer_whose_grammar_breaks_is_no_whole_one(stories):
    model, tokenizer = stories
    prompt = tokenizer.encode("Once upon a time")
    # The library gives up at the second of a million letters.
    options = {
        "response_format": {"type": "regex", "regex": "(a{1000}){1000}"},
        "max_new_tokens": 8,
        "eos_token_id": 2,
    }
    with pytest.raises(ValueError, match="the grammar cannot be followed further: lexer error: too many expressions"):
        model.generate([prompt], tokenizer=tokenizer, jit_compile=False, **options)
    engine = Engine(model, rows=2, capacity=64, tokenizer=tokenizer, jit_compile=False)
    broken, free = engine.add(prompt, **options), engine.add(prompt, max_new_tokens=3)
    answers = engine.run()
    assert answers[broken].finish_reason == "error" and "cannot be followed" in str(answers[broken].error)
    assert answers[free].finish_reason == "length"


def test_names_close_to_a_keyword_are_told(stories, recwarn):
    """Names of properties and notes of the schema's author are none."""
    _, tokenizer = stories
    options = {"tokenizer": tokenizer, "vocab_size": 512, "eos_token_ids": (2,)}

    def compiled(schema):
        Grammar({"type": "json_schema", "json_schema": {"schema": schema}}, **options)
        found = [str(one.message) for one in recwarn if "JSON Schema" in str(one.message)]
        recwarn.clear()
        return found

    named = {"type": "object", "properties": {"requierd": {"type": "null"}}, "required": ["requierd"]}
    notes = {"x-order": 1, "example": {"requierd": None}, "description": "typ", "default": {"typ": 1}}
    assert compiled({"anyOf": [{**named, **notes}]}) == []
    slips = {"anyOf": [{"type": "array", "items": {"type": "object", "properties": {"a": {"typ": "null"}}}}]}
    assert compiled(slips) == [
        "response_format: 'typ' is no keyword of JSON Schema and changes nothing; did you mean type?"
    ]
    (found,) = compiled({"type": "object", "requierd": ["a"]})
    assert found.endswith("'requierd' is no keyword of JSON Schema and changes nothing; did you mean required?")


def test_plain_text_is_no_limit(stories):
    model, _ = stories
    options = {"max_new_tokens": 3, "jit_compile": False}
    got = model.generate([[1, 2]], response_format={"type": "text"}, **options)
    np.testing.assert_array_equal(got, model.generate([[1, 2]], **options))


def test_white_space_between_the_parts_of_json_is_bounded(stories260k):
    tokenizer = AutoTokenizer.from_pretrained(stories260k)
    grammar = Grammar({"type": "json_object"}, tokenizer=tokenizer, vocab_size=512, eos_token_ids=(2,))
    opening, newline = (tokenizer.convert_tokens_to_ids(piece) for piece in ("<0x7B>", "<0x0A>"))
    matcher, seen = grammar.matcher().after(opening), 0
    while matcher.allowed()[newline]:
        matcher, seen = matcher.after(newline), seen + 1
        assert seen <= 1
    assert seen == 1 and matcher.allowed().any()


LONG = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "sizes": {"type": "array", "items": {"type": "integer"}},
        "more": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}},
        "free": True,
    },
    "required": ["name", "sizes", "more", "free"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("new", [95, 130])
def test_json_is_whole_in_time(stories, new):
    """A model that would write strings and lists without end is led to the end before max_new_tokens."""
    model, tokenizer = stories
    form = {"type": "json_schema", "json_schema": {"schema": LONG}}
    settings = {"max_new_tokens": new, "do_sample": True, "top_k": 0, "eos_token_id": 2}
    prompt = tokenizer.encode("Once upon a time")
    engine = Engine(model, rows=8, capacity=160, tokenizer=tokenizer, jit_compile=False)
    ids = [engine.add(prompt, response_format=form, seed=seed, **settings) for seed in range(16)]
    answers = engine.run()
    lengths = []
    for id in ids:
        assert answers[id].finish_reason == "stop"
        value = json.loads(answers[id].text)
        assert list(value) == LONG["required"] and isinstance(value["name"], str)
        assert all(isinstance(size, int) for size in value["sizes"])
        lengths.append(len(answers[id].tokens))
    assert len(set(lengths)) > 1 and max(lengths) > new // 2


def test_any_json(stories):
    model, tokenizer = stories
    form = {"type": "json_schema", "json_schema": {"schema": True}}
    options = {"max_new_tokens": 24, "do_sample": True, "top_k": 0, "eos_token_id": 2, "jit_compile": False}
    ids = model.generate([[1, 403]], response_format=form, tokenizer=tokenizer, seed=2, **options)
    json.loads(tokenizer.decode(np.asarray(ids)[0, 2:].tolist(), skip_special_tokens=True))


def test_generate_ends_json_in_time_too(stories):
    model, tokenizer = stories
    form = {"type": "json_schema", "json_schema": {"schema": LONG}}
    ids = model.generate(
        [tokenizer.encode("Once")] * 2,
        response_format=form,
        tokenizer=tokenizer,
        max_new_tokens=80,
        do_sample=True,
        top_k=0,
        seed=1,
        eos_token_id=2,
        jit_compile=False,
    )
    for row in np.asarray(ids)[:, len(tokenizer.encode("Once")) :].tolist():
        assert list(json.loads(tokenizer.decode(row, skip_special_tokens=True))) == LONG["required"]
