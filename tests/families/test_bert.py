"""BERT: what the reference cases do not reach."""

import h5py
import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tfmodels import (
    BertConfig,
    BertTokenizer,
    SentenceEncoder,
    TFAutoModel,
    TFBertForMaskedLM,
    TFBertForNextSentencePrediction,
    TFBertForPreTraining,
    TFBertForQuestionAnswering,
    TFBertForSequenceClassification,
    TFBertForTokenClassification,
    TFBertModel,
)
from tfmodels.auto import BERT_HEADS
from tfmodels.checkpoints.weight_map import slots_of

IDS = np.array([[2, 9, 2, 44, 17], [7, 3, 58, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TYPES = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def pretraining():
    return small_models.make("bert", "ForPreTraining", initializer_range=0.3)


class TestConfig:
    def test_defaults_are_those_of_the_base_model(self):
        config = BertConfig()
        assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (30522, 768, 12)
        assert (config.type_vocab_size, config.layer_norm_eps, config.pad_token_id) == (2, 1e-12, 0)
        assert (config.classifier_dropout, config.hidden_act, config.tie_word_embeddings) == (None, "gelu", True)

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"is_decoder": True}, "is_decoder=True in BertConfig is not supported"),
            ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
            ({"hidden_size": 15, "num_attention_heads": 4}, "hidden_size=15 is not divisible"),
            ({"type_vocab_size": 0}, "type_vocab_size=0"),
        ],
    )
    def test_contradictions_say_what_is_wrong(self, changes, message):
        with pytest.raises(ValueError, match=message):
            BertConfig(**changes)


class TestInputs:
    def test_order_of_a_list(self, pretraining):
        assert pretraining.input_names[:4] == ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        want = pretraining(IDS, attention_mask=MASK, token_type_ids=TYPES).prediction_logits
        np.testing.assert_array_equal(pretraining([IDS, MASK, TYPES]).prediction_logits, want)
        other = pretraining({"input_ids": IDS, "attention_mask": MASK}).prediction_logits
        assert np.abs(other - want).max() > 0.01

    def test_what_is_out_of_range_is_refused(self, pretraining):
        with pytest.raises(ValueError, match=r"token_type_ids run from 0 to 5; this model has types 0 to 1"):
            pretraining(IDS, token_type_ids=TYPES * 5)
        with pytest.raises(ValueError, match="positions 0 to 31"):
            pretraining(np.ones((1, 33), "int32"))

    def test_labels_of_the_next_sentence_by_either_name(self):
        model = small_models.make("bert", "ForNextSentencePrediction")
        label = np.array([1, 0])
        assert float(model(IDS, labels=label).loss) == float(model(IDS, next_sentence_label=label).loss)
        with pytest.raises(ValueError, match="two names of the same labels"):
            model(IDS, labels=label, next_sentence_label=label)


