"""The choice of a tokenizer class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tfmodels import MPNetConfig
from tfmodels.tokenization import (
    AutoTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
)


def checkpoint(
    tmp_path: Path, source: Path, *names: str, config: dict | None = None, model: dict | None = None
) -> Path:
    for name in names:
        shutil.copy(source / name, tmp_path / name)
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if model is not None:
        (tmp_path / "config.json").write_text(json.dumps(model))
    return tmp_path


@pytest.mark.parametrize(
    ("source", "files", "config", "model", "expected_class"),
    [
        ("llama", ["tokenizer.model"], None, None, LlamaTokenizer),
        ("llama", ["tokenizer.model"], {"tokenizer_class": "LlamaTokenizerFast"}, None, LlamaTokenizer),
        ("llama", ["tokenizer.model"], {"tokenizer_class": "PreTrainedTokenizerFast"}, None, PreTrainedTokenizerFast),
        ("gpt2", ["vocab.json", "merges.txt"], None, None, GPT2Tokenizer),
        ("gpt2", ["vocab.json", "merges.txt"], {"tokenizer_class": "GPT2Tokenizer"}, None, GPT2Tokenizer),
        ("gpt2", ["vocab.json", "merges.txt"], None, {"model_type": "gpt_neo"}, GPT2Tokenizer),
        ("neox", ["tokenizer.json"], {"tokenizer_class": "GPTNeoXTokenizer"}, None, GPTNeoXTokenizer),
        ("neox", ["tokenizer.json"], None, {"model_type": "mpt"}, GPTNeoXTokenizer),
        ("neox", ["tokenizer.json"], None, {"tokenizer_class": "GPTNeoXTokenizerFast"}, GPTNeoXTokenizer),
        ("neox", ["tokenizer.json"], {"tokenizer_class": "SomethingNew"}, None, PreTrainedTokenizerFast),
        ("neox", ["tokenizer.json"], None, {"model_type": "new"}, PreTrainedTokenizerFast),
        ("neox", ["tokenizer.json"], {"tokenizer_class": "TokenizersBackend"}, None, PreTrainedTokenizerFast),
        ("mpnet", ["vocab.txt"], None, {"model_type": "mpnet"}, MPNetTokenizer),
        ("mpnet", ["vocab.txt", "tokenizer_config.json"], None, None, MPNetTokenizer),
        ("mpnet", ["tokenizer.json", "tokenizer_config.json"], None, None, MPNetTokenizer),
    ],
)
def test_auto_picks_the_class(vocabularies, tmp_path, source, files, config, model, expected_class, request):
    folder = checkpoint(tmp_path, vocabularies / source, *files, config=config, model=model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is expected_class
    assert tokenizer.name_or_path == str(folder)
    text = "Some text, 123"
    known = request.getfixturevalue(source)
    assert tokenizer.encode(text, add_special_tokens=False) == known.encode(text, add_special_tokens=False)


def test_auto_errors(vocabularies, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No tokenizer in .*it needs tokenizer\.json, tokenizer\.model"):
        AutoTokenizer.from_pretrained(tmp_path)
    folder = checkpoint(tmp_path, vocabularies / "mpnet", "vocab.txt", config={"tokenizer_class": "XLNetTokenizer"})
    with pytest.raises(ValueError, match=r"'XLNetTokenizer', which does not exist here.*MPNetTokenizer"):
        AutoTokenizer.from_pretrained(folder)
    with pytest.raises(TypeError, match=r"AutoTokenizer\.from_pretrained"):
        AutoTokenizer()


def test_auto_arguments_of_existing_scripts(stories260k):
    with pytest.warns(UserWarning, match="use_fast=False"):
        AutoTokenizer.from_pretrained(stories260k, use_fast=False)
    with pytest.warns(UserWarning, match="trust_remote_code=True"):
        AutoTokenizer.from_pretrained(stories260k, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(stories260k, use_fast=True, padding_side="right", model_max_length=512)
    assert (tokenizer.padding_side, tokenizer.model_max_length) == ("right", 512)


def test_a_configuration_given_stands_for_the_folders(vocabularies, tmp_path):
    folder = checkpoint(tmp_path, vocabularies / "mpnet", "vocab.txt")
    with pytest.raises(FileNotFoundError, match="vocab.txt with a config.json"):
        AutoTokenizer.from_pretrained(folder)
    for config in (MPNetConfig(), {"model_type": "mpnet"}):
        assert type(AutoTokenizer.from_pretrained(folder, config=config)) is MPNetTokenizer
    with pytest.raises(TypeError, match="config='mpnet'; a configuration or a dict was expected"):
        AutoTokenizer.from_pretrained(folder, config="mpnet")


def test_what_scripts_give_to_everything_that_they_load_passes(vocabularies):
    given = {
        "torch_dtype": "auto",
        "attn_implementation": "sdpa",
        "legacy_format": False,
        "return_unused_kwargs": True,
    }
    assert type(AutoTokenizer.from_pretrained(vocabularies / "mpnet", **given)) is MPNetTokenizer


def test_a_model_type_that_is_no_text(vocabularies, tmp_path):
    folder = checkpoint(tmp_path, vocabularies / "neox", "tokenizer.json", model={"model_type": ["gpt_neox"]})
    assert type(AutoTokenizer.from_pretrained(folder)) is PreTrainedTokenizerFast
