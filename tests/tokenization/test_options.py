"""Options by argument, by tokenizer_config.json and by attribute, for tokenizer.json and for vocabulary files.

The ids are those of transformers 4.57 and 5.24, which agree on them unless a comment says otherwise.
"""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tfmodels.tokenization import (
    AutoTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
)

CLASSES = {"llama": LlamaTokenizer, "gpt2": GPT2Tokenizer, "neox": GPTNeoXTokenizer, "mpnet": MPNetTokenizer}


@pytest.fixture(scope="module")
def folders(vocabularies: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """NAME_slow with the vocabulary files, and NAME_json with a tokenizer.json alone."""
    target = tmp_path_factory.mktemp("folders")
    slow = {"llama": ["tokenizer.model"], "gpt2": ["vocab.json", "merges.txt"], "mpnet": ["vocab.txt"]}
    for name, cls in CLASSES.items():
        (target / f"{name}_json").mkdir()
        if name in slow:
            (target / f"{name}_slow").mkdir()
            for file in slow[name]:
                shutil.copy(vocabularies / name / file, target / f"{name}_slow" / file)
            made = cls.from_pretrained(target / f"{name}_slow")
            made.backend_tokenizer.save(str(target / f"{name}_json" / "tokenizer.json"))
        else:
            shutil.copy(vocabularies / name / "tokenizer.json", target / f"{name}_json")
    return target


def with_config(folder: Path, target: Path, **config: object) -> Path:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    name = CLASSES[folder.name.partition("_")[0]].__name__
    (target / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **config}))
    return target


# (tokenizer, option, value, text, ids)
CASES = [
    ("gpt2", "add_prefix_space", True, "Hello world", [18435, 995]),
    ("gpt2", "add_prefix_space", False, "Hello world", [15496, 995]),
    ("neox", "add_prefix_space", True, "Hello world", [24387, 1533]),
    ("neox", "add_prefix_space", False, "Hello world", [12092, 1533]),
    # 4.57 reads add_prefix_space of Llama from a tokenizer.model alone
    ("llama", "add_prefix_space", True, "Hello world", [1, 15043, 3186]),
    ("llama", "add_prefix_space", False, "Hello world", [1, 10994, 3186]),
    ("mpnet", "do_lower_case", True, "Café naïve É", [0, 7672, 15747, 1045, 2]),
    ("mpnet", "do_lower_case", False, "Hello world", [0, 104, 2092, 2]),
    ("mpnet", "strip_accents", True, "Café naïve É", [0, 7672, 15747, 1045, 2]),
    ("mpnet", "strip_accents", False, "Café naïve É", [0, 104, 104, 104, 2]),
    ("mpnet", "tokenize_chinese_chars", True, "你好 world", [0, 104, 104, 2092, 2]),
    ("mpnet", "tokenize_chinese_chars", False, "你好 world", [0, 104, 2092, 2]),  # 4.57 leaves it as it is
]


@pytest.mark.quick(6)
@pytest.mark.parametrize("layout", ["json", "slow"])
@pytest.mark.parametrize(("name", "option", "value", "text", "ids"), CASES)
def test_options_count(folders, tmp_path, name, option, value, text, ids, layout):
    source = folders / f"{name}_{layout}"
    if not source.exists():
        pytest.skip("GPT-NeoX has a tokenizer.json alone")
    configured = with_config(source, tmp_path / "configured", **{option: value})
    for tokenizer in (
        AutoTokenizer.from_pretrained(configured),
        CLASSES[name].from_pretrained(source, **{option: value}),
        # an argument goes before the file
        CLASSES[name].from_pretrained(
            with_config(source, tmp_path / "other", **{option: not value}), **{option: value}
        ),
    ):
        assert getattr(tokenizer, option) is value
        assert tokenizer(text)["input_ids"] == ids
        tokenizer.save_pretrained(tmp_path / "saved")
        saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
        assert saved(text, return_offsets_mapping=True) == tokenizer(text, return_offsets_mapping=True)
        assert getattr(saved, option) is value
        setattr(tokenizer, option, not value)
        assert getattr(tokenizer, option) is not value
        setattr(tokenizer, option, value)
        assert tokenizer(text)["input_ids"] == ids


def test_offsets_know_of_the_added_space(folders):
    for name, spans in (
        ("gpt2", [(0, 5), (5, 11)]),
        ("neox", [(0, 5), (5, 11)]),
        ("llama", [(0, 0), (0, 5), (5, 11)]),
    ):
        tokenizer = CLASSES[name].from_pretrained(folders / f"{name}_json", add_prefix_space=True)
        encoding = tokenizer("Hello world", return_offsets_mapping=True)
        assert encoding["offset_mapping"] == spans


