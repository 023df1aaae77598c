"""Cross-encoders: scores of pairs, whatever their lengths, and the files of sentence-transformers."""

import json

import numpy as np
import pytest
import small_models

from tfmodels import BertTokenizer, CrossEncoder, TFBertForSequenceClassification

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>", *(f"w{n}" for n in range(40))]
PAIRS = [
    ("w1 w2", "w3"),
    ("w4", " ".join(f"w{n}" for n in range(30))),
    ("", "w5"),
    ("w6 w7 w8", "w9 w10 w11"),
    ("w1 w2", "w12"),
]


def make(num_labels=1, **options):
    config = small_models.config_of("bert", num_labels=num_labels, initializer_range=0.4)
    return CrossEncoder(TFBertForSequenceClassification(config), tokenizer=BertTokenizer(vocab=WORDS), **options)


@pytest.fixture(scope="module")
def one():
    return make()


@pytest.fixture(scope="module")
def three():
    return make(3)


def logits_of(encoder, pair):
    inputs = encoder.tokenizer(*pair, truncation=True, max_length=32, return_tensors="tf")
    return np.asarray(encoder.model(**inputs).logits)[0]


class TestScores:
    def test_pairs_keep_their_order(self, one):
        want = [1 / (1 + np.exp(-logits_of(one, pair)[0])) for pair in PAIRS]
        for batch_size in (1, 2, 32):
            np.testing.assert_allclose(one.predict(PAIRS, batch_size=batch_size), want, atol=1e-5)
        np.testing.assert_allclose(one.predict(sentences=PAIRS, jit_compile=True), want, atol=1e-5)
        assert np.ptp(want) > 0.01 and one.predict(PAIRS).dtype == np.float32

    def test_one_pair_and_none(self, one, three):
        assert one.predict(PAIRS[0]).shape == () and three.predict(list(PAIRS[0])).shape == (3,)
        np.testing.assert_allclose(one.predict(PAIRS[0]), one.predict(PAIRS)[0], atol=1e-5)
        assert one.predict([]).shape == (0,) and one.rank("w1", []) == []

    def test_several_labels_are_logits_unless_asked_otherwise(self, three):
        want = np.stack([logits_of(three, pair) for pair in PAIRS])
        np.testing.assert_allclose(three.predict(PAIRS), want, atol=1e-5)
        np.testing.assert_allclose(three.predict(PAIRS, activation_fn="sigmoid"), 1 / (1 + np.exp(-want)), atol=1e-5)
        np.testing.assert_allclose(three.predict(PAIRS, activation_fn=lambda x: 2 * x), 2 * want, atol=1e-5)
        shares = np.exp(want) / np.exp(want).sum(-1, keepdims=True)
        np.testing.assert_allclose(three.predict(PAIRS, apply_softmax=True), shares, atol=1e-5)

    def test_tensors(self, one):
        tensors = one.predict(PAIRS, convert_to_numpy=False)
        assert isinstance(tensors, list) and tensors[0].shape == ()
        np.testing.assert_array_equal(one.predict(PAIRS, convert_to_tensor=True), np.stack(tensors))

    def test_prompts_go_before_the_first_text(self, one):
        prompted = make(prompts={"q": "w20 "}, default_prompt_name="q")
        prompted.model.set_weights(one.model.get_weights())
        want = one.predict([("w20 w1", "w2")])
        np.testing.assert_allclose(prompted.predict([("w1", "w2")]), want, atol=1e-6)
        np.testing.assert_allclose(one.predict([("w1", "w2")], prompt="w20 "), want, atol=1e-6)
        with pytest.raises(ValueError, match="prompt_name='x' is unknown; there are q"):
            prompted.predict(PAIRS, prompt_name="x")

    def test_long_pairs_are_cut(self, one):
        cut = make(max_length=8)
        cut.model.set_weights(one.model.get_weights())
        inputs = one.tokenizer(*PAIRS[1], truncation=True, max_length=8, return_tensors="tf")
        logit = float(one.model(**inputs).logits[0, 0])
        np.testing.assert_allclose(cut.predict(PAIRS[1]), 1 / (1 + np.exp(-logit)), atol=1e-5)


class TestRanking:
    def test_best_first(self, one):
        documents = [second for _, second in PAIRS]
        scores = one.predict([("w1", document) for document in documents])
        ranked = one.rank("w1", documents, top_k=3, return_documents=True)
        assert [result["corpus_id"] for result in ranked] == list(np.argsort(-scores)[:3])
        assert all(result["text"] == documents[result["corpus_id"]] for result in ranked)
        assert "text" not in one.rank("w1", documents)[0] and len(one.rank("w1", documents)) == 5

    def test_several_labels_have_no_order(self, three):
        with pytest.raises(ValueError, match="num_labels=3: use predict"):
            three.rank("w1", ["w2"])


