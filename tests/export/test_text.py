"""Tokenizers in a graph: ids equal the tokenizer's, strings in and text out."""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models
import tensorflow as tf
from tokenizers import Tokenizer, models

from tfmodels import (
    AutoTokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    SentenceEncoder,
    TFLlamaForCausalLM,
)
from tfmodels.export import saved_model

pytest.importorskip("tensorflow_text")
from tfmodels.export.saved_model import text

TEXTS = [
    "Once upon a time",
    "  two  spaces ",
    "",
    "Café NAÏVE e\u0301 ÅNGSTRÖM",
    "don't stop, y'all!",
    "3.14 + 2 = 5 ½ ß ﬁ",
    "\uff46\uff55\uff4c\uff4c İstanbul \u0391\u03a3 \u03c2",
    "中文字 and more",
    "a\u200bb soft\u00adhyphen\x0bx\ttab\nline \u3000wide",
    "😀 smile",
    "x" * 100 + " " + "y" * 101,
]
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "once", "upon", "a", "time", "two", "spaces", "cafe", "naive", "e"]
WORDS += [
    "angstrom",
    "don",
    "t",
    "stop",
    "y",
    "all",
    "'",
    ",",
    "!",
    "3",
    "14",
    ".",
    "+",
    "=",
    "5",
    "½",
    "ß",
    "ﬁ",
    "full",
]
WORDS += [
    "istanbul",
    "\u03b1",
    "##\u03c3",
    "##\u03c2",
    "\u03c2",
    "中",
    "字",
    "and",
    "more",
    "ab",
    "softhyphenx",
    "tab",
    "line",
    "wide",
    "##y",
]
WORDS += ["smile", "x", "##x", "<mask>"]


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mpnet")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    return MPNetTokenizer(folder / "vocab.txt")


@pytest.mark.parametrize("sample", TEXTS)
def test_word_piece_ids(word_piece, sample):
    graph = text.tokenizer_in_graph(word_piece)
    for longest in (5, 200):
        expected = word_piece(sample, truncation=True, max_length=longest)["input_ids"]
        assert graph.encode(tf.constant([sample]), longest).to_list() == [expected]


def test_sentence_piece_ids():
    tokenizer = AutoTokenizer.from_pretrained("stories260K")
    graph = text.tokenizer_in_graph(tokenizer)
    assert graph.encode(tf.constant(TEXTS), 10**6).to_list() == tokenizer(TEXTS)["input_ids"]


@pytest.mark.parametrize("legacy", [True, False])
def test_sentence_piece_ids_of_texts_that_begin_with_a_space(legacy, tmp_path):
    packed = Path(__file__).parents[1] / "data" / "tokenizers" / "llama" / "tokenizer.model.xz"
    (tmp_path / "tokenizer.model").write_bytes(lzma.decompress(packed.read_bytes()))
    tokenizer = LlamaTokenizer.from_pretrained(tmp_path, legacy=legacy)
    texts = ["  Hello", " a", "   ", "▁▁a", "\n a", "a  b", " ", "▁", "", "▁ ", "Hello"]
    expected = tokenizer(texts)["input_ids"]
    assert expected[0] == ([1, 259, 15043] if legacy else [1, 29871, 15043])
    graph = text.tokenizer_in_graph(tokenizer)
    assert graph.encode(tf.constant(texts), 10**6).to_list() == expected
    assert graph.encode(tf.constant(texts), 2).to_list() == [ids[:2] for ids in expected]
    with pytest.raises(ValueError, match=r"does not cut 'Once Upon' as this tokenizer does.*such as add_prefix_space"):
        text.tokenizer_in_graph(LlamaTokenizer.from_pretrained(tmp_path, legacy=legacy, add_prefix_space=False))


@pytest.fixture(scope="module")
def encoder(word_piece):
    model = small_models.make("mpnet", "Model")
    return SentenceEncoder(model, word_piece, prompts={"query": "two "}, default_prompt_name="query")


