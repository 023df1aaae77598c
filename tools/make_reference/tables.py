"""Write tables: activations, rotary frequencies and logits processors, which need no model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tools.make_reference.calls import to_numpy
from tools.make_reference.cases import write_json
from tools.make_reference.families import LLAMA


def write_table(out: Path, name: str, seed: int, arrays: dict[str, np.ndarray], **fields: Any) -> None:
    folder = out / "common" / name
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "io.npz", **arrays)
    head = {"format": 1, "arch": "common", "case": name, "seed": seed, "kind": "table"}
    write_json(folder / "meta.json", {**head, "transformers": transformers.__version__, **fields})


def make_activations(out: Path, seed: int) -> None:
    from transformers.activations import ACT2FN

    gelus = ["gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh"]
    relus = ["relu", "relu2", "relu6", "leaky_relu", "hardswish", "silu", "swish", "mish", "quick_gelu"]
    names = [*gelus, "gelu_accurate", *relus, "laplace", "linear", "sigmoid", "sqrtsoftplus", "tanh"]
    x = np.concatenate([np.linspace(-12, 12, 145), np.random.default_rng(seed).standard_normal(20), [0.0]])
    x = x.astype("float32")
    arrays = {"x": x} | {f"y.{name}": to_numpy(ACT2FN[name](torch.from_numpy(x))) for name in names}
    write_table(out, "activations", seed, arrays, names=names, notes="y.<name> = ACT2FN[name](x)")


_DEFAULT = {"rope_type": "default"}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3 |= {"original_max_position_embeddings": 8192}
_YARN = {"rope_type": "yarn", "original_max_position_embeddings": 4096}
_MSCALE = {**_YARN, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1}
_PHI = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
_PHI |= {"short_factor": [round(1 + 0.02 * i, 2) for i in range(48)]}
_PHI |= {"long_factor": [round(1 + 0.9 * i, 1) for i in range(48)]}
_QUARTER = {"partial_rotary_factor": 0.25}
# Of published checkpoints and of each scaling: name, then hidden size, heads, context and rotary parameters.
ROTARY: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "llama2_7b": (4096, 32, 4096, _DEFAULT),
    "llama3_8b": (4096, 32, 8192, {**_DEFAULT, "rope_theta": 5e5}),
    "llama31_8b": (4096, 32, 131072, {**_LLAMA3, "factor": 8.0}),
    "llama32_1b": (2048, 32, 131072, {**_LLAMA3, "factor": 32.0}),
    "linear4": (4096, 32, 8192, {"rope_type": "linear", "factor": 4.0}),
    "dynamic2": (4096, 32, 4096, {"rope_type": "dynamic", "factor": 2.0}),
    "yarn16": (4096, 32, 65536, {**_YARN, "factor": 16.0}),
    "yarn40_mscale": (4096, 32, 163840, _MSCALE),
    "longrope_phi": (3072, 32, 131072, _PHI),
    "neox20b": (6144, 64, 2048, {**_QUARTER, **_DEFAULT}),
    "pythia70m": (512, 8, 2048, {**_QUARTER, **_DEFAULT}),
    "pythia_linear": (512, 8, 2048, {**_QUARTER, "rope_type": "linear", "factor": 2.0}),
}
# Lengths of those that depend on it.
LENGTHS = {"dynamic2": (None, 2048, 4097, 6000, 16384), "longrope_phi": (None, 4096, 4097)}


def make_rope_tables(out: Path, seed: int) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    arrays, specs = {}, {}
    for name, (hidden, heads, context, rotary) in ROTARY.items():
        is_llama, kind = "partial_rotary_factor" not in rotary, rotary["rope_type"]
        sizes = {
            "model_type": "llama" if is_llama else "gpt_neox",
            "hidden_size": hidden,
            "num_attention_heads": heads,
        }
        parameters = {"rope_theta": 10000.0, **rotary}
        config = {**sizes, "max_position_embeddings": context, "rope_parameters": parameters}
        values = (transformers.LlamaConfig if is_llama else transformers.GPTNeoXConfig)(**copy.deepcopy(config))
        embedding = LlamaRotaryEmbedding if is_llama else GPTNeoXRotaryEmbedding
        compute = embedding.compute_default_rope_parameters if kind == "default" else ROPE_INIT_FUNCTIONS[kind]
        for length in LENGTHS.get(name, (None,)):
            frequencies, scaling = compute(values, seq_len=length)
            key = f"{name}_{length}" if name in LENGTHS else name
            arrays |= {f"{key}.inv_freq": to_numpy(frequencies), f"{key}.attention_scaling": np.float32(scaling)}
            specs[key] = {"config": config, "head_dim": hidden // heads if is_llama else None, "seq_len": length}
    write_table(out, "rope_tables", seed, arrays, specs=specs, notes="inverse frequencies only")


# Settings of single processors, named as generate() names them; `note` is for readers.
ENDS = [2, 9]
PROCESSORS: dict[str, dict[str, Any]] = {
    **{f"temperature_{t}": {"temperature": t} for t in (0.7, 1.3)},
    **{
        f"{name}_{value}_keep{keep}": {name: value, "min_tokens_to_keep": keep}
        for name, value, keep in (
            *(("top_k", 5, 1), ("top_k", 1, 1), ("top_k", 200, 1), ("top_k", 2, 4)),
            *(("top_p", 0.8, 1), ("top_p", 0.3, 1), ("top_p", 0.01, 1), ("top_p", 0.0, 1), ("top_p", 0.3, 5)),
            *(("min_p", 0.1, 1), ("min_p", 0.6, 1), ("min_p", 0.9, 4)),
            *(("typical_p", 0.9, 1), ("typical_p", 0.4, 1), ("typical_p", 0.2, 5)),
        )
    },
    "epsilon_0.02": {"epsilon_cutoff": 0.02},
    "eta_0.02": {"eta_cutoff": 0.02},
    **{f"repetition_{r}": {"repetition_penalty": r} for r in (1.5, 0.7)},
    "repetition_1.5_padlen": {
        "repetition_penalty": 1.5,
        "prompt_ignore_length": [3, 0, 0],
        "note": "what generate() does when the mask says row 0 has 3 leading pads",
    },
    **{f"no_repeat_ngram_{n}": {"no_repeat_ngram_size": n} for n in (1, 2, 3, 4)},
    "bad_words": {
        "bad_words_ids": [[8], [6, 12], [9, 7, 10], [2]],
        "eos_token_id": ENDS,
        "note": "[2] is dropped because it equals an eos id",
    },
    **{f"min_length_{n}": {"min_length": n, "eos_token_id": ENDS} for n in (20, 12)},
    "min_new_tokens": {"prompt_length": 8, "min_new_tokens": 5, "eos_token_id": ENDS},
    "min_new_tokens_done": {"prompt_length": 8, "min_new_tokens": 4, "eos_token_id": ENDS},
    "forced_bos_not_first": {"forced_bos_token_id": 3},
    "forced_eos": {"max_length": 13, "forced_eos_token_id": [2]},
    "suppress": {"suppress_tokens": [1, 4]},
    "renormalize": {"renormalize_logits": True},
    "exp_decay": {"exponential_decay_length_penalty": [2, 1.3], "eos_token_id": [2], "prompt_length": 8},
    "sequence_bias": {"sequence_bias": [[[5], 3.0], [[7, 7], -2.5]]},
    "remove_invalid": {"remove_invalid_values": True},
}
# Settings of generate(): which processors it makes of them, in which order, and what those give together.
SAMPLE, ENDING = {"do_sample": True}, {"eos_token_id": ENDS}
GENERATION_SETTINGS: dict[str, dict[str, Any]] = {
    "gc_sample_default": SAMPLE,
    "gc_sample_1": {**SAMPLE, "temperature": 0.8, "top_k": 10, "top_p": 0.9},
    "gc_sample_2": {**SAMPLE, "temperature": 1.2, "top_k": 0, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.8},
    "gc_sample_3": {**SAMPLE, "temperature": 0.6, "top_k": 12, "repetition_penalty": 1.4}
    | {"no_repeat_ngram_size": 2, "min_new_tokens": 6, **ENDING},
    "gc_beam_sample": {**SAMPLE, "num_beams": 3, "temperature": 0.9, "top_k": 1, "top_p": 0.2, **ENDING},
    "gc_greedy": {"do_sample": False, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "bad_words_ids": [[8]]}
    | {"min_length": 20, "eos_token_id": [2], "suppress_tokens": [11], "renormalize_logits": True},
}


def make_logits_processors(out: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vocab, prompt_length = 47, 8
    logits = (2.2 * rng.standard_normal((3, vocab))).astype("float32")
    logits[1] = np.round(2 * logits[1]) / 2
    logits[2, 5] = -np.inf
    ids = rng.integers(4, 14, (3, 12))
    ids[0, :3] = 0
    ids[2] = np.tile([4, 5, 6], 4)
    arrays: dict[str, np.ndarray] = {"logits": logits, "input_ids": ids}

    def run_one(processor: Any) -> np.ndarray:
        return to_numpy(processor(torch.from_numpy(ids), torch.from_numpy(logits.copy())))

    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, "vocab_size": vocab}))

    def processors_of(mask: np.ndarray, **settings: Any) -> Any:
        """The processors that generate() makes of settings."""
        config, _ = model._prepare_generation_config(transformers.GenerationConfig(**settings, pad_token_id=0))
        model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device="cpu")
        given = {"attention_mask": torch.from_numpy(mask)}
        return model._get_logits_processor(config, prompt_length, device="cpu", model_kwargs=given)

    for name, spec in PROCESSORS.items():
        settings = {"do_sample": True, "top_k": 0, **spec}
        settings.pop("note", None)
        settings.pop("prompt_length", None)
        # generate() reads the one from the mask, and keeps a token more than there are ends when it searches.
        ignored, keep = settings.pop("prompt_ignore_length", [0, 0, 0]), settings.pop("min_tokens_to_keep", 1)
        if keep > 1:
            settings |= {"num_beams": 2, "eos_token_id": [*range(1, keep)]}
        (processor,) = processors_of(np.arange(prompt_length) >= np.array(ignored)[:, None], **settings)
        arrays[f"out.{name}"] = run_one(processor)
    specs: dict[str, Any] = {**PROCESSORS}
    for name, settings in GENERATION_SETTINGS.items():
        processors = processors_of(np.ones((3, prompt_length), "int64"), **settings)
        arrays[f"out.{name}"] = run_one(processors)
        used = [type(processor).__name__ for processor in processors]
        specs[name] = {**settings, "prompt_length": prompt_length, "processors": used}
    notes = "out.<name> = processor(input_ids, logits); row 1 of logits has ties, row 2 an -inf"
    write_table(out, "logits_processors", seed, arrays, specs=specs, notes=notes)


TABLES = {
    "activations": make_activations,
    "rope_tables": make_rope_tables,
    "logits_processors": make_logits_processors,
}
