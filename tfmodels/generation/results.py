"""The results of `generate`, made from the state after the last step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from tfmodels.cache import kv
from tfmodels.cache.int8 import whole
from tfmodels.generation.config import GenerationConfig
from tfmodels.generation.outputs import GenerateOutput
from tfmodels.generation.prompt import Prompts
from tfmodels.generation.sampling import NONE_ALLOWED
from tfmodels.generation.step import State
from tfmodels.generation.strategies import beams
from tfmodels.kernels.masks import positions_from_mask


def result_of(model: Any, state: State, prompts: Prompts, config: GenerationConfig, rows_per_sequence: int = 1) -> Any:
    """The sequences, or a `GenerateOutput` with what else was asked for.

    Args:
        model: the model that generated.
        state: after the last step.
        prompts: without what fills buckets.
        config: the settings of the call.
        rows_per_sequence: rows of the state for each sequence; the first counts.
    """
    rows, steps, end = len(prompts.ids), int(state.step), int(state.prompt_end)
    if config.num_beams > 1:
        return _beam_result(model, state, prompts, config)
    added = state.ids[: rows * rows_per_sequence : rows_per_sequence, end : end + steps]
    check_numbers(model, added)
    prompt = prompts.ids if prompts.embeds is None else prompts.ids[:, :0]
    sequences = ops.concatenate([ops.convert_to_tensor(prompt), added], axis=1)
    if not config.return_dict_in_generate:
        return sequences
    return GenerateOutput(
        sequences=sequences,
        **_records(state, rows, rows_per_sequence),
        **_states_and_weights(model, prompts, added, config),
        past_key_values=None if rows_per_sequence > 1 else _grown_cache(state, rows, prompts.ids.shape[1]),
    )


def _beam_result(model: Any, state: State, prompts: Prompts, config: GenerationConfig) -> Any:
    rows, returned = len(prompts.ids), config.num_return_sequences
    # As in the reference, a padding id of 0 does not count here.
    fill = config.pad_token_id or (config.eos_token_ids or (-1,))[0]
    added, scores, origins = (
        part[:rows, :returned].reshape(rows * returned, *part.shape[2:])
        for part in beams.results(state.carry, int(state.prompt_end), fill)
    )
    length = int((origins >= 0).sum(axis=1).max())
    added, origins = added[:, :length], origins[:, :length]
    check_numbers(model, np.where(origins >= 0, added, 0))
    prompt = np.repeat(prompts.ids if prompts.embeds is None else prompts.ids[:, :0], returned, axis=0)
    sequences = ops.convert_to_tensor(np.concatenate([prompt, added], axis=1).astype("int32"))
    if not config.return_dict_in_generate:
        return sequences
    return GenerateOutput(
        sequences=sequences,
        sequences_scores=ops.convert_to_tensor(scores) if config.output_scores else None,
        beam_indices=ops.convert_to_tensor(origins),
        **_records(state, rows * config.num_beams),
        past_key_values=_grown_cache(state, rows * config.num_beams, prompts.ids.shape[1]),
    )


def check_numbers(model: Any, added: Any, done: int = 0) -> None:
    """Raise an error where a new token (rows, new) is a mark that there is none; `done` tokens came before them."""
    added = np.asarray(ops.convert_to_numpy(added))
    if (added < 0).any():
        row, step = np.argwhere(added < 0)[0]
        mark, step = added[row, step], done + step
        if mark == NONE_ALLOWED:
            raise ValueError(
                f"no token may come in row {row} at new token {step}: suppress_tokens, bad_words_ids or another "
                "setting or function on scores bans all of them."
            )
        way = " (load with dtype='float32' or 'bfloat16')" if model.compute_dtype == "float16" else ""
        raise FloatingPointError(
            f"the model's scores are NaN in row {row} at new token {step}: the weights hold NaN, or "
            f"{model.compute_dtype} overflows{way}."
        )


def _records(state: State, rows: int, rows_per_sequence: int = 1) -> dict[str, Any]:
    """Scores and logits of each step, where they were kept; logits are those of a sequence's first row."""
    steps, scores, logits = range(int(state.step)), state.scores, state.logits
    last = rows * rows_per_sequence
    return {
        "scores": None if scores is None else tuple(scores[index, :rows] for index in steps),
        "logits": None if logits is None else tuple(logits[index, :last:rows_per_sequence] for index in steps),
    }


def _grown_cache(state: State, rows: int, length: int) -> Any:
    """The cache as models return it, of `length` columns of the prompt and all new tokens but the last, never run."""
    if state.cache is None:
        return None
    first, last = int(state.prompt_end) - length, int(state.prompt_end) + int(state.step) - 1
    cache = kv.split_rows(state.cache, state.ids.shape[0])
    return tuple(tuple(whole(x)[:rows, :, first:last] for x in pair) for pair in cache.layers)


def _states_and_weights(model: Any, prompts: Prompts, added: Any, config: GenerationConfig) -> dict[str, Any]:
    """Hidden states and attention weights of each step, by running the finished sequences once more.

    The first step has those of the whole prompt, every other one those of one token; without a cache, those of all
    tokens so far.
    """
    names = [name for name in ("hidden_states", "attentions") if getattr(config, f"output_{name}")]
    if not names:
        return {}
    length, steps = prompts.ids.shape[1], added.shape[1]
    mask = np.pad(prompts.mask, ((0, 0), (0, steps - 1)), constant_values=True)
    if prompts.embeds is None:
        inputs = {"input_ids": ops.concatenate([ops.convert_to_tensor(prompts.ids), added[:, :-1]], axis=1)}
    else:
        own = model.get_input_embeddings()(added[:, :-1])
        inputs = {"inputs_embeds": ops.concatenate([ops.cast(prompts.embeds, own.dtype), own], axis=1)}
    positions = positions_from_mask(ops.convert_to_tensor(mask))
    if prompts.positions is not None:
        later = prompts.positions[:, -1:] + np.arange(steps - 1, dtype="int32")
        positions = np.concatenate([prompts.positions[:, :-1], later], axis=1)
    output = model(
        **inputs,
        attention_mask=mask,
        position_ids=positions,
        # Without a cache, positions that restart would set texts apart.
        use_cache=prompts.positions is not None,
        return_dict=True,
        **{f"output_{name}": True for name in names},
    )

    def of_step(name: str, x: Any, step: int) -> Any:
        last = length + step
        first = last - 1 if step and config.use_cache else 0
        return x[:, first:last] if name == "hidden_states" else x[:, :, first:last, :last]

    return {
        name: tuple(tuple(of_step(name, layer, step) for layer in output[name]) for step in range(steps))
        for name in names
    }


def transition_scores(sequences: Any, scores: Sequence[Any], beam_indices: Any, normalize_logits: bool) -> Any:
    """The scores of generated tokens; see `GenerationMixin.compute_transition_scores`."""
    scores = np.stack([np.asarray(ops.convert_to_numpy(step)) for step in scores])
    if normalize_logits:
        top = scores.max(axis=-1, keepdims=True)
        scores = scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))
    sequences = np.asarray(ops.convert_to_numpy(sequences))
    if beam_indices is None:
        rows = np.broadcast_to(np.arange(len(sequences))[:, None], (len(sequences), len(scores)))
    else:
        rows = np.asarray(ops.convert_to_numpy(beam_indices))
    tokens = sequences[:, sequences.shape[1] - rows.shape[1] :]
    found = scores[np.arange(rows.shape[1]), np.maximum(rows, 0), np.maximum(tokens, 0)]
    return ops.convert_to_tensor(np.where(rows >= 0, found, 0).astype("float32"))
