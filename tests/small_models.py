"""A small model of every public class, with inputs and labels that fit it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

import tfmodels
from tfmodels.auto import FAMILIES

SIZES = {"vocab_size": 61, "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2}
SMALL = {
    "llama": {**SIZES, "intermediate_size": 24, "num_key_value_heads": 2, "pad_token_id": 0},
    "gpt_neox": {**SIZES, "intermediate_size": 24, "rotary_pct": 0.5, "pad_token_id": 0},
    "gpt_neo": {
        **SIZES,
        "intermediate_size": 24,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 3,
        "max_position_embeddings": 32,
        "pad_token_id": 0,
    },
    "mpt": {"vocab_size": 61, "d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 32, "pad_token_id": 0},
    "mpnet": {**SIZES, "intermediate_size": 24, "max_position_embeddings": 32},
}
# Families of the same shared layers, which only slow tests go through.
WINDOWED = {"use_sliding_window": True, "sliding_window": 3}
FEW = {**SIZES, "intermediate_size": 24, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1}
FEW |= {"eos_token_id": 2, "max_position_embeddings": 32}
MORE = {
    "mistral": {**FEW, "sliding_window": 3},
    "qwen2": {**FEW, **WINDOWED, "max_window_layers": 1},
    "qwen3": {**FEW, **WINDOWED, "max_window_layers": 1, "head_dim": 6},
    "granite": {**FEW, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4},
    "smollm3": {**FEW, **WINDOWED, "no_rope_layer_interval": 2},
    "gemma3_text": {**FEW, "head_dim": 6, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3},
    "gpt2": {**SIZES, "intermediate_size": 24, "max_position_embeddings": 32, "pad_token_id": 0},
    "bert": {**SIZES, "intermediate_size": 24, "max_position_embeddings": 32},
    "distilbert": {**SIZES, "intermediate_size": 24, "max_position_embeddings": 32},
    "roberta": {**SIZES, "intermediate_size": 24, "max_position_embeddings": 32},
    "modernbert": {**SIZES, "intermediate_size": 24, "local_attention": 4, "global_attn_every_n_layers": 2}
    | {"pad_token_id": 0, "max_position_embeddings": 32},
}


def heads_of(families: Iterable[str]) -> list[tuple[str, str]]:
    """(family, head) of every public model class of some families."""
    return [(name, head) for name in families for head in FAMILIES[name].heads]


EVERY = heads_of(SMALL)
# Heads are shared code: of the families of shared layers, one head each.
ONE_HEAD = [(name, "ForCausalLM" if "ForCausalLM" in FAMILIES[name].heads else "ForMaskedLM") for name in MORE]
# The head that stands for its family.
FIRST = [(name, "ForMaskedLM" if name == "mpnet" else "ForCausalLM") for name in SMALL]
# Every head of a decoder and of an encoder; of the other families the first and one that takes turns.
TURNS = [
    ("gpt_neox", "ForTokenClassification"),
    ("gpt_neo", "ForQuestionAnswering"),
    ("mpt", "ForSequenceClassification"),
]
SOME = [case for case in EVERY if case[0] in ("llama", "mpnet") or case in FIRST or case in TURNS]
# Each head once, and each family.
OWN_HEADS = ("ForMaskedLM", "ForMultipleChoice")  # the encoder's, beside those that it shares with decoders
EXPORTED = [case for case in EVERY if case[0] == "llama" or case in FIRST or case[1] in OWN_HEADS] + ONE_HEAD

# Two rows, the second shorter: padding is id 0, and for MPNet, whose padding is 1, id 1.
ROWS = [[5, 9, 2, 44, 17], [7, 3, 58]]
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def class_of(name: str, head: str) -> Any:
    """The public class of a family and head."""
    return getattr(tfmodels, FAMILIES[name].class_name(head))


def config_of(name: str, **changes: Any) -> Any:
    """The small configuration of a family."""
    return getattr(tfmodels, f"{FAMILIES[name].stem}Config")(**{**(SMALL | MORE)[name], **changes})


def make(name: str, head: str, *, seed: int = 0, dtype: Any = None, **changes: Any) -> Any:
    """A small model with random weights that `seed` decides."""
    keras.utils.set_random_seed(seed)
    return class_of(name, head)(config_of(name, num_labels=3, **changes), dtype=dtype)


def inputs_of(name: str, head: str) -> dict[str, np.ndarray]:
    """Token ids and mask, (2, 5), or (2, 2, 5) for multiple choice."""
    pad = 1 if name in ("mpnet", "roberta") else 0
    ids = np.array([row + [pad] * (5 - len(row)) for row in ROWS])
    if head == "ForMultipleChoice":
        return {
            "input_ids": np.stack([ids, ids[::-1]], axis=1),
            "attention_mask": np.stack([MASK, MASK[::-1]], axis=1),
        }
    return {"input_ids": ids, "attention_mask": MASK}


def byte_pairs() -> Any:
    """A tokenizer of GPT-2's kind with four tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    model = models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "!": 3}, merges=[("a", "b")])
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tfmodels.PreTrainedTokenizerFast(tokenizer_object=backend)


def labels_of(name: str, head: str) -> dict[str, np.ndarray]:
    """Labels for `inputs_of`, by name; none for a bare model."""
    tokens = inputs_of(name, head)["input_ids"]
    if head == "Model":
        return {}
    if head == "ForQuestionAnswering":
        return {"start_positions": np.array([1, 0]), "end_positions": np.array([3, 2])}
    if head in ("ForMultipleChoice", "ForNextSentencePrediction"):
        return {"labels": np.array([1, 0])}
    if head == "ForPreTraining":
        return {"labels": np.where(MASK == 1, tokens, -100), "next_sentence_label": np.array([1, 0])}
    if head == "ForSequenceClassification":
        return {"labels": np.array([2, 0])}
    labels = tokens % 3 if head == "ForTokenClassification" else tokens
    return {"labels": np.where(MASK == 1, labels, -100)}
