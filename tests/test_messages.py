"""Errors and warnings show the start of a long value or name, whatever door it came in by."""

import warnings

import pytest

from tfmodels import AutoConfig, AutoTokenizer, BertConfig, GenerationConfig, LlamaConfig
from tfmodels.checkpoints.hub import resolve
from tfmodels.training import lora

LONG = "x" * 5000
HUGE = 10**4000
# Beside two values of 200 characters a message may list names, and say what is right.
LIMIT = 1000


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained("stories260K")


DOORS = {
    "a model's name": lambda _: AutoConfig.from_pretrained(LONG, local_files_only=True),
    "a tokenizer's name": lambda _: AutoTokenizer.from_pretrained(LONG, local_files_only=True),
    "a generation config's name": lambda _: GenerationConfig.from_pretrained(LONG, local_files_only=True),
    "a folder": lambda _: resolve(f"./{LONG}", patterns=()),
    "a subfolder": lambda _: resolve("stories260K", patterns=(), subfolder=LONG),
    "a GGUF file": lambda _: AutoConfig.from_pretrained("stories260K", gguf_file=LONG),
    "a revision": lambda _: AutoConfig.from_pretrained("org/name", revision=LONG, local_files_only=True),
    "no name": lambda _: AutoConfig.from_pretrained([LONG]),
    "an adapter": lambda _: lora.load_adapter(None, LONG),
    "a setting's name": lambda _: GenerationConfig(**{LONG: 1}),
    "a setting": lambda _: GenerationConfig(temperature=LONG),
    "a number": lambda _: GenerationConfig(top_p=HUGE),
    "a field": lambda _: LlamaConfig(hidden_size=[LONG]),
    "an override": lambda _: LlamaConfig.from_dict({}, **{LONG: 1}),
    "a label": lambda _: BertConfig(id2label={LONG: "a"}),
    "an option": lambda _: AutoTokenizer.from_pretrained("stories260K", **{LONG: 1}),
    "a call's argument": lambda tokenizer: tokenizer("a", **{LONG: 1}),
    "a length": lambda tokenizer: tokenizer("a", max_length=HUGE),
    "a padding": lambda tokenizer: tokenizer("a", padding=LONG),
    "columns to pad": lambda tokenizer: tokenizer.pad({LONG: [1]}),
    "a saved configuration": lambda _: LlamaConfig().save_pretrained(LONG),
    "a saved tokenizer": lambda tokenizer: tokenizer.save_pretrained(LONG),
    "a template": lambda tokenizer: tokenizer.apply_chat_template(LONG, chat_template="{{ messages }}"),
}


@pytest.mark.parametrize("door", DOORS)
def test_long_values_are_cut(door, tokenizer):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises((ValueError, TypeError, OSError)) as caught:
            DOORS[door](tokenizer)
    for message in (str(caught.value), *(str(one.message) for one in told)):
        assert len(message) <= LIMIT and "x" * 201 not in message, message[:300]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda tokenizer: tokenizer("a", truncate=True),
            "LlamaTokenizer got an unknown argument 'truncate'; did",
        ),
        (lambda tokenizer: tokenizer("a", pad_to_max_length=True), "'pad_to_max_length'; use padding=\"max_length\""),
        (lambda tokenizer: tokenizer.encode("a", max_len=3), "'max_len'; did you mean max_length"),
        (lambda tokenizer: tokenizer.pad({"input_ids": [1]}, paddng=True), "PreTrainedTokenizerFast.pad() got an"),
        (lambda tokenizer: tokenizer.decode([1], skip=True), "PreTrainedTokenizerFast.decode() got an unexpected"),
        (lambda tokenizer: tokenizer.train_new_from_iterator(["a"], 9, min_freq=1), "did you mean min_frequency"),
    ],
)
def test_arguments_of_tokenizers(tokenizer, call, message):
    with pytest.raises(TypeError) as caught:
        call(tokenizer)
    assert message in str(caught.value)
