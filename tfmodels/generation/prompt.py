"""Prompts: read from what users give, checked, and padded to buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from tfmodels.cache import kv
from tfmodels.cache.int8 import whole
from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.settings import SETTINGS
from tfmodels.generation.step import Prompt
from tfmodels.runtime.buckets import bucket_batch, bucket_capacity, bucket_prompt
from tfmodels.utils.text import holds_text, joined, quote
from tfmodels.utils.warn import warn


class Prompts(NamedTuple):
    """Prompts of one call as arrays.

    Fields:
        ids: int32 (rows, length); -1 where the prompt is given as embeddings.
        mask: bool (rows, length), False at padding.
        embeds: (rows, length, hidden_size), or None.
        positions: int32 (rows, length + 1), of every column and of the first new token; None to count tokens.
    """

    ids: np.ndarray
    mask: np.ndarray
    embeds: np.ndarray | None
    positions: np.ndarray | None = None

    def repeat(self, times: int) -> Prompts:
        """Every row so many times, one after the other."""
        if times == 1:
            return self
        return Prompts(*(None if array is None else np.repeat(array, times, axis=0) for array in self))


def read_prompts(
    inputs: Any,
    attention_mask: Any,
    inputs_embeds: Any,
    position_ids: Any,
    *,
    config: GenerationConfig,
    model_config: Any,
) -> Prompts:
    """Check what `generate` was given as prompt; its arguments and errors are described there."""
    if isinstance(inputs, Mapping):
        inputs, attention_mask, position_ids = _from_mapping(inputs, attention_mask, position_ids)
    if inputs is not None and inputs_embeds is not None:
        raise ValueError("give the prompt as ids or as inputs_embeds, not both.")
    embeds = None
    if inputs_embeds is not None:
        embeds = array_of(inputs_embeds, "inputs_embeds")
        if embeds.ndim != 3 or embeds.shape[2] != model_config.hidden_size:
            raise ValueError(
                f"inputs_embeds has shape {embeds.shape}; (batch, length, {model_config.hidden_size}) was expected."
            )
        for name in ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"):
            if getattr(config, name) not in SETTINGS[name].neutral:
                raise ValueError(f"{name} needs the prompt as ids, not as inputs_embeds.")
        ids = np.full(embeds.shape[:2], -1, "int32")
    else:
        if inputs is None:
            if config.bos_token_id is None:
                raise ValueError("generate needs a prompt: no ids were given and bos_token_id is None.")
            inputs = [[config.bos_token_id]]
        ids = array_of(inputs, "the prompt")
        if ids.ndim == 2 and ids.size and ids.dtype.kind not in "iu":
            raise ValueError(f"input_ids hold {ids.dtype} numbers; integers were expected.")
        if ids.ndim != 2:
            raise ValueError(f"the prompt has shape {ids.shape}; (batch, length) of token ids is expected.")
    if 0 in ids.shape:
        raise ValueError(f"the prompt is empty (shape {ids.shape}); at least one row of one token is needed.")
    vocab_size = model_config.vocab_size
    if embeds is None and (ids.min() < 0 or ids.max() >= vocab_size):
        raise ValueError(
            f"the prompt holds ids from {ids.min()} to {ids.max()}; the vocabulary has ids 0 to {vocab_size - 1}."
        )
    ids = ids.astype("int32")
    if attention_mask is None:
        mask = np.ones(ids.shape, bool)
        pad = config.pad_token_id
        if embeds is None and pad is not None and pad not in config.eos_token_ids:
            mask = ids != pad
    else:
        mask = array_of(attention_mask, "attention_mask") != 0
        if mask.shape != ids.shape:
            raise ValueError(f"attention_mask has shape {mask.shape}; the prompt's, {ids.shape}, was expected.")
    if not mask[:, -1].all():
        warn(
            "the prompt is padded on the right: rows continue after their padding. Pad on the left for generation "
            '(tokenizer.padding_side = "left").'
        )
    return Prompts(ids, mask, embeds, None if position_ids is None else _positions(position_ids, mask))


def _positions(position_ids: Any, mask: np.ndarray) -> np.ndarray:
    """The positions that a caller gave, as `Prompts` has them; padding, whose position says nothing, gets 0."""
    given = array_of(position_ids, "position_ids")
    rows, length = mask.shape
    positions = given[None] if given.ndim == 1 else given
    if positions.shape not in ((1, length), (rows, length)):
        raise ValueError(f"position_ids have shape {given.shape}; the prompt's, {mask.shape}, was expected.")
    if positions.dtype.kind not in "iu":
        raise ValueError(f"position_ids hold {positions.dtype} numbers; integers were expected.")
    positions = np.where(mask, positions, 0)
    if positions.min() < 0:
        raise ValueError(f"position_ids go down to {positions.min()}; 0 is the first position.")
    last = length - 1 - np.argmax(mask[:, ::-1], axis=1)
    after = np.take_along_axis(positions, last[:, None], axis=1) + mask.any(axis=1, keepdims=True)
    return np.concatenate([positions, after], axis=1).astype("int32")


def _counted(mask: np.ndarray) -> np.ndarray:
    """The positions of tokens by their number in the row, as `Prompts` has them."""
    count = np.cumsum(mask, axis=1)
    return np.concatenate([(count - 1) * mask, count[:, -1:]], axis=1).astype("int32")


def _from_mapping(inputs: Mapping[str, Any], attention_mask: Any, position_ids: Any) -> tuple[Any, Any, Any]:
    """Ids, mask and positions of what a tokenizer returned."""
    if "input_ids" not in inputs:
        raise ValueError(f"the prompt is a dict with {quote(sorted(inputs))}; input_ids is missing.")
    if others := sorted(inputs.keys() - {"input_ids", "attention_mask", "position_ids"}):
        warn(f"generate has no use for {joined(others)} of the prompt, which change nothing.")
    if attention_mask is None:
        attention_mask = inputs.get("attention_mask")
    if position_ids is None:
        position_ids = inputs.get("position_ids")
    return inputs["input_ids"], attention_mask, position_ids


def array_of(values: Any, name: str) -> np.ndarray:
    """The values of a prompt as an array.

    Raises:
        TypeError: they are not known yet, the call is being traced by a `tf.function`, or a sparse tensor.
        ValueError: rows of different lengths, or text.
    """
    if type(values).__name__ == "SparseTensor":
        raise TypeError(f"{name} is a sparse tensor; give tf.sparse.to_dense of it.")
    known_later = isinstance(values, keras.KerasTensor) or (ops.is_tensor(values) and is_symbolic(values))
    if not known_later and _is_traced():
        raise TypeError(
            "generate was called inside of a tf.function, and its programs cannot be part of another one: call it "
            "outside, where it compiles by itself, or use model.export(folder), whose SavedModel generates in a graph."
        )
    if known_later:
        raise TypeError(
            f"{name} is a symbolic tensor (of a tf.function, a functional model, or jax.jit), and generate looks at "
            "its values: call generate outside, where it compiles by itself, or use model.export(folder), whose "
            "SavedModel generates in a graph."
        )
    if ops.is_tensor(values):
        return np.asarray(ops.convert_to_numpy(values))
    if holds_text(values):
        raise ValueError(f'{name} is text, {quote(values)}; token ids were expected: tokenizer(text)["input_ids"].')
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} has rows of different lengths; pad them on the left (tokenizer(..., padding=True)), or use "
            "model.generate_batch."
        ) from error


def ids_of(prompt: Any, vocab_size: int, name: str = "prompt") -> tuple[int, ...]:
    """The token ids of one prompt.

    Args:
        prompt: (length,) or (1, length).
        vocab_size: of the model.
        name: what messages call the prompt.

    Raises:
        TypeError: as `array_of`.
        ValueError: a prompt of another shape: one id, or several rows; no ids, or ids outside the vocabulary; else as
            `array_of`.

    Example:
        >>> ids_of(np.array([[1, 403]]), vocab_size=512)
        (1, 403)
    """
    ids = array_of(prompt, "the prompt" if name == "prompt" else name)
    if ids.ndim == 2 and len(ids) == 1:
        ids = ids[0]
    if ids.ndim != 1:
        raise ValueError(
            f"{name}={quote(prompt)}: the token ids of one text, of shape (length,) or (1, length), were expected."
        )
    tokens = tuple(ids.tolist())
    if not tokens or not all(isinstance(token, int) and 0 <= token < vocab_size for token in tokens):
        raise ValueError(f"{name}={quote(prompt)}: a list of token ids from 0 to {vocab_size - 1} was expected.")
    return tokens


def check_room(length: int, capacity: int, name: str = "the prompt") -> None:
    """Raise ValueError where a prompt of so many tokens leaves no room for a new one; the message calls it `name`."""
    if length >= capacity:
        raise ValueError(f"{name} of {length} tokens leaves no room for a new one within capacity={capacity}.")


def _is_traced() -> bool:
    """Whether TensorFlow is tracing the code that calls this."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def is_symbolic(tensor: Any) -> bool:
    """Whether a backend tensor stands for a value that is known later only."""
    if keras.backend.backend() == "tensorflow":
        return not hasattr(tensor, "numpy")
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    return False


