"""Signatures for servers that batch requests: each row says its length, whatever stands behind it.

TensorFlow Serving joins requests of different lengths by repeating each tensor's first element
(`pad_variable_length_inputs`). An `attention_mask`, whose first element is 1, then counts the padding as text; a row's
length stays what it is.

- `serving_lengths`: `input_ids` (batch, length) and `lengths` (batch,) to what `serving_default` gives.
- `generate_lengths`: with `max_new_tokens` (batch,), too, to `new_tokens`, the greedy continuations alone, filled up
  by the padding token. A prompt stands at the beginning of its row.

Every input has a row for every text, as server-side batching wants it. Source: batching_session.h and
session_bundle_config.proto of TensorFlow Serving.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfmodels.export.models import causal, rank_of, transformer_of
from tfmodels.export.saved_model.functions import graph_function, input_specs


def signatures(model: Any, functions: dict[str, Any]) -> dict[str, Any]:
    """Make `serving_lengths` and, for causal language models, `generate_lengths`.

    Args:
        model: the model.
        functions: its other signatures, which these call.
    """
    pad = transformer_of(model).config.pad_token_id or 0
    # Multiple choice has a length for every choice.
    per_row = tf.TensorSpec([None] * (rank_of(model) - 1), tf.int32, name="lengths")
    specs = {**input_specs(model, tf.int32, "input_ids"), "lengths": per_row}

    def serve(input_ids: Any, lengths: Any) -> dict[str, Any]:
        with tf.control_dependencies(_checks(input_ids, lengths)):
            mask = tf.sequence_mask(lengths, tf.shape(input_ids)[-1], tf.int32)
        # Heads that look for a row's last token find it by the padding token.
        return functions["serving_default"](input_ids=tf.where(mask != 0, input_ids, pad), attention_mask=mask)

    made = {"serving_lengths": graph_function(serve, specs)}
    if causal(model):
        new_spec = tf.TensorSpec([None], tf.int32, name="max_new_tokens")

        def generate(input_ids: Any, lengths: Any, max_new_tokens: Any) -> dict[str, Any]:
            with tf.control_dependencies(_checks(input_ids, lengths)):
                ids, mask = _right_aligned(input_ids, lengths, pad)
            eos = tf.constant(model.generation_config.eos_token_ids, tf.int32)
            most = tf.reduce_max(max_new_tokens)
            whole = functions["generate"](input_ids=ids, attention_mask=mask, max_new_tokens=most, eos_token_id=eos)[
                "sequences"
            ]
            new = whole[:, tf.shape(ids)[1] :]
            own = tf.sequence_mask(max_new_tokens, tf.shape(new)[1])
            return {"new_tokens": tf.where(own, new, model.generation_config.fill_token_id)}

        made["generate_lengths"] = graph_function(generate, {**specs, "max_new_tokens": new_spec})
    return made


def _checks(ids: Any, lengths: Any) -> list[Any]:
    return [
        tf.debugging.assert_positive(lengths, message="lengths must be positive"),
        tf.debugging.assert_less_equal(lengths, tf.shape(ids)[-1], message="lengths lie beyond input_ids"),
    ]


def _right_aligned(ids: Any, lengths: Any, pad: int) -> tuple[Any, Any]:
    """Prompts moved to the end of their rows, where the continuation begins, and their mask; both (batch, longest)."""
    longest = tf.reduce_max(lengths)
    places = tf.range(longest)[None] - (longest - lengths[:, None])
    mask = places >= 0
    moved = tf.gather(ids, tf.maximum(places, 0), batch_dims=1)
    return tf.where(mask, moved, pad), tf.cast(mask, tf.int32)
