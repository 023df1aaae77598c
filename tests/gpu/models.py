"""Models of layers that are wide enough for the fused kernels."""

from __future__ import annotations

from typing import Any

import keras
import pytest

import tfmodels
from tfmodels.auto import FAMILIES as REGISTERED

FAMILIES = ("llama", "gpt_neox", "gpt_neo", "mpt", "mpnet")

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="on JAX only attention is checked"
)


def model_class(family: str, layers: int) -> tuple[Any, Any]:
    """Class and configuration, layers of 256 numbers."""
    sizes = {"vocab_size": 500, "hidden_size": 256, "num_hidden_layers": layers, "num_attention_heads": 4}
    kinds = [[["global", "local"], layers // 2], [["global"], layers % 2]]
    own = {
        "llama": {**sizes, "intermediate_size": 512, "num_key_value_heads": 2},
        "gpt_neox": {**sizes, "intermediate_size": 512},
        "gpt_neo": {"vocab_size": 500, "hidden_size": 256, "num_layers": layers, "num_heads": 4}
        | {"attention_types": kinds, "window_size": 64},
        "mpt": {"vocab_size": 500, "d_model": 256, "n_heads": 4, "n_layers": layers},
        "mpnet": {**sizes, "intermediate_size": 512, "attention_probs_dropout_prob": 0.0},
    }
    stem = REGISTERED[family].stem
    head = "ForMaskedLM" if family == "mpnet" else "ForCausalLM"
    return getattr(tfmodels, f"TF{stem}{head}"), getattr(tfmodels, f"{stem}Config")(**own[family])


def copy_weights(source: Any, target: Any) -> None:
    for theirs, mine in zip(source.weights, target.weights, strict=True):
        mine.assign(theirs)