def test_null_in_the_config_is_no_wish(folders, tmp_path):
    names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    tokenizer = AutoTokenizer.from_pretrained(with_config(folders / "mpnet_json", tmp_path, **dict.fromkeys(names)))
    assert [getattr(tokenizer, name) for name in names] == [True, None, True]


def test_config_of_another_kind_is_left_alone(folders, tmp_path):
    tokenizer = MPNetTokenizer.from_pretrained(with_config(folders / "mpnet_json", tmp_path, add_prefix_space=True))
    assert tokenizer("Hello world")["input_ids"] == [0, 7596, 2092, 2]
    assert tokenizer.add_prefix_space is False


IDS_OF = {"llama": [1, 15043, 3186], "gpt2": [15496, 995], "neox": [12092, 1533], "mpnet": [0, 7596, 2092, 2]}


@pytest.mark.parametrize("name", IDS_OF)
@pytest.mark.parametrize("option", ["add_bos_token", "add_eos_token", "legacy", "trim_offsets"])
def test_options_that_a_tokenizer_json_outweighs(folders, tmp_path, name, option):
    """The ids of 5.24, which takes none of these from tokenizer_config.json where there is a tokenizer.json."""
    for value in (True, False):
        folder = with_config(folders / f"{name}_json", tmp_path / str(value), **{option: value})
        assert AutoTokenizer.from_pretrained(folder)("Hello world")["input_ids"] == IDS_OF[name]


