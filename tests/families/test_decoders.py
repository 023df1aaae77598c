"""What holds for every decoder, whatever its architecture: caches, padding, batches, compilers, files, training."""

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf
from small_models import MORE

from tfmodels import AutoConfig, StaticCache, TFAutoModelForCausalLM
from tfmodels.auto import FAMILIES
from tfmodels.cache.kv import to_static
from tfmodels.kernels.masks import positions_from_mask

COMMON = {
    "vocab_size": 67,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "num_labels": 3,
}
# What makes a family's tiny model its own.
SPECIAL = {
    "llama": {"intermediate_size": 24, "num_key_value_heads": 2},
    "gpt_neox": {"intermediate_size": 24, "rotary_pct": 0.5},
    "gpt_neo": {"intermediate_size": 24, "attention_types": [[["global", "local"], 1]], "window_size": 3},
    "mpt": {"use_cache": True},
}
SPECIAL |= {name: {key: value for key, value in values.items() if key not in COMMON} for name, values in MORE.items()}
# Mistral's window and Gemma's norms, scales and two rotary bases stand for these; their reference cases show the rest.
COVERED = ("qwen2", "qwen3", "granite", "smollm3")
DECODERS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in MORE else [])
    for name, family in FAMILIES.items()
    if "ForCausalLM" in family.heads and name not in COVERED
]

IDS = np.random.default_rng(0).integers(2, 67, (3, 10))
MASK = np.array([[1] * 10, [0] * 4 + [1] * 6, [0] * 9 + [1]])
LABELS = {
    "ForCausalLM": {"labels": IDS},
    "ForSequenceClassification": {"labels": np.array([0, 2, 1])},
    "ForTokenClassification": {"labels": IDS % 3},
    "ForQuestionAnswering": {"start_positions": np.array([1, 2, 0]), "end_positions": np.array([4, 2, 5])},
}


def config_of(name, **changes):
    return AutoConfig.for_model(name, **COMMON, **SPECIAL.get(name, {}), **changes)


