"""Shapes of the models that are measured, and random weights and token ids for them."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LLAMA_SIZES = "layers,hidden,heads[,kv_heads[,intermediate[,vocab]]]"

# (model_type, head, changes to the configuration's defaults)
Shape = tuple[str, str, dict[str, Any]]

_PYTHIA = {"vocab_size": 50304, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_PYTHIA |= {"intermediate_size": 4096, "rotary_pct": 0.25, "max_position_embeddings": 4096}
_LLAMA = {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
_LLAMA |= {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192}
_LLAMA |= {"tie_word_embeddings": True, "rope_theta": 500000.0}
_LLAMA_7B = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
_LLAMA_7B |= {"num_attention_heads": 32, "max_position_embeddings": 4096}
_GPT_NEO = {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "attention_types": [[["global", "local"], 6]]}
_MPT = {"d_model": 2048, "n_heads": 16, "n_layers": 24, "vocab_size": 50368, "max_seq_len": 4096}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_TINY = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
_TINY |= {"num_attention_heads": 4}

# On a GPU; the tiny ones are for trying the command.
SHAPES: dict[str, Shape] = {
    "pythia-410m": ("gpt_neox", "ForCausalLM", _PYTHIA),
    "llama-3.2-1b": ("llama", "ForCausalLM", _LLAMA),
    "llama-2-7b": ("llama", "ForCausalLM", _LLAMA_7B),
    "gpt-neo-125m": ("gpt_neo", "ForCausalLM", {**_GPT_NEO, "max_position_embeddings": 4096}),
    "mpt-1b": ("mpt", "ForCausalLM", _MPT),
    "mpnet-base": ("mpnet", "Model", _NO_DROPOUT),
    "tiny": ("llama", "ForCausalLM", {**_TINY, "num_key_value_heads": 2}),
    "tiny-mpnet": ("mpnet", "Model", {**_NO_DROPOUT, **_TINY}),
}
# On a CPU, for training; dropout as the configuration says.
TRAINED: dict[str, Shape] = {
    "mpnet-base": ("mpnet", "ForSequenceClassification", {}),
    "gpt-neo-125m": ("gpt_neo", "ForCausalLM", _GPT_NEO),
}


def llama_shape(text: str) -> Shape:
    """A Llama from "layers,hidden,heads[,kv_heads[,intermediate[,vocab]]]"."""
    try:
        layers, hidden, heads, *rest = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {LLAMA_SIZES} in whole numbers was expected") from None
    usual = [heads, 4 * hidden, 32000]
    if len(rest) > len(usual) or hidden % heads:
        raise argparse.ArgumentTypeError(f"{text!r}: three to six numbers, hidden divisible by heads")
    kv_heads, intermediate, vocab = rest + usual[len(rest) :]
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    sizes |= {"num_key_value_heads": kv_heads, "intermediate_size": intermediate, "vocab_size": vocab}
    return "llama", "ForCausalLM", {**sizes, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5}


def model_class(shape: Shape) -> tuple[Any, Any]:
    """The class of this package and the configuration of a shape."""
    import tfmodels.auto

    model_type, head, changes = shape
    config = tfmodels.AutoConfig.for_model(model_type, **changes)
    family = tfmodels.auto.family_of(config)
    return family.load(family.class_name(head)), config


def write_random(folder: str | Path, shape: Shape, dtype: str = "float32") -> tuple[int, Any]:
    """Write a checkpoint of random weights in one file; how many numbers it holds, and the configuration."""
    import keras

    keras.utils.set_random_seed(0)
    cls, config = model_class(shape)
    model = cls(config, dtype=dtype)
    model.save_pretrained(folder, max_shard_size="100GB")
    return model.count_params(), config


@contextlib.contextmanager
def checkpoint_of(options: argparse.Namespace) -> Iterator[str]:
    """The folder or name of the model to measure: --model, or random weights of --shape."""
    if options.model:
        yield options.model
        return
    with tempfile.TemporaryDirectory() as folder:
        write_random(folder, options.shape, options.dtype)
        yield folder


def random_ids(batch: int, length: int, vocab: int) -> np.ndarray:
    # Ids below 3 are special tokens as a rule.
    return np.random.default_rng(batch * 1000 + length).integers(3, vocab, (batch, length))


def inputs_of(what: str, batch: int, length: int, vocab: int) -> dict[str, np.ndarray]:
    """Random inputs of a model for a task: ids, with what that needs beside them."""
    ids = random_ids(batch, length, vocab)
    others = {"train": {"labels": ids}, "fit": {"labels": ids}, "forward": {}}
    return {"input_ids": ids, **others.get(what, {"attention_mask": np.ones_like(ids)})}