def test_legacy_of_the_config_does_not_change_a_tokenizer_json(folders, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(with_config(folders / "llama_json", tmp_path, legacy=True))
    assert tokenizer.legacy is False
    assert tokenizer.encode("a</s>b", add_special_tokens=False) == [263, 2, 29890]
    tokenizer.legacy = True
    assert tokenizer.encode("a</s>b", add_special_tokens=False) == [263, 2, 289]


# ---------------------------------------------------------------------------------------------------------------------
# Classes whose defaults count beside a tokenizer.json


def letters(folder: Path, cls: str, *, space: bool, **config: object) -> Path:
    """A folder with a tokenizer of single bytes, whose tokenizer.json adds a space in front or not."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    if cls == "RobertaTokenizer":
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=space)
    backend.save(str(folder / "tokenizer.json"))
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"} if cls != "RobertaTokenizer" else {}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": cls, **end, **config}))
    return folder


@pytest.mark.parametrize("cls", ["GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "RobertaTokenizer"])
def test_no_space_in_front_unless_the_config_says_so(cls, tmp_path):
    for config, expected in (({}, "a"), ({"add_prefix_space": False}, "a"), ({"add_prefix_space": True}, "Ġ")):
        for space in (False, True):
            tokenizer = AutoTokenizer.from_pretrained(letters(tmp_path, cls, space=space, **config))
            assert tokenizer.tokenize("a b")[0] == expected
            tokenizer.save_pretrained(tmp_path)
            assert AutoTokenizer.from_pretrained(tmp_path).tokenize("a b")[0] == expected
    assert AutoTokenizer.from_pretrained(letters(tmp_path, "PreTrainedTokenizerFast", space=True)).tokenize("a") == [
        "Ġ",
        "a",
    ]


@pytest.mark.parametrize("option", ["add_bos_token", "add_eos_token"])
def test_ends_of_texts_where_a_tokenizer_json_has_none(option, tmp_path):
    """GPT-NeoX and Llama as in 4.57; 5.24 adds no token to them either."""
    for cls in ("GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast", "GPTNeoXTokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(letters(tmp_path, cls, space=False, **{option: True}))
        ids = tokenizer.encode("a")
        assert ids.count(4) == (cls == "GPTNeoXTokenizer")
        given = AutoTokenizer.from_pretrained(tmp_path, **{option: True}).encode("a")  # an argument always counts
        assert given == ([4, *tokenizer.encode("a", add_special_tokens=False)] if "bos" in option else [given[0], 4])


def test_a_template_of_gpt_neox_counts_as_the_config_says(tmp_path):
    """The ids of 4.57; 5.24 has the same where the configuration is silent or says no."""
    folder = letters(tmp_path, "GPTNeoXTokenizer", space=False)
    plain = AutoTokenizer.from_pretrained(folder)("a", "b")["input_ids"]
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 0)]
    )
    for name in ("GPTNeoXTokenizer", "PreTrainedTokenizerFast"):
        letters(tmp_path, name, space=False)
        backend.save(str(folder / "tokenizer.json"))
        ids = AutoTokenizer.from_pretrained(folder)("a", "b")["input_ids"]
        assert ids == (plain if name == "GPTNeoXTokenizer" else [0, plain[0], 0, plain[1]])
    for config, want in (
        ({"add_bos_token": False}, plain),
        ({"add_bos_token": None}, plain),
        ({"add_bos_token": True}, [4, plain[0], 4, plain[1]]),
        ({"add_eos_token": True}, [plain[0], 4, plain[1], 4]),
    ):
        letters(tmp_path, "GPTNeoXTokenizer", space=False, **config)
        backend.save(str(folder / "tokenizer.json"))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer("a", "b")["input_ids"] == want
        tokenizer.save_pretrained(tmp_path / "again")
        assert AutoTokenizer.from_pretrained(tmp_path / "again")("a", "b")["input_ids"] == want
    assert AutoTokenizer.from_pretrained(folder, add_bos_token=True)("a")["input_ids"][0] == 4


# Options -> offsets of "a b" and of " a".
ROBERTA_OFFSETS = [
    ({}, [(0, 0), (0, 1), (2, 2), (2, 3), (0, 0)], [(0, 0), (1, 1), (1, 2), (0, 0)]),
    (
        {"add_prefix_space": True},
        [(0, 0), (0, 0), (0, 1), (2, 2), (2, 3), (0, 0)],
        [(0, 0), (0, 0), (1, 2), (0, 0)],
    ),
    ({"trim_offsets": False}, [(0, 0), (0, 1), (1, 2), (2, 3), (0, 0)], [(0, 0), (0, 1), (1, 2), (0, 0)]),
    (
        {"add_prefix_space": True, "trim_offsets": False},
        [(0, 0), (0, 1), (0, 1), (1, 2), (2, 3), (0, 0)],
        [(0, 0), (0, 1), (1, 2), (0, 0)],
    ),
]


@pytest.mark.parametrize(("options", "pair", "spaced"), ROBERTA_OFFSETS)
def test_offsets_of_roberta_follow_its_options(options, pair, spaced, tmp_path):
    made = [
        AutoTokenizer.from_pretrained(letters(tmp_path, "RobertaTokenizer", space=s, **options)) for s in (False, True)
    ]
    made.append(RobertaTokenizer(vocab=made[0].get_vocab(), merges=[], **options))
    made.append(RobertaTokenizer.from_pretrained(letters(tmp_path, "RobertaTokenizer", space=False), **options))
    for tokenizer in made:
        tokenizer.update_post_processor()
        assert tokenizer("a b", return_offsets_mapping=True)["offset_mapping"] == pair
        assert tokenizer(" a", return_offsets_mapping=True)["offset_mapping"] == spaced
        assert tokenizer.trim_offsets is options.get("trim_offsets", True)


# ---------------------------------------------------------------------------------------------------------------------
# Cleaning up spaces


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_clean_up_tokenization_spaces(folders, tmp_path, name):
    source, text, cleaned = folders / f"{name}_json", "do n't , really .", "don't, really."
    kept = CLASSES[name].from_pretrained(source)
    ids = kept.encode(text, add_special_tokens=False)
    for tokenizer in (
        AutoTokenizer.from_pretrained(with_config(source, tmp_path / "a", clean_up_tokenization_spaces=True)),
        CLASSES[name].from_pretrained(source, clean_up_tokenization_spaces=True),
    ):
        assert tokenizer.decode(ids) == cleaned
        assert tokenizer.batch_decode([ids]) == [cleaned]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == kept.decode(ids)
    if name != "mpnet":
        assert kept.decode(ids) == text
    assert kept.decode(ids, clean_up_tokenization_spaces=True) == cleaned


def test_files_that_name_no_class_keep_the_spaces_of_bpe(folders):
    # Llama 3's say clean_up_tokenization_spaces=true; transformers 5 does not act on it either.
    given = {"tokenizer_file": folders / "gpt2_json" / "tokenizer.json", "clean_up_tokenization_spaces": True}
    tokenizer = PreTrainedTokenizerFast(**given)
    assert tokenizer.decode(tokenizer.encode("a .")) == "a ."
    forced = PreTrainedTokenizerFast(
        **given, clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output=True
    )
    assert forced.decode(forced.encode("a .")) == "a."


# ---------------------------------------------------------------------------------------------------------------------
# Added tokens


@pytest.fixture
def prepending(folders) -> LlamaTokenizer:
    """Llama 2's layout: the normaliser puts "▁" in front and in place of spaces."""
    made = LlamaTokenizer.from_pretrained(folders / "llama_json")
    backend = made.backend_tokenizer
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a<|im_start|>b", ["▁a", "<|im_start|>", "▁b"]),
        ("a <|im_start|> b", ["▁a", "▁", "<|im_start|>", "▁", "▁b"]),
        ("<|im_start|>user", ["<|im_start|>", "▁user"]),
        ("x<|im_start|>", ["▁x", "<|im_start|>"]),
        ("<|im_start|><|im_start|>", ["<|im_start|>", "<|im_start|>"]),
    ],
)
def test_added_strings_where_a_space_is_prepended(prepending, tmp_path, text, tokens):
    assert prepending.add_tokens(["<|im_start|>"]) == 1
    assert prepending.tokenize(text) == tokens
    assert not prepending.added_tokens_decoder[32000].normalized
    prepending.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize(text) == tokens
    # tokens of an older added_tokens.json likewise
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|im_end|>": 32001}))
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize(text.replace("start", "end")) == [
        token.replace("start", "end") for token in tokens
    ]


