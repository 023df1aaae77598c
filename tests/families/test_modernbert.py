"""ModernBERT: what the reference cases do not reach."""

import json

import numpy as np
import pytest
import small_models
import tensorflow as tf

from tfmodels import (
    AutoTokenizer,
    BertTokenizer,
    ModernBertConfig,
    TFModernBertForMaskedLM,
    TFModernBertForMultipleChoice,
    TFModernBertForSequenceClassification,
    TFModernBertModel,
)
from tfmodels.auto import ENCODER_HEADS

FULL, SLIDING = "full_attention", "sliding_attention"
LONG = np.random.default_rng(0).integers(3, 61, (2, 40))
PADDED = np.array([[1] * 40, [0] * 6 + [1] * 20 + [0] * 14])


class TestConfig:
    def test_defaults_are_those_of_the_base_model(self):
        config = ModernBertConfig()
        assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (50368, 768, 22)
        assert config.windows[:4] == (None, 64, 64, None) and config.windows[21] is None
        assert config.rotary_parameters[FULL]["rope_theta"] == config.global_rope_theta == 160000.0
        assert config.rotary_parameters[SLIDING]["rope_theta"] == 10000.0

    def test_spellings_of_both_versions(self):
        old = {"global_rope_theta": 5e4, "local_rope_theta": 2e3, "global_attn_every_n_layers": 2}
        old = ModernBertConfig.from_dict({**old, "num_hidden_layers": 4})
        kinds = {
            FULL: {"rope_type": "default", "rope_theta": 5e4},
            SLIDING: {"rope_type": "default", "rope_theta": 2e3},
        }
        types = [FULL, SLIDING, FULL, SLIDING]
        new = ModernBertConfig.from_dict({"num_hidden_layers": 4, "rope_parameters": kinds, "layer_types": types})
        assert (old.windows, old.rotary_parameters) == (new.windows, new.rotary_parameters)
        written = json.loads(old.to_json_string(use_diff=False))
        assert written["rope_parameters"] == kinds and written["layer_types"] == types
        assert (written["global_rope_theta"], written["local_rope_theta"]) == (5e4, 2e3)
        assert ModernBertConfig.from_dict(written).to_dict() == old.to_dict()

    def test_no_base_of_windowed_layers_means_that_of_the_others(self):
        stored = ModernBertConfig(global_rope_theta=500.0).to_dict()
        for config in (
            ModernBertConfig(global_rope_theta=500.0, local_rope_theta=None),
            ModernBertConfig.from_dict({"global_rope_theta": 500.0, "local_rope_theta": None}),
            ModernBertConfig.from_dict(stored, local_rope_theta=None),
        ):
            assert config.rotary_parameters[SLIDING]["rope_theta"] == 500.0

    def test_what_replaces_the_number_of_layers_replaces_their_kinds(self):
        stored = ModernBertConfig(num_hidden_layers=4).to_dict()
        assert ModernBertConfig.from_dict(stored, num_hidden_layers=2).layer_types == [FULL, SLIDING]
        changed = ModernBertConfig.from_dict(stored, global_attn_every_n_layers=1, global_rope_theta=7.0)
        assert changed.layer_types == [FULL] * 4 and changed.rope_theta == 7.0

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"sparse_prediction": True}, "sparse_prediction=True in ModernBertConfig is not supported"),
            ({"classifier_pooling": "max"}, "classifier_pooling='max'"),
            ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "does not say which layers it scales"),
            ({"rope_parameters": {SLIDING: {"rope_type": "linear", "factor": 2.0}}}, "only rope_theta of type"),
            ({"layer_types": [FULL]}, "describes 1 layers; num_hidden_layers=22"),
            ({"local_attention": 0}, "local_attention=0"),
            ({"local_rope_theta": -1.0}, "local_rope_theta=-1.0"),
            ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size=30 is not divisible"),
        ],
    )
    def test_contradictions_say_what_is_wrong(self, changes, message):
        with pytest.raises(ValueError, match=message):
            ModernBertConfig(**changes)


@pytest.fixture(scope="module")
def masked():
    return small_models.make("modernbert", "ForMaskedLM", initializer_range=0.3, num_hidden_layers=3)


