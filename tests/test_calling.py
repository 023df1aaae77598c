"""The calling convention, spelled in every way it has to work."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels import LlamaConfig, TFLlamaForCausalLM, TFLlamaModel
from tfmodels.families.llama import LlamaBackbone

CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    pad_token_id=0,
)
IDS = np.array([[5, 9, 2, 44], [7, 1, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture(scope="module", params=[TFLlamaModel, TFLlamaForCausalLM, LlamaBackbone], ids=lambda c: c.__name__)
def model(request):
    keras.utils.set_random_seed(0)
    layer = request.param(CONFIG)
    if not layer.built:
        layer.build()
    return layer


def first(output):
    return np.asarray(output[0])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("convert", [np.asarray, tf.constant], ids=["numpy", "tensor"])
def test_all_spellings_agree(model, dtype, convert):
    ids, mask = convert(IDS.astype(dtype)), convert(MASK.astype(dtype))
    want = first(model(input_ids=ids, attention_mask=mask))
    for output in (
        model({"input_ids": ids, "attention_mask": mask}),
        model([ids, mask]),
        model((ids, mask)),
        model(ids, mask),
        model([ids, mask, None, None, None, None, None, False]),
        model(ids, mask, None, None, None, None, None, False, True, training=False),
        model(ids, attention_mask=mask),
        model({"input_ids": ids}, attention_mask=mask),
        model({"input_ids": ids, "attention_mask": mask, "use_cache": False, "return_dict": None}),
        tf.function(lambda i, m: model(input_ids=i, attention_mask=m))(ids, mask),
        tf.function(lambda i, m: model([i, m]), jit_compile=True)(ids, mask),
    ):
        np.testing.assert_allclose(first(output), want, atol=2e-6)
    assert not np.allclose(first(model(ids)), want)  # the mask matters to the row it pads
    np.testing.assert_allclose(first(model(IDS.tolist())), first(model(ids)), atol=1e-6)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_symbolic(model, dtype):
    ids = keras.Input((None,), dtype=dtype, name="input_ids")
    mask = keras.Input((None,), dtype=dtype, name="attention_mask")
    output = model(input_ids=ids, attention_mask=mask, use_cache=False)
    composed = keras.Model([ids, mask], output)
    got = composed([IDS, MASK])
    assert type(got) is type(model(IDS))
    np.testing.assert_allclose(first(got), first(model([IDS, MASK])), atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model(input_idz=IDS),
        lambda model: model({"input_idz": IDS}),
        lambda model: model({"input_ids": IDS, "use_cashe": True}),
    ],
)
def test_unknown_names_list_the_accepted(model, call):
    with pytest.raises(
        TypeError, match=r"got an unknown argument '(input_idz|use_cashe)' \(did you mean .*accepts input_ids"
    ):
        call(model)


def test_doubly_given_and_too_many(model):
    with pytest.raises(TypeError):
        model(IDS, input_ids=IDS)
    with pytest.raises(TypeError, match="attention_mask"):
        model([IDS, MASK], attention_mask=MASK)
    with pytest.raises(TypeError, match="takes at most"):
        model([IDS] * 30)


def test_wrong_shapes_are_named(model):
    with pytest.raises(ValueError, match=r"input_ids has shape \(4,\); \(batch, length\) was expected"):
        model(input_ids=IDS[0])
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 3\)"):
        model(input_ids=IDS, attention_mask=MASK[:, :3])
    with pytest.raises(ValueError, match=r"head_mask has shape \(3,\)"):
        model(input_ids=IDS, head_mask=np.ones(3))


@pytest.mark.parametrize("token", [-1, 61])
def test_ids_outside_the_vocabulary_are_refused(model, token):
    with pytest.raises(ValueError, match=f"input_ids run from .*{token}.*; the vocabulary has ids 0 to 60"):
        model(input_ids=np.array([[5, token]]))


def test_tuples_and_flags(model):
    output = model(IDS, output_hidden_states=True, output_attentions=True, return_dict=False)
    assert type(output) is tuple and len(output) == 4
    _, past, states, weights = output
    assert len(past) == 2 and len(states) == 3 and weights[0].shape == (2, 4, 4, 4)
    graph = tf.function(lambda i: model(i, output_hidden_states=True, use_cache=False))(IDS)
    assert list(graph)[1:] == ["hidden_states"]
    assert "past_key_values" not in model(IDS, training=True)