def stir(model):
    """Give weights values at which every one of them matters: the usual initial ones are nearly nothing."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight * 15 if len(weight.shape) == 2 else weight + rng.normal(0, 0.2, weight.shape))
    return model


@pytest.fixture(scope="module", params=DECODERS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    keras.utils.set_random_seed(0)
    return stir(TFAutoModelForCausalLM.from_config(config_of(name)))


def run(model, start, end, past=None, mask=MASK, capacity=None):
    """Logits and cache of columns [start, end) with what came before in the cache; positions as `generate` gives."""
    seen = mask[:, :end]
    if capacity is not None:  # a static cache's mask covers the columns that are yet to come
        seen = np.pad(mask, ((0, 0), (0, capacity - mask.shape[1])), constant_values=1)
    output = model(
        input_ids=IDS[:, start:end],
        attention_mask=seen,
        position_ids=np.asarray(positions_from_mask(mask))[:, start:end],
        past_key_values=past,
        use_cache=True,
    )
    return np.asarray(output.logits), output.past_key_values


def assert_close(got, want, atol=2e-5):
    np.testing.assert_allclose(got[MASK[:, -got.shape[1] :] == 1], want[MASK[:, -want.shape[1] :] == 1], atol=atol)


class TestCache:
    @pytest.mark.parametrize("ends", [(5, 6, 7, 10), (4, 8, 10), (1, 2, 10)], ids=str)
    def test_in_pieces_as_in_one_pass(self, model, ends):
        want, cache = run(model, 0, 10)
        pieces, past, start = [], None, 0
        for end in ends:
            logits, past = run(model, start, end, past)
            pieces.append(logits)
            start = end
        assert_close(np.concatenate(pieces, axis=1), want)
        tokens = MASK.astype(bool)[:, None, :, None]
        for got, expected in zip(keras.tree.flatten(past), keras.tree.flatten(cache), strict=True):
            np.testing.assert_allclose(np.where(tokens, got, 0), np.where(tokens, expected, 0), atol=1e-5)

    @pytest.mark.parametrize("capacity", [10, 16])
    def test_static_as_growing(self, model, capacity):
        want, _ = run(model, 0, 10)
        _, past = run(model, 0, 5)
        past, pieces = to_static(past, capacity), []
        for start, end in ((5, 6), (6, 7), (7, 10)):
            logits, past = run(model, start, end, past, capacity=capacity)
            pieces.append(logits)
        assert isinstance(past, StaticCache) and int(past.length) == 10
        assert_close(np.concatenate(pieces, axis=1), want[:, 5:])

    def test_without_a_cache(self, model):
        want, _ = run(model, 0, 10)
        inputs = {"input_ids": IDS, "attention_mask": MASK, "position_ids": positions_from_mask(MASK)}
        output = model(**inputs, use_cache=False)
        assert output.past_key_values is None
        assert_close(np.asarray(output.logits), want)


PROMPTS = ([5, 17, 40], [9, 2, 31, 64, 3, 22, 18, 50, 11, 7], [33])
BATCH = {
    "input_ids": np.array([[0] * (10 - len(row)) + row for row in PROMPTS]),
    "attention_mask": np.array([[0] * (10 - len(row)) + [1] * len(row) for row in PROMPTS]),
}
GREEDY = {"max_new_tokens": 8, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}


@pytest.fixture(scope="module")
def generated(model):
    return model.generate(**BATCH, **GREEDY)


class TestGenerate:
    @pytest.mark.quick(1)
    def test_left_padded_and_batched_as_alone(self, model, generated):
        for index, row in enumerate(PROMPTS):
            alone = model.generate([row], **GREEDY)
            np.testing.assert_array_equal(generated.sequences[index, -8:], alone.sequences[0, -8:])
            np.testing.assert_allclose(
                np.stack(generated.scores)[:, index], np.stack(alone.scores)[:, 0], atol=1e-4, rtol=1e-4
            )

    @pytest.mark.quick(1)
    def test_compiled_with_cache_as_by_hand_without(self, model, generated):
        ids = np.array([PROMPTS[1]])
        for _ in range(8):
            best = np.asarray(model(ids).logits)[:, -1].argmax(-1)
            ids = np.concatenate([ids, best[:, None]], axis=1)
        np.testing.assert_array_equal(generated.sequences[1], ids[0])


@pytest.mark.quick(3)
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_compiled_as_eager(model, jit_compile):
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": IDS}
    options = {"output_attentions": True, "output_hidden_states": True, "use_cache": True}
    compiled = tf.function(lambda **inputs: model(**inputs, **options), jit_compile=jit_compile)
    got, want = compiled(**inputs), model(**inputs, **options)
    assert list(got) == list(want)
    for one, other in zip(keras.tree.flatten(got), keras.tree.flatten(want), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5, rtol=1e-4)


def test_symbolic_call_as_eager(model):
    ids, mask = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    symbolic = keras.Model([ids, mask], model(ids, mask, use_cache=False).logits)
    got, want = symbolic([IDS, MASK]), model(IDS, MASK, use_cache=False).logits
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_lower_precision(model, dtype):
    lower = type(model)(model.config, dtype=dtype)
    lower.set_weights(model.get_weights())
    mask = MASK.copy()
    mask[1] = 0  # a row that is padding alone must not become NaN
    output, want = lower(IDS, mask, labels=IDS), np.asarray(model(IDS, mask).logits)[[0, 2]]
    got = np.asarray(output.logits).astype("float32")
    assert output.logits.dtype == lower.compute_dtype and np.isfinite(got).all()
    assert output.loss.dtype == "float32"
    assert np.linalg.norm(got[[0, 2]] - want) < (0.01 if dtype == "mixed_float16" else 0.08) * np.linalg.norm(want)


def make(name, head):
    return stir(FAMILIES[name].load(FAMILIES[name].class_name(head))(config_of(name)))


def skip_without(name, head):
    if head not in FAMILIES[name].heads:
        pytest.skip(f"{name} has no {head}")


@pytest.mark.parametrize("head", ["Model", *LABELS])
class TestHeads:
    @staticmethod
    def assert_same(one, other):
        one, other = (keras.tree.flatten(model(IDS, MASK)) for model in (one, other))
        for got, want in zip(one, other, strict=True):
            np.testing.assert_array_equal(got, want)

    @pytest.mark.quick(8)
    def test_files_keep_everything(self, name, head, tmp_path):
        skip_without(name, head)
        model = make(name, head)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        assert again.config.replace(architectures=None, dtype=None) == model.config
        self.assert_same(again, model)
        model.save(tmp_path / "model.keras")
        self.assert_same(keras.models.load_model(tmp_path / "model.keras"), model)

    @pytest.mark.quick(6)
    @pytest.mark.filterwarnings("ignore:.*did not come from the checkpoint")
    def test_files_carry_the_backbone_to_every_head(self, name, head, tmp_path):
        skip_without(name, head)
        model = make(name, head)
        model.save_pretrained(tmp_path)
        for other in FAMILIES[name].heads:
            again = FAMILIES[name].load(FAMILIES[name].class_name(other)).from_pretrained(tmp_path)
            for got, want in zip(again.backbone.weights, model.backbone.weights, strict=True):
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("head", LABELS)
def test_learns_with_every_weight(name, head):
    skip_without(name, head)
    model = make(name, head)
    with tf.GradientTape() as tape:
        loss = model(IDS, MASK, **LABELS[head], training=True).loss
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None and np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.path


@pytest.mark.quick(3)
@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gpt_neo", "mpt"])
def test_logits_are_finite_where_queries_and_keys_are_large(name, dtype):
    """Scores pass 65504 before they are scaled, as those of some Pythias do."""
    model, exact = small_models.make(name, "ForCausalLM", dtype=dtype), small_models.make(name, "ForCausalLM")
    for target, source in zip(model.variables, exact.variables, strict=True):
        if any(part in source.path for part in ("q_proj", "k_proj", "query_key_value", "Wqkv")):
            source.assign(source * 3000.0)
        source.assign(np.float16(source.numpy()))
        target.assign(source)
    ids = np.array([[5, 9, 2, 44]])
    logits = np.asarray(model(ids).logits, "float32")
    assert np.isfinite(logits).all()
    assert (model.generate(ids, max_new_tokens=3, jit_compile=False).numpy() >= 0).all()


def test_a_size_of_heads_of_its_own_frees_the_width():
    """As in a Llama whose width was pruned: 4 heads of 6 numbers, from 15."""
    given = {"hidden_size": 15, "intermediate_size": 24, "num_key_value_heads": 2, "head_dim": 6}
    model = TFAutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **{**COMMON, **given}))
    start = model(IDS[:, :4], use_cache=True)
    assert [tuple(x.shape) for x in start.past_key_values[0]] == [(len(IDS), 2, 4, 6)] * 2
    rest = model(IDS[:, 4:], past_key_values=start.past_key_values)
    whole = np.asarray(model(IDS).logits)
    np.testing.assert_allclose(np.asarray(rest.logits), whole[:, 4:], atol=1e-5)
    with pytest.raises(ValueError, match="hidden_size=15 is not divisible by num_attention_heads=4"):
        AutoConfig.for_model("llama", **{**COMMON, **given, "head_dim": None})
