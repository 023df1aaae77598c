"""MPNet beyond the reference: padding, batches, compilers, precision, files of all kinds, training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tfmodels import (
    MPNetConfig,
    TFAutoModel,
    TFAutoModelForMaskedLM,
    TFAutoModelForMultipleChoice,
    TFMPNetForMaskedLM,
    TFMPNetForMultipleChoice,
    TFMPNetForQuestionAnswering,
    TFMPNetForSequenceClassification,
    TFMPNetForTokenClassification,
    TFMPNetModel,
)
from tfmodels.checkpoints import CheckpointError

CONFIG = MPNetConfig(
    vocab_size=53,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=34,
    num_labels=3,
)
IDS = np.random.default_rng(0).integers(3, 53, (3, 9))
LENGTHS = (9, 5, 1)
MASK = np.array([[1] * length + [0] * (9 - length) for length in LENGTHS])
PADDED = np.where(MASK == 1, IDS, 1)
LABELS = {
    TFMPNetForMaskedLM: {"labels": np.where(IDS % 3 == 0, IDS, -100)},
    TFMPNetForSequenceClassification: {"labels": np.array([0, 2, 1])},
    TFMPNetForTokenClassification: {"labels": IDS % 3},
    TFMPNetForQuestionAnswering: {"start_positions": np.array([1, 2, 0]), "end_positions": np.array([4, 2, 5])},
    TFMPNetForMultipleChoice: {"labels": np.array([1, 0])},
}
CLASSES = (TFMPNetModel, *LABELS)


def make(model_class, config=CONFIG, **options):
    keras.utils.set_random_seed(0)
    model = model_class(config, **options)
    rng = np.random.default_rng(1)
    for weight in model.weights:  # at the usual initial values hardly anything matters
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight + rng.normal(0, 0.3, weight.shape))
    return model


def inputs_of(model_class):
    if model_class is TFMPNetForMultipleChoice:
        return {
            "input_ids": np.stack([PADDED[:2], PADDED[1:]], 1),
            "attention_mask": np.stack([MASK[:2], MASK[1:]], 1),
        }
    return {"input_ids": PADDED, "attention_mask": MASK}


def outputs(model, **inputs):
    inputs = inputs or inputs_of(type(model))
    return [np.asarray(value, "float32") for value in keras.tree.flatten(model(**inputs))]


@pytest.fixture(scope="module", params=CLASSES, ids=lambda c: c.__name__)
def model(request):
    return make(request.param)


class TestPadding:
    @pytest.fixture(scope="class")
    def base(self):
        return make(TFMPNetModel)

    @pytest.mark.parametrize("row", range(3))
    @pytest.mark.parametrize("side", ["right", "left"])
    def test_padded_and_batched_as_alone(self, base, row, side):
        alone = base(IDS[row : row + 1, : LENGTHS[row]])
        ids, mask, place = PADDED, MASK, slice(0, LENGTHS[row])
        if side == "left":
            ids, mask = (
                np.stack([np.roll(one, 9 - n) for one, n in zip(x, LENGTHS, strict=True)]) for x in (PADDED, MASK)
            )
            place = slice(9 - LENGTHS[row], 9)
        output = base(ids, mask)
        np.testing.assert_allclose(output.last_hidden_state[row, place], alone.last_hidden_state[0], atol=2e-5)
        if side == "right":  # the pooler reads the first column
            np.testing.assert_allclose(output.pooler_output[row], alone.pooler_output[0], atol=2e-5)

    def test_padding_has_its_own_position(self, base):
        given = np.array([[2, 3, 4, 5, 6, 1, 1, 1, 1]])
        want = base(PADDED[1:2], position_ids=given).last_hidden_state
        np.testing.assert_array_equal(base(PADDED[1:2]).last_hidden_state, want)
        np.testing.assert_array_equal(base(PADDED[1:2], position_ids=given[0]).last_hidden_state, want)
        assert not np.allclose(base(PADDED[1:2], position_ids=np.arange(2, 11)).last_hidden_state, want, atol=1e-2)

    def test_embeddings_count_from_two(self, base):
        embeds = base.get_input_embeddings()(PADDED)
        want = base(PADDED, MASK, position_ids=np.arange(2, 11)[None]).last_hidden_state
        np.testing.assert_array_equal(base(inputs_embeds=embeds, attention_mask=MASK).last_hidden_state, want)

    def test_longest_input(self, base):
        assert base(np.full((1, 32), 5)).last_hidden_state.shape == (1, 32, 16)
        for inputs in ({"input_ids": np.full((1, 33), 5)}, {"inputs_embeds": np.zeros((1, 33, 16), "float32")}):
            for call in (base, tf.function(lambda **inputs: base(**inputs))):
                with pytest.raises(ValueError, match=r"positions run from \d to 34.*0 to 33"):
                    call(**inputs)
        with pytest.raises(ValueError, match="positions run from 2 to 40"):
            base(IDS[:1, :2], position_ids=np.array([[2, 40]]))


@pytest.mark.quick(4)
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_compiled_as_eager(model, jit_compile):
    options = {"output_attentions": True, "output_hidden_states": True}
    inputs = inputs_of(type(model)) | LABELS.get(type(model), {})
    compiled = tf.function(lambda **inputs: model(**inputs, **options), jit_compile=jit_compile)
    got, want = compiled(**inputs), model(**inputs, **options)
    assert list(got) == list(want)
    for one, other in zip(keras.tree.flatten(got), keras.tree.flatten(want), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5, rtol=1e-4)


@pytest.mark.quick(3)
def test_symbolic_call_as_eager(model):
    inputs = inputs_of(type(model))
    symbols = {n: keras.Input((None,) * (value.ndim - 1), dtype="int32", name=n) for n, value in inputs.items()}
    symbolic = keras.Model(symbols, model(**symbols)[0])
    np.testing.assert_allclose(symbolic(inputs), model(**inputs)[0], atol=2e-5)


@pytest.mark.quick(8)
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_lower_precision(model, dtype):
    lower = type(model)(model.config, dtype=dtype)
    lower.set_weights(model.get_weights())
    inputs = inputs_of(type(model))
    got, want = lower(**inputs)[0], np.asarray(model(**inputs)[0])
    assert got.dtype == lower.compute_dtype
    error = np.linalg.norm(np.asarray(got).astype("float32") - want)
    assert error < (0.02 if "float16" in dtype and "b" not in dtype else 0.1) * np.linalg.norm(want)


@pytest.mark.parametrize("attn_implementation", ["eager", "blockwise"])
@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
def test_scores_beyond_float16(dtype, attn_implementation):
    """|q.k| reaches 9e4; float16 ends at 65504."""
    plain = make(TFMPNetModel)
    first = plain.backbone.layers[0].self_attn
    hidden = plain(PADDED, MASK, output_hidden_states=True).hidden_states[0]

    def largest():
        query, key = (np.asarray(layer(hidden)).reshape(3, 9, 4, 4) for layer in (first.q, first.k))
        return np.abs(np.einsum("bqhd,bkhd->bhqk", query, key)).max()

    factor = (9e4 / largest()) ** 0.5
    for layer in (first.q, first.k):
        layer.kernel.assign(layer.kernel * factor)
        layer.bias.assign(layer.bias * factor)
    assert largest() == pytest.approx(9e4, rel=0.01)
    half = TFMPNetModel(CONFIG, dtype=dtype, attn_implementation=attn_implementation)
    half.set_weights(plain.get_weights())
    got, want = half(PADDED, MASK)[0], plain(PADDED, MASK)[0]
    off = np.abs(np.asarray(got, "float32") - want)[MASK == 1]
    # Scores of 9e4 have rounding errors of 40, so a query whose best keys are that close may choose the other.
    assert np.isfinite(got).all() and np.mean(off > 0.1) < 0.05


def test_files_keep_everything(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    again = type(model).from_pretrained(tmp_path)
    model.save(tmp_path / "model.keras")
    for other in (again, keras.models.load_model(tmp_path / "model.keras")):
        for got, want in zip(outputs(other), outputs(model), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.filterwarnings("ignore:.*did not come from the checkpoint")
def test_files_carry_the_backbone_to_every_head(model, tmp_path):
    model.save_pretrained(tmp_path)
    for other in CLASSES:
        again = other.from_pretrained(tmp_path, ignore_mismatched_sizes=True).backbone
        for name in ("embed_tokens", "layers", "relative_bias"):
            pairs = zip(*(keras.tree.flatten(getattr(b, name)) for b in (again, model.backbone)), strict=True)
            for got, want in ((a, b) for one, two in pairs for a, b in zip(one.weights, two.weights, strict=True)):
                np.testing.assert_array_equal(got, want)


def test_learns_with_every_weight(model):
    if type(model) is TFMPNetModel:
        pytest.skip("a bare model has no loss")
    with tf.GradientTape() as tape:
        loss = model(**inputs_of(type(model)), **LABELS[type(model)], training=True).loss
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        # A bias that all choices share changes no softmax over them: its gradient is 0 but for rounding.
        shared = type(model) is TFMPNetForMultipleChoice and weight is model.classifier.bias
        assert shared or np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


@pytest.mark.quick(2)
def test_fit(model):
    if type(model) is TFMPNetModel:
        pytest.skip("a bare model has no loss")
    learner = type(model).from_config(model.get_config())
    learner.compile(optimizer=keras.optimizers.Adam(0.01))
    data = tf.data.Dataset.from_tensors(inputs_of(type(model)) | LABELS[type(model)]).repeat(12)
    history = learner.fit(data, verbose=0, epochs=2).history["loss"]
    assert history[1] < history[0]


def test_arguments_in_the_order_of_the_former_models():
    model = make(TFMPNetModel)
    head_mask = np.array([[1, 0, 1, 1], [1, 1, 1, 0.5]], "float32")
    positions = np.arange(2, 11)[None]
    want = model(input_ids=IDS, attention_mask=MASK, position_ids=positions, head_mask=head_mask)
    got = model([IDS, MASK, positions, head_mask, None, True, True, False])
    assert [len(part) if isinstance(part, tuple) else part.shape for part in got] == [(3, 9, 16), (3, 16), 3, 2]
    np.testing.assert_array_equal(got[0], want.last_hidden_state)
    assert (np.asarray(got[3][0])[:, 1] == 0).all() and not np.allclose(want[0], model(IDS, MASK)[0], atol=1e-2)
    labels = LABELS[TFMPNetForTokenClassification]["labels"]
    classifier = make(TFMPNetForTokenClassification)
    got = classifier([IDS, MASK, None, None, None, None, None, None, labels])
    assert float(got.loss) == float(classifier(input_ids=IDS, attention_mask=MASK, labels=labels).loss)


def test_multiple_choice_scores_each_text_alone():
    model = make(TFMPNetForMultipleChoice)
    logits = np.asarray(model(**inputs_of(TFMPNetForMultipleChoice)).logits)
    for row, choice, text in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        ids = IDS[text, : LENGTHS[text]][None, None]
        np.testing.assert_allclose(logits[row, choice], np.asarray(model(ids).logits)[0, 0], atol=2e-5)
    with pytest.raises(ValueError, match=r"input_ids has shape \(3, 9\); 3 axes"):
        model(IDS)


class TestCheckpoints:
    def rewrite(self, folder, change):
        tensors = load_file(folder / "model.safetensors")
        save_file(change(tensors), folder / "model.safetensors")

    def test_old_names(self, tmp_path):
        """The base model without a prefix and with the buffer of positions, as sentence encoders have it."""
        model = make(TFMPNetModel)
        model.save_pretrained(tmp_path)
        assert "encoder.layer.1.attention.attn.q.weight" in load_file(tmp_path / "model.safetensors")
        self.rewrite(tmp_path, lambda tensors: {**tensors, "embeddings.position_ids": np.arange(34)[None]})
        for got, want in zip(outputs(TFAutoModel.from_pretrained(tmp_path)), outputs(model), strict=True):
            np.testing.assert_array_equal(got, want)

    def test_pooler_is_no_part_of_other_heads(self, tmp_path):
        make(TFMPNetModel).save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match=r"lm_head\.dense\.weight.* did not come"):
            masked = TFAutoModelForMaskedLM.from_pretrained(tmp_path)
        masked.save_pretrained(tmp_path)
        with pytest.warns(UserWarning, match=r"TFMPNetModel: .*mpnet\.pooler.* did not come"):
            TFMPNetModel.from_pretrained(tmp_path)
        with pytest.warns(UserWarning, match=r"mpnet\.pooler.* did not come"):
            TFAutoModelForMultipleChoice.from_pretrained(tmp_path)

    @pytest.mark.parametrize("tied", [True, False])
    def test_one_output_bias_under_two_names(self, tied, tmp_path):
        """transformers 4 keeps `lm_head.bias` alone; with untied embeddings 5 uses `lm_head.decoder.bias`."""
        config = CONFIG.replace(tie_word_embeddings=tied)
        model = make(TFMPNetForMaskedLM, config)
        names = ["lm_head.decoder.bias", "lm_head.bias"]
        if tied:
            names.reverse()
        model.save_pretrained(tmp_path)
        used, other = names
        tensors = load_file(tmp_path / "model.safetensors")
        assert used in tensors and other not in tensors
        self.rewrite(tmp_path, lambda tensors: {other if name == used else name: tensors[name] for name in tensors})
        again = TFMPNetForMaskedLM.from_pretrained(tmp_path)
        np.testing.assert_array_equal(outputs(again)[0], outputs(model)[0])
        # Where a file holds both, transformers takes `lm_head.decoder.bias`.
        self.rewrite(tmp_path, lambda _: {**tensors, other: tensors[used] + 1})
        with pytest.warns(UserWarning, match=r"lm_head\.bias differs from lm_head\.decoder\.bias"):
            again = TFMPNetForMaskedLM.from_pretrained(tmp_path)
        np.testing.assert_allclose(outputs(again)[0], outputs(model)[0] + tied, rtol=1e-5, atol=1e-5)

    def test_a_missing_weight_is_named_as_in_the_file(self, tmp_path):
        make(TFMPNetModel).save_pretrained(tmp_path)
        lost = "encoder.layer.0.output.dense.bias"
        self.rewrite(tmp_path, lambda tensors: {name: tensors[name] for name in tensors if name != lost})
        with pytest.raises(CheckpointError, match=rf"missing from the file: mpnet\.{lost}"):
            TFMPNetModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("rows", [16, 32, 48])
def test_bias_table_of_any_size(rows):
    """32 rows are used at most; a smaller table is used whole."""
    model = make(TFMPNetModel, CONFIG.replace(relative_attention_num_buckets=rows))
    ids = np.random.default_rng(3).integers(3, 53, (1, 32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(ids).last_hidden_state ** 2 * np.arange(16))
    gradient = np.asarray(
        tf.convert_to_tensor(tape.gradient(loss, model.backbone.relative_bias.table.embeddings.value))
    )
    used = np.flatnonzero(np.abs(gradient).sum(1))
    assert used.max() == {16: 14, 32: 27, 48: 27}[rows]


def test_bad_configurations():
    with pytest.raises(ValueError, match="relative_attention_num_buckets=2"):
        CONFIG.replace(relative_attention_num_buckets=2)
    with pytest.raises(ValueError, match="hidden_size=16 is not divisible by num_attention_heads=3"):
        CONFIG.replace(num_attention_heads=3)