def with_negatives(prompts: Prompts, negative_ids: Any, negative_mask: Any, *, vocab_size: int) -> Prompts:
    """Prompts with a negative one after each, whose positions are counted; left out, it is the prompt's last token.

    Raises:
        ValueError: the negative prompts have another number of rows, a wrong shape or ids outside the vocabulary.
    """
    if prompts.embeds is not None:
        raise ValueError("guidance_scale needs the prompt as ids, not as inputs_embeds.")
    rows = len(prompts.ids)
    ids = (
        prompts.ids[:, -1:] if negative_ids is None else array_of(negative_ids, "negative_prompt_ids").astype("int32")
    )
    if ids.ndim != 2 or len(ids) not in (1, rows) or 0 in ids.shape:
        expected = "(1, length)" if rows == 1 else f"(1 or {rows}, length)"
        raise ValueError(f"negative_prompt_ids have shape {ids.shape}; {expected} was expected.")
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise ValueError(
            f"negative_prompt_ids hold ids from {ids.min()} to {ids.max()}; the vocabulary has ids 0 to "
            f"{vocab_size - 1}."
        )
    mask = np.ones(ids.shape, bool)
    if negative_mask is not None:
        mask = array_of(negative_mask, "negative_prompt_attention_mask") != 0
    if mask.shape != ids.shape:
        raise ValueError(f"negative_prompt_attention_mask has shape {mask.shape}; {ids.shape} was expected.")
    ids, mask = np.broadcast_to(ids, (rows, ids.shape[1])), np.broadcast_to(mask, (rows, ids.shape[1]))

    def paired(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        most = max(own.shape[1], other.shape[1])
        padded = [np.pad(x, ((0, 0), (most - x.shape[1], 0))) for x in (own, other)]
        return np.stack(padded, axis=1).reshape(2 * rows, most)

    positions = None if prompts.positions is None else paired(prompts.positions, _counted(mask))
    return Prompts(paired(prompts.ids, ids), paired(prompts.mask, mask), None, positions)


def to_buckets(prompts: Prompts, new: int, past: Any = None, *, context: int = 0, shift: int = 0) -> Prompt:
    """Pad prompts to bucketed sizes, with room for `new` tokens.

    Args:
        prompts: of the whole text.
        new: tokens to generate at most.
        context: longest text of the model, up to which the room may be more than is needed (`bucket_capacity`).
        past: keys and values of the first tokens, per layer (rows, key_value_heads, length, head_dim), or None.
        shift: first columns that hold tokens of longer negative prompts alone.

    Raises:
        ValueError: `past` has other rows, or as many tokens as the prompt or more.
    """
    ids, mask, embeds, positions = prompts
    rows, length = ids.shape
    batch, padded = bucket_batch(rows), bucket_prompt(length)
    capacity = bucket_capacity(padded + new, context)
    before, below = padded - length, batch - rows

    def spread(array: np.ndarray) -> np.ndarray:
        # Rows that fill the batch repeat the last one, which keeps them free of special cases.
        array = np.concatenate([array, np.repeat(array[-1:], below, axis=0)]) if below else array
        return np.pad(array, [(0, 0), (before, 0)] + [(0, 0)] * (array.ndim - 2))

    layers = None
    if past is not None:
        past = tuple(tuple(whole(x) for x in pair) for pair in kv.layers_of(past))
        known_rows, known = past[0][0].shape[0], int(past[0][0].shape[2])
        if known_rows != rows or known >= length:
            raise ValueError(
                f"past_key_values hold {known} tokens of {known_rows} rows; the prompt has {length} tokens of {rows} "
                "rows: give the whole text as inputs, at least one token longer."
            )
        # The length of what is run is a bucket: some tokens may be run a second time.
        columns = max(padded - bucket_prompt(length - known), 0)
        if columns > before:

            def spread_past(x: Any) -> Any:
                x = np.asarray(ops.convert_to_numpy(x))[:, :, : columns - before]
                x = np.concatenate([x, np.repeat(x[-1:], below, axis=0)])
                return ops.convert_to_tensor(np.pad(x, ((0, 0), (0, 0), (before, 0), (0, 0))))

            layers = tuple((spread_past(key), spread_past(value)) for key, value in past)
    attended = np.pad(spread(mask), ((0, 0), (0, capacity - padded)), constant_values=True)
    return Prompt(
        ids=ops.convert_to_tensor(spread(ids)),
        embeds=None if embeds is None else ops.convert_to_tensor(spread(embeds)),
        attended=ops.convert_to_tensor(attended),
        start=ops.convert_to_tensor(before + shift if embeds is None else padded, "int32"),
        finished=ops.convert_to_tensor(np.arange(batch) >= rows),
        past=layers,
        positions=None if positions is None else ops.convert_to_tensor(spread(positions)),
    )
