"""Training a vocabulary for a tokenizer whose other steps stay."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from tfmodels.tokenization import PreTrainedTokenizerFast

TEXTS = [["low lower lowest", "new newer newest"] * 5, ["wide wider widest"] * 5]


def train(tokenizer, vocab_size, **options):
    return tokenizer.train_new_from_iterator(iter(TEXTS), vocab_size, show_progress=False, **options)


def test_byte_level(gpt2):
    made = train(gpt2, 280, length=15, new_special_tokens=["<new>"], special_tokens_map={"<|endoftext|>": "<end>"})
    assert type(made) is type(gpt2)
    assert 258 < len(made) <= 280  # special tokens, bytes, merges
    assert (made.bos_token, made.eos_token, made.additional_special_tokens) == ("<end>", "<end>", ["<new>"])
    assert made.convert_tokens_to_ids(["<end>", "<new>"]) == [0, 1]
    text = "newer<new> unseen naïve 🙂"
    assert made.decode(made.encode(text)) == text  # all bytes are in the alphabet
    assert made.encode("<new>") == [1]
    assert len(gpt2) == 50257


def test_word_piece_with_tokens_around(mpnet):
    made = train(mpnet, 80)
    assert made.tokenize("newest", add_special_tokens=True)[0] == "<s>"
    assert made.encode("low", "low") == [
        *(made.cls_token_id, made.convert_tokens_to_ids("low"), made.sep_token_id, made.sep_token_id),
        *(made.convert_tokens_to_ids("low"), made.sep_token_id),
    ]
    assert made.special_tokens_map == mpnet.special_tokens_map
    assert made.added_tokens_decoder[made.mask_token_id].lstrip


def test_llama_with_a_bos_token(llama):
    made = train(llama, 60)
    assert made.bos_token_id == made.encode("low")[0] == 1
    assert len(made) <= 60
    assert made.decode(made.encode("low new"), skip_special_tokens=True) == "low new"


def test_unigram():
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -2.0)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    old = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token=AddedToken("<p>", lstrip=True)
    )
    made = train(old, 40, special_tokens_map={"<unk>": "<?>"})
    assert (made.unk_token, made.unk_token_id) == ("<?>", made.encode("%")[-1])
    assert made.tokenize("lowest") != ["<?>"]
    assert made.added_tokens_decoder[made.pad_token_id].lstrip
