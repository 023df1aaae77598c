"""Saving and loading tokenizers; folders as other programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken

from tfmodels.tokenization import (
    AutoTokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
)
from tfmodels.tokenization.conversions.reading import read_json

TEXTS = ["Hello  world", " a</s> b<s>c", "", "naïve 🙂\n\tx", "<mask> and <|endoftext|>", "<pad>", "  "]


def everything(tokenizer, text):
    return tokenizer(
        text,
        "a pair",
        return_offsets_mapping=True,
        return_token_type_ids=True,
        return_special_tokens_mask=True,
    )


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["llama", "stories", "gpt2", "neox", "mpnet"])
def test_saved_and_loaded(name, request, tmp_path):
    tokenizer = request.getfixturevalue(name)
    written = tokenizer.save_pretrained(tmp_path / "made" / "here")
    assert {Path(path).name for path in written} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    assert {path.name for path in (tmp_path / "made" / "here").iterdir()} == {Path(path).name for path in written}
    loaded = AutoTokenizer.from_pretrained(tmp_path / "made" / "here")
    assert type(loaded) is type(tokenizer)
    assert repr(loaded).split("vocab_size")[1] == repr(tokenizer).split("vocab_size")[1]
    assert loaded.get_vocab() == tokenizer.get_vocab()
    for text in TEXTS:
        assert everything(loaded, text) == everything(tokenizer, text)
        assert loaded.decode(loaded.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_all_settings_are_kept(stories260k, tmp_path):
    tokenizer = LlamaTokenizer.from_pretrained(
        stories260k,
        legacy=True,
        padding_side="right",
        model_input_names=["input_ids", "token_type_ids"],
        clean_up_tokenization_spaces=True,
        additional_special_tokens=[AddedToken("<x>", rstrip=True)],
    )
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.add_tokens(["plain"])
    tokenizer.add_eos_token = True
    tokenizer.truncation_side = "left"
    tokenizer.model_max_length = 77
    tokenizer.split_special_tokens = True
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), LlamaTokenizer.from_pretrained(tmp_path)):
        assert (loaded.padding_side, loaded.truncation_side, loaded.model_max_length) == ("right", "left", 77)
        assert loaded.model_input_names == ["input_ids", "token_type_ids"]
        assert loaded.clean_up_tokenization_spaces
        assert loaded.split_special_tokens
        assert loaded.chat_template == "{{ messages }}"
        assert (loaded.add_bos_token, loaded.add_eos_token) == (True, True)
        assert loaded.additional_special_tokens == ["<x>"]
        assert loaded.added_tokens_decoder[512].rstrip
        assert (loaded.pad_token_id, loaded.convert_tokens_to_ids("plain")) == (513, 514)
        assert loaded.encode("a</s>b", split_special_tokens=False) == tokenizer.encode(
            "a</s>b", split_special_tokens=False
        )
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    # the class that transformers does not build anew from vocabulary and merges
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (config["add_bos_token"], config["add_eos_token"], config["legacy"]) == (True, True, True)


def test_unknown_settings_are_kept_and_code_is_not(vocabularies, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "tokenizer.json").write_bytes((vocabularies / "neox" / "tokenizer.json").read_bytes())
    write(
        source / "tokenizer_config.json",
        {
            "tokenizer_class": "GPTNeoXTokenizer",
            "something_new": {"a": 1},
            "auto_map": {"AutoTokenizer": ["code.py", None]},
            "name_or_path": "/home/someone",
            "model_max_length": 2048,
        },
    )
    GPTNeoXTokenizer.from_pretrained(source).save_pretrained(tmp_path / "target")
    config = json.loads((tmp_path / "target" / "tokenizer_config.json").read_text())
    assert config["something_new"] == {"a": 1}
    assert config["model_max_length"] == 2048
    assert not config.keys() & {"auto_map", "name_or_path"}


def test_chat_templates(stories260k, tmp_path):
    several = {"default": "{{ one }}", "tool_use": "{{ två }}"}
    tokenizer = LlamaTokenizer.from_pretrained(stories260k, chat_template=several)
    written = tokenizer.save_pretrained(tmp_path)
    assert str(tmp_path / "additional_chat_templates" / "tool_use.jinja") in written
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ one }}"
    assert LlamaTokenizer.from_pretrained(tmp_path).chat_template == several
    # as older files have it, and which goes first
    stored = [{"name": name, "template": template} for name, template in several.items()]
    old = tmp_path / "old"
    LlamaTokenizer.from_pretrained(stories260k).save_pretrained(old)
    config = json.loads((old / "tokenizer_config.json").read_text())
    write(old / "tokenizer_config.json", {**config, "chat_template": stored})
    assert LlamaTokenizer.from_pretrained(old).chat_template == several
    (old / "chat_template.jinja").write_text("{{ newer }}")
    assert LlamaTokenizer.from_pretrained(old).chat_template == "{{ newer }}"


def test_tokenizer_json_has_the_last_word_over_the_config(stories, tmp_path):
    stories.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write(
        tmp_path / "tokenizer_config.json", {**config, "legacy": True, "add_bos_token": False, "add_eos_token": True}
    )
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.encode("a</s>b") == stories.encode("a</s>b")
    # but the caller has it over both
    changed = AutoTokenizer.from_pretrained(tmp_path, legacy=True, add_bos_token=False)
    assert changed.tokenize("a</s>b", add_special_tokens=True) == ["▁a", "</s>", "▁b"]


def test_config_counts_for_vocabulary_files(stories260k, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((stories260k / "tokenizer.model").read_bytes())
    write(
        tmp_path / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "legacy": True,
            "add_bos_token": False,
            "add_eos_token": True,
            "add_prefix_space": None,
            "pad_token": {"__type": "AddedToken", "content": "<pad>", "normalized": False, "lstrip": True},
            "unk_token": None,
            "image_token": "<image>",
            "model_max_length": 512,
        },
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("a</s>b", add_special_tokens=True) == ["▁a", "</s>", "▁b", "</s>"]
    assert (tokenizer.pad_token_id, tokenizer.unk_token, tokenizer.model_max_length) == (512, None, 512)
    assert tokenizer.added_tokens_decoder[512].lstrip
    assert (tokenizer.image_token, tokenizer.image_token_id) == ("<image>", 513)
    again = LlamaTokenizer.from_pretrained(tmp_path, legacy=False, add_bos_token=True, unk_token="<unk>")
    assert again.tokenize("a</s>b", add_special_tokens=True) == ["<s>", "▁a", "</s>", "b", "</s>"]
    assert again.unk_token_id == 0
    again.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").image_token_id == 513


def test_added_tokens_of_older_folders(stories260k, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((stories260k / "tokenizer.model").read_bytes())
    write(tmp_path / "added_tokens.json", {"<second>": 513, "<pad>": 512})
    write(tmp_path / "special_tokens_map.json", {"pad_token": {"content": "<pad>"}, "eos_token": "<second>"})
    write(tmp_path / "tokenizer_config.json", {"pad_token": "<overruled>", "tokenizer_class": "LlamaTokenizer"})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)) == (512, 513, 514)
    assert tokenizer.decode([512, 513], skip_special_tokens=True) == ""
    write(tmp_path / "added_tokens.json", {"<second>": 600, "<pad>": 512})
    with pytest.raises(ValueError, match="'<second>' should have id 600, but the vocabulary gives it 513"):
        AutoTokenizer.from_pretrained(tmp_path)


def test_additional_tokens_of_both_files(gpt2, tmp_path):
    """As 4.57 reads folders without an added_tokens_decoder: the map's tokens come after the configuration's."""
    gpt2.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "GPT2Tokenizer", "additional_special_tokens": ["<x2>", "<x1>"]}
    write(tmp_path / "tokenizer_config.json", config)
    token = {"content": "<x1>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    write(tmp_path / "special_tokens_map.json", {"additional_special_tokens": [token, "world"]})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert [str(token) for token in tokenizer.additional_special_tokens] == ["<x2>", "<x1>", "world"]
    assert tokenizer.additional_special_tokens_ids == [50257, 50258, 6894]
    assert tokenizer.encode("a <x1>b<x2>") == [64, 50258, 65, 50257]
    write(tmp_path / "added_tokens.json", {"<x1>": 50257, "<x2>": 50258})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("a <x1>b<x2>") == [64, 50257, 65, 50258]
    assert tokenizer.decode([64, 50257, 65, 50258], skip_special_tokens=True) == "ab"
    (tmp_path / "added_tokens.json").unlink()
    write(tmp_path / "special_tokens_map.json", {})
    assert AutoTokenizer.from_pretrained(tmp_path).additional_special_tokens == ["<x2>", "<x1>"]


def test_added_tokens_of_newer_folders(stories, tmp_path):
    stories.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    added = {
        "0": {"content": "<unk>", "special": True},
        "513": {"content": "<pad>", "special": True, "normalized": False},
        "512": {"content": "plain words", "special": False, "normalized": True},
    }
    write(tmp_path / "tokenizer_config.json", {**config, "added_tokens_decoder": added, "pad_token": "<pad>"})
    others = {"pad_token": "<overruled>", "cls_token": "plain words", "additional_special_tokens": ["<other>"]}
    write(tmp_path / "special_tokens_map.json", others)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.cls_token is None and not tokenizer.additional_special_tokens and len(tokenizer) == 514
    assert (tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("plain words")) == (513, 512)
    assert tokenizer.encode("<pad>", add_special_tokens=False) == [513]
    assert tokenizer.decode([513, 512], skip_special_tokens=True) == "plain words"


def test_tokens_with_a_role_are_special(stories, tmp_path):
    """As in 4.57, also where their own entries say no."""
    stories.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    added = {str(512 + index): {"content": f"<{index}>", "special": False} for index in range(3)}
    roles = {"additional_special_tokens": ["<0>"], "pad_token": "<1>"}
    write(tmp_path / "tokenizer_config.json", {**config, **roles, "added_tokens_decoder": added})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode([512, 513, 514], skip_special_tokens=True) == "<2>"


def test_llama3_style_tokenizer_json(gpt2, tmp_path):
    # Byte-level BPE with a template behind it, padding and truncation switched on: as such files come.
    backend = PreTrainedTokenizerFast(
        tokenizer_object=gpt2.backend_tokenizer, bos_token="<|begin|>", eos_token="<|end|>", add_bos_token=True
    ).backend_tokenizer
    backend.enable_padding(pad_id=50258, pad_token="<|end|>", length=16)
    backend.enable_truncation(max_length=4)
    backend.save(str(tmp_path / "tokenizer.json"))
    write(
        tmp_path / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "clean_up_tokenization_spaces": True,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 131072,
        },
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert type(tokenizer) is PreTrainedTokenizerFast
    text = "Hello world, how are you? I am fine ."
    ids = gpt2.encode(text)
    assert tokenizer(text) == {"input_ids": [50257, *ids], "attention_mask": [1] * (len(ids) + 1)}
    assert tokenizer.encode("Hello", "world") == [50257, 15496, 50257, 6894]
    assert tokenizer(["Hello", text], padding=True)["input_ids"][0] == [50257, 15496] + [50258] * (len(ids) - 1)
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert (tokenizer.add_bos_token, tokenizer.add_eos_token, tokenizer.pad_token) == (True, False, "<|end|>")
    # the named class does not take it apart either
    llama = LlamaTokenizer.from_pretrained(tmp_path)
    assert llama(text)["input_ids"] == tokenizer(text)["input_ids"]
    llama.add_eos_token = True
    assert llama.encode("Hello") == [50257, 15496, 50258]
    saved = tmp_path / "saved"
    tokenizer.save_pretrained(saved)
    content = json.loads((saved / "tokenizer.json").read_text())
    assert content["padding"] is content["truncation"] is None


def test_tiktoken_vocabulary_with_named_tokens(tmp_path):
    import base64

    lines = [base64.b64encode(bytes([byte])) + f" {byte}\n".encode() for byte in range(256)]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert plain.encode("a") == [256, 97]
    assert (plain.bos_token, plain.eos_token, len(plain)) == ("<|begin_of_text|>", "<|end_of_text|>", 512)
    names = {"256": {"content": "<|begin_of_text|>", "special": True}, "257": {"content": "<|mine|>", "special": True}}
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": names})
    named = AutoTokenizer.from_pretrained(tmp_path)
    assert named.encode("a<|mine|>") == [256, 97, 257]
    assert (named.eos_token, len(named)) == (None, 258)


def test_missing_and_broken_files(stories260k, vocabularies, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"No tokenizer for LlamaTokenizer in .*tokenizer\.json, or tokenizer\.mo"
    ):
        LlamaTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"MPNetTokenizer in .*tokenizer\.json, or vocab\.txt"):
        MPNetTokenizer.from_pretrained(stories260k)
    (tmp_path / "tokenizer.model").write_bytes((stories260k / "tokenizer.model").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"tokenizer\.model is not a SentencePiece model"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text((vocabularies / "neox" / "tokenizer.json").read_text()[:5000])
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer that the tokenizers library can read"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": ')
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not valid JSON"):
        AutoTokenizer.from_pretrained(tmp_path)
    write(tmp_path / "tokenizer_config.json", ["no object"])
    with pytest.raises(ValueError, match=r"tokenizer_config\.json holds a JSON list; an object was expected"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="unknown arguments dropout"):
        AutoTokenizer.from_pretrained(stories260k, dropout=0.1)


def test_saving_over_a_file(stories, tmp_path):
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        stories.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "keep me"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "stories", "gpt2", "neox", "mpnet"])
def test_transformers_loads_what_is_saved(name, request, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = request.getfixturevalue(name)
    tokenizer.save_pretrained(tmp_path)
    model_type = {"gpt2": "gpt_neo", "neox": "gpt_neox", "mpnet": "mpnet"}.get(name, "llama")
    write(tmp_path / "config.json", {"model_type": model_type})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert dict(everything(theirs, text)) == everything(tokenizer, text)
    assert theirs.special_tokens_map == tokenizer.special_tokens_map
    assert theirs.padding_side == tokenizer.padding_side


def test_reading_json_needs_an_object(tmp_path):
    with pytest.raises(FileNotFoundError, match="No vocabulary file"):
        read_json(tmp_path / "nothing.json")
