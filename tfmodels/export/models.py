"""Questions of exports to a model: its kind, its limits, a copy in another dtype, its outputs as a plain dict."""

from __future__ import annotations

import os
from typing import Any

import keras
from keras import ops

from tfmodels.checkpoints.weight_map import walk
from tfmodels.dtypes import to_policy
from tfmodels.generation.api import GenerationMixin
from tfmodels.runtime.lowering import PLAIN, Lowering
from tfmodels.tokenization import AutoTokenizer
from tfmodels.utils.text import quote

# Most tokens of an export that has to have a limit, where neither the model nor the user says less.
LONGEST = 2048


def causal(model: Any) -> bool:
    """Whether a model is a causal language model: it has caches and generates."""
    return isinstance(model, GenerationMixin)


def transformer_of(model: Any) -> Any:
    """The `TFPreTrainedModel` of a model: itself, or a `SentenceEncoder`'s."""
    return model if hasattr(model, "backbone") else model.model


def context_of(model: Any) -> int:
    """Most tokens that a model takes, or was trained for where its positions have no end."""
    inner = transformer_of(model)
    return inner.backbone.longest_input or inner.config.max_position_embeddings


def with_dtype(model: Any, dtype: Any) -> Any:
    """The model with weights and computation of another dtype: a copy, or itself where there is nothing to change.

    Args:
        model: a `TFPreTrainedModel` or `SentenceEncoder`.
        dtype: "float32", "float16", "bfloat16" or None, which changes nothing.
    """
    policy = to_policy(dtype)
    if policy is None or policy.name == model.dtype_policy.name:
        return model
    config = model.get_config()
    inner = config if transformer_of(model) is model else config["model"]["config"]
    inner["dtype"] = keras.saving.serialize_keras_object(policy)
    copy = type(model).from_config(config)
    for own, source in zip(copy.variables, model.variables, strict=True):
        own.assign(ops.cast(source.value, own.dtype))
    if causal(model):
        copy.generation_config = model.generation_config
    return copy


def with_floats(model: Any) -> Any:
    """The model with float32 weights in the place of packed ones: a copy, or itself where none are packed."""
    packed = [(path, layer) for path, layer in walk(model) if getattr(layer, "packed", None) is not None]
    if not packed:
        return model
    config = model.get_config()
    inner = config if transformer_of(model) is model else config["model"]["config"]
    del inner["quantization"]
    inner["dtype"] = keras.saving.serialize_keras_object(to_policy("float32"))
    copy = type(model).from_config(config)
    twins, done = dict(walk(copy)), set()
    for path, layer in packed:
        target, values = twins[path], layer.packed.dequantized()
        variable = getattr(target, target.whole_name)
        variable.assign(values.T if isinstance(layer, keras.layers.Embedding) else values)
        done |= {id(variable), *map(id, layer.packed.weights)}
    others = ([variable for variable in one.variables if id(variable) not in done] for one in (copy, model))
    for own, source in zip(*others, strict=True):
        own.assign(ops.cast(source.value, own.dtype))
    if causal(model):
        copy.generation_config = model.generation_config
    return copy


def max_length_of(model: Any, asked: int | None) -> int:
    """Most tokens that an export has room for.

    Args:
        asked: `max_length` of the request.

    Raises:
        ValueError: the model's context does not allow that.
    """
    context = context_of(model)
    if asked is not None and not 2 <= asked <= context:
        raise ValueError(f"max_length={asked}; this model's context allows 2 to {context} tokens.")
    return asked or min(context, LONGEST)


def check_last_token(model: Any) -> None:
    """Raise ValueError where a classifier has to find each row's last token and has no padding token to do so."""
    if transformer_of(model).finds_last_token and model.config.pad_token_id is None:
        raise ValueError(
            f"{type(model).__name__} finds each row's last token by config.pad_token_id, which is None: set it before "
            f"exporting."
        )


def rank_of(model: Any) -> int:
    """Axes of `input_ids`: 3 for multiple choice, (batch, choices, length), else 2."""
    return transformer_of(model).input_rank


def has_token_types(model: Any) -> bool:
    """Whether a model looks `token_type_ids` up in a table of several types, as BERT's does.

    Decoders that look them up among the tokens are no such models: there no type is not type 0.
    """
    table = getattr(transformer_of(model).backbone, "embed_types", None)
    return "token_type_ids" in model.input_names and table is not None and table.input_dim > 1


def file_inputs(model: Any) -> tuple[str, ...]:
    """Names of the inputs of a file for a model that does not generate, in order."""
    return ("input_ids", "attention_mask", *["token_type_ids"] * has_token_types(model))


def forward(model: Any, *, lowering: Lowering = PLAIN, **inputs: Any) -> dict[str, Any]:
    """Call a model for inference.

    Args:
        model: any model, or a `SentenceEncoder`.
        lowering: which operations it takes: `EXPORT` for graphs that leave this process.
        **inputs: by name.

    Returns:
        The outputs by name, in float32, without caches and states; sentence embeddings cut to `truncate_dim`.
    """
    off = ("use_cache", "output_attentions", "output_hidden_states")
    flags = {name: False for name in off if name in model.input_names}
    if "return_dict" in model.input_names:
        flags["return_dict"] = True
    outputs = model(**inputs, **flags, training=False, lowering=lowering)
    outputs = {name: ops.cast(value, "float32") for name, value in outputs.items()}
    if getattr(model, "truncate_dim", None) is not None:  # as `encode` cuts what a `SentenceEncoder` gives
        outputs["sentence_embedding"] = outputs["sentence_embedding"][:, : model.dimension]
    return outputs


def tokenizer_of(model: Any, given: Any) -> Any:
    """The tokenizer of an export: the one that was given, by itself or by its place, else the model's own, else None.

    Raises:
        ValueError: something else was given.
        OSError: there is none at the place.
    """
    if given is None:
        return getattr(model, "tokenizer", None)
    if isinstance(given, (str, os.PathLike)):
        return AutoTokenizer.from_pretrained(given)
    if not hasattr(given, "save_pretrained"):
        raise ValueError(f"tokenizer={quote(given)}; a tokenizer, or where to find one, is expected.")
    return given