class TestAttention:
    def test_blocks_give_what_plain_products_give(self, masked, tmp_path):
        masked.save_pretrained(tmp_path)
        blocks = TFModernBertForMaskedLM.from_pretrained(tmp_path, attn_implementation="blockwise")
        got, want = (np.asarray(model(LONG, PADDED).logits) for model in (blocks, masked))
        np.testing.assert_allclose(got[PADDED == 1], want[PADDED == 1], atol=2e-5)
        assert {path.name for path in blocks.backbone.attention_log.paths} == {"blockwise"}

    def test_one_windowed_layer_sees_two_tokens_to_either_side(self):
        model = small_models.make("modernbert", "Model", layer_types=[SLIDING], num_hidden_layers=1)
        weights = np.asarray(model(LONG, output_attentions=True).attentions[0])
        distance = np.abs(np.arange(40)[None] - np.arange(40)[:, None])
        assert (weights[..., distance > 2] == 0).all() and (weights[..., distance <= 2] > 0).all()

    def test_texts_shorter_than_the_window_see_all(self, masked):
        short = LONG[:, :3]
        want = masked(short, output_attentions=True).attentions
        assert all((np.asarray(one) > 0).all() for one in want)


class TestPooling:
    def test_choices_with_padding_on_the_left_read_the_first_token(self):
        model = small_models.make("modernbert", "ForMultipleChoice", initializer_range=0.3)
        ids = LONG[None, :, :5]
        padded = np.concatenate([np.zeros_like(ids[..., :2]), ids], -1)
        mask = (padded > 0).astype("int32")
        places = np.maximum(np.cumsum(mask, -1) - 1, 0)
        got = model(padded, attention_mask=mask, position_ids=places).logits
        np.testing.assert_allclose(got, model(ids).logits, atol=1e-5)

    def test_means_count_tokens_alone(self):
        model = small_models.make("modernbert", "ForMultipleChoice", initializer_range=0.3, classifier_pooling="mean")
        ids = LONG[None, :, :5]
        padded, mask = np.pad(ids, ((0, 0), (0, 0), (0, 3))), np.pad(np.ones_like(ids), ((0, 0), (0, 0), (0, 3)))
        np.testing.assert_allclose(model(padded, attention_mask=mask).logits, model(ids).logits, atol=1e-5)
        assert isinstance(model, TFModernBertForMultipleChoice)

    def test_a_mask_of_pairs_does_not_say_what_the_tokens_are(self):
        model = small_models.make("modernbert", "ForSequenceClassification", classifier_pooling="mean")
        with pytest.raises(ValueError, match=r"\(batch, length\) was expected, to find the tokens"):
            model(LONG, attention_mask=np.ones((2, 1, 40, 40)))


class TestFiles:
    @pytest.mark.filterwarnings("ignore:.*did not come from the checkpoint")
    def test_pretrained_weights_reach_every_head(self, masked, tmp_path):
        masked.save_pretrained(tmp_path)
        for head in ENCODER_HEADS:
            model = small_models.class_of("modernbert", head).from_pretrained(tmp_path)
            np.testing.assert_array_equal(model.backbone(LONG)[0], masked.backbone(LONG)[0])
            if head != "Model":  # all heads share what lies before their last layer
                np.testing.assert_array_equal(model.head.dense.kernel, masked.head.dense.kernel)

    def test_a_larger_vocabulary(self, masked, tmp_path):
        masked.save_pretrained(tmp_path)
        model = TFModernBertForMaskedLM.from_pretrained(tmp_path)
        model.resize_token_embeddings(64)
        np.testing.assert_allclose(model(LONG).logits[..., :61], masked(LONG).logits, atol=1e-5)

    def test_tokenizer(self, tmp_path):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]
        BertTokenizer(vocab=words).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | names))
        ModernBertConfig().save_pretrained(tmp_path)
        encoded = AutoTokenizer.from_pretrained(tmp_path)("the cat", return_tensors="np")
        assert sorted(encoded) == ["attention_mask", "input_ids"]
        assert TFModernBertModel(small_models.config_of("modernbert"))(**encoded)[0].shape == (1, 4, 16)


@pytest.mark.slow
@pytest.mark.parametrize("head", [head for head in ENCODER_HEADS if head != "Model"])
def test_learns_with_every_weight(head):
    model = small_models.make("modernbert", head, initializer_range=0.3)
    inputs = {**small_models.inputs_of("modernbert", head), **small_models.labels_of("modernbert", head)}
    with tf.GradientTape() as tape:
        loss = model(**inputs, training=True).loss
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        if head == "ForMultipleChoice" and weight.path.endswith("classifier/bias"):
            continue  # moves the scores of all choices alike
        assert gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


def test_fits():
    model = TFModernBertForSequenceClassification(small_models.config_of("modernbert", num_labels=2))
    model.compile(optimizer="adam", run_eagerly=True)
    history = model.fit({"input_ids": LONG, "attention_mask": PADDED, "labels": np.array([0, 1])}, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