def old_name(name):
    """The name in `tf_model.h5` of a weight that PyTorch files call `name`."""
    name = name.replace("encoder.layer.", "encoder.layer_._").replace(".weight", ".kernel")
    name = name.replace("cls.predictions", "mlm___cls.predictions").replace("cls.seq", "nsp___cls.seq")
    for table, parameter in (("word", "weight"), ("position", "embeddings"), ("token_type", "embeddings")):
        name = name.replace(f"{table}_embeddings.kernel", f"{table}_embeddings.{parameter}")
    if "LayerNorm" in name:
        name = name.replace(".kernel", ".gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return name.replace(".", "/").replace("layer_/_", "layer_._") + ":0"


class TestFiles:
    def test_of_the_former_tensorflow_class(self, pretraining, tmp_path):
        pretraining.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        with h5py.File(tmp_path / "tf_model.h5", "w") as file:
            for name, value in tensors.items():
                path = old_name(name)
                group = file.require_group(path.split("/")[0])
                group.attrs["weight_names"] = []
                group[f"tf_bert_for_pre_training/{path}"] = value.T if path.endswith("kernel:0") else value
        want = pretraining(IDS, MASK, TYPES)
        again = TFBertForPreTraining.from_pretrained(tmp_path)(IDS, MASK, TYPES)
        np.testing.assert_array_equal(again.prediction_logits, want.prediction_logits)
        np.testing.assert_array_equal(again.seq_relationship_logits, want.seq_relationship_logits)

    def test_old_names_of_norms_and_a_bias_of_its_own(self, pretraining, tmp_path):
        pretraining.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        assert {"cls.predictions.bias", "cls.seq_relationship.weight", "bert.pooler.dense.bias"} <= set(tensors)
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in tensors.items()
        }
        old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].copy()
        old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].copy()
        old["bert.embeddings.position_ids"] = np.arange(32)[None]
        save_file(old, tmp_path / "model.safetensors")
        again = TFBertForPreTraining.from_pretrained(tmp_path)
        np.testing.assert_array_equal(again(IDS).prediction_logits, pretraining(IDS).prediction_logits)

    @pytest.mark.filterwarnings("ignore:.*did not come from the checkpoint")
    def test_pretrained_weights_reach_every_head(self, pretraining, tmp_path):
        pretraining.save_pretrained(tmp_path)
        for head in BERT_HEADS:
            model = small_models.class_of("bert", head).from_pretrained(tmp_path)
            table = model.backbone.embed_tokens.embeddings
            np.testing.assert_array_equal(table, pretraining.backbone.embed_tokens.embeddings)
        masked, info = TFBertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        np.testing.assert_array_equal(masked(IDS).logits, pretraining(IDS).prediction_logits)
        pairs = TFBertForNextSentencePrediction.from_pretrained(tmp_path)
        np.testing.assert_array_equal(pairs(IDS).logits, pretraining(IDS).seq_relationship_logits)

    @pytest.mark.parametrize("head", BERT_HEADS)
    def test_files_keep_everything(self, head, tmp_path):
        model = small_models.make("bert", head)
        inputs = small_models.inputs_of("bert", head)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        for got, want in zip(again(**inputs).values(), model(**inputs).values(), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("head", [head for head in BERT_HEADS if head != "Model"])
def test_learns_with_every_weight(head):
    model = small_models.make("bert", head, initializer_range=0.3)
    inputs = {**small_models.inputs_of("bert", head), **small_models.labels_of("bert", head)}
    with tf.GradientTape() as tape:
        loss = model(**inputs, training=True).loss
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        if head == "ForMultipleChoice" and weight.path.endswith("classifier/bias"):
            continue  # moves the scores of all choices alike
        assert gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


def test_sum_of_both_losses(pretraining):
    labels, pairs = np.where(MASK == 1, IDS, -100), np.array([1, 0])
    both = pretraining(IDS, MASK, TYPES, labels=labels, next_sentence_label=pairs)
    tokens = keras.ops.sparse_categorical_crossentropy(labels[MASK == 1], both.prediction_logits[MASK == 1], True)
    second = keras.ops.sparse_categorical_crossentropy(pairs, both.seq_relationship_logits, True)
    np.testing.assert_allclose(both.loss, np.mean(tokens) + np.mean(second), rtol=1e-6)
    assert "loss" not in pretraining(IDS, labels=labels)


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", ".", "dog"]


@pytest.fixture
def tokenizer():
    return BertTokenizer(vocab=VOCABULARY)


def test_tokenizer(tokenizer, tmp_path):
    encoded = tokenizer("The cats sat.", "the dog", padding="max_length", max_length=12)
    assert encoded["input_ids"] == [2, 5, 6, 7, 8, 9, 3, 5, 10, 3, 0, 0]
    assert encoded["token_type_ids"] == [0] * 7 + [1] * 3 + [0] * 2
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == "the cats sat. the dog"
    tokenizer.save_pretrained(tmp_path)
    assert BertTokenizer.from_pretrained(tmp_path)("cats", "dog") == tokenizer("cats", "dog")


class TestOldScripts:
    """Fine-tuning as scripts for transformers 4 do it."""

    def test_sequences(self, tokenizer):
        model = small_models.make("bert", "ForSequenceClassification")
        data = dict(tokenizer(["the cat", "the dog sat"], padding=True, return_tensors="np"))
        model.compile(optimizer=keras.optimizers.Adam(3e-3), run_eagerly=True)
        history = model.fit(tf.data.Dataset.from_tensor_slices((data, np.array([0, 2]))).batch(2), epochs=3, verbose=0)
        assert history.history["loss"][-1] < history.history["loss"][0]

    def test_tokens_and_questions(self, tokenizer):
        inputs = tokenizer("the cat", "the cats sat.", return_tensors="tf")
        model = TFBertForTokenClassification(small_models.config_of("bert"))
        assert model(inputs).logits.shape == (1, 10, 2)
        model = TFBertForQuestionAnswering(small_models.config_of("bert"))
        outputs = model(**inputs, start_positions=tf.constant([4]), end_positions=tf.constant([6]))
        assert outputs.loss.shape == () and outputs.start_logits.shape == (1, 10)

    def test_pairs_are_scored_as_cross_encoders_do(self, tokenizer):
        model = TFBertForSequenceClassification(small_models.config_of("bert", num_labels=1))
        pairs = tokenizer(["the cat", "the cat"], ["cats sat.", "dog"], padding=True, return_tensors="tf")
        together = np.asarray(model(**pairs).logits)
        alone = model(**tokenizer("the cat", "dog", return_tensors="tf")).logits
        np.testing.assert_allclose(together[1], alone[0], atol=1e-6)


def test_sentence_encoder(tokenizer, tmp_path):
    model = TFBertModel(small_models.config_of("bert"))
    encoder = SentenceEncoder(model, tokenizer, tail=["normalize"])
    vectors = np.asarray(encoder.encode(["the cat", "the dog sat."]))
    hidden = np.asarray(model(**tokenizer("the cat", return_tensors="tf")).last_hidden_state)[0].mean(0)
    np.testing.assert_allclose(vectors[0], hidden / np.linalg.norm(hidden), atol=1e-5)
    assert type(TFAutoModel.from_config(model.config)) is TFBertModel and slots_of(model)["bert.pooler.bias"]


def test_roberta_without_a_padding_token_needs_positions():
    """As in 4.57, which fails without a reason where positions are not given."""
    whole, bare = (small_models.make("roberta", "Model", pad_token_id=pad) for pad in (1, None))
    bare.set_weights(whole.get_weights())
    ids = np.array([[3, 4, 5, 6]])
    positions = np.arange(2, 6)[None]
    np.testing.assert_array_equal(bare(ids, position_ids=positions)[0], whole(ids)[0])
    for inputs in ({"input_ids": ids}, {"inputs_embeds": np.zeros((1, 4, 16), "float32")}):
        with pytest.raises(ValueError, match="position_ids are missing.*pad_token_id"):
            bare(**inputs)
    with pytest.raises(ValueError, match="pad_token_id=-1 in RobertaConfig; positions are counted from it"):
        type(bare.config)(pad_token_id=-1)