@pytest.fixture(scope="module")
def encoder_report(encoder, tmp_path_factory):
    return encoder.export(tmp_path_factory.mktemp("models") / "encoder", signatures="text")


def test_vectors_of_texts(encoder, encoder_report):
    texts = ["Once upon a time", "don't stop", " all spaces, all the time! " * 20]
    output = saved_model.open(encoder_report.path).run({"text": np.array(texts)}, "serving_text")
    np.testing.assert_allclose(output["sentence_embedding"], encoder.encode(texts), atol=1e-5)


def test_opening_names_the_package_that_is_missing(encoder_report, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(ImportError, match=r"its text signatures\) needs tensorflow_text, .*'tfmodels\[text\]'"):
        saved_model.open(encoder_report.path)


def test_readme_and_tokenizer_of_text_signatures(encoder_report, word_piece):
    readme = (encoder_report.path / "README.md").read_text()
    assert "`serving_text` take strings" in readme and "import tensorflow as tf, tensorflow_text" in readme
    tokenizer = Tokenizer.from_file(str(encoder_report.path / "assets.extra" / "tokenizer" / "tokenizer.json"))
    assert tokenizer.encode("Once upon a time").ids == word_piece("Once upon a time")["input_ids"]


@pytest.mark.slow
def test_opened_in_another_process(encoder_report):
    """`saved_model.open` brings the operators of the tokenizer, so that no other import is needed."""
    code = (
        "import sys, numpy as np\nfrom tfmodels.export import saved_model\n"
        "found = saved_model.open(sys.argv[1]).run({'text': np.array(['a time'])}, 'serving_text')\n"
        "print(found['sentence_embedding'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(encoder_report.path)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["(1, 16)"], done.stderr


def test_labels_of_texts(tmp_path, word_piece):
    model = small_models.make("mpnet", "ForSequenceClassification")
    model.config.id2label = {0: "ham", 1: "spam", 2: "other"}
    report = model.export(tmp_path / "classifier", signatures="text", tokenizer=word_piece, max_length=16)
    texts = ["Once upon a time", "don't stop", "naïve café " * 30]
    output = saved_model.open(report.path).run({"text": np.array(texts)}, "serving_text")
    inputs = word_piece(texts, padding=True, truncation=True, max_length=16, return_tensors="np")
    logits = model(**inputs).logits.numpy()
    np.testing.assert_allclose(output["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(output["scores"], tf.nn.softmax(logits), atol=1e-5)
    assert output["label"].tolist() == [model.config.id2label[i].encode() for i in logits.argmax(axis=-1)]


@pytest.mark.slow
def test_text_to_text(tmp_path):
    model = TFLlamaForCausalLM.from_pretrained("stories260K")
    tokenizer = AutoTokenizer.from_pretrained("stories260K")
    report = model.export(
        tmp_path / "stories",
        signatures="text",
        tokenizer=tokenizer,
        batch_sizes=(2,),
        jit_compile=False,
        max_length=64,
    )
    texts = ["Once upon a time", "Lily and her dog went"]
    output = saved_model.open(report.path).run({"text": np.array(texts), "max_new_tokens": 10}, "generate_text")
    for row, prompt in enumerate(texts):
        ids = tokenizer([prompt], return_tensors="np")
        expected = model.generate(**ids, max_new_tokens=10, do_sample=False, jit_compile=False)
        assert output["text"][row].decode() == tokenizer.decode(expected[0], skip_special_tokens=True)


def test_refused(tmp_path, word_piece):
    model = small_models.make("mpnet", "ForQuestionAnswering")
    with pytest.raises(ValueError, match="takes several texts at once"):
        model.export(tmp_path / "x", signatures="text", tokenizer=word_piece)
    model = small_models.make("gpt_neox", "ForTokenClassification")
    with pytest.raises(ValueError, match="needs the model's tokenizer"):
        model.export(tmp_path / "x", signatures="text")
    bytes_only = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(ValueError, match="byte-level BPE or of another kind"):
        model.export(tmp_path / "x", signatures="text", tokenizer=bytes_only)
    assert not (tmp_path / "x").exists()
