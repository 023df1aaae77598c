"""models/backbone/context.py: training that falls back to slower attention on a GPU says so once."""

import warnings

import pytest
import small_models

from tfmodels.kernels import cudnn_attention
from tfmodels.models.backbone import context
from tfmodels.runtime import device


@pytest.fixture
def told(monkeypatch):
    """Train a step, here as if on a GPU whose kernels serve; returns the warnings of attention."""
    monkeypatch.setattr(device, "on_gpu", lambda: True)
    monkeypatch.setattr(cudnn_attention, "unavailable", lambda: None)

    def train(**options):
        context._warn_of_fallback.cache_clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = small_models.class_of("llama", "ForCausalLM")(small_models.config_of("llama"), **options)
            inputs = small_models.inputs_of("llama", "ForCausalLM") | small_models.labels_of("llama", "ForCausalLM")
            model.compile("sgd", jit_compile=False)
            model.evaluate(inputs, verbose=0)
            for _ in range(2):
                model.fit(inputs, verbose=0)
        return [str(one.message) for one in caught if "attention" in str(one.message)], model

    yield train
    context._warn_of_fallback.cache_clear()


def test_a_fallback_is_told_once_with_its_reason(told):
    messages, model = told()
    assert len(messages) == 1
    assert "computes in float16 or bfloat16, not in float32" in messages[0]
    assert model.attention_report() in messages[0]


def test_plain_attention_that_was_asked_for_is_not(told):
    assert told(attn_implementation="eager")[0] == []


def test_without_a_gpu_nothing_is_told(told, monkeypatch):
    monkeypatch.setattr(device, "on_gpu", lambda: False)
    assert told()[0] == []


def test_a_forward_pass_says_nothing():
    context._warn_of_fallback.cache_clear()
    log = context.AttentionLog()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.note([context.AttentionPath("eager", "some reason")], training=False)
    assert log.report() == "1 block: eager (some reason)"
