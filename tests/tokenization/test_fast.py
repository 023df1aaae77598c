"""The tokenizer as an object: its constructor, copies, threads."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tfmodels.tokenization import (
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
)

LONG = "The quick brown fox jumps over the lazy dog"


def test_wrong_constructor_arguments(vocabularies, tmp_path):
    path = vocabularies / "llama" / "tokenizer.model"
    with pytest.raises(
        TypeError, match=r"LlamaTokenizer got unknown arguments add_bos, colour; it knows .*add_bos_token"
    ):
        LlamaTokenizer(path, add_bos=True, colour="red")
    with pytest.raises(ValueError, match="padding_side must be 'left' or 'right', got 'centre'"):
        LlamaTokenizer(path, padding_side="centre")
    with pytest.raises(ValueError, match="bos_token must be a string, got 3"):
        LlamaTokenizer(path, bos_token=3)
    with pytest.raises(ValueError, match="LlamaTokenizer needs tokenizer_file, tokenizer_object, or vocab_file"):
        LlamaTokenizer()
    with pytest.raises(ValueError, match=r"GPT2Tokenizer needs .* or vocab_file and merges_file"):
        GPT2Tokenizer(vocabularies / "gpt2" / "vocab.json")
    with pytest.raises(FileNotFoundError, match=r"No tokenizer file at .*tokenizer\.json"):
        GPTNeoXTokenizer(tokenizer_file=tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer that the tokenizers library can read"):
        GPTNeoXTokenizer(tokenizer_file=tmp_path / "tokenizer.json")


def test_threads_may_share_a_tokenizer(mpnet):
    problems = []

    def work(length):
        try:
            for _ in range(50):
                rows = mpnet(
                    [LONG, "a"], padding="max_length", truncation=True, max_length=length, return_tensors="np"
                )
                assert rows["input_ids"].shape == (2, length)
                assert len(mpnet.encode(LONG)) == 11
                mpnet.decode(rows["input_ids"])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(length,)) for length in range(3, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_copies(llama):
    for made in (copy.deepcopy(llama), pickle.loads(pickle.dumps(llama))):
        assert made.encode("Hello") == [1, 15043]
        assert repr(made) == repr(llama)
        made.add_tokens(["brand-new"])
        assert (len(made), len(llama)) == (32001, 32000)


def test_a_backend_that_is_given_is_copied(llama):
    backend = Tokenizer.from_str(llama.backend_tokenizer.to_str())
    backend.enable_truncation(2)
    tokenizer = LlamaTokenizer(tokenizer_object=backend, pad_token="<pad>")
    assert tokenizer.encode("a b") == [1, 263, 289]
    assert backend.token_to_id("<pad>") is None
    assert backend.truncation["max_length"] == 2


# ---------------------------------------------------------------------------------------------------------------------
# Vocabularies as values and as files


@pytest.mark.parametrize("name", ["gpt2", "llama", "mpnet"])
def test_vocabulary_as_values(name, request):
    known = request.getfixturevalue(name)
    model = json.loads(known.backend_tokenizer.to_str())["model"]
    text = "Hello wörld, 123 times </s>x" if name != "mpnet" else "hello world, 123 times"
    vocab, merges = model["vocab"], model.get("merges")
    made = type(known)(vocab=vocab, merges=merges)
    assert made(text, return_offsets_mapping=True) == known(text, return_offsets_mapping=True)
    assert made.decode(made.encode(text)) == known.decode(known.encode(text))
    if merges:
        assert type(known)(vocab, [" ".join(merge) for merge in merges])(text) == known(text)  # by position, as texts


def test_merges_that_are_left_out():
    vocab = {letter: index for index, letter in enumerate(["<unk>", "▁", "a", "b", "▁a", "ab", "▁ab"])}
    assert LlamaTokenizer(vocab=vocab).tokenize("ab b") == ["▁ab", "▁", "b"]
    with pytest.raises(ValueError, match="vocab and merges do not fit together"):
        GPT2Tokenizer(vocab={"a": 0}, merges=[("a", "b")])
    with pytest.raises(ValueError, match="vocab must be ids by token, a list of tokens, or the path of a file"):
        GPT2Tokenizer(vocab={"a": "b"})
    with pytest.raises(ValueError, match="vocab does not have the unknown token"):
        MPNetTokenizer(vocab=["a", "b"])


def test_save_vocabulary(llama, gpt2, neox, mpnet, vocabularies, tmp_path):
    text = "Hello wörld"
    assert gpt2.save_vocabulary(tmp_path) == (str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    assert GPT2Tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")(text) == gpt2(text)
    assert [Path(path).name for path in neox.save_vocabulary(tmp_path, "my")] == ["my-vocab.json", "my-merges.txt"]
    assert mpnet.save_vocabulary(tmp_path / "new", filename_prefix="my") == (str(tmp_path / "new" / "my-vocab.txt"),)
    assert MPNetTokenizer(tmp_path / "new" / "my-vocab.txt")(text) == mpnet(text)
    (path,) = llama.save_vocabulary(str(tmp_path))
    assert Path(path).read_bytes() == (vocabularies / "llama" / "tokenizer.model").read_bytes()
    made = LlamaTokenizer(tokenizer_object=llama.backend_tokenizer)
    for tokenizer in (llama, gpt2, mpnet):
        for prefix in ("../x", "a/b", "x" * 300, 3):
            with pytest.raises(ValueError, match=r"filename_prefix=.* must be part of a file name"):
                tokenizer.save_vocabulary(tmp_path / "inner", prefix)
    assert not (tmp_path / "inner").exists()
    with pytest.raises(ValueError, match=r"writes a tokenizer\.model, and this tokenizer has none to copy"):
        made.save_vocabulary(tmp_path)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        gpt2.save_vocabulary(tmp_path / "vocab.json")
    # beside a tokenizer.json it is known, too
    llama.save_pretrained(tmp_path)
    assert LlamaTokenizer.from_pretrained(tmp_path).vocab_file == str(tmp_path / "tokenizer.model")
