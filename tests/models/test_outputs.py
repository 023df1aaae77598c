"""`ModelOutput`: access, and its type across graphs and pytrees."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels import LlamaConfig, TFLlamaForCausalLM
from tfmodels.models.outputs import CausalLMOutput, PastKeyValues, QuestionAnsweringOutput


def test_access():
    output = CausalLMOutput(logits=2, hidden_states=(3, 4))
    assert list(output) == ["logits", "hidden_states"] and output.loss is None
    assert (output.logits, output["logits"], output[0], output[1:]) == (2, 2, 2, ((3, 4),))
    assert output.to_tuple() == (2, (3, 4))
    with pytest.raises(AttributeError, match="CausalLMOutput has no field 'logit'; it has loss, logits"):
        output.logit  # noqa: B018


def test_type_survives():
    output = CausalLMOutput(loss=tf.constant(1.0), logits=tf.ones((2, 3)))
    compiled = tf.function(lambda o: CausalLMOutput((k, v * 2) for k, v in o.items()))(output)
    assert type(compiled) is CausalLMOutput and float(compiled.loss) == 2.0
    mapped = keras.tree.map_structure(lambda x: x + 1, output)
    assert type(mapped) is CausalLMOutput and float(mapped.loss) == 2.0 and list(mapped) == ["loss", "logits"]
    for same in (copy.deepcopy(output), pickle.loads(pickle.dumps(CausalLMOutput(logits=np.ones(2))))):
        assert type(same) is CausalLMOutput and same.hidden_states is None


def test_order_follows_the_fields_given():
    output = QuestionAnsweringOutput(start_logits=1, end_logits=2)
    assert output.to_tuple() == (1, 2)


def test_a_cache_says_how_long_it_is_and_is_taken_back():
    model = TFLlamaForCausalLM(LlamaConfig(50, 16, 24, 2, 2, tie_word_embeddings=True))
    ids = np.array([[5, 6, 7, 8, 9]])
    first = model(input_ids=ids[:, :3])
    cache = first.past_key_values
    assert isinstance(cache, PastKeyValues) and len(cache) == 2 and cache.get_seq_length() == 3
    assert cache.get_max_length() is None and type(cache.to_legacy_cache()) is type(first["past_key_values"]) is tuple
    whole = model(input_ids=ids).logits
    for second in (
        model(input_ids=ids[:, 3:], past_key_values=cache),
        model({"input_ids": ids[:, 3:], "past_key_values": cache}),
        tf.function(model)(input_ids=tf.constant(ids[:, 3:]), past_key_values=cache),
    ):
        np.testing.assert_allclose(second.logits, whole[:, 3:], atol=1e-5)
        assert second.past_key_values.get_seq_length() == 5
    in_graph = []
    tf.function(lambda x: in_graph.append(type(model(input_ids=x).past_key_values)))(tf.constant(ids))
    assert in_graph == [tuple]


def test_fields_that_these_models_never_fill_are_none():
    assert CausalLMOutput(logits=2).cross_attentions is None


@pytest.mark.parametrize(
    "take",
    [
        keras.layers.Dense(2),
        keras.layers.LayerNormalization(),
        lambda output: output.shape,
        lambda output: output[:, 0],
        lambda output: output.dtype,
    ],
)
def test_an_output_taken_for_a_tensor_says_which_one_to_take(take):
    output = CausalLMOutput(logits=np.ones((2, 3, 4), "float32"))
    with pytest.raises((TypeError, AttributeError), match=r"it holds several by name, logits.*as outputs\.logits"):
        take(output)


def test_a_layer_given_several_tensors_says_so():
    output = CausalLMOutput(logits=np.ones((2, 3, 4), "float32"), hidden_states=(np.ones((2, 3, 4)),))
    with pytest.raises(ValueError, match='Layer "head" expects 1 input.*received 2 input tensors'):
        keras.layers.Dense(2, name="head")(output)