def test_added_tokens_say_themselves_how_they_are_found(prepending):
    prepending.add_tokens([AddedToken("<x>", normalized=True), AddedToken("<y>", normalized=False)])
    assert [token.normalized for token in list(prepending.added_tokens_decoder.values())[-2:]] == [True, False]
    assert prepending.tokenize("a<x>b<y>c") == ["▁a", "<", "x", ">", "b", "<y>", "▁c"]


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_added_tokens_of_every_kind(folders, tmp_path, name):
    """Ids and text come back, and a saved tokenizer does the same; the library alone says what is found where."""
    texts = ["a<|im_start|>b", "A Foo bar", "aFoo", "xFoox Foo", "foo", "  Foo  ", "Foo Foo"]
    for a, b, c in itertools.product((False, True), repeat=3):
        # Eight choices of five flags in which every two flags have every pair of values.
        flags = (a, b, c, a != b, a != c)
        fields = dict(zip(("normalized", "lstrip", "rstrip", "single_word", "special"), flags, strict=True))
        tokenizer = CLASSES[name].from_pretrained(folders / f"{name}_json")
        plain = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        tokenizer.add_tokens([AddedToken("Foo", **fields)])
        plain.add_tokens([AddedToken("Foo", **fields)])
        for text in texts:
            encoding = tokenizer(text, return_offsets_mapping=True)
            assert encoding["input_ids"] == plain.encode(text).ids
            assert encoding["offset_mapping"] == plain.encode(text).offsets
            assert tokenizer.decode(encoding["input_ids"]) == plain.decode(plain.encode(text).ids, False)


# ---------------------------------------------------------------------------------------------------------------------
# The rest


def test_options_that_are_kept_for_others(folders, tmp_path):
    tokenizer = LlamaTokenizer.from_pretrained(
        folders / "llama_json", use_default_system_prompt=True, spaces_between_special_tokens=False
    )
    assert (tokenizer.use_default_system_prompt, tokenizer.spaces_between_special_tokens) == (True, False)
    tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert (saved.use_default_system_prompt, saved.spaces_between_special_tokens) == (True, False)
    plain = LlamaTokenizer.from_pretrained(folders / "llama_json")
    assert (plain.use_default_system_prompt, plain.spaces_between_special_tokens, plain.errors) == (
        *(False, True),
        "replace",
    )
    assert plain.decode([1, 15043], spaces_between_special_tokens=False) == plain.decode([1, 15043])


def test_errors_of_bytes(folders, llama):
    half = [15496, 8582, 25]  # "Hello", three bytes of an emoji, ":"
    made = {name: GPT2Tokenizer.from_pretrained(folders / "gpt2_json", errors=name) for name in ("replace", "ignore")}
    assert made["replace"].decode(half) == "Hello\ufffd:"
    assert made["ignore"].decode(half) == made["ignore"].batch_decode([half])[0] == "Hello:"
    strict = GPT2Tokenizer.from_pretrained(folders / "gpt2_json", errors="strict")
    text = "naïve 🙂<|endoftext|>"
    assert strict.decode(strict.encode(text)) == text
    assert strict.decode(strict.encode(text), skip_special_tokens=True) == "naïve 🙂"
    with pytest.raises(ValueError, match="can't decode bytes"):
        strict.decode(half)
    with pytest.raises(ValueError, match='errors must be "replace", "ignore", "strict" or the like, got \'skip\''):
        GPT2Tokenizer.from_pretrained(folders / "gpt2_json", errors="skip")
    other = LlamaTokenizer(tokenizer_object=llama.backend_tokenizer, errors="ignore")
    with pytest.raises(ValueError, match="is for byte-level tokenizers"):
        other.decode([15043])


