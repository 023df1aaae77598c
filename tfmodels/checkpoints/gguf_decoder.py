"""Decoders of Llama's kind in GGUF files: names of weights and settings, see `tfmodels.checkpoints.gguf_map`.

A family's own module, `<family>_gguf`, makes a map of these and says what is its own. These modules lie beside the
families' files rather than in them, so that configurations and tokenizers of GGUF files are read without a backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.gguf_map import GGUFMap, GGUFSettings, short, sizes_of
from tfmodels.utils.text import quote

_ROPE_FACTORS = "rope_freqs.weight"

# Settings without which most families would compute something else; 0 or false turns them off.
_UNSUPPORTED = (
    *("expert_count", "use_parallel_residual", "attention.sliding_window", "attention.scale", "embedding_scale"),
    *("residual_scale", "logit_scale", "attention.clamp_kqv", "attention.max_alibi_bias"),
)
_SCALING = "rope.scaling."
_SCALING_KEYS = ("type", "factor", "original_context_length", "finetuned")

# Llama 3's frequency scaling; files hold the resulting factors alone.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


# Names of layers, and projections to heads whose rows llama.cpp reorders in some architectures.
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
ROTATED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


def decoder_map(
    architecture: str,
    family: str,
    more: Callable[[GGUFSettings], Mapping[str, Any]] = lambda settings: {},
    *,
    names: Mapping[str, str] = NAMES,
    rotated: Mapping[str, str] = ROTATED,
    supported: Collection[str] = (),
    model_type: str | None = None,
    class_name: str | None = None,
    shifted: Mapping[str, float] | None = None,
    more_settings: Callable[[Any], Mapping[str, Any]] = lambda config: {},
) -> GGUFMap:
    """The map of an architecture.

    Args:
        architecture: `general.architecture`.
        family: the stem of the family's class names, and its name in messages.
        more: gives what the configuration has beside the fields that all have.
        names, rotated, shifted: as in `GGUFMap`.
        supported: settings that `more` reads, which other families do not know.
        model_type: default: as `architecture`.
        class_name: of the language model; default: as the stem says.
        more_settings: gives the settings that a configuration stands for beside those that all have.

    Example:
        >>> decoder_map("llama", "Llama").stored_name("blk.3.attn_q.weight")
        'model.layers.3.self_attn.q_proj.weight'
    """

    def config(settings: GGUFSettings) -> dict[str, Any]:
        values = _decoder_config(settings, supported)
        about = {"model_type": model_type or architecture, "architectures": [class_name or f"{family}ForCausalLM"]}
        return {**about, **values, **more(settings)}

    return GGUFMap(
        architecture=architecture,
        family=family,
        names=names,
        rotated=rotated,
        shifted=shifted or {},
        settings=(_ROPE_FACTORS,),
        positive=(
            *("attention.head_count", "attention.head_count_kv", "attention.key_length", "embedding_length"),
            *("block_count", "vocab_size", "feed_forward_length", "context_length", "rope.freq_base"),
        ),
        config=config,
        settings_of=lambda config: {**_settings_of(config), **more_settings(config)},
        tensors_of=_rope_factors_of,
    )


def biases(settings: GGUFSettings) -> dict[str, bool]:
    """Whether a file has biases in attention and in its feed-forward blocks, as configurations say it."""
    names = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"}
    return {field: name in settings.tensors for field, name in names.items()}


def _decoder_config(settings: GGUFSettings, supported: Collection[str]) -> dict[str, Any]:
    """The fields of a `config.json` that a file's settings stand for.

    Raises:
        CheckpointError: a setting is missing or unusable, or the model computes something that the family does not.
    """
    number, where = settings.number, settings.where
    refused = [name for name in _UNSUPPORTED if settings.stored(name) and name not in supported]
    scaling = settings.key(_SCALING)
    others = [key.removeprefix(scaling) for key in settings.metadata if key.startswith(scaling)]
    refused += [_SCALING + name for name in others if name not in _SCALING_KEYS]
    if refused:
        values = ", ".join(f"{settings.key(name)} = {short(settings.stored(name))}" for name in refused)
        raise CheckpointError(f"{where} asks for what no {settings.gguf_map.family} model here does: {values}.")
    heads, width = number("attention.head_count"), number("embedding_length")
    head_dim = number("attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if number(name, head_dim) != head_dim:
            raise CheckpointError(
                f"{where}: {settings.key(name)} is {number(name)}; only the head size, {head_dim}, can be used."
            )
    values = {
        "vocab_size": settings.vocab_size(),
        "hidden_size": width,
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": settings.rounded("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base", 10000.0, float),
        "tie_word_embeddings": "output.weight" not in settings.tensors,
        **settings.special_ids(),
    }
    scaling = _stored_scaling(settings)
    if _ROPE_FACTORS in settings.tensors:
        if scaling is not None:
            raise CheckpointError(f"{where} scales positions twice: {_ROPE_FACTORS}, {scaling}.")
        scaling = _llama3_scaling(settings.read(_ROPE_FACTORS).astype(np.float64), values["rope_theta"])
        if scaling is None:
            raise CheckpointError(
                f"{where}: {_ROPE_FACTORS} holds frequency factors other than Llama 3's, which no configuration here "
                f"describes."
            )
    return values if scaling is None else {**values, "rope_scaling": scaling}


def _stored_scaling(settings: GGUFSettings) -> dict[str, Any] | None:
    """The `rope_scaling` that the settings name, or None."""
    kind = settings.rope_scaling_type()
    if kind == "none":
        return None
    if kind == "linear":
        old_factor = settings.stored("rope.scale_linear")
        return {"rope_type": "linear", "factor": settings.number("rope.scaling.factor", old_factor, float)}
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "factor": settings.number("rope.scaling.factor", kind=float),
            "original_max_position_embeddings": settings.number("rope.scaling.original_context_length"),
        }
    raise CheckpointError(
        f"{settings.where}: {settings.key('rope.scaling.type')} {quote(kind)} cannot be read; none, linear and yarn "
        f"can."
    )


def _llama3_scaling(factors: np.ndarray, theta: float) -> dict[str, Any] | None:
    """The `rope_scaling` of Llama 3 that gives these divisors of the frequencies, or None."""
    if factors.ndim != 1 or not np.all(np.isfinite(factors)) or not np.all(factors > 0):
        return None
    factor = float(factors.max(initial=1.0))
    if not np.allclose(factors, _llama3_factors(len(factors), theta, factor), rtol=1e-4):
        return None
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _llama3_factors(count: int, theta: float, factor: float) -> np.ndarray:
    """The divisors of `count` frequencies that Llama 3's scaling by a factor gives."""
    wavelengths = 2 * math.pi * theta ** (np.arange(count) / max(count, 1))
    original, low, high = (
        _LLAMA3[key] for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    smooth = np.clip((original / wavelengths - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def _settings_of(config: Any) -> dict[str, Any]:
    """The settings of a file, which `_decoder_config` reads, from a configuration."""
    rope = config.rope_parameters
    values = {
        **sizes_of(config),
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if rope["rope_type"] in ("linear", "yarn"):
        values |= {_SCALING + "type": rope["rope_type"], _SCALING + "factor": float(rope["factor"])}
    if rope["rope_type"] == "yarn":
        values[_SCALING + "original_context_length"] = rope["original_max_position_embeddings"]
    return values


def _rope_factors_of(config: Any) -> dict[str, np.ndarray]:
    """The tensor that stands for Llama 3's scaling of positions, where a configuration has it."""
    rope = config.rope_parameters
    if rope["rope_type"] != "llama3":
        return {}
    return {_ROPE_FACTORS: _llama3_factors(config.head_dim // 2, rope["rope_theta"], rope["factor"]).astype("f4")}
