"""Special tokens: setting, adding, and the masks that show them."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from tfmodels.tokenization import BertTokenizer, LlamaTokenizer, PreTrainedTokenizerFast
from tfmodels.tokenization.vocabulary import SPECIAL_TOKEN_NAMES


@pytest.fixture
def tokenizer(stories):
    return LlamaTokenizer(tokenizer_object=stories.backend_tokenizer)


def test_special_tokens_by_name(mpnet):
    assert mpnet.special_tokens_map == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "[UNK]",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": "<mask>",
    }
    ids = [getattr(mpnet, f"{name}_id") for name in SPECIAL_TOKEN_NAMES]
    assert ids == [0, 2, 104, 2, 1, 0, 30526]
    assert mpnet.all_special_tokens == ["<s>", "</s>", "[UNK]", "<pad>", "<mask>"]
    assert mpnet.all_special_ids == [0, 2, 104, 1, 30526]
    assert list(map(str, mpnet.all_special_tokens_extended)) == mpnet.all_special_tokens
    assert str(mpnet.special_tokens_map_extended["cls_token"]) == "<s>"


def test_setting_special_tokens(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("</s>", 2)
    tokenizer.pad_token_id = 0
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<unk>", 0)
    tokenizer.pad_token = AddedToken("</s>")
    assert tokenizer.pad_token == "</s>"
    tokenizer.pad_token = None
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == (None, None)
    # not the unknown token's id: padding with it would go unnoticed
    tokenizer.pad_token = "<nowhere>"
    assert tokenizer.pad_token_id is None
    assert tokenizer.all_special_ids == [1, 2, 0]
    with pytest.raises(ValueError, match="pad_token_id=512 is not in the vocabulary of 512 tokens"):
        tokenizer.pad_token_id = 512
    with pytest.raises(ValueError, match="pad_token must be a string, got 3"):
        tokenizer.pad_token = 3
    with pytest.raises(AttributeError, match="LlamaTokenizer has no attribute 'image_token'"):
        _ = tokenizer.image_token


def test_adding_special_tokens(tokenizer):
    new = {"pad_token": "<pad>", "additional_special_tokens": ["<|user|>", "</s>"]}
    assert tokenizer.add_special_tokens(new) == 2
    assert (tokenizer.pad_token_id, len(tokenizer), tokenizer.vocab_size) == (512, 514, 512)
    assert tokenizer.additional_special_tokens == ["<|user|>", "</s>"]
    assert tokenizer.additional_special_tokens_ids == [513, 2]
    assert tokenizer.all_special_ids == [1, 2, 0, 512, 513]
    ids = tokenizer.encode("a<|user|>b<pad>")
    assert ids[0] == 1
    assert ids.count(513) == ids.count(512) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"
    assert tokenizer.add_special_tokens({"pad_token": "<pad>"}) == 0
    tokenizer.add_special_tokens({"additional_special_tokens": ["<x>"]}, replace_additional_special_tokens=False)
    assert tokenizer.additional_special_tokens == ["<|user|>", "</s>", "<x>"]
    assert tokenizer.special_tokens_map["additional_special_tokens"] == ["<|user|>", "</s>", "<x>"]
    tokenizer.additional_special_tokens = ["<x>"]
    assert tokenizer.additional_special_tokens_ids == [514]
    with pytest.raises(ValueError, match="'paddy_token' is not the name of a special token; those are bos_token"):
        tokenizer.add_special_tokens({"paddy_token": "<pad>"})


def test_adding_plain_tokens(tokenizer):
    assert tokenizer.add_tokens("tokenizer") == 1
    assert tokenizer.add_tokens(["tokenizer", AddedToken("xyz", single_word=True)]) == 1
    assert tokenizer.add_tokens(["<think>"], special_tokens=True) == 1
    assert tokenizer.convert_tokens_to_ids(["tokenizer", "xyz", "<think>"]) == [512, 513, 514]
    ids = tokenizer.encode("a tokenizer<think>", add_special_tokens=False)
    assert ids[-2:] == [512, 514]
    assert tokenizer.decode(ids, skip_special_tokens=True).endswith("tokenizer")
    assert 513 not in tokenizer.encode("xyzxyz")
    assert tokenizer.get_added_vocab()["tokenizer"] == 512
    assert tokenizer.added_tokens_encoder == {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
    assert tokenizer.get_vocab()["xyz"] == tokenizer.vocab["xyz"] == 513
    assert len(tokenizer.get_vocab()) == len(tokenizer) == 515


def test_tokens_of_the_constructor(stories):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=stories.backend_tokenizer,
        bos_token="<s>",
        pad_token=AddedToken("<pad>", lstrip=True),
        additional_special_tokens=["<sep>"],
    )
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.additional_special_tokens_ids) == (1, 512, [513])
    assert tokenizer.eos_token is None  # nothing said so
    assert tokenizer.added_tokens_decoder[512].lstrip
    assert tokenizer.added_tokens_decoder[512].special
    assert bool(tokenizer)


def test_masks_of_special_tokens(mpnet, tokenizer, neox):
    assert mpnet.get_special_tokens_mask([5, 6]) == [1, 0, 0, 1]
    assert mpnet.get_special_tokens_mask([5, 6], [7]) == [1, 0, 0, 1, 1, 0, 1]
    assert mpnet.get_special_tokens_mask([0, 5, 104, 2, 1], already_has_special_tokens=True) == [1, 0, 1, 1, 1]
    assert tokenizer.get_special_tokens_mask([5, 6], [7]) == [1, 0, 0, 1, 0]
    assert neox.get_special_tokens_mask([5, 6]) == [0, 0]
    with pytest.raises(ValueError, match="token_ids_1 must be None"):
        mpnet.get_special_tokens_mask([5], [6], already_has_special_tokens=True)


def test_building_inputs(mpnet, tokenizer):
    for made, text in ((mpnet, "hello"), (tokenizer, "hello")):
        ids = made.encode(text, add_special_tokens=False)
        assert made.build_inputs_with_special_tokens(ids) == made.encode(text)
        assert made.build_inputs_with_special_tokens(ids, ids) == made.encode(text, text)
        assert made.num_special_tokens_to_add() == len(made.encode(text)) - len(ids)


def test_changing_bos_where_it_is_no_template(mpnet):
    tokenizer = type(mpnet)(tokenizer_object=mpnet.backend_tokenizer)
    tokenizer.bos_token = "<mask>"
    assert tokenizer.encode("hello") == [0, 7596, 2]
    with pytest.raises(ValueError, match="cannot change this tokenizer's RobertaProcessing"):
        tokenizer.add_eos_token = False


def test_bos_must_exist_to_be_added(gpt2):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=gpt2.backend_tokenizer)
    with pytest.raises(ValueError, match="add_bos_token=True, but the tokenizer has no bos_token"):
        tokenizer.add_bos_token = True


def test_token_types_of_sequences(mpnet, tokenizer, neox):
    assert mpnet.create_token_type_ids_from_sequences([5, 6], [7]) == [0] * 7
    assert tokenizer.create_token_type_ids_from_sequences([5, 6]) == [0, 0, 0]
    assert tokenizer.create_token_type_ids_from_sequences([5, 6], [7]) == [0, 0, 0, 1, 1]
    assert neox.create_token_type_ids_from_sequences([5, 6], [7]) == [0, 0, 1]
    for made in (mpnet, tokenizer):
        types = made("hello", "hello hello", return_token_type_ids=True)["token_type_ids"]
        first, second = (made.encode(text, add_special_tokens=False) for text in ("hello", "hello hello"))
        assert made.create_token_type_ids_from_sequences(first, second) == types


def test_update_post_processor(tokenizer, mpnet):
    tokenizer.add_special_tokens({"bos_token": "<begin>"})
    tokenizer.update_post_processor()
    assert tokenizer.encode("a")[0] == tokenizer.bos_token_id == 512
    made = type(mpnet)(tokenizer_object=mpnet.backend_tokenizer)
    made.cls_token = "<mask>"
    assert made.encode("hello") == [0, 7596, 2]
    made.update_post_processor()
    assert made.encode("hello") == [30526, 7596, 2]


@pytest.mark.parametrize("role", ["mask_token", "additional_special_tokens"])
def test_special_tokens_that_say_nothing_of_normalising_are_not_normalised(llama, mpnet, role):
    """The tokens of 4.57: a special token takes the space beside it, and only its own capitals are it."""
    for made, text, tokens in (
        (llama, "hello <M> x", ["▁hello", " <M>", "▁x"]),
        (mpnet, "hello <M> <m>", ["hello", " <M>", "<", "m", ">"]),
    ):
        for way in ("set", "added"):
            tokenizer = type(made)(tokenizer_object=made.backend_tokenizer)
            token = AddedToken("<M>", lstrip=True)
            if way == "added":
                tokenizer.add_tokens([token], special_tokens=True)
            else:
                tokenizer.add_special_tokens({role: token if role == "mask_token" else [token]})
            assert tokenizer.tokenize(text) == tokens


def test_a_new_mask_token_takes_the_space_before_it(mpnet):
    tokenizer = type(mpnet)(tokenizer_object=mpnet.backend_tokenizer, mask_token="<M>", unk_token="<U>")
    assert tokenizer.tokenize("hello <M> <U>") == ["hello", " <M>", "<U>"]


def test_bos_and_eos_leave_tokens_of_other_kinds_around_texts():
    tokenizer = BertTokenizer(vocab=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play"], add_bos_token=False)
    generic = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[SEP]")
    for made in (tokenizer, generic):
        made.add_bos_token = False
        made.bos_token = "play"
        made.update_post_processor()
        assert made.encode("play", "play") == [2, 5, 3, 5, 3]
        with pytest.raises(ValueError, match=r"cannot change this tokenizer, which puts \[CLS\] and \[SEP\] around"):
            made.add_bos_token = True
        made.eos_token = "[MASK]"
        assert made.encode("play", "play") == [2, 5, 3, 5, 3]


@pytest.mark.parametrize("more", [{}, {"additional_special_tokens": ["<x>", "<y>"]}])
def test_named_tokens_of_a_models_own_stand_beside_others(stories, more, tmp_path):
    extra = {"image_token": "<img>"}
    made = LlamaTokenizer(tokenizer_object=stories.backend_tokenizer, extra_special_tokens=extra, **more)
    made.save_pretrained(tmp_path)
    for tokenizer in (made, LlamaTokenizer.from_pretrained(tmp_path)):
        assert tokenizer.image_token == "<img>" and tokenizer.additional_special_tokens == list(*more.values())
        assert tokenizer.image_token_id in tokenizer("a <img>")["input_ids"]
        assert len(tokenizer) == len(stories) + 1 + len(tokenizer.additional_special_tokens)


@pytest.mark.parametrize("tokens", ["<a>", b"<a>", 5, ["<a>", 5], [["<a>"]], {"<a>": 1}])
def test_what_is_no_list_of_tokens_is_refused(tokenizer, tokens):
    """A single string was a list of its characters, each special from then on."""
    before = len(tokenizer)
    with pytest.raises(ValueError, match="additional_special_tokens=.* a list of tokens"):
        tokenizer.additional_special_tokens = tokens
    with pytest.raises(ValueError, match="additional_special_tokens=.* a list of tokens"):
        tokenizer.add_special_tokens({"pad_token": "<new>", "additional_special_tokens": tokens})
    with pytest.raises(ValueError, match="special_tokens_dict=.* a dict such as"):
        tokenizer.add_special_tokens("<a>")
    with pytest.raises(ValueError, match="pad_token must be a string"):
        tokenizer.add_special_tokens({"pad_token": ["<a>"]})
    if tokens != "<a>":
        with pytest.raises(ValueError, match="new_tokens=.* a list of tokens"):
            tokenizer.add_tokens(tokens)
        with pytest.raises(ValueError, match="new_tokens=.* a list of tokens"):
            tokenizer.add_tokens(tokens, special_tokens=True)
    assert len(tokenizer) == before and tokenizer.additional_special_tokens == [] and tokenizer.pad_token is None


@pytest.mark.parametrize("name", ["additional_special_tokens", "extra_special_tokens"])
def test_a_single_additional_token_of_a_file_is_refused(tokenizer, name):
    with pytest.raises(ValueError, match=f"^{name}='<a>': a list of tokens was expected"):
        LlamaTokenizer(tokenizer_object=tokenizer.backend_tokenizer, **{name: "<a>"})


def test_lookups_of_what_is_neither_token_nor_id_are_named(tokenizer):
    for wrong in (5, [5], b"a"):
        with pytest.raises(ValueError, match="a token, or a list of them, was expected"):
            tokenizer.convert_tokens_to_ids(wrong)
    for wrong in ("a", ["a"], 1.5, [1.5], None):
        with pytest.raises(ValueError, match="a token id, or a list of them, was expected"):
            tokenizer.convert_ids_to_tokens(wrong)