def test_arguments_of_existing_scripts(folders, tmp_path):
    source = folders / "gpt2_json"
    given = {"use_fast": False, "trust_remote_code": True, "resume_download": True, "from_slow": True}
    tokenizer = GPT2Tokenizer.from_pretrained(source, **given, use_auth_token=None, verbose=False, device_map="auto")
    assert tokenizer.encode("Hello world") == [15496, 995]
    written = tokenizer.save_pretrained(
        save_directory=tmp_path, legacy_format=False, filename_prefix="my", safe_serialization=True
    )
    assert sorted(Path(path).name for path in written) == [
        *("my-special_tokens_map.json", "my-tokenizer.json", "my-tokenizer_config.json")
    ]
    with pytest.raises(ValueError, match="proxies"):
        GPT2Tokenizer.from_pretrained(source, proxies={"http": "x"})
    with pytest.raises(TypeError, match="unknown arguments pad_tokn; it knows .*did you mean pad_token"):
        GPT2Tokenizer.from_pretrained(source, pad_tokn="x")
    with pytest.raises(TypeError, match="unknown argument 'legacy_fromat'"):
        tokenizer.save_pretrained(tmp_path, legacy_fromat=True)


def test_options_of_other_kinds_of_tokenizers_have_no_effect(folders):
    for name, option in (("llama", "do_lower_case"), ("gpt2", "strip_accents"), ("mpnet", "add_prefix_space")):
        with pytest.warns(UserWarning, match=rf"{option} without effect: \w+Tokenizer does not cut text that way"):
            tokenizer = CLASSES[name].from_pretrained(folders / f"{name}_json", **{option: True})
        assert tokenizer("Hello world")["input_ids"] == IDS_OF[name]
        assert not hasattr(tokenizer, option) or getattr(tokenizer, option) is False
    assert AutoTokenizer.from_pretrained(folders / "gpt2_json", do_lower_case=False).encode("a") == [64]


def test_options_that_cannot_change_an_id_have_no_effect():
    """As in 4.57, which takes both and says nothing."""
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    letters = Tokenizer(models.BPE({"a": 0, "b": 1, "Ġ": 2}, []))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for cutter in (pre_tokenizers.BertPreTokenizer, pre_tokenizers.Whitespace, pre_tokenizers.WhitespaceSplit):
        words.pre_tokenizer = cutter()
        for cls, backend, option, ids in (
            (PreTrainedTokenizerFast, words, "add_prefix_space", [1, 2]),
            (GPTNeoXTokenizer, letters, "trim_offsets", [0, 2, 1]),
        ):
            with pytest.warns(UserWarning, match=f"{option} without effect: {cls.__name__} does not cut"):
                assert cls(tokenizer_object=backend, **{option: True})("a b")["input_ids"] == ids
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert cls(tokenizer_object=backend, **{option: False})("a b")["input_ids"] == ids


def test_an_option_that_would_change_ids_is_an_error():
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    for cutter in (pre_tokenizers.Punctuation(), pre_tokenizers.Split(" ", "merged_with_next")):
        backend.pre_tokenizer = cutter
        with pytest.raises(ValueError, match="add_prefix_space are for tokenizers in the style of SentencePiece"):
            PreTrainedTokenizerFast(tokenizer_object=backend, add_prefix_space=True)


def test_the_config_says_how_tokens_of_the_vocabulary_are_looked_for(folders, tmp_path):
    """As in 4.57, where tokenizer.json and tokenizer_config.json disagree."""
    token = {"content": "<mask>", "lstrip": False, "rstrip": True, "single_word": False, "normalized": False}
    folder = with_config(folders / "mpnet_json", tmp_path, added_tokens_decoder={"30526": {**token, "special": True}})
    assert AutoTokenizer.from_pretrained(folder).tokenize("a <mask> b") == ["a", "<mask> ", "b"]


def test_bos_and_eos_that_are_given_go_around_texts(folders):
    """The ids of 4.57: the caller's tokens take the place of those in tokenizer.json."""
    for folder in (folders / "llama_json", folders / "llama_slow"):
        tokenizer = LlamaTokenizer.from_pretrained(folder, bos_token="<B>", add_eos_token=True, eos_token="<E>")
        assert tokenizer.encode("Hello") == [32000, 15043, 32001]
        assert LlamaTokenizer.from_pretrained(folder, bos_token="<B>").encode("Hello") == [32000, 15043]
        assert LlamaTokenizer.from_pretrained(folder, eos_token="<E>").encode("Hello") == [1, 15043]
