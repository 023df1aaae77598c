"""The result of a tokenizer: a dict, tensors, and the way back to the text."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import optree
import pytest

from tfmodels.tokenization import BatchEncoding, CharSpan, TokenSpan

TEXT, PAIR = "Hello wonderful worlds!", "One two"


@pytest.fixture
def single(mpnet):
    return mpnet(TEXT)


@pytest.fixture
def batch(mpnet):
    return mpnet([TEXT, "Short"], [PAIR, PAIR], padding=True)


def test_is_a_dict(single):
    def takes(input_ids, attention_mask):
        return input_ids, attention_mask

    assert isinstance(single, dict)
    assert takes(**single) == (single["input_ids"], single["attention_mask"])
    assert single.input_ids is single["input_ids"]
    assert list(single) == ["input_ids", "attention_mask"]
    with pytest.raises(
        AttributeError, match="no attribute or value 'labels'; its values are input_ids, attention_mask"
    ):
        _ = single.labels
    with pytest.raises(KeyError):
        single["labels"]


def test_tokens_words_and_texts(batch):
    tokens = ["<s>", "hello", "wonderful", "worlds", "!", "</s>", "</s>", "one", "two", "</s>"]
    assert batch.tokens(0) == tokens
    assert batch[0].tokens == tokens
    assert batch.word_ids(0) == [None, 0, 1, 2, 3, None, None, 0, 1, None]
    assert batch.sequence_ids(0) == [None, 0, 0, 0, 0, None, None, 1, 1, None]
    assert batch.tokens(1) == ["<s>", "short", "</s>", "</s>", "one", "two", "</s>", "<pad>", "<pad>", "<pad>"]
    assert batch.n_sequences == 2
    assert len(batch.encodings) == 2
    assert batch.is_fast


def test_from_tokens_to_text(batch, single):
    assert batch.token_to_chars(0, 2) == CharSpan(6, 15)
    assert single.token_to_chars(2) == CharSpan(6, 15)
    assert single.token_to_chars(-2) == CharSpan(22, 23)
    assert single.token_to_chars(0) is None
    assert (single.token_to_word(3), batch.token_to_word(1, 5), single.token_to_word(0)) == (2, 1, None)
    assert (batch.token_to_sequence(0, 1), batch.token_to_sequence(0, 7), batch.token_to_sequence(0, 0)) == (
        0,
        1,
        None,
    )


def test_from_text_to_tokens(batch, single):
    assert single.word_to_tokens(1) == TokenSpan(2, 3)
    assert batch.word_to_tokens(0, 0, sequence_index=1) == TokenSpan(7, 8)
    assert single.word_to_tokens(99) is None
    assert single.word_to_chars(1) == CharSpan(6, 15)
    assert single.word_to_chars(99) is None
    assert (single.char_to_token(7), batch.char_to_token(0, 4, 1)) == (2, 8)
    assert single.char_to_token(5) is None  # the space between words
    assert (single.char_to_word(7), batch.char_to_word(0, 4, 1)) == (1, 1)


def test_words_that_were_given(mpnet):
    encoding = mpnet(["Unbelievably", "long"], is_split_into_words=True)
    word_ids = encoding.word_ids()
    assert word_ids[0] is word_ids[-1] is None
    assert word_ids[1:-1] == sorted(word_ids[1:-1])
    assert word_ids.count(1) == 1
    assert encoding.word_to_tokens(0) == TokenSpan(1, len(word_ids) - 2)


def test_without_text(mpnet):
    padded = mpnet.pad({"input_ids": [[1, 2]]})
    assert not padded.is_fast
    assert padded.n_sequences is None
    with pytest.raises(ValueError, match="has no text behind it"):
        padded.tokens()


def test_copies(batch):
    for made in (copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert made == batch
        assert made.tokens(1) == batch.tokens(1)
        assert made.input_ids == batch.input_ids


def test_numpy(mpnet):
    batch = mpnet([TEXT, ""], return_tensors="np", padding=True, return_length=True, return_offsets_mapping=True)
    assert batch["input_ids"].dtype == np.int64
    assert batch["input_ids"].tolist() == [[0, 7596, 6923, 8488, 1003, 2], [0, 2, 1, 1, 1, 1]]
    assert batch["attention_mask"].sum(1).tolist() == [6, 2]
    assert batch["length"].tolist() == [6, 6]
    assert batch["offset_mapping"].shape == (2, 6, 2)
    one = mpnet(TEXT, return_tensors="np")
    assert one["input_ids"].shape == (1, 6)


def test_empty(mpnet, llama):
    assert mpnet([]) == {"input_ids": [], "attention_mask": []}
    assert mpnet([], return_tensors="np", padding=True)["input_ids"].dtype == np.int64
    nothing = llama([""], add_special_tokens=False, return_tensors="np")
    assert (nothing["input_ids"].shape, nothing["input_ids"].dtype) == ((1, 0), np.int64)


def test_tensor_errors(mpnet):
    with pytest.raises(ValueError, match=r"'input_ids' have different lengths .* padding=True"):
        mpnet(["one", "one two"], return_tensors="np")
    with pytest.raises(ValueError, match='return_tensors must be "tf", "np" or None, got \'pt\''):
        mpnet("one", return_tensors="pt")


def test_jax(mpnet):
    jax = pytest.importorskip("jax")
    batch = mpnet([TEXT, "a"], padding=True, return_tensors="jax")
    assert isinstance(batch["input_ids"], jax.Array)
    assert batch["input_ids"].tolist() == mpnet([TEXT, "a"], padding=True)["input_ids"]


def test_jax_that_is_not_there(mpnet, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setitem(sys.modules, "jax.numpy", None)
    with pytest.raises(ImportError, match='return_tensors="jax" needs JAX'):
        mpnet("a", return_tensors="jax")


def test_data_and_device(single):
    assert single.data["input_ids"] == single.input_ids
    assert single.to("cuda") is single
    assert single.to(0, non_blocking=True) is single
    with pytest.raises(ValueError, match="device must name a device"):
        single.to(np.float16)
    single.data = {"input_ids": [[1]]}
    assert dict(single) == {"input_ids": [[1]]}
    assert single.words() == single.word_ids()


def test_tensors_later(single):
    made = BatchEncoding({"input_ids": [1, 2], "length": 2}).convert_to_tensors("np", prepend_batch_axis=True)
    assert made["input_ids"].tolist() == [[1, 2]]
    assert made["length"].tolist() == [2]
    assert BatchEncoding({"input_ids": [1]}, tensor_type="np", prepend_batch_axis=True)["input_ids"].shape == (1, 1)
    assert BatchEncoding({"input_ids": [1]}).convert_to_tensors() == {"input_ids": [1]}
    enumeration = type("TensorType", (), {"value": "np"})()
    assert single.convert_to_tensors(enumeration)["input_ids"].ndim == 1


def test_is_a_tree_node():
    batch = BatchEncoding({"input_ids": [1, 2], "attention_mask": [1, 1]})
    doubled = optree.tree_map(lambda leaf: leaf * 2, batch, namespace="keras")
    assert type(doubled) is BatchEncoding
    assert doubled == {"input_ids": [2, 4], "attention_mask": [2, 2]}


def test_tensorflow(mpnet):
    tf = pytest.importorskip("tensorflow")
    batch = mpnet([TEXT, "a"], padding=True, return_tensors="tf")
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == tf.int32
    assert batch["input_ids"].numpy().tolist() == mpnet([TEXT, "a"], padding=True)["input_ids"]
    assert mpnet.encode("a", return_tensors="tf").shape == (1, 3)
    labels = mpnet.pad({"input_ids": [[1], [2]], "labels": [0.5, 1.0]}, return_tensors="tf")["labels"]
    assert labels.dtype == tf.float32
    # as a data set, and through a traced function
    first = next(iter(tf.data.Dataset.from_tensor_slices(dict(batch)).batch(1)))
    assert first["input_ids"].shape == (1, 6)
    count = tf.function(lambda inputs: tf.reduce_sum(inputs["attention_mask"]))
    assert int(count(batch)) == 9
    assert mpnet.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["hello wonderful worlds!", "a"]
    assert mpnet.decode(batch["input_ids"][1]) == "<s> a </s> <pad> <pad> <pad>"


def test_goes_into_keras_models(mpnet):
    keras = pytest.importorskip("keras")

    class Counter(keras.Model):
        def call(self, inputs):
            return keras.ops.sum(inputs["attention_mask"], axis=1)

    batch = mpnet([TEXT, "a"], padding=True, return_tensors="np")
    model = Counter()
    assert np.asarray(model(batch)).tolist() == [6, 3]
    assert model.predict(batch, verbose=0).tolist() == [6, 3]


def test_text_alone_needs_no_tensorflow(stories260k):
    code = f"""
import sys
from tfmodels.tokenization import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(stories260k)!r})
tokenizer(["Once"], return_tensors="np")
sys.exit(" ".join(name for name in ("tensorflow", "keras", "torch", "transformers") if name in sys.modules) or 0)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr.strip()) == (0, "")
