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

from typing import Any, ClassVar

import keras
from keras import ops

from tfmodels.configs.decoder import DecoderConfig
from tfmodels.generation.api import GenerationMixin
from tfmodels.models.heads import CausalLMHead
from tfmodels.models.rotary_decoder import RotaryBlock, RotaryDecoderBackbone, RotaryDecoderModel


class WispConfig(DecoderConfig):
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


class WispBlock(RotaryBlock):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def make_norm(self, name: str) -> keras.layers.Layer:
        return MeanNorm(self.config.norm_gain, dtype=self.dtype_policy, name=name)


class WispBackbone(RotaryDecoderBackbone):
    """Token ids to hidden states."""

    config_class = WispConfig
    block_class = WispBlock
    make_norm = WispBlock.make_norm


class TFWispModel(RotaryDecoderModel):
    """The bare decoder."""

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
