"""Adding an architecture is one family file and one registry line, shown with a Llama that has another norm."""

import sys

import keras
import numpy as np
import pytest

import tfmodels
from tfmodels import auto, families

FAMILY = '''
"""Wisp: a Llama whose blocks divide by the mean of absolute values where Llama's divide by the root mean square."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.configs.part import configuration
from tfmodels.families.llama import LlamaAttention, LlamaConfig, TFLlamaPreTrainedModel
from tfmodels.generation.api import GenerationMixin
from tfmodels.layers.feed_forward import GatedFeedForward
from tfmodels.layers.linear import build_all, embedding
from tfmodels.layers.rotary import RotaryEmbedding
from tfmodels.models.backbone import DecoderBackbone
from tfmodels.models.heads import CausalLMHead


@configuration
class WispConfig(LlamaConfig):
    """Configuration of a Wisp model."""

    model_type: ClassVar[str] = "wisp"
    norm_gain: float = 2.0


class MeanNorm(keras.layers.Layer):
    """Divides by the mean of absolute values."""

    def __init__(self, gain: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.gain = gain

    def build(self, input_shape: Any) -> None:
        self.weight = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="weight")

    def call(self, inputs: Any) -> Any:
        return self.gain * inputs / (ops.mean(ops.abs(inputs), axis=-1, keepdims=True) + 1e-6) * self.weight


class WispBlock(keras.layers.Layer):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: WispConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config, dtype = config, self.dtype_policy
        self.input_layernorm = MeanNorm(config.norm_gain, dtype=dtype, name="input_layernorm")
        self.self_attn = LlamaAttention(config, dtype=dtype, name="self_attn")
        self.post_attention_layernorm = MeanNorm(config.norm_gain, dtype=dtype, name="post_attention_layernorm")
        sizes = (config.hidden_size, config.intermediate_size, config.hidden_act, False, config.initializer_range)
        self.mlp = GatedFeedForward(*sizes, dtype=dtype, name="mlp")

    def build(self, input_shape: Any = None) -> None:
        width = self.config.hidden_size
        build_all(width, self.input_layernorm, self.self_attn, self.post_attention_layernorm, self.mlp)

    def call(self, hidden: Any, *, context: Any) -> Any:
        attended, cache, weights = self.self_attn(self.input_layernorm(hidden), context=context)
        hidden = hidden + attended
        hidden = hidden + self.mlp(self.post_attention_layernorm(hidden), lowering=context.lowering)
        return hidden, cache, weights


class WispBackbone(DecoderBackbone):
    """Token ids to hidden states."""

    config_class = WispConfig

    def __init__(self, config: WispConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        options = {"dtype": self.dtype_policy}
        sizes = (config.vocab_size, config.hidden_size)
        self.embed_tokens = embedding(*sizes, std=config.initializer_range, name="embed_tokens", **options)
        self.layers = [WispBlock(config, name=f"layers_{n}", **options) for n in range(config.num_hidden_layers)]
        self.norm = MeanNorm(config.norm_gain, name="norm", **options)
        self.rotary = RotaryEmbedding(config)

    def build(self, input_shape: Any = None) -> None:
        build_all(self.config.hidden_size, self.embed_tokens, *self.layers, self.norm)

    def position_context(self, context: Any) -> Any:
        return dataclasses.replace(context, rotary=self.rotary(context.positions))

    def final_norm(self, hidden: Any) -> Any:
        return self.norm(hidden)


class TFWispModel(TFLlamaPreTrainedModel):
    """The bare decoder."""

    config_class = WispConfig
    backbone_class = WispBackbone


class TFWispForCausalLM(GenerationMixin, CausalLMHead, TFWispModel):
    """Wisp with a language-model head."""
'''
IDS = np.array([[5, 9, 2, 44, 17], [7, 3, 58, 4, 6]])
SIZES = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture
def wisp(tmp_path, monkeypatch):
    package = tmp_path / "families"
    package.mkdir()
    (package / "wisp.py").write_text(FAMILY)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(package)])
    # The one line of the registry.
    monkeypatch.setitem(auto.FAMILIES, "wisp", auto.Family("wisp", "Wisp", ("Model", "ForCausalLM"), "LlamaTokenizer"))
    yield
    sys.modules.pop("tfmodels.families.wisp", None)
    vars(families).pop("wisp", None)


def test_one_file_and_one_line(wisp, tmp_path):
    config = tfmodels.AutoConfig.for_model("wisp", **SIZES)
    keras.utils.set_random_seed(0)
    model = tfmodels.TFAutoModelForCausalLM.from_config(config)
    assert type(model).__name__ == "TFWispForCausalLM" and config.norm_gain == 2.0
    want = np.asarray(model(IDS).logits)
    # The new norm is what runs, up to the head: mean absolute values of 2.
    last = np.asarray(model.backbone(IDS).last_hidden_state)
    np.testing.assert_allclose(np.abs(last).mean(-1), 2.0, rtol=1e-3)
    # It saves and loads, whatever the door.
    model.save_pretrained(tmp_path / "saved")
    loaded = tfmodels.TFAutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(loaded(IDS).logits, want)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "model.keras")(IDS).logits, want, atol=1e-6)
    # It generates what its scores say, with its cache, and learns.
    ids = np.asarray(loaded.generate(IDS, max_new_tokens=3, eos_token_id=None, jit_compile=False))
    for length in (5, 6, 7):
        np.testing.assert_array_equal(np.asarray(loaded(ids[:, :length]).logits)[:, -1].argmax(-1), ids[:, length])
    loaded.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    losses = loaded.fit({"input_ids": IDS, "labels": IDS}, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    assert tfmodels.TFWispForCausalLM is type(loaded)
    with pytest.raises(ValueError, match="Wisp has no ForMaskedLM model"):
        tfmodels.TFAutoModelForMaskedLM.from_config(config)