class TestFiles:
    @pytest.mark.parametrize("activation, name", [(None, "sigmoid"), ("linear", "linear"), ("tanh", "tanh")])
    def test_come_back(self, one, activation, name, tmp_path):
        saved = CrossEncoder(one.model, tokenizer=one.tokenizer, activation_fn=activation, max_length=9)
        saved.save_pretrained(tmp_path)
        again = CrossEncoder.from_pretrained(tmp_path)
        assert (again.activation_fn, again.max_seq_length) == (name, 9)
        np.testing.assert_allclose(again.predict(PAIRS), saved.predict(PAIRS), atol=1e-6)

    def test_names_of_activations(self, one, tmp_path):
        one.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        del config["sentence_transformers"]
        for stored, want in (
            ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "linear"),
            ({"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid", "version": "4.0.1"}}, "sigmoid"),
            ({}, "sigmoid"),
        ):
            (tmp_path / "config.json").write_text(json.dumps(config | stored))
            assert CrossEncoder(tmp_path).activation_fn == want
        stored = {"sentence_transformers": {"activation_fn": "my.package.Function"}}
        (tmp_path / "config.json").write_text(json.dumps(config | stored))
        with pytest.raises(ValueError, match=r"activation_fn='my.package.Function'; .*sigmoid.* or a function"):
            CrossEncoder(tmp_path)
        assert CrossEncoder(tmp_path, activation_fn="linear").activation_fn == "linear"

    def test_other_modules_are_refused(self, one, tmp_path):
        one.save_pretrained(tmp_path)
        modules = [
            {"idx": n, "name": "", "path": "", "type": f"x.{kind}"}
            for n, kind in enumerate(["Transformer", "LogitScore"])
        ]
        (tmp_path / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ValueError, match="lists Transformer, LogitScore; of a cross-encoder one Transformer"):
            CrossEncoder(tmp_path)
        (tmp_path / "modules.json").write_text(json.dumps(modules[:1]))
        CrossEncoder(tmp_path)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ("w1", "inputs='w1'; pairs of texts"),
        ([("w1",)], r"inputs\[0\]=\('w1',\); a pair of texts"),
        ([("w1", "w2"), ("w1", 3)], r"inputs\[1\]"),
    ],
)
def test_what_is_no_pair_is_refused(one, inputs, message):
    with pytest.raises(TypeError, match=message):
        one.predict(inputs)
    with pytest.raises(ValueError, match="batch_size=0"):
        one.predict(PAIRS, batch_size=0)


def test_what_cannot_be_a_cross_encoder(one):
    with pytest.raises(TypeError, match="TFBertModel scores no texts"):
        CrossEncoder(small_models.make("bert", "Model"))
    with pytest.raises(TypeError, match="unknown argument 'divice'"):
        CrossEncoder(one.model, divice="cpu")
    with pytest.raises(TypeError, match="takes num_labels for a folder or hub id"):
        CrossEncoder(one.model, num_labels=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "modernbert"])
@pytest.mark.parametrize("num_labels", [1, 3])
def test_scores_are_those_of_sentence_transformers(name, num_labels, tmp_path):
    reference = pytest.importorskip("sentence_transformers")
    config = small_models.config_of(name, num_labels=num_labels, initializer_range=0.4)
    model = small_models.class_of(name, "ForSequenceClassification")(config)
    pad = WORDS[config.pad_token_id]
    tokenizer = BertTokenizer(vocab=WORDS, pad_token=pad, model_max_length=30)
    CrossEncoder(model, tokenizer=tokenizer).save_pretrained(tmp_path)
    if name != "bert":
        file = tmp_path / "tokenizer_config.json"
        names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
        file.write_text(json.dumps(json.loads(file.read_text()) | names))
    theirs = reference.CrossEncoder(str(tmp_path), device="cpu")
    ours = CrossEncoder(tmp_path)
    np.testing.assert_allclose(ours.predict(PAIRS), theirs.predict(PAIRS), atol=1e-5)
    if num_labels == 1:
        documents = [second for _, second in PAIRS]
        got, want = (encoder.rank("w1 w2", documents, return_documents=True) for encoder in (ours, theirs))
        assert [(one["corpus_id"], one["text"]) for one in got] == [(one["corpus_id"], one["text"]) for one in want]
    again = tmp_path / "again"
    theirs.save_pretrained(str(again))
    np.testing.assert_allclose(CrossEncoder(again).predict(PAIRS), ours.predict(PAIRS), atol=1e-6)
