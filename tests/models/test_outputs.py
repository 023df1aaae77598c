"""`ModelOutput`: access, and its type across graphs and pytrees."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmodels.models.outputs import CausalLMOutput, QuestionAnsweringOutput


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
