"""serving/tools.py: which tools a model is told of, and its calls in what it writes."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from tfmodels import AutoTokenizer
from tfmodels.generation.structured import Grammar
from tfmodels.serving.errors import BadRequest
from tfmodels.serving.tools import Call, CallReader, check_choice, check_tools, choose

SCHEMA = {"type": "object", "properties": {"zone": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "now", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "stop"}},
]
NOW = Call("now", '{"zone": "UTC"}')


def tagged(content):
    return f"<tool_call>\n{content}\n</tool_call>"


ONE = '{"name": "now", "arguments": {"zone": "UTC"}}'
CASES = [
    ("Hello there.", ["Hello there."]),
    (tagged(ONE), [NOW]),
    (f"I look.\n{tagged(ONE)}\n{tagged(ONE)}", ["I look.\n", NOW, NOW]),
    (ONE, [NOW]),
    ('{"name": "now", "parameters": {"zone": "UTC"}}', [NOW]),
    (f"[{ONE}, {ONE}]", [NOW, NOW]),
    (f"{ONE}; {ONE}", [NOW, NOW]),
    ('{"name": "now"}', [Call("now", "{}")]),
    (tagged('{"name": "now", "arguments": "{\\"zone\\": \\"UTC\\"}"}'), [NOW]),
    # Text that is no call of a known tool stays text, whole.
    ('{"name": "then", "arguments": {}}', ['{"name": "then", "arguments": {}}']),
    ('{"answer": 3}', ['{"answer": 3}']),
    *(
        (tagged(call), [tagged(call)])
        for call in (
            '{"name": ["now"], "arguments": {}}',
            '{"name": {"now": 1}}',
            '{"name": "now", "arguments": {"zone": NaN}}',
            '{"name": "now", "arguments": {"zone": 1e999}}',
            '{"name": "now", "arguments": {"zone": "\\ud800"}}',
        )
    ),
    ("{ not JSON", ["{ not JSON"]),
    (tagged("{broken"), [tagged("{broken")]),
    ("<tool_call>{", ["<tool_call>{"]),
    (f"<tool_call>\n{ONE}", [NOW]),
    ("a <tool", ["a <tool"]),
    (f"A list: {ONE}", [f"A list: {ONE}"]),
    ("  \n", []),
]


def joined(parts):
    """Parts with neighbouring texts as one."""
    found = []
    for kind, group in itertools.groupby(parts, type):
        own = list(group)
        found += ["".join(own)] if kind is str else own
    return found


@pytest.mark.parametrize(("text", "expected"), CASES)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_are_found_however_the_text_is_cut(text, expected, size):
    reader = CallReader(["now", "stop"])
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    parts = [part for piece in pieces for part in reader.add(piece)] + reader.end()
    assert joined(parts) == expected


def test_text_before_a_call_is_not_held_back():
    reader = CallReader(["now"])
    assert reader.add("I look at the") == ["I look at the"]


def test_a_forced_choice_is_a_grammar():
    told, reads, form = choose(TOOLS, "required")
    assert told == TOOLS and reads
    names = [one["properties"]["name"]["const"] for one in form["json_schema"]["schema"]["anyOf"]]
    assert names == ["now", "stop"]
    schema = choose(TOOLS, "function:now").response_format["json_schema"]["schema"]
    assert schema["properties"] == {"name": {"const": "now"}, "arguments": {"$id": "tool:0", **SCHEMA}}
    assert json.loads(json.dumps(schema)) == schema
    assert choose(TOOLS, None) == (TOOLS, True, None) and choose(TOOLS, "none") == (None, False, None)
    assert choose(None, None) == (None, False, None) == choose([], "auto")


PLACE = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
NESTED = {  # as pydantic writes a model with another one in it
    "type": "object",
    "properties": {"to": {"$ref": "#/$defs/Place"}, "next": {"$ref": "#"}},
    "additionalProperties": False,
    "$defs": {"Place": PLACE},
}
COUNT = {
    "type": "object",
    "properties": {"n": {"$ref": "#/definitions/Number"}},
    "definitions": {"Number": {"type": "integer"}},
}


@pytest.mark.parametrize(
    ("name", "arguments", "right"),
    [
        ("go", '{"to": {"name": "x"}}', True),
        ("go", '{"next": {"to": {"name": "x"}}}', True),
        ("go", '{"to": {}}', False),
        ("go", '{"next": {"name": "go"}}', False),
        ("count", '{"n": 3}', True),
        ("count", '{"n": "x"}', False),
    ],
)
def test_references_are_looked_up_in_the_parameters_of_their_own_tool(name, arguments, right):
    pytest.importorskip("llguidance")
    parameters = {"go": NESTED, "count": COUNT}
    tools = [{"type": "function", "function": {"name": of, "parameters": one}} for of, one in parameters.items()]
    tokenizer = AutoTokenizer.from_pretrained("stories260K")
    grammar = Grammar(
        choose(tools, "required").response_format, tokenizer=tokenizer, vocab_size=len(tokenizer), eos_token_ids=[2]
    )
    rest, matcher = f'{{"name": "{name}", "arguments": {arguments}}}', grammar.matcher()
    texts = {id: text.replace("\u2581", " ") for text, id in tokenizer.get_vocab().items() if id > 2}
    texts |= {id: chr(int(text[3:5], 16)) for id, text in texts.items() if re.fullmatch("<0x[0-7].>", text)}
    while rest:
        fitting = [id for id, text in texts.items() if matcher.allowed()[id] and rest.startswith(text)]
        if not fitting:
            break
        token = max(fitting, key=lambda id: len(texts[id]))
        matcher.advance(token)
        rest = rest.removeprefix(texts[token])
    assert (not rest and bool(matcher.allowed()[2])) is right


@pytest.mark.parametrize(("tools", "choice"), [(None, "required"), (TOOLS, "function:then")])
def test_choices_that_cannot_be(tools, choice):
    with pytest.raises(BadRequest) as caught:
        choose(tools, choice)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ({}, "tools"),
        ([{"type": "web"}], "tools[0]"),
        ([{"type": "function", "function": {"name": "a b"}}], "tools[0].function.name"),
        ([{"type": "function", "function": {"name": "a", "parameters": "x"}}], "tools[0].function.parameters"),
        ([{"type": "function", "function": {"name": "a", "parameters": []}}], "tools[0].function.parameters"),
        ([{"type": "function", "function": {"name": "a", "description": 5}}], "tools[0].function.description"),
        ([{"type": "function", "function": {"name": "a", "strict": "yes"}}], "tools[0].function.strict"),
        ([{"type": "function", "function": {"name": "a", "parametres": {}}}], "tools[0].function.parametres"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([{"type": "function", "function": {"name": "a"}, "strict": True}], "tools[0].strict"),
    ],
)
def test_wrong_tools(tools, param):
    with pytest.raises(BadRequest) as caught:
        check_tools(tools, "tools")
    assert caught.value.param == param


@pytest.mark.parametrize("choice", ["any", 3, {"type": "function"}, {"type": "function", "function": {}}])
def test_wrong_choices(choice):
    with pytest.raises(BadRequest, match="tool_choice="):
        check_choice(choice, "tool_choice")
