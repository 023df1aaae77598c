"""Ids to text."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tfmodels.tokenization import PreTrainedTokenizerFast

LONG = "The quick brown fox jumps over the lazy dog"


def test_decode_takes_all_kinds_of_ids(llama):
    assert llama.decode(15043) == llama.decode(np.int64(15043)) == "Hello"
    assert llama.decode([1, 15043, 3186]) == llama.decode(np.array([1, 15043, 3186])) == "<s> Hello world"
    assert llama.decode((15043, 3186)) == llama.decode([np.int32(15043), np.int32(3186)]) == "Hello world"
    rows = [[1, 15043], [3186, 2]]
    assert llama.decode(rows) == llama.decode(np.array(rows)) == ["<s> Hello", "world</s>"]
    assert llama.batch_decode(rows, skip_special_tokens=True) == ["Hello", "world"]
    assert llama.batch_decode([np.array([15043]), np.array([3186, 2])]) == ["Hello", "world</s>"]
    assert llama.batch_decode([15043, 3186]) == ["Hello", "world"]
    assert (llama.decode([]), llama.batch_decode([]), llama.batch_decode([[]])) == ("", [], [""])


@pytest.mark.parametrize("ids", [-100, [1, -100], [[1], [-1]], [1.5], "text", {"input_ids": [1]}])
def test_decode_refuses_what_is_no_id(llama, ids):
    with pytest.raises(ValueError, match="token_ids must be token ids, integers from 0 on"):
        llama.decode(ids)


def test_clean_up(mpnet, gpt2, llama):
    words = Tokenizer(models.WordLevel({"<unk>": 0, "do": 1, "n't": 2, ".": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    kept = PreTrainedTokenizerFast(tokenizer_object=words)
    cleaned = PreTrainedTokenizerFast(tokenizer_object=words, clean_up_tokenization_spaces=True)
    ids = kept.encode("do n't .")
    assert (kept.decode(ids), cleaned.decode(ids)) == ("do n't .", "don't.")
    assert kept.decode(ids, clean_up_tokenization_spaces=True) == "don't."
    assert cleaned.decode(ids, clean_up_tokenization_spaces=False) == "do n't ."
    # BPE's spaces are the text's own, unless the caller insists
    bpe = PreTrainedTokenizerFast(tokenizer_object=gpt2.backend_tokenizer, clean_up_tokenization_spaces=True)
    assert bpe.decode(bpe.encode("a .")) == "a ."
    assert bpe.decode(bpe.encode("a ."), clean_up_tokenization_spaces=True) == "a."


def test_tokens_and_ids(llama, mpnet):
    assert llama.tokenize("Hello é") == ["▁Hello", "▁é"]
    assert llama.convert_tokens_to_ids("▁Hello") == 15043
    assert llama.convert_tokens_to_ids(["▁Hello", "nothing like it"]) == [15043, 0]
    assert llama.convert_ids_to_tokens(15043) == "▁Hello"
    assert llama.convert_ids_to_tokens([1, 15043, 2]) == ["<s>", "▁Hello", "</s>"]
    assert llama.convert_ids_to_tokens(np.array([1, 15043]), skip_special_tokens=True) == ["▁Hello"]
    assert llama.convert_ids_to_tokens([32000, -1]) == [None, None]
    assert llama.convert_tokens_to_string(["▁Hello", "▁world", "<0xC3>", "<0xA9>"]) == "Hello worldé"
    assert mpnet.convert_tokens_to_string(["hell", "##o"]) == "hello"
